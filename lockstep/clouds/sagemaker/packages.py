"""Versions in SageMaker's model registry: one model package group per model, one package per version.

A model package can be changed after it was made (UpdateModelPackage), so what it says is compared every time. Its
description cannot be changed, and lists show it: the digest stands there, so that a version is found with one list.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from lockstep.clouds.sagemaker.clients import Clients, polls
from lockstep.clouds.sagemaker.errors import is_existing, is_missing
from lockstep.clouds.sagemaker.names import console, tag_value
from lockstep.clouds.sagemaker.settings import SageMakerSettings
from lockstep.errors import CloudRejectedError, DigestMismatchError, RefusedError, RetryLaterError
from lockstep.rules.measurement import NativeVersion
from lockstep.rules.state import Version

LABEL, DIGEST, RUN_ID = "lockstep-version", "lockstep-digest", "lockstep-run-id"


def origin(version: Version, cloud: str) -> dict[str, str]:
    """What every record of a version carries, so that the console shows where it came from."""
    marks = {LABEL: tag_value(version.label, "version label", cloud), DIGEST: version.digest}
    if version.run_id:
        marks[RUN_ID] = tag_value(version.run_id, "run id", cloud)
    return marks


def bytes_at(version: Version, settings: SageMakerSettings) -> str:
    """Where replication put a version's bytes, as SageMaker names the place."""
    return f"{settings.uri}/{version.prefix}/"


def container(version: Version, settings: SageMakerSettings, image: str) -> dict[str, Any]:
    """The container that serves a version: pinned image, replicated bytes, digest to check them against."""
    source = {
        "S3Uri": bytes_at(version, settings),
        "S3DataType": "S3Prefix",
        "CompressionType": "None",
    }
    return {
        "Image": image,
        "ModelDataSource": {"S3DataSource": source},
        "Environment": {"LOCKSTEP_DIGEST": version.digest, "LOCKSTEP_VERSION": version.label},
    }


