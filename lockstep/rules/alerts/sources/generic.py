"""Any JSON, by a mapping that says where each part of an alert is: JSON pointers (RFC 6901) or dotted paths."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from lockstep.rules.alerts.alert import Alert, Status
from lockstep.rules.alerts.reading import (
    MAX_ID,
    MAX_SEVERITY,
    MAX_TEXT,
    MAX_TITLE,
    AlertFormatError,
    identity,
    moment,
    seconds,
    sequence,
    text,
)

#: Words for a trouble that is over, and for one that is there, in any case; a mapping may name more.
RESOLVED: Final = ("resolved", "ok", "closed", "recovered", "cleared", "normal", "healthy", "inactive")
FIRING: Final = (
    *("firing", "alerting", "alarm", "alert", "triggered", "active", "open", "opened", "reopened", "new", "problem"),
    *("critical", "error", "warning", "failed", "failing", "down", "unhealthy"),
)
MAX_WORD: Final = 64


@dataclass(frozen=True)
class Mapped:
    """Where each part is; "" for none. `alerts` is the array of alerts, the document itself when "".

    `resolved` are words of the status, in any case, that say that the trouble is over, `firing` those that it is there,
    both before what RESOLVED and FIRING say; `fields` are names to route by, and where each is.
    """

    id: str
    title: str
    alerts: str = ""
    incident: str = ""
    status: str = ""
    resolved: tuple[str, ...] = ()
    firing: tuple[str, ...] = ()
    text: str = ""
    severity: str = ""
    at: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def read(document: object, source: str, where: Mapped) -> tuple[Alert, ...]:
    """One Alert per entry; an entry without an id or a status, where one is mapped, raises AlertFormatError."""
    if not where.alerts:
        alone = document if isinstance(document, list) else [document]
        return tuple(_alert(entry, source, where, "the body") for entry in sequence(alone, "the body"))
    entries = at(document, where.alerts)
    found = sequence(entries, where.alerts)
    return tuple(_alert(entry, source, where, f"{where.alerts}[{place}]") for place, entry in enumerate(found))


def at(document: object, path: str) -> object:
    """What stands at a pointer `/a/0/b` or a dotted path `a.0.b`; None if nothing does."""
    if path.startswith("/"):
        steps = [step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/")]
    else:
        steps = path.split(".")
    found = document
    for step in steps:
        if isinstance(found, dict):
            found = found.get(step)
        elif isinstance(found, list) and step.isascii() and step.isdigit() and len(step) < 7:
            found = found[int(step)] if int(step) < len(found) else None
        else:
            return None
    return found


def status_of(word: str, resolved: Collection[str] = (), firing: Collection[str] = ()) -> tuple[Status, str]:
    """What a word of the status means, and the doubt about it.

    An unknown word is a trouble: taken for the end of one it would be lost, and would end what another alert began.
    """
    given = word.lower()
    for words, status in (
        (resolved, Status.RESOLVED),
        (firing, Status.FIRING),
        (RESOLVED, Status.RESOLVED),
        (FIRING, Status.FIRING),
    ):
        if given in {one.lower() for one in words}:
            return status, ""
    shown = given if len(given) <= MAX_WORD else f"{given[: MAX_WORD - 1]}…"
    told = f"its status {shown!r} is no word that is known, and was taken as firing"
    return Status.FIRING, f"{told}: name it in mapping.firing or mapping.resolved"


def _alert(entry: object, source: str, where: Mapped, what: str) -> Alert:
    name = text(at(entry, where.id), MAX_ID)
    if not name:
        raise AlertFormatError(f"{what} has nothing at {where.id}, where its id should be")
    told = text(at(entry, where.status)) if where.status else ""
    if where.status and not told:
        # Without its status it might be the end of a trouble, and that must never be taken for a trouble.
        raise AlertFormatError(f"{what} has nothing at {where.status}, where its status should be")
    status, doubt = status_of(told, where.resolved, where.firing) if where.status else (Status.FIRING, "")
    began = at(entry, where.at) if where.at else None
    return Alert(
        source=source,
        id=identity(name, status.value),
        incident=(text(at(entry, where.incident), MAX_ID) if where.incident else "") or name,
        status=status,
        title=text(at(entry, where.title), MAX_TITLE) or name,
        text=text(at(entry, where.text), MAX_TEXT) if where.text else "",
        severity=text(at(entry, where.severity), MAX_SEVERITY) if where.severity else "",
        at=moment(began) or seconds(began),
        trouble=name,
        fields={key.lower(): value for key, path in where.fields.items() if (value := text(at(entry, path)))},
        doubt=doubt,
    )
