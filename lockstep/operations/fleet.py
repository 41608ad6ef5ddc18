"""One model, the clouds that serve it, and what an operation needs to work on them."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeVar

from lockstep.clouds.base import Cloud, Row
from lockstep.config import Config, FleetSettings
from lockstep.errors import NotFoundError
from lockstep.operations.running import Job, Outcome, Runner, ThreadRunner, look
from lockstep.rules.capacity import Least
from lockstep.rules.state import FleetState
from lockstep.stores.artifacts import Replicas
from lockstep.stores.keys import Keys, load_keys
from lockstep.stores.last_known import LastKnown
from lockstep.stores.ledger import Ledger, open_ledger
from lockstep.stores.outcomes import OutcomeSource
from lockstep.stores.registry import Registry

T = TypeVar("T")
LOOKS: Final = ThreadRunner(looks=True)


@dataclass(frozen=True)
class Event:
    """Something a person may want to see: a phase of the work, or progress on one cloud (bytes or steps).

    `trouble` is what holds the work up: whoever waits for nothing but its result is told of that, too.
    """

    text: str
    cloud: str = ""
    done: int = 0
    total: int = 0
    model: str = ""
    trouble: bool = False


Observer = Callable[[Event], None]


@dataclass(frozen=True)
class Fleet:
    """A model with its clouds in rollout order.

    `actor` is who or what asked, for the ledger: a person's name (kept apart from the entries, which hold a pseudonym),
    or `schedule:…`, `alert:…`, `flow:…`, `machine:…`. `via` is what carries it out for them, and `link` the address at
    which people see that, "" for none.

    `alert` is the alert that asked, as intents carry it: its `id`, and `at`, when it was given (ISO 8601 with a zone).

    `last_known` is what was last known of models while MLflow cannot be asked, and `mlflow_patience` the seconds that a
    rollback waits for it.

    `keys` are those that there are to sign and to check with; none are needed to roll back.
    `retention` is how long the clouds' copies of the ledger are kept from change. `owner` is who answers for the model.
    """

    model: str
    clouds: tuple[Cloud, ...]
    registry: Registry
    ledger: Ledger
    settings: FleetSettings
    outcomes: OutcomeSource | None = None
    probe: tuple[Row, ...] = ()
    runner: Runner = field(default_factory=ThreadRunner)
    observer: Observer = lambda event: None
    actor: str = ""
    via: str = ""
    link: str = ""
    alert: Mapping[str, str] = field(default_factory=dict)
    keys: Keys = field(default_factory=Keys)
    retention: timedelta = timedelta(days=400)
    owner: str = ""
    last_known: LastKnown = field(default_factory=lambda: LastKnown(None))
    mlflow_patience: float = 3.0

    @property
    def least(self) -> Mapping[str, Least]:
        """Instances that slots must have at least, by cloud."""
        return {cloud.name: cloud.least for cloud in self.clouds}

    def cloud(self, name: str) -> Cloud:
        """The cloud of that name; raises NotFoundError listing those of the fleet."""
        for cloud in self.clouds:
            if cloud.name == name:
                return cloud
        known = ", ".join(cloud.name for cloud in self.clouds)
        raise NotFoundError(
            f"cloud {name!r} does not serve {self.model} (its clouds: {known})",
            hint=f"name one of them: {' or '.join(f'--cloud {cloud.name}' for cloud in self.clouds)}",
        )

    def say(self, text: str, cloud: str = "", done: int = 0, total: int = 0) -> None:
        """Tell the observer."""
        self.observer(Event(text, cloud, done, total, self.model))

    def warn(self, text: str, cloud: str = "") -> None:
        """Tell the observer of something that holds the work up."""
        self.observer(Event(text, cloud, model=self.model, trouble=True))

    def on_each(self, what: str, call: Callable[[Cloud], T], retries: int = 2) -> tuple[Outcome[T], ...]:
        """Do `call` on every cloud at the same time."""
        return self.runner.run(self._jobs(what, call, retries))

    def look_at_each(self, what: str, call: Callable[[Cloud], T], retries: int = 0) -> tuple[Outcome[T], ...]:
        """The same for what only looks: always in threads, since a task run for each look would bury the changes."""
        return LOOKS.run(self._jobs(what, call, retries))

    def observe(self, *, urgent: bool = False) -> FleetState:
        """What every cloud reports now; a cloud that does not answer is named with its reason, never left out.

        When it is `urgent`, a cloud that hangs while others have answered is not waited for.
        """
        jobs = self._jobs(f"observe {self.model}", lambda cloud: cloud.observe(self.model), 0)
        outcomes = look(jobs) if urgent else LOOKS.run(jobs)
        return FleetState(
            self.model,
            tuple(outcome.value for outcome in outcomes if outcome.value is not None),
            {outcome.cloud: outcome.error.reason for outcome in outcomes if outcome.error is not None},
        )

    def _jobs(self, what: str, call: Callable[[Cloud], T], retries: int) -> list[Job[T]]:
        return [Job(cloud.name, f"{cloud.name}: {what}", _bind(call, cloud), retries) for cloud in self.clouds]

    def replicas(self, cloud: Cloud) -> Replicas:
        """The cloud's store."""
        return open_replicas(cloud)


