"""What a person sees while the demo runs: the step at hand, and live which version answers on each cloud."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from demo.names import CLOUDS
from demo.traffic_record import TrafficRecord

COLOURS: Final = {"1": "green", "2": "red", "3": "cyan"}
WIDTH: Final = 40


class View:
    """Steps with a spinner and the traffic below them in a terminal; plain lines elsewhere."""

    def __init__(self, traffic: TrafficRecord, steps: int) -> None:
        self.console = Console(highlight=False)
        self._traffic = traffic
        self._began = time.monotonic()
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("step {task.fields[at]}"),
            TimeElapsedColumn(),
            console=self.console,
        )
        self._task = self._progress.add_task("starting", total=steps, at=f"0/{steps}")
        self._steps = steps
        self._done = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def live(self) -> Iterator[None]:
        """Keep the picture up to date while the block runs."""
        if not self.console.is_terminal:
            yield
            return
        with Live(get_renderable=self._render, console=self.console, refresh_per_second=4, transient=True):
            yield

    def begin(self, title: str) -> None:
        """A step begins."""
        with self._lock:
            self._progress.update(self._task, description=title)
        if not self.console.is_terminal:
            self.console.print(f"[{self.elapsed:6.1f} s] {title} …", markup=False)

    def finish(self, title: str, seconds: float, note: str, *, good: bool) -> None:
        """A step ended."""
        with self._lock:
            self._done += 1
            self._progress.update(self._task, completed=self._done, at=f"{self._done}/{self._steps}")
        mark = "[green]✓[/green]" if good else "[red]✗[/red]"
        self.console.print(f"{mark} [dim]{self.elapsed:6.1f} s[/dim]  {title} [dim]({seconds:.1f} s)[/dim]  {note}")

    def note(self, text: str) -> None:
        """A line in between."""
        self.console.print(f"           [dim]{text}[/dim]")

    @property
    def elapsed(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began

    def _render(self) -> Group:
        self._traffic.refresh()
        recent = self._traffic.recent(time.time())
        table = Table.grid(padding=(0, 1))
        for cloud in CLOUDS:
            counts = recent.get(cloud)
            total = sum(counts.values()) if counts else 0
            bar = Text()
            for version, count in sorted((counts or {}).items()):
                bar.append("█" * max(1, round(WIDTH * count / total)), style=COLOURS.get(version, "white"))
            shares = ", ".join(f"v{v} {100 * n / total:.0f} %" for v, n in sorted((counts or {}).items()))
            table.add_row(f"{cloud:>6}", bar if total else Text("-", style="dim"), shares)
        failed = self._traffic.failed()
        line = Text(
            f"        {len(self._traffic.requests):,} requests, {failed} failed", style="red" if failed else "dim"
        )
        with self._lock:
            return Group(table, line, self._progress)
