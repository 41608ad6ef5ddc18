from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from dataclasses import replace
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import DigestMismatchError, RefusedError
from lockstep.rules.manifest import (
    MOST,
    SCHEMA_V1,
    Code,
    Dataset,
    Environment,
    FileEntry,
    Manifest,
    ManifestV1,
    Tracking,
    case_clashes,
    number_text,
    read_manifest,
)

parts = st.text("abcABC0123_.é-", min_size=1, max_size=8).filter(lambda part: part not in (".", ".."))
names = st.lists(parts, min_size=1, max_size=3).map(lambda found: unicodedata.normalize("NFC", "/".join(found)))
digests = st.binary(max_size=20).map(lambda data: hashlib.sha256(data).hexdigest())
maybe = st.one_of(st.just(""), digests)
text = st.text(max_size=8)
texts = st.dictionaries(st.text(max_size=5), text, max_size=3)
whole = st.integers(0, MOST)
files = st.lists(st.builds(FileEntry, names, whole, digests), min_size=1, max_size=5, unique_by=lambda file: file.path)
datasets = st.lists(
    st.builds(Dataset, text, text, maybe, st.none() | whole, text),
    max_size=3,
    unique_by=lambda data: (data.uri, data.snapshot_id),
)
manifests = st.builds(
    Manifest,
    name=st.text(min_size=1, max_size=10),
    files=files.map(tuple),
    mlflow=st.builds(Tracking, text, text, text, text),
    code=st.builds(Code, text, st.booleans(), maybe),
    data=datasets.map(tuple),
    params=texts,
    metrics=texts,
    signature_sha256=maybe,
    parents=st.lists(digests, max_size=3, unique=True).map(tuple),
    env=st.builds(Environment, text, text, maybe, texts),
)
ENTRY = FileEntry("MLmodel", 3, "0" * 64)


def sealed(document: object) -> tuple[bytes, str]:
    content = rfc8785.dumps(document)  # type: ignore[arg-type]
    return content, hashlib.sha256(content).hexdigest()


@given(manifests)
def test_a_manifest_survives_being_stored(manifest: Manifest) -> None:
    again = read_manifest(manifest.to_bytes(), manifest.digest)
    assert again == manifest
    assert (again.digest, again.content) == (manifest.digest, manifest.content)


@given(manifests, st.data())
def test_any_changed_byte_is_refused(manifest: Manifest, data: st.DataObject) -> None:
    stored = bytearray(manifest.to_bytes())
    where = data.draw(st.integers(0, len(stored) - 1))
    stored[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DigestMismatchError):
        read_manifest(bytes(stored), manifest.digest)


@given(manifests, st.randoms())
def test_order_means_nothing(manifest: Manifest, chance: random.Random) -> None:
    def shuffled(values: Any) -> Any:
        return chance.sample(values, len(values))

    same = replace(
        manifest,
        files=tuple(shuffled(manifest.files)),
        data=tuple(shuffled(manifest.data)),
        parents=tuple(shuffled(manifest.parents)),
        params=dict(shuffled(list(manifest.params.items()))),
    )
    assert (same, same.digest, same.content) == (manifest, manifest.digest, manifest.content)


@given(manifests, manifests)
def test_two_manifests_have_one_digest_only_if_they_are_equal(one: Manifest, other: Manifest) -> None:
    assert (one.digest == other.digest) == (one == other)


