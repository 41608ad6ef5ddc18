"""Only a clear yes goes on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.approval import Answer, Word, decide


def test_nobody_s_word_is_a_no() -> None:
    assert decide(None, 60).answer is Answer.TIMED_OUT
    assert "60 s" in decide(None, 60).reason


def test_a_yes_says_who_and_why() -> None:
    said = decide(Word(True, " Ada ", " measured offline "), 60)
    assert (said.answer, said.name, said.reason) == (Answer.APPROVED, "Ada", "measured offline")
    assert str(said) == "approved by Ada: measured offline"
    assert decide(Word(True, "", "fine"), 60).reason == "approved with no name"
    assert decide(Word(True, "Ada", " "), 60).reason == "approved with no reason"


@given(st.one_of(st.none(), st.builds(Word, st.booleans(), st.text(max_size=3), st.text(max_size=3))))
def test_only_a_yes_with_name_and_reason_goes_on(word: Word | None) -> None:
    clear = word is not None and word.approved and bool(word.name.strip()) and bool(word.reason.strip())
    assert (decide(word, 1.0).answer is Answer.APPROVED) == clear
