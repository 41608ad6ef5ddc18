"""A person's word for a rollout, given on the command line: beforehand by an option, or asked for at the terminal."""

from __future__ import annotations

import select
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from lockstep.operations.approving import Approver, Question
    from lockstep.rules.approval import Word

LOOK: Final = 1.0  # seconds between two looks whether anybody needs to answer
YES: Final = ("y", "yes")
NO: Final = ("", "n", "no")


def approver_for(actor: str, reason: str, *, quiet: bool) -> Approver | None:
    """Who gives the word: `reason` by the one who deploys, else whoever sits at the terminal, else nobody (None)."""
    if not reason and (quiet or not sys.stdin.isatty()):
        return None

    def answer(question: Question) -> Word | None:
        from lockstep.rules.approval import Word

        return Word(True, actor, reason) if reason else _asked(question, actor)

    return answer


def _asked(question: Question, actor: str) -> Word | None:
    """Ask at the terminal; raises what the question's check raises, also while nobody types."""
    import typer

    from lockstep.rules.approval import Word

    for line in question.told:
        typer.echo(line)
    until = time.monotonic() + question.seconds
    try:
        said = _line(f"{question} [y/N]: ", question, until, lambda given: given.lower() in (*YES, *NO)).lower()
        if said not in YES:
            return _no(question, actor, until)
        name = _line(f"Your name [{actor}]: ", question, until)
        return Word(True, name or actor, _line("Why: ", question, until, bool))
    except TimeoutError:
        typer.echo()
        return None


def _no(question: Question, actor: str, until: float) -> Word:
    """A no, which needs no reason, and stands whether or not its name and reason come in time."""
    import typer

    from lockstep.rules.approval import Word

    name = reason = ""
    try:
        name = _line(f"Your name [{actor}]: ", question, until)
        reason = _line("Why (Enter for no reason): ", question, until)
    except TimeoutError:
        typer.echo()
    return Word(False, name or actor, reason)


def _line(prompt: str, question: Question, until: float, fits: Callable[[str], bool] = lambda given: True) -> str:
    """A line that somebody types and that fits; raises TimeoutError when nobody does in time."""
    import typer

    while True:
        typer.echo(prompt, nl=False)
        # A terminal gives one line at a time, so none waits in this process's own buffer.
        while not select.select([sys.stdin], [], [], LOOK)[0]:
            question.check()
            if time.monotonic() >= until:
                raise TimeoutError
        line = sys.stdin.readline()
        if not line:
            raise typer.Abort
        if fits(line.strip()):
            return line.strip()
