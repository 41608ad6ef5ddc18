"""The ledger as configured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lockstep.rules.note import Signer, Verifier
from lockstep.stores.ledger.ledger import Ledger
from lockstep.stores.ledger.settings import SPOOL, LedgerSettings


def open_ledger(settings: LedgerSettings, signer: Signer | None = None, verifiers: Sequence[Verifier] = ()) -> Ledger:
    """The ledger; opens no file and no connection yet, and so never fails."""
    spool = settings.spool or (None if settings.is_file else SPOOL)
    return Ledger(
        settings.database,
        origin=settings.origin,
        signer=signer,
        verifiers=verifiers,
        spool=Path(spool) if spool else None,
        password=settings.password.get_secret_value() if settings.password else "",
    )
