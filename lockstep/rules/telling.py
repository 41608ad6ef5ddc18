"""Deeds in words: what was moved where, with which verdict, for the log and the audit report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from lockstep.rules.deeds import Deed, Ending, mapping, text, texts
from lockstep.rules.moments import show_moment, show_span


@dataclass(frozen=True)
class Moved:
    """One cloud's traffic before and after a deed; `note` says when it was verified, or why it was not."""

    cloud: str
    before: str
    after: str
    note: str = ""


def moved(deed: Deed) -> tuple[Moved, ...]:
    """What the deed did to the traffic of each cloud that it names, by cloud."""
    body = deed.body
    before = mapping(body, "before")
    after = mapping(body, "wanted") or mapping(body, "after")
    verified, reasons, seconds = mapping(body, "verified"), mapping(body, "split"), mapping(body, "seconds")
    found = []
    for cloud in sorted({*before, *after}):
        note = str(reasons.get(cloud, ""))
        if cloud in verified:
            note = f"verified {_clock(verified[cloud])}"
        elif deed.ending is Ending.OPEN:
            note = "nothing says what came of it"
        took = seconds.get(cloud)
        note += f" after {show_span(float(took))}" if isinstance(took, (int, float)) and note else ""
        found.append(Moved(cloud, show_weights(before.get(cloud)), show_weights(after.get(cloud)), note))
    return tuple(found)


def show_weights(weights: object) -> str:
    """Traffic as an entry has it: `v1-0a1b2c3d 75 %, v2-… 25 %`; what a cloud said instead; or that it is not known."""
    if isinstance(weights, str):
        return weights
    if not isinstance(weights, Mapping):
        return "not known"
    served = [f"{slot} {weight} %" for slot, weight in sorted(weights.items()) if weight]
    return ", ".join(served) or "no traffic"


def headline(deed: Deed) -> str:
    """How it ended and how long it took."""
    if deed.ended is None:
        return "no outcome: still running, or killed"
    if deed.ending is Ending.REFUSED:
        return "refused"
    return f"{deed.ending.value} in {show_span(deed.ended - deed.began)}" if len(deed.entries) > 1 else ""


def step_line(step: Deed) -> str:
    """One step of an operation in one line."""
    body = step.body
    if step.operation == "shift":
        clouds = "; ".join(f"{one.cloud}: {one.before} -> {one.after}{_in_brackets(one.note)}" for one in moved(step))
        return f"shift ({step.reason}) {clouds}" if step.reason else f"shift {clouds}"
    if step.operation == "verdict":
        return f"verdict {verdict(step)}"
    if step.operation in ("prepare", "retire"):
        slots = "; ".join(
            f"{cloud}: {', '.join(map(str, names)) if isinstance(names, list) else names}"
            for cloud, names in mapping(body, "clouds").items()
        )
        failed = "; ".join(f"{cloud} failed: {why}" for cloud, why in mapping(body, "failed").items())
        return f"{step.operation} {slots}{_in_brackets(failed)}"
    if step.operation == "promote":
        return f"promote version {step.version} ({step.digest[:12]}){_in_brackets(step.error)}"
    said = step.error or step.reason
    return f"{step.operation} {step.ending.value}{': ' + said if said else ''}"


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
    subject = f"{deed.version} ({deed.digest[:12]})" if deed.digest else ""
    entries = f"ledger {'entry' if len(deed.entries) == 1 else 'entries'} {', '.join(map(str, deed.entries))}"
    lines = [f"{deed.operation} {subject}".rstrip() + (f": {head}" if head else "")]
    lines.append(
        f"  when   {show_moment(deed.began)}  (ledger {'entry' if len(deed.entries) == 1 else 'entries'} {entries})"
    )
    via = text(deed.body, "via")
    lines.append(f"  who    {who}{f', through {via}' if via else ''}")
    if deed.reason:
        lines.append(f"  why    {deed.reason}")
    if deed.error:
        lines.append(f"  error  {deed.error}")
    for one in moved(deed):
        lines.append(f"  {one.cloud:<6} {one.before} -> {one.after}{_in_brackets(one.note)}")
    if deed.operation == "verdict":
        lines.append(f"  verdict {verdict(deed)}")
    lines += [f"    {_clock(show_moment(step.began))}  {step_line(step)}" for step in _steps(deed)]
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
        "details": {key: value for key, value in deed.body.items() if key not in ("version", "digest", "intent")},
        "steps": [as_json(step) for step in deed.steps],
    }


def _steps(deed: Deed) -> tuple[Deed, ...]:
    return tuple(found for step in deed.steps for found in (step, *_steps(step)))


def _in_brackets(note: str) -> str:
    return f"  [{note}]" if note else ""


def _clock(at: object) -> str:
    """The time of day of an ISO time; the day stands above."""
    try:
        return datetime.fromisoformat(str(at)).strftime("%H:%M:%S.%f")[:-3]
    except ValueError:
        return str(at)
