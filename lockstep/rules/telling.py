"""Deeds in words: what was moved where, with which verdict, for the log and the audit report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from lockstep.rules.deeds import Deed, Ending, mapping, text, texts
from lockstep.rules.moments import show_moment, show_span

NOT_KNOWN: Final = "not known"
#: Columns after which a list of numbers goes on in another line.
WIDTH: Final = 100


@dataclass(frozen=True)
class Moved:
    """One cloud's traffic before and after a deed; `note` says when it was verified, or why it was not."""

    cloud: str
    before: str
    after: str
    note: str = ""


def moved(deed: Deed, outer: Deed | None = None) -> tuple[Moved, ...]:
    """What the deed did to the traffic of each cloud that it names, by cloud; `outer` is what it was a step of.

    A step has the same for a cloud without traffic and for one that did not answer; the operation tells them apart.
    """
    body = deed.body
    before = mapping(body, "before")
    after = mapping(body, "wanted") or mapping(body, "after")
    verified, reasons, seconds = mapping(body, "verified"), mapping(body, "split"), mapping(body, "seconds")
    silent = (
        {cloud for cloud, found in mapping(outer.body, "before").items() if isinstance(found, str)} if outer else ()
    )
    found = []
    for cloud in sorted({*before, *after}):
        hidden = cloud not in before or (before[cloud] is None and cloud in silent)
        was = NOT_KNOWN if hidden else show_weights(before[cloud])
        becomes = show_weights(after[cloud]) if cloud in after else NOT_KNOWN
        note = str(reasons.get(cloud, ""))
        if cloud in verified:
            note = f"verified {_clock(verified[cloud])}"
        elif deed.ending is Ending.OPEN:
            note = "nothing says what came of it"
        took = seconds.get(cloud)
        note += f" after {show_span(float(took))}" if isinstance(took, (int, float)) and note else ""
        found.append(Moved(cloud, was, becomes, note))
    return tuple(found)


def show_weights(weights: object) -> str:
    """Traffic as an entry has it: `v1-0a1b2c3d 75 %, v2-… 25 %`; what a cloud said instead; None is no traffic."""
    if isinstance(weights, str):
        return weights
    if weights is not None and not isinstance(weights, Mapping):
        return NOT_KNOWN
    if weights is None:
        return "no traffic"
    served = [f"{slot} {weight} %" for slot, weight in sorted(weights.items()) if weight]
    return ", ".join(served) or "no traffic"


def headline(deed: Deed) -> str:
    """How it ended and how long it took."""
    if deed.operation == "approval" and len(deed.entries) == 1:
        return text(deed.body, "answer") or "wanted"
    if deed.answer:
        return deed.answer
    if deed.ended is None:
        return "no outcome: still running, or killed"
    if deed.ending is Ending.REFUSED:
        return "refused"
    return f"{deed.ending.value} in {show_span(deed.ended - deed.began)}" if len(deed.entries) > 1 else ""


def step_line(step: Deed, outer: Deed | None = None) -> str:
    """One step of an operation in one line; `outer` is what it was a step of."""
    head, *clouds = step_lines(step, outer)
    return f"{head} {'; '.join(clouds)}" if clouds else head


def step_lines(step: Deed, outer: Deed | None = None) -> tuple[str, ...]:
    """One step of an operation: what was done, then a line a cloud; one cloud alone stands in the first line."""
    head, clouds = _step(step, outer)
    return (f"{head} {clouds[0]}",) if len(clouds) == 1 else (head, *clouds)


def _step(step: Deed, outer: Deed | None) -> tuple[str, Sequence[str]]:
    body = step.body
    if step.operation == "shift":
        clouds = [f"{one.cloud}: {one.before} -> {one.after}{_in_brackets(one.note)}" for one in moved(step, outer)]
        return f"shift ({step.reason})" if step.reason else "shift", clouds
    if step.operation == "verdict":
        return f"verdict {verdict(step)}", ()
    if step.operation in ("prepare", "retire"):
        clouds = [
            f"{cloud}: {', '.join(map(str, names)) if isinstance(names, list) else names}"
            for cloud, names in mapping(body, "clouds").items()
        ]
        return step.operation, [*clouds, *(f"{cloud} failed: {why}" for cloud, why in mapping(body, "failed").items())]
    if step.operation == "promote":
        return f"promote version {step.version} ({step.digest[:12]}){_in_brackets(step.error)}", ()
    said = step.error or step.reason
    if step.operation == "approval":
        by = f" by {step.actor}" if text(body, "answer") in ("approved", "rejected") else ""
        return f"approval {headline(step)}{by}{': ' + said if said else ''}", ()
    return f"{step.operation} {step.ending.value}{': ' + said if said else ''}", ()


