"""The timeline of versions per cloud as SVG: shares of traffic by version, what is not known, incidents.

Colours of text and lines are the page's own (`currentColor`), so that the picture is readable on light and dark.
"""

from __future__ import annotations

import bisect
import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lockstep.rules.history import Certainty, History, Interval
from lockstep.rules.incidents import Incident

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: Distinct for people who see no red or no green as well (Okabe and Ito); a page's background is light or dark.
COLOURS: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a90f", "#8c6bb1")
INK: Final = "#010203"  # stands for the text's colour until the SVG is written
UNKNOWN: Final = "#999999"
INCIDENT: Final = "#d62728"
TRANSITION_HATCH: Final = "////"
UNKNOWN_HATCH: Final = "xxxx"
MOST_STEPS: Final = 80  # changes in a picture that is not to scale
SETTINGS: Final[Any] = {
    "svg.hashsalt": "lockstep",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "hatch.linewidth": 0.6,
}


def draw_timeline(
    history: History,
    incidents: Sequence[Incident],
    since: float,
    until: float,
    *,
    to_scale: bool = True,
) -> str:
    """The picture as an `<svg>` element without ground or ink (see `embedded` and `standing_alone`).

    The same for the same history. Not `to_scale`, every change gets the same room, however long it lasted: months do
    not hide a canary of minutes.
    """
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcParams.update(SETTINGS)
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        clouds = list(history.intervals) or ["no traffic"]
        figure = Figure(figsize=(10, 1.0 + 1.05 * len(clouds)), layout="constrained")
        FigureCanvasSVG(figure)
        rows = figure.subplots(len(clouds), 1, sharex=True, squeeze=False)[:, 0]
        colours = version_colours(history)
        place = _scale(rows[-1], since, until) if to_scale else _steps(rows[-1], history, incidents, since, until)
        for axis, cloud in zip(rows, clouds, strict=True):
            for interval in history.intervals.get(cloud, ()):
                begin, end = place(interval.since), place(until if interval.until is None else interval.until)
                if end > begin:
                    _draw_interval(axis, interval, begin, end, colours)
            for incident in incidents:
                _draw_incident(axis, place(incident.began), place(incident.restored or until))
            axis.set_ylim(0, 100)
            axis.set_yticks([0, 50, 100], ["0", "50", "100 %"])
            axis.set_ylabel(cloud, rotation=0, ha="right", va="center", labelpad=8)
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
        _legend(figure, history, colours, drawn_incidents=bool(incidents))
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = written.getvalue()
    return svg[svg.index("<svg") :].strip()


def standing_alone(svg: str) -> str:
    """The picture as a file: on a white ground, in dark ink."""
    head, opened, rest = svg.partition("<defs>")  # metadata stands first
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>\n '
    return f"{head}{ground}{opened}{rest}".replace(INK, "#1a1a1a") + "\n"


