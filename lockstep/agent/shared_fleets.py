"""The fleets of a long-lived process, with one set of clients for all that it does: a rollback finds them connected."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

from lockstep.clouds.base import Cloud
from lockstep.config import Config
from lockstep.operations.fleet import Fleet, Observer, open_fleet


class Fleets:
    """Opens each model's fleet once; what differs from use to use, who acts and why, is put into a copy of it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clouds: Mapping[str, Cloud] = {
            name: settings.connect(name) for name, settings in config.clouds.items()
        }  # opens no connection yet
        self._fleets: dict[str, Fleet] = {}
        self._lock = threading.Lock()

    @property
    def models(self) -> tuple[str, ...]:
        """Configured models, sorted."""
        return tuple(sorted(self.config.models))

    def __call__(
        self,
        model: str,
        *,
        actor: str = "",
        via: str = "",
        alert: Mapping[str, str] | None = None,
        observer: Observer | None = None,
    ) -> Fleet:
        """The fleet of a model; raises NotFoundError for one that is not configured."""
        with self._lock:
            fleet = self._fleets.get(model)
            if fleet is None:
                fleet = open_fleet(self.config, model, clouds=self.clouds, alert={})
                if self._fleets:  # one pool of connections to MLflow, and one to the ledger's database
                    first = next(iter(self._fleets.values()))
                    fleet = replace(fleet, registry=first.registry, ledger=first.ledger)
                self._fleets[model] = fleet
        return replace(
            fleet,
            actor=actor or fleet.actor,
            via=via or fleet.via,
            alert=dict(alert or {}),
            observer=observer or fleet.observer,
        )
