"""Many models rolled back at once: one incident, one process, as many threads as the agent has."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from bench.scene import Scene, scene
from demo.model import load_data, train
from demo.names import CLOUDS

if TYPE_CHECKING:
    from lockstep.operations.fleet import Fleet
    from lockstep.rules.state import Version

PATIENCE: Final = 180.0  # seconds for one step of setting up


@dataclass(frozen=True)
class Many:
    """`models` rolled back at once: seconds until all were verified, and calls to all clouds.

    `throttled` are those that were refused because a rate limit was exceeded.
    """

    models: int
    seconds: float
    calls: int
    throttled: int
    calls_by_cloud: dict[str, int]


def measure(sizes: Sequence[int]) -> list[Many]:
    """Set up the largest number of models, then roll back so many of them at once, at instant delays."""
    names = tuple(f"model-{number:03d}" for number in range(max(sizes)))
    found = []
    with scene(names) as on:
        fleets, versions = set_up(on, names)
        for size in sorted(sizes):
            print(f"{size} models at once", file=sys.stderr)
            found.append(roll_back(on, fleets[:size], versions))
    return found


def set_up(on: Scene, names: Sequence[str]) -> tuple[list[Fleet], dict[str, tuple[Version, Version]]]:
    """Two versions of each model, the newer one serving, the older one warm."""
    import mlflow

    from lockstep.operations.fleet import open_fleet
    from lockstep.operations.register import register
    from lockstep.operations.replicate import replicate
    from lockstep.stores.keys import create_keys

    config = on.config()
    create_keys(config.keys, config.ledger.origin, {})
    mlflow.set_tracking_uri(on.servers.mlflow_url)
    data = load_data()
    sources = [train(data, which) for which in ("v1", "v3")]
    clouds = {name: config.clouds[name].connect(name) for name in CLOUDS}
    images = {name: cloud.image for name, cloud in clouds.items()}
    fleets = [open_fleet(config, name, clouds=clouds, actor="machine:bench") for name in names]
    versions = {}
    for number, fleet in enumerate(fleets, 1):
        old, new = (register(fleet.registry, fleet.model, source, keys=fleet.keys, images=images) for source in sources)
        for version in (old, new):
            _patiently(partial(replicate, fleet, version))
            for cloud in fleet.clouds:
                _patiently(partial(cloud.prepare, version))
        versions[fleet.model] = (old, new)
        print(f"{number} of {len(fleets)} models are set up", file=sys.stderr)
    return fleets, versions


def _patiently(call: Callable[[], object]) -> None:
    """Again until a cloud's quota lets it: Vertex AI takes 60 long operations a minute and names no turn."""
    from lockstep.errors import LockstepError

    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            call()
        except LockstepError as error:
            if "Quota exceeded" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(2.0)
        else:
            return


def put_back(fleet: Fleet, old: Version, new: Version) -> None:
    """The newer version serves."""
    from lockstep.operations.condemn import lift
    from lockstep.operations.switch import move_all
    from lockstep.rules.state import CHAMPION, FALLBACK

    lift(fleet, new, "the next round of the benchmark")
    fleet.registry.set_alias(new, CHAMPION)
    fleet.registry.set_alias(old, FALLBACK)
    result = move_all(fleet, new, fleet.observe(), CLOUDS, "the next round of the benchmark")
    assert not result.reasons, result.reasons


def roll_back(on: Scene, fleets: Sequence[Fleet], versions: dict[str, tuple[Version, Version]]) -> Many:
    """All at once; the calls are those of the rollbacks alone."""
    from lockstep.agent.workers import MOST
    from lockstep.operations.rollback import rollback

    for fleet in fleets:
        put_back(fleet, *versions[fleet.model])
    began, clock = time.time(), time.monotonic()
    with ThreadPoolExecutor(max_workers=min(MOST, len(fleets))) as pool:
        done = list(pool.map(lambda fleet: rollback(fleet, reason="benchmark: one incident"), fleets))
    seconds = time.monotonic() - clock
    assert all(one.target == versions[fleet.model][0] for one, fleet in zip(done, fleets, strict=True))
    calls: list[dict[str, Any]] = [call for call in on.calls(began) if not call["operation"].startswith("event:")]
    by_cloud = Counter(str(call["cloud"]) for call in calls)
    throttled = sum(call["status"] == 429 or "hrottl" in call["detail"] for call in calls)
    return Many(len(fleets), round(seconds, 3), len(calls), throttled, dict(by_cloud))


def goals(found: Sequence[Many]) -> dict[str, bool]:
    """Time and calls a model grow no worse than linearly, and no rate limit is met."""
    held = {"no cloud's rate limit was exceeded": all(one.throttled == 0 for one in found)}
    small, large = found[0], found[-1]
    if large.models > small.models:
        held["calls per model do not grow"] = large.calls / large.models <= 1.1 * small.calls / small.models
        held["seconds grow no worse than linearly"] = large.seconds / large.models <= 1.1 * small.seconds / small.models
    return held


def show(found: Sequence[Many]) -> None:
    """The table, for people."""
    headings = ("models", "seconds", "s/model", "calls", "calls/model", "throttled")
    print("\n" + "".join(f"{heading:>12}" for heading in headings))
    for one in found:
        cells = (
            str(one.models), f"{one.seconds:.2f}", f"{one.seconds / one.models:.2f}", str(one.calls),
            f"{one.calls / one.models:.1f}", str(one.throttled),
        )  # fmt: skip
        print("".join(f"{cell:>12}" for cell in cells))
