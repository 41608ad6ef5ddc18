"""A wall clock that can be set while a process runs: `time.time` of this process, real time plus what it is off by."""

from __future__ import annotations

import time

_real = time.time
_off = 0.0


def install() -> None:
    """Before anything is imported that keeps `time.time`."""
    time.time = _now


def set_by(seconds: float) -> None:
    """Set the clock ahead of the real time, or behind it."""
    global _off
    _off = seconds


def _now() -> float:
    return _real() + _off
