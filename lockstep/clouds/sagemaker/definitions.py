"""What an endpoint is made of: one SageMaker Model per slot, one immutable configuration per set of variants."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from lockstep.clouds.sagemaker.capture import capture_config, destination
from lockstep.clouds.sagemaker.clients import Clients
from lockstep.clouds.sagemaker.endpoints import Endpoint
from lockstep.clouds.sagemaker.errors import is_existing, is_missing
from lockstep.clouds.sagemaker.names import config_name, config_stem, is_own_config, model_name
from lockstep.clouds.sagemaker.packages import container, origin
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.errors import RefusedError
from lockstep.rules.state import Version

#: Tag of a configuration that holds a slot's digest: one ListTags tells the digests of all slots.
SLOT_TAG: Final = "lockstep-slot:"
#: What else of a configuration is carried over when its variants change.
CARRIED: Final = (
    "DataCaptureConfig",
    "KmsKeyId",
    "AsyncInferenceConfig",
    "ExplainerConfig",
    "ShadowProductionVariants",
    "ExecutionRoleArn",
    "VpcConfig",
    "EnableNetworkIsolation",
    "MetricsConfig",
)
#: How long a configuration that is not live may wait for the update that will use it.
NEXT_STEP: Final = timedelta(hours=1)
Content = Mapping[str, Any]


class Definitions:
    """Models and endpoint configurations of one account and region. Nothing here changes an endpoint."""

    def __init__(self, cloud: str, settings: SageMakerSettings, clients: Clients) -> None:
        self._cloud = cloud
        self._settings = settings
        self._clients = clients
        self._digests: dict[str, dict[str, str]] = {}

    # -- models ------------------------------------------------------------------------------------------------

    def ensure_model(self, version: Version, endpoint: str, image: str) -> str:
        """The Model of a version's slot, made if it lacks; raises RefusedError if it is another version's.

        Call it only while the slot is not on the endpoint: a Model with the right digest and another image is made
        anew.
        """
        from botocore.exceptions import ClientError

        name, wanted = model_name(endpoint, version.slot), container(version, self._settings, image)
        if self._found_same(name, version, wanted):
            return name
        marks = {"lockstep-model": version.model, **origin(version, self._cloud)}
        try:
            self._clients.sagemaker.create_model(
                ModelName=name,
                PrimaryContainer=wanted,
                ExecutionRoleArn=self._settings.role_arn,
                Tags=[{"Key": key, "Value": value} for key, value in marks.items()],
            )
        except ClientError as error:
            if not is_existing(error):
                raise
            self._found_same(name, version, wanted)
        return name

    def model_digest(self, name: str) -> str:
        """The digest that a Model's container pins; "" for a Model that does not exist or pins none."""
        return str(self._environment(self.model(name)).get("LOCKSTEP_DIGEST", ""))

    def _found_same(self, name: str, version: Version, wanted: Content) -> bool:
        found = self.model(name)
        if found is None:
            return False
        digest = self._environment(found).get("LOCKSTEP_DIGEST", "")
        if digest != version.digest:
            raise RefusedError(
                f"the SageMaker model {name} exists and pins digest {digest or '(none)'}, not {version}",
                cloud=self._cloud,
                hint=f"find out who made it (`aws sagemaker describe-model --model-name {name}`), delete it, try again",
            )
        if all(found["PrimaryContainer"].get(key) == value for key, value in _comparable(wanted).items()) and (
            _uri(found["PrimaryContainer"]) == _uri(wanted)
        ):
            return True
        self.delete_model(name)
        return False

    def model(self, name: str) -> Content | None:
        """A Model as it is; None when there is none."""
        from botocore.exceptions import ClientError

        try:
            found: Content = self._clients.sagemaker.describe_model(ModelName=name)
        except ClientError as error:
            if is_missing(error):
                return None
            raise
        return found

    @staticmethod
    def _environment(model: Content | None) -> Content:
        found: Content = ((model or {}).get("PrimaryContainer") or {}).get("Environment") or {}
        return found

    # -- configurations ----------------------------------------------------------------------------------------

    def content(self, endpoint: Endpoint) -> dict[str, Any]:
        """The live configuration, with weights and counts as they are now, ready to make another one from."""
        described = self._clients.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint.config)
        variants = [self._as_now(variant, endpoint) for variant in described["ProductionVariants"]]
        carried = {key: described[key] for key in CARRIED if described.get(key)}
        return {"ProductionVariants": variants, **carried}

    def with_capture(self, content: Content) -> dict[str, Any]:
        """The content of a configuration for a new slot, capturing as the settings say.

        Capture by somebody else, to another place, stays as it is: an endpoint has one.
        """
        here = content.get("DataCaptureConfig")
        if here is not None and here["DestinationS3Uri"] != destination(self._settings):
            return dict(content)
        wanted = capture_config(self._settings)
        rest = {key: value for key, value in content.items() if key != "DataCaptureConfig"}
        return rest if wanted is None else {**rest, "DataCaptureConfig": wanted}

    def variant(self, version: Version, model: str, weight: float) -> dict[str, Any]:
        """A new slot's part of a configuration."""
        return {
            "VariantName": version.slot,
            "ModelName": model,
            "InstanceType": self._settings.instance_type,
            "InitialInstanceCount": self._settings.instance_count,
            "InitialVariantWeight": weight,
        }

    def ensure_config(self, endpoint: str, content: Content, digests: Mapping[str, str]) -> str:
        """A configuration with this content, made if it lacks; equal content has an equal name."""
        from botocore.exceptions import ClientError

        name = config_name(endpoint, content)
        named = {variant["VariantName"] for variant in content["ProductionVariants"]}
        known = {slot: digest for slot, digest in digests.items() if slot in named and digest}
        tags = [{"Key": SLOT_TAG + slot, "Value": digest} for slot, digest in sorted(known.items())]
        try:
            self._clients.sagemaker.create_endpoint_config(EndpointConfigName=name, Tags=tags, **content)
        except ClientError as error:
            if not is_existing(error):
                raise
        self._digests[name] = known
        return name

    def digests(self, endpoint: Endpoint) -> dict[str, str]:
        """Digest by slot from the live configuration's tags, read once per configuration; {} where it has none."""
        from botocore.exceptions import BotoCoreError, ClientError

        if endpoint.config not in self._digests:
            try:
                self._digests[endpoint.config] = self.tagged(endpoint)
            except (ClientError, BotoCoreError):
                return {}  # a digest is an extra: what serves is known without it
        return self._digests[endpoint.config]

    def tagged(self, endpoint: Endpoint) -> dict[str, str]:
        """Digest by slot from the live configuration's tags as they are now."""
        # The endpoint's ARN tells partition and account; SageMaker's ARNs hold names in lower case.
        arn = f"{endpoint.arn.rpartition(':')[0]}:endpoint-config/{endpoint.config.lower()}"
        tags = self._clients.sagemaker.list_tags(ResourceArn=arn, MaxResults=50)["Tags"]
        return {tag["Key"].removeprefix(SLOT_TAG): tag["Value"] for tag in tags if tag["Key"].startswith(SLOT_TAG)}

    def slot_digest(self, endpoint: Endpoint, slot: str) -> str:
        """The digest that the container of a live slot pins, from its Model itself."""
        return self.model_digest(self.slot_model(endpoint, slot))

    def slot_model(self, endpoint: Endpoint, slot: str) -> str:
        """Name of the Model behind a live slot; "" for a slot that the configuration does not have."""
        described = self._clients.sagemaker.describe_endpoint_config(EndpointConfigName=endpoint.config)
        for variant in described["ProductionVariants"]:
            if variant["VariantName"] == slot:
                return str(variant["ModelName"])
        return ""

    @staticmethod
    def _as_now(variant: Content, endpoint: Endpoint) -> dict[str, Any]:
        live = endpoint.variant(variant["VariantName"])
        if live is None:
            return dict(variant)
        now: dict[str, Any] = {**variant, "InitialVariantWeight": live.desired_weight}
        if "InitialInstanceCount" in variant and live.desired_instances:
            now["InitialInstanceCount"] = live.desired_instances
        return now

    # -- removal -----------------------------------------------------------------------------------------------

    def delete_model(self, name: str) -> None:
        """Delete a Model; harmless when there is none."""
        self._delete(self._clients.sagemaker.delete_model, ModelName=name)

    def delete_config(self, name: str) -> None:
        """Delete a configuration that no endpoint uses; harmless when there is none."""
        self._delete(self._clients.sagemaker.delete_endpoint_config, EndpointConfigName=name)

    def sweep(self, endpoint: str, live: str, keep: str = "") -> None:
        """Delete this endpoint's configurations except the `live` one, `keep`, and what may be somebody's next step.

        That is one younger than both the live one and an hour. Only names that `config_name` gives for this endpoint
        are touched. Without a live one, all go. What cannot be deleted now stays: an unused one costs nothing.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        with contextlib.suppress(ClientError, BotoCoreError):
            pages = self._clients.sagemaker.get_paginator("list_endpoint_configs").paginate(
                NameContains=config_stem(endpoint), PaginationConfig={"PageSize": 100}
            )
            born = {c["EndpointConfigName"]: c["CreationTime"] for page in pages for c in page["EndpointConfigs"]}
            if live and live not in born:
                return
            settled = max(born[live], datetime.now(UTC) - NEXT_STEP) if live else datetime.max.replace(tzinfo=UTC)
            for name, at in born.items():
                if is_own_config(endpoint, name) and name not in (live, keep) and at < settled:
                    self.delete_config(name)

    @staticmethod
    def _delete(operation: Any, **name: str) -> None:
        from botocore.exceptions import ClientError

        try:
            operation(**name)
        except ClientError as error:
            if not is_missing(error):
                raise


def _comparable(wanted: Content) -> dict[str, Any]:
    return {key: wanted[key] for key in ("Image", "Environment")}


def _uri(definition: Content) -> str:
    source = (definition.get("ModelDataSource") or {}).get("S3DataSource") or {}
    return str(source.get("S3Uri", ""))
