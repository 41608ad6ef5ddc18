from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep import terminal
from lockstep.errors import RefusedError
from lockstep.operations.reasons import LONGEST, checked_reason, made_reason


def test_a_reason_is_kept_as_it_is_without_white_space_around() -> None:
    assert checked_reason(" alert 7\n") == "alert 7"
    assert checked_reason("x" * LONGEST) == "x" * LONGEST
    assert checked_reason("") == ""


def test_one_too_long_and_one_that_is_missing_are_refused() -> None:
    with pytest.raises(RefusedError, match="1001 characters; at most 1000") as caught:
        checked_reason("x" * (LONGEST + 1))
    assert "nothing was changed" in caught.value.hint
    with pytest.raises(RefusedError, match="empty"):
        checked_reason("  ", needed=True)


def test_a_reason_is_one_line_and_moves_no_cursor() -> None:
    assert checked_reason("alert 7\r\n  came of it: done\u2028\tmore") == "alert 7 came of it: done more"
    for sign, shown in (("\x00", "x00"), ("\x1b[2J", "x1b"), ("\x9b", "x9b"), ("\u202e", "u202e"), ("\udcff", "udcff")):
        with pytest.raises(RefusedError, match=rf"control character \\{shown}$") as caught:
            checked_reason(f"a{sign}b", needed=True)
        assert "nothing was changed" in caught.value.hint
    family = "\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL}"
    assert checked_reason(f"für {family}, \u05e9\u05dc\u05d5\u05dd") == f"für {family}, \u05e9\u05dc\u05d5\u05dd"


@given(st.text(max_size=20))
def test_what_no_person_can_mend_is_never_refused(reason: str) -> None:
    """An older entry of the ledger, or what a cloud says, stops no rollback."""
    made = made_reason(reason)
    assert checked_reason(made) == made.strip()


def test_what_stands_in_the_ledger_already_is_shown_and_not_carried_out(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_deed(["rollback", "  why: \x1b[2Jx\n  came of it: done"])
    terminal.show_rows("a\x1b]0;t\x07", ("why",), [["b\x9b2J\u202ec\nd"]])
    shown = capsys.readouterr().out
    assert shown.startswith("rollback\n  why: \\x1b[2Jx\\n  came of it: done\n\n")
    assert "a\\x1b]0;t\\x07" in shown
    assert "b\\x9b2J\\u202ec\\nd" in shown


def test_an_error_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_error(RefusedError("uv says:\n\tno\x1b[1m"), as_json=False)
    assert capsys.readouterr().err.splitlines()[0] == "error: uv says:"
