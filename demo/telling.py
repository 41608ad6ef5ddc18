"""What the steps of the story share: the servers, what a person sees, what was claimed and measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.markup import escape
from rich.text import Text

from demo.processes import Servers
from demo.traffic_record import TrafficRecord
from demo.view import View


@dataclass(frozen=True)
class Step:
    """One step of the story as it went."""

    title: str
    seconds: float
    note: str


@dataclass(frozen=True)
class Claim:
    """A sentence that must hold at the end."""

    text: str
    holds: bool


@dataclass
class Story:
    """What the steps share."""

    servers: Servers
    view: View
    traffic: TrafficRecord
    steps: list[Step] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[list[str]]:
        """Time a step; what the block appends to the list is shown behind it."""
        self.view.begin(title)
        began = time.monotonic()
        notes: list[str] = []
        good = False
        try:
            yield notes
            good = True
        finally:
            seconds = time.monotonic() - began
            self.steps.append(Step(title, seconds, Text.from_markup(" ".join(notes)).plain))
            self.view.finish(title, seconds, " ".join(notes), good=good)

    def claim(self, text: str, holds: bool) -> None:
        """Note whether a sentence holds."""
        self.claims.append(Claim(text, holds))
        if not holds:
            self.view.note(f"NOT TRUE: {text}")

    def mark(self, text: str) -> None:
        """An event for the picture."""
        self.marks.append((time.time(), text))


def first_sentence(state: Any) -> str:
    """What a flow's final state says, short, and safe to show: a cloud's text may hold brackets."""
    return escape(str(state.message or state.name).splitlines()[0].split(" (evidence")[0][:160])


def wait_for(holds: Callable[[], bool], timeout: float) -> bool:
    """Ask until it holds; False when it did not within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.25)
    return False
