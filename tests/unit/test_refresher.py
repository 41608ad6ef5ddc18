"""What a look tells of a model although its clouds, its registry or its ledger do not answer."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from lockstep.agent.refresher import Refresher
from lockstep.errors import UnreachableError


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
