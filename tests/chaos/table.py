"""The table of docs/faults.md: what a rollback made of each trouble in one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path("docs/faults.md")
BEGINS: Final = "<!-- measured by make chaos -->"
ENDS: Final = "<!-- end of what was measured -->"
HEADINGS: Final = ("fault", "the rollback ends", "seconds to safety", "in step after the fault")


@dataclass(frozen=True)
class Measured:
    """One row. `behind` are the clouds that the rollback named as not following; times are in seconds.

    `safe` runs from the call to the switch of the last cloud that could follow, by the clouds' own clock; `healed` from
    the end of the trouble to the end of the reconcile that brought the rest over, 0 where there was none.
    """

    name: str
    status: int
    behind: tuple[str, ...]
    safe: float
    healed: float

    @property
    def cells(self) -> tuple[str, ...]:
        """As texts."""
        ending = f"SPLIT: {', '.join(self.behind)} (exit {self.status})" if self.behind else "done"
        return self.name, ending, f"{self.safe:.1f} s", f"{self.healed:.1f} s" if self.behind else ""


def render(rows: Sequence[Measured]) -> str:
    """The table in Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


def names(page: Path = PAGE) -> list[str]:
    """The faults that the page's table tells of, in its order."""
    lines = _parts(page)[1].strip().splitlines()
    return [line.split("|")[1].strip() for line in lines[2:]]


def publish(rows: Sequence[Measured], page: Path = PAGE) -> None:
    """Put the table in the place of the one that is there."""
    before, _, after = _parts(page)
    page.write_text(f"{before}{BEGINS}\n\n{render(rows)}\n{ENDS}{after}", encoding="utf-8")


def _parts(page: Path) -> tuple[str, str, str]:
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGINS)
    table, _, after = rest.partition(ENDS)
    return before, table, after
