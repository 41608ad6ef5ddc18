"""SageMaker as a `Cloud`: one endpoint per model, one production variant per version."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import ClassVar, Final

from lockstep.clouds.archive import Archive
from lockstep.clouds.base import Cloud, Row, StoreAddress
from lockstep.clouds.sagemaker.archive import S3Archive
from lockstep.clouds.sagemaker.attest import attest_package, attest_slot
from lockstep.clouds.sagemaker.capture import destination, find_captured
from lockstep.clouds.sagemaker.clients import Clients
from lockstep.clouds.sagemaker.definitions import Definitions
from lockstep.clouds.sagemaker.endpoints import describe_state, list_marks, read_endpoint
from lockstep.clouds.sagemaker.errors import translate
from lockstep.clouds.sagemaker.metrics import measure_slots
from lockstep.clouds.sagemaker.names import checked, console, tag_value
from lockstep.clouds.sagemaker.packages import DIGEST, LABEL, Packages
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.clouds.sagemaker.simulation import ask
from lockstep.clouds.sagemaker.slots import Slots
from lockstep.clouds.sagemaker.traffic import Traffic
from lockstep.errors import CredentialsError, LockstepError, RefusedError
from lockstep.rules.measurement import Answer, CapturedRequest, NativeVersion, SlotMetrics
from lockstep.rules.permissions import Permissions
from lockstep.rules.state import CloudState, Version
from lockstep.rules.traffic import TrafficSplit

MAX_BODY: Final = 6_291_456  # bytes that InvokeEndpoint takes
MAX_REQUEST_ID: Final = 64  # characters of an InferenceId


class SageMaker(Cloud):
    """Amazon SageMaker with S3, CloudWatch and CloudWatch Logs, all through boto3."""

    title: ClassVar[str] = "Amazon SageMaker"
    #: The documentation says minutes for an UpdateEndpoint and gives no number for a change of weights.
    usual: ClassVar[Mapping[str, float]] = {"flip": 15.0, "deploy": 600.0}
    guide: ClassVar[str] = "docs/clouds.md#amazon-sagemaker"

    def __init__(self, name: str, settings: SageMakerSettings) -> None:
        super().__init__(name, settings)
        self._settings = settings
        self._clients = Clients(settings)
        self._definitions = Definitions(name, settings, self._clients)
        self._packages = Packages(name, settings, self._clients)
        self._slots = Slots(name, settings, self._clients, self._definitions)
        self._traffic = Traffic(name, settings, self._clients)

    def endpoint(self, model: str) -> str:
        """Name of the model's endpoint, and of its model package group; raises RefusedError for a name not allowed."""
        return checked(super().endpoint(model), "endpoint", self.name)

    def store(self) -> StoreAddress:
        """The bucket, opened with the given keys or with boto3's default chain."""
        given = self._settings
        options = {"aws_region": given.region}
        client_options: dict[str, object] = {"connect_timeout": f"{given.call_timeout / 2:g}s"}
        if given.endpoint_url:
            options["aws_endpoint"] = given.endpoint_url
            client_options["allow_http"] = given.endpoint_url.startswith("http://")
        credentials: Callable[[], object] | None = None
        if given.access_key_id and given.secret_access_key:
            options["aws_access_key_id"] = given.access_key_id
            options["aws_secret_access_key"] = given.secret_access_key.get_secret_value()
            if given.session_token:
                options["aws_session_token"] = given.session_token.get_secret_value()
        else:
            with self._translated("find credentials for S3"):
                credentials = self._credentials()
        return StoreAddress(given.uri, given.uri, options, client_options, credentials)

    def archive(self) -> Archive | None:
        """A folder in the archive's bucket, through the same credentials as all other calls."""
        given = self._settings
        if not given.archive_bucket:
            return None
        return S3Archive(self.name, given.archive_bucket, given.archive_folder, self._clients, self._translated)

    def meanwhile(self, model: str, slot: str) -> str:
        """An endpoint that is Updating refuses a change of weights, and answers by a variant that is named."""
        return f"callers reach {slot} by sending TargetVariant={slot} in InvokeEndpoint of {self.endpoint(model)}"

    def console_url(self, model: str) -> str:
        """The endpoint's page."""
        return console(self._settings.region, f"endpoints/{self.endpoint(model)}")

    def _credentials(self) -> Callable[[], object]:
        session = self._clients.session
        if session.get_credentials() is None:
            raise CredentialsError(
                "there are no AWS credentials",
                cloud=self.name,
                hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or keys in lockstep.yaml",
            )
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider(session)

    def _check(self) -> None:
        self._clients.sagemaker.list_endpoints(MaxResults=1)

    def _permissions(self, models: Collection[str]) -> Permissions:
        return ask(self._clients, self._settings, models)

    def _observe(self, model: str) -> CloudState:
        name = self.endpoint(model)
        live = read_endpoint(self._clients.sagemaker, name)
        if live is None:
            return CloudState(self.name, name, exists=False)
        return describe_state(live, self.name, self._definitions.digests(live))

    def _registered(self, version: Version) -> NativeVersion | None:
        return self._packages.find(version, self.endpoint(version.model))

    def _observe_many(self, models: Collection[str], known: Mapping[str, CloudState]) -> Mapping[str, CloudState]:
        names = {model: self.endpoint(model) for model in models}
        marks = list_marks(self._clients.sagemaker, self._common.endpoint_name)
        found = {}
        for model, name in names.items():
            seen = known.get(model)
            if name not in marks:
                found[model] = CloudState(self.name, name, exists=False)
            elif seen is not None and not seen.busy and (seen.endpoint, seen.mark) == (name, marks[name]):
                found[model] = seen
            else:
                found[model] = self._observe(model)
        return found

    def _attest_record(self, version: Version, image: str) -> tuple[str, ...]:
        return attest_package(self._packages, self._settings, version, self.endpoint(version.model), image)

    def _attest_slot(self, version: Version, image: str) -> tuple[str, ...]:
        live = read_endpoint(self._clients.sagemaker, self.endpoint(version.model))
        return () if live is None else attest_slot(self._definitions, self._settings, version, live, image)

    def _register(self, version: Version, image: str) -> NativeVersion:
        return self._packages.register(version, self.endpoint(version.model), image)

    def _prepare(self, version: Version, image: str) -> None:
        checked(version.slot, "slot", self.name)
        tag_value(version.model, "model name", self.name)
        self._slots.prepare(version, self.endpoint(version.model), image)

    def _set_traffic(self, model: str, split: TrafficSplit) -> None:
        self._traffic.shift(self.endpoint(model), split)

    def _verify_traffic(self, model: str, split: TrafficSplit) -> bool | None:
        live = read_endpoint(self._clients.sagemaker, self.endpoint(model))
        if live is None:
            return False
        return None if live.busy else live.shows(split)

    def _measure(self, model: str, since: datetime, until: datetime) -> tuple[SlotMetrics, ...]:
        name = self.endpoint(model)
        live = read_endpoint(self._clients.sagemaker, name)
        slots = sorted(live.slots) if live is not None else []
        return measure_slots(self._clients.cloudwatch, self.name, name, slots, since, until)

    def _invoke(self, model: str, rows: Sequence[Row], slot: str | None, request_id: str) -> Answer:
        name = self.endpoint(model)
        body = json.dumps({"instances": [dict(row) for row in rows]}).encode()
        if len(body) > MAX_BODY:
            raise RefusedError(
                f"a request of {len(body)} bytes to {name} is larger than SageMaker takes ({MAX_BODY})",
                cloud=self.name,
                hint=f"send the {len(rows)} rows in smaller parts",
            )
        if len(request_id) > MAX_REQUEST_ID:
            raise RefusedError(
                f"request id {request_id!r} has {len(request_id)} characters; SageMaker takes {MAX_REQUEST_ID}",
                cloud=self.name,
                hint="use a shorter one, a UUID for example",
            )
        asked = {"TargetVariant": slot} if slot else {}
        if request_id:
            asked["InferenceId"] = request_id
        began = time.monotonic()
        answer = self._clients.runtime.invoke_endpoint(
            EndpointName=name, Body=body, ContentType="application/json", Accept="application/json", **asked
        )
        content: bytes = answer["Body"].read()
        latency = time.monotonic() - began
        told = _attributes(answer.get("CustomAttributes", ""))
        return Answer(
            cloud=self.name,
            slot=answer.get("InvokedProductionVariant", ""),
            label=told.get(LABEL, ""),
            digest=told.get(DIGEST, ""),
            body=content,
            request_id=request_id or answer["ResponseMetadata"].get("RequestId", ""),
            latency=latency,
        )

    def _captured(
        self, model: str, request_id: str, since: datetime, until: datetime
    ) -> tuple[CapturedRequest, ...] | None:
        name = self.endpoint(model)
        live = read_endpoint(self._clients.sagemaker, name)
        capturing = live.capture if live is not None else ""
        # What was captured before it was turned off is looked through, too.
        places = dict.fromkeys(place for place in (capturing, destination(self._settings)) if place)
        found = [
            one
            for place in places
            for one in find_captured(self._clients.s3, self.name, place, name, request_id, since, until)
        ]
        return tuple(found) if found or capturing else None

    def _resize(self, model: str, slot: str, instances: int) -> None:
        self._traffic.resize(self.endpoint(model), slot, instances)

    def _retire(self, model: str, slot: str) -> None:
        self._slots.retire(self.endpoint(model), slot)

    def _translate(self, error: Exception, action: str) -> LockstepError | None:
        return translate(error, action, self.name, self._settings.region)


def _attributes(text: str) -> dict[str, str]:
    """`a=1;b=2` as a dictionary: how the container names itself in SageMaker's one free header."""
    return dict(part.strip().partition("=")[::2] for part in text.split(";") if "=" in part)
