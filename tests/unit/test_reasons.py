from __future__ import annotations

import pytest

from lockstep.errors import RefusedError
from lockstep.operations.reasons import LONGEST, checked_reason


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
