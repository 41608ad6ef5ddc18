"""Processes, as others can know whether they live: those of this machine and container, for certain."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lockstep.rules.lease import Process

PROC: Final = Path("/proc")
STARTED: Final = 19  # of the fields after the command's name in /proc/PID/stat: clock ticks since the machine's start


def this_process() -> Process:
    """The process that asks."""
    return Process(socket.gethostname(), os.getpid(), _place(), _started(os.getpid()))


def is_gone(process: Process) -> bool:
    """Whether it is certain that the process has ended; never said of another machine's, nor of another container's."""
    if not process.place or process.place != _place():
        return False
    return _started(process.pid) != process.started


def marked() -> Mapping[str, object]:
    """The process that asks, for what is kept for ever; empty where it could not be told from others.

    No host's name is in it, which may be a person's.
    """
    process = this_process()
    return {"pid": process.pid, "place": _short(process.place), "started": process.started} if process.place else {}


def lives(mark: Mapping[str, object]) -> bool | None:
    """Whether the process of a mark lives; None where that cannot be known: elsewhere, or without a mark."""
    pid, place = mark.get("pid"), _place()
    if not isinstance(pid, int) or not place or mark.get("place") != _short(place):
        return None
    return _started(pid) == mark.get("started")


def _place() -> str:
    """Where process numbers mean the same: the host's name, its start, the namespace; "" where that cannot be told."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        namespace = (PROC / "self/ns/pid").readlink()
    except OSError:
        return ""
    return f"{socket.gethostname()}/{boot}/{namespace}"


def _started(pid: int) -> str:
    """When the process was started, as its machine counts; "" when there is no such process, or only its remains."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[STARTED]


def _short(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:16]
