"""One model with two versions, deployed on all clouds of the sandbox: made once, put back in order by each test.

`v2` is the champion and serves everything; `v1` is the fallback and warm, so that the way back is a weight flip.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lockstep.config import Config, parse
from lockstep.operations.canary import canary_deploy
from lockstep.operations.fleet import Fleet
from lockstep.operations.journal import record, sealed
from lockstep.operations.probe import wait_until_serving, with_probe
from lockstep.operations.replicate import replicate
from lockstep.rules.state import (
    CHALLENGER,
    CHAMPION,
    CONDEMNED_TAG,
    FALLBACK,
    KNOWN_GOOD_TAG,
    VERDICT_TAG,
    FleetState,
    Version,
)
from lockstep.rules.traffic import TrafficSplit
from tests.integration.fleets import configure, opened, registered, save_model, unique
from tests.sandbox_control import Control, RunningSandbox

#: How the clouds' operations that change nothing are called in the sandbox's record (which leaves out objects).
READ = re.compile(
    r"(Describe|Get|List|Head)\w+|\w+_(Get|List|ListKeys|ListByResourceGroup|Batch)|storage\.\w+\.get|Token|OpenIdConfiguration|\w+Status"
)


@dataclass(frozen=True)
class Shown:
    """Everything that could have changed: MLflow's aliases and tags, and what each cloud reports."""

    aliases: Mapping[str, str]
    tags: Mapping[str, Mapping[str, str]]
    clouds: FleetState


@dataclass(frozen=True)
class Deployed:
    """`folder` holds lockstep.yaml, the ledger, and outcomes.csv, which the model's outcomes are read from."""

    model: str
    fleet: Fleet
    folder: Path
    v1: Version
    v2: Version
    v3: Version
    sandbox: RunningSandbox

    @property
    def control(self) -> Control:
        """To make the clouds fail."""
        return self.sandbox.control

    @property
    def config(self) -> Path:
        """The file."""
        return self.folder / "lockstep.yaml"

    @property
    def outcomes(self) -> Path:
        """Where the model's outcomes are read from."""
        return self.folder / "outcomes.csv"

    @property
    def clouds(self) -> tuple[str, ...]:
        """Names, in rollout order."""
        return tuple(cloud.name for cloud in self.fleet.clouds)

    def changed(self, **changes: object) -> Fleet:
        """The fleet under a configuration with other values; a key is a path such as `clouds__aws__bucket`."""
        return opened(self.changed_config(**changes), self.model)

    def other_model(self) -> Fleet:
        """A fleet of a model that does not exist yet, in the same places: what a test registers for good goes there."""
        model = unique("other")
        return opened(self.changed_config(models={model: {}}), model)

    def changed_config(self, **changes: object) -> Config:
        """The configuration with other values, None to leave one out."""
        return parse(self.changed_text(**changes), "lockstep.yaml", {})

    def changed_text(self, **changes: object) -> str:
        """As `changed_config`, as the file's text."""
        data = yaml.safe_load(self.config.read_text())
        for path, value in changes.items():
            *parents, last = path.split("__")
            place: dict[str, Any] = data
            for parent in parents:
                place = place[parent]
            if value is None:
                place.pop(last, None)
            else:
                place[last] = value
        return yaml.safe_dump(data, sort_keys=False)

    def show(self) -> Shown:
        """What MLflow and the clouds show now."""
        state = self.fleet.observe()
        assert not state.unreachable, state.unreachable
        return Shown(self._aliases(), self._tags(), state)

    def _aliases(self) -> dict[str, str]:
        model = self.fleet.registry.named(lambda names: names.get_registered_model(self.model))
        return {alias: str(label) for alias, label in model.aliases.items()}

    def _tags(self) -> dict[str, Mapping[str, str]]:
        """Of the three versions, by number, in one call."""
        wanted = f"name='{self.model}'"
        found = self.fleet.registry.named(lambda names: names.search_model_versions(wanted, 200, None))
        tags = {str(one.version): dict(one.tags) for one in found}
        return {version.label: tags[version.label] for version in (self.v1, self.v2, self.v3)}

    def answers(self) -> dict[str, str]:
        """The digest that really answers, by cloud."""
        fleet = with_probe(self.fleet, self.v1)
        found = {}
        for cloud in fleet.clouds:
            digests = {cloud.invoke(self.model, fleet.probe).digest for _ in range(3)}
            assert len(digests) == 1, f"{cloud.name} answers from {digests}"
            found[cloud.name] = digests.pop()
        return found

    def everywhere(self, version: Version) -> dict[str, str]:
        """What `answers` gives when all clouds serve the version."""
        return dict.fromkeys(self.clouds, version.digest)

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Assert that the block changes nothing: not MLflow, no cloud's state, and not what answers."""
        before = self.show()
        yield
        self.control.clear()
        assert self.show() == before
        assert self.answers() == self.everywhere(self.v2)

    @contextlib.contextmanager
    def only_reads(self) -> Iterator[None]:
        """Assert that the clouds are asked for nothing but reads in the block."""
        since = time.time()
        yield
        asked = {(call["cloud"], call["operation"]) for call in self.control.calls(since=since)}
        assert {cloud for cloud, _ in asked} <= set(self.clouds)
        writes = sorted(f"{cloud} {operation}" for cloud, operation in asked if not READ.fullmatch(operation))
        assert writes == []

    def configured(self, path: Path, **changes: object) -> Path:
        """Write the changed configuration to `path` and give it back."""
        path.write_text(self.changed_text(**changes))
        return path

    def write_outcomes(self, version: Version, good: int, bad: int) -> None:
        """Outcomes of a version on every cloud, as of now."""
        now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
        lines = ["time,request_id,cloud,version,value"]
        for cloud in self.clouds:
            lines += [f"{now},{cloud}-{i},{cloud},{version.label},{int(i < good)}" for i in range(good + bad)]
        self.outcomes.write_text("\n".join(lines) + "\n")

    def restore(self) -> None:
        """No faults, no outcomes; v2 serves, v1 is warm, nothing else is there."""
        self.control.clear()
        self.outcomes.unlink(missing_ok=True)
        registry = self.fleet.registry
        fleet = with_probe(self.fleet, self.v2)
        split = TrafficSplit.all_to(self.v2.slot)
        # As if v2 had been deployed again: a rollback a moment ago would keep the next one where it led.
        self.fleet.ledger.append(unique("restored"), "canary_deploy.outcome", self.model, "test", {})

        for version in (self.v1, self.v2, self.v3):  # what a test condemned is taken back in the ledger, too
            body = {"version": version.label, "digest": version.digest, "error": ""}
            self.fleet.ledger.append(unique("restored"), "lift.outcome", self.model, "test", body)

        def put_back(cloud: Any) -> None:
            state = cloud.observe(self.model)
            for version in (self.v1, self.v2):
                slot = state.slot(version.slot)
                if slot is None or not slot.ready:
                    cloud.prepare(version)
            if state.split != split:
                cloud.set_traffic(self.model, split)
            wait_until_serving(cloud, self.model, split, self.v2, fleet.probe, cloud.traffic_timeout)
            for slot in state.slots:
                if slot.name not in (self.v1.slot, self.v2.slot):
                    cloud.retire(self.model, slot.name)

        failed = [outcome.error for outcome in fleet.on_each("put back", put_back) if outcome.error is not None]
        assert not failed, failed
        aliases = self._aliases()
        for version, alias in ((self.v2, CHAMPION), (self.v1, FALLBACK)):
            if aliases.get(alias) != version.label:
                registry.set_alias(version, alias)
        if CHALLENGER in aliases:
            registry.delete_alias(self.model, CHALLENGER)
        for label, tags in self._tags().items():
            for tag in {CONDEMNED_TAG, KNOWN_GOOD_TAG, VERDICT_TAG} & set(tags):
                registry.client.delete_model_version_tag(self.model, label, tag)


