"""The ledger as configured."""

from __future__ import annotations

from pathlib import Path

from lockstep.stores.keys import Keys
from lockstep.stores.ledger.ledger import Ledger
from lockstep.stores.ledger.settings import SPOOL, LedgerSettings

NO_KEYS = Keys()


def open_ledger(settings: LedgerSettings, keys: Keys = NO_KEYS) -> Ledger:
    """The ledger; opens no file and no connection yet, and so never fails. Without a key it is not signed."""
    spool = settings.spool or (None if settings.is_file else SPOOL)
    return Ledger(
        settings.database,
        origin=settings.origin,
        signer=keys.ledger,
        verifiers=keys.verifiers,
        spool=Path(spool) if spool else None,
        password=settings.password.get_secret_value() if settings.password else "",
    )
