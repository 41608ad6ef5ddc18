"""Copies of the ledger on the sandbox's three clouds: each one alone exposes a forgery, and all survive what fails."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from lockstep.clouds.archive import Archive
from lockstep.clouds.base import Cloud
from lockstep.errors import ForkError, RetryLaterError, UnreachableError
from lockstep.operations.comparison import CopyCheck, compare_copies
from lockstep.operations.copies import CopiedLedger, CopyReport, checkpoint_name, copy_ledger
from lockstep.rules.checkpoint import open_checkpoint
from lockstep.rules.merkle import root
from lockstep.rules.tiles import decode_entries, tile_reader, tiles_between
from tests.contract.clouds import sandbox_settings
from tests.ledgers import MemoryLedger, entries, ledger_of
from tests.sandbox_control import Control, RunningSandbox

KINDS = {"aws": "sagemaker", "azure": "azureml", "gcp": "vertex"}
WRITE = {"aws": "PutObject", "azure": "PutBlob", "gcp": "storage.objects.insert"}
RETENTION = timedelta(days=1)


@dataclass
class Copies:
    """The clouds that the sandbox runs, with an empty folder for copies on each."""

    clouds: dict[str, Cloud]
    control: Control
    names: list[str] = field(default_factory=list)

    def copy(self, ledger: CopiedLedger, *names: str) -> dict[str, CopyReport]:
        chosen = [self.clouds[name] for name in names or self.clouds]
        return {report.cloud: report for report in copy_ledger(chosen, ledger, RETENTION)}

    def compare(self, ledger: CopiedLedger, *names: str) -> dict[str, CopyCheck]:
        chosen = [self.clouds[name] for name in names or self.clouds]
        return {check.cloud: check for check in compare_copies(chosen, ledger)}

    def archive(self, name: str) -> Archive:
        archive = self.clouds[name].archive()
        assert archive is not None
        return archive

    def held(self, name: str, ledger: MemoryLedger) -> list[bytes]:
        """The entries under the newest checkpoint, after checking it over the copy's own tiles."""
        archive = self.archive(name)

        def fetch(path: str) -> bytes:
            content = archive.read(path)
            assert content is not None, path
            return content

        note = fetch(archive.names("checkpoint/")[-1])
        checkpoint = open_checkpoint(note, ledger.origin, ledger.verifiers)
        assert root(checkpoint.size, tile_reader(checkpoint.size, fetch)) == checkpoint.root
        bundles = [tile for tile in tiles_between(0, checkpoint.size) if tile.level is None]
        return [entry for tile in bundles for entry in decode_entries(fetch(tile.path))]


@pytest.fixture
def copies(sandbox: RunningSandbox) -> Iterator[Copies]:
    folder = f"copies-{uuid.uuid4().hex[:8]}"
    clouds = {}
    for name, kind in KINDS.items():
        home, settings = sandbox_settings(kind, sandbox, archive_folder=folder)
        if home == name and settings is not None:
            clouds[name] = settings.connect(name)
    yield Copies(clouds, sandbox.control)
    sandbox.control.clear()


def needs(copies: Copies, cloud: str) -> None:
    if cloud not in copies.clouds:
        pytest.skip(f"the sandbox runs without {cloud}")


def test_every_cloud_holds_the_whole_ledger_and_says_how_it_is_protected(copies: Copies) -> None:
    ledger = ledger_of(270)
    reports = copies.copy(ledger)
    assert {name: (report.size, report.error) for name, report in reports.items()} == dict.fromkeys(
        copies.clouds, (270, None)
    )
    for name, report in reports.items():
        assert report.protection is not None
        assert report.protection.enforced == (name != "azure"), report.protection.text
        assert copies.held(name, ledger) == ledger.entries
    ledger.append(*entries(3, start=270))
    assert {report.written for report in copies.copy(ledger).values()} == {3}
    checks = copies.compare(ledger)
    assert all(check.holds for check in checks.values()), checks
    assert {(check.size, check.checkpoints) for check in checks.values()} == {(273, 2)}


