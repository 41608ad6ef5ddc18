"""Copies of the ledger, in memory: whole after every kind of interruption, and witnesses against every forgery."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.clouds.archive import Archive, Protection
from lockstep.errors import DigestMismatchError, ForkError, NotFoundError, ProofError, RetryLaterError, UnreachableError
from lockstep.operations.comparison import CopyCheck, compare_copies
from lockstep.operations.copies import CopiedLedger, CopyReport, checkpoint_name, copy_ledger
from lockstep.rules.checkpoint import open_checkpoint
from lockstep.rules.merkle import root
from lockstep.rules.tiles import decode_entries, tile_reader, tiles_between
from tests.ledgers import KilledError, MemoryArchive, MemoryLedger, Place, entries, ledger_of, names_of, signer

RETENTION = timedelta(days=1)


def copy(ledger: CopiedLedger, *archives: Archive | None, seconds: float | None = None) -> tuple[CopyReport, ...]:
    places = [Place(f"cloud{number}", archive) for number, archive in enumerate(archives)]
    return copy_ledger(places, ledger, RETENTION, seconds)


def copied(ledger: CopiedLedger, archive: MemoryArchive) -> CopyReport:
    """The report of a copy that went well."""
    (report,) = copy(ledger, archive)
    assert report.error is None
    return report


def refusal(ledger: CopiedLedger, archive: MemoryArchive) -> Exception:
    (report,) = copy(ledger, archive)
    assert report.error is not None
    return report.error


def compare(ledger: CopiedLedger, archive: Archive) -> CopyCheck:
    return compare_copies([Place("cloud0", archive)], ledger)[0]


def rebuilt(archive: MemoryArchive, ledger: MemoryLedger) -> list[bytes]:
    """The entries under the copy's newest checkpoint, read as any tool would that knows tiles."""
    newest = archive.read(list(names_of(archive, "checkpoint/"))[-1])
    assert newest is not None
    checkpoint = open_checkpoint(newest, ledger.origin, ledger.verifiers)

    def fetch(path: str) -> bytes:
        content = archive.read(path)
        assert content is not None, path
        return content

    assert root(checkpoint.size, tile_reader(checkpoint.size, fetch)) == checkpoint.root
    bundles = [name for name in tiles_between(0, checkpoint.size) if name.level is None]
    return [entry for name in bundles for entry in decode_entries(fetch(name.path))]


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 600])
def test_a_copy_holds_every_entry_and_is_checked_by_its_own_tiles(size: int) -> None:
    ledger, archive = ledger_of(size), MemoryArchive()
    report = copied(ledger, archive)
    assert (report.before, report.size) == (None, size)
    assert report.written == len(archive.objects)
    assert rebuilt(archive, ledger) == ledger.entries
    assert archive.writes[-1] == checkpoint_name(size)
    check = compare(ledger, archive)
    assert check.holds
    assert (check.size, check.checkpoints, check.first_bad) == (size, 1, None)


def test_a_second_copy_without_news_writes_nothing() -> None:
    ledger, archive = ledger_of(5), MemoryArchive()
    copied(ledger, archive)
    report = copied(ledger, archive)
    assert (report.before, report.size, report.written) == (5, 5, 0)


def test_nothing_is_ever_written_twice_as_the_ledger_grows() -> None:
    ledger, archive = MemoryLedger(), MemoryArchive()
    for batch in range(40):
        ledger.append(*entries(17, start=17 * batch))
        copied(ledger, archive)
    assert len(archive.writes) == len(set(archive.writes))
    assert archive.tampered("") == ()
    assert rebuilt(archive, ledger) == ledger.entries
    assert compare(ledger, archive).checkpoints == 40


def test_an_empty_ledger_and_one_without_signature_are_not_copied() -> None:
    archive = MemoryArchive()
    assert copied(MemoryLedger(), archive).size is None
    unsigned = MemoryLedger().append(*entries(3), sign=False)
    assert copied(unsigned, archive).size is None
    unsigned.sign()
    assert copied(unsigned, archive).size == 3


def test_entries_that_are_not_signed_yet_wait() -> None:
    ledger, archive = ledger_of(4), MemoryArchive()
    ledger.append(*entries(3, start=4), sign=False)
    assert copied(ledger, archive).size == 4
    assert compare(ledger, archive).holds
    ledger.sign()
    assert copied(ledger, archive).size == 7


def test_a_cloud_without_archive_keeps_no_copy_and_stops_no_other() -> None:
    archive = MemoryArchive()
    none, kept = copy(ledger_of(3), None, archive)
    assert (none.place, none.size, none.error) == ("", None, None)
    assert kept.size == 3
    assert compare_copies([Place("a")], ledger_of(3)) == (CopyCheck("a"),)


def test_an_unreachable_cloud_is_named_and_caught_up_later() -> None:
    ledger, good, bad = ledger_of(3), MemoryArchive("good"), MemoryArchive("bad")
    bad.fail_after = 0
    first, second = copy(ledger, good, bad)
    assert first.size == 3
    assert isinstance(second.error, UnreachableError)
    for batch in range(3):
        ledger.append(*entries(2, start=3 + 2 * batch))
        copy(ledger, good, bad)
    bad.fail_after = None
    assert [(report.before, report.size) for report in copy(ledger, good, bad)] == [(9, 9), (None, 9)]
    assert rebuilt(bad, ledger) == rebuilt(good, ledger) == ledger.entries


