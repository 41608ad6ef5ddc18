"""What a caller must be allowed to do on a cloud, what of it a cloud grants, and how that is told.

A cloud's answer about one permission is yes, no, or nothing that could be relied on: the caller may not ask, or what
decides is not known before the call is made. The last is *cannot tell*, and never counts as a yes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """One permission by its vendor's name, the resource that it is needed on, and what cannot be done without it.

    `optional` is one that Lockstep finds another way without.
    """

    permission: str
    on: str
    purpose: str
    optional: bool = False


@dataclass(frozen=True)
class Finding:
    """A need and whether it is granted; None for "cannot tell". `why` says what forbids it, or hides it."""

    need: Need
    granted: bool | None
    why: str = ""


@dataclass(frozen=True)
class Permissions:
    """Everything that is needed on one cloud, and what became known of it."""

    findings: tuple[Finding, ...]

    @property
    def needed(self) -> tuple[Need, ...]:
        """All of it."""
        return tuple(finding.need for finding in self.findings)

    @property
    def missing(self) -> tuple[Finding, ...]:
        """What is not granted, as the cloud says."""
        return tuple(finding for finding in self.findings if finding.granted is False)

    @property
    def unknown(self) -> tuple[Finding, ...]:
        """What cannot be told."""
        return tuple(finding for finding in self.findings if finding.granted is None)

    @property
    def lacking(self) -> tuple[Finding, ...]:
        """What is missing and cannot be done without."""
        return tuple(finding for finding in self.missing if not finding.need.optional)


def told(permissions: Permissions, guide: str) -> tuple[str, ...]:
    """One line a permission that is missing, and one a reason why something cannot be told; empty when all is granted.

    `guide` is where it says what to grant.
    """
    lines = []
    for (permission, purpose, why, optional), places in _by_permission(permissions.missing).items():
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        reason = f"; {why}" if why else ""
        word = "may do without" if optional else "missing"
        lines.append(f"{word} {permission} on {places[0]}{more} ({purpose}{reason}): see {guide}")
    reasons: dict[str, list[str]] = {}
    for finding in permissions.unknown:
        names = reasons.setdefault(finding.why, [])
        if finding.need.permission not in names:
            names.append(finding.need.permission)
    for why, names in reasons.items():
        what = ", ".join(names) if len(names) <= 3 else f"{len(names)} permissions"
        lines.append(f"cannot tell about {what}: {why}")
    return tuple(lines)


def as_json(permissions: Permissions) -> Mapping[str, object]:
    """The same as plain values."""
    return {
        "needed": len(permissions.findings),
        "missing": [_plain(finding) for finding in permissions.missing],
        "cannot_tell": [_plain(finding) for finding in permissions.unknown],
    }


def refusal(lacking: Mapping[str, Sequence[Finding]]) -> str:
    """What the clouds' callers lack, in one sentence; "" when nothing is lacking."""
    parts = []
    for cloud, findings in lacking.items():
        names = list(dict.fromkeys(finding.need.permission for finding in findings))
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{cloud} does not grant {', '.join(names[:3])}{more}")
    return "; ".join(parts)


def _by_permission(findings: Iterable[Finding]) -> Mapping[tuple[str, str, str, bool], list[str]]:
    found: dict[tuple[str, str, str, bool], list[str]] = {}
    for finding in findings:
        need = finding.need
        found.setdefault((need.permission, need.purpose, finding.why, need.optional), []).append(need.on)
    return found


def _plain(finding: Finding) -> Mapping[str, object]:
    need = finding.need
    return {
        "permission": need.permission,
        "on": need.on,
        "purpose": need.purpose,
        "optional": need.optional,
        "why": finding.why,
    }
