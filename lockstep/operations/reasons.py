"""Reasons that people give: kept in the ledger and in MLflow's tags, so they have a longest length."""

from __future__ import annotations

from typing import Final

from lockstep.errors import RefusedError

LONGEST: Final = 1000  # characters


def checked_reason(reason: str, what: str = "the reason", *, needed: bool = False) -> str:
    """The reason without white space around it; raises RefusedError for one too long, or for none where it is `needed`.

    Asked before anything else is done, so that nothing was changed.
    """
    found = reason.strip()
    if len(found) > LONGEST:
        raise RefusedError(
            f"{what} has {len(found)} characters; at most {LONGEST} are kept",
            hint="nothing was changed; say it in fewer words, or name a page that tells the rest",
        )
    if needed and not found:
        raise RefusedError(f"{what} is empty", hint='nothing was changed; say why: --reason "…"')
    return found
