"""A rollback that was killed is found in the ledger, and only as long as nothing newer decided what serves."""

from __future__ import annotations

from lockstep.operations.unfinished import find_open
from lockstep.rules.state import Version
from lockstep.stores.ledger import Entry

V1, V2 = Version("m", "1", "1" * 64), Version("m", "2", "2" * 64)


def entry(number: int, kind: str, event: str, **body: object) -> Entry:
    end = kind.rpartition(".")[2]
    return Entry(number, f"{event}/{end}", float(number), kind, "m", "anna", body)


INTENT = entry(
    1, "rollback.intent", "e1", version="1", digest=V1.digest, leaves=[{"version": "2", "digest": V2.digest}]
)
STEP = entry(2, "shift.intent", "e2", within="e1")


def test_an_open_rollback_is_found_with_what_it_leaves() -> None:
    found = find_open("m", [entry(0, "canary_deploy.outcome", "e0", intent="e0"), INTENT, STEP])
    assert found is not None
    assert (found.event, found.target, found.left, found.actor, found.at) == ("e1", V1, (V2,), "anna", 1.0)


def test_one_that_ended_is_not_open_however_it_ended() -> None:
    assert find_open("m", [INTENT, STEP, entry(3, "rollback.outcome", "e1", intent="e1", error="split")]) is None


def test_one_after_which_another_operation_decided_is_not_gone_on_with() -> None:
    assert find_open("m", [INTENT, entry(4, "canary_deploy.intent", "e4")]) is None


def test_nothing_is_open_in_an_empty_ledger() -> None:
    assert find_open("m", []) is None


def test_what_is_left_behind_never_holds_the_target() -> None:
    found = find_open("m", [INTENT])
    assert found is not None
    assert found.leaving([V1, V2]) == (V2,)
