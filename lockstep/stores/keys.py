"""The keys that Lockstep signs with: one for the ledger's checkpoints, one for versions.

They are files in one folder, mode 0600, each made in one step and never overwritten except by a rotation:

    ledger.key         Ed25519, in the one-line form of Go's note package (`rules/note.py`)
    ledger.vkeys       its verifier key and those of all keys before it, one a line, newest last
    signing.key        EC P-256, PEM: what the official `model_signing sign key` takes as --private_key
    signing.pub        its public half, PEM: what `model_signing verify key` takes as --public_key
    signing-<id>.pub   public halves of the keys before it

Where a key is lost nothing stops: `load_keys` raises nothing and says what is wrong in `Keys.problems`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pydantic import SecretStr

from lockstep.errors import LockstepError, NotFoundError, RefusedError
from lockstep.rules.note import Signer, Verifier, parse_private
from lockstep.stores.key_files import (
    CREATE,
    fingerprint,
    given_key,
    public_files,
    public_pem,
    read_ledger_key,
    read_public,
    read_signing_key,
    read_verifier,
    verifier_lines,
)
from lockstep.stores.key_settings import (
    LEDGER_KEY,
    LEDGER_VARIABLE,
    LEDGER_VKEYS,
    SIGNING_KEY,
    SIGNING_PUB,
    SIGNING_VARIABLE,
    KeySettings,
)
from lockstep.stores.private_files import create_file, locked_folder, readable_by_others, replace_file

__all__ = [
    "KeySettings",
    "Keys",
    "create_keys",
    "fingerprint",
    "load_keys",
    "public_pem",
    "rotate_ledger_key",
    "rotate_signing_key",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Keys:
    """What there is to sign and to check with; `problems` says in sentences what there is not, or what is unsafe.

    `verifiers` and `signing_public` (PEM) are the current key's and those of all keys before it, the current one first.
    """

    ledger: Signer | None = None
    signing: ec.EllipticCurvePrivateKey | None = None
    verifiers: tuple[Verifier, ...] = ()
    signing_public: tuple[bytes, ...] = ()
    problems: tuple[str, ...] = ()


def load_keys(settings: KeySettings, origin: str, environment: Mapping[str, str] | None = None) -> Keys:
    """Everything that can be read; raises nothing. `origin` is the ledger's name, which its key must have too."""
    environment = os.environ if environment is None else environment
    folder = Path(settings.folder)
    problems: list[str] = []
    ledger = _attempt(problems, partial(read_ledger_key, settings, origin, environment))
    signing = _attempt(problems, partial(read_signing_key, settings, environment))
    lines = _attempt(problems, partial(verifier_lines, folder)) or ()
    known = [_attempt(problems, partial(read_verifier, line)) for line in (*reversed(lines), *settings.verifiers)]
    public = [_attempt(problems, partial(read_public, path)) for path in public_files(folder)]
    for name in (LEDGER_KEY, SIGNING_KEY):
        if readable_by_others(folder / name):
            problems.append(f"{folder / name} can be read by other users (run: chmod 600 {folder / name})")
    verifiers = [ledger.verifier if ledger else None, *known]
    public = [public_pem(signing) if signing else None, *public]
    return Keys(ledger, signing, _distinct(verifiers), _distinct(public), tuple(problems))


