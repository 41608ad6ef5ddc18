"""What looking at versions found: one line for each version, place and question, with its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from lockstep.errors import DigestMismatchError, UnreachableError
from lockstep.rules.state import Version

MLFLOW: Final = "mlflow"
LEDGER: Final = "ledger"
#: Questions, in the order in which they are shown: is the manifest sealed and signed; are the bytes right; are those
#: of the source that MLflow registered; are parameters and metrics those of the manifest; are records as written;
#: which version answers.
SEAL, BYTES, SOURCE, RUN, RECORD, ANSWERS = QUESTIONS = ("seal", "bytes", "source", "run", "record", "answers")
SHOWN: Final = 20  # problems in an error's text


class Finding(Enum):
    """The answer to one question; a person reads the value."""

    OK = "ok"
    ALTERED = "ALTERED"
    UNKNOWN = "unknown"  # it could not be looked at
    NOTHING = "-"  # there is nothing to look at


@dataclass(frozen=True)
class Check:
    """One question about one version in one place ("mlflow", or a cloud's name); `told` says why the answer is so.

    `version` is None for what belongs to no version: a slot that serves and that nobody sealed.
    """

    version: Version | None
    where: str
    what: str
    finding: Finding
    told: tuple[str, ...] = ()

    def lines(self) -> tuple[str, ...]:
        """What was found, each with version and place."""
        name = f"version {self.version.label} ({self.version.digest[:12]})" if self.version else "no version"
        return tuple(f"{name}, {self.where}: {text}" for text in self.told)


@dataclass(frozen=True)
class Verification:
    """All answers about a model's versions; `sample` is the share of the bytes that was read."""

    model: str
    sample: float
    checks: tuple[Check, ...]

    @property
    def altered(self) -> tuple[str, ...]:
        """Every difference, with version and place."""
        return self._lines(Finding.ALTERED)

    @property
    def unknown(self) -> tuple[str, ...]:
        """What could not be looked at, and why."""
        return self._lines(Finding.UNKNOWN)

    @property
    def intact(self) -> bool:
        """Whether everything was looked at and nothing differs."""
        return not any(check.finding in (Finding.ALTERED, Finding.UNKNOWN) for check in self.checks)

    @property
    def error(self) -> DigestMismatchError | UnreachableError | None:
        """The error that it amounts to: a difference, else a place that could not be looked at."""
        if self.altered:
            return DigestMismatchError(
                f"{self.model} is not as it was sealed: {_some(self.altered)}",
                hint=f"find out who changed it; `lockstep verify {self.model}` shows all, docs/verify.md what to do",
            )
        if self.unknown:
            return UnreachableError(
                f"not all of {self.model} could be looked at: {_some(self.unknown)}",
                hint=f"mend what is named, then: lockstep verify {self.model}",
            )
        return None

    def document(self) -> Mapping[str, object]:
        """As plain JSON values."""
        return {
            "model": self.model,
            "sample": f"{self.sample:g}",
            "intact": self.intact,
            "checks": [
                {
                    "version": check.version.label if check.version else None,
                    "digest": check.version.digest if check.version else None,
                    "where": check.where,
                    "check": check.what,
                    "finding": check.finding.value,
                    "told": list(check.told),
                }
                for check in self.checks
            ],
        }

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Headings and rows: a version's questions below each other, places beside each other."""
        places = tuple(dict.fromkeys(check.where for check in self.checks))
        versions = dict.fromkeys(check.version for check in self.checks)
        found = {(check.version, check.what, check.where): check.finding.value for check in self.checks}
        rows = [
            (
                f"{version.label} ({version.digest[:12]})" if version else "(none)",
                what,
                *(found.get((version, what, place), "") for place in places),
            )
            for version in versions
            for what in QUESTIONS
            if any((version, what, place) in found for place in places)
        ]
        return ("version", "check", *places), rows

    def _lines(self, finding: Finding) -> tuple[str, ...]:
        return tuple(line for check in self.checks if check.finding is finding for line in check.lines())


def _some(lines: tuple[str, ...]) -> str:
    more = len(lines) - SHOWN
    return "; ".join(lines[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
