"""Clouds for the contract suite: found by themselves, pointed at the sandbox, with real versions to work on.

A new cloud needs nothing here: its settings class is found in `lockstep.clouds`, and its sandbox is the one whose
printed settings satisfy that class.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, get_args

import obstore
from obstore.store import ObjectStore, from_url
from pydantic import ValidationError

import lockstep.clouds
from lockstep.clouds.base import Cloud, CloudSettings, StoreAddress
from lockstep.errors import LockstepError
from lockstep.rules.state import CloudState, Version
from lockstep.rules.traffic import TrafficSplit
from tests.sandbox_control import Control, RunningSandbox

LIMITS = {"call_timeout": 5.0, "deploy_timeout": 90.0, "traffic_timeout": 10.0}
#: what a fleet may have to wait for a cloud of this machine: seconds
PATIENCE = 30.0


def settings_classes() -> dict[str, type[CloudSettings]]:
    """Settings class by kind, for every cloud in the package."""
    for module in pkgutil.iter_modules(lockstep.clouds.__path__):
        importlib.import_module(f"lockstep.clouds.{module.name}")
    return {get_args(cls.model_fields["kind"].annotation)[0]: cls for cls in CloudSettings.__subclasses__()}


def sandbox_settings(
    kind: str, sandbox: RunningSandbox, **changes: object
) -> tuple[str, CloudSettings] | tuple[None, None]:
    """The sandbox's cloud that this kind is at home in, and settings for it; (None, None) when it does not run."""
    cls = settings_classes()[kind]
    for name, printed in sandbox.settings.items():
        if not isinstance(printed, dict):
            continue
        values = {key: value for key, value in printed.items() if key in cls.model_fields}
        try:
            return name, cls(**{**values, **LIMITS, **changes})
        except ValidationError:
            continue
    return None, None


def open_store(address: StoreAddress) -> ObjectStore:
    """obstore over what a cloud says of its store."""
    opened: ObjectStore = from_url(  # type: ignore[call-overload]
        address.url,
        config=dict(address.options),
        client_options=dict(address.client_options),
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
        credential_provider=address.credentials,
    )
    return opened


def eventually(holds: Callable[[], object], seconds: float = PATIENCE) -> bool:
    """Ask until it holds; False when it did not within the time. For what a cloud says late and announces nowhere."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not holds():
        if time.monotonic() > deadline:
            return False
        pause.wait(0.2)
    return True


@dataclass
class Subject:
    """One cloud under test, with a model of its own and two versions: `stable` and `canary`.

    `control` and `sandbox_cloud` are None against a real account: tests that break things are skipped there.
    """

    kind: str
    cloud: Cloud
    stable: Version
    canary: Version
    rows: list[dict[str, object]]
    objects: Mapping[str, Mapping[str, bytes]]
    control: Control | None = None
    sandbox_cloud: str | None = None
    first: CloudState | None = None
    second: CloudState | None = None
    _variants: list[Version] = field(default_factory=list)

    @property
    def model(self) -> str:
        """The model of all versions here."""
        return self.stable.model

    def upload(self, version: Version, objects: Mapping[str, bytes]) -> None:
        """Put a version's objects where replication puts them, the commit mark last."""
        store = open_store(self.cloud.store())
        for path, content in objects.items():
            obstore.put(store, f"{version.prefix}/{path}", content)
        obstore.put(store, f"{version.prefix}/COMMIT", version.digest.encode())

    def variant(self) -> Version:
        """One more uploaded version: the canary's files under a manifest, and so a digest, of its own."""
        number = len(self._variants) + 3
        objects = dict(self.objects[self.canary.digest])
        manifest = {**json.loads(objects["manifest.json"]), "source": uuid.uuid4().hex}
        objects["manifest.json"] = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        version = Version(self.model, str(number), hashlib.sha256(objects["manifest.json"]).hexdigest(), "c" * 32)
        self._variants.append(version)
        self.upload(version, objects)
        return version

    def observe(self) -> CloudState:
        """The endpoint now."""
        return self.cloud.observe(self.model)

    def have_both(self) -> None:
        """Both slots ready and everything on `stable`, by the public verbs; nothing else on the endpoint."""
        if self.first is None:
            self.cloud.register(self.stable)
            self.cloud.prepare(self.stable)
            self.first = self.observe()
        if self.second is None:
            self.cloud.register(self.canary)
            self.cloud.prepare(self.canary)
            self.second = self.observe()
        wanted = TrafficSplit.all_to(self.stable.slot)
        self.cloud.prepare(self.stable)
        self.cloud.prepare(self.canary)
        self.cloud.set_traffic(self.model, wanted)
        assert eventually(lambda: self.cloud.invoke(self.model, self.rows).slot == self.stable.slot)
        for slot in self.observe().slots:
            if slot.name not in (self.stable.slot, self.canary.slot):
                self.cloud.retire(self.model, slot.name)

    def give_back(self) -> None:
        """Remove what may be removed by the public verbs: the slot that serves, and its endpoint, stay."""
        for slot in self.observe().slots:
            if slot.weight == 0:
                self.cloud.retire(self.model, slot.name)

    @contextmanager
    def slow_deployments(self, seconds: float) -> Iterator[None]:
        """Deployments of this cloud take `seconds` longer while it lasts."""
        assert self.control is not None
        before = self.control.delays({})
        ours = {
            name: value
            for name, value in before.items()
            if name.startswith(f"{self.sandbox_cloud}.")
            and name.rpartition(".")[2] in ("deploy", "create", "update")
            and not name.endswith("endpoint.create")
        }
        self.control.delays({name: value + seconds for name, value in ours.items()})
        try:
            yield
        finally:
            self.control.delays(ours)


def breast_cancer_rows(count: int = 2) -> list[dict[str, object]]:
    """Rows that the test model takes, by column name."""
    from sklearn.datasets import load_breast_cancer

    frame, _ = load_breast_cancer(return_X_y=True, as_frame=True)
    frame = frame.rename(columns=lambda name: name.replace(" ", "_")).head(count)
    found: list[dict[str, Any]] = frame.to_dict("records")
    return [dict(row) for row in found]


class Load:
    """Requests from several threads for as long as the block lasts; `answers` and `failures` afterwards."""

    def __init__(self, subject: Subject, threads: int = 3) -> None:
        self._subject = subject
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        self.slots: list[str] = []
        self.failures: list[LockstepError] = []

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.slots.append(self._subject.cloud.invoke(self._subject.model, self._subject.rows).slot)
            except LockstepError as error:
                self.failures.append(error)
