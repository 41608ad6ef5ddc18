"""What fires again after its end is another occurrence, and what is only delivered late is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.alerts.occurrence import Heard, is_over, recurs

LATE = 900.0
FIRED = Heard(100.0, "firing", 101.0)
ENDED = Heard(100.0, "resolved", 201.0)  # most vendors tell when the trouble began with its end, too
UNTIMED = Heard(0.0, "firing", 101.0)
OVER = Heard(0.0, "resolved", 201.0)


def test_what_was_not_ended_is_the_same_however_it_is_told() -> None:
    for between in (None, Heard(50.0, "resolved", 60.0)):
        assert not recurs(Heard(150.0, "firing again", 9999.0), FIRED, between, LATE)


@pytest.mark.parametrize("ended", [ENDED, Heard(200.0, "resolved", 201.0)])  # or when it ended
@pytest.mark.parametrize(("since", "again"), [(100.0, False), (250.0, True)])
def test_by_the_time_of_its_sender(ended: Heard, since: float, again: bool) -> None:
    for words in ("firing", "firing, and worse"):
        for at in (202.0, 90_000.0):
            assert recurs(Heard(since, words, at), FIRED, ended, LATE) == again


def test_a_repetition_that_was_overtaken_by_the_end_is_late() -> None:
    assert not recurs(Heard(160.0, "firing", 202.0), FIRED, Heard(200.0, "resolved", 201.0), LATE)


@pytest.mark.parametrize(
    ("words", "at", "again"), [("firing", 202.0, False), ("firing, and worse", 202.0, True), ("firing", 1200.0, True)]
)
def test_without_times_by_its_words_and_by_when_it_comes(words: str, at: float, again: bool) -> None:
    assert recurs(Heard(0.0, words, at), UNTIMED, OVER, LATE) == again


def test_an_end_of_the_next_occurrence_is_another_end() -> None:
    fired_again = Heard(300.0, "firing", 301.0)
    assert recurs(Heard(300.0, "resolved", 401.0), ENDED, fired_again, LATE)
    assert not recurs(Heard(100.0, "resolved", 401.0), ENDED, fired_again, LATE), "the first one's, delivered late"


def test_the_next_time_of_what_its_end_overtook_is_another() -> None:
    late = Heard(100.0, "firing", 205.0)
    assert recurs(Heard(300.0, "firing", 301.0), late, ENDED, LATE)
    assert not recurs(Heard(100.0, "firing", 301.0), late, ENDED, LATE)


def test_what_was_overtaken_by_its_end_is_over() -> None:
    assert is_over(FIRED, ENDED)
    assert is_over(FIRED, Heard(200.0, "resolved", 90.0))
    assert not is_over(Heard(250.0, "", 0.0), ENDED)
    assert not is_over(UNTIMED, OVER)
    assert not is_over(FIRED, OVER)
    assert not is_over(FIRED, None)


heard = st.builds(Heard, st.sampled_from([0.0, 100.0, 200.0]), st.sampled_from(["a", "b"]), st.floats(0.0, 2000.0))


@given(heard, heard, st.floats(0.0, 5000.0))
def test_a_late_delivery_is_never_another(known: Heard, ended: Heard, later: float) -> None:
    again = Heard(known.since, known.body, ended.at + later)
    assert recurs(again, known, ended, LATE) <= (later > LATE and not known.since)
