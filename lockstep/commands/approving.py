"""A person's word for a rollout, given on the command line: beforehand by an option, or asked for at the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lockstep.operations.approving import Approver, Question
    from lockstep.rules.approval import Word


def approver_for(actor: str, reason: str, *, quiet: bool) -> Approver | None:
    """Who gives the word: `reason` by the one who deploys, else whoever sits at the terminal, else nobody (None)."""
    if not reason and (quiet or not sys.stdin.isatty()):
        return None

    def answer(question: Question) -> Word:
        from lockstep.rules.approval import Word

        return Word(True, actor, reason) if reason else _asked(question, actor)

    return answer


def _asked(question: Question, actor: str) -> Word:
    import typer

    from lockstep.rules.approval import Word

    for line in question.told:
        typer.echo(line)
    approved = typer.confirm(str(question), default=False)
    return Word(approved, typer.prompt("Your name", default=actor), typer.prompt("Why"))
