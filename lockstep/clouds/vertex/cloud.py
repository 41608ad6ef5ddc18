"""The verbs on Vertex AI: one endpoint and one Vertex model per Lockstep model, one deployed model per slot."""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar, Final, Literal
from urllib.parse import quote

from pydantic import Field

from lockstep.clouds.base import Cloud, CloudSettings, Row, StoreAddress
from lockstep.clouds.vertex import metrics, records
from lockstep.clouds.vertex.records import DeployedModel, EndpointRecord
from lockstep.clouds.vertex.rest import OperationFailedError, Rest, VertexError, delays, translate
from lockstep.errors import (
    BusyError,
    DeploymentFailedError,
    DigestMismatchError,
    LockstepError,
    RefusedError,
    RetryLaterError,
)
from lockstep.rules.measurement import Answer, NativeVersion, SlotMetrics
from lockstep.rules.state import CloudState, Version
from lockstep.rules.traffic import TrafficSplit

CONSOLE: Final = "https://console.cloud.google.com"
#: Chance that a slot with traffic is not met by the bounded number of predictions of one `invoke`.
MISS: Final = 1e-6
MOST_PREDICTIONS: Final = 1000


class VertexSettings(CloudSettings):
    """One Google Cloud project and region, and the bucket that holds its replicas."""

    kind: Annotated[Literal["vertex"], Field(description="Google Vertex AI.")] = "vertex"
    project: Annotated[str, Field(min_length=1, description="Project id.")]
    location: Annotated[str, Field(min_length=1, description="Region, such as europe-west4.")]
    bucket: Annotated[str, Field(min_length=3, description="Cloud Storage bucket for replicas, without gs://.")]
    prefix: Annotated[str, Field(description="Folder in the bucket.")] = "lockstep"
    machine_type: Annotated[str, Field(description="Machine type of a slot's instances.")] = "n1-standard-2"
    spot: Annotated[bool, Field(description="Run slots on spot machines, which may be taken away at any time.")] = False
    service_account: Annotated[
        str | None, Field(description="Service account that containers run as; Vertex AI's own by default.")
    ] = None
    credentials_file: Annotated[
        str | None, Field(description="Key file or workload identity configuration; Google's default chain without it.")
    ] = None
    api_endpoint: Annotated[
        str | None, Field(description="Address of the Vertex AI API; the location's own by default.")
    ] = None
    monitoring_endpoint: Annotated[
        str | None, Field(description="Address of the Cloud Monitoring API; Google's by default.")
    ] = None
    storage_endpoint: Annotated[
        str | None, Field(description="Address of the Cloud Storage API; Google's by default.")
    ] = None

    def connect(self, name: str) -> Vertex:
        """The adapter for these settings."""
        return Vertex(name, self)


