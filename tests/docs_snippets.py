"""Fenced blocks of the documentation, as tests read them.

The word in braces behind the language says what a block is for: `bash {test}` is run, `yaml {config}` is a whole
lockstep.yaml, `yaml {clouds}` its `clouds:` alone, `yaml {alerts}` a whole alerts.yaml, `yaml {source}` one of its
sources alone, `yaml {agent}` the `agent:` of a lockstep.yaml, `json {name}` is known by that name.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(r"^```(?P<language>[a-z]*)[ ]*(?:\{(?P<mark>[^}]*)\})?[ ]*$")


@dataclass(frozen=True)
class Snippet:
    """One fenced block; `line` is where it begins."""

    page: Path
    line: int
    language: str
    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> tuple[Path, ...]:
    """Every page of the documentation, the README first."""
    return (Path("README.md"), *sorted(Path("docs").rglob("*.md")))


def snippets(page: Path) -> tuple[Snippet, ...]:
    """All fenced blocks of a page."""
    found: list[Snippet] = []
    start: re.Match[str] | None = None
    lines: list[str] = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = FENCE.match(line)
        if start is None and fence is not None:
            start, lines, began = fence, [], number
        elif start is not None and line.strip() == "```":
            found.append(Snippet(page, began, start["language"], start["mark"] or "", "\n".join(lines) + "\n"))
            start = None
        elif start is not None:
            lines.append(line)
    assert start is None, f"{page}: a fenced block is not closed"
    return tuple(found)


def named_json(page: Path) -> dict[str, Any]:
    """The page's JSON blocks by name."""
    return {one.mark: json.loads(one.text) for one in snippets(page) if one.language == "json" and one.mark}
