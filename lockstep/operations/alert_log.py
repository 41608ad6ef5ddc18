"""Which alerts came, and what came of each, by the ledger alone: no agent, no cloud and no MLflow is asked."""

from __future__ import annotations

from lockstep.operations.history import ALL
from lockstep.rules.alerts.log import ANSWERED, RECEIVED, Logged, is_about, read_alerts
from lockstep.stores.ledger import Ledger


def alert_log(ledger: Ledger, model: str = "", last: int = 20) -> tuple[Logged, ...]:
    """The newest `last` alerts of the model ("": of any, and of none), the newest first.

    Raises LockstepError when the ledger cannot be read.
    """
    looked = last
    while True:
        received = ledger.entries(None, RECEIVED, last=looked)
        mine = [line for line in received if is_about(line, model)]
        if len(mine) >= last or len(received) < looked:
            break
        looked *= 8  # they stand among those of all models
    answered = ledger.entries(model or None, ANSWERED, last=ALL)
    return tuple(reversed(read_alerts(mine[-last:], answered)))
