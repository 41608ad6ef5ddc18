"""The preloaded process that containers are forked from.

`python -m sandbox.template SOCKET MODULE...` imports the modules once (MLflow and a model library cost seconds;
`module:function` also calls a function that fills a cache), then forks a child for each request on the Unix socket. A
request is one JSON line
`{"argv": ["serving"], "env": {...}, "cwd": "...", "log": "FILE"}`; the child gets exactly that environment and runs
`argv[0]` as `python -m argv[0] argv[1:]` would. The answer is `{"pid": N}`. `{"poll": N}` is answered with
`{"exit": null | status}`, `{"kill": N}` ends a child. Children die with this process, and this one with its parent.

It stays single-threaded: a fork of a process with threads may inherit a lock that nobody will ever release.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys
import tempfile
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Let the kernel send this process signal `number` when its parent dies (Linux); ends at once if it has died."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def run_child(order: dict[str, Any], parent: int) -> None:
    """Become the container: replace environment, folder, output and arguments, then run the module. Never returns."""
    status = 1
    try:
        os.setsid()
        die_with_parent(parent)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.clear()
        os.environ.update(order["env"])
        tempfile.tempdir = None  # the template may have looked for one already
        os.chdir(order["cwd"])
        sys.argv = list(order["argv"])
        runpy.run_module(order["argv"][0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)  # noqa: T201 - as Python itself does
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def answer(order: dict[str, Any], server: socket.socket, connection: socket.socket) -> dict[str, Any]:
    """Carry out one order from the runtime."""
    if "poll" in order:
        try:
            pid, status = os.waitpid(order["poll"], os.WNOHANG)
        except ChildProcessError:
            return {"exit": 0}
        return {"exit": None if pid == 0 else os.waitstatus_to_exitcode(status)}
    if "kill" in order:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(order["kill"], signal.SIGKILL)
            os.waitpid(order["kill"], 0)
        return {"exit": 0}
    here = os.getpid()
    pid = os.fork()
    if pid == 0:
        server.close()
        connection.close()
        run_child(order, here)
    return {"pid": pid}


def main(path: str, modules: list[str]) -> None:
    """Preload, listen, and answer one order at a time until the runtime hangs up or dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    for module in modules:
        with contextlib.suppress(ImportError):  # a model library that is not installed is not needed by any image here
            name, _, warm_up = module.partition(":")
            imported = importlib.import_module(name)
            if warm_up:
                getattr(imported, warm_up, lambda: None)()
    # A child's collector would walk, and so copy, all that was preloaded: a third of a container's processor time.
    gc.freeze()
    gc.enable()
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(path)
    server.listen(64)
    while True:
        connection, _ = server.accept()
        with connection, connection.makefile("rw") as stream:
            line = stream.readline()
            if not line:
                continue
            order = json.loads(line)
            if "stop" in order:
                return
            stream.write(json.dumps(answer(order, server, connection)) + "\n")


if __name__ == "__main__":
    die_with_parent(int(os.environ["SANDBOX_PID"]))
    main(sys.argv[1], sys.argv[2:])
