"""Two rollbacks at once are one: the second has waited for the first, and tells what came of that."""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.errors import LockstepError, SplitError
from lockstep.operations.fleet import Fleet
from lockstep.operations.lease import Writer
from lockstep.operations.probe import wait_until_serving
from lockstep.rules.deeds import Deed, Ending, mapping, read_deeds, text, texts
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit


@dataclass(frozen=True)
class First:
    """The rollback that was waited for: its event in the ledger, who asked, the labels of the versions that it left."""

    event: str
    actor: str
    left: tuple[str, ...]

    def __str__(self) -> str:
        left = f", which left version {', '.join(self.left)}" if self.left else ""
        return f"the rollback by {self.actor}{left}"


def joined(fleet: Fleet, writer: Writer, target: Version) -> First | None:
    """The rollback that the writer has waited for, if it led to `target` on every cloud that was asked of it.

    None when there was none, and when its work is still to be done: it was killed, it failed, it went elsewhere. Raises
    SplitError when some clouds could not follow it.
    """
    if writer.first is None:
        return None
    try:
        found = _newest(fleet, writer.first.fence, writer.fence)
    except LockstepError as error:
        fleet.say(f"what came of the rollback before is not known: {error.reason}")
        return None
    if found is None or found.digest != target.digest:
        return None
    if found.ending is Ending.DONE:
        return First(found.event, found.actor, texts(found.body, "left"))
    if text(found.body, "ending") == "split":
        raise split_with(found, fleet.model)
    return None


def split_with(first: Deed, model: str) -> SplitError:
    """What the first one says of the clouds that could not follow it, as it stands in the ledger."""
    following, left = f"lockstep reconcile {model} --wait 300", list(texts(first.body, "left"))
    return SplitError(
        f"{first.error} (told by the rollback by {first.actor}, which has just ended)",
        hint=f"{following} brings over what could not follow",
        facts={
            "target": first.version,
            "digest": first.digest,
            "left": left,
            "condemned": left,
            "clouds": dict(mapping(first.body, "seconds")),
            "split": dict(mapping(first.body, "split")),
            "next": following,
            "joined": first.event,
        },
    )


def verify_all(fleet: Fleet, target: Version) -> dict[str, float]:
    """Seconds in which each cloud that could be read back and probed serves the target alone; changes nothing."""
    split = TrafficSplit.all_to(target.slot)
    outcomes = fleet.look_at_each(
        f"verify {target}",
        lambda cloud: wait_until_serving(cloud, fleet.model, split, target, fleet.probe, cloud.traffic_timeout),
    )
    return {outcome.cloud: outcome.seconds for outcome in outcomes if outcome.done}


def _newest(fleet: Fleet, since: int, before: int) -> Deed | None:
    """The newest rollback under a fence from `since` on that has ended."""

    def fence(deed: Deed) -> int:
        found = deed.body.get("fence")
        return found if isinstance(found, int) else -1

    deeds = read_deeds(fleet.ledger.entries(fleet.model, "rollback.", last=100))
    ended = [deed for deed in deeds if deed.ended is not None and since <= fence(deed) < before]
    return max(ended, key=fence, default=None)
