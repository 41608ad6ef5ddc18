"""A fleet on three simulated clouds with live traffic, for benchmarks of what happens to it."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests
import yaml

from demo.addresses import cloud_settings
from demo.model import load_data, train
from demo.names import CLOUDS, MODEL
from demo.processes import QUIET, Server, Servers, running
from demo.traffic_record import Request, TrafficRecord

if TYPE_CHECKING:
    from lockstep.config import Config
    from lockstep.operations.fleet import Fleet
    from lockstep.rules.state import Version

#: Seconds that a switch of traffic takes in the sandbox, by how it is called here. `real` are the sandbox's own
#: realistic delays (see sandbox/delays.py: two of the three are assumptions, since no vendor publishes them).
FLIPS: Final[Mapping[str, Mapping[str, float]]] = {
    "instant": {"aws.endpoint.weights": 0.0, "azure.endpoint.traffic": 0.0, "gcp.endpoint.traffic": 0.0},
    "real": {"aws.endpoint.weights": 15.0, "azure.endpoint.traffic": 20.0, "gcp.endpoint.traffic": 5.0},
}
NO_DELAYS: Final = "instant"
ROLLOUT: Final = {
    **{"steps": [100], "step_seconds": 0, "patience": 60, "look_every": 0.2, "min_requests": 3},
    "soak_seconds": 0,
}
SMALL: Final = "Standard_DS1_v2"  # one core: two versions of fifty models fit into Azure's quota
RATE: Final = 9.0  # requests a second and cloud


@dataclass(frozen=True)
class Switches:
    """What the sandbox's own clock says of one round: when each cloud's traffic changed, and how long it took."""

    seconds: Mapping[str, float]
    ended: Mapping[str, float]

    @property
    def slowest(self) -> float:
        """Seconds of the slowest cloud's own switch."""
        return max(self.seconds.values(), default=0.0)

    @property
    def window(self) -> float:
        """Seconds in which clouds served different versions: from the first cloud that had changed to the last."""
        return max(self.ended.values()) - min(self.ended.values()) if self.ended else 0.0


