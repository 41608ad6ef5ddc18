"""Templates and assets of the page: every value that is put into a page is escaped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup

from lockstep.agent.chart import Line, draw
from lockstep.agent.series import Series
from lockstep.rules.deeds import Deed
from lockstep.rules.moments import show_span
from lockstep.rules.telling import headline

FOLDER: Final = Path(__file__).parent / "pages"
TYPES: Final = {
    "page.css": "text/css; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@dataclass(frozen=True)
class Asset:
    """A file of the page; `mark` is in its address, so that it may be kept for ever."""

    content: bytes
    type: str
    mark: str


@cache
def assets() -> Mapping[str, Asset]:
    """All assets by name."""
    found = {}
    for name, kind in TYPES.items():
        content = (FOLDER / "static" / name).read_bytes()
        found[name] = Asset(content, kind, hashlib.sha256(content).hexdigest()[:12])
    return found


@cache
def templates() -> jinja2.Environment:
    """The templates; a name that is not given is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(moment=moment, clock=clock, span=show_span, short=short, ended=ended, tone=tone_class)
    environment.globals["asset"] = lambda name: f"/static/{name}?v={assets()[name].mark}"
    environment.globals["charts"] = charts
    return environment


def render(name: str, **given: object) -> str:
    """A page, or a part of one."""
    return templates().get_template(name).render(**given)


def moment(at: float) -> Markup:
    """A time as people in any zone can read it, and programs too."""
    when = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        when.isoformat(timespec="seconds"), f"{when:%Y-%m-%d %H:%M:%S} UTC"
    )


def clock(at: float) -> Markup:
    """The same without its day."""
    when = datetime.fromtimestamp(at, UTC)
    return Markup('<time datetime="{}">{}</time>').format(when.isoformat(timespec="seconds"), f"{when:%H:%M:%S} UTC")


def short(digest: str) -> str:
    """The start of a digest, as Lockstep writes it everywhere."""
    return digest[:12]


def ended(deed: Deed) -> str:
    """How a deed ended."""
    return headline(deed) or deed.ending.value


def tone_class(tone: object) -> str:
    """The class of a tone or state in the style sheet."""
    return str(tone).lower().replace(" ", "-")


def charts(series: Sequence[Series]) -> Markup:
    """Three charts of each version's metrics; empty before two looks."""
    if not any(len(one.points) > 1 for one in series):
        return Markup("")
    return Markup("").join(
        (
            draw("Answers a minute", [Line(one.name, [(p.at, p.rate) for p in one.points]) for one in series]),
            draw(
                "Failed answers",
                [
                    Line(one.name, [(p.at, None if p.failed is None else 100.0 * p.failed) for p in one.points])
                    for one in series
                ],
                " %",
            ),
            draw(
                "Latency, 95th percentile",
                [
                    Line(one.name, [(p.at, None if p.latency is None else 1000.0 * p.latency) for p in one.points])
                    for one in series
                ],
                " ms",
            ),
        )
    )
