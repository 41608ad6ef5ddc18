"""Signatures over a version's files, against the official tool of the OpenSSF and against changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.errors import DigestMismatchError
from lockstep.rules.manifest import FileEntry, Manifest
from lockstep.stores.folders import measure_files
from lockstep.stores.model_signature import fingerprint, open_signature, sign_manifest, verify_signature

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())


def public(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    for path, text in {"MLmodel": "flavors", "a-b/ü.txt": "ü", "a/b.txt": "b", "a.txt": ""}.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_text(text)
    return made


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return Manifest("tumour", measure_files(folder))


def test_who_signed_is_told(manifest: Manifest) -> None:
    keys = [public(OTHER), public(KEY)]
    assert verify_signature(sign_manifest(manifest, KEY), manifest, keys, "tumour 1") == fingerprint(public(KEY))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda manifest: replace(manifest, files=manifest.files[1:]), "has MLmodel with sha256 .* none"),
        (lambda manifest: replace(manifest, params={"C": "2"}), "is for the manifest"),
        (lambda manifest: replace(manifest, name="other"), "is for the manifest"),
    ],
)
def test_a_signature_of_something_else_is_refused(
    manifest: Manifest, change: Callable[[Manifest], Manifest], problem: str
) -> None:
    with pytest.raises(DigestMismatchError, match=problem):
        verify_signature(sign_manifest(manifest, KEY), change(manifest), [public(KEY)], "tumour 1")


def test_a_strangers_key_is_refused(manifest: Manifest) -> None:
    bundle = sign_manifest(manifest, OTHER)
    with pytest.raises(DigestMismatchError, match="none of ours"):
        verify_signature(bundle, manifest, [public(KEY)], "tumour 1")
    document = json.loads(bundle)
    document["verificationMaterial"]["publicKey"]["hint"] = fingerprint(public(KEY))
    with pytest.raises(DigestMismatchError, match="not one of the key"):
        verify_signature(json.dumps(document).encode(), manifest, [public(KEY)], "tumour 1")
    with pytest.raises(DigestMismatchError, match="no public key"):
        verify_signature(bundle, manifest, [], "tumour 1")


SMALL = Manifest("m", (FileEntry("MLmodel", 3, "0" * 64), FileEntry("a/b", 4, "1" * 64)))
BUNDLE = sign_manifest(SMALL, KEY)


@settings(max_examples=200)
@given(st.integers(0, len(BUNDLE) - 1), st.integers(1, 255))
def test_no_changed_byte_gives_another_meaning(where: int, flip: int) -> None:
    changed = bytearray(BUNDLE)
    changed[where] ^= flip
    try:
        found = open_signature(bytes(changed), [public(KEY)], "m 1")
    except DigestMismatchError:
        return
    assert found == open_signature(BUNDLE, [public(KEY)], "m 1")  # what is not signed: the key's id, the log's entries
