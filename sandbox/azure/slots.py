"""Running deployments and the way to them. Scoring reads only immutable values here, so it never waits for a change.

A slot counts its requests in flight: retiring it waits for them, so that a request that was routed is finished by its
container whatever happens to the traffic meanwhile.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sandbox.containers import Container

#: Requests that may be in a deployment at once, per instance and allowed concurrent request; more are refused (429).
PARALLEL: Final = 2
DRAIN_SECONDS: Final = 180.0


class Slot:
    """One deployment's container; one container stands for all `instances` of the deployment."""

    def __init__(
        self,
        name: str,
        container: Container,
        path: str,
        timeout: float,
        limit: int,
        collector: Mapping[str, Any] | None = None,
    ) -> None:
        self.name: Final = name
        self.container: Final = container
        self.path: Final = path
        self.collector: Final = collector
        self.timeout = timeout
        self.limit = limit
        self._in_flight = 0
        self._closed = False
        self._changed = threading.Condition()

    def enter(self) -> bool | None:
        """Take a place for one request: True, False when there is no room (429), None when the slot is retired."""
        with self._changed:
            if self._closed:
                return None
            if self._in_flight >= self.limit:
                return False
            self._in_flight += 1
            return True

    def leave(self) -> None:
        """Give the place back."""
        with self._changed:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._changed.notify_all()

    def retire(self) -> str:
        """Let nobody in any more, wait for those inside, stop the container; returns its log."""
        deadline = time.monotonic() + DRAIN_SECONDS
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._in_flight == 0, timeout=deadline - time.monotonic())
        log = self.container.logs()
        self.container.stop()
        return log


@dataclass(frozen=True)
class Routing:
    """How one endpoint's requests are answered now. `weights` are percents; names are lower-case."""

    endpoint: str
    auth_mode: str
    keys: tuple[str, str]
    weights: tuple[tuple[str, int], ...] = ()
    slots: Mapping[str, Slot] = field(default_factory=dict)

    def pick(self, chance: float) -> str | None:
        """The deployment for a random number in [0, 1); None when no deployment has weight."""
        total = sum(weight for _, weight in self.weights)
        mark = chance * total
        for name, weight in self.weights:
            mark -= weight
            if mark < 0:
                return name
        return None


class Routes:
    """The routing of every endpoint, replaced whole at each change."""

    def __init__(self, seed: int) -> None:
        self._routes: dict[str, Routing] = {}
        self._lock = threading.Lock()
        self._random = random.Random(seed)  # noqa: S311 - traffic, not secrets

    def find(self, endpoint: str) -> Routing | None:
        """The routing in force."""
        return self._routes.get(endpoint.lower())

    def chance(self) -> float:
        """The next random number of the seeded sequence."""
        return self._random.random()

    def open(self, routing: Routing) -> None:
        """A new endpoint."""
        with self._lock:
            self._routes[routing.endpoint.lower()] = routing

    def close(self, endpoint: str) -> None:
        """The endpoint is gone."""
        with self._lock:
            self._routes.pop(endpoint.lower(), None)

    def weigh(self, endpoint: str, weights: Mapping[str, int]) -> None:
        """Replace the traffic split."""
        self._replace(endpoint, weights=tuple((name.lower(), weight) for name, weight in weights.items()))

    def secure(self, endpoint: str, auth_mode: str, keys: tuple[str, str]) -> None:
        """Replace the keys."""
        self._replace(endpoint, auth_mode=auth_mode, keys=keys)

    def attach(self, endpoint: str, slot: Slot) -> Slot | None:
        """Put a slot in place; returns the one that it replaces."""
        with self._lock:
            routing = self._routes[endpoint.lower()]
            old = routing.slots.get(slot.name.lower())
            slots = {**routing.slots, slot.name.lower(): slot}
            self._routes[endpoint.lower()] = replace(routing, slots=slots)
        return old

    def detach(self, endpoint: str, name: str) -> Slot | None:
        """Take a slot out; returns it."""
        with self._lock:
            routing = self._routes.get(endpoint.lower())
            if routing is None or name.lower() not in routing.slots:
                return None
            slots = {n: s for n, s in routing.slots.items() if n != name.lower()}
            self._routes[endpoint.lower()] = replace(routing, slots=slots)
            return routing.slots[name.lower()]

    def _replace(self, endpoint: str, **changes: object) -> None:
        with self._lock:
            routing = self._routes[endpoint.lower()]
            self._routes[endpoint.lower()] = replace(routing, **changes)  # type: ignore[arg-type]