@given(manifests, st.data())
def test_any_change_changes_the_digest(manifest: Manifest, data: st.DataObject) -> None:
    env, code, mlflow = manifest.env, manifest.code, manifest.mlflow
    first, *rest = manifest.files
    bigger = replace(first, size=first.size + 1 if first.size < MOST else 0)
    other = hashlib.sha256(manifest.to_bytes()).hexdigest()
    changes: list[dict[str, Any]] = [
        {"name": manifest.name + "x"},
        {"files": (bigger, *rest)},
        {"files": (replace(first, sha256=other), *rest)},
        {"files": (*manifest.files, FileEntry("one/more", 0, other))},
        {"mlflow": replace(mlflow, run_id=mlflow.run_id + "x")},
        {"mlflow": replace(mlflow, model_id=mlflow.model_id + "x")},
        {"mlflow": replace(mlflow, source=mlflow.source + "x")},
        {"mlflow": replace(mlflow, mlflow_version=mlflow.mlflow_version + "x")},
        {"code": replace(code, git_commit=code.git_commit + "x")},
        {"code": replace(code, dirty=not code.dirty)},
        {"code": replace(code, patch_sha256=other)},
        {"data": (*manifest.data, Dataset("one more"))},
        {"params": {**manifest.params, "one more": ""}},
        {"metrics": {**manifest.metrics, "one more": ""}},
        {"signature_sha256": other},
        {"parents": (*manifest.parents, other)},
        {"env": replace(env, python=env.python + "x")},
        {"env": replace(env, platform=env.platform + "x")},
        {"env": replace(env, lock_sha256=other)},
        {"env": replace(env, images={**env.images, "one more": ""})},
    ]
    change = data.draw(st.sampled_from(changes))
    changed = replace(manifest, **change)
    assert changed.digest != manifest.digest
    assert (changed.content == manifest.content) == ("files" not in change)


def test_the_digests_are_those_of_rfc_8785_json() -> None:
    manifest = Manifest(
        "m",
        (FileEntry("é", MOST, "1" * 64), ENTRY),
        mlflow=Tracking("run", "m-1", "models:/m-1", "3.17.2"),
        code=Code("c0ffee", True, "2" * 64),
        data=(Dataset("s3://b/x", "7", "3" * 64, 569, "ab12"), Dataset("local")),
        params={"z": "1", "y": "é"},
        metrics={"b": number_text(1.0), "a": number_text(0.5)},
        signature_sha256="4" * 64,
        parents=("6" * 64, "5" * 64),
        env=Environment("3.11.9", "linux/amd64", "7" * 64, {"gcp": "i@sha256:1", "aws": "i@sha256:2"}),
    )
    # Independent of the library: sorted keys, no spaces, UTF-8 as it is.
    listed = (
        f'[{{"path":"MLmodel","sha256":"{"0" * 64}","size":3}},'
        f'{{"path":"é","sha256":"{"1" * 64}","size":9007199254740991}}]'
    )
    expected = (
        f'{{"code":{{"dirty":true,"git_commit":"c0ffee","patch_sha256":"{"2" * 64}"}},'
        '"data":[{"mlflow_digest":"","rows":null,"sha256":"","snapshot_id":"","uri":"local"},'
        f'{{"mlflow_digest":"ab12","rows":569,"sha256":"{"3" * 64}","snapshot_id":"7","uri":"s3://b/x"}}],'
        '"env":{"images":{"aws":"i@sha256:2","gcp":"i@sha256:1"},'
        f'"lock_sha256":"{"7" * 64}","platform":"linux/amd64","python":"3.11.9"}},'
        f'"files":{listed},"metrics":{{"a":"0.5","b":"1.0"}},'
        '"mlflow":{"mlflow_version":"3.17.2","model_id":"m-1","run_id":"run","source":"models:/m-1"},'
        f'"name":"m","params":{{"y":"é","z":"1"}},"parents":["{"5" * 64}","{"6" * 64}"],'
        f'"schema":"lockstep/manifest/v2","signature_sha256":"{"4" * 64}"}}'
    ).encode()
    assert manifest.to_bytes() == expected
    assert manifest.digest == hashlib.sha256(expected).hexdigest()
    assert manifest.content == hashlib.sha256(listed.encode()).hexdigest()


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a\\b"])
def test_a_path_that_leaves_the_folder_is_refused(path: str) -> None:
    with pytest.raises(RefusedError):
        FileEntry(path, 1, "0" * 64)


@pytest.mark.parametrize("path", ["./a", "a//b", "a/", "a\nb", "e\u0301", "\udcff"])
def test_a_path_with_two_spellings_is_refused(path: str) -> None:
    with pytest.raises(RefusedError, match="file path"):
        Manifest("m", (FileEntry(path, 1, "0" * 64),))


