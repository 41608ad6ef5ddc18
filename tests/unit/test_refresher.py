"""What a look tells of a model although its clouds, its registry or its ledger do not answer."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lockstep.agent.refresher import ENTRIES, Refresher
from lockstep.errors import UnreachableError
from lockstep.stores.ledger import Event, Ledger


def test_a_hold_is_seen_before_anything_that_may_fail_and_not_forgotten() -> None:
    told: list[str | None] = ["held since noon by Ada", None, ""]

    def held(fleet: object) -> str:
        said = told.pop(0)
        if said is None:
            raise UnreachableError("the ledger is away")
        return said

    fleets: Any = lambda model: SimpleNamespace(ledger=SimpleNamespace(entries=lambda *_, **__: ()))  # noqa: E731
    refresher = Refresher(fleets, ["churn"], ["aws"], every=1.0, prove_every=0.0, plan_every=1.0, held=held)
    shown: list[str] = []
    while told:
        refresher._look("churn")  # such a fleet has no status
        view = refresher.overview.models["churn"]
        assert view.problem
        assert view.at <= time.time()
        shown.append(view.held)
    assert shown == ["held since noon by Ada", "held since noon by Ada", ""]


def test_what_settled_a_question_is_found_behind_any_number_of_other_entries(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "ledger.db"))
    asked = {"version": "3", "digest": "c" * 64, "gate": "before-start", "asks": "May it?", "until": time.time() + 600}
    ledger.append("q", "approval.wanted", "churn", "ann", asked)
    fleets: Any = lambda model: SimpleNamespace(ledger=ledger)  # noqa: E731
    wanted: list[str] = []
    refresher = Refresher(
        fleets,
        ["churn"],
        ["aws"],
        every=1.0,
        prove_every=0.0,
        plan_every=1.0,
        held=lambda fleet: "",
        wanted=lambda question: wanted.append(question.id),
    )
    assert [one.id for one in refresher._approvals("churn")] == wanted == ["q"]
    ledger.append("h", "hold.placed", "churn", "ann", {"reason": "late"})
    ledger.append_batch([Event(f"n{number}", "verdict.outcome", "churn", "ann", {}) for number in range(ENTRIES + 1)])
    ledger.append("r", "hold.released", "churn", "ann", {"reason": "fine"})
    assert refresher._approvals("churn") == ()
    ledger.close()