def verdict(deed: Deed) -> str:
    """A verdict with its reasons: `pass at 50 %: no worse …`."""
    stage = text(deed.body, "stage")
    reasons = "; ".join(texts(deed.body, "reasons"))
    at = f" at {stage}" if stage else ""
    return f"{text(deed.body, 'decision')}{at}{': ' + reasons if reasons else ''}"


def numbers(deed: Deed) -> tuple[tuple[str, str], ...]:
    """The numbers behind a verdict, by name."""
    found = mapping(deed.body, "numbers").items()
    return tuple((name, f"{value:g}" if isinstance(value, (int, float)) else str(value)) for name, value in found)


def tell(deed: Deed, who: str) -> tuple[str, ...]:
    """A deed as `lockstep log` shows it: a heading, then who, why, what was moved, and its steps, indented."""
    head = headline(deed)
    subject = f"{deed.version} ({deed.digest[:12]})".lstrip() if deed.digest else ""
    entries = f"ledger {'entry' if len(deed.entries) == 1 else 'entries'} {', '.join(map(str, deed.entries))}"
    lines = [f"{deed.operation} {subject}".rstrip() + (f": {head}" if head else "")]
    lines.append(f"  when   {show_moment(deed.began)}  ({entries})")
    via = text(deed.body, "via")
    lines.append(f"  who    {who}{f', through {via}' if via else ''}")
    if deed.unvouched:
        lines.append("  doubt  nobody vouches for it: it waited in the spool without a signature, and decides nothing")
    if deed.operation == "register" and (source := text(deed.body, "source")):
        lines.append(f"  source {source}")
    if deed.reason:
        lines.append(f"  why    {deed.reason}")
    if deed.error:
        lines.append(f"  error  {deed.error}")
    elif deed.told:
        lines.append(f"  told   {deed.told}")
    for one in moved(deed):
        lines.append(f"  {one.cloud:<6} {one.before} -> {one.after}{_in_brackets(one.note)}")
    if deed.operation == "verdict":
        lines.append(f"  verdict {verdict(deed)}")
    lines += [f"  {line}" for line in _number_lines(deed)]
    for step, outer in steps(deed):
        first, *more = *step_lines(step, outer), *_number_lines(step)
        lines.append(f"    {_clock(show_moment(step.began))}  {first}")
        lines += [f"{'':18}{line}" for line in more]
    return tuple(lines)


def as_json(deed: Deed) -> dict[str, object]:
    """A deed as plain values."""
    return {
        "operation": deed.operation,
        "event": deed.event,
        "actor": deed.actor,
        "began": show_moment(deed.began),
        "ended": None if deed.ended is None else show_moment(deed.ended),
        "ending": deed.ending.value,
        "version": deed.version or None,
        "digest": deed.digest or None,
        "reason": deed.reason or None,
        "error": deed.error or None,
        "entries": list(deed.entries),
        **({"unvouched": True} if deed.unvouched else {}),
        "details": {key: value for key, value in deed.body.items() if key not in ("version", "digest", "intent")},
        "steps": [as_json(step) for step in deed.steps],
    }


def steps(deed: Deed) -> tuple[tuple[Deed, Deed], ...]:
    """All steps of a deed, however deep, each with the deed that it is a step of."""
    return tuple(found for step in deed.steps for found in ((step, deed), *steps(step)))


def _number_lines(deed: Deed) -> tuple[str, ...]:
    lines: list[str] = []
    for name, value in numbers(deed):
        item = f"{name} {value}"
        if lines and len(lines[-1]) + len(item) + 2 <= WIDTH:
            lines[-1] += f", {item}"
        else:
            lines.append(item)
    return tuple(lines)


def _in_brackets(note: str) -> str:
    return f"  [{note}]" if note else ""


def _clock(at: object) -> str:
    """The time of day of an ISO time; the day stands above."""
    try:
        return datetime.fromisoformat(str(at)).strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return str(at)