def test_paths_that_differ_in_case_alone_are_found() -> None:
    files = [FileEntry(path, 1, "0" * 64) for path in ("a", "straße", "A", "STRASSE", "b")]
    assert case_clashes(files) == (("A", "a"), ("STRASSE", "straße"))
    assert case_clashes(files[-1:]) == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {"files": ()},
        {"files": (ENTRY, FileEntry("MLmodel", 4, "0" * 64))},
        {"files": (FileEntry("a", 2**53, "0" * 64),)},
        {"files": (FileEntry("a", -1, "0" * 64),)},
        {"data": (Dataset("u"), Dataset("u", rows=3))},
        {"data": (Dataset("u", rows=2**53),)},
        {"data": (Dataset("u", sha256="abc"),)},
        {"parents": ("0" * 64, "0" * 64)},
        {"parents": ("3",)},
        {"code": Code(patch_sha256="no")},
        {"signature_sha256": "A" * 64},
        {"env": Environment(lock_sha256="no")},
    ],
)
def test_what_a_manifest_cannot_hold_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        Manifest(**{"name": "m", "files": (ENTRY,), **wrong})


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"files": [{"path": "a", "size": 1.5, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": "1", "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": True, "sha256": "0" * 64}]},
        {"files": [{"path": "a", "size": 1, "sha256": "0" * 64, "mode": "x"}]},
        {"files": [{"path": "b", "size": 1, "sha256": "0" * 64}, {"path": "a", "size": 1, "sha256": "0" * 64}]},
        {"files": {}},
        {"metrics": {"a": 0.5}},
        {"params": None},
        {"code": {"git_commit": "", "patch_sha256": ""}},
        {"code": {"git_commit": "", "patch_sha256": "", "dirty": 0}},
        {"env": {"python": "", "platform": "", "lock_sha256": "", "images": [], "more": ""}},
    ],
)
def test_a_document_that_lockstep_would_not_write_is_refused(change: dict[str, object]) -> None:
    document = json.loads(Manifest("m", (ENTRY,)).to_bytes())
    with pytest.raises(RefusedError):
        read_manifest(*sealed({**document, **change}))


def test_another_form_of_the_same_document_is_refused() -> None:
    stored = Manifest("m", (ENTRY,)).to_bytes()
    twice = stored.replace(b'"name":"m"', b'"name":"n","name":"m"')
    halves = stored.replace(b'"name":"m"', b'"name":"\\ud800"')
    for other in (
        halves,
        b"[" * 100_000,
        stored + b"\n",
        json.dumps(json.loads(stored)).encode(),
        twice,
        b"[1]",
        b"\xff",
        b"1",
    ):
        with pytest.raises(RefusedError):
            read_manifest(other, hashlib.sha256(other).hexdigest())


def test_another_schema_is_refused_by_name() -> None:
    for key in ("schema", "format"):
        with pytest.raises(RefusedError, match="somebody/else"):
            read_manifest(*sealed({key: "somebody/else"}))


def test_a_version_of_the_first_format_is_read_with_its_own_digest() -> None:
    document = {
        "format": SCHEMA_V1,
        "model": "m",
        "files": [{"path": "MLmodel", "size": 3, "sha256": "0" * 64}],
        "environment": {"python": "3.11.7", "requirements": ["a==1"]},
        "lineage": {"run_id": "r", "source": "s", "parameters": {"p": "1"}, "metrics": {"auc": 0.5, "n": 1e21}},
    }
    stored, digest = sealed(document)
    manifest = read_manifest(stored, digest)
    assert isinstance(manifest, ManifestV1)
    assert (manifest.schema, manifest.digest, manifest.to_bytes()) == (SCHEMA_V1, digest, stored)
    assert (manifest.name, manifest.files, manifest.params) == ("m", (ENTRY,), {"p": "1"})
    assert manifest.metrics == {"auc": "0.5", "n": "1e+21"}
    assert (manifest.mlflow, manifest.env) == (Tracking("r", "", "s"), Environment("3.11.7"))
    assert manifest.content == Manifest("other", (ENTRY,)).content


@given(st.floats())
def test_a_number_is_text_that_reads_back_as_it_was(value: float) -> None:
    assert repr(float(number_text(value))) == repr(value)
