"""Times as people give them: ISO 8601 with a zone, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from lockstep.errors import RefusedError

AGO: Final = re.compile(r"(?P<count>\d{1,9}(?:\.\d{1,6})?)\s*(?P<unit>[smhdw])")
SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
EXAMPLES: Final = "2026-11-22T16:40:02Z, 2026-11-22T17:40+01:00, 90s, 15m, 3h, 2d or 1w (ago)"


def parse_moment(given: str, now: float) -> float:
    """Unix seconds of a time such as `2026-11-22T16:40:02Z`, or `2d` for two days before `now`.

    Raises RefusedError for anything else: a time without a zone would mean another instant on another machine.
    """
    wanted = given.strip()
    ago = AGO.fullmatch(wanted)
    if ago is not None:
        return now - float(ago["count"]) * SECONDS[ago["unit"]]
    try:
        found = datetime.fromisoformat(wanted)
    except ValueError:
        raise RefusedError(f"{given!r} is not a time", hint=f"write it as {EXAMPLES}") from None
    if found.tzinfo is None:
        raise RefusedError(
            f"the time {given!r} names no zone, so it could mean several instants",
            hint=f"add one: {wanted}Z for UTC, or {wanted}+02:00"
            if ":" in wanted
            else f"write time and zone too: {wanted}T00:00Z",
        )
    return found.timestamp()


def show_moment(at: float) -> str:
    """ISO 8601 in UTC with milliseconds: 2026-11-22T16:40:02.123Z."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def show_span(seconds: float) -> str:
    """A length of time for people: 4.2 s, 12 min, 3.5 h, 2 d."""
    for unit, size, below in (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172800.0)):
        if seconds < below:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400.0:.1f} d"
