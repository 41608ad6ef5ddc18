"""The verbs of a cloud. One file beside this one speaks to one vendor; they never import each other.

A public verb is idempotent: asked twice, it does once. It raises only errors of `lockstep.errors`: adapters implement
the underscored method and translate their vendor's errors in one place, `_translate`.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from lockstep.clouds.archive import Archive
from lockstep.errors import LockstepError
from lockstep.rules.capacity import Least
from lockstep.rules.measurement import Answer, CapturedRequest, NativeVersion, SlotMetrics
from lockstep.rules.permissions import Permissions
from lockstep.rules.state import CloudState, Version
from lockstep.rules.traffic import TrafficSplit

Row = Mapping[str, object]


@dataclass(frozen=True)
class StoreAddress:
    """Where a cloud keeps the bytes: an obstore URL (`s3://bucket/prefix`) and what is needed to open it.

    `options` are obstore's configuration keys, `client_options` its HTTP client's, `credentials` an obstore
    credential provider or None. `uri` is the same place as the cloud's own services name it.
    """

    url: str
    uri: str
    options: Mapping[str, str] = field(default_factory=dict)
    client_options: Mapping[str, object] = field(default_factory=dict)
    credentials: Callable[[], object] | None = None


class CloudSettings(BaseModel):
    """What every cloud's settings have; the vendor's own fields stand in its own file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image: Annotated[str, Field(description="Serving image, pinned by digest (repository@sha256:…).")]
    instance_count: Annotated[int, Field(ge=1, description="Instances per slot.")] = 1
    fallback_instances: Annotated[
        int, Field(ge=1, description="Instances that the fallback's slot keeps at least, for the way back.")
    ] = 1
    price_per_hour: Annotated[
        float, Field(ge=0, description="Price of one instance per hour, to find the cheapest cloud.")
    ] = 0.0
    endpoint_name: Annotated[
        str,
        Field(
            description="Name of a model's endpoint; {model} stands for the model.", pattern=r"^[^{}]*\{model\}[^{}]*$"
        ),
    ] = "{model}"
    archive_folder: Annotated[
        str, Field(min_length=1, description="Folder in the archive; every ledger needs one of its own.")
    ] = "ledger"
    call_timeout: Annotated[float, Field(gt=0, description="Seconds that one call to the cloud may take.")] = 10.0
    deploy_timeout: Annotated[float, Field(gt=0, description="Seconds that a slot may take to get ready.")] = 2700.0
    traffic_timeout: Annotated[float, Field(gt=0, description="Seconds that a shift of traffic may take.")] = 60.0

    def connect(self, name: str) -> Cloud:
        """The adapter for these settings; `name` is what the fleet calls this cloud. Opens no connection yet."""
        raise NotImplementedError


