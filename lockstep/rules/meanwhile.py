"""What a bad version is replaced by on a cloud where the target must be deployed first, which takes minutes.

- KEEP: it serves on until the target is ready.
- DRAIN: traffic goes to another version there that is ready, not condemned, not left behind by this rollback, and was
  known to be good or judged PASS: the newest of them. Where there is none, it must be kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import StrEnum

from lockstep.rules.judge import Decision
from lockstep.rules.state import CloudState, Version, VersionRecord


class Meanwhile(StrEnum):
    """What the operator chose for as long as the target is being deployed."""

    KEEP = "keep"
    DRAIN = "drain"


def stand_in(
    cloud: CloudState, versions: Sequence[VersionRecord], target: Version, left: Collection[Version]
) -> Version | None:
    """The version that can take a cloud's traffic until the target is ready there; None when there is none."""
    apart = {target.digest, *(version.digest for version in left)}
    good = [
        one.version
        for one in versions
        if one.version.digest not in apart
        and not one.condemned
        and (one.known_good or one.verdict == Decision.PASS.value)
        and (slot := cloud.slot(one.version.slot)) is not None
        and slot.ready
    ]
    return max(good, key=lambda version: int(version.label), default=None)
