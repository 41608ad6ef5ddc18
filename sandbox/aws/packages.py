"""Model package groups and model packages: SageMaker's model registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from sandbox.aws.errors import AwsError, invalid
from sandbox.aws.listing import page
from sandbox.aws.shapes import refuse_unsupported
from sandbox.aws.state import ACCOUNT, REGION, Document, State, arn, now

UNSUPPORTED: Final = (
    "SourceAlgorithmSpecification",
    "ValidationSpecification",
    "CertifyForMarketplace",
    "SecurityConfig",
    "ModelCard",
    "AdditionalInferenceSpecifications",
    "AdditionalInferenceSpecificationsToAdd",
    "ManagedStorageType",
)
MAX_METADATA: Final = 50
PENDING: Final = "PendingManualApproval"


class Packages:
    """The operations on groups and packages. A package becomes Completed at once: there is no image scan here."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._versions: dict[str, int] = {}
        self._tokens: dict[str, tuple[str, str]] = {}

    def create_group(self, given: Document) -> Document:
        """CreateModelPackageGroup."""
        name = given["ModelPackageGroupName"]
        group = arn("model-package-group", name)
        with self._state.lock:
            if name in self._state.now.groups:
                raise invalid(f"Model Package Group already exists: {group}")
            self._state.tag(group, given.get("Tags"))
            self._state.now.groups[name] = {
                **given,
                "ModelPackageGroupArn": group,
                "CreationTime": now(),
                "CreatedBy": {},
                "ModelPackageGroupStatus": "Completed",
            }
        return {"ModelPackageGroupArn": group}

    def describe_group(self, given: Document) -> Document:
        """DescribeModelPackageGroup, by name or ARN."""
        return self._group(given["ModelPackageGroupName"], self._state.reading("DescribeModelPackageGroup").groups)

    def list_groups(self, given: Document) -> Document:
        """ListModelPackageGroups."""
        groups = self._state.reading("ListModelPackageGroups").groups.values()
        return page(groups, given, "ModelPackageGroupSummaryList", lambda d: str(d["ModelPackageGroupName"]))

    def delete_group(self, given: Document) -> None:
        """DeleteModelPackageGroup; a group that holds packages stays."""
        with self._state.lock:
            group = self._group(given["ModelPackageGroupName"], self._state.now.groups)
            name = group["ModelPackageGroupName"]
            if any(package.get("ModelPackageGroupName") == name for package in self._state.now.packages.values()):
                raise AwsError(
                    "ConflictException", f"Model Package Group {group['ModelPackageGroupArn']} still has model packages"
                )
            del self._state.now.groups[name]
            self._state.now.tags.pop(group["ModelPackageGroupArn"], None)

    def create(self, given: Document) -> Document:
        """CreateModelPackage: the group's next version, or an unversioned package with a name of its own."""
        refuse_unsupported(given, UNSUPPORTED, "CreateModelPackage")
        if bool(given.get("ModelPackageGroupName")) == bool(given.get("ModelPackageName")):
            raise invalid("Exactly one of ModelPackageName and ModelPackageGroupName must be provided.")
        if given.get("ModelPackageGroupName") and given.get("Tags"):
            raise invalid("Tags are not supported for versioned model packages; tag the model package group instead.")
        with self._state.lock:
            known = self._repeated(given)
            if known is not None:
                return {"ModelPackageArn": known}
            document = self._versioned(given) if given.get("ModelPackageGroupName") else self._unversioned(given)
            package = document["ModelPackageArn"]
            self._state.tag(package, given.get("Tags"))
            self._state.now.packages[package] = document
            if given.get("ClientToken"):
                self._tokens[given["ClientToken"]] = (_fingerprint(given), package)
        return {"ModelPackageArn": package}

    def describe(self, given: Document) -> Document:
        """DescribeModelPackage, by ARN or by the name of an unversioned package."""
        return self._package(given["ModelPackageName"], self._state.reading("DescribeModelPackage").packages)

    def find(self, name: str) -> Document:
        """A package by name or ARN as it is now; raises AwsError when there is none."""
        return self._package(name, self._state.now.packages)

    def update(self, given: Document) -> Document:
        """UpdateModelPackage: approval, metadata, source and even the inference specification may change."""
        refuse_unsupported(given, UNSUPPORTED, "UpdateModelPackage")
        with self._state.lock:
            package = self._package(given["ModelPackageArn"], self._state.now.packages)
            wish = given.get("ModelApprovalStatus")
            if wish == PENDING and package.get("ModelApprovalStatus") != PENDING:
                raise invalid(
                    f"Model Package {package['ModelPackageArn']} cannot go from "
                    f"{package.get('ModelApprovalStatus')} to {PENDING}."
                )
            metadata = {
                **package.get("CustomerMetadataProperties", {}),
                **given.get("CustomerMetadataProperties", {}),
            }
            for key in given.get("CustomerMetadataPropertiesToRemove", ()):
                metadata.pop(key, None)
            if len(metadata) > MAX_METADATA:
                raise invalid(f"CustomerMetadataProperties can hold at most {MAX_METADATA} entries.")
            changed = ("ModelApprovalStatus", "ApprovalDescription", "SourceUri", "ModelLifeCycle")
            self._state.now.packages[package["ModelPackageArn"]] = {
                **package,
                **{name: given[name] for name in changed if name in given},
                **_specification(given),
                "CustomerMetadataProperties": metadata,
                "LastModifiedTime": now(),
            }
        return {"ModelPackageArn": package["ModelPackageArn"]}

    def list(self, given: Document) -> Document:
        """ListModelPackages: the versions of a group, else the unversioned ones unless ModelPackageType says more."""
        tables = self._state.reading("ListModelPackages")
        packages = list(tables.packages.values())
        kind = given.get("ModelPackageType", "Unversioned")
        if given.get("ModelPackageGroupName"):
            name = self._group(given["ModelPackageGroupName"], tables.groups)["ModelPackageGroupName"]
            packages = [package for package in packages if package.get("ModelPackageGroupName") == name]
            kind = "Versioned"
        if kind != "Both":
            packages = [package for package in packages if ("ModelPackageVersion" in package) == (kind == "Versioned")]
        if given.get("ModelApprovalStatus"):
            packages = [p for p in packages if p.get("ModelApprovalStatus") == given["ModelApprovalStatus"]]
        return page(packages, given, "ModelPackageSummaryList", _name)

    def delete(self, given: Document) -> None:
        """DeleteModelPackage."""
        with self._state.lock:
            package = self._package(given["ModelPackageName"], self._state.now.packages)["ModelPackageArn"]
            del self._state.now.packages[package]
            self._state.now.tags.pop(package, None)

    def _versioned(self, given: Document) -> Document:
        group = self._group(given["ModelPackageGroupName"], self._state.now.groups)
        name = group["ModelPackageGroupName"]
        version = self._versions.get(name, 0) + 1
        self._versions[name] = version
        package = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{name.lower()}/{version}"
        return {
            **_base(given),
            "ModelPackageGroupName": name,
            "ModelPackageVersion": version,
            "ModelPackageArn": package,
            "ModelApprovalStatus": given.get("ModelApprovalStatus", PENDING),
        }

    def _unversioned(self, given: Document) -> Document:
        package = arn("model-package", given["ModelPackageName"])
        if package in self._state.now.packages:
            raise invalid(f"Model Package already exists: {package}")
        return {**_base(given), "ModelPackageArn": package}

    def _repeated(self, given: Document) -> str | None:
        fingerprint, package = self._tokens.get(given.get("ClientToken", ""), ("", ""))
        if fingerprint and fingerprint != _fingerprint(given):
            raise AwsError("ConflictException", f"ClientToken {given['ClientToken']} was used for another request")
        return package if package in self._state.now.packages else None

    @staticmethod
    def _group(name: str, groups: Mapping[str, Document]) -> Document:
        short = name.rpartition("/")[2]
        for group in groups.values():
            if name in (group["ModelPackageGroupName"], group["ModelPackageGroupArn"]):
                return group
        raise invalid(f"ModelPackageGroup {arn('model-package-group', short)} does not exist.")

    @staticmethod
    def _package(name: str, packages: Mapping[str, Document]) -> Document:
        package = name if name.startswith("arn:") else arn("model-package", name)
        if package not in packages:
            raise invalid(f"ModelPackage {package} does not exist.")
        return packages[package]


def _base(given: Document) -> dict[str, Any]:
    return {
        **{name: value for name, value in given.items() if name not in ("Tags", "ClientToken")},
        **_specification(given),
        "CreationTime": now(),
        "ModelPackageStatus": "Completed",
        "ModelPackageStatusDetails": {"ValidationStatuses": []},
    }


def _specification(given: Document) -> dict[str, Any]:
    """The inference specification with the image digests that the service resolves."""
    if "InferenceSpecification" not in given:
        return {}
    specification = given["InferenceSpecification"]
    containers = []
    for container in specification["Containers"]:
        digest = container.get("Image", "").partition("@")[2]
        containers.append({**container, "ImageDigest": digest} if digest else container)
    return {"InferenceSpecification": {**specification, "Containers": containers}}


def _name(package: Document) -> str:
    return str(package.get("ModelPackageName") or package["ModelPackageGroupName"])


def _fingerprint(given: Document) -> str:
    return json.dumps(given, sort_keys=True)
