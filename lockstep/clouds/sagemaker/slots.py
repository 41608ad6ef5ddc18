"""Placing and removing slots: each is a new immutable configuration and an UpdateEndpoint, minutes long.

SageMaker takes a failed update back without a word: the endpoint is InService again, on the configuration that it
had before. So every update is followed until the endpoint shows the configuration that was asked for, or another.
"""

from __future__ import annotations

import time
from typing import Final

from lockstep.clouds.sagemaker.changes import Changes
from lockstep.clouds.sagemaker.clients import Clients, polls
from lockstep.clouds.sagemaker.definitions import Definitions
from lockstep.clouds.sagemaker.endpoints import FAILED, IN_SERVICE, Endpoint, read_endpoint
from lockstep.clouds.sagemaker.errors import is_busy, is_existing, is_missing
from lockstep.clouds.sagemaker.logs import last_lines
from lockstep.clouds.sagemaker.names import is_own_config, model_name
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.errors import (
    CloudRejectedError,
    DeploymentFailedError,
    NotFoundError,
    RefusedError,
    RetryLaterError,
)
from lockstep.rules.state import Version

MAX_VARIANTS: Final = 10


class Slots:
    """Slots on the endpoints of one account and region."""

    def __init__(self, cloud: str, settings: SageMakerSettings, clients: Clients, definitions: Definitions) -> None:
        self._cloud = cloud
        self._settings = settings
        self._clients = clients
        self._definitions = definitions
        self._changes = Changes(cloud, settings, clients)

    # -- placing -----------------------------------------------------------------------------------------------

    def prepare(self, version: Version, name: str, image: str) -> None:
        """Have the version's slot ready on endpoint `name`; see `Cloud.prepare`."""
        began = time.monotonic()
        deadline, patience = began + self._settings.deploy_timeout, began + self._settings.traffic_timeout
        live: Endpoint | None = None
        for _ in polls(patience):
            live, joined = self._changes.idle(
                name,
                lambda seen: version.slot in seen.coming_slots,
                deadline,
                patience,
                version.slot,
                enough=lambda seen: seen.serves(version.slot),
            )
            if live is not None and version.slot in live.slots and live.status != FAILED:
                self._accept(live, version)
                return
            if joined:
                raise self._failed(version, name, live, "")
            if live is not None and live.status == FAILED:
                self._remove_failed(live, version.slot, deadline)
                live = None
            self._require_replica(version)
            placed = self._create(version, name, image) if live is None else self._add(version, live, image)
            if placed is not None:
                self._finish(version, name, live, placed, deadline)
                return
        raise self._changes.busy(name, version.slot, live)

    def _create(self, version: Version, name: str, image: str) -> str | None:
        """Begin the endpoint with its first slot; None when somebody else was faster."""
        from botocore.exceptions import ClientError

        model = self._definitions.ensure_model(version, name, image)
        content = self._definitions.with_capture(
            {"ProductionVariants": [self._definitions.variant(version, model, 100.0)]}
        )
        config = self._definitions.ensure_config(name, content, {version.slot: version.digest})
        try:
            self._changes.create(name, config, version.model)
        except ClientError as error:
            if not is_existing(error):
                raise
            return None
        return config

    def _add(self, version: Version, live: Endpoint, image: str) -> str | None:
        """Begin the update that brings the slot, at weight 0; None when the endpoint has become busy or another."""
        from botocore.exceptions import ClientError

        if live.status != IN_SERVICE:
            raise CloudRejectedError(
                f"endpoint {live.name} is {live.status} and takes no new slot for {version}: {live.failure}",
                cloud=self._cloud,
                hint=f"delete it (`aws sagemaker delete-endpoint --endpoint-name {live.name}`) and deploy again",
            )
        if len(live.variants) >= MAX_VARIANTS:
            raise RefusedError(
                f"endpoint {live.name} has {len(live.variants)} slots, as many as SageMaker allows: "
                f"{', '.join(sorted(live.slots))}",
                cloud=self._cloud,
                hint="retire one that is no longer needed",
            )
        model = self._definitions.ensure_model(version, live.name, image)
        content = self._definitions.with_capture(self._definitions.content(live))
        content["ProductionVariants"].append(self._definitions.variant(version, model, 0.0))
        digests = {**self._definitions.digests(live), version.slot: version.digest}
        config = self._definitions.ensure_config(live.name, content, digests)
        now = read_endpoint(self._clients.sagemaker, live.name)
        if now is None or now.config != live.config:
            return None  # somebody placed or removed a slot meanwhile: ours would undo theirs
        try:
            self._changes.update(live.name, config)
        except ClientError as error:
            if not is_busy(error):
                raise
            return None
        return config

    def _finish(self, version: Version, name: str, before: Endpoint | None, config: str, deadline: float) -> None:
        live = self._changes.follow(name, before, config, deadline, version.slot)
        variant = live.variant(version.slot)
        if variant is None or live.config != config or not variant.ready:
            raise self._failed(version, name, live, config)
        if before is not None and variant.weight > 0:
            raise CloudRejectedError(
                f"slot {version.slot} of endpoint {name} came up with weight {variant.weight:g} instead of 0",
                cloud=self._cloud,
                hint="set the traffic of the endpoint to what it should be, at once",
            )
        self._definitions.sweep(name, live=config, keep=before.config if before is not None else "")

    def _accept(self, live: Endpoint, version: Version) -> None:
        variant = live.variant(version.slot)
        digest = self._definitions.slot_digest(live, version.slot)
        if digest != version.digest:
            raise RefusedError(
                f"slot {version.slot} of endpoint {live.name} pins digest {digest or '(none)'}, not {version}",
                cloud=self._cloud,
                hint="it was not placed by Lockstep: take its traffic away, retire it, and deploy again",
            )
        if variant is None or not variant.ready:
            raise RetryLaterError(
                f"slot {version.slot} of endpoint {live.name} has no instance that answers",
                cloud=self._cloud,
                hint=f"look at `aws sagemaker describe-endpoint --endpoint-name {live.name}`",
            )

    def _require_replica(self, version: Version) -> None:
        """Look for the mark that replication writes last; without it SageMaker would try for minutes."""
        from botocore.exceptions import ClientError

        prefix = self._settings.prefix.strip("/")
        key = f"{prefix}/{version.prefix}/COMMIT".lstrip("/")
        try:
            self._clients.s3.head_object(Bucket=self._settings.bucket, Key=key)
        except ClientError as error:
            if not is_missing(error):
                raise
            raise NotFoundError(
                f"{version} is not replicated: there is no s3://{self._settings.bucket}/{key}",
                cloud=self._cloud,
                hint="replicate the version to this cloud first",
            ) from error

    # -- removing ----------------------------------------------------------------------------------------------

    def retire(self, name: str, slot: str) -> None:
        """Remove a slot without traffic, its Model, and configurations that only it used."""
        began = time.monotonic()
        deadline, patience = began + self._settings.deploy_timeout, began + self._settings.traffic_timeout
        live, _ = self._changes.idle(name, lambda e: slot not in e.coming_slots, deadline, patience, slot)
        variant = live.variant(slot) if live is not None else None
        if live is not None and variant is not None:
            if variant.weight > 0 or variant.desired_weight > 0:
                raise RefusedError(
                    f"slot {slot} of endpoint {name} takes {live.per_cents()[slot]} % of the traffic",
                    cloud=self._cloud,
                    hint="move its traffic to another slot first",
                )
            replaced, live = live.config, self._drop(live, slot, deadline)
            # Taking a slot away can lead back to an older configuration, so age does not tell that this one is over.
            if is_own_config(name, replaced) and (live is None or live.config != replaced):
                self._definitions.delete_config(replaced)
        self._definitions.delete_model(model_name(name, slot))
        self._definitions.sweep(name, live=live.config if live is not None else "")

    def _drop(self, live: Endpoint, slot: str, deadline: float) -> Endpoint | None:
        if live.slots == {slot}:
            self._changes.delete(live.name, deadline, slot)
            return None
        content = self._definitions.content(live)
        content["ProductionVariants"] = [v for v in content["ProductionVariants"] if v["VariantName"] != slot]
        config = self._definitions.ensure_config(live.name, content, self._definitions.digests(live))
        self._changes.update(live.name, config)
        after = self._changes.follow(live.name, live, config, deadline, slot)
        if after.config != config:
            raise CloudRejectedError(
                f"endpoint {live.name} accepted the removal of slot {slot} and went back to its configuration "
                f"{after.config}. {after.failure}",
                cloud=self._cloud,
                hint=f"look at `aws sagemaker describe-endpoint --endpoint-name {live.name}`, then retire again",
            )
        return after

    def _remove_failed(self, live: Endpoint, slot: str, deadline: float) -> None:
        """A Failed endpoint serves nothing and can only be deleted; done if no other slot is lost with it."""
        if live.slots - {slot}:
            raise CloudRejectedError(
                f"endpoint {live.name} with slots {', '.join(sorted(live.slots))} has failed: {live.failure}",
                cloud=self._cloud,
                hint=f"nothing but deletion helps: `aws sagemaker delete-endpoint --endpoint-name {live.name}`, "
                "then deploy every version again",
            )
        self._changes.delete(live.name, deadline, slot)

    # -- refusals ----------------------------------------------------------------------------------------------

    def _failed(self, version: Version, name: str, live: Endpoint | None, config: str) -> DeploymentFailedError:
        """The error that tells why, after the half-made slot was taken away."""
        from botocore.exceptions import BotoCoreError, ClientError

        reason = live.failure if live is not None else "the endpoint is gone"
        back = f"SageMaker took the endpoint back to {live.config}" if live is not None else ""
        log = last_lines(self._clients.logs, name, version.slot)
        left = ""
        try:
            if live is not None and live.status == FAILED:
                self._remove_failed(live, version.slot, time.monotonic() + self._settings.traffic_timeout)
                live = None
            if live is None or version.slot not in live.coming_slots:
                self._definitions.delete_model(model_name(name, version.slot))
                if config and (live is None or config not in (live.config, live.pending)):
                    self._definitions.delete_config(config)
        except (ClientError, BotoCoreError, RetryLaterError, CloudRejectedError) as error:
            left = f" What was half made could not be removed ({error}); deploying again removes it."
        hint = f"correct what the log names and deploy again; traffic is as it was.{left}"
        text = f"slot {version.slot} of endpoint {name} for {version} did not become ready: {reason or back}"
        return DeploymentFailedError(
            text + (f"\nthe container's last lines:\n{log}" if log else ""), cloud=self._cloud, hint=hint
        )