class Packages:
    """The registry of one account and region."""

    def __init__(self, cloud: str, settings: SageMakerSettings, clients: Clients) -> None:
        self.cloud = self._cloud = cloud
        self._settings = settings
        self._clients = clients
        self._registering = threading.Lock()  # two threads must not both find nothing and register

    def find(self, version: Version, group: str) -> NativeVersion | None:
        """The package of a version, compared with it; raises DigestMismatchError when somebody changed it."""
        package = self._find(version, group)
        return None if package is None else self._native(package["ModelPackageArn"])

    def register(self, version: Version, group: str, image: str) -> NativeVersion:
        """Find the version's package or make it; returns when SageMaker reports it complete and unchanged."""
        marks = origin(version, self._cloud)
        with self._registering:
            found = self._find(version, group)
            if found is not None:
                self._raise_if_rejected(found, version)
                return self._native(found["ModelPackageArn"])
            self._ensure_group(group)
            wanted = container(version, self._settings, image)
            answer = self._clients.sagemaker.create_model_package(
                ModelPackageGroupName=group,
                ModelPackageDescription=_describe(version),
                ModelApprovalStatus="Approved",
                CustomerMetadataProperties=marks,
                SourceUri=wanted["ModelDataSource"]["S3DataSource"]["S3Uri"],
                InferenceSpecification={
                    "Containers": [wanted],
                    "SupportedContentTypes": ["application/json"],
                    "SupportedResponseMIMETypes": ["application/json"],
                    "SupportedRealtimeInferenceInstanceTypes": [self._settings.instance_type],
                },
            )
            return self._await(answer["ModelPackageArn"], version)

    def described(self, version: Version, group: str) -> Mapping[str, Any] | None:
        """The version's package as it is, changed or not; None without one."""
        arn = self._find_arn(version, group)
        if arn is None:
            return None
        package: Mapping[str, Any] = self._clients.sagemaker.describe_model_package(ModelPackageName=arn)
        return package

    def _find(self, version: Version, group: str) -> Mapping[str, Any] | None:
        package = self.described(version, group)
        if package is not None:
            self._compare(package, version)
        return package

    def _raise_if_rejected(self, package: Mapping[str, Any], version: Version) -> None:
        if package.get("ModelApprovalStatus") == "Rejected":
            arn, why = package["ModelPackageArn"], package.get("ApprovalDescription", "no reason given")
            raise RefusedError(
                f"model package {arn} of {version} was rejected by somebody: {why}",
                cloud=self._cloud,
                hint=f"register another version, or approve it: `aws sagemaker update-model-package "
                f"--model-package-arn {arn} --model-approval-status Approved`",
            )

    def _find_arn(self, version: Version, group: str) -> str | None:
        from botocore.exceptions import ClientError

        asked: dict[str, Any] = {"ModelPackageGroupName": group, "SortBy": "CreationTime", "SortOrder": "Descending"}
        try:
            pages = self._clients.sagemaker.get_paginator("list_model_packages").paginate(
                **asked, PaginationConfig={"PageSize": 100}
            )
            for page in pages:
                for summary in page["ModelPackageSummaryList"]:
                    if version.digest in summary.get("ModelPackageDescription", ""):
                        return str(summary["ModelPackageArn"])
        except ClientError as error:
            if not is_missing(error):
                raise
        return None

    def _ensure_group(self, group: str) -> None:
        from botocore.exceptions import ClientError

        try:
            self._clients.sagemaker.create_model_package_group(
                ModelPackageGroupName=group, ModelPackageGroupDescription="Versions kept in step by Lockstep."
            )
        except ClientError as error:
            if not is_existing(error):
                raise

    def _await(self, arn: str, version: Version) -> NativeVersion:
        from botocore.exceptions import ClientError

        for _ in polls(time.monotonic() + self._settings.traffic_timeout):
            try:
                package = self._clients.sagemaker.describe_model_package(ModelPackageName=arn)
            except ClientError as error:
                if is_missing(error):  # made, and not yet visible everywhere
                    continue
                raise
            status = package["ModelPackageStatus"]
            if status == "Completed":
                self._compare(package, version)
                return self._native(arn)
            if status in ("Failed", "Deleting"):
                raise CloudRejectedError(
                    f"model package {arn} of {version} is {status}: {package.get('ModelPackageStatusDetails')}",
                    cloud=self._cloud,
                    hint=f"delete it (`aws sagemaker delete-model-package --model-package-name {arn}`) and try again",
                )
        raise RetryLaterError(
            f"model package {arn} of {version} is not complete after {self._settings.traffic_timeout:g} s",
            cloud=self._cloud,
            hint=f"look at `aws sagemaker describe-model-package --model-package-name {arn}`, then register again",
        )

    def _compare(self, package: Mapping[str, Any], version: Version) -> None:
        containers = (package.get("InferenceSpecification") or {}).get("Containers") or [{}]
        source = ((containers[0].get("ModelDataSource") or {}).get("S3DataSource") or {}).get("S3Uri", "")
        marks = package.get("CustomerMetadataProperties") or {}
        pairs = (
            ("bytes at", source, bytes_at(version, self._settings)),
            ("digest", marks.get(DIGEST, ""), version.digest),
            ("pinned digest", (containers[0].get("Environment") or {}).get("LOCKSTEP_DIGEST", ""), version.digest),
        )
        for what, found, expected in pairs:
            if found != expected:
                arn = package["ModelPackageArn"]
                raise DigestMismatchError(
                    f"model package {arn} was registered as {version}, but its {what} is {found!r}, not {expected!r}",
                    cloud=self._cloud,
                    hint="somebody changed it: find out who in CloudTrail (UpdateModelPackage), then delete it with "
                    f"`aws sagemaker delete-model-package --model-package-name {arn}` and register again",
                )

    def _native(self, arn: str) -> NativeVersion:
        name = arn.partition(":model-package/")[2]
        return NativeVersion(self._cloud, arn, console(self._settings.region, f"model-packages/{name}"))


def _describe(version: Version) -> str:
    return f"Lockstep: {version.model} version {version.label}, manifest sha256 {version.digest}"
