"""What registries and endpoints say at the moment at which a report is made; what a ledger alone cannot know."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from lockstep.errors import LockstepError
from lockstep.operations.audit.collect import Check
from lockstep.operations.fleet import Fleet
from lockstep.operations.verify import verify
from lockstep.rules.findings import ANSWERS, RECORD, RUN, SEAL, Verification
from lockstep.rules.moments import show_moment

#: All but the bytes: those are read by `lockstep verify` and the scrub, and may be terabytes.
ASKED: Final = (SEAL, RUN, RECORD, ANSWERS)


@dataclass(frozen=True)
class Attestation:
    """What was found at `at` (Unix seconds); `problem` says why nothing could be looked at."""

    at: float
    found: Verification | None
    problem: str = ""

    def document(self) -> dict[str, object]:
        """As plain JSON values, with the same table as `lockstep verify` shows."""
        headings, rows = self.found.table() if self.found is not None else ((), [])
        return {
            "at": show_moment(self.at),
            "intact": self.found.intact if self.found is not None else None,
            "problem": self.problem or None,
            "altered": list(self.found.altered) if self.found is not None else [],
            "unknown": list(self.found.unknown) if self.found is not None else [],
            "headings": list(headings),
            "rows": [list(row) for row in rows],
            "checks": self.found.document()["checks"] if self.found is not None else [],
        }

    def check(self) -> Check:
        """The same as one integrity check of the report."""
        what = "what registries and endpoints say now is what was sealed"
        if self.found is None:
            return Check(what, None, self.problem)
        told = (*self.found.altered, *self.found.unknown)
        holds = False if self.found.altered else None if self.found.unknown else True
        return Check(what, holds, "; ".join(told) or f"{len(self.found.checks)} answers at {show_moment(self.at)}")


def attest_now(fleet: Fleet) -> Attestation:
    """Ask MLflow, every native registry and every endpoint; whatever does not answer is named and stops nothing."""
    began = time.time()
    try:
        return Attestation(began, verify(fleet, asked=ASKED))
    except LockstepError as error:
        return Attestation(began, None, error.reason)
