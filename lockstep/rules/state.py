"""What should serve (from MLflow) and what does serve (from each cloud), as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from lockstep.rules.traffic import TrafficSplit

CHAMPION: Final = "champion"  # should serve everywhere
CHALLENGER: Final = "challenger"  # the canary
FALLBACK: Final = "fallback"  # known-good, kept warm
#: Tags of a version in MLflow: why it must not serve, what its canary was judged, since when it is known to be good.
CONDEMNED_TAG: Final = "lockstep.condemned"
VERDICT_TAG: Final = "lockstep.verdict"
KNOWN_GOOD_TAG: Final = "lockstep.known-good"


@dataclass(frozen=True)
class Version:
    """One sealed version of a model: MLflow's number is its label, the manifest's digest its identity."""

    model: str
    label: str
    digest: str
    run_id: str = ""

    @property
    def slot(self) -> str:
        """Name of this version's slot on every cloud: at most 32 characters, letters, digits and dashes.

        It carries the start of the digest because MLflow's numbers begin again when a model is created anew.
        """
        return f"v{self.label}-{self.digest[:8]}"

    @property
    def prefix(self) -> str:
        """Folder of this version's bytes in every store, without slashes at its ends."""
        return f"models/{self.model}/{self.digest}"

    def __str__(self) -> str:
        return f"{self.model} {self.label} ({self.digest[:12]})"


@dataclass(frozen=True)
class SlotState:
    """One slot as its cloud reports it.

    `weight` is whole per cents of the endpoint's traffic; `ready` says that it can take requests now; `status` is
    the cloud's own word; `capacity` counts instances; `digest` and `label` are what was deployed, where known.
    """

    name: str
    weight: int
    ready: bool
    status: str
    capacity: int = 1
    label: str = ""
    digest: str = ""


@dataclass(frozen=True)
class CloudState:
    """One model's endpoint on one cloud. `busy` means that the cloud refuses changes at the moment.

    `mark` is another one whenever the endpoint was changed, as far as the cloud tells; "" where it tells nothing.
    """

    cloud: str
    endpoint: str
    exists: bool
    busy: bool = False
    status: str = ""
    slots: tuple[SlotState, ...] = ()
    mark: str = field(default="", compare=False)

    def slot(self, name: str) -> SlotState | None:
        """The slot of that name, if there is one."""
        return next((slot for slot in self.slots if slot.name == name), None)

    @property
    def split(self) -> TrafficSplit | None:
        """The traffic as a split; None while nothing takes any (or the cloud's numbers do not sum to 100)."""
        weights = {slot.name: slot.weight for slot in self.slots}
        return TrafficSplit.of(weights) if sum(weights.values()) == 100 else None


@dataclass(frozen=True)
class DesiredState:
    """What MLflow's aliases say: the champion serves, the challenger is tried, the fallback is kept warm."""

    model: str
    champion: Version | None
    challenger: Version | None = None
    fallback: Version | None = None


@dataclass(frozen=True)
class VersionRecord:
    """What is known of a version beside its bytes, each "" where there is nothing to say.

    `condemned` is why it must not serve, `known_good` the RFC 3339 time at which it earned that, `verdict` what its
    canary was judged.
    """

    version: Version
    condemned: str = ""
    known_good: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class ModelRecord:
    """All that MLflow says of a model: what should serve, its sealed versions oldest first, labels by alias."""

    desired: DesiredState
    versions: tuple[VersionRecord, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.desired.model

    def of(self, version: Version) -> VersionRecord:
        """The record of that digest; one that says nothing for a version that is not in it."""
        found = (one for one in self.versions if one.version.digest == version.digest)
        return next(found, VersionRecord(version))


@dataclass(frozen=True)
class FleetState:
    """One model on every cloud of its fleet; `unreachable` maps a cloud to why nothing is known of it."""

    model: str
    clouds: tuple[CloudState, ...]
    unreachable: Mapping[str, str]
