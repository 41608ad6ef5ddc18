"""Which version made a decision, on which evidence, and a proof of it that nothing can be changed in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockstep.commands.history import describe_decision
from lockstep.errors import NotFoundError, RefusedError
from lockstep.operations.audit.verify import verify
from lockstep.operations.proof import prove, verify_decision_proof, write_decision_proof
from lockstep.rules.decision import Basis, Decision, Sighting, decide
from lockstep.rules.history import History, read_history
from lockstep.rules.note import Signer
from tests.unit.ledger_book import MemoryLog
from tests.unit.test_audit import MODEL, lived
from tests.unit.test_history import V1, V2, V3, Book, all_to

START = 1_790_000_000.0


def told(book: Book) -> History:
    return read_history(book.lines)


def served() -> Book:
    book = Book()
    book.write("r/outcome", 0, "register.outcome", version="1", digest=V1.digest)
    book.shift(1, 2, all_to(V1), {"aws": 2, "azure": 2})
    book.shift(10, 11, {"aws": {V1.slot: 75, V2.slot: 25}}, {"aws": 11})
    return book


def labels(found: Decision) -> list[tuple[str, tuple[int, ...]]]:
    return [(one.version.label if one.version else one.slot, one.weights) for one in found.candidates]


def test_one_version_had_all_traffic() -> None:
    found = decide(MODEL, told(served()), "aws", 5.0)
    assert (found.sure, found.basis, labels(found)) == (True, Basis.INTERVALS, [("1", (100,))])
    assert found.entries == (0, 2), "its registration, and the outcome that was verified"


def test_of_a_split_every_version_is_named_with_its_weight() -> None:
    found = decide(MODEL, told(served()), "aws", 20.0)
    assert (found.sure, labels(found)) == (False, [("1", (75,)), ("2", (25,))])
    assert found.notes == (f"no entry tells of the registration of {V2.slot}",)


def test_while_traffic_was_shifted_both_sides_are_named() -> None:
    found = decide(MODEL, told(served()), "aws", 10.5)
    assert (found.sure, labels(found)) == (False, [("1", (100, 75)), ("2", (0, 25))])


def test_a_captured_request_settles_it() -> None:
    sighting = Sighting(20.0, "r-1", V2.slot, digest=V2.digest)
    found = decide(MODEL, told(served()), "aws", 20.0, sighting)
    assert (found.sure, found.basis, labels(found)) == (True, Basis.CAPTURED, [("2", (25,))])
    assert found.notes == ()


def test_a_captured_request_that_contradicts_the_ledger_is_told() -> None:
    found = decide(MODEL, told(served()), "aws", 5.0, Sighting(5.0, "r-1", V3.slot))
    assert labels(found) == [("3", ())]
    assert "tells of no traffic" in found.notes[0]
    found = decide(MODEL, told(served()), "aws", 5.0, Sighting(5.0, "r-1", V1.slot, digest="f" * 64))
    assert "the container named the digest ffffffffffff" in found.notes[0]


def test_a_cloud_that_was_found_otherwise_makes_it_unsure() -> None:
    book = served()
    book.shift(50, 51, all_to(V1, "azure"), {"azure": 51}, before={"azure": {V3.slot: 100}})
    found = decide(MODEL, told(book), "azure", 20.0)
    assert not found.sure
    assert V3.slot in found.notes[0]
    assert decide(MODEL, told(book), "azure", 60.0).sure


def test_nothing_is_known_of_a_time_before_the_ledger() -> None:
    with pytest.raises(NotFoundError, match="first entry"):
        decide(MODEL, told(served()), "aws", -1.0)


def proof(folder: Path) -> tuple[Path, MemoryLog]:
    fleet, log, _ = lived()
    found = decide(MODEL, read_history(log.entries(MODEL)), "aws", START + 115)
    path = folder / "proof.json"
    write_decision_proof(fleet, log, [log.signer.verifier], describe_decision(found), found, path)
    return path, log


def test_the_proof_holds_offline_with_the_right_key_only(tmp_path: Path) -> None:
    path, log = proof(tmp_path)
    document = json.loads(path.read_text())
    assert [one["version"] for one in document["answer"]["versions"]] == ["1", "2"]
    assert len(document["entries"]) == 3, "the shift's outcome and two registrations"
    assert set(document["manifests"]) == {one["digest"] for one in document["answer"]["versions"]}
    assert verify(path, [log.signer.verifier]).problems == {}
    assert verify(path).problems == {}
    assert verify(path, [Signer("example.com/ledger", b"f" * 32).verifier]).problems
    assert [one.name for one in tmp_path.iterdir()] == ["proof.json"]


def test_whatever_is_changed_in_a_proof_is_found(tmp_path: Path) -> None:
    path, log = proof(tmp_path)
    whole = path.read_text()

    def spoilt(change: Any) -> tuple[str, ...]:
        document = json.loads(whole)
        change(document)
        return verify_decision_proof(json.dumps(document).encode(), [log.signer.verifier])

    def swap(document: Any) -> None:
        document["answer"]["versions"][0]["digest"] = "f" * 64

    def rename(document: Any) -> None:
        document["answer"]["versions"][0]["slot"] = "v9-ffffffff"

    def edit(document: Any) -> None:
        document["entries"][0]["entry"] = document["entries"][0]["entry"].replace("ann", "bob")

    def move(document: Any) -> None:
        document["entries"][0]["index"] += 1

    def drop(document: Any) -> None:
        del document["entries"][0]

    def reseal(document: Any) -> None:
        digest = next(iter(document["manifests"]))
        document["manifests"][digest] = document["manifests"][digest].replace("bin", "nib")

    def sign(document: Any) -> None:
        document["checkpoint"] = document["checkpoint"].replace("\n21\n", "\n22\n")

    def leave_out(document: Any) -> None:
        document["answer"]["versions"].pop()

    def be_sure(document: Any) -> None:
        document["answer"]["sure"] = True

    def reweigh(document: Any) -> None:
        document["answer"]["versions"][0]["weights"] = [99]

    def earlier(document: Any) -> None:
        document["answer"]["time"] = document["answer"]["time"].replace("2026", "2025")

    def later(document: Any) -> None:
        document["answer"]["time"] = document["answer"]["time"].replace("2026", "2027")

    def another(document: Any) -> None:
        document["answer"]["model"] = "churn"

    def no_list(document: Any) -> None:
        document["answer"]["versions"] = {}

    assert spoilt(lambda document: None) == ()
    changes = (
        swap,
        rename,
        edit,
        move,
        drop,
        reseal,
        sign,
        leave_out,
        be_sure,
        reweigh,
        earlier,
        later,
        another,
        no_list,
    )
    for change in changes:
        assert spoilt(change), change.__name__
    for content in (b"", b"{}", b"[]", b'{"format": "other"}', b"[" * 100_000, whole.encode()[:-20]):
        assert verify_decision_proof(content)


def test_nothing_is_proven_without_a_checkpoint_that_covers_it() -> None:
    with pytest.raises(RefusedError, match="no signed checkpoint"):
        prove(MemoryLog(), [0])
    _, log, _ = lived()
    with pytest.raises(RefusedError, match="covers 21 entries"):
        prove(log, [21])
