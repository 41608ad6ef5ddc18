"""The audit report: what it says, that nothing in it can be changed unnoticed, that nothing from outside is markup."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from lockstep.errors import LockstepError, NotFoundError, RefusedError
from lockstep.operations.audit.collect import collect
from lockstep.operations.audit.folder import write_report
from lockstep.operations.audit.live import Attestation
from lockstep.operations.audit.verify import verify
from lockstep.operations.fleet import Fleet
from lockstep.rules.findings import RECORD, SEAL, Verification
from lockstep.rules.findings import Check as Finding
from lockstep.rules.findings import Finding as Answered
from lockstep.rules.manifest import FileEntry, Manifest
from lockstep.rules.note import Signer, parse_vkey
from lockstep.rules.state import Version
from lockstep.stores.keys import Keys
from lockstep.stores.model_signature import sign_manifest
from tests.unit.ledger_book import MemoryLog

MODEL = "tumour"
NASTY = "</script><script>alert('1')</script> & \"quoted\" <img src=x onerror=alert(2)> $\\frac$"


SIGNING = ec.derive_private_key(7, ec.SECP256R1())
PUBLIC = SIGNING.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


class Manifests:
    """The registry, as far as a report asks it."""

    def __init__(self) -> None:
        self.known: dict[str, Manifest] = {}

    def signature(self, version: Version) -> bytes | None:
        return sign_manifest(self.known[version.digest], SIGNING)

    def seal(self, label: str, text: str) -> Version:
        manifest = Manifest(MODEL, (FileEntry(f"{label}.bin", 3, "0" * 64),), params={"note": text})
        self.known[manifest.digest] = manifest
        return Version(MODEL, label, manifest.digest, f"run-{label}")

    def manifest(self, version: Version) -> Manifest:
        if version.digest not in self.known:
            raise NotFoundError(f"{version} is no longer in MLflow <b>at all</b>")
        return self.known[version.digest]


def lived(nasty: str = "alert 7") -> tuple[Fleet, MemoryLog, Manifests]:
    """Two versions, a canary of the second that goes everywhere, and a rollback."""
    log, registry = MemoryLog(), Manifests()
    v1, v2 = registry.seal("1", "first"), registry.seal("2", nasty)
    slots = {one.slot: {"version": one.label, "digest": one.digest} for one in (v1, v2)}

    def write(at: float, kind: str, event: str, **body: object) -> None:
        log.now = 1_790_000_000.0 + at
        log.append(event, kind, MODEL, nasty if nasty != "alert 7" else "ann", body)

    def operation(began: float, ended: float, name: str, event: str, intent: Any, outcome: Any) -> None:
        write(began, f"{name}.intent", f"{event}/intent", **intent)
        write(ended, f"{name}.outcome", f"{event}/outcome", intent=event, error="", **{**intent, **outcome})

    def shift(at: float, event: str, before: Any, after: Any, within: str, why: str) -> None:
        intent = {"before": before, "after": after, "slots": slots, "within": within, "why": why}
        verified = {cloud: f"2026-09-21T14:13:{20 + int(at) % 30:02d}+00:00" for cloud in after}
        outcome = {"wanted": after, "after": after, "verified": verified, "seconds": dict.fromkeys(after, 1.5)}
        operation(at, at + 4, "shift", event, intent, outcome)

    def all_to(one: Version) -> dict[str, dict[str, int]]:
        return {cloud: {one.slot: 100} for cloud in ("aws", "azure")}

    subjects = [{"version": one.label, "digest": one.digest} for one in (v1, v2)]
    for number, one in enumerate((v1, v2)):
        outcome = {**subjects[number], "content": "c" * 64, "run_id": one.run_id}
        operation(number * 2, number * 2 + 1, "register", f"r{number}", {"source": nasty}, outcome)
    write(10, "canary_deploy.intent", "d1/intent", **subjects[0])
    shift(11, "s1", {}, all_to(v1), "d1", "the first")
    write(16, "canary_deploy.outcome", "d1/outcome", intent="d1", error="", **subjects[0])
    write(100, "canary_deploy.intent", "d2/intent", **subjects[1])
    shift(101, "s2", all_to(v1), {"aws": {v1.slot: 75, v2.slot: 25}}, "d2", "canary: 25 %")
    write(120, "verdict.outcome", "v", decision="pass", stage="25 %", reasons=[nasty], numbers={"p": 0.5}, within="d2")
    shift(130, "s3", {"aws": {v1.slot: 75, v2.slot: 25}, "azure": {v1.slot: 100}}, all_to(v2), "d2", "canary: 100 %")
    write(140, "canary_deploy.outcome", "d2/outcome", intent="d2", error="", **subjects[1])
    write(200, "rollback.intent", "b/intent", reason=nasty, **subjects[0])
    shift(201, "s4", all_to(v2), all_to(v1), "b", nasty)
    write(
        208, "rollback.outcome", "b/outcome", intent="b", error="", seconds={"aws": 1, "azure": 1}, left=["2"],
        **subjects[0],
    )  # fmt: skip
    write(210, "canary_deploy.refused", "x", refused=nasty, **subjects[1])
    log.append("other", "rollback.intent", "another-model", "bob", {"reason": "not of this report"})
    return cast(Fleet, _Fleet(log, registry)), log, registry


class _Fleet:
    """As much of a fleet as a report needs."""

    model = MODEL
    actor = "auditor"
    keys = Keys(signing=SIGNING, signing_public=(PUBLIC,))

    def __init__(self, log: MemoryLog, registry: Manifests) -> None:
        self.ledger = log
        self.registry = registry


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fleet, log, _ = lived()
    folder = tmp_path_factory.mktemp("audit") / "report"
    write_report(fleet, log, [log.signer.verifier], collect(fleet, log), folder)
    return folder


@pytest.fixture
def copy(report: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(report, tmp_path / "report"))


def names(report: Path) -> list[str]:
    return sorted(path.relative_to(report).as_posix() for path in report.rglob("*") if path.is_file())


def test_an_untouched_report_holds(report: Path) -> None:
    found = verify(report)
    assert found.problems == {}
    assert found.checkpoint is not None
    assert found.checkpoint.size == 22
    assert found.entries == 21, "one of the 22 is another model's"


def test_each_file_that_is_changed_is_named(report: Path, tmp_path: Path) -> None:
    changes: tuple[Callable[[bytes], bytes], ...] = (
        lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
        lambda data: data[:-3],
        lambda data: data + b"x\n",
    )
    place = Path(shutil.copytree(report, tmp_path / "one"))
    for number, name in enumerate(names(report)):
        whole = (place / name).read_bytes()
        for change in changes if "/" not in name else [changes[number % 3]]:
            (place / name).write_bytes(change(whole))
            assert name in verify(place).problems
        (place / name).write_bytes(whole)
    assert verify(place).problems == {}


def test_each_file_that_is_missing_is_named(report: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(report, tmp_path / "one"))
    for name in names(report):
        whole = (place / name).read_bytes()
        (place / name).unlink()
        if name == "SHA256SUMS":
            with pytest.raises(NotFoundError, match="SHA256SUMS"):
                verify(place)
        else:
            assert verify(place).problems, name
            last = max(one for one in names(report) if one.startswith("entries/"))
            assert name in verify(place).problems or name == last
        (place / name).write_bytes(whole)


@pytest.mark.parametrize("name", ["audit.json", "signatures", "manifests", "entries"])
def test_a_file_that_is_nested_too_deep_is_named_like_any_other(copy: Path, name: str) -> None:
    path = copy / name if name.endswith(".json") else sorted((copy / name).iterdir())[0]
    path.write_bytes(b"[" * 100_000)
    assert path.relative_to(copy).as_posix() in verify(copy).problems


def test_a_file_that_is_added_is_named(copy: Path) -> None:
    (copy / "notes.txt").write_text("by hand")
    assert list(verify(copy).problems) == ["notes.txt"]


def test_a_page_that_was_changed_with_its_sum_is_found_by_the_ledgers_entry(copy: Path) -> None:
    page, sums = copy / "index.html", copy / "SHA256SUMS"
    before = hashlib.sha256(page.read_bytes()).hexdigest()
    page.write_text(page.read_text().replace("rollback", "promotion"))
    sums.write_text(sums.read_text().replace(before, hashlib.sha256(page.read_bytes()).hexdigest()))
    assert list(verify(copy).problems) == ["SHA256SUMS"]


def test_a_signature_of_another_version_is_found_though_its_sum_and_its_entry_fit(tmp_path: Path) -> None:
    fleet, log, _ = lived()
    audit = collect(fleet, log)
    first, second = sorted(audit.signatures)
    swapped = {first: audit.signatures[second], second: audit.signatures[first]}
    write_report(fleet, log, [log.signer.verifier], replace(audit, signatures=swapped), tmp_path / "report")
    assert sorted(verify(tmp_path / "report").problems) == [f"signatures/{one}.sig" for one in (first, second)]


def test_a_report_that_somebody_signed_with_a_key_of_their_own_is_found_by_the_right_key(tmp_path: Path) -> None:
    fleet, log, _ = lived()
    right, log.signer = log.signer.verifier, Signer("example.com/ledger", b"f" * 32)
    folder = tmp_path / "forged"
    write_report(fleet, log, [log.signer.verifier], collect(fleet, log), folder)
    assert verify(folder).problems == {}, "it is consistent with its own key"
    assert "checkpoint" in verify(folder, [right]).problems


def test_what_is_no_report_is_told(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "gone"):
        with pytest.raises(NotFoundError, match="neither a report"):
            verify(place)
    (tmp_path / "file").write_text("{}")
    assert verify(tmp_path / "file").problems


def test_the_document_tells_the_whole_story(report: Path) -> None:
    told = json.loads((report / "audit.json").read_text())
    assert told["summary"] == {
        "versions": 2, "deployments": 2, "promotions": 0, "shifts": 4, "refusals": 1, "incidents": 1,
        "median_seconds_to_restore": told["summary"]["median_seconds_to_restore"], "checks_failed": 0,
    }  # fmt: skip
    (incident,) = told["incidents"]
    assert (incident["reason"], incident["target"], incident["left"]) == ("alert 7", "1", "2")
    assert 0 < incident["seconds"] < 10
    for cloud in ("aws", "azure"):
        (serving,) = told["serving"][cloud]["versions"]
        assert (serving["version"], serving["weights"]) == ("1", [100])
    assert [one["version"] for one in told["versions"]] == ["1", "2"]
    assert told["versions"][0]["manifest"]["params"] == {"note": "first"}
    for entry in told["entries"]:
        leaf = (report / f"entries/{entry['index']:012d}.json").read_bytes()
        assert hashlib.sha256(b"\0" + leaf).hexdigest() == entry["leaf_hash"]
    assert "another-model" not in (report / "audit.json").read_text()


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_nothing_from_outside_is_markup(tmp_path: Path) -> None:
    fleet, log, registry = lived(NASTY)
    del registry.known[next(iter(registry.known))]
    write_report(fleet, log, [log.signer.verifier], collect(fleet, log), tmp_path / "report")
    page = Page()
    page.feed((tmp_path / "report" / "index.html").read_text())
    assert not {"script", "img", "iframe", "object", "link"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [value for name, value in page.attributes if name in ("src", "href") and "//" in value]
    text = " ".join("".join(page.text).split())
    assert text.count(" ".join(NASTY.split())) > 8
    assert "no longer in MLflow <b>at all</b>" in text


def test_the_page_stands_alone_and_the_same_facts_give_the_same_page(report: Path) -> None:
    page = (report / "index.html").read_text()
    assert "<svg" in page
    assert "currentColor" in page
    assert "prefers-color-scheme: dark" in page
    headline = page.partition("integrity checks that failed")[2].partition("</div>")[0]
    assert f"None of them reads the models' bytes: <code>lockstep verify {MODEL}</code>" in headline
    assert "version 2" in page
    fleet, log, _ = lived()
    from lockstep.operations.audit.page import draw, render

    audit = collect(fleet, log)
    assert render(audit, draw(audit)) == render(audit, draw(audit))


def test_a_report_is_not_written_where_something_else_is(tmp_path: Path) -> None:
    fleet, log, _ = lived()
    (tmp_path / "mine.txt").write_text("mine")
    before = len(log.leaves)
    with pytest.raises(RefusedError, match="no report"):
        write_report(fleet, log, [log.signer.verifier], collect(fleet, log), tmp_path)
    assert len(log.leaves) == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_second_report_takes_the_place_of_the_first(copy: Path) -> None:
    fleet, log, _ = lived()
    audit = collect(fleet, log, since=1_790_000_090.0, until=1_790_000_150.0)
    write_report(fleet, log, [log.signer.verifier], audit, copy)
    assert verify(copy).problems == {}
    told = json.loads((copy / "audit.json").read_text())
    assert [one["operation"] for one in told["operations"]] == ["canary_deploy"]
    assert told["incidents"] == []
    (serving,) = told["serving"]["aws"]["versions"]
    assert serving["version"] == "2"
    assert [path.name for path in copy.parent.iterdir()] == ["report"]


def test_the_keys_stand_in_the_report_and_are_proven(tmp_path: Path) -> None:
    fleet, log, _ = lived()
    log.append("keys/new", "keys.rotated", "", "ann", {"key": "ledger", "old": "old+key", "new": "new+key"})
    write_report(fleet, log, [log.signer.verifier], collect(fleet, log), tmp_path / "report")
    told = json.loads((tmp_path / "report" / "audit.json").read_text())
    (key,) = told["keys"]
    assert (key["what"], key["key"], key["old"], key["new"]) == ("rotated", "ledger", "old+key", "new+key")
    assert (tmp_path / "report" / f"entries/{key['entry']:012d}.json").is_file()
    assert "new+key" in (tmp_path / "report" / "index.html").read_text()
    assert not any(one["operation"] == "keys" for one in told["operations"]), "it is no operation on the model"
    assert verify(tmp_path / "report").problems == {}


def test_what_registries_and_endpoints_say_stands_in_the_report(tmp_path: Path) -> None:
    fleet, log, _ = lived()
    version = Version(MODEL, "2", "b" * 64)
    found = Verification(
        MODEL,
        1.0,
        (
            Finding(version, "aws", RECORD, Answered.ALTERED, ("model package: approval is 'Rejected' <b>",)),
            Finding(None, "azure", SEAL, Answered.UNKNOWN, ("Azure ML does not answer",)),
        ),
    )
    for attested, holds in (
        (Attestation(1_790_000_300.0, found), False),
        (Attestation(1_790_000_300.0, None, "MLflow is down"), None),
    ):
        folder = tmp_path / str(holds)
        audit = collect(fleet, log, checks=[attested.check()], live=attested.document())
        write_report(fleet, log, [log.signer.verifier], audit, folder)
        told = json.loads((folder / "audit.json").read_text())
        assert told["live"]["at"].startswith("2026-09-21T14:18:20")
        assert told["checks"][-1]["holds"] is holds
        assert verify(folder).problems == {}
    live = json.loads((tmp_path / "False" / "audit.json").read_text())["live"]
    assert live["intact"] is False
    assert [check["where"] for check in live["checks"]] == ["aws", "azure"]
    page = (tmp_path / "False" / "index.html").read_text()
    assert "Azure ML does not answer" in page
    assert "&lt;b&gt;" in page
    assert "MLflow is down" in (tmp_path / "None" / "index.html").read_text()


def test_times_that_make_no_period_are_refused() -> None:
    fleet, log, _ = lived()
    with pytest.raises(RefusedError, match="before it begins"):
        collect(fleet, log, since=1_790_000_150.0, until=1_790_000_100.0)
    with pytest.raises(LockstepError, match="no entry"):
        collect(fleet, log, until=1.0)


def test_keys_are_read_from_text_or_file(tmp_path: Path) -> None:
    from lockstep.operations.audit.verify import read_keys

    vkey = MemoryLog().signer.verifier.vkey
    (tmp_path / "keys").write_text(vkey + "\n\n")
    assert read_keys([vkey]) == read_keys([str(tmp_path / "keys")]) == (parse_vkey(vkey),)
    with pytest.raises(LockstepError):
        read_keys(["nonsense"])