class Cloud(ABC):
    """One account, region and store of one vendor. `name` is the key under `clouds:` in lockstep.yaml."""

    #: What a person calls it: "Amazon SageMaker".
    title: ClassVar[str]
    #: Seconds that a flip of traffic and the deployment of a slot usually take there.
    usual: ClassVar[Mapping[str, float]]
    #: Where it says what must exist there and what to grant.
    guide: ClassVar[str]

    def __init__(self, name: str, settings: CloudSettings) -> None:
        self.name = name
        self._common = settings

    # -- facts -------------------------------------------------------------------------------------------------

    @property
    def price_per_hour(self) -> float:
        """Price of one instance per hour, as configured."""
        return self._common.price_per_hour

    @property
    def least(self) -> Least:
        """Instances that slots must have at least, as configured."""
        return Least(self._common.instance_count, self._common.fallback_instances)

    @property
    def image(self) -> str:
        """Serving image, as configured."""
        return self._common.image

    @property
    def traffic_timeout(self) -> float:
        """Seconds that a shift of traffic may take, read-back included, as configured."""
        return self._common.traffic_timeout

    def endpoint(self, model: str) -> str:
        """Name of the model's endpoint here."""
        return self._common.endpoint_name.format(model=model)

    def usual_seconds(self, what: Literal["flip", "deploy"]) -> float:
        """Seconds that it usually takes there, for as long as nothing was measured."""
        return self.usual[what]

    def meanwhile(self, model: str, slot: str) -> str:
        """How callers reach a slot that is ready while the traffic cannot be moved to it; "" where they cannot."""
        return ""

    def captured_ids(self) -> str:
        """By which ids captured requests are found where the caller's own is not captured; "" where it is."""
        return ""

    @abstractmethod
    def store(self) -> StoreAddress:
        """Where this cloud keeps versions' bytes."""

    @abstractmethod
    def archive(self) -> Archive | None:
        """Where this cloud keeps copies of the ledger; None when it keeps none. Opens no connection yet."""

    @abstractmethod
    def console_url(self, model: str) -> str:
        """Page of the model's endpoint in the vendor's console."""

    # -- looking -----------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Prove that credentials and addresses work with one cheap read; raises the error that any verb would."""
        with self._translated("check the connection"):
            self._check()

    def permissions(self, models: Collection[str] = ()) -> Permissions:
        """What these settings need to be allowed there, and what of it the cloud says that the caller is.

        `models` are those that will be worked on, for clouds that grant by name. The cloud is asked by its own way to
        ask; nothing is tried. What the caller may not ask about is told as "cannot tell".
        """
        with self._translated("ask which permissions are granted"):
            return self._permissions(frozenset(models))

    def observe(self, model: str) -> CloudState:
        """The endpoint, its slots and their traffic, as the cloud reports them now. Light and quick."""
        with self._translated(f"observe {model}"):
            return self._observe(model)

    def observe_many(
        self, models: Collection[str], known: Mapping[str, CloudState] | None = None
    ) -> Mapping[str, CloudState]:
        """The endpoints of many models by few calls: a first look, to find those that need a closer one.

        `known` are states that were seen before, by model: where the cloud's list shows that nothing was changed since
        (`CloudState.mark`), they are taken as they are. What a list leaves out may be missing: a slot's digest, and
        whether an endpoint is busy.
        """
        with self._translated("observe its endpoints"):
            return self._observe_many(frozenset(models), known or {})

    def registered(self, version: Version) -> NativeVersion | None:
        """The version in the cloud's own registry, matched by digest; None when it is not there."""
        with self._translated(f"look up {version}"):
            return self._registered(version)

    def attest(self, version: Version, image: str = "") -> tuple[str, ...]:
        """What the cloud's own record of the version, and the definition of its slot, have otherwise than as written.

        One sentence a difference, empty for records that are as Lockstep wrote them; a version that is not registered
        is a difference, one without a slot is none. `image` is the reference that the manifest pins for this cloud,
        and empty where it pins none: images are not compared then, since the configured one may have changed since.
        Looks only.
        """
        with self._translated(f"attest {version}"):
            return self._attest_record(version, image) + self._attest_slot(version, image)

    def attest_slot(self, version: Version, image: str = "") -> tuple[str, ...]:
        """The part of `attest` that is about the version's slot: differences that a slot made anew has not."""
        with self._translated(f"attest slot {version.slot} of {version}"):
            return self._attest_slot(version, image)

    def verify_traffic(self, model: str, split: TrafficSplit) -> bool | None:
        """Whether the cloud's own record shows exactly this split: True, False, or None for "cannot tell yet"."""
        with self._translated(f"verify the traffic of {model}"):
            return self._verify_traffic(model, split)

    def measure(self, model: str, since: datetime, until: datetime) -> tuple[SlotMetrics, ...]:
        """Counts of each slot between two aware times, from the cloud's metrics (minute grain, minutes late)."""
        with self._translated(f"measure {model}"):
            return self._measure(model, since, until)

    def invoke(self, model: str, rows: Sequence[Row], *, slot: str | None = None, request_id: str = "") -> Answer:
        """One prediction over `rows` (records by column name); `slot` overrides the traffic split.

        A cloud that routes by the split alone (Vertex AI) answers with `slot` by asking a bounded number of times until
        the slot meets the request, counting each time in its metrics, and raises RefusedError for a slot without
        traffic.
        """
        with self._translated(f"invoke {model}"):
            return self._invoke(model, rows, slot, request_id)

    def captured(
        self, model: str, request_id: str, since: datetime, until: datetime
    ) -> tuple[CapturedRequest, ...] | None:
        """Requests with this id between two aware times, as the cloud itself captured them, oldest first.

        None says that there is nothing to look through: this cloud captures nothing, by its settings or because the
        endpoint does not (yet). Captures come minutes late, and a share of the requests may be captured only, so that
        none is found proves nothing. Raises RefusedError when the time holds too much to look through.
        """
        with self._translated(f"look for a captured request of {model}"):
            return self._captured(model, request_id, since, until)

    # -- changing ----------------------------------------------------------------------------------------------

    def register(self, version: Version, image: str = "") -> NativeVersion:
        """Register the replicated bytes natively, with label, digest and run id on the record.

        `image` is the serving image that the version was sealed with; empty means the configured one.
        """
        with self._translated(f"register {version}"):
            return self._register(version, image or self.image)

    def prepare(self, version: Version, image: str = "") -> None:
        """Have the version's slot ready to serve, taking no traffic (unless it is the endpoint's only one).

        `image` is as in `register`. A slot that is there already stays as it is, whatever its image.
        Creates the endpoint if there is none. Returns when the slot is ready; raises DeploymentFailedError with the
        cloud's reason when it does not become so, BusyError when the cloud is in the middle of another change.
        """
        with self._translated(f"prepare {version}"):
            self._prepare(version, image or self.image)

    def set_traffic(self, model: str, split: TrafficSplit) -> None:
        """Move the traffic; returns when the cloud reports it done. Every named slot must be ready."""
        with self._translated(f"set the traffic of {model}"):
            self._set_traffic(model, split)

    def resize(self, model: str, slot: str, instances: int) -> None:
        """Give a slot that many instances; returns when the cloud reports them (minutes). Traffic stays as it is."""
        with self._translated(f"resize {slot} of {model}"):
            self._resize(model, slot, instances)

    def retire(self, model: str, slot: str) -> None:
        """Remove a slot that takes no traffic, and what only it used. Refused while it has traffic."""
        with self._translated(f"retire {slot} of {model}"):
            self._retire(model, slot)

    # -- for adapters ------------------------------------------------------------------------------------------

    @abstractmethod
    def _check(self) -> None: ...

    @abstractmethod
    def _permissions(self, models: Collection[str]) -> Permissions: ...

    @abstractmethod
    def _observe(self, model: str) -> CloudState: ...

    def _observe_many(self, models: Collection[str], known: Mapping[str, CloudState]) -> Mapping[str, CloudState]:
        """A cloud whose lists tell more than names overrides this."""
        return {model: self._observe(model) for model in sorted(models)}

    @abstractmethod
    def _registered(self, version: Version) -> NativeVersion | None: ...

    @abstractmethod
    def _attest_record(self, version: Version, image: str) -> tuple[str, ...]: ...

    @abstractmethod
    def _attest_slot(self, version: Version, image: str) -> tuple[str, ...]: ...

    @abstractmethod
    def _verify_traffic(self, model: str, split: TrafficSplit) -> bool | None: ...

    @abstractmethod
    def _measure(self, model: str, since: datetime, until: datetime) -> tuple[SlotMetrics, ...]: ...

    @abstractmethod
    def _invoke(self, model: str, rows: Sequence[Row], slot: str | None, request_id: str) -> Answer: ...

    def _captured(
        self, model: str, request_id: str, since: datetime, until: datetime
    ) -> tuple[CapturedRequest, ...] | None:
        """A cloud that can capture overrides this."""
        return None

    @abstractmethod
    def _register(self, version: Version, image: str) -> NativeVersion: ...

    @abstractmethod
    def _prepare(self, version: Version, image: str) -> None: ...

    @abstractmethod
    def _set_traffic(self, model: str, split: TrafficSplit) -> None: ...

    @abstractmethod
    def _resize(self, model: str, slot: str, instances: int) -> None: ...

    @abstractmethod
    def _retire(self, model: str, slot: str) -> None: ...

    @abstractmethod
    def _translate(self, error: Exception, action: str) -> LockstepError | None:
        """The Lockstep error that a vendor's error means; None for one that is a programming error."""

    @contextlib.contextmanager
    def _translated(self, action: str) -> Iterator[None]:
        try:
            yield
        except LockstepError:
            raise
        except Exception as error:
            translated = self._translate(error, action)
            if translated is None:
                raise
            raise translated from error