def deploy_two(sandbox: RunningSandbox, mlflow: str, folder: Path) -> Deployed:
    """Register v1, v2 and v3, replicate them, and deploy v1 and v2; v3 waits for a rollout."""
    model = unique("deployed")
    fleet = opened(configure(sandbox, mlflow, folder, model), model)
    v1 = registered(fleet, save_model(folder / "v1"))
    v2 = registered(fleet, save_model(folder / "v2", regularisation=0.5))
    v3 = registered(fleet, save_model(folder / "v3", regularisation=0.2))
    for version in (v1, v2, v3):
        with record(fleet, "register", None) as outcome:  # as the command line registers them
            outcome.update(sealed(version, fleet.registry.manifest(version)))
        replicate(fleet, version)
    canary_deploy(fleet, v1)
    made = Deployed(model, fleet, folder, v1, v2, v3, sandbox)
    made.restore()
    return made


@dataclass(frozen=True)
class Ended:
    """How the command line ended, and what it wrote."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document that standard output holds; fails for anything before or after it."""
        return json.loads(self.out)


def lockstep(*arguments: str | Path, config: Path | None = None) -> Ended:
    """Run the command line in this process, as its entry point does."""
    from lockstep import cli

    out, err = io.StringIO(), io.StringIO()
    before, status = sys.argv, 0
    sys.argv = ["lockstep", *(["--config", str(config)] if config else []), *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else 1
    finally:
        sys.argv = before
    return Ended(status, out.getvalue(), err.getvalue())
