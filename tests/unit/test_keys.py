from __future__ import annotations

import itertools
import json
import os
import shlex
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from model_signing import signing, verifying
from pydantic import SecretStr
from typer.testing import CliRunner

from lockstep.cli import app
from lockstep.commands import setup
from lockstep.config import load
from lockstep.errors import BusyError, ConfigError, LockstepError, NotFoundError, RefusedError
from lockstep.operations.key_events import unrecorded
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from lockstep.rules.note import Signer, parse_private, parse_vkey
from lockstep.stores.key_settings import LEDGER_VARIABLE, SIGNING_VARIABLE
from lockstep.stores.keys import (
    Keys,
    KeySettings,
    create_keys,
    fingerprint,
    load_keys,
    public_pem,
    rotate_ledger_key,
    rotate_signing_key,
)
from lockstep.stores.ledger import Ledger, open_ledger
from lockstep.stores.private_files import create_file, locked_folder
from tests.docs_snippets import snippets
from tests.unit.test_config import GOOD

ORIGIN = "lockstep/ledger"
NAMES = ["ledger.key", "ledger.vkeys", "signing.key", "signing.pub"]


@pytest.fixture
def settings(tmp_path: Path) -> KeySettings:
    return KeySettings(folder=str(tmp_path / "keys"))


@pytest.fixture
def folder(settings: KeySettings) -> Path:
    return Path(settings.folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# -- creating ------------------------------------------------------------------------------------------------------


def test_keys_are_made_for_their_owner_alone(settings: KeySettings, folder: Path) -> None:
    assert [path.name for path in create_keys(settings, ORIGIN, {})] == NAMES
    assert sorted(contents(folder)) == NAMES
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in NAMES} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    keys = load_keys(settings, ORIGIN, {})
    assert keys.problems == ()
    assert keys.ledger is not None
    assert keys.signing is not None
    assert keys.ledger.name == ORIGIN
    assert keys.verifiers == (keys.ledger.verifier,)
    assert keys.signing_public == (public_pem(keys.signing),)
    assert (folder / "signing.pub").read_bytes() == public_pem(keys.signing)
    assert "PRIVATE" not in repr(keys)


def test_nothing_that_is_there_is_overwritten(settings: KeySettings, folder: Path) -> None:
    create_keys(settings, ORIGIN, {})
    before = contents(folder)
    assert create_keys(settings, ORIGIN, {}) == ()
    assert contents(folder) == before


@pytest.mark.parametrize("missing", NAMES)
def test_what_is_missing_is_made_to_fit_the_rest(settings: KeySettings, folder: Path, missing: str) -> None:
    create_keys(settings, ORIGIN, {})
    before = contents(folder)
    old = load_keys(settings, ORIGIN, {})
    (folder / missing).unlink()
    assert folder / missing in create_keys(settings, ORIGIN, {})
    after, keys = contents(folder), load_keys(settings, ORIGIN, {})
    assert keys.problems == ()
    assert set(old.verifiers) <= set(keys.verifiers)
    assert set(old.signing_public) <= set(keys.signing_public)
    if missing in ("ledger.vkeys", "signing.pub"):
        assert after == before