class Scene:
    """Servers, two versions of one model on three clouds, and traffic to them."""

    def __init__(self, servers: Servers, folder: Path) -> None:
        self.servers = servers
        self.folder = folder
        self.traffic = TrafficRecord(folder)
        self.control = ""
        self.versions: dict[str, Version] = {}

    # -- set-up ----------------------------------------------------------------------------------------------------

    def start(self, models: tuple[str, ...] = (MODEL,)) -> None:
        """Wait for the servers and write lockstep.yaml."""
        settings = self.servers.await_sandbox()
        self.control = str(settings["control"])
        self.flips(NO_DELAYS, everything=True)
        clouds = cloud_settings({name: settings[name] for name in CLOUDS})
        clouds["azure"]["instance_type"] = SMALL
        configuration = {
            "mlflow": {"tracking_uri": self.servers.mlflow_url},
            "ledger": str(self.folder / "ledger.db"),
            "keys": {"folder": str(self.folder / "keys")},
            "clouds": clouds,
            "fleets": {"default": {"clouds": list(CLOUDS), "rollout": ROLLOUT, "monitor": {}}},
            "models": {model: {"fleet": "default"} for model in models},
        }
        (self.folder / "lockstep.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")
        os.environ.update({**QUIET, **self.servers.environment})
        self.servers.await_mlflow()

    def config(self) -> Config:
        """The configuration as the product reads it."""
        from lockstep.config import load

        return load(self.folder / "lockstep.yaml")

    def fleet(self, model: str = MODEL) -> Fleet:
        """A fleet with connections of its own."""
        from lockstep.operations.fleet import open_fleet

        return open_fleet(self.config(), model, actor="machine:bench")

    def deploy_both(self) -> None:
        """v1 serves, then v2 takes its place by a rollout, so that v1 is the warm way back."""
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.ERROR)
        from lockstep.operations.canary import canary_deploy
        from lockstep.operations.register import register
        from lockstep.operations.replicate import replicate
        from lockstep.stores.keys import create_keys

        config, fleet = self.config(), self.fleet()
        create_keys(config.keys, config.ledger.origin, {})
        fleet = self.fleet()
        mlflow.set_tracking_uri(self.servers.mlflow_url)
        images = {cloud.name: cloud.image for cloud in fleet.clouds}
        data = load_data()
        for which in ("v1", "v3"):
            version = register(fleet.registry, MODEL, train(data, which), keys=fleet.keys, images=images)
            replicate(fleet, version)
            self.versions[which] = version
        canary_deploy(fleet, self.versions["v1"])
        with self.flowing():
            canary_deploy(fleet, self.versions["v3"])

    @contextlib.contextmanager
    def flowing(self) -> Iterator[Server]:
        """Live traffic to every endpoint."""
        load = self.servers.spawn("load", ["-m", "demo.load", str(self.folder), str(RATE)], self.servers.environment)
        self.traffic = TrafficRecord(self.folder)
        (self.folder / "requests.csv").unlink(missing_ok=True)

        def all_answer() -> bool:
            self.traffic.refresh()
            return {request.cloud for request in self.traffic.requests if request.ok} == set(CLOUDS)

        try:
            load.await_ready(all_answer)
            yield load
        finally:
            load.process.terminate()
            load.process.wait(timeout=30)
            self.traffic.refresh()

    # -- one round -------------------------------------------------------------------------------------------------

    def put_back(self, fleet: Fleet) -> None:
        """The newer version serves everywhere again, as if it had just been promoted."""
        from lockstep.errors import BusyError
        from lockstep.operations.condemn import lift
        from lockstep.operations.switch import move_all
        from lockstep.rules.state import CHAMPION, FALLBACK

        self.flips(NO_DELAYS)
        old, new = self.versions["v1"], self.versions["v3"]

        def lifted() -> bool:
            try:
                lift(fleet, new, "the next round of the benchmark")
            except BusyError:  # who rolled back has told the outcome, and is about to give the model back
                return False
            return True

        await_true(lifted, 30, "the end of the round before")
        fleet.registry.set_alias(new, CHAMPION)
        fleet.registry.set_alias(old, FALLBACK)
        result = move_all(fleet, new, fleet.observe(), CLOUDS, "the next round of the benchmark")
        assert not result.reasons, result.reasons

    def flips(self, which: str, *, everything: bool = False) -> None:
        """Set how long a switch of traffic takes; with `everything` all other delays go to zero."""
        changes = dict(FLIPS[which])
        if everything:
            table = requests.get(f"{self.control}/delays", timeout=10).json()
            changes = {**dict.fromkeys(table, 0.0), **changes}
        requests.put(f"{self.control}/delays", json=changes, timeout=10).raise_for_status()

    def switches(self, since: float) -> Switches:
        """The switches of traffic that the clouds made since a time (Unix seconds), by their own clock."""
        seconds: dict[str, float] = {}
        ended: dict[str, float] = {}
        for call in self.calls(since):
            if call["operation"] == "event:traffic":
                seconds[call["cloud"]] = max(seconds.get(call["cloud"], 0.0), call["seconds"])
                ended[call["cloud"]] = call["at"] + call["seconds"]
        return Switches(seconds, ended)

    def calls(self, since: float) -> list[dict[str, Any]]:
        """What the clouds were asked since a time (Unix seconds)."""
        return list(requests.get(f"{self.control}/calls", params={"since": since}, timeout=30).json())

    def requests_since(self, since: float) -> list[Request]:
        """Live requests since a time (Unix seconds)."""
        self.traffic.refresh()
        return [request for request in self.traffic.requests if request.at >= since]

    def verified(self, fleet: Fleet, since: float) -> float:
        """When the last cloud was verified on the target (Unix seconds), by the newest rollback in the ledger."""
        shifts = fleet.ledger.entries(fleet.model, "shift.outcome")
        body: Any = next(entry.body for entry in reversed(shifts) if entry.at >= since)
        assert not body["split"], body["split"]
        return max(datetime.fromisoformat(at).timestamp() for at in body["verified"].values())


@contextlib.contextmanager
def scene(models: tuple[str, ...] = (MODEL,)) -> Iterator[Scene]:
    """The servers and their folder; nothing is left of them afterwards."""
    with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as name, running(Path(name)) as servers:
        made = Scene(servers, Path(name))
        made.start(models)
        yield made


def await_true(holds: Any, timeout: float, what: str) -> None:
    """Poll until `holds()`; raises TimeoutError."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} not within {timeout:.0f} s")
        time.sleep(0.1)
