"""Vertex AI as a `Cloud`: one endpoint and one Vertex model per Lockstep model, one deployed model per slot."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar, Final

from lockstep.clouds.archive import Archive
from lockstep.clouds.base import Cloud, Row, StoreAddress
from lockstep.clouds.vertex import metrics, records
from lockstep.clouds.vertex.archive import GcsArchive
from lockstep.clouds.vertex.attest import attest_model, attest_slot
from lockstep.clouds.vertex.capture import find_captured
from lockstep.clouds.vertex.endpoints import Endpoints
from lockstep.clouds.vertex.permissions import ask
from lockstep.clouds.vertex.records import DeployedModel, EndpointRecord
from lockstep.clouds.vertex.registry import Registry
from lockstep.clouds.vertex.rest import Rest, delays, json_of, translate
from lockstep.clouds.vertex.sdk import Sdk
from lockstep.clouds.vertex.settings import VertexSettings
from lockstep.clouds.vertex.slots import Slots
from lockstep.errors import LockstepError, NotFoundError, RefusedError, RetryLaterError
from lockstep.rules.measurement import Answer, CapturedRequest, NativeVersion, SlotMetrics
from lockstep.rules.permissions import Permissions
from lockstep.rules.state import CloudState, Version
from lockstep.rules.traffic import TrafficSplit

#: Chance that a slot with traffic is not met by the bounded number of predictions of one `invoke`.
MISS: Final = 1e-6
MOST_PREDICTIONS: Final = 1000


class Vertex(Cloud):
    """Google Vertex AI with Cloud Storage and Cloud Monitoring, all over REST."""

    title: ClassVar[str] = "Google Vertex AI"
    #: A change of the split is one synchronous call; DeployModel takes many minutes.
    usual: ClassVar[Mapping[str, float]] = {"flip": 5.0, "deploy": 900.0}
    guide: ClassVar[str] = "docs/clouds.md#google-vertex-ai"

    def __init__(self, name: str, settings: VertexSettings) -> None:
        super().__init__(name, settings)
        self._settings = settings
        self._rest = Rest(name, settings.credentials_file, settings.call_timeout)
        self._endpoints = Endpoints(name, settings, self._rest)
        sdk = Sdk(self._rest, settings.host, settings.call_timeout)
        self._registry = Registry(name, settings, self._rest, sdk, self._endpoints)
        self._deployments = Slots(name, settings, self._rest, sdk, self._endpoints, self._registry)

    def store(self) -> StoreAddress:
        """The bucket; credentials are those of all other calls."""
        given = self._settings
        options: dict[str, str] = {}
        client_options: dict[str, object] = {"connect_timeout": f"{given.call_timeout:g}s"}
        if given.storage_endpoint is not None:
            options["base_url"] = given.storage_endpoint.rstrip("/")
            client_options["allow_http"] = given.storage_endpoint.startswith("http://")
        return StoreAddress(given.uri, given.uri, options, client_options, self._token)

    def archive(self) -> Archive | None:
        """A folder in the archive's bucket, through the same session as all other calls."""
        given = self._settings
        if not given.archive_bucket:
            return None
        return GcsArchive(
            self.name, given.storage, given.archive_bucket, given.archive_folder, self._rest, self._translated
        )

    def _token(self) -> dict[str, object]:
        with self._translated("get an access token for Cloud Storage"):
            return self._rest.token()

    def console_url(self, model: str) -> str:
        """The endpoint's page under Online prediction."""
        return self._endpoints.console_url(model)

    def _check(self) -> None:
        self._rest.call("GET", f"{self._settings.api}/{self._settings.parent}/endpoints", query={"pageSize": 1})

    def _permissions(self, models: Collection[str]) -> Permissions:
        return ask(self._rest, self._settings)

    def _observe(self, model: str) -> CloudState:
        record = self._endpoints.find(model)
        if record is None:
            return CloudState(self.name, self.endpoint(model), exists=False)
        running = self._endpoints.running(self._endpoints.url(model))
        stages = [str(operation.get("metadata", {}).get("deploymentStage", "UPDATING")) for operation in running]
        return self._state(model, record, self._endpoints.identity, stages)

    def _observe_many(self, models: Collection[str], known: Mapping[str, CloudState]) -> Mapping[str, CloudState]:
        found = self._endpoints.find_many(models)
        absent = {
            model: CloudState(self.name, self.endpoint(model), exists=False) for model in models if model not in found
        }
        look = self._endpoints.known_identity
        return {**absent, **{model: self._state(model, record, look, ()) for model, record in found.items()}}

    def _state(
        self,
        model: str,
        record: EndpointRecord,
        identity: Callable[[str, DeployedModel], tuple[str, str]],
        stages: Sequence[str],
    ) -> CloudState:
        weights = record.weights()
        return CloudState(
            cloud=self.name,
            endpoint=self.endpoint(model),
            exists=True,
            busy=bool(stages),
            status=", ".join(stages) or "READY",
            slots=tuple(
                records.slot_state(deployed, weights.get(slot, 0), *identity(model, deployed))
                for slot, deployed in record.slots()
            ),
            mark=record.etag,
        )

    def _registered(self, version: Version) -> NativeVersion | None:
        found = self._registry.find(version)
        return self._registry.native(found) if found is not None else None

    def _attest_record(self, version: Version, image: str) -> tuple[str, ...]:
        record = self._registry.find(version)
        if record is None:
            return (f"the model registry has no version of {version}",)
        return attest_model(record, version, image, f"{self._settings.uri}/{version.prefix}")

    def _attest_slot(self, version: Version, image: str) -> tuple[str, ...]:
        record, endpoint = self._registry.find(version), self._endpoints.find(version.model)
        return attest_slot(endpoint, version, record, self.endpoint(version.model)) if endpoint else ()

    def _register(self, version: Version, image: str) -> NativeVersion:
        deadline = time.monotonic() + self._settings.deploy_timeout
        return self._registry.native(self._registry.have(version, deadline, image))

    def _prepare(self, version: Version, image: str) -> None:
        self._deployments.prepare(version, image)

    def captured_ids(self) -> str:
        """Of headers nothing is logged; see `capture.py`."""
        return (
            "Vertex AI does not capture the caller's id: ask for the request_id that it logged itself, or for an id "
            "that was sent as a column of the rows"
        )

    def _captured(
        self, model: str, request_id: str, since: datetime, until: datetime
    ) -> tuple[CapturedRequest, ...] | None:
        record = self._endpoints.find(model)
        if record is None or not record.logging:
            return None
        slots = self._endpoints.slots(model)
        return find_captured(self._rest, self.name, self._settings, record.logging, slots, request_id, since, until)

    def _resize(self, model: str, slot: str, instances: int) -> None:
        self._deployments.resize(model, slot, instances)

    def _retire(self, model: str, slot: str) -> None:
        self._deployments.retire(model, slot)

    def _verify_traffic(self, model: str, split: TrafficSplit) -> bool | None:
        record = self._endpoints.find(model)
        if record is None or record.taking() != dict(split.weights):
            return False
        return None if self._endpoints.is_stale(model, record) else True

    def _set_traffic(self, model: str, split: TrafficSplit) -> None:
        record = self._endpoints.find(model)
        if record is None:
            raise NotFoundError(
                f"{model} has no endpoint {self.endpoint(model)}", hint="prepare a version first", cloud=self.name
            )
        wanted = self._by_id(model, split, record)
        # Without an etag: a way back must not wait for whoever changed the endpoint in between. The split is written
        # even where the record shows it already, since the record may be old.
        answer = self._rest.call(
            "PATCH",
            self._endpoints.url(model),
            query={"updateMask": "trafficSplit"},
            body={"trafficSplit": wanted},
        )
        self._endpoints.remember(model, records.read_endpoint(answer))
        deadline = time.monotonic() + self._settings.traffic_timeout
        for delay in delays():
            shown = self._endpoints.read(model)
            if shown.taking() == dict(split.weights) and not self._endpoints.is_stale(model, shown):
                return
            if time.monotonic() > deadline:
                raise RetryLaterError(
                    f"the cloud accepted traffic {split} for {model}, but its endpoint still shows {shown.taking()}",
                    hint=f"somebody else may be changing it; see {self.console_url(model)}, then repeat",
                    cloud=self.name,
                )
            time.sleep(delay)

    def _by_id(self, model: str, split: TrafficSplit, record: EndpointRecord) -> dict[str, int]:
        """The split by deployed-model id; raises RefusedError for a slot that cannot take requests."""
        wanted: dict[str, int] = {}
        for slot, weight in split.weights:
            deployed = record.find(slot)
            if deployed is None or not deployed.ready:
                state = "it is not deployed" if deployed is None else deployed.trouble
                there = ", ".join(name for name, _ in record.slots()) or "none"
                raise RefusedError(
                    f"{model} cannot send traffic to slot {slot}: {state}; slots there: {there}",
                    hint="prepare the version first",
                    cloud=self.name,
                )
            wanted[deployed.id] = weight
        return wanted

    def _measure(self, model: str, since: datetime, until: datetime) -> tuple[SlotMetrics, ...]:
        record = self._endpoints.find(model)
        if record is None:
            return ()
        counts = {deployed.id: metrics.Counts() for deployed in record.deployed}
        for metric, add in ((metrics.RESPONSES, metrics.add_responses), (metrics.LATENCIES, metrics.add_latencies)):
            query = {
                "filter": metrics.series_filter(metric, self._endpoints.id(model), self._settings.location),
                "interval.startTime": _timestamp(since),
                "interval.endTime": _timestamp(until),
            }
            add(self._rest.pages(self._settings.time_series, "timeSeries", query), counts)
        found = metrics.by_slot(counts, self._endpoints.slots(model))
        return tuple(
            SlotMetrics(self.name, slot, one.requests, one.errors, one.latency_mean, one.latency_p95)
            for slot, one in sorted(found.items())
        )

    def _invoke(self, model: str, rows: Sequence[Row], slot: str | None, request_id: str) -> Answer:
        request_id = request_id or uuid.uuid4().hex
        if slot is None:
            return self._predict(model, rows, request_id)
        # An endpoint routes by its traffic split alone: no header or field names a deployed model.
        weight = self._endpoints.read(model).weights().get(slot, 0)
        if weight == 0:
            raise RefusedError(
                f"slot {slot} of {model} takes no traffic, and Vertex AI cannot send one request to a chosen slot",
                hint="give the slot at least 1 per cent of the traffic first",
                cloud=self.name,
            )
        tries = _tries(weight)
        for _ in range(tries):
            answer = self._predict(model, rows, request_id)
            if answer.slot == slot:
                return answer
        raise RetryLaterError(
            f"none of {tries} predictions of {model} came from slot {slot}, which has {weight} % of the traffic",
            hint="the traffic may be moving at this moment; ask again",
            cloud=self.name,
        )

    def _predict(self, model: str, rows: Sequence[Row], request_id: str) -> Answer:
        began = time.perf_counter()
        answer = self._rest.send(
            "POST",
            f"{self._endpoints.url(model)}:predict",
            body={"instances": [dict(row) for row in rows]},
            headers={"X-Request-Id": request_id},
            repeatable=True,
        )
        latency = time.perf_counter() - began
        content = json_of(answer)
        metadata = content.get("metadata")
        named: Mapping[str, object] = metadata if isinstance(metadata, dict) else {}
        return Answer(
            cloud=self.name,
            slot=self._slot_of(model, str(content.get("deployedModelId", ""))),
            label=str(named.get("lockstep_version", "")),
            digest=str(named.get("lockstep_digest", "")),
            body=answer.content,
            request_id=request_id,
            latency=latency,
        )

    def _slot_of(self, model: str, deployed_id: str) -> str:
        known = self._endpoints.slots(model)
        if deployed_id and deployed_id not in known:
            self._endpoints.read(model)
            known = self._endpoints.slots(model)
        return known.get(deployed_id, "")

    def _translate(self, error: Exception, action: str) -> LockstepError | None:
        return translate(error, action, self.name)


def _tries(weight: int) -> int:
    """Predictions until a slot with `weight` per cent is met but for a chance of MISS, at most MOST_PREDICTIONS.

    At least 50 whatever the weight, since a split takes effect some time after it is shown.
    """
    needed = math.ceil(math.log(MISS) / math.log1p(-weight / 100)) if weight < 100 else 1
    return min(MOST_PREDICTIONS, max(50, needed))


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
