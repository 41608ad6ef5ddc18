"""A rollback that only brings a cloud over is told as one, however what should serve was decided, and counts once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lockstep.agent.carrying import Outcome, _done, _from_ledger
from lockstep.agent.notice import of_intent
from lockstep.operations.rollback import Rollback
from lockstep.operations.unfinished import find_open
from lockstep.rules.alerts.flapping import Flapping, own_rollbacks
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.rules.brought import changed_clouds, other_slots
from lockstep.rules.deeds import read_deeds
from lockstep.rules.event_names import INTENT_ENDED, ROLLBACK_COMPLETED
from lockstep.rules.plan import Plan
from lockstep.rules.state import FleetState, Version
from lockstep.rules.switch import SwitchResult
from lockstep.stores.ledger import Entry
from tests.unit.lines import Line

V1, V2 = (Version("churn", str(n), str(n) * 64) for n in (1, 2))
INTENT = Intent("a", "churn", "", "", Action.ROLLBACK, State.DONE, "why", "alert:am", 1, 500.0, 510.0, moved=True)
NOBODY = FleetState("churn", (), {})
BEFORE = {"aws": {V1.slot: 100, V2.slot: 0}, "azure": {V1.slot: 0, V2.slot: 100}, "gcp": {V1.slot: 100}}
SECONDS = {"aws": 0.5, "azure": 1.2, "gcp": 0.4}
BODY = {
    **{"version": "1", "digest": V1.digest, "leaves": [], "before": BEFORE},
    "slots": {one.slot: {"version": one.label, "digest": one.digest} for one in (V1, V2)},
}


def rolled(*left: Version, **more: Any) -> Outcome:
    return _done(Rollback(V1, left, Plan("churn", ()), NOBODY, NOBODY, SwitchResult(SECONDS, {}), 1.2, **more))


def from_ledger(before: object) -> Outcome:
    (deed,) = read_deeds(
        [
            Line(1, "e/intent", 1.0, "rollback.intent", {**BODY, "before": before}),
            Line(2, "e/outcome", 2.0, "rollback.outcome", {"intent": "e", "seconds": SECONDS, "left": [], "error": ""}),
        ]
    )
    return _from_ledger("churn", deed)


def test_a_cloud_that_served_something_else_or_did_not_say_was_changed() -> None:
    assert changed_clouds(V1, BEFORE, SECONDS) == ("azure",)
    assert other_slots(V1, BEFORE, ("azure",)) == (V2.slot,)
    silent = {**BEFORE, "gcp": "unreachable: no route"}
    assert changed_clouds(V1, silent, SECONDS) == ("azure", "gcp")
    assert changed_clouds(V1, silent, ("aws",)) == (), "one that could not follow was not"
    assert other_slots(V1, silent, ("gcp",)) == ()


def test_by_the_clouds_it_is_told_whether_anything_was_rolled_back() -> None:
    brought = rolled(changed=("azure",), brought=(V2,))
    assert (brought.moved, brought.version, brought.fields["left"]) == (True, V2.digest, "2")
    assert brought.told == f"{V1} serves on every cloud after 1.2 s: azure was brought over from version 2"
    silent = rolled(changed=("azure", "gcp"))
    assert (silent.moved, silent.told.partition(": ")[2]) == (True, "azure, gcp were brought over")
    nothing = rolled()
    assert (nothing.moved, nothing.told) == (False, f"{V1} serves on every cloud after 1.2 s, as it did before")
    assert rolled(V2, changed=tuple(SECONDS)).told == f"{V1} serves on every cloud after 1.2 s"


def test_after_a_kill_the_ledger_tells_the_same() -> None:
    found = from_ledger(BEFORE)
    assert (found.state, found.moved, found.version, found.fields["left"]) == (State.DONE, True, V2.digest, "2")
    assert not from_ledger({cloud: {V1.slot: 100} for cloud in SECONDS}).moved
    begun = find_open("churn", [Entry(1, "e/intent", 1.0, "rollback.intent", "churn", "ann", BODY)])
    assert begun is not None
    assert begun.before == BEFORE, "what it moved before it was killed counts, too"


def test_whoever_listens_for_rollbacks_hears_of_it() -> None:
    told = of_intent(INTENT, 510.0)
    assert (told.event, told.title) == (ROLLBACK_COMPLETED, "churn: rolled back")
    assert of_intent(replace(INTENT, moved=False), 510.0).event == INTENT_ENDED


@pytest.mark.parametrize(
    ("count", "problem", "title"),
    [
        (1, "", "churn: rolled back, and held: rolled back once within 6 h"),
        (2, "no ledger", "churn: rolled back, and could not be held: rolled back 2 times within 6 h"),
    ],
)
def test_a_hold_for_flapping_stands_in_the_title(count: int, problem: str, title: str) -> None:
    found = replace(Flapping.of("churn", count, 6 * 3600.0), problem=problem)
    assert of_intent(INTENT, 510.0, {}, found).title == title
    assert (problem or "lockstep release churn") in str(found)


def test_finishing_a_split_of_the_same_version_is_no_rollback_of_its_own() -> None:
    split = replace(INTENT, id="s", state=State.SPLIT, version=V2.digest, began=100.0)
    by_name = replace(split, version="", asked="@2")
    finished, anew = (replace(INTENT, id=name, version=V2.digest) for name in ("f", "n"))
    anew = replace(anew, began=900.0)
    assert own_rollbacks([finished, split]) == (split,)
    assert own_rollbacks([replace(finished, asked="2"), by_name]) == (by_name,)
    assert own_rollbacks([anew, finished, split]) == (anew, split), "the split had ended when that one came"
    other = replace(finished, version=V1.digest)
    assert own_rollbacks([other, split]) == (other, split)
    unmoved = replace(split, moved=False)
    assert own_rollbacks([finished, unmoved]) == (finished, unmoved)
    assert own_rollbacks([finished, replace(split, state=State.DONE)])[0] == finished