def create_keys(settings: KeySettings, origin: str, environment: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """Make the keys that are missing, in order; returns the files that were made. Nothing is overwritten.

    A key that the settings or the environment give is not made as a file. Raises LockstepError when the folder cannot
    be written and when what is there is no key.
    """
    environment = os.environ if environment is None else environment
    made: list[Path] = []
    with locked_folder(Path(settings.folder)) as folder:
        if given_key(settings.ledger_key, LEDGER_VARIABLE, environment) is None:
            if create_file(folder / LEDGER_KEY, lambda: _line(Signer(origin, os.urandom(32)).private_text)):
                made.append(folder / LEDGER_KEY)
            made += _publish_verifier(folder, read_ledger_key(settings, origin, environment).verifier)
        if given_key(settings.signing_key, SIGNING_VARIABLE, environment) is None:
            if create_file(folder / SIGNING_KEY, _new_signing_key):
                made.append(folder / SIGNING_KEY)
            made += _publish_signing(folder, read_signing_key(settings, environment))
    return tuple(made)


def rotate_ledger_key(settings: KeySettings, origin: str, environment: Mapping[str, str] | None = None) -> Verifier:
    """Put a new key in the place of the ledger's; what the old one signed still verifies. Returns the new verifier."""
    environment = os.environ if environment is None else environment
    _refuse_given(settings.ledger_key, LEDGER_VARIABLE, environment)
    _refuse_missing(Path(settings.folder) / LEDGER_KEY)
    with locked_folder(Path(settings.folder)) as folder:
        _keep_old_verifier(folder)
        signer = Signer(origin, os.urandom(32))
        # First who may have signed, then who signs: killed in between, one verifier more is known than there are keys.
        _publish_verifier(folder, signer.verifier)
        replace_file(folder / LEDGER_KEY, _line(signer.private_text))
    return signer.verifier


def rotate_signing_key(settings: KeySettings, environment: Mapping[str, str] | None = None) -> bytes:
    """Put a new key in the place of the versions'; what the old one signed still verifies. Returns its public PEM."""
    environment = os.environ if environment is None else environment
    _refuse_given(settings.signing_key, SIGNING_VARIABLE, environment)
    _refuse_missing(Path(settings.folder) / SIGNING_KEY)
    with locked_folder(Path(settings.folder)) as folder:
        old = _attempt([], partial(read_signing_key, settings, environment))
        if old is not None:
            _publish_signing(folder, old)
        replace_file(folder / SIGNING_KEY, _new_signing_key())
        _publish_signing(folder, new := read_signing_key(settings, environment))
    return public_pem(new)


# -- writing -------------------------------------------------------------------------------------------------------


def _new_signing_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _publish_verifier(folder: Path, verifier: Verifier) -> list[Path]:
    """Add it to `ledger.vkeys` unless it is there; returns the file if it was made."""
    path = folder / LEDGER_VKEYS
    known = verifier_lines(folder)
    if verifier.vkey in known:
        return []
    new = not os.path.lexists(path)
    replace_file(path, b"".join(_line(line) for line in (*known, verifier.vkey)))
    return [path] if new else []


def _keep_old_verifier(folder: Path) -> None:
    """A key that was put there by hand may not be in `ledger.vkeys` yet; one that cannot be read signed nothing new."""
    try:
        old = parse_private((folder / LEDGER_KEY).read_text(encoding="ascii").strip())
    except (OSError, ValueError, RefusedError):
        return
    _publish_verifier(folder, old.verifier)


def _publish_signing(folder: Path, key: ec.EllipticCurvePrivateKey) -> list[Path]:
    """Make `signing.pub` the public half of `key`; another one that is there is kept under its id."""
    path, pem = folder / SIGNING_PUB, public_pem(key)
    if create_file(path, lambda: pem):
        return [path]
    old = read_public(path)
    if old != pem:
        create_file(folder / f"signing-{fingerprint(old)[:8]}.pub", lambda: old)
        replace_file(path, pem)
    return []


def _refuse_given(setting: SecretStr | None, variable: str, environment: Mapping[str, str]) -> None:
    if given_key(setting, variable, environment) is not None:
        raise RefusedError(
            f"this key is given by lockstep.yaml or ${variable}, not by a file",
            hint=f"unset it, `lockstep keys create` in another folder, and put the new key into ${variable}; "
            "list the old verifier key under keys.verifiers",
        )


def _refuse_missing(path: Path) -> None:
    if not os.path.lexists(path):
        raise NotFoundError(f"there is no key at {path} to put another one in the place of", hint=CREATE)


def _line(text: str) -> bytes:
    return text.encode() + b"\n"


def _attempt(problems: list[str], read: Callable[[], T]) -> T | None:
    try:
        return read()
    except LockstepError as error:
        problems.append(error.reason)
        return None


def _distinct(found: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(one for one in found if one is not None))