@pytest.mark.parametrize("answers", [True, False], ids=["before-the-write", "after-the-write"])
@pytest.mark.parametrize("objects", range(9))
def test_killed_at_any_object_the_next_copy_goes_on(objects: int, answers: bool) -> None:
    ledger, archive = ledger_of(3), MemoryArchive()
    copied(ledger, archive)
    ledger.append(*entries(300, start=3))
    archive.die_after, archive.dies_before_answer = len(archive.writes) + objects, not answers
    held = len(list(names_of(archive, "checkpoint/")))
    try:
        copy(ledger, archive)
    except KilledError:
        if archive.writes[-1] != checkpoint_name(303):
            assert len(list(names_of(archive, "checkpoint/"))) == held, "a checkpoint must come last"
    archive.die_after = None
    ledger.append(*entries(5, start=303))  # life went on before the next copy
    copied(ledger, archive)
    assert rebuilt(archive, ledger) == ledger.entries
    assert len(archive.writes) == len(set(archive.writes))
    assert compare(ledger, archive).holds


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0, 1, 5, 255, 256, 300]), st.integers(0, 6), st.booleans()), min_size=1, max_size=6
    )
)
def test_any_history_of_appends_and_kills_ends_in_a_whole_copy(steps: list[tuple[int, int, bool]]) -> None:
    ledger, archive = MemoryLedger(), MemoryArchive()
    for count, objects, late in steps:
        ledger.append(*entries(count, start=ledger.size))
        archive.die_after, archive.dies_before_answer = len(archive.writes) + objects, late
        try:
            copy(ledger, archive)
        except KilledError:
            continue
    archive.die_after = None
    ledger.append(b"{}")
    copied(ledger, archive)
    assert rebuilt(archive, ledger) == ledger.entries
    assert archive.tampered("") == ()
    assert compare(ledger, archive).holds


def test_time_up_is_no_failure_for_good() -> None:
    ledger, archive = ledger_of(300), MemoryArchive()
    (report,) = copy(ledger, archive, seconds=-1.0)
    assert isinstance(report.error, RetryLaterError)
    assert not archive.objects
    assert copied(ledger, archive).size == 300


class SilentArchive(MemoryArchive):
    """Answers once `answer` is set."""

    def __init__(self) -> None:
        super().__init__("silent")
        self.answer = threading.Event()

    def _protection(self) -> Protection:
        self.answer.wait()
        return super()._protection()


def test_a_silent_cloud_is_waited_for_no_longer_than_asked() -> None:
    ledger, silent, good = ledger_of(3), SilentArchive(), MemoryArchive()
    first, second = copy(ledger, silent, good, seconds=0.2)
    assert isinstance(first.error, RetryLaterError)
    assert "lockstep ledger copy" in first.error.hint
    assert (second.error, second.size) == (None, 3)
    assert not silent.objects
    silent.answer.set()
    assert copied(ledger, silent).size == 3


def test_a_forged_history_signed_with_the_real_key_is_exposed() -> None:
    ledger, archive = ledger_of(300), MemoryArchive()
    copied(ledger, archive)
    lines = entries(320)
    lines[271] = b'{"entry":"forged"}'
    forged = MemoryLedger().append(*lines)
    before = dict(archive.objects)
    error = refusal(forged, archive)
    assert isinstance(error, ForkError)
    assert "300 entries" in str(error)
    assert "320 entries" in str(error)
    assert archive.objects == before, "a refused copy writes nothing"
    check = compare(forged, archive)
    assert not check.holds
    assert check.first_bad == 271
    assert "entry 271 is another one in the ledger here" in check.problems[0]


@pytest.mark.parametrize("size", [0, 1, 7, 256, 299])
def test_a_rolled_back_ledger_is_noticed(size: int) -> None:
    ledger, archive = ledger_of(300), MemoryArchive()
    copied(ledger, archive)
    older = ledger_of(size) if size else MemoryLedger()
    assert isinstance(refusal(older, archive), ForkError)
    check = compare(older, archive)
    assert check.first_bad == size
    assert "rolled back or cut short" in check.problems[0]


def test_a_rolled_back_ledger_that_went_on_is_noticed() -> None:
    ledger, archive = ledger_of(20), MemoryArchive()
    copied(ledger, archive)
    other = ledger_of(12).append(*entries(30, "other"))
    assert isinstance(refusal(other, archive), ForkError)
    assert compare(other, archive).first_bad == 12


def test_an_edited_entry_is_noticed_though_the_stored_tree_was_left_alone() -> None:
    ledger, archive = ledger_of(10), MemoryArchive()
    copied(ledger, archive)
    ledger.entries[4] = b'{"entry":"edited"}'
    ledger.append(b"{}")
    error = refusal(ledger, archive)
    assert isinstance(error, ProofError)
    assert "entry 4" in str(error)
    assert compare(ledger, archive).first_bad == 4


