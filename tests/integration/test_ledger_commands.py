"""`lockstep ledger verify`, `forget` and `export`, and an operation whose ledger cannot be written."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lockstep.cli import app
from lockstep.config import load
from lockstep.errors import LockstepError, NotFoundError, RefusedError
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
