"""What becomes of keys stands in the ledger: which key came when, in whose place, and who asked.

Each key has one entry, `keys.created` or `keys.rotated`, found by an event id made of the key itself: so recording it
twice leaves one, and a process that was killed between making a key and recording it is caught up by the next
`lockstep keys create`. The key comes first and its entry second, as a key may not be lost for a ledger that is down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from lockstep.stores.keys import Keys, fingerprint
from lockstep.stores.ledger import Entry, Ledger

KINDS: Final = "keys."
CREATED: Final = "keys.created"
ROTATED: Final = "keys.rotated"
LEDGER_KEY: Final = "ledger"
SIGNING_KEY: Final = "versions"


def named_keys(keys: Keys) -> Mapping[str, str]:
    """The names of the keys in use: the ledger's verifier key, and `sha256:…` of the versions' public key."""
    found = {}
    if keys.ledger is not None:
        found[LEDGER_KEY] = keys.ledger.verifier.vkey
    if keys.signing is not None and keys.signing_public:
        found[SIGNING_KEY] = f"sha256:{fingerprint(keys.signing_public[0])}"
    return found


def record_created(ledger: Ledger, keys: Keys, actor: str) -> tuple[Entry, ...]:
    """One entry for each key in use that has none yet; the entries of all keys in use, new and old.

    Raises LockstepError only when neither the ledger nor its spool can be written.
    """
    return tuple(
        ledger.append(_event(name), CREATED, "", actor, {"key": key, "new": name})
        for key, name in named_keys(keys).items()
    )


def record_rotated(ledger: Ledger, key: str, old: str, new: str, actor: str) -> Entry:
    """The entry that `new` took the place of `old` (empty: it could not be read); errors as in `record_created`."""
    return ledger.append(_event(new), ROTATED, "", actor, {"key": key, "old": old, "new": new})


def unrecorded(keys: Keys, entries: Sequence[Entry]) -> tuple[str, ...]:
    """Keys that are trusted and that no entry names, as new or as old: somebody put them there by hand."""
    named = {str(entry.body.get(part)) for entry in entries if entry.kind.startswith(KINDS) for part in ("old", "new")}
    trusted = [verifier.vkey for verifier in keys.verifiers]
    trusted += [f"sha256:{fingerprint(pem)}" for pem in keys.signing_public]
    return tuple(name for name in trusted if name not in named)


def _event(name: str) -> str:
    return f"keys/{name}"
