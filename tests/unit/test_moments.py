"""Times as people give them."""

from __future__ import annotations

import pytest

from lockstep.errors import RefusedError
from lockstep.rules.moments import parse_moment, show_moment, show_span

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("2026-11-22T16:40:02Z", 1795365602.0),
        ("2026-11-22T17:40:02.5+01:00", 1795365602.5),
        ("2026-11-22 16:40Z", 1795365600.0),
        ("90s", NOW - 90),
        ("3h", NOW - 3 * 3600),
        ("2d", NOW - 2 * 86400),
        ("1.5 d", NOW - 129600),
        ("1w", NOW - 604800),
    ],
)
def test_a_time_is_iso_with_a_zone_or_how_long_ago(given: str, wanted: float) -> None:
    assert parse_moment(given, NOW) == wanted


@pytest.mark.parametrize(
    "given", ["", "yesterday", "2026-13-01T00:00Z", "2 fortnights", "-3h", "3", "2026-11-22T25:00Z"]
)
def test_what_is_no_time_is_refused_with_examples(given: str) -> None:
    with pytest.raises(RefusedError, match="not a time") as refused:
        parse_moment(given, NOW)
    assert "2d" in refused.value.hint


@pytest.mark.parametrize("given", ["2026-11-22T16:40:02", "2026-11-22"])
def test_a_time_without_a_zone_is_refused_with_one_that_has_one(given: str) -> None:
    with pytest.raises(RefusedError, match="no zone") as refused:
        parse_moment(given, NOW)
    parse_moment(refused.value.hint.split(": ")[1].split(" ")[0], NOW)


def test_times_are_shown_in_utc() -> None:
    assert show_moment(1795365602.1234) == "2026-11-22T16:40:02.123Z"
    assert [show_span(seconds) for seconds in (4.21, 600, 9000, 200000)] == ["4.2 s", "10.0 min", "2.5 h", "2.3 d"]
