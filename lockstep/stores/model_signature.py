"""Signatures over a version's files in the OpenSSF model-signing format, which anybody's `model_signing verify` takes.

A file `model.sig` is a Sigstore bundle (v0.3, a public key's hint and no transparency log) around a DSSE envelope
around an in-toto statement, whose predicate `https://model_signing/signature/v1.0` names every file with its SHA-256.
It is built from digests that are known already, so that no file is read again. Beside the files the predicate names
the SHA-256 of Lockstep's manifest, so that the one signature holds all facts of the version; verifiers of that
predicate leave aside fields that they do not know. Sources: openssf.org's model-signing specification, in-toto
attestation v1, DSSE v1.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockstep.errors import DigestMismatchError
from lockstep.rules.manifest import SHA256, Manifest

MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://model_signing/signature/v1.0"
#: The hash that goes with a curve, by the curve's bits.
HASHES: Final[Mapping[int, hashes.HashAlgorithm]] = {256: hashes.SHA256(), 384: hashes.SHA384(), 521: hashes.SHA512()}
HINT: Final = "register the version again with the right key, which signs what its manifest names"


@dataclass(frozen=True)
class Signed:
    """What a valid signature says: SHA-256 by path, the manifest's SHA-256 ("" for another tool's), who signed.

    `signer` is the hex SHA-256 of the public key's PEM text, as the bundle's hint has it.
    """

    files: Mapping[str, str]
    manifest: str
    signer: str


def sign_manifest(manifest: Manifest, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The bundle for a version. Two signatures of one version differ, since ECDSA is salted; both are valid."""
    # The order in which the official tool lists files: by the parts of their paths.
    files = sorted(manifest.files, key=lambda file: PurePosixPath(file.path))
    root = hashlib.sha256(b"".join(bytes.fromhex(file.sha256) for file in files)).hexdigest()
    statement = {
        "_type": STATEMENT,
        "subject": [{"name": manifest.name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
            "resources": [{"name": file.path, "algorithm": "sha256", "digest": file.sha256} for file in files],
            "lockstep": {"schema": manifest.schema, "manifest_sha256": manifest.digest},
        },
    }
    payload = json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()
    signature = key.sign(_pre_authentication(PAYLOAD_TYPE, payload), ec.ECDSA(HASHES[key.curve.key_size]))
    bundle = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {"publicKey": {"hint": fingerprint(_pem(key.public_key()))}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle, separators=(",", ":")).encode() + b"\n"


def open_signature(bundle: bytes, public_keys: Iterable[bytes], what: str) -> Signed:
    """What a bundle says, if one of the keys (PEM) signed it; `what` names its version in errors.

    Raises DigestMismatchError for a bundle that is malformed, contradicts itself, or is signed by none of them.
    """
    known = {fingerprint(pem): pem for pem in public_keys}
    try:
        document = json.loads(bundle)
        envelope, material = document["dsseEnvelope"], document["verificationMaterial"]
        if document["mediaType"] != MEDIA_TYPE or envelope["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"it is a {document['mediaType']} around a {envelope['payloadType']}")  # noqa: TRY301
        signer = str(material["publicKey"]["hint"])
        payload = base64.b64decode(envelope["payload"], validate=True)
        signature = base64.b64decode(envelope["signatures"][0]["sig"], validate=True)
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        raise DigestMismatchError(f"the signature of {what} is malformed: {error}", hint=HINT) from error
    if signer not in known:
        raise DigestMismatchError(
            f"{what} is signed by the key {signer[:12] or 'unnamed'}, which is none of ours: "
            f"{', '.join(sorted(key[:12] for key in known)) or 'there is no public key'}",
            hint="add that key's public half to the keys' folder if you trust it, or register the version again",
        )
    try:
        key = serialization.load_pem_public_key(known[signer])
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature(f"{type(key).__name__} is no elliptic curve's key")  # noqa: TRY301
        key.verify(signature, _pre_authentication(PAYLOAD_TYPE, payload), ec.ECDSA(HASHES[key.curve.key_size]))
    except InvalidSignature as error:
        raise DigestMismatchError(f"the signature of {what} is not one of the key {signer[:12]}", hint=HINT) from error
    try:
        return _read_statement(json.loads(payload), signer)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise DigestMismatchError(f"the signature of {what} signs something else: {error}", hint=HINT) from error


def verify_signature(bundle: bytes, manifest: Manifest, public_keys: Iterable[bytes], what: str) -> str:
    """The signer of a bundle that is this very manifest's; raises DigestMismatchError naming the first difference."""
    signed = open_signature(bundle, public_keys, what)
    expected = {file.path: file.sha256 for file in manifest.files}
    for path in sorted(expected.keys() | signed.files.keys()):
        if expected.get(path) != signed.files.get(path):
            raise DigestMismatchError(
                f"the signature of {what} has {path} with sha256 {signed.files.get(path, 'none')}, its manifest "
                f"with {expected.get(path, 'none')}",
                hint=HINT,
            )
    if signed.manifest != manifest.digest:
        raise DigestMismatchError(
            f"the signature of {what} is for the manifest {signed.manifest[:12] or 'of nobody'}, not for "
            f"{manifest.digest[:12]}",
            hint=HINT,
        )
    return signed.signer


def fingerprint(pem: bytes) -> str:
    """Hex SHA-256 of a public key's PEM text, by which bundles name their key; the text is brought into one form."""
    key = serialization.load_pem_public_key(pem)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return hashlib.sha256(_pem(key)).hexdigest()


def _read_statement(statement: Any, signer: str) -> Signed:
    if statement["_type"] != STATEMENT or statement["predicateType"] != PREDICATE:
        raise ValueError(f"a {statement['predicateType']}")
    predicate, (subject,) = statement["predicate"], statement["subject"]
    if predicate["serialization"]["method"] != "files":
        raise ValueError(f"files in {predicate['serialization']['method']}")
    files: dict[str, str] = {}
    root = hashlib.sha256()
    for resource in predicate["resources"]:
        name, digest = resource["name"], resource["digest"]
        if resource["algorithm"] != "sha256" or not SHA256.fullmatch(digest) or name in files:
            raise ValueError(f"{name} with {resource['algorithm']} {digest}")
        files[name] = digest
        root.update(bytes.fromhex(digest))
    if subject["digest"]["sha256"] != root.hexdigest():
        raise ValueError(f"files that hash to {root.hexdigest()}, not to {subject['digest']['sha256']}")
    return Signed(files, str(predicate.get("lockstep", {}).get("manifest_sha256", "")), signer)


def _pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """DSSE's unambiguous encoding of a payload with its type."""
    return b"DSSEv1 %d %s %d %s" % (len(payload_type), payload_type.encode(), len(payload), payload)


def _pem(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
