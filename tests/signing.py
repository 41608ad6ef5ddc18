"""Keys for tests that sign and check, without files."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from lockstep.stores.keys import Keys, public_pem


def signing_keys() -> Keys:
    """A key of its own to sign versions with, and its public half."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Keys(signing=key, signing_public=(public_pem(key),))
