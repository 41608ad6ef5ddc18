"""Reading keys: from the settings, the environment, or the folder that `stores/keys.py` describes.

Everything here raises ConfigError that names the place and never holds any of a private key.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import SecretStr

from lockstep.errors import ConfigError, RefusedError
from lockstep.rules.note import Signer, Verifier, parse_private, parse_vkey
from lockstep.stores.key_settings import (
    LEDGER_KEY,
    LEDGER_VARIABLE,
    LEDGER_VKEYS,
    SIGNING_KEY,
    SIGNING_PUB,
    SIGNING_VARIABLE,
    KeySettings,
)

CREATE: Final = "run `lockstep keys create`"


def given_key(setting: SecretStr | None, variable: str, environment: Mapping[str, str]) -> str | None:
    """The key as text where the settings or the environment hold it, rather than a file."""
    text = setting.get_secret_value() if setting else ""
    return text.strip() or environment.get(variable, "").strip() or None


def read_ledger_key(settings: KeySettings, origin: str, environment: Mapping[str, str]) -> Signer:
    """The key that signs the checkpoints of the ledger `origin`."""
    given = given_key(settings.ledger_key, LEDGER_VARIABLE, environment)
    path = Path(settings.folder) / LEDGER_KEY
    where = f"keys.ledger_key or ${LEDGER_VARIABLE}" if given else str(path)
    try:
        signer = parse_private(given or _read(path, "key of the ledger").decode("ascii", "replace").strip())
    except RefusedError as error:
        raise ConfigError(
            f"the ledger's key in {where} cannot be used: {error.problem}",
            hint="put the right one there, or a new one in its place: `lockstep keys rotate`",
        ) from error
    if signer.name != origin:
        raise ConfigError(
            f"the ledger's key in {where} is for {signer.name!r}, not for {origin!r}",
            hint="set the ledger's origin to the key's, or use a key of this ledger",
        )
    return signer


def read_signing_key(settings: KeySettings, environment: Mapping[str, str]) -> ec.EllipticCurvePrivateKey:
    """The key that signs versions: EC P-256."""
    given = given_key(settings.signing_key, SIGNING_VARIABLE, environment)
    path = Path(settings.folder) / SIGNING_KEY
    where = f"keys.signing_key or ${SIGNING_VARIABLE}" if given else str(path)
    pem = given.encode() if given else _read(path, "key that signs versions")
    try:
        key: object = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # whose text may hold parts of the key
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(
            f"the key in {where} is no unencrypted EC P-256 private key in PEM",
            hint="put the right one there, or a new one in its place: `lockstep keys rotate --signing`",
        )
    return key


def verifier_lines(folder: Path) -> tuple[str, ...]:
    """Of `ledger.vkeys`, oldest first; none when there is no such file."""
    path = folder / LEDGER_VKEYS
    if not os.path.lexists(path):
        return ()
    lines = _read(path, "list of verifier keys").decode("utf-8", "replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def read_verifier(line: str) -> Verifier:
    """One line of `ledger.vkeys` or of the settings."""
    try:
        return parse_vkey(line)
    except RefusedError as error:
        raise ConfigError(
            f"{line!r} is no verifier key: {error.problem}", hint=f"mend it in {LEDGER_VKEYS} or keys.verifiers"
        ) from error


def public_files(folder: Path) -> tuple[Path, ...]:
    """The files of public keys that are there, the current one first."""
    current = folder / SIGNING_PUB
    return (*([current] if os.path.lexists(current) else []), *sorted(folder.glob("signing-*.pub")))


def read_public(path: Path) -> bytes:
    """A public key's PEM, in the one form that `public_pem` gives too."""
    pem = _read(path, "public key")
    try:
        key: object = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ConfigError(f"{path} is no EC public key in PEM", hint="restore it; " + CREATE)
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError(f"there is no {what} at {path}", hint=CREATE) from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="check its owner and mode") from error


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The public half, as `signing.pub` holds it."""
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def fingerprint(pem: bytes) -> str:
    """Hex SHA-256 of a public key's PEM: what OpenSSF model-signing calls a key's hint."""
    return hashlib.sha256(pem).hexdigest()
