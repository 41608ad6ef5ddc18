from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import DigestMismatchError, RefusedError
from lockstep.rules.manifest import FileEntry, Manifest, read_manifest, unpinned

names = st.text("abcdefghijklmnopqrstuvwxyz0123456789_./é-", min_size=1, max_size=20).filter(
    lambda name: not name.startswith("/") and ".." not in name.split("/") and name.strip("./") != ""
)
digests = st.binary(max_size=20).map(lambda data: hashlib.sha256(data).hexdigest())
files = st.lists(st.builds(FileEntry, names, st.integers(0, 2**50), digests), min_size=1, max_size=5, unique=True)
manifests = st.builds(
    Manifest,
    model=st.text(min_size=1, max_size=10),
    files=files.map(lambda entries: tuple(sorted(entries))),
    requirements=st.lists(st.text(max_size=10), max_size=3).map(tuple),
    python=st.text(max_size=8),
    run_id=st.text(max_size=8),
    source=st.text(max_size=8),
    parameters=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    metrics=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
)


@given(manifests)
def test_a_manifest_survives_being_stored(manifest: Manifest) -> None:
    again = read_manifest(manifest.to_bytes(), manifest.digest)
    assert again == manifest
    assert again.digest == manifest.digest


@given(manifests, st.data())
def test_any_changed_byte_is_refused(manifest: Manifest, data: st.DataObject) -> None:
    sealed = bytearray(manifest.to_bytes())
    where = data.draw(st.integers(0, len(sealed) - 1))
    sealed[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DigestMismatchError):
        read_manifest(bytes(sealed), manifest.digest)


def test_the_digest_is_that_of_rfc_8785_json() -> None:
    entry = FileEntry("MLmodel", 3, "0" * 64)
    manifest = Manifest("m", (entry,), metrics={"b": 1.0, "a": 0.5}, parameters={"z": "1", "y": "é"})
    # Independent of the library: sorted keys, no spaces, UTF-8 as it is, and numbers in their shortest form.
    expected = (
        '{"environment":{"python":"","requirements":[]},'
        f'"files":[{{"path":"MLmodel","sha256":"{"0" * 64}","size":3}}],"format":"lockstep/manifest/v1",'
        '"lineage":{"metrics":{"a":0.5,"b":1},"parameters":{"y":"é","z":"1"},"run_id":"","source":""},"model":"m"}'
    ).encode()
    assert manifest.to_bytes() == expected
    assert manifest.digest == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a\\b"])
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(RefusedError):
        FileEntry(path, 1, "0" * 64)


def test_another_format_is_refused_by_name() -> None:
    sealed = json.dumps({"format": "somebody/else"}).encode()
    with pytest.raises(RefusedError, match="somebody/else"):
        read_manifest(sealed, hashlib.sha256(sealed).hexdigest())


def test_files_must_be_sorted_distinct_and_present() -> None:
    first, second = FileEntry("a", 1, "0" * 64), FileEntry("b", 1, "0" * 64)
    for wrong in ((), (second, first), (first, first)):
        with pytest.raises(RefusedError):
            Manifest("m", wrong)


@pytest.mark.parametrize(
    ("line", "pinned"),
    [
        ("numpy==2.4.6", True),
        ("scikit-learn==1.9.1 ; python_version >= '3.11'", True),
        ("mlflow[extras]==3.17.2", True),
        ("numpy", False),
        ("numpy>=2", False),
        ("numpy==2.*", False),
        ("git+https://example.org/x.git", False),
        ("-r other.txt", False),
    ],
)
def test_only_an_exact_version_is_pinned(line: str, pinned: bool) -> None:
    assert (unpinned((line,)) == ()) is pinned
