"""A person's word at a real terminal, a pseudo one."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator

import pytest

from lockstep.commands import approving
from lockstep.commands.approving import approver_for
from lockstep.errors import RefusedError
from lockstep.operations.approving import Question
from lockstep.rules.approval import Answer, Gate, Word, decide
from lockstep.rules.state import Version

V3 = Version("churn", "3", "c" * 64)


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """What is written to it is typed at the terminal that is the process's standard input."""
    master, slave = pty.openpty()
    with os.fdopen(slave, "r") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        monkeypatch.setattr(approving, "LOOK", 0.01)
        yield master
    os.close(master)


def asked(question: Question) -> Word | None:
    approver = approver_for("ann", "", quiet=False)
    assert approver is not None
    return approver(question)


def test_the_word_is_what_was_typed(keyboard: int, capsys: pytest.CaptureFixture[str]) -> None:
    os.write(keyboard, b"perhaps\nyes\n\n\nmeasured offline\n")
    assert asked(Question(V3, Gate.BEFORE_PROMOTION, ("50 %: fine",), 60.0)) == Word(True, "ann", "measured offline")
    shown = capsys.readouterr().out
    assert "50 %: fine" in shown
    assert shown.count("May Lockstep promote churn 3") == 2, "perhaps is no answer"
    os.write(keyboard, b"\nAda\nnot today\n")
    assert asked(Question(V3, Gate.BEFORE_START, (), 60.0)) == Word(False, "Ada", "not today")


def test_a_hold_ends_the_wait_although_nobody_types(keyboard: int) -> None:
    looks: list[int] = []

    def check() -> None:
        looks.append(1)
        if len(looks) == 3:
            raise RefusedError("churn is held")

    with pytest.raises(RefusedError, match="held"):
        asked(Question(V3, Gate.BEFORE_START, (), 60.0, check))


def test_nobody_s_word_in_time_is_none(keyboard: int) -> None:
    assert asked(Question(V3, Gate.BEFORE_START, (), 0.0)) is None


@pytest.mark.parametrize("typed", [b"n\n\n\n", b"n\n", b"no\nann\n"])
def test_a_no_needs_no_reason(keyboard: int, typed: bytes) -> None:
    os.write(keyboard, typed)
    found = asked(Question(V3, Gate.BEFORE_START, (), 60.0 if typed.count(b"\n") == 3 else 0.5))
    assert found == Word(False, "ann", "")
    assert decide(found, 0.5).answer is Answer.REJECTED
