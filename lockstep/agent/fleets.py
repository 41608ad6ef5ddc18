"""Fleets of a long-lived process: adapters, MLflow and the ledger are opened once and stay connected."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import Final

from lockstep.clouds.base import Cloud
from lockstep.config import Config
from lockstep.errors import LockstepError
from lockstep.operations.fleet import Event, Fleet, open_fleet
from lockstep.operations.remembering import read_record, remember_details

LOG: Final = logging.getLogger("lockstep.agent")


class WarmFleets:
    """One fleet a model; all share their clouds' adapters, MLflow's client and the ledger. Safe for several threads."""

    def __init__(self, config: Config, actor: str = "machine:agent") -> None:
        self._config = config
        self._actor = actor
        self._lock = threading.Lock()
        self._clouds: dict[str, Cloud] = {}
        self._fleets: dict[str, Fleet] = {}

    def __call__(self, model: str) -> Fleet:
        """The model's fleet; raises NotFoundError for one that is not configured."""
        with self._lock:
            if model not in self._fleets:
                self._fleets[model] = self._open(model)
            return self._fleets[model]

    def warm(self) -> None:
        """Connect everything and read what a rollback would need; what does not answer now is told, and skipped."""
        for model in self._config.models:
            try:
                fleet = self(model)
                fleet.registry.load()
                state = fleet.observe(urgent=True)
                desired = read_record(fleet).desired
                remember_details(fleet, desired.champion, desired.fallback)
            except LockstepError as error:
                LOG.warning("%s could not be looked at beforehand: %s", model, error.reason)
                continue
            for cloud, reason in state.unreachable.items():
                LOG.warning("%s: %s does not answer: %s", model, cloud, reason)

    def _open(self, model: str) -> Fleet:
        settings = self._config.fleets[self._config.model(model).fleet]
        for name in settings.clouds:
            if name not in self._clouds:
                self._clouds[name] = self._config.clouds[name].connect(name)

        def say(event: Event) -> None:
            LOG.info("%s: %s%s", model, f"{event.cloud}: " if event.cloud else "", event.text)

        fleet = open_fleet(self._config, model, clouds=self._clouds, observer=say, actor=self._actor, alert={})
        first = next(iter(self._fleets.values()), None)
        return fleet if first is None else replace(fleet, registry=first.registry, ledger=first.ledger)