class Vertex(Cloud):
    """Google Vertex AI. A slot is a deployed model whose display name is the slot's name; its id is Google's own."""

    title: ClassVar[str] = "Google Vertex AI"

    def __init__(self, name: str, settings: VertexSettings) -> None:
        super().__init__(name, settings)
        self._settings = settings
        self._rest = Rest(name, settings.credentials_file, settings.call_timeout)
        host = settings.api_endpoint or f"https://{settings.location}-aiplatform.googleapis.com"
        self._base: Final = f"{host.rstrip('/')}/v1"
        monitoring = settings.monitoring_endpoint or "https://monitoring.googleapis.com"
        self._series: Final = f"{monitoring.rstrip('/')}/v3/projects/{settings.project}/timeSeries"
        self._parent: Final = f"projects/{settings.project}/locations/{settings.location}"
        self._lock: Final = threading.Lock()
        self._slots: dict[str, dict[str, str]] = {}  # endpoint -> deployed-model id -> slot
        self._latest: dict[str, datetime] = {}  # endpoint -> its newest update time seen
        self._identities: dict[tuple[str, str], tuple[str, str]] = {}  # (endpoint, deployed id) -> label, digest

    # -- facts -------------------------------------------------------------------------------------------------

    def store(self) -> StoreAddress:
        """The bucket; credentials are those of the other calls."""
        given = self._settings
        uri = "/".join(part for part in (f"gs://{given.bucket}", given.prefix.strip("/")) if part)
        options = {"base_url": given.storage_endpoint.rstrip("/")} if given.storage_endpoint else {}
        plain = bool(given.storage_endpoint and given.storage_endpoint.startswith("http://"))
        timeout = f"{given.call_timeout}s"
        client_options: dict[str, object] = {"connect_timeout": timeout, **({"allow_http": True} if plain else {})}
        return StoreAddress(uri, uri, options, client_options, self._rest.token)

    def console_url(self, model: str) -> str:
        """The endpoint's page under Online prediction."""
        at = f"locations/{self._settings.location}/endpoints/{self._endpoint_id(model)}"
        return f"{CONSOLE}/vertex-ai/online-prediction/{at}?project={self._settings.project}"

    def _endpoint_id(self, model: str) -> str:
        return records.resource_id(self.endpoint(model))

    def _endpoint_url(self, model: str) -> str:
        return f"{self._base}/{self._parent}/endpoints/{self._endpoint_id(model)}"

    def _model_name(self, model: str) -> str:
        return f"{self._parent}/models/{records.resource_id(model)}"

    # -- looking -----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        self._rest.call("GET", f"{self._base}/{self._parent}/endpoints", query={"pageSize": 1})

    def _find_endpoint(self, model: str) -> EndpointRecord | None:
        try:
            return self._read(model)
        except VertexError as error:
            if error.http == 404:
                return None
            raise

    def _read(self, model: str) -> EndpointRecord:
        record = records.read_endpoint(self._rest.call("GET", self._endpoint_url(model)))
        self._remember(model, record)
        return record

    def _remember(self, model: str, record: EndpointRecord) -> None:
        with self._lock:
            known = self._slots.setdefault(model, {})
            known.update({deployed.id: deployed.slot for deployed in record.deployed})
            latest = self._latest.get(model)
            if record.updated is not None and (latest is None or record.updated > latest):
                self._latest[model] = record.updated

    def _observe(self, model: str) -> CloudState:
        record = self._find_endpoint(model)
        if record is None:
            return CloudState(self.name, self.endpoint(model), exists=False)
        running = self._running(self._endpoint_url(model))
        stages = [str(operation.get("metadata", {}).get("deploymentStage", "UPDATING")) for operation in running]
        weights = record.weights()
        slots: dict[str, DeployedModel] = {}
        for deployed in record.deployed:
            slots.setdefault(deployed.slot, record.find(deployed.slot) or deployed)
        return CloudState(
            cloud=self.name,
            endpoint=self.endpoint(model),
            exists=True,
            busy=bool(running),
            status=", ".join(stages) or "READY",
            slots=tuple(
                records.slot_state(deployed, weights.get(slot, 0), *self._identity(model, deployed))
                for slot, deployed in sorted(slots.items())
            ),
        )

    def _running(self, resource: str) -> list[dict[str, Any]]:
        """Operations on a resource that have not ended."""
        try:
            return [
                operation
                for operation in self._rest.pages(f"{resource}/operations", "operations", {"pageSize": 100})
                if not operation.get("done")
            ]
        except VertexError as error:
            if error.http == 404:  # the resource's own creation is still running
                return []
            raise

    def _identity(self, model: str, deployed: DeployedModel) -> tuple[str, str]:
        """Label and digest that a deployed model's container was given: immutable, so asked for once."""
        key = (model, deployed.id)
        if key not in self._identities:
            name = f"{self._parent}/models/{deployed.model}@{deployed.version_id}"
            try:
                environment = records.container_env(self._rest.call("GET", f"{self._base}/{name}"))
            except VertexError as error:
                if error.http != 404:
                    raise
                environment = {}
            found = environment.get("LOCKSTEP_VERSION", ""), environment.get("LOCKSTEP_DIGEST", "")
            with self._lock:
                self._identities[key] = found
        return self._identities[key]

    def _verify_traffic(self, model: str, split: TrafficSplit) -> bool | None:
        with self._lock:
            latest = self._latest.get(model)
        record = self._find_endpoint(model)
        if record is None:
            return False
        if _weights(split) != _taking(record):
            return False
        # An answer from before a change that was seen already says nothing about now.
        stale = latest is not None and record.updated is not None and record.updated < latest
        return None if stale else True

    def _measure(self, model: str, since: datetime, until: datetime) -> tuple[SlotMetrics, ...]:
        record = self._find_endpoint(model)
        if record is None:
            return ()
        counts: dict[str, metrics.Counts] = {deployed.id: metrics.Counts() for deployed in record.deployed}
        for metric, add in ((metrics.RESPONSES, metrics.add_responses), (metrics.LATENCIES, metrics.add_latencies)):
            query = {
                "filter": metrics.series_filter(metric, self._endpoint_id(model), self._settings.location),
                "interval.startTime": _timestamp(since),
                "interval.endTime": _timestamp(until),
            }
            add(self._rest.pages(self._series, "timeSeries", query), counts)
        with self._lock:
            names = dict(self._slots.get(model, {}))
        return tuple(
            SlotMetrics(self.name, names[key], one.requests, one.errors, one.latency_mean, one.latency_p95)
            for key, one in sorted(counts.items(), key=lambda item: names.get(item[0], ""))
            if key in names
        )

    def _invoke(self, model: str, rows: Sequence[Row], slot: str | None, request_id: str) -> Answer:
        request_id = request_id or uuid.uuid4().hex
        if slot is None:
            return self._predict(model, rows, request_id)
        # An endpoint routes by its traffic split alone: no header or field names a deployed model.
        weight = self._read(model).weights().get(slot, 0)
        if weight == 0:
            raise RefusedError(
                f"slot {slot} of {model} takes no traffic, and Vertex AI cannot send one request to a chosen slot",
                hint="give the slot at least 1 per cent of the traffic first",
                cloud=self.name,
            )
        tries = 1 if weight >= 100 else min(MOST_PREDICTIONS, math.ceil(math.log(MISS) / math.log1p(-weight / 100)))
        for _ in range(tries):
            answer = self._predict(model, rows, request_id)
            if answer.slot == slot:
                return answer
        raise RetryLaterError(
            f"none of {tries} predictions of {model} came from slot {slot}, which has {weight} % of the traffic",
            hint="the traffic may be moving; ask again",
            cloud=self.name,
        )

    def _predict(self, model: str, rows: Sequence[Row], request_id: str) -> Answer:
        body = {"instances": [dict(row) for row in rows]}
        began = time.perf_counter()
        answer = self._rest.send(
            "POST",
            f"{self._endpoint_url(model)}:predict",
            body=body,
            headers={"X-Request-Id": request_id},
            repeatable=True,
        )
        latency = time.perf_counter() - began
        content = json.loads(answer.content)
        deployed_id = str(content.get("deployedModelId", ""))
        metadata = content.get("metadata")
        named: Mapping[str, object] = metadata if isinstance(metadata, dict) else {}
        return Answer(
            cloud=self.name,
            slot=self._slot_of(model, deployed_id),
            label=str(named.get("lockstep_version", "")),
            digest=str(named.get("lockstep_digest", "")),
            body=answer.content,
            request_id=request_id,
            latency=latency,
        )

    def _slot_of(self, model: str, deployed_id: str) -> str:
        if deployed_id and deployed_id not in self._slots.get(model, {}):
            self._read(model)
        return self._slots.get(model, {}).get(deployed_id, "")

    # -- registering -------------------------------------------------------------------------------------------

    def _registered(self, version: Version) -> NativeVersion | None:
        found = self._find_version(version)
        return self._native(found) if found is not None else None

    def _find_version(self, version: Version) -> dict[str, Any] | None:
        """The oldest version of the Vertex model that was uploaded for this digest; None without one.

        Raises RefusedError where another digest bears the slot's name: uploading would take its alias away.
        """
        url = f"{self._base}/{self._model_name(version.model)}:listVersions"
        try:
            listed = list(self._rest.pages(url, "models", {"pageSize": 100}))
        except VertexError as error:
            if error.http == 404:
                return None
            raise
        found = [
            one
            for one in listed
            if version.digest in (records.digest_of(one), one.get("labels", {}).get(records.DIGEST))
        ]
        if not found:
            for one in listed:
                if version.slot in one.get("versionAliases", ()):
                    raise RefusedError(
                        f"version {one['versionId']} of the Vertex model {records.resource_id(version.model)} is called "
                        f"{version.slot} and has digest {records.digest_of(one) or 'unknown'}, not {version.digest}",
                        hint="register the model again in MLflow, so that it gets another number",
                        cloud=self.name,
                    )
        return min(found, key=lambda one: int(one["versionId"]), default=None)

    def _native(self, record: Mapping[str, Any]) -> NativeVersion:
        model_id, number = str(record["name"]).rpartition("/")[2].partition("@")[0], str(record["versionId"])
        at = f"locations/{self._settings.location}/models/{model_id}/versions/{number}/properties"
        return NativeVersion(
            cloud=self.name,
            resource=f"{self._parent}/models/{model_id}@{number}",
            console_url=f"{CONSOLE}/vertex-ai/models/{at}?project={quote(self._settings.project)}",
        )

    def _register(self, version: Version) -> NativeVersion:
        return self._native(self._uploaded(version, time.monotonic() + self._settings.deploy_timeout))

    def _uploaded(self, version: Version, deadline: float) -> dict[str, Any]:
        """The version's record, uploaded if there is none; joins an upload that an earlier attempt left running."""
        name = self._model_name(version.model)
        for delay in delays():
            found = self._find_version(version)
            if found is not None:
                return self._same_bytes(version, found)
            if time.monotonic() > deadline:
                raise RetryLaterError(
                    f"{version} does not appear in the model registry",
                    hint=f"look at `gcloud ai models list-version {records.resource_id(version.model)}`",
                    cloud=self.name,
                )
            running = self._running(f"{self._base}/{name}")
            if running:
                self._await_others(running, deadline, f"{version} cannot be uploaded")
                continue
            try:
                self._upload(version, name, deadline)
            except VertexError as error:
                if error.status != "ALREADY_EXISTS" and not error.is_busy:
                    raise
                time.sleep(delay)  # another upload is creating the model at this moment
        raise AssertionError

    def _upload(self, version: Version, name: str, deadline: float) -> None:
        uri = f"{self.store().uri}/{version.prefix}"
        body: dict[str, Any] = {"model": records.upload_body(version, self._settings.image, uri)}
        try:
            self._rest.call("GET", f"{self._base}/{name}")
            body["parentModel"] = name
        except VertexError as error:
            if error.http != 404:
                raise
            body["modelId"] = records.resource_id(version.model)
        if self._settings.service_account:
            body["serviceAccount"] = self._settings.service_account
        operation = self._rest.call("POST", f"{self._base}/{self._parent}/models:upload", body=body)
        self._rest.finish(self._base, operation, deadline, f"the upload of {version}")

    def _same_bytes(self, version: Version, record: dict[str, Any]) -> dict[str, Any]:
        uri, pinned = f"{self.store().uri}/{version.prefix}", records.container_env(record).get("LOCKSTEP_DIGEST", "")
        at = str(record.get("artifactUri", "")).rstrip("/")
        labelled = record.get("labels", {}).get(records.DIGEST, version.digest)
        if (pinned, labelled, at) != (version.digest, version.digest, uri):
            raise DigestMismatchError(
                f"{version} is registered as {record['name']}@{record['versionId']}, which points to {at or 'no bytes'}"
                f" with digest {pinned or 'none'} (label {labelled}), not to {uri}",
                hint="somebody changed its labels or another store was in use; delete that Vertex version and repeat",
                cloud=self.name,
            )
        return record

    # -- deploying ---------------------------------------------------------------------------------------------

    def _prepare(self, version: Version) -> None:
        deadline = time.monotonic() + self._settings.deploy_timeout
        native = self._uploaded(version, deadline)
        self._have_endpoint(version.model, deadline)
        for delay in delays():
            record = self._settled(version.model, deadline)
            deployed = record.find(version.slot)
            if deployed is not None:
                self._check_slot(version, deployed)
                break
            try:
                self._deploy(version, self._native(native).resource, record, deadline)
            except VertexError as error:
                if not error.is_busy or time.monotonic() > deadline:
                    raise
                time.sleep(delay)
            else:
                break
        self._await_ready(version, deadline)

    def _have_endpoint(self, model: str, deadline: float) -> None:
        """Create the endpoint unless it is there. Its id follows from its name, so two attempts make one endpoint."""
        body = {
            "displayName": self.endpoint(model)[:128],
            "labels": {"lockstep-model": records.label_value(model)},
        }
        for delay in delays():
            if self._find_endpoint(model) is not None:
                return
            if time.monotonic() > deadline:
                raise RetryLaterError(f"the endpoint of {model} does not appear", cloud=self.name)
            try:
                operation = self._rest.call(
                    "POST",
                    f"{self._base}/{self._parent}/endpoints",
                    body=body,
                    query={"endpointId": self._endpoint_id(model)},
                )
                self._rest.finish(self._base, operation, deadline, f"the creation of the endpoint of {model}")
            except VertexError as error:
                if error.status != "ALREADY_EXISTS" and not error.is_busy:
                    raise
                time.sleep(delay)  # an earlier attempt is creating it at this moment

    def _settled(self, model: str, deadline: float) -> EndpointRecord:
        """The endpoint once no change is running: an earlier attempt's deployment is joined by waiting for its end."""
        running = self._running(self._endpoint_url(model))
        while running:
            self._await_others(running, deadline, f"{model} cannot be changed")
            running = self._running(self._endpoint_url(model))
        return self._read(model)

    def _await_others(self, running: Sequence[dict[str, Any]], deadline: float, what: str) -> None:
        for operation in running:
            try:
                self._rest.finish(self._base, operation, deadline, "an earlier change")
            except OperationFailedError:
                pass  # how an earlier change ended is for whoever asked for it
            except RetryLaterError as error:
                raise BusyError(
                    f"{what}: {operation['name']} is still running", hint=error.hint, cloud=self.name
                ) from error

    def _check_slot(self, version: Version, deployed: DeployedModel) -> None:
        _, digest = self._identity(version.model, deployed)
        if digest != version.digest:
            raise RefusedError(
                f"slot {version.slot} of {version.model} runs digest {digest or 'unknown'}, not {version.digest}",
                hint=f"undeploy model {deployed.id} from {self.console_url(version.model)}, then repeat",
                cloud=self.name,
            )

    def _deploy(self, version: Version, resource: str, record: EndpointRecord, deadline: float) -> None:
        given = self._settings
        body: dict[str, Any] = {
            "deployedModel": {
                "model": resource,
                "displayName": version.slot,
                "dedicatedResources": {
                    "machineSpec": {"machineType": given.machine_type},
                    "minReplicaCount": given.instance_count,
                    "maxReplicaCount": given.instance_count,
                    **({"spot": True} if given.spot else {}),
                },
                **({"serviceAccount": given.service_account} if given.service_account else {}),
            }
        }
        if not record.deployed:
            body["trafficSplit"] = {"0": 100}  # without a split the service leaves the endpoint's own as it is
        operation = self._rest.call("POST", f"{self._endpoint_url(version.model)}:deployModel", body=body)
        try:
            self._rest.finish(self._base, operation, deadline, f"the deployment of {version}")
        except OperationFailedError as error:
            self._remove_failed(version)
            raise DeploymentFailedError(
                f"{version} did not become ready on endpoint {self.endpoint(version.model)}: {error.message}",
                hint="read the container's log under Logging > resource.type=aiplatform.googleapis.com/Endpoint; "
                + ("quota or capacity is short" if error.http == 429 else "check image, digest and machine type"),
                cloud=self.name,
            ) from error

    def _remove_failed(self, version: Version) -> None:
        record = self._read(version.model)
        deployed = record.find(version.slot)
        if deployed is not None and not record.traffic.get(deployed.id):
            self._undeploy(version.model, deployed, time.monotonic() + self._settings.traffic_timeout)

    def _await_ready(self, version: Version, deadline: float) -> None:
        limit = min(deadline, time.monotonic() + self._settings.traffic_timeout)
        for delay in delays():
            deployed = self._read(version.model).find(version.slot)
            if deployed is not None and deployed.ready:
                return
            if time.monotonic() > limit:
                state = deployed.message or "no replica is available" if deployed else "it is not on the endpoint"
                raise RetryLaterError(
                    f"{version} was deployed, but {state}",
                    hint=f"see {self.console_url(version.model)}",
                    cloud=self.name,
                )
            time.sleep(delay)

    # -- traffic -----------------------------------------------------------------------------------------------

    def _set_traffic(self, model: str, split: TrafficSplit) -> None:
        record = self._read(model)
        wanted: dict[str, int] = {}
        for slot, weight in split.weights:
            deployed = record.find(slot)
            if deployed is None or not deployed.ready:
                state = "is not deployed" if deployed is None else f"is not ready ({deployed.message or 'no replica'})"
                there = ", ".join(sorted({one.slot for one in record.deployed})) or "none"
                raise RefusedError(
                    f"{model} cannot send traffic to slot {slot}: it {state}; slots there: {there}",
                    hint="prepare the version first",
                    cloud=self.name,
                )
            wanted[deployed.id] = weight
        # Without an etag: a way back must not wait for whoever changed the endpoint in between. The split is written
        # even where the record shows it already, since the record may be old.
        answer = self._rest.call(
            "PATCH", self._endpoint_url(model), query={"updateMask": "trafficSplit"}, body={"trafficSplit": wanted}
        )
        written = records.read_endpoint(answer)
        self._remember(model, written)
        deadline = time.monotonic() + self._settings.traffic_timeout
        for delay in delays():
            shown = self._read(model)
            if _taking(shown) == _weights(split) and not _older(shown, written):
                return
            if time.monotonic() > deadline:
                raise RetryLaterError(
                    f"{model} was answered that traffic is {split}, but the endpoint shows {_taking(shown)}",
                    hint=f"somebody else may be changing it; see {self.console_url(model)}, then repeat",
                    cloud=self.name,
                )
            time.sleep(delay)

    def _retire(self, model: str, slot: str) -> None:
        deadline = time.monotonic() + self._settings.deploy_timeout
        for delay in delays():
            record = self._find_endpoint(model)
            deployed = record.find(slot) if record is not None else None
            if record is None or deployed is None:
                return
            weight = record.weights().get(slot, 0)
            if weight:
                raise RefusedError(
                    f"slot {slot} of {model} takes {weight} % of the traffic",
                    hint="move its traffic to another slot first",
                    cloud=self.name,
                )
            if time.monotonic() > deadline:
                raise RetryLaterError(
                    f"slot {slot} of {model} is still there", hint=f"see {self.console_url(model)}", cloud=self.name
                )
            try:
                self._undeploy(model, deployed, deadline)
            except VertexError as error:
                if not error.is_busy and error.http != 404:
                    raise
                self._await_others(self._running(self._endpoint_url(model)), deadline, f"{slot} cannot be removed")
                time.sleep(delay)

    def _undeploy(self, model: str, deployed: DeployedModel, deadline: float) -> None:
        body = {"deployedModelId": deployed.id}
        operation = self._rest.call("POST", f"{self._endpoint_url(model)}:undeployModel", body=body)
        self._rest.finish(self._base, operation, deadline, f"the removal of {deployed.slot} of {model}")

    # -- errors ------------------------------------------------------------------------------------------------

    def _translate(self, error: Exception, action: str) -> LockstepError | None:
        return translate(error, action, self.name)


def _weights(split: TrafficSplit) -> dict[str, int]:
    return dict(split.weights)


def _taking(record: EndpointRecord) -> dict[str, int]:
    return {slot: weight for slot, weight in record.weights().items() if weight}


def _older(shown: EndpointRecord, written: EndpointRecord) -> bool:
    return shown.updated is not None and written.updated is not None and shown.updated < written.updated


def _timestamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
