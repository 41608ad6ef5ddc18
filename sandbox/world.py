"""What all three clouds share, handed to each of them: knobs, record, containers and the end."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sandbox.calls import Calls
from sandbox.containers import ContainerRuntime
from sandbox.delays import Delays
from sandbox.faults import Faults
from sandbox.permissions import Permissions


@dataclass(frozen=True)
class World:
    """The shared parts of one running sandbox; `folder` is a temporary folder that goes when the sandbox goes."""

    delays: Delays
    faults: Faults
    calls: Calls
    containers: ContainerRuntime
    folder: Path
    seed: int = 0
    permissions: Permissions = field(default_factory=Permissions)
    stop: threading.Event = field(default_factory=threading.Event)


class CloudServers(Protocol):
    """One vendor's servers. `settings()` is what a client needs to reach them, JSON-ready."""

    cloud: str

    def launch(self) -> None:
        """Start what runs in processes of its own and return at once; called from the main thread, before `start`."""

    def start(self) -> None:
        """Bind and serve; returns when every address answers."""

    def settings(self) -> dict[str, object]:
        """Addresses, identifiers and credentials."""

    def freeze(self) -> None:
        """A `stale` fault begins: remember the state that reads will show until it ends."""

    def operations(self) -> frozenset[str]:
        """Names of the operations that faults can hit here."""

    def permissions(self) -> frozenset[str]:
        """Names of the permissions that can be taken away from callers here."""

    def corrupt(self, key: str, offset: int) -> str:
        """Flip one byte of the stored object whose key ends with `key`; returns its full name or raises KeyError."""

    def evict(self, endpoint: str, slot: str) -> str:
        """Take the machine of a slot away as spot capacity is taken; returns what was evicted or raises KeyError."""

    def stop(self) -> None:
        """Close every address and end every process of this cloud."""
