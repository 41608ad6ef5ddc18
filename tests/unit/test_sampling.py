"""Every byte gets its turn, in even shares."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.errors import RefusedError
from lockstep.rules.manifest import FileEntry
from lockstep.rules.sampling import days_of, share_of

FILES = st.lists(st.integers(0, 10_000), min_size=0, max_size=40).map(
    lambda sizes: tuple(FileEntry(f"file-{number}", size, "0" * 64) for number, size in enumerate(sizes))
)


@settings(deadline=None)
@given(FILES, st.integers(1, 30), st.integers(0, 100_000), st.text(max_size=8))
def test_so_many_days_in_a_row_read_every_file_once(
    files: tuple[FileEntry, ...], days: int, day: int, seed: str
) -> None:
    shares = [share_of(files, days, day + number, seed) for number in range(days)]
    assert sorted(path for share in shares for path in share) == sorted(file.path for file in files)


@settings(deadline=None)
@given(FILES, st.integers(1, 12), st.integers(0, 1000))
def test_shares_are_even_but_for_one_file(files: tuple[FileEntry, ...], days: int, day: int) -> None:
    sizes = {file.path: file.size for file in files}
    read = [sum(max(sizes[path], 1) for path in share_of(files, days, day + number, "v")) for number in range(days)]
    assert max(read) - min(read) <= max([*sizes.values(), 1])


def test_the_order_of_the_files_means_nothing() -> None:
    files = [FileEntry(name, 7, "0" * 64) for name in "abcdef"]
    assert share_of(files, 3, 5, "s") == share_of(files[::-1], 3, 5, "s")


def test_versions_have_their_large_files_on_different_days() -> None:
    files = [FileEntry("weights", 10**9, "0" * 64), FileEntry("MLmodel", 10, "0" * 64)]
    days = {next(day for day in range(7) if "weights" in share_of(files, 7, day, f"{seed}")) for seed in range(50)}
    assert days == set(range(7))


@pytest.mark.parametrize(("sample", "days"), [(1.0, 1), (0.5, 2), (1 / 7, 7), (0.3, 4), (1 / 3, 3), (0.001, 1000)])
def test_a_share_tells_the_days(sample: float, days: int) -> None:
    assert days_of(sample) == days


@pytest.mark.parametrize("sample", [0.0, -1.0, 1.01, float("nan")])
def test_what_is_no_share_is_refused(sample: float) -> None:
    with pytest.raises(RefusedError, match="share"):
        days_of(sample)
