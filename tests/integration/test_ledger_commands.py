"""`lockstep ledger verify`, `forget` and `export`, and an operation whose ledger cannot be written."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lockstep.cli import app
from lockstep.config import load
from lockstep.errors import LockstepError, NotFoundError, ProofError, RefusedError
from lockstep.operations.fleet import Event, Fleet, open_fleet
from lockstep.operations.journal import record
from lockstep.rules.checkpoint import open_checkpoint
from lockstep.rules.merkle import inclusion_proof, leaf_hash, root, verify_inclusion
from lockstep.rules.tiles import decode_entries, entries_path, tile_reader
from lockstep.stores.keys import create_keys, load_keys
from lockstep.stores.ledger import Ledger, open_ledger
from lockstep.stores.ledger.export import export

CONFIG = {
    "mlflow": {"tracking_uri": "http://127.0.0.1:1"},
    "ledger": "ledger.db",
    "clouds": {
        "aws": {
            "kind": "sagemaker",
            "image": "111122223333.dkr.ecr.eu-central-1.amazonaws.com/serving@sha256:" + "ab" * 32,
            "region": "eu-central-1",
            "bucket": "models",
            "role_arn": "arn:aws:iam::111122223333:role/serving",
        }
    },
    "fleets": {"default": {"clouds": ["aws"]}},
    "models": {"tumour": {}},
}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "lockstep.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    create_keys(load(path).keys, load(path).ledger.origin)
    return path


def opened(config: Path) -> Ledger:
    settings = load(config)
    return open_ledger(settings.ledger, load_keys(settings.keys, settings.ledger.origin))


def run(config: Path, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--config", str(config), "ledger", *arguments])
    if isinstance(result.exception, LockstepError):
        raise result.exception
    return result.exit_code, result.output


def test_verify_says_that_it_holds_and_names_the_first_bad_entry(config: Path) -> None:
    for number in range(5):
        opened(config).append(f"e{number}", "x.intent", "tumour", "Ann", {"n": number})
    status, out = run(config, "verify")
    assert (status, "5 entries, 5 of them signed" in out, "the ledger holds" in out) == (0, True, True)
    with closing(sqlite3.connect(config.parent / "ledger.db")) as connection, connection:
        connection.execute("DROP TRIGGER entry_no_update")
        connection.execute("UPDATE entry SET leaf = CAST(replace(leaf, '\"n\":3', '\"n\":4') AS BLOB) WHERE number = 3")
    status, out = run(config, "verify")
    assert (status, "entry 3 (e3)" in out) == (3, True)
    status, out = run(config, "verify", "--json", "--no-copies")
    assert (status, json.loads(out)["flaws"][0]["entry"]) == (3, 3)


SLOT = "v1-" + "1" * 12
SHIFT = {"after": {"aws": {SLOT: 100}}, "slots": {SLOT: {"version": "1", "digest": "1" * 64}}}
QUESTIONS = (
    ("log", "tumour"),
    ("log", "tumour", "--json"),
    ("at", "tumour", "0s"),
    ("at", "tumour", "0s", "--json"),
    ("decision", "tumour", "--cloud", "aws", "--time", "0s"),
    ("decision", "tumour", "--cloud", "aws", "--time", "0s", "--json"),
)
AUDIT = ("audit", "tumour", "--no-live", "--json", "--out")


def served(config: Path) -> Ledger:
    """A ledger that tells of one version on one cloud, of five entries."""
    ledger, now = opened(config), datetime.now(UTC).isoformat()
    ledger.append("r/intent", "register.intent", "tumour", "Ann", {"source": "runs:/1/model"})
    seal = {"intent": "r", "error": "", "version": "1", "digest": "1" * 64, "content": "c" * 64}
    ledger.append("r/outcome", "register.outcome", "tumour", "Ann", seal)
    ledger.append("s/intent", "shift.intent", "tumour", "Ann", SHIFT)
    done = {"intent": "s", "error": "", "wanted": SHIFT["after"], "verified": {"aws": now}}
    ledger.append("s/outcome", "shift.outcome", "tumour", "Ann", {**SHIFT, **done})
    ledger.append("x", "canary_deploy.refused", "tumour", "Ann", {"refused": "too late"})
    ledger.close()
    return ledger


def ask(config: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit status, what is answered, and what is told beside it."""
    result = CliRunner().invoke(app, ["--config", str(config), *arguments])
    if isinstance(result.exception, LockstepError):
        return result.exception.exit_status, "", f"{result.exception} {result.exception.hint}"
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def change(config: Path, *statements: str) -> None:
    """As somebody does who may write the file."""
    with closing(sqlite3.connect(config.parent / "ledger.db")) as connection, connection:
        for name in ("entry_no_update", "entry_no_delete", "node_no_delete", "checkpoint_no_delete"):
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)


