"""A configured model over the sandbox's clouds and a real MLflow, with live traffic, for tests of operations."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from demo.addresses import cloud_settings
from demo.model import Data, load_data
from lockstep.config import Config, parse
from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet, open_fleet
from lockstep.operations.register import register
from lockstep.rules.state import Version
from lockstep.stores.keys import create_keys
from tests.sandbox_control import RunningSandbox

ROLLOUT = {
    **{"steps": [50, 100], "step_seconds": 0, "patience": 40, "look_every": 0.2, "min_requests": 24},
    "soak_seconds": 0,
}


def configure(
    sandbox: RunningSandbox, mlflow: str, folder: Path, model: str, *, archives: bool = False, **fleet: object
) -> Config:
    """lockstep.yaml in `folder` for one model on all clouds of the sandbox; written, and read back as a user's is.

    The clouds keep copies of the ledger with `archives` alone: bringing up three after every operation costs seconds.
    """
    clouds = cloud_settings(
        {name: sandbox.settings[name] for name in ("aws", "azure", "gcp") if name in sandbox.settings}
    )
    for settings in clouds.values():
        # The sandbox is shared by tests with a ledger each.
        settings.update(call_timeout=5.0, deploy_timeout=90.0, traffic_timeout=10.0, archive_folder=uuid.uuid4().hex)
        if not archives:
            settings.pop("archive_bucket", None)
            settings.pop("archive_container", None)
    data = {
        "mlflow": {"tracking_uri": mlflow, "timeout": 10},
        "ledger": str(folder / "ledger.db"),
        "keys": {"folder": str(folder / "keys")},
        "clouds": clouds,
        "fleets": {
            "default": {
                "clouds": list(clouds),
                "rollout": ROLLOUT,
                "monitor": {"window": 300, "min_requests": 20, "max_bad_outcomes": 0.2},
                **fleet,
            }
        },
        "models": {model: {"outcomes": {"kind": "file", "path": str(folder / "outcomes.csv")}}},
    }
    text = yaml.safe_dump(data, sort_keys=False)
    (folder / "lockstep.yaml").write_text(text)
    config = parse(text, "lockstep.yaml", {})
    create_keys(config.keys, config.ledger.origin, {})
    return config


def unique(name: str) -> str:
    """A model name that no other test uses."""
    return f"{name}-{uuid.uuid4().hex[:6]}"


def save_model(folder: Path, scale: float = 1.0, regularisation: float = 1.0) -> str:
    """A local MLflow model folder, as a data scientist would leave it; `scale` is a feature's silent fault."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from demo.locks import environment_lock, pinned_requirements

    data = load_data()
    rows = data.train.assign(worst_area=data.train["worst_area"] * scale, mean_area=data.train["mean_area"] * scale)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=regularisation, max_iter=2000))
    model.fit(rows, data.train_labels)
    mlflow.sklearn.save_model(
        model,
        str(folder),
        signature=infer_signature(rows, model.predict(rows)),
        pip_requirements=pinned_requirements(),
        serialization_format="cloudpickle",
    )
    (folder / "requirements.lock").write_text(environment_lock())
    return str(folder)


@dataclass
class Traffic:
    """Live requests to every cloud of a fleet; writes outcomes where the fleet's configuration reads them."""

    fleet: Fleet
    outcomes: Path
    data: Data = field(default_factory=load_data)
    answers: list[tuple[str, str]] = field(default_factory=list)  # cloud, digest
    problems: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def flowing(self, pause: float = 0.1) -> Iterator[Traffic]:
        """Send from one thread a cloud until the block ends."""
        self.outcomes.write_text("time,request_id,cloud,version,value\n")
        threads = [threading.Thread(target=self._ask, args=(cloud, pause)) for cloud in self.fleet.clouds]
        for thread in threads:
            thread.start()
        try:
            yield self
        except BaseException as error:  # what was answered meanwhile mostly says why
            seen = ", ".join(f"{cloud} {digest[:12]}: {n}" for (cloud, digest), n in Counter(self.answers).items())
            error.add_note(f"answers: {seen or 'none'}; last problems: {self.problems[-3:]}")
            raise
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, cloud: Any, pause: float) -> None:
        rows = [{str(name): value for name, value in row.items()} for row in self.data.live.to_dict("records")]
        labels = list(self.data.live_labels)
        for which in itertools.cycle(range(len(rows))):
            if self.stop.wait(pause):
                return
            try:
                answer = cloud.invoke(self.fleet.model, [rows[which]], request_id=str(uuid.uuid4()))
            except LockstepError as error:
                self.problems.append(str(error))
                continue
            right = int(json.loads(answer.body)["predictions"][0] == labels[which])
            with self._lock, self.outcomes.open("a") as stream:
                self.answers.append((cloud.name, answer.digest))
                request_id = answer.request_id or uuid.uuid4()
                now = datetime.now(UTC).isoformat()
                stream.write(f"{now},{request_id},{cloud.name},{answer.slot},{right}\n")


def wait_for_requests(traffic: Traffic, more: int, timeout: float = 60.0) -> None:
    """Return when `more` further requests were answered."""
    wanted = len(traffic.answers) + more
    deadline = time.monotonic() + timeout
    while len(traffic.answers) < wanted:
        assert time.monotonic() < deadline, f"{len(traffic.answers)} of {wanted} requests after {timeout} s"
        time.sleep(0.05)


def registered(fleet: Fleet, source: str, **facts: Any) -> Version:
    """A version of the fleet's model, sealed as the command line does it."""
    images = {cloud.name: cloud.image for cloud in fleet.clouds}
    return register(fleet.registry, fleet.model, source, keys=fleet.keys, images=images, **facts)


def opened(config: Config, model: str, **rest: Any) -> Fleet:
    """The fleet of a model."""
    return open_fleet(config, model, **rest)
