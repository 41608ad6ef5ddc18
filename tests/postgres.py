"""A PostgreSQL server of the tests' own: on a free port of 127.0.0.1, in a folder that is gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

STARTS = 60.0  # seconds
#: PostgreSQL refuses to run as root; the tests do run so in a container.
ACCOUNT = "nobody"


class NoPostgresError(Exception):
    """There is no PostgreSQL on this machine; the text says what is missing."""


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `address` is that of its one role on its default database."""

    port: int

    @property
    def address(self) -> str:
        return f"postgresql+psycopg://ledger@127.0.0.1:{self.port}/postgres"

    def database(self, name: str) -> str:
        """Address of a new, empty database."""
        with psycopg.connect(self.address.replace("+psycopg", ""), autocommit=True, connect_timeout=10) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.address.removesuffix("postgres") + name


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """Start a server and stop it at the end; raises NoPostgresError where there is none."""
    initdb, postgres = _program("initdb"), _program("postgres")
    account = ACCOUNT if os.geteuid() == 0 else None
    groups: list[int] | None = [] if account else None
    with tempfile.TemporaryDirectory(prefix="lockstep-postgres-", ignore_cleanup_errors=True) as name:
        folder = Path(name)  # not pytest's: the account may not enter what belongs to root
        data = folder / "data"
        data.mkdir(mode=0o700)
        if account:
            for path in (folder, data):
                shutil.chown(path, account)
        subprocess.run(
            [initdb, "-D", str(data), "-U", "ledger", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"],
            check=True, capture_output=True, timeout=120, cwd=folder, user=account, extra_groups=groups,
        )  # fmt: skip
        port = _free_port()
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [postgres, "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"],
                stdout=log, stderr=log, cwd=folder, user=account, extra_groups=groups,
            )  # fmt: skip
        server = PostgresServer(port)
        try:
            _await(server, process, folder / "log")
            yield server
        finally:
            process.send_signal(signal.SIGINT)  # ends sessions, then stops
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(timeout=30)


def _program(name: str) -> str:
    found = shutil.which(name)
    # Debian keeps them out of the PATH, one folder a release.
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    if found is None and not installed:
        raise NoPostgresError(
            f"PostgreSQL is not installed here: there is no {name} (Debian's package is `postgresql`)"
        )
    return found or str(installed[-1])


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _await(server: PostgresServer, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + STARTS
    while True:
        try:
            psycopg.connect(server.address.replace("+psycopg", ""), connect_timeout=5).close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return
