"""Standard output and error that cannot be written: the exit status tells what was done all the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from lockstep import cli, terminal
from lockstep.operations.fleet import Event
from lockstep.streams import heedless

FULL = Path("/dev/full")


def run(monkeypatch: pytest.MonkeyPatch, words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["lockstep", *words.split()])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


@pytest.fixture(params=["full", "gone", "closed"])
def lost(request: pytest.FixtureRequest) -> Iterator[TextIO | None]:
    """A stream that nothing can be written to."""
    if request.param == "closed":
        yield None
        return
    if request.param == "full":
        with FULL.open("w", encoding="utf-8") as stream:
            yield stream
        return
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        yield stream


@pytest.mark.parametrize(
    ("words", "status"), [("schema", 0), ("--help", 0), ("--version", 0), ("bogus --json", 2), ("CONFIG --json", 3)]
)
def test_a_result_that_cannot_be_written_changes_no_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
    lost: TextIO | None,
    words: str,
    status: int,
) -> None:
    monkeypatch.setattr(sys, "stdout", lost)
    assert run(monkeypatch, words.replace("CONFIG", "--config nowhere.yaml status churn")) == status
    told = capsys.readouterr().err
    if "full" not in request.node.callspec.id:
        assert told == "", "whoever went wanted no more"
    elif "--json" in words:
        assert "No space left on device" in json.loads(told)["trouble"]
    else:
        assert told.startswith("note: the result could not be written: No space left on device")
        assert told.count("\n") == 1


@pytest.mark.parametrize(("words", "status"), [("bogus", 2), ("--config nowhere.yaml status churn", 3)])
def test_an_error_that_cannot_be_told_keeps_its_exit_status(
    monkeypatch: pytest.MonkeyPatch, lost: TextIO | None, words: str, status: int
) -> None:
    monkeypatch.setattr(sys, "stderr", lost)
    assert run(monkeypatch, words) == status


@pytest.mark.parametrize("quiet", [True, False])
def test_what_cannot_be_told_of_the_work_stops_none_of_it(
    monkeypatch: pytest.MonkeyPatch, lost: TextIO | None, quiet: bool
) -> None:
    """As in `lockstep rollback churn 2>&1 | head -1`."""
    monkeypatch.setattr(sys, "stderr", lost)
    with heedless(), terminal.progress(quiet=quiet) as observe:
        observe(Event("rolling churn back"))
        observe(Event("cannot be reached", "aws", trouble=True))


def test_nothing_is_said_when_the_process_ends() -> None:
    """What Python itself writes then would be a traceback, and its exit status 120."""
    code = "import sys; sys.argv = ['lockstep', 'schema']; from lockstep.cli import main; main()"
    with FULL.open("wb") as full:
        ran = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
    assert ran.returncode == 0
    assert ran.stderr.startswith("note: the result could not be written")
    assert ran.stderr.count("\n") == 1


def test_what_can_be_written_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also what the encoding of a terminal does not have, as an escape."""
    written = tmp_path / "out"
    with written.open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with heedless() as told:
            sys.stdout.write("one…\n")
            assert told.lost() is None
        assert sys.stdout is stream
        sys.stdout.write("two\n")
    assert written.read_text(encoding="ascii") == "one\\u2026\ntwo\n"


def test_a_pipe_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    read = list[bytes]()

    def read_all() -> None:
        with os.fdopen(reader, "rb") as source:
            read.append(source.read())

    thread = threading.Thread(target=read_all)
    with os.fdopen(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with heedless() as told:
            thread.start()
            sys.stdout.write("x" * 1_000_000)
            assert told.lost() is None
    thread.join(60)
    assert len(read[0]) == 1_000_000
