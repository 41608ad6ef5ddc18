"""An alert in Lockstep's words, whoever sent it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Status(Enum):
    """Whether the trouble is there."""

    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Alert:
    """One alert of a delivery; everything in it was written by others and is believed in nothing.

    `id` is the same when a vendor delivers the alert again, and another one for the next alert of the same incident.
    `incident` is the vendor's own key of the trouble, the same while it lasts; `trouble` is what the alert and its end
    have in common where an incident holds more than one, "" where that is the incident. `fields` are labels and other
    texts to route by, under lower-case dotted names. `at` is when the trouble began or, where that is not told, when
    the delivery was signed, in seconds since 1970; 0.0 if neither is known. `doubt` says what its reader had to guess,
    "" for nothing.
    """

    source: str
    id: str
    incident: str
    status: Status
    title: str
    text: str = ""
    severity: str = ""
    at: float = 0.0
    trouble: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    doubt: str = ""