@pytest.mark.parametrize("cloud", sorted(KINDS))
def test_a_forged_history_signed_with_the_real_key_is_exposed_by_one_copy_alone(copies: Copies, cloud: str) -> None:
    needs(copies, cloud)
    copies.copy(ledger_of(12), cloud)
    lines = entries(20)
    lines[7] = b'{"entry":"forged"}'
    forged = MemoryLedger().append(*lines)
    error = copies.copy(forged, cloud)[cloud].error
    assert isinstance(error, ForkError)
    assert error.cloud == cloud
    assert "12 entries with root" in error.problem
    assert "20 entries with root" in error.problem
    assert copies.archive(cloud).names("checkpoint/") == (checkpoint_name(12),)
    check = copies.compare(forged, cloud)[cloud]
    assert check.first_bad == 7
    # The others, which had seen nothing, would have believed it.
    others = [name for name in copies.clouds if name != cloud]
    if others:
        assert all(report.error is None for report in copies.copy(forged, *others).values())


@pytest.mark.parametrize("cloud", sorted(KINDS))
def test_a_rolled_back_ledger_is_noticed_by_one_copy_alone(copies: Copies, cloud: str) -> None:
    needs(copies, cloud)
    copies.copy(ledger_of(12), cloud)
    rolled_back = ledger_of(9)
    assert isinstance(copies.copy(rolled_back, cloud)[cloud].error, ForkError)
    check = copies.compare(rolled_back, cloud)[cloud]
    assert check.first_bad == 9
    assert "rolled back" in check.problems[0]
    rolled_back.append(*entries(10, "another life"))
    assert isinstance(copies.copy(rolled_back, cloud)[cloud].error, ForkError)
    assert copies.compare(rolled_back, cloud)[cloud].first_bad == 9


@pytest.mark.parametrize("name", ["tile/entries/000.p/5", "tile/0/000.p/5", checkpoint_name(5)])
@pytest.mark.parametrize("cloud", sorted(KINDS))
def test_ended_at_any_object_the_next_copy_goes_on(copies: Copies, cloud: str, name: str) -> None:
    needs(copies, cloud)
    ledger = ledger_of(3)
    copies.copy(ledger, cloud)
    ledger.append(*entries(2, start=3))
    failing = copies.control.during(cloud, "fail", operation=WRITE[cloud], resource=f"*{name}", seconds=60, status=500)
    with failing:
        report = copies.copy(ledger, cloud)[cloud]
        assert isinstance(report.error, RetryLaterError)
        assert report.size == 3
        assert copies.archive(cloud).names("checkpoint/") == (checkpoint_name(3),)
    ledger.append(*entries(1, start=5))
    report = copies.copy(ledger, cloud)[cloud]
    assert (report.error, report.before, report.size) == (None, 3, 6)
    assert copies.held(cloud, ledger) == ledger.entries
    assert copies.archive(cloud).tampered("") == ()
    assert copies.compare(ledger, cloud)[cloud].holds


@pytest.mark.parametrize("cloud", sorted(KINDS))
def test_a_lost_answer_writes_nothing_twice(copies: Copies, cloud: str) -> None:
    needs(copies, cloud)
    ledger = ledger_of(4)
    # Slower than the client waits: the write is done, the client does not know and asks again.
    with copies.control.during(cloud, "slow", operation=WRITE[cloud], delay=6.0, count=1):
        copies.copy(ledger, cloud)
    report = copies.copy(ledger, cloud)[cloud]
    assert (report.error, report.size) == (None, 4)
    assert copies.held(cloud, ledger) == ledger.entries
    assert copies.archive(cloud).tampered("") == ()


@pytest.mark.parametrize("cloud", sorted(KINDS))
def test_an_unreachable_cloud_delays_no_other_and_is_caught_up(copies: Copies, cloud: str) -> None:
    needs(copies, cloud)
    ledger = ledger_of(2)
    with copies.control.during(cloud, "down"):
        for batch in range(2):
            ledger.append(*entries(2, start=2 + 2 * batch))
            reports = copies.copy(ledger)
            assert isinstance(reports[cloud].error, UnreachableError)
            assert {report.size for name, report in reports.items() if name != cloud} <= {ledger.size}
        assert isinstance(copies.compare(ledger)[cloud].error, UnreachableError)
    assert {report.size for report in copies.copy(ledger).values()} == {6}
    assert copies.held(cloud, ledger) == ledger.entries
    assert all(check.holds for check in copies.compare(ledger).values())


def test_a_damaged_copy_is_named(copies: Copies) -> None:
    ledger = ledger_of(4)
    copies.copy(ledger)
    for name in copies.clouds:
        # Vertex keeps another copy of nothing here, so the suffix names one object.
        folder = copies.archive(name).place.rpartition("/")[2]
        copies.control.corrupt(name, f"{folder}/tile/0/000.p/4", 3)
    for check in copies.compare(ledger).values():
        assert not check.holds, check
