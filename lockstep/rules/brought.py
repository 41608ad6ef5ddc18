"""What a rollback changed on the clouds: by the traffic before it, as the ledger has it, and by those that followed.

What should serve says less: one that brings over a cloud which could not follow before finds it decided already.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lockstep.rules.state import Version


def changed_clouds(target: Version, before: Mapping[str, object], followed: Collection[str]) -> tuple[str, ...]:
    """Clouds that follow and did not serve the target alone before, or did not say what they served."""
    return tuple(cloud for cloud in sorted(followed) if _taking(before.get(cloud)) != {target.slot: 100})


def other_slots(target: Version, before: Mapping[str, object], clouds: Collection[str]) -> tuple[str, ...]:
    """Slots beside the target's that took traffic on these clouds."""
    found = {slot for cloud in clouds for slot in _taking(before.get(cloud))}
    return tuple(sorted(found - {target.slot}))


def brought_over(clouds: Sequence[str], versions: Sequence[str]) -> str:
    """The clouds that were changed, in words; `versions` are those that they served still."""
    served = f" from version {', '.join(versions)}" if versions else ""
    return f"{', '.join(clouds)} {'was' if len(clouds) == 1 else 'were'} brought over{served}"


def _taking(traffic: object) -> Mapping[str, object]:
    """Slots that take traffic; none where a cloud did not answer, which an entry says in words."""
    if not isinstance(traffic, Mapping):
        return {}
    return {str(slot): weight for slot, weight in traffic.items() if weight}
