"""Asking one question about one version in one place, so that no answer hides another."""

from __future__ import annotations

from collections.abc import Callable

from lockstep.errors import DigestMismatchError, LockstepError
from lockstep.operations.running import Job, attempt
from lockstep.rules.findings import Check, Finding
from lockstep.rules.state import Version

#: Gives the differences, one sentence each.
Look = Callable[[], tuple[str, ...]]


class NothingToLookAtError(LockstepError):
    """The question does not arise for this version in this place."""


def answer(version: Version, where: str, what: str, look: Look) -> Check:
    """Ask; a place that does not answer is asked again, and in the end that is an answer too."""
    outcome = attempt(Job(where, what, look))
    error = outcome.error
    if error is None:
        told = outcome.value or ()
        return Check(version, where, what, Finding.ALTERED if told else Finding.OK, told)
    if isinstance(error, NothingToLookAtError):
        return Check(version, where, what, Finding.NOTHING, (error.problem,))
    if isinstance(error, DigestMismatchError):
        return Check(version, where, what, Finding.ALTERED, (error.problem,))
    return Check(version, where, what, Finding.UNKNOWN, (error.reason,))