@pytest.mark.parametrize("step", range(31))
def test_killed_anywhere_the_next_attempt_completes_it(
    settings: KeySettings, folder: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each call that reaches the disk in turn, while creating and while rotating both keys."""
    calls = itertools.count()

    def perhaps_killed(call: Callable[..., Any]) -> Callable[..., Any]:
        def count_first(*arguments: Any, **named: Any) -> Any:
            if next(calls) == step:
                raise KeyboardInterrupt
            return call(*arguments, **named)

        return count_first

    def create_and_rotate() -> None:
        create_keys(settings, ORIGIN, {})
        rotate_ledger_key(settings, ORIGIN, {})
        rotate_signing_key(settings, {})

    with monkeypatch.context() as patch:
        for owner, name in ((os, "fsync"), (os, "link"), (Path, "replace"), (Path, "unlink")):
            patch.setattr(owner, name, perhaps_killed(getattr(owner, name)))
        with pytest.raises(KeyboardInterrupt):
            create_and_rotate()
    before = load_keys(settings, ORIGIN, {})
    create_keys(settings, ORIGIN, {})
    keys = load_keys(settings, ORIGIN, {})
    assert keys.problems == ()
    assert keys.ledger is not None
    assert keys.ledger.verifier.vkey in (folder / "ledger.vkeys").read_text().splitlines()
    assert keys.signing is not None
    assert (folder / "signing.pub").read_bytes() == public_pem(keys.signing)
    assert set(before.verifiers) <= set(keys.verifiers)
    assert set(before.signing_public) <= set(keys.signing_public)
    assert not list(folder.glob(".*"))


def test_a_file_is_not_there_before_it_is_whole_nor_replaced_by_a_second_one(tmp_path: Path) -> None:
    path = tmp_path / "file"

    def meanwhile() -> bytes:
        assert not path.exists()
        path.write_bytes(b"another process was faster")
        return b"late"

    assert not create_file(path, meanwhile)
    assert contents(tmp_path) == {"file": b"another process was faster"}


def test_two_processes_do_not_make_keys_at_once(settings: KeySettings, folder: Path) -> None:
    with locked_folder(folder), pytest.raises(BusyError):
        create_keys(settings, ORIGIN, {})
    made: list[Path] = []

    def create() -> None:
        while True:
            try:
                made.extend(create_keys(settings, ORIGIN, {}))
            except BusyError:
                continue
            return

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.name for path in made) == NAMES


def test_a_folder_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LockstepError) as caught:
        create_keys(KeySettings(folder=str(tmp_path / "file" / "keys")), ORIGIN, {})
    assert caught.value.hint


# -- the environment -----------------------------------------------------------------------------------------------


def test_a_key_in_the_environment_wins_over_the_file(settings: KeySettings, folder: Path) -> None:
    create_keys(settings, ORIGIN, {})
    other = ec.generate_private_key(ec.SECP256R1())
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    given = Signer(ORIGIN, bytes(32))
    environment = {LEDGER_VARIABLE: f" {given.private_text}\n", SIGNING_VARIABLE: pem}
    in_files = load_keys(settings, ORIGIN, {})
    keys = load_keys(settings, ORIGIN, environment)
    assert keys.ledger == given
    assert keys.verifiers == (given.verifier, *in_files.verifiers)
    assert keys.signing_public == (public_pem(other), *in_files.signing_public)
    in_yaml = settings.model_copy(
        update={"ledger_key": SecretStr(Signer(ORIGIN, bytes(range(32))).private_text), "signing_key": SecretStr("")}
    )
    assert load_keys(in_yaml, ORIGIN, environment).ledger == Signer(ORIGIN, bytes(range(32)))
    assert load_keys(in_yaml, ORIGIN, environment).signing_public == keys.signing_public
    before = contents(folder)
    assert create_keys(settings, ORIGIN, environment) == ()
    assert contents(folder) == before
    for rotate in (
        lambda: rotate_ledger_key(settings, ORIGIN, environment),
        lambda: rotate_signing_key(settings, environment),
    ):
        with pytest.raises(RefusedError, match="LOCKSTEP_"):
            rotate()
    assert contents(folder) == before


def test_no_file_is_made_for_a_key_that_the_environment_gives(settings: KeySettings, folder: Path) -> None:
    made = create_keys(settings, ORIGIN, {LEDGER_VARIABLE: Signer(ORIGIN, bytes(32)).private_text})
    assert [path.name for path in made] == ["signing.key", "signing.pub"]


def test_verifiers_of_the_configuration_are_trusted_too(settings: KeySettings) -> None:
    create_keys(settings, ORIGIN, {})
    old = Signer(ORIGIN, bytes(32)).verifier
    keys = load_keys(settings.model_copy(update={"verifiers": (old.vkey, "nonsense")}), ORIGIN, {})
    assert keys.verifiers[1:] == (old,)
    assert len(keys.problems) == 1
    assert "nonsense" in keys.problems[0]


# -- keys that are lost --------------------------------------------------------------------------------------------


def test_without_keys_there_are_problems_and_no_exception(settings: KeySettings, folder: Path) -> None:
    keys = load_keys(settings, ORIGIN, {})
    assert (keys.ledger, keys.signing, keys.verifiers, keys.signing_public) == (None, None, (), ())
    assert [str(folder) in problem and "lockstep keys create" in problem for problem in keys.problems] == [True, True]
    assert not folder.exists()


P384 = ec.generate_private_key(ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
EDWARDS = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ledger.key", b""),
        ("ledger.key", b"\xff\xfe"),
        ("ledger.key", Signer(ORIGIN, bytes(32)).private_text.encode()[:-3]),
        ("ledger.key", Signer("another/ledger", bytes(32)).private_text.encode()),
        ("ledger.vkeys", b"\xff\n"),
        ("signing.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        ("signing.key", P384),
        ("signing.key", EDWARDS),
        ("signing.pub", b"nonsense"),
        *[(name, None) for name in NAMES],
    ],
)
def test_what_cannot_be_read_is_a_problem_and_no_exception(
    settings: KeySettings, folder: Path, name: str, content: bytes | None
) -> None:
    create_keys(settings, ORIGIN, {})
    (folder / name).unlink()
    if content is None:
        (folder / name).mkdir()  # which nobody can read as a file, not even root
    else:
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    keys = load_keys(settings, ORIGIN, {})
    assert len(keys.problems) == 1
    assert str(folder / name) in keys.problems[0] or name in keys.problems[0]
    assert (keys.ledger is None) == (name == "ledger.key")
    assert (keys.signing is None) == (name == "signing.key")
    # The public halves of what was lost are still known, so what was signed with it verifies.
    assert len(keys.verifiers) == len(keys.signing_public) == 1
    secret = Signer(ORIGIN, bytes(32)).private_text[-40:-3]
    assert secret not in keys.problems[0]


def test_a_key_that_others_can_read_is_used_and_told(settings: KeySettings, folder: Path) -> None:
    create_keys(settings, ORIGIN, {})
    (folder / "ledger.key").chmod(0o644)
    keys = load_keys(settings, ORIGIN, {})
    assert keys.ledger is not None
    assert ["chmod 600" in problem for problem in keys.problems] == [True]


# -- rotating ------------------------------------------------------------------------------------------------------


def test_after_rotations_old_checkpoints_open_and_old_signatures_verify(settings: KeySettings, folder: Path) -> None:
    create_keys(settings, ORIGIN, {})
    notes, public = [], []
    for size in range(3):
        keys = load_keys(settings, ORIGIN, {})
        assert keys.ledger is not None
        assert keys.signing is not None
        notes.append(sign_checkpoint(Checkpoint(ORIGIN, size, bytes(32)), keys.ledger))
        public.append(public_pem(keys.signing))
        assert keys.signing_public[0] == public[-1]
        assert keys.verifiers[0] == keys.ledger.verifier
        assert rotate_ledger_key(settings, ORIGIN, {}) not in keys.verifiers
        assert rotate_signing_key(settings, {}) not in keys.signing_public
    keys = load_keys(settings, ORIGIN, {})
    assert keys.problems == ()
    assert len(keys.verifiers) == 4
    assert [open_checkpoint(note, ORIGIN, keys.verifiers).size for note in notes] == [0, 1, 2]
    assert set(public) < set(keys.signing_public)
    lines = (folder / "ledger.vkeys").read_text().splitlines()
    assert [parse_vkey(line) for line in reversed(lines)] == list(keys.verifiers)
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_a_key_put_there_by_hand_stays_known_when_it_is_rotated(settings: KeySettings, folder: Path) -> None:
    create_keys(settings, ORIGIN, {})
    by_hand = Signer(ORIGIN, bytes(32))
    (folder / "ledger.key").write_text(by_hand.private_text)
    new = rotate_ledger_key(settings, ORIGIN, {})
    assert load_keys(settings, ORIGIN, {}).verifiers[:2] == (new, by_hand.verifier)


def test_a_damaged_key_can_be_rotated_away_and_a_missing_one_not(settings: KeySettings, folder: Path) -> None:
    with pytest.raises(NotFoundError, match="no key"):
        rotate_ledger_key(settings, ORIGIN, {})
    with pytest.raises(NotFoundError, match="no key"):
        rotate_signing_key(settings, {})
    assert not folder.exists()
    create_keys(settings, ORIGIN, {})
    (folder / "ledger.key").write_text("nonsense")
    (folder / "signing.key").write_text("nonsense")
    rotate_ledger_key(settings, ORIGIN, {})
    rotate_signing_key(settings, {})
    keys = load_keys(settings, ORIGIN, {})
    assert (keys.problems, len(keys.verifiers), len(keys.signing_public)) == ((), 2, 2)


# -- the commands --------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in (LEDGER_VARIABLE, SIGNING_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("AWS_SECRET", "s3cret")
    path = tmp_path / "lockstep.yaml"
    path.write_text(GOOD)
    return path


def run(config: Path, *words: str) -> str:
    ended = CliRunner().invoke(app, ["--config", str(config), "keys", *words], catch_exceptions=False)
    assert ended.exit_code == 0
    return ended.stdout


def test_commands_create_show_and_rotate_beside_the_configuration(config: Path) -> None:
    folder = config.parent / ".lockstep" / "keys"
    assert "lockstep keys create" in CliRunner().invoke(app, ["--config", str(config), "keys", "show"]).stderr
    run(config, "create")
    assert sorted(contents(folder)) == NAMES
    assert "nothing to do" in run(config, "create")
    signer = parse_private((folder / "ledger.key").read_text().strip())
    first = fingerprint((folder / "signing.pub").read_bytes())
    assert run(config, "show").splitlines() == [f"ledger    {signer.verifier.vkey}", f"versions  sha256:{first}"]
    assert run(config, "rotate").startswith("ledger    lockstep/ledger+")
    assert run(config, "rotate", "--signing").startswith("versions  sha256:")
    shown = run(config, "show").splitlines()
    assert shown[1] == f"ledger    {signer.verifier.vkey}  (old)"
    assert shown[3] == f"versions  sha256:{first}  (old)"
    assert "PRIVATE" not in run(config, "show") + run(config, "show", "--json")


def ledger_of(config: Path) -> Ledger:
    loaded = load(config)
    return open_ledger(loaded.ledger, load_keys(loaded.keys, loaded.ledger.origin, {}))


def test_what_becomes_of_keys_stands_in_the_ledger(config: Path) -> None:
    run(config, "create")
    run(config, "create")
    first = {one["key"]: one["new"] for one in (entry.body for entry in ledger_of(config).entries(""))}
    shown = json.loads(run(config, "show", "--json"))
    assert first == {"ledger": shown["ledger"], "versions": f"sha256:{shown['signing']}"}
    new = json.loads(run(config, "rotate", "--json"))["new"]
    signing = json.loads(run(config, "rotate", "--signing", "--json"))["new"]
    run(config, "create")
    book = ledger_of(config)
    entries = book.entries("")
    assert [entry.kind for entry in entries] == ["keys.created", "keys.created", "keys.rotated", "keys.rotated"]
    assert dict(entries[2].body) == {"key": "ledger", "old": first["ledger"], "new": new}
    assert dict(entries[3].body) == {"key": "versions", "old": first["versions"], "new": signing}
    assert book.verify().flaws == ()
    loaded = load(config)
    assert unrecorded(load_keys(loaded.keys, loaded.ledger.origin, {}), entries) == ()
    told = CliRunner().invoke(app, ["--config", str(config), "ledger", "verify", "--no-copies"])
    assert "is trusted" not in told.stdout
    stranger = Signer(ORIGIN, b"f" * 32).verifier.vkey
    vkeys = config.parent / ".lockstep" / "keys" / "ledger.vkeys"
    vkeys.write_text(vkeys.read_text() + stranger + "\n")
    told = CliRunner().invoke(app, ["--config", str(config), "ledger", "verify", "--no-copies"])
    assert f"{stranger} is trusted, but no entry tells of it" in told.stdout
    by_hand = Keys(verifiers=(Signer(ORIGIN, bytes(32)).verifier,))
    assert unrecorded(by_hand, entries) == (Signer(ORIGIN, bytes(32)).verifier.vkey,)


def test_a_ledger_that_cannot_be_written_loses_no_key(config: Path) -> None:
    run(config, "create")
    database = config.parent / ".lockstep" / "ledger.db"
    database.rename(config.parent / "aside")
    database.mkdir()
    ended = CliRunner().invoke(app, ["--config", str(config), "keys", "rotate", "--json"], catch_exceptions=False)
    assert ended.exit_code == 0
    assert "ledger.db.spool" in ended.stderr
    new = json.loads(ended.stdout)["new"]
    assert json.loads(run(config, "show", "--json"))["ledger"] == new
    assert any("1 entry waits" in told for told in ledger_of(config).condition())
    database.rmdir()
    (config.parent / "aside").rename(database)
    run(config, "create")
    book = ledger_of(config)
    assert (book.entries("")[-1].kind, book.entries("")[-1].body["new"]) == ("keys.rotated", new)
    assert book.entries("")[-1].late
    assert book.condition() == ()


def test_a_key_that_was_made_before_a_process_was_killed_is_recorded_next_time(config: Path) -> None:
    run(config, "create")
    loaded = load(config)
    rotate_ledger_key(loaded.keys, loaded.ledger.origin, {})  # and no entry
    run(config, "create")
    (*_, entry) = ledger_of(config).entries("")
    assert entry.body["new"] == json.loads(run(config, "show", "--json"))["ledger"]


def test_the_condition_of_a_ledger_names_unsigned_entries_and_an_older_database(config: Path) -> None:
    run(config, "create")
    book = ledger_of(config)
    assert book.condition() == ()
    book.close()
    loaded = load(config)
    nobody = open_ledger(loaded.ledger, Keys())
    nobody.append("x", "rollback.intent", "tumour", "ann", {})
    nobody.close()
    book = ledger_of(config)
    assert any("entries 2 to 2 are unsigned" in told for told in book.condition())
    book.close()
    database = config.parent / ".lockstep" / "ledger.db"
    older = database.read_bytes()
    book = ledger_of(config)
    book.append("y", "rollback.outcome", "tumour", "ann", {})
    book.close()
    assert not database.with_name("ledger.db-wal").exists()
    database.write_bytes(older)
    assert any("has seen" in told for told in ledger_of(config).condition())


def test_init_makes_the_keys_before_it_turns_to_prefect(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []

    def turn_to_prefect(*_: str) -> None:
        seen.append(sorted(contents(config.parent / ".lockstep" / "keys")))

    monkeypatch.setattr(setup, "run_module", turn_to_prefect)
    for _ in range(2):
        ended = CliRunner().invoke(app, ["--config", str(config), "init"], catch_exceptions=False)
        assert ended.exit_code == 0
    assert seen == [NAMES, NAMES]


def test_a_damaged_key_is_an_error_of_the_configuration(settings: KeySettings, folder: Path) -> None:
    create_keys(settings, ORIGIN, {})
    (folder / "ledger.key").write_text("nonsense")
    with pytest.raises(ConfigError) as caught:
        create_keys(settings, ORIGIN, {})
    assert "keys rotate" in caught.value.hint


def test_the_commands_of_the_page_run(config: Path) -> None:
    (snippet,) = (one for one in snippets(Path("docs/production.md")) if one.mark == "keys")
    ran = [shlex.split(line, comments=True) for line in snippet.text.splitlines()]
    assert [words[:2] for words in ran] == [["lockstep", "keys"]] * len(ran)
    for words in ran:
        run(config, *words[2:])


def test_the_official_library_takes_the_signing_key(settings: KeySettings, folder: Path, tmp_path: Path) -> None:
    create_keys(settings, ORIGIN, {})
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").write_bytes(b"1")
    bundle = tmp_path / "model.sig"
    signer = signing.Config()  # type: ignore[no-untyped-call]
    signer.use_elliptic_key_signer(private_key=folder / "signing.key").sign(model, bundle)
    verifier = verifying.Config()  # type: ignore[no-untyped-call]
    verify = verifier.use_elliptic_key_verifier(public_key=folder / "signing.pub").verify
    verify(model, bundle)
    (model / "weights").write_bytes(b"2")
    with pytest.raises(ValueError, match="mismatch"):
        verify(model, bundle)