class HoledLedger(MemoryLedger):
    """One entry was deleted from the database."""

    hole = 6

    def leaves(self, start: int, stop: int) -> list[bytes]:
        if start <= self.hole < stop:
            raise NotFoundError(f"there is no entry {self.hole}")
        return super().leaves(start, stop)


def test_a_deleted_entry_is_named() -> None:
    ledger, archive = HoledLedger().append(*entries(10)), MemoryArchive()
    copied(ledger_of(10), archive)
    assert compare(ledger, archive).first_bad == 6
    assert isinstance(refusal(ledger.append(b"{}"), archive), NotFoundError)


def test_a_newer_forged_checkpoint_in_the_copy_does_not_hide_the_older_one() -> None:
    ledger, archive = ledger_of(10), MemoryArchive()
    copied(ledger, archive)
    lines = entries(30)
    lines[3] = b'{"entry":"forged"}'
    forged = MemoryLedger().append(*lines)
    assert forged.note is not None
    archive.put(checkpoint_name(30), forged.note)  # with the real key and the cloud's credentials
    assert not compare(forged, archive).holds
    assert compare(forged, archive).first_bad == 3
    assert not compare(ledger, archive).holds
    assert isinstance(refusal(ledger, archive), ForkError)


def test_a_copy_that_was_overwritten_or_deleted_says_so_and_keeps_its_first_version() -> None:
    ledger, archive = ledger_of(3), MemoryArchive()
    copied(ledger, archive)
    archive.put("tile/entries/000.p/3", b"forged")
    archive.put(checkpoint_name(3), None)
    check = compare(ledger, archive)
    assert len(check.problems) == 2
    assert all("overwritten or deleted" in problem for problem in check.problems)
    assert check.first_bad is None
    ledger.append(*entries(2, start=3))
    assert copied(ledger, archive).before == 3
    assert rebuilt(archive, ledger) == ledger.entries


def test_a_copy_that_was_emptied_or_cut_lacks_what_the_ledger_signed() -> None:
    ledger, archive = ledger_of(3), MemoryArchive()
    assert compare(ledger, archive).behind == 3
    copied(ledger, archive)
    assert compare(ledger, archive).behind == 0
    ledger.append(*entries(2, start=3))
    check = compare(ledger, archive)
    assert (check.holds, check.size, check.behind) == (True, 3, 2)
    copied(ledger, archive)
    archive.objects.clear()  # a store that is not write-once
    check = compare(ledger, archive)
    assert (check.size, check.behind) == (None, 5)


def test_damaged_and_missing_tiles_are_named() -> None:
    ledger, archive = ledger_of(260), MemoryArchive()
    copied(ledger, archive)
    bundle = archive.objects["tile/entries/000"][0]
    assert bundle is not None
    archive.objects["tile/entries/000"] = [bundle.replace(b'{"entry":17}', b'{"entry":71}')]
    archive.objects["tile/0/000"] = [b"short"]
    del archive.objects["tile/entries/001.p/4"]
    assert set(compare(ledger, archive).problems) == {
        "tile/entries/000 differs in entry 17 from what its own checkpoint was signed over",
        "tile/0/000 holds other hashes",
        "tile/entries/001.p/4 is missing",
    }


def test_an_object_that_stands_in_the_way_is_refused() -> None:
    ledger, archive = ledger_of(3), MemoryArchive()
    archive.put("tile/0/000.p/3", b"planted")
    assert isinstance(refusal(ledger, archive), DigestMismatchError)
    assert list(names_of(archive, "checkpoint/")) == []


@pytest.mark.parametrize("content", [b"garbage", ledger_of(9, key="stranger").note or b""])
def test_a_checkpoint_that_no_known_key_signed_stops_the_copy(content: bytes) -> None:
    ledger, archive = ledger_of(3), MemoryArchive()
    archive.put(checkpoint_name(9), content)
    error = refusal(ledger, archive)
    assert isinstance(error, ForkError)
    assert "archive_folder" in error.hint
    assert any("no checkpoint of this ledger" in problem for problem in compare(ledger, archive).problems)


def test_a_new_key_goes_on_where_the_old_one_ended() -> None:
    ledger, archive = ledger_of(3), MemoryArchive()
    copied(ledger, archive)
    old = ledger.key
    ledger.key, ledger.older = signer("new"), (old.verifier,)
    ledger.sign()
    assert copied(ledger, archive).written == 0  # the same tree needs no second checkpoint
    ledger.append(*entries(2, start=3))
    assert copied(ledger, archive).size == 5
    assert compare(ledger, archive).holds


def test_what_an_earlier_attempt_left_of_many_is_listed_not_asked_for() -> None:
    ledger, archive = ledger_of(6000), MemoryArchive()
    archive.fail_after = 30
    assert isinstance(refusal(ledger, archive), UnreachableError)
    left = len(archive.writes)
    archive.fail_after = None
    archive.reads = 0
    report = copied(ledger, archive)
    assert archive.reads == 0
    assert left >= 30
    assert report.written == len(archive.objects) - left
    assert rebuilt(archive, ledger) == ledger.entries
