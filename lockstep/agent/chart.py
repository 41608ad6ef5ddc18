"""Line charts as inline SVG, drawn on the server: no script, no style attribute, colours from the page's own sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 420
HEIGHT: Final = 170
LEFT, RIGHT, TOP, BOTTOM = 54, 12, 12, 26
STEPS: Final = (1.0, 2.0, 5.0, 10.0)


@dataclass(frozen=True)
class Line:
    """One line: (Unix seconds, value), None where there is no value."""

    name: str
    points: Sequence[tuple[float, float | None]]


def draw(title: str, lines: Sequence[Line], unit: str = "") -> Markup:
    """The chart; lines are told apart by colour, dash and mark, and by a legend in words."""
    values = [value for line in lines for _, value in line.points if value is not None]
    times = [at for line in lines for at, _ in line.points]
    if not values or len(set(times)) < 2:
        return Markup('<p class="quiet">{}: nothing measured yet.</p>').format(title)
    top, step = _scale(max(values))
    begin, end = min(times), max(times)

    def across(at: float) -> float:
        return LEFT + (at - begin) / (end - begin) * (WIDTH - LEFT - RIGHT)

    def down(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * (HEIGHT - TOP - BOTTOM)

    parts = [_grid(top, step, unit, down), _times(begin, end)]
    for number, line in enumerate(lines):
        parts.append(_line(number, [(across(at), None if value is None else down(value)) for at, value in line.points]))
    legend = Markup("").join(
        Markup(
            '<li class="series-{}"><svg viewBox="0 0 24 8" aria-hidden="true"><path d="M0 4H24"/></svg>{}{}</li>'
        ).format(number % 4 + 1, line.name, _newest(line, unit))
        for number, line in enumerate(lines)
    )
    told = "; ".join(f"{line.name}{_newest(line, unit)}" for line in lines)
    return Markup(
        '<figure class="chart"><figcaption>{title}</figcaption>'
        '<svg viewBox="0 0 {width} {height}" role="img" aria-label="{title}: {told}">{parts}</svg>'
        '<ul class="legend">{legend}</ul></figure>'
    ).format(title=title, told=told, width=WIDTH, height=HEIGHT, parts=Markup("").join(parts), legend=legend)


def _scale(most: float) -> tuple[float, float]:
    """Where the axis ends, and the step of its lines, of which there are two to five."""
    if most <= 0:
        return 1.0, 0.5
    rough = most / 3
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in STEPS if size * factor >= rough * 0.999)
    return step * math.ceil(most / step - 1e-9), step


def _grid(top: float, step: float, unit: str, down: object) -> Markup:
    assert callable(down)
    parts = []
    for number in range(round(top / step) + 1):
        value = number * step
        y = round(float(down(value)), 1)
        parts.append(
            Markup(
                '<path class="grid" d="M{} {}H{}"/><text class="tick" x="{}" y="{}" text-anchor="end">{}</text>'
            ).format(LEFT, y, WIDTH - RIGHT, LEFT - 6, y + 4, f"{_number(value)}{unit}")
        )
    return Markup("").join(parts)


def _times(begin: float, end: float) -> Markup:
    places = ((begin, LEFT, "start"), (end, WIDTH - RIGHT, "end"))
    return Markup("").join(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
            x, HEIGHT - 8, anchor, f"{datetime.fromtimestamp(at, UTC):%H:%M:%S}"
        )
        for at, x, anchor in places
    )


def _line(number: int, places: Sequence[tuple[float, float | None]]) -> Markup:
    """A path that breaks where there is no value; a value alone between two gaps is a dot."""
    path, pen = [], False
    for x, y in places:
        if y is not None:
            path.append(f"{'L' if pen else 'M'}{x:.1f} {y:.1f}")
        pen = y is not None
    dots = [
        Markup('<circle cx="{}" cy="{}" r="2.5"/>').format(f"{x:.1f}", f"{y:.1f}")
        for place, (x, y) in enumerate(places)
        if y is not None and (place == len(places) - 1 or _alone(places, place))
    ]
    return Markup('<g class="series-{}"><path d="{}"/>{}</g>').format(
        number % 4 + 1, escape(" ".join(path)), Markup("").join(dots)
    )


def _alone(places: Sequence[tuple[float, float | None]], place: int) -> bool:
    before = places[place - 1][1] if place else None
    return before is None and places[place + 1][1] is None


def _newest(line: Line, unit: str) -> str:
    value = next((value for _, value in reversed(line.points) if value is not None), None)
    return "" if value is None else f" {_number(value)}{unit}"


def _number(value: float) -> str:
    """Three digits that count, never with an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else "0"
