"""What can go wrong with a cloud, with MLflow, with Prefect and with the clock, and what a rollback makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lockstep.errors import RetryLaterError
from lockstep.rules.traffic import TrafficSplit

if TYPE_CHECKING:
    from tests.integration.deployed import Deployed

#: The call by which each cloud is given its traffic.
FLIP: Final[Mapping[str, str]] = {
    "aws": "UpdateEndpointWeightsAndCapacities",
    "azure": "OnlineEndpoints_CreateOrUpdate",
    "gcp": "UpdateEndpoint",
}
TITLE: Final = {"aws": "SageMaker", "azure": "Azure ML", "gcp": "Vertex AI"}
LASTING: Final = 600.0  # seconds, longer than any run
HUNG: Final = 6.0  # seconds after which a hanging call is dropped: longer than the adapters wait for it
BUSY: Final = 15.0  # seconds that stand for minutes, beside a time limit that is as much smaller
FOLLOWS: Final = "done"
SPLIT: Final = "split"


@dataclass(frozen=True)
class Trouble:
    """One row of the table.

    `hit` are the clouds that it hits. `ending` is how a rollback under it must end: `done`, or `split` on those of the
    clouds that are `behind`. `begin` brings the trouble about before the rollback begins.
    """

    name: str
    hit: tuple[str, ...]
    ending: str
    begin: Callable[[Deployed], None]
    behind: tuple[str, ...] = ()
    changes: Mapping[str, object] = field(default_factory=dict)
    way: str = "call"

    def __str__(self) -> str:
        return "-".join(self.name.lower().replace(":", "").replace(",", "").split())


def troubles() -> tuple[Trouble, ...]:
    """Every row, in the table's order."""
    return (*_each_cloud(), *_two_at_once(), *_around())


def _each_cloud() -> Iterator[Trouble]:
    for cloud in FLIP:
        yield _lasting(cloud, "is down", "down", SPLIT)
        yield _lasting(cloud, "hangs", "hang", SPLIT, delay=HUNG)
        yield _lasting(cloud, "answers 500 to everything", "fail", SPLIT)
        yield _lasting(cloud, "throttles the first calls", "throttle", FOLLOWS, operation=FLIP[cloud], count=2)
        yield _lasting(cloud, "throttles everything", "throttle", SPLIT)
        yield _lasting(cloud, "shows an old state", "stale", SPLIT)
        yield _lasting(cloud, "reports success and does nothing", "ignore", SPLIT, operation=FLIP[cloud])
        yield _lasting(cloud, "does it and takes it back", "revert", SPLIT, operation=FLIP[cloud], count=1)
        yield _busy(cloud)


def _two_at_once() -> Iterator[Trouble]:
    def both(one: str, other: str, name: str, *kinds: tuple[str, Mapping[str, Any]]) -> Trouble:
        def begin(deployed: Deployed) -> None:
            for cloud, (kind, rest) in zip((one, other), kinds, strict=True):
                deployed.control.fault(cloud, kind, seconds=LASTING, **rest)

        return Trouble(f"{TITLE[one]} and {TITLE[other]}: {name}", (one, other), SPLIT, begin, (one, other))

    hang: tuple[str, Mapping[str, Any]] = ("hang", {"delay": HUNG})
    yield both("aws", "azure", "one is down, the other hangs", ("down", {}), hang)
    yield both("azure", "gcp", "one answers 500, the other throttles", ("fail", {}), ("throttle", {}))
    yield both("gcp", "aws", "both are down", ("down", {}), ("down", {}))

    def slow(deployed: Deployed) -> None:
        for cloud in ("aws", "gcp"):
            deployed.control.fault(cloud, "slow", seconds=LASTING, delay=0.5)

    yield Trouble("SageMaker and Vertex AI: every answer is half a second late", ("aws", "gcp"), FOLLOWS, slow)


def _around() -> Iterator[Trouble]:
    def nothing(deployed: Deployed) -> None:
        """The trouble is where the rollback runs."""

    def down(deployed: Deployed) -> None:
        deployed.control.fault("azure", "down", seconds=LASTING)

    nowhere = {"mlflow__tracking_uri": "http://127.0.0.1:1"}
    yield Trouble("MLflow is down", (), FOLLOWS, nothing, changes=nowhere)
    yield Trouble("MLflow and Azure ML are down", ("azure",), SPLIT, down, ("azure",), nowhere)
    yield Trouble("Prefect is down", (), FOLLOWS, nothing, way="command")
    yield Trouble("the clock is set back an hour in the middle", (), FOLLOWS, nothing, way="clock -3600")
    yield Trouble("the clock jumps an hour ahead in the middle", (), FOLLOWS, nothing, way="clock 3600")


def _lasting(cloud: str, name: str, kind: str, ending: str, **rest: Any) -> Trouble:
    def begin(deployed: Deployed) -> None:
        deployed.control.fault(cloud, kind, **({} if "count" in rest else {"seconds": LASTING}), **rest)

    return Trouble(f"{TITLE[cloud]} {name}", (cloud,), ending, begin, (cloud,) if ending == SPLIT else ())


def _busy(cloud: str) -> Trouble:
    """An earlier change of traffic is under way there, and stays so for longer than a shift may take.

    Vertex AI takes the next change at once, and takes its time with each.
    """

    def begin(deployed: Deployed) -> None:
        if cloud == "gcp":
            deployed.control.fault(cloud, "busy", operation=FLIP[cloud], delay=BUSY, seconds=LASTING)
            return
        deployed.control.fault(cloud, "busy", operation=FLIP[cloud], delay=BUSY, count=1)
        impatient = deployed.changed(**{f"clouds__{cloud}__traffic_timeout": 1.0})
        with contextlib.suppress(RetryLaterError):  # it is accepted, and lasts
            impatient.cloud(cloud).set_traffic(
                deployed.model, TrafficSplit.of({deployed.v2.slot: 99, deployed.v1.slot: 1})
            )

    return Trouble(f"{TITLE[cloud]} takes minutes for a change", (cloud,), SPLIT, begin, (cloud,))
