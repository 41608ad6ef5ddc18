"""The ledger: an append-only, signed record of what was done, by whom, why, and what came of it."""

from lockstep.stores.ledger.audit import Audit, Flaw
from lockstep.stores.ledger.entry import Entry, Event
from lockstep.stores.ledger.ledger import Ledger
from lockstep.stores.ledger.opening import open_ledger
from lockstep.stores.ledger.settings import AnyLedger, LedgerSettings

__all__ = ["AnyLedger", "Audit", "Entry", "Event", "Flaw", "Ledger", "LedgerSettings", "open_ledger"]