def open_fleet(
    config: Config,
    model: str,
    *,
    clouds: Mapping[str, Cloud] | None = None,
    runner: Runner | None = None,
    observer: Observer | None = None,
    actor: str = "",
    via: str = "",
    alert: Mapping[str, str] | None = None,
) -> Fleet:
    """The fleet of a model as configured; opens no connection to a cloud yet.

    `clouds` are adapters that exist already (from Prefect blocks, or shared in a long-lived process), by name.
    Raises NotFoundError for a model that is not configured.
    """
    model_settings = config.model(model)
    settings = config.fleets[model_settings.fleet]
    given = clouds or {}
    adapters = [given.get(name) or config.clouds[name].connect(name) for name in settings.clouds]
    if settings.order == "cheapest":
        adapters.sort(key=lambda cloud: cloud.price_per_hour)  # stable: equal prices stay as listed
    keys = load_keys(config.keys, config.ledger.origin)
    return Fleet(
        model=model,
        clouds=tuple(adapters),
        registry=Registry(config.mlflow.tracking_uri, config.mlflow.timeout),
        ledger=open_ledger(config.ledger, keys),
        settings=settings,
        outcomes=model_settings.outcomes,
        probe=model_settings.probe,
        runner=runner or ThreadRunner(),
        observer=observer or (lambda event: None),
        actor=actor or default_actor(),
        via=via,
        alert=default_alert() if alert is None else alert,
        keys=keys,
        retention=timedelta(days=config.ledger.retention_days),
        owner=model_settings.owner,
        last_known=LastKnown(config.state_folder),
        mlflow_patience=config.mlflow.rollback_timeout,
    )


def open_replicas(cloud: Cloud, timeout: float = 30.0) -> Replicas:
    """The versions in a cloud's store; `timeout` is the seconds that one request may take, repetitions included."""
    address = cloud.store()
    return Replicas(cloud.name, address.url, address.options, address.client_options, address.credentials, timeout)


def default_actor() -> str:
    """Who runs this process, for the ledger: $LOCKSTEP_ACTOR (an alert: `alert:4711`), else the account's name."""
    try:
        return os.environ.get("LOCKSTEP_ACTOR") or getpass.getuser()
    except (OSError, KeyError):
        return f"uid {os.getuid()}"


def default_alert() -> Mapping[str, str]:
    """The alert for which this process runs: $LOCKSTEP_ACTOR names it, $LOCKSTEP_ALERTED_AT says when it was given."""
    kind, _, name = os.environ.get("LOCKSTEP_ACTOR", "").partition(":")
    if kind != "alert":
        return {}
    at = os.environ.get("LOCKSTEP_ALERTED_AT", "")
    return {"id": name, **({"at": at} if at else {})}


def _bind(call: Callable[[Cloud], T], cloud: Cloud) -> Callable[[], T]:
    return lambda: call(cloud)
