"""Reasons that people give: kept in the ledger and in MLflow's tags, one line each, and not longer than they allow."""

from __future__ import annotations

from typing import Final

from lockstep.errors import RefusedError
from lockstep.rules.printable import escaped, one_line, unprintable, visible

LONGEST: Final = 1000  # characters


def checked_reason(reason: str, what: str = "the reason", *, needed: bool = False) -> str:
    """The reason as one line; raises RefusedError for one too long, for control characters, or for none if `needed`.

    Asked before anything else is done, so that nothing was changed.
    """
    found = one_line(reason)
    if len(found) > LONGEST:
        raise RefusedError(
            f"{what} has {len(found)} characters; at most {LONGEST} are kept",
            hint="nothing was changed; say it in fewer words, or name a page that tells the rest",
        )
    if sign := unprintable(found):
        raise RefusedError(
            f"{what} holds the control character {escaped(sign)}",
            hint="nothing was changed; say it in plain text",
        )
    if needed and not found:
        raise RefusedError(f"{what} is empty", hint='nothing was changed; say why: --reason "…"')
    return found


def made_reason(reason: str) -> str:
    """A reason that no person is there to mend: what would be refused is cut, and written as an escape."""
    return visible(one_line(reason))[:LONGEST]
