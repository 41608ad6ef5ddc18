r"""Signed notes: text with Ed25519 signatures under it that a person can read and anybody's tool can check.

The format is C2SP's signed-note (c2sp.org/signed-note): the text, an empty line, then a line per signature,
`— <name> base64(key id || signature)`. Keys are written as Go's note package does (golang.org/x/mod/sumdb/note): a
verifier key is `<name>+<key id, hex>+base64(0x01 || public key)`, a private key
`PRIVATE+KEY+<name>+<key id, hex>+base64(0x01 || seed)`. The key id is SHA256(name || "\n" || 0x01 || public key)[:4].
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lockstep.errors import NoteError

ED25519: Final = b"\x01"
KEY_SIZE: Final = 32  # bytes, of a public key and of a private one's seed
ID_SIZE: Final = 4
PRIVATE: Final = "PRIVATE+KEY+"
MOST_SIGNATURES: Final = 100  # a note is refused rather than checked without end
_HINT: Final = "`lockstep keys show` prints the verifier keys that are known here"


@dataclass(frozen=True)
class Verifier:
    """Who may have signed: a name, the key id that its signatures carry (4 bytes), an Ed25519 public key (32 bytes)."""

    name: str
    key_id: bytes
    public_key: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.public_key) != KEY_SIZE:
            raise NoteError(f"the public key of {self.name} is {len(self.public_key)} bytes long, not {KEY_SIZE}")
        if self.key_id != key_id(self.name, self.public_key):
            raise NoteError(f"key id {self.key_id.hex()} is not that of {self.name}'s key")

    @property
    def vkey(self) -> str:
        """The key in one line that may be published; `parse_vkey` reads it."""
        return f"{self.name}+{self.key_id.hex()}+{_encode(ED25519 + self.public_key)}"

    def verify(self, text: bytes, signature: bytes) -> bool:
        """Whether this key made the signature."""
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """Who signs: a name and an Ed25519 private key, as its seed of 32 bytes (kept out of `repr`)."""

    name: str
    private: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.private) != KEY_SIZE:
            raise NoteError(f"the private key of {self.name} is {len(self.private)} bytes long, not {KEY_SIZE}")

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private)

    @cached_property
    def verifier(self) -> Verifier:
        """What others check this signer's signatures with."""
        public_key = self._key.public_key().public_bytes_raw()
        return Verifier(self.name, key_id(self.name, public_key), public_key)

    @property
    def private_text(self) -> str:
        """The secret in one line; `parse_private` reads it."""
        return f"{PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{_encode(ED25519 + self.private)}"

    def sign(self, text: bytes) -> bytes:
        """The 64 bytes of the signature over `text`."""
        return self._key.sign(text)


def key_id(name: str, public_key: bytes) -> bytes:
    """The 4 bytes that a signature names its key by."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519 + public_key).digest()[:ID_SIZE]


def parse_vkey(text: str) -> Verifier:
    """The verifier key in one line of text; raises NoteError."""
    name, identity, public_key = _parse_key(text, "verifier key")
    return Verifier(name, identity, public_key)


def parse_private(text: str) -> Signer:
    """The private key in one line of text; raises NoteError, which never holds the key."""
    if not text.startswith(PRIVATE):
        raise NoteError("this is no private key of a signed note's", hint=f"it starts with {PRIVATE}")
    name, identity, seed = _parse_key(text.removeprefix(PRIVATE), "private key")
    signer = Signer(name, seed)
    if signer.verifier.key_id != identity:
        raise NoteError(f"the private key of {name} does not have the key id {identity.hex()}")
    return signer


def sign(text: str, *signers: Signer) -> bytes:
    """The note: text (which must end with a newline) and each signer's signature."""
    _check_text(text)
    if not text.endswith("\n"):
        raise NoteError("a note's text must end with a newline")
    if not signers:
        raise NoteError("a note needs a signature")
    body = text.encode()
    lines = [f"— {one.name} {_encode(one.verifier.key_id + one.sign(body))}\n" for one in signers]
    return f"{text}\n{''.join(lines)}".encode()


