"""Every change is announced to the ledger before it begins and closed with what came of it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping

from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.rules.state import FleetState, Version


@contextlib.contextmanager
def record(fleet: Fleet, operation: str, version: Version | None, **intent: object) -> Iterator[dict[str, object]]:
    """Write the intent, run the block, write the outcome: what the block put into the dictionary, and any error.

    A process that is killed in the block leaves an intent without an outcome, which `lockstep status` shows.
    """
    event = str(uuid.uuid4())
    subject = {} if version is None else {"version": version.label, "digest": version.digest}
    fleet.ledger.append(f"{event}/intent", f"{operation}.intent", fleet.model, fleet.actor, {**subject, **intent})
    outcome: dict[str, object] = {}
    error = ""
    try:
        yield outcome
    except LockstepError as failure:
        error = str(failure)
        raise
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        result = {**subject, **outcome, "intent": event, "error": error}
        fleet.ledger.append(f"{event}/outcome", f"{operation}.outcome", fleet.model, fleet.actor, result)


def traffic(state: FleetState) -> Mapping[str, object]:
    """A fleet's traffic by cloud, for the ledger."""
    clouds: dict[str, object] = {
        cloud.cloud: {slot.name: slot.weight for slot in cloud.slots} for cloud in state.clouds
    }
    return {**clouds, **{cloud: f"unreachable: {reason}" for cloud, reason in state.unreachable.items()}}
