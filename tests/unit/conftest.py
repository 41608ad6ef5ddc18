"""Unit tests touch no network: a connection attempt is an error of the test."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockstep.agent import inbox
from lockstep.agent.group_commit import GroupCommit


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a unit test tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    return


@pytest.fixture
def database(tmp_path: Path) -> Iterator[GroupCommit]:
    """An agent's inbox."""
    made = GroupCommit(tmp_path / "state" / "inbox.db", inbox.SCHEMA)
    yield made
    made.close()
