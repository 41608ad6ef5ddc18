"""Incidents and how long it took to restore service, from the operations of a model.

An incident is a rollback, or a canary that was taken back because it was judged bad. A rollback that not every cloud
followed stays the same incident until a later one is done everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from lockstep.rules.deeds import Deed, Ending, mapping, text
from lockstep.rules.history import read_back

#: Seconds before a rollback's beginning at which its alert may have been given.
BELIEVED: Final = 86_400.0


@dataclass(frozen=True)
class Incident:
    """`began` is when an alert, a person, a monitor or a verdict found it, `restored` when all clouds were read back.

    Unix seconds; `restored` is None as long as a cloud does not follow. `clouds` are seconds from `began` to the
    moment at which each cloud was read back. `entries` are the ledger's indices that it rests on.
    """

    what: str
    began: float
    restored: float | None
    clouds: Mapping[str, float]
    reason: str
    actor: str
    target: str
    left: str
    entries: tuple[int, ...]

    @property
    def seconds(self) -> float | None:
        """Time to restore; None for one that lasts."""
        return None if self.restored is None else self.restored - self.began


def read_incidents(deeds: Sequence[Deed]) -> tuple[Incident, ...]:
    """All incidents, oldest first."""
    found: list[Incident] = []
    for deed in deeds:
        incident = _incident(deed)
        if incident is None:
            continue
        last = found[-1] if found else None
        if last is not None and last.restored is None and last.what == incident.what == "rollback":
            found[-1] = _joined(last, incident)
        else:
            found.append(incident)
    return tuple(found)


def _incident(deed: Deed) -> Incident | None:
    if deed.operation == "rollback" and deed.ending is not Ending.REFUSED:
        return _rollback(deed, deed)
    if deed.operation == "monitor":
        back = next(iter(deed.find("rollback")), None)
        return _rollback(deed, back) if back is not None and back.ending is not Ending.REFUSED else None
    if deed.operation == "canary_deploy":
        return _taken_back(deed)
    return None


def _rollback(found: Deed, back: Deed) -> Incident:
    """`found` is the monitor's or the rollback itself; an error after all clouds followed does not make it last."""
    split = mapping(back.body, "split")
    followed = back.ended is not None and bool(mapping(back.body, "seconds")) and not split
    left = back.body.get("left")
    began = min(_alerted(one) for one in (found, back))
    return Incident(
        what="rollback",
        began=began,
        restored=max(_verified(back).values(), default=back.ended) if followed else None,
        clouds=_since(began, _verified(back)),
        reason=back.reason or found.reason,
        actor=found.actor,
        target=back.version,
        left=", ".join(map(str, left)) if isinstance(left, list) else "",
        entries=tuple(sorted({*found.entries, *back.entries})),
    )


def _alerted(deed: Deed) -> float:
    """When the alert was given that asked for the deed (`alert: {id, at}` of its intent), else when the deed began.

    A time after that beginning, or long before it, is another clock's or another incident's, and is not believed.
    """
    given = text(mapping(deed.body, "alert"), "at")
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        return deed.began
    if at.tzinfo is None or not deed.began - BELIEVED <= at.timestamp() <= deed.began:
        return deed.began
    return at.timestamp()


def _taken_back(deed: Deed) -> Incident | None:
    bad = [step for step in deed.find("verdict") if text(step.body, "decision") == "fail"]
    if not bad:
        return None
    shifts = [step for step in deed.find("shift") if step.began >= bad[-1].began]
    verified = {cloud: at for shift in shifts for cloud, at in _times(shift).items()}
    missing = {cloud for shift in shifts for cloud in mapping(shift.body, "split")}
    return Incident(
        what="canary taken back",
        began=bad[-1].began,
        restored=max(verified.values()) if verified and not missing else None,
        clouds=_since(bad[-1].began, verified),
        reason=deed.error,
        actor=deed.actor,
        target="",
        left=deed.version,
        entries=tuple(sorted({*deed.entries, *bad[-1].entries})),
    )


def _joined(first: Incident, later: Incident) -> Incident:
    moved = later.began - first.began
    clouds = {**{cloud: seconds + moved for cloud, seconds in later.clouds.items()}, **first.clouds}
    return replace(
        first,
        restored=later.restored,
        clouds=dict(sorted(clouds.items())),
        target=later.target,
        left=first.left or later.left,
        entries=tuple(sorted({*first.entries, *later.entries})),
    )


def _verified(back: Deed) -> Mapping[str, float]:
    return {cloud: at for shift in back.find("shift") for cloud, at in _times(shift).items()}


def _times(shift: Deed) -> Mapping[str, float]:
    return {} if shift.ended is None else {cloud: read_back(shift, cloud) for cloud in mapping(shift.body, "verified")}


def _since(began: float, verified: Mapping[str, float]) -> Mapping[str, float]:
    return {cloud: round(max(at - began, 0.0), 3) for cloud, at in sorted(verified.items())}