def open_note(note: bytes, verifiers: Iterable[Verifier]) -> tuple[str, tuple[str, ...]]:
    """The text, and the names of those of `verifiers` that signed it, in the order of their signatures.

    Signatures of other keys are passed over. Raises NoteError when the note is malformed, when a known key's signature
    is wrong, and when no known key signed.
    """
    try:
        whole = note.decode()
    except UnicodeDecodeError as error:
        raise NoteError("the note is not UTF-8 text") from error
    _check_text(whole)
    before, gap, signatures = whole.rpartition("\n\n")
    if not gap or not signatures.endswith("\n"):
        raise NoteError("the note has no signatures under its text")
    text = before + "\n"
    known = _by_identity(verifiers)
    signed: dict[Verifier, None] = {}
    lines = signatures[:-1].split("\n")
    if len(lines) > MOST_SIGNATURES:
        raise NoteError(f"the note has more than {MOST_SIGNATURES} signatures")
    for line in lines:
        name, identity, signature = _parse_signature(line)
        verifier = known.get((name, identity))
        if verifier is None or verifier in signed:
            continue
        if not verifier.verify(text.encode(), signature):
            raise NoteError(f"the signature of {name}+{identity.hex()} does not fit the note's text", hint=_HINT)
        signed[verifier] = None
    if not signed:
        names = ", ".join(line.split(" ")[1] for line in lines)
        raise NoteError(f"no known key signed the note (signed by {names})", hint=_HINT)
    return text, tuple(verifier.name for verifier in signed)


def decode_base64(text: str) -> bytes:
    """Bytes of RFC 4648 base64 in the one form that encodes them; raises ValueError."""
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {text!r}") from error
    if _encode(data) != text:
        raise ValueError(f"not canonical base64: {text!r}")
    return data


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _by_identity(verifiers: Iterable[Verifier]) -> dict[tuple[str, bytes], Verifier]:
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        # Four bytes collide by design now and then, and an attacker can make them: which key is meant is then unknown.
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise NoteError(f"two keys are called {verifier.name}+{verifier.key_id.hex()}", hint="remove one of them")
    return known


def _parse_key(text: str, what: str) -> tuple[str, bytes, bytes]:
    """Name, key id and key of `name+id+base64(type || key)`; base64 may itself hold a plus."""
    parts = text.split("+", 2)
    try:
        name, identity, encoded = parts
        identity_bytes, data = bytes.fromhex(identity), decode_base64(encoded)
    except ValueError:
        # Not `from`: the error that it came from shows the key.
        raise NoteError(f"this is no {what}: expected NAME+ID+KEY, ID in 8 hex digits, KEY in base64") from None
    if identity != identity_bytes.hex() or len(identity_bytes) != ID_SIZE:
        raise NoteError(f"the key id of the {what} of {name} is not 8 hex digits in lower case")
    if data[:1] != ED25519 or len(data) != 1 + KEY_SIZE:
        raise NoteError(f"the {what} of {name} is not for Ed25519")
    return name, identity_bytes, data[1:]


def _parse_signature(line: str) -> tuple[str, bytes, bytes]:
    parts = line.split(" ")
    try:
        dash, name, encoded = parts
        data = decode_base64(encoded)
    except ValueError as error:
        raise NoteError(f"the note has a malformed signature line: {line!r}") from error
    if dash != "—" or len(data) <= ID_SIZE:
        raise NoteError(f"the note has a malformed signature line: {line!r}")
    _check_name(name)
    return name, data[:ID_SIZE], data[ID_SIZE:]


def _check_name(name: str) -> None:
    if not name or "+" in name or any(sign.isspace() or ord(sign) < 0x20 for sign in name):
        raise NoteError(f"a key's name may hold no space and no plus sign, and not be empty: {name!r}")


def _check_text(text: str) -> None:
    if any(ord(sign) < 0x20 and sign != "\n" for sign in text):
        raise NoteError("a note may hold no control characters")