def edited(config: Path) -> None:
    change(config, "UPDATE entry SET leaf = CAST(replace(leaf, '\"aws\"', '\"gcp\"') AS BLOB) WHERE number = 2")


def deleted(config: Path) -> None:
    change(config, "DELETE FROM entry WHERE number = 1")


def cut_short(config: Path) -> None:
    change(config, "DELETE FROM entry WHERE number = 4")


def put_back(config: Path) -> None:
    """The database file of an hour ago, the file beside it being of today."""
    with (
        closing(sqlite3.connect(config.parent / "ledger.db")) as now,
        closing(sqlite3.connect(config.parent / "older.db")) as then,
    ):
        now.backup(then)
        opened(config).append("newer", "x.intent", "tumour", "Ann", {})
        then.backup(now)


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (edited, "entry 2 of the ledger"),
        (deleted, "of 5 entries"),
        (cut_short, "5 entries of the ledger"),
        (put_back, "does not hold the 6 entries that"),
    ],
)
def test_what_is_answered_from_a_ledger_that_was_tampered_with_is_told_and_no_success(
    config: Path, tmp_path: Path, tamper: Callable[[Path], None], told: str
) -> None:
    served(config)
    for question in QUESTIONS:
        status, answer, beside = ask(config, *question)
        assert (status, "tampered" in beside, bool(answer)) == (0, False, True), (question, beside)
    tamper(config)
    for question in QUESTIONS:
        status, answer, beside = ask(config, *question)
        assert status == ProofError.exit_status, (question, answer, beside)
        assert told in beside, question
        assert "lockstep ledger verify" in beside
        assert not answer or "--json" not in question or json.loads(answer)
    status, _, beside = ask(config, "ledger", "export", str(tmp_path / "export"))
    assert (status, told in beside) == (ProofError.exit_status, True)
    assert not (tmp_path / "export" / "checkpoint").exists()
    assert any(told in line for line in _looked(config).condition())


def _looked(config: Path) -> Ledger:
    ledger = opened(config)
    ledger.entries()
    return ledger