def embedded(svg: str, prefix: str) -> str:
    """The picture as a part of a page, in the text's own colour; `prefix` tells its names from another picture's."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).replace(INK, "currentColor")
    return _own_names(svg, prefix)


def _own_names(svg: str, prefix: str) -> str:
    named = re.sub(r'(\bid=")', rf"\1{prefix}-", svg)
    return re.sub(r'(href="#|url\(#)', rf"\1{prefix}-", named)


def _scale(axis: Axes, since: float, until: float) -> Callable[[float], float]:
    """Places by the time that passed."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

    def place(at: float) -> float:
        inside = datetime.fromtimestamp(min(max(at, since), until), UTC)
        return float(date2num(inside))  # type: ignore[no-untyped-call]

    locator = AutoDateLocator(tz=UTC, minticks=4, maxticks=10)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    axis.xaxis.set_major_formatter(ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    axis.set_xlim(place(since), place(until))
    axis.set_xlabel("UTC")
    return place


def _steps(
    axis: Axes, history: History, incidents: Sequence[Incident], since: float, until: float
) -> Callable[[float], float]:
    """Places by the number of changes that came before, of the newest changes when there are too many."""
    changes = {one.since for row in history.intervals.values() for one in row}
    changes |= {one.began for one in incidents} | {one.restored for one in incidents if one.restored is not None}
    inside = sorted(at for at in changes if since < at < until)[-MOST_STEPS:]
    marks = [inside[0] if len(inside) == MOST_STEPS else since, *inside, until]

    def place(at: float) -> float:
        number = bisect.bisect_right(marks, at) - 1
        if number < 0:
            return 0.0
        if number >= len(marks) - 1:
            return float(len(marks) - 1)
        width = marks[number + 1] - marks[number]
        return number + ((at - marks[number]) / width if width else 0.0)

    every = max(1, round(len(marks) / 9))
    ticks = range(0, len(marks), every)
    names = [datetime.fromtimestamp(marks[tick], UTC).strftime("%m-%d\n%H:%M:%S") for tick in ticks]
    axis.set_xticks(list(ticks), names)
    axis.set_xlim(0, len(marks) - 1)
    axis.set_xlabel("UTC, change by change: not to scale")
    return place


def version_colours(history: History) -> Mapping[str, str]:
    """A colour for each slot that ever had traffic, in the order in which they came."""
    seen: dict[str, None] = {}
    for interval in sorted((one for row in history.intervals.values() for one in row), key=lambda one: one.since):
        for split in interval.splits:
            seen |= dict.fromkeys(slot for slot, _ in split.weights) if split is not None else {}
    return {slot: COLOURS[number % len(COLOURS)] for number, slot in enumerate(seen)}


def _draw_interval(axis: Axes, interval: Interval, begin: float, end: float, colours: Mapping[str, str]) -> None:
    """Shares on top of each other; where it is not certain, faint and hatched over everything that may have been."""
    certain = interval.certainty is Certainty.CERTAIN
    if not certain:
        hatch = UNKNOWN_HATCH if interval.certainty is Certainty.UNKNOWN else TRANSITION_HATCH
        known = [split for split in interval.splits if split is not None]
        if known or interval.certainty is Certainty.TRANSITION:
            axis.axvspan(begin, end, facecolor="none", edgecolor=UNKNOWN, hatch=hatch, linewidth=0)
        return
    foot = 0.0
    for split in interval.splits:
        for slot, weight in split.weights if split is not None else ():
            axis.fill_between([begin, end], foot, foot + weight, color=colours[slot], linewidth=0)
            foot += weight


def _draw_incident(axis: Axes, begin: float, end: float) -> None:
    axis.axvline(begin, color=INCIDENT, linewidth=1.4)
    if end > begin:
        axis.axvspan(begin, end, color=INCIDENT, alpha=0.25, linewidth=0)


def _legend(figure: object, history: History, colours: Mapping[str, str], *, drawn_incidents: bool) -> None:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    assert isinstance(figure, Figure)
    handles: list[Patch | Line2D] = []
    for slot, colour in colours.items():
        sealed = history.versions.get(slot)
        name = f"version {sealed.label} ({sealed.digest[:8]})" if sealed else slot
        handles.append(Patch(color=colour, label=name))
    drawn = {one.certainty for row in history.intervals.values() for one in row if one.splits}
    if Certainty.TRANSITION in drawn:
        handles.append(Patch(facecolor="none", edgecolor=UNKNOWN, hatch=TRANSITION_HATCH, label="in transition"))
    if Certainty.UNKNOWN in drawn:
        handles.append(Patch(facecolor="none", edgecolor=UNKNOWN, hatch=UNKNOWN_HATCH, label="not known"))
    if drawn_incidents:
        handles.append(Line2D([], [], color=INCIDENT, linewidth=1.4, label="incident"))
    if handles:
        figure.legend(handles=handles, loc="outside upper center", ncols=min(len(handles), 5), frameon=False)
