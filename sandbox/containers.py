"""Containers: real processes that serve over the bytes they were given, forked from a preloaded template.

There is no container engine here, so an image is an entry point: whatever image a deployment names, the command that
the sandbox was started with (`--image-command`, by default `serving`) runs as its container, with the environment
variables and files of that cloud's container contract. A container's network is its own port on 127.0.0.1, handed
over as the runtime's port mapping in `HOST` and `PORT`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import urllib3

PRELOAD: Final = (
    "mlflow.pyfunc.scoring_server",
    "mlflow.sklearn",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "pandas",
    "uvicorn",
    "fastapi",
    "google.cloud.storage",
    "skops.io",
    "uvicorn.protocols.http.auto",
    "uvicorn.protocols.websockets.auto",
    # What the first request would otherwise import, in each container anew.
    "anyio._backends._asyncio",
    "uvicorn.loops.auto",
    "uvicorn.lifespan.on",
    "narwhals._pandas_like.dataframe",
    "narwhals.plugins:_discover_entrypoints",
    "pyarrow.pandas_compat",
    # MLflow lists every installed distribution before it loads a model: seconds, once per process.
    "mlflow.utils.requirements_utils:_init_modules_to_packages_map",
    "mlflow.utils.requirements_utils:_init_packages_to_modules_map",
)
#: Variables that a container inherits, since interpreters do not start or find their libraries without them.
INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TZ", "VIRTUAL_ENV")
#: what the kernel takes, without the zero at its end
SOCKET_PATH: Final = 103
LOG_BYTES: Final = 64 * 1024


@dataclass(frozen=True)
class Reply:
    """A container's answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class ContainerGone(Exception):  # noqa: N818 - it is told as news, not always as an error
    """The container does not answer: it died, or never listened."""


class Container:
    """One running container. `folder` is its own and is removed with it."""

    def __init__(self, runtime: ContainerRuntime, pid: int, port: int, folder: Path) -> None:
        self.pid: Final = pid
        self.port: Final = port
        self.folder: Final = folder
        self._runtime = runtime
        self._exit: int | None = None
        self._pool = urllib3.HTTPConnectionPool("127.0.0.1", port, maxsize=16, block=False, retries=False)

    @property
    def exit_status(self) -> int | None:
        """None while it runs; then its exit status."""
        if self._exit is None:
            self._exit = self._runtime.poll(self.pid)
        return self._exit

    def wait_healthy(self, path: str, timeout: float, stop: threading.Event) -> bool:
        """Ask GET `path` until it answers 200; False after `timeout` seconds, an exit, or the sandbox's stop."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not stop.is_set() and self.exit_status is None:
            try:
                if self.request("GET", path, timeout=2.0).status == 200:
                    return True
            except ContainerGone:
                pass
            stop.wait(0.02)
        return False

    def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, timeout: float = 60.0
    ) -> Reply:
        """Send one request to the container; raises ContainerGone when it does not answer, TimeoutError when late."""
        try:
            answer = self._pool.request(
                method,
                path,
                body=body or None,
                headers=dict(headers or {}),
                timeout=timeout,
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.ReadTimeoutError as error:
            raise TimeoutError(f"container did not answer in {timeout} s") from error
        except urllib3.exceptions.HTTPError as error:
            raise ContainerGone(str(error)) from error
        return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.data)

    def logs(self) -> str:
        """The last 64 KiB of its output."""
        path = self.folder / "log"
        if not path.exists():
            return ""
        return path.read_bytes()[-LOG_BYTES:].decode(errors="replace")

    def stop(self) -> None:
        """Kill it and remove its folder; harmless when repeated."""
        self._runtime.remove(self)
        self._pool.close()


@dataclass
class ContainerRuntime:
    """Starts containers from the template process; `close()` leaves none behind."""

    command: tuple[str, ...]
    root: Path
    preload: tuple[str, ...] = PRELOAD
    _template: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _running: dict[int, Container] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _closed: bool = field(default=False, init=False)
    _count: int = field(default=0, init=False)

    def open(self) -> None:
        """Start the template. Call it from the main thread: the kernel ties the template's life to that thread."""
        if len(os.fsencode(self._socket)) > SOCKET_PATH:
            raise OSError(
                f"a socket's path has at most {SOCKET_PATH} bytes, {self._socket} has more: set TMPDIR shorter"
            )
        environment = {
            **os.environ,
            "SANDBOX_PID": str(os.getpid()),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "JE_ARROW_MALLOC_CONF": "background_thread:false",  # pyarrow's allocator; a fork has no other threads
        }
        self._template = subprocess.Popen(
            [sys.executable, "-m", "sandbox.template", str(self._socket), *self.preload],
            env=environment,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(self, env: Mapping[str, str], files: Path | None = None) -> Container:
        """Fork a container with `env` (plus HOST and PORT) and return at once; use `wait_healthy`.

        `$(PORT)` in a value of `env` becomes the port, as Kubernetes lets one variable refer to another.
        `files`, a folder made for this container by `new_folder`, is owned by it from now on.
        """
        folder = files if files is not None else self.new_folder()
        port = _free_port()
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment = {
            **inherited,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            **{name: value.replace("$(PORT)", str(port)) for name, value in env.items()},
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "TMPDIR": str(folder),  # what it leaves there goes when the container goes
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        }
        answer = self._ask(
            {"argv": list(self.command), "env": environment, "cwd": str(Path.cwd()), "log": str(folder / "log")}
        )
        container = Container(self, int(answer["pid"] or 0), port, folder)
        with self._lock:
            self._running[container.pid] = container
        return container

    def new_folder(self) -> Path:
        """An empty folder for one container's files; raises ContainerGone when the sandbox is stopping."""
        with self._lock:
            if self._closed:
                raise ContainerGone("the sandbox is stopping")
            self._count += 1
            folder = self.root / f"container-{self._count}"
            folder.mkdir(parents=True)
        return folder

    def poll(self, pid: int) -> int | None:
        """Exit status of a container's process, None while it runs."""
        return self._ask({"poll": pid})["exit"]

    def remove(self, container: Container) -> None:
        """Kill one container."""
        with self._lock:
            known = self._running.pop(container.pid, None)
        if known is not None:
            self._ask({"kill": container.pid})
            shutil.rmtree(container.folder, ignore_errors=True)

    def close(self) -> None:
        """Kill every container and the template."""
        with self._lock:
            self._closed = True
        for container in list(self._running.values()):
            container.stop()
        template, self._template = self._template, None
        if template is not None:
            os.kill(template.pid, signal.SIGKILL)
            template.wait()

    @property
    def _socket(self) -> Path:
        return self.root / "template.sock"

    def _ask(self, order: Mapping[str, object]) -> dict[str, int | None]:
        deadline = time.monotonic() + 120.0
        while True:
            if self._template is None or self._template.poll() is not None:
                return {"pid": None, "exit": 1}
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                try:
                    connection.connect(str(self._socket))
                except (FileNotFoundError, ConnectionRefusedError):
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.05)  # the template is still importing; it has no way to call us
                    continue
                with connection.makefile("rw") as stream:
                    stream.write(json.dumps(order) + "\n")
                    stream.flush()
                    answer: dict[str, int | None] = json.loads(stream.readline())
                    return answer


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