def test_a_lost_ledger_is_not_taken_for_one_that_has_yet_to_begin(config: Path) -> None:
    served(config)
    for path in (path for path in config.parent.glob("ledger.db*") if not path.name.endswith(".checkpoint")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for question in QUESTIONS:
        status, _, beside = ask(config, *question)
        assert (status, "lost entries" in beside, "5 entries" in beside) == (3, True, True), (question, beside)
        assert "lockstep register" not in beside
    status, _, beside = ask(config, "ledger", "verify", "--no-copies")
    assert (status, "5 entries" in beside) == (3, True)
    assert not (config.parent / "ledger.db").exists(), "looking makes no ledger"


def test_no_ledger_is_told_and_none_is_made(config: Path) -> None:
    before = sorted(config.parent.rglob("*"))
    for question in (("ledger", "verify"), ("ledger", "verify", "--json"), *QUESTIONS):
        status, answer, beside = ask(config, *question)
        assert (status, answer) == (NotFoundError.exit_status, ""), question
        assert "lockstep register" in beside
    assert "there is no ledger yet" in ask(config, "ledger", "verify")[2]
    assert sorted(config.parent.rglob("*")) == before


@pytest.mark.parametrize("tamper", [edited, put_back])
def test_an_audit_report_of_a_forged_ledger_tells_so_and_adds_nothing_to_it(
    config: Path, tmp_path: Path, tamper: Callable[[Path], None]
) -> None:
    ledger = served(config)
    assert ask(config, *AUDIT, str(tmp_path / "right"))[0] == 0
    assert ledger.size == 6
    ledger.close()
    tamper(config)
    size = opened(config).size
    status, answer, beside = ask(config, *AUDIT, str(tmp_path / "report"))
    assert status == 3, beside
    assert "nothing was appended" in beside
    assert "the whole ledger, computed anew" in beside
    assert json.loads(answer)["holds"] is False
    assert opened(config).size == size
    assert "integrity checks that failed" in (tmp_path / "report" / "index.html").read_text()
    assert ask(config, "audit", "verify", str(tmp_path / "report"))[0] == 3


def test_forget_erases_a_name(config: Path) -> None:
    opened(config).append("e", "x.intent", "tumour", "Ann Smith", {})
    assert run(config, "forget", "Ann Smith")[0] == 0
    assert opened(config).entry(0).actor.startswith("person:")
    with pytest.raises(NotFoundError, match="Ann Smith"):
        run(config, "forget", "Ann Smith")


def test_an_export_is_checked_with_its_files_alone(config: Path, tmp_path: Path) -> None:
    ledger, folder = opened(config), tmp_path / "export"
    with pytest.raises(NotFoundError, match="no signed checkpoint"):
        run(config, "export", str(folder))
    for number in range(300):
        ledger.append(f"e{number}", "x.intent", "tumour", "ann", {"n": number})
    assert run(config, "export", str(folder))[0] == 0
    assert export(ledger, folder).written == 0
    ledger.append("e300", "x.intent", "tumour", "ann", {})
    assert export(ledger, folder).written == 2
    verifiers = load_keys(load(config).keys, ledger.origin).verifiers
    checkpoint = open_checkpoint((folder / "checkpoint").read_bytes(), ledger.origin, verifiers)
    read = tile_reader(checkpoint.size, lambda path: (folder / path).read_bytes())
    assert root(checkpoint.size, read) == checkpoint.root
    entries = decode_entries((folder / entries_path(1, 45)).read_bytes())
    proof = inclusion_proof(299, checkpoint.size, read)
    verify_inclusion(leaf_hash(entries[299 - 256]), 299, checkpoint.size, proof, checkpoint.root)
    (folder / entries_path(0)).write_bytes(b"other")
    with pytest.raises(RefusedError, match="not of this ledger"):
        export(ledger, folder)


def fleet_without_a_ledger(config: Path, said: list[Event]) -> Fleet:
    (config.parent / "ledger.db").mkdir()
    return open_fleet(load(config), "tumour", observer=said.append, actor="Ann")


def test_a_rollback_goes_on_without_its_ledger_and_is_recorded_later(config: Path) -> None:
    said: list[Event] = []
    fleet = fleet_without_a_ledger(config, said)
    with record(fleet, "rollback", None, reason="alert") as outcome, record(fleet, "shift", None):
        outcome["ran"] = True
    assert outcome["ran"] is True
    assert any("cannot be opened" in event.text for event in said)
    (config.parent / "ledger.db").rmdir()
    with record(fleet, "replicate", None):
        pass
    entries = fleet.ledger.entries()
    assert [entry.kind for entry in entries] == [
        "rollback.intent", "shift.intent", "shift.outcome", "rollback.outcome", "replicate.intent", "replicate.outcome"
    ]  # fmt: skip
    assert [entry.late for entry in entries] == [True] * 4 + [False] * 2
    assert fleet.ledger.verify().flaws == ()


def test_another_operation_is_refused_before_it_begins(config: Path) -> None:
    said: list[Event] = []
    fleet = fleet_without_a_ledger(config, said)
    with pytest.raises(LockstepError, match="cannot be opened"), record(fleet, "replicate", None):
        raise AssertionError("it began")
    (config.parent / "ledger.db").rmdir()
    assert fleet.ledger.entries() == ()


def test_a_rollback_goes_on_when_nothing_at_all_can_be_written(config: Path) -> None:
    said: list[Event] = []
    fleet = fleet_without_a_ledger(config, said)
    fleet.ledger._spool._folders = (config / "x",)  # a folder below a file
    with record(fleet, "rollback", None) as outcome:
        outcome["ran"] = True
    assert outcome["ran"] is True
    assert any("nothing can hold the entry rollback.outcome" in event.text for event in said)
