"""What comes after the result: once, in any case, and without a word of its own about how it ended."""

from __future__ import annotations

import pytest

from lockstep.errors import SplitError
from lockstep.operations.lastly import lastly, told_first


def test_outside_of_a_block_it_is_done_at_once() -> None:
    done: list[str] = []
    lastly("a", lambda: done.append("a"))
    assert done == ["a"]


def test_in_a_block_it_is_done_after_the_result_and_once() -> None:
    done: list[str] = []
    with told_first():
        for about in "aab":
            lastly(about, lambda about=about: done.append(about))  # type: ignore[misc]
        done.append("told")
    assert done == ["told", "a", "b"]


@pytest.mark.parametrize("error", [SplitError("azure is down"), SystemExit(6), KeyboardInterrupt()])
def test_an_error_is_told_first_and_stays_what_it_is(error: BaseException) -> None:
    done: list[str] = []

    def impatient() -> None:
        done.append("copied")
        raise KeyboardInterrupt

    def end() -> None:
        with told_first():
            lastly("a", impatient)
            done.append("told")
            raise error

    with pytest.raises(type(error)):
        end()
    assert done == ["told", "copied"]
