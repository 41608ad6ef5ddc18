"""What Lockstep must be allowed to do on AWS, as it follows from the settings.

docs/clouds.md grants these very actions; a test compares both with the calls that the adapter makes. IAM refuses to
answer at once for actions that are authorised by different things (a creation, by the tags in its request), so a part
holds only what may be asked together.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from lockstep.clouds.sagemaker.capture import FOLDER
from lockstep.clouds.sagemaker.names import config_stem
from lockstep.clouds.sagemaker.settings import SageMakerSettings

#: What it takes to ask, for `lockstep check` and `lockstep init` alone.
ASKING: Final = ("iam:GetRole", "iam:SimulatePrincipalPolicy")
PASSED_TO: Final = "iam:PassedToService"
REGION: Final = "aws:RequestedRegion"
SERVICE: Final = "sagemaker.amazonaws.com"

REGISTERS: Final = "registers versions"
PREPARES: Final = "makes slots"
CHANGES: Final = "places and removes slots"
MOVES: Final = "moves traffic and resizes slots"
LOOKS: Final = "tells what serves"
CLEANS: Final = "removes what only a retired slot used"
COPIES: Final = "copies versions and reads them back"
KEEPS: Final = "keeps copies of the ledger"
EXPLAINS: Final = "tells why a container did not start"
CAPTURED: Final = "finds captured requests"


@dataclass(frozen=True)
class Account:
    """Where ARNs lie: `aws`, `aws-cn` or `aws-us-gov`, and the account's number."""

    partition: str
    number: str


@dataclass(frozen=True)
class Part:
    """Actions with their purposes, each needed on every one of the resources; `context` is what requests will hold."""

    resources: tuple[str, ...]
    actions: Mapping[str, str]
    optional: frozenset[str] = frozenset()
    context: Mapping[str, str] = field(default_factory=dict)


def parts(settings: SageMakerSettings, account: Account, models: Collection[str]) -> tuple[Part, ...]:
    """Everything that is needed; without models, for one of any name."""
    names = [settings.endpoint_name.format(model=model) for model in sorted(models) or ["*"]]
    found = [*_registry(settings, account, names), *_slots(settings, account, names)]
    found += [*_around(settings, account, names), *_bytes(settings, account, models), *_ledger(settings, account)]
    return tuple(replace(part, context={REGION: settings.region, **part.context}) for part in found)


def _registry(settings: SageMakerSettings, account: Account, names: list[str]) -> tuple[Part, ...]:
    groups = _arns(settings, account, "model-package-group", names)
    packages = _arns(settings, account, "model-package", [f"{name}/*" for name in names])
    return (
        Part(groups, {"sagemaker:CreateModelPackageGroup": REGISTERS}),
        Part(groups, {"sagemaker:ListModelPackages": "finds registered versions"}),
        Part(packages, {"sagemaker:CreateModelPackage": REGISTERS}),
        Part(packages, {"sagemaker:DescribeModelPackage": "checks registered versions"}),
    )


def _slots(settings: SageMakerSettings, account: Account, names: list[str]) -> tuple[Part, ...]:
    models = _arns(settings, account, "model", [f"{name}-*" for name in names])
    configs = _arns(settings, account, "endpoint-config", [f"{config_stem(name)}-*" for name in names])
    endpoints = _arns(settings, account, "endpoint", names)
    tag = {"sagemaker:AddTags": PREPARES}
    return (
        Part(models, {"sagemaker:CreateModel": PREPARES, **tag}),
        Part(
            models,
            {"sagemaker:DescribeModel": LOOKS, "sagemaker:ListTags": LOOKS, "sagemaker:DeleteModel": CLEANS},
        ),
        Part(configs, {"sagemaker:CreateEndpointConfig": PREPARES, **tag}),
        Part(
            configs,
            {
                "sagemaker:DescribeEndpointConfig": LOOKS,
                "sagemaker:ListTags": LOOKS,
                "sagemaker:DeleteEndpointConfig": CLEANS,
            },
        ),
        Part(endpoints, {"sagemaker:CreateEndpoint": PREPARES, **tag}),
        Part(
            endpoints,
            {
                "sagemaker:DescribeEndpoint": LOOKS,
                "sagemaker:UpdateEndpoint": CHANGES,
                "sagemaker:UpdateEndpointWeightsAndCapacities": MOVES,
                "sagemaker:DeleteEndpoint": "removes an endpoint whose first slot did not start",
                "sagemaker:InvokeEndpoint": "proves who answers",
            },
        ),
        Part((settings.role_arn,), {"iam:PassRole": "gives containers their role"}, context={PASSED_TO: SERVICE}),
    )


def _around(settings: SageMakerSettings, account: Account, names: list[str]) -> tuple[Part, ...]:
    place = f"arn:{account.partition}:logs:{settings.region}:{account.number}"
    logs = tuple(f"{place}:log-group:/aws/sagemaker/Endpoints/{name}:*" for name in names)
    explains = {"logs:DescribeLogStreams": EXPLAINS, "logs:GetLogEvents": EXPLAINS}
    return (
        Part(
            ("*",),
            {
                "sagemaker:ListEndpoints": "looks at many models at once",
                "sagemaker:ListEndpointConfigs": CLEANS,
            },
        ),
        Part(("*",), {"cloudwatch:GetMetricData": "judges what serves"}),
        Part(logs, explains, optional=frozenset(explains)),
    )


def _bytes(settings: SageMakerSettings, account: Account, models: Collection[str]) -> tuple[Part, ...]:
    bucket = f"arn:{account.partition}:s3:::{settings.bucket}"
    folder = "/".join(filter(None, (bucket, settings.prefix.strip("/"))))
    repairs = "s3:DeleteObject"
    found: tuple[Part, ...] = (
        Part(
            tuple(f"{folder}/models/{model}/*" for model in sorted(models) or ["*"]),
            {
                "s3:GetObject": COPIES,
                "s3:PutObject": COPIES,
                "s3:AbortMultipartUpload": COPIES,
                repairs: "repairs copies, lockstep replicate --repair",
            },
            optional=frozenset({repairs}),
        ),
        Part((bucket,), {"s3:ListBucket": COPIES}),
    )
    if settings.capture_percent:
        found += (Part((f"{folder}/{FOLDER}/*",), {"s3:GetObject": CAPTURED}),)
    return found


def _ledger(settings: SageMakerSettings, account: Account) -> tuple[Part, ...]:
    if not settings.archive_bucket:
        return ()
    bucket = f"arn:{account.partition}:s3:::{settings.archive_bucket}"
    objects = {"s3:PutObject": KEEPS, "s3:PutObjectRetention": KEEPS, "s3:GetObjectVersion": KEEPS}
    return (
        Part((f"{bucket}/{settings.archive_folder}/*",), objects),
        Part((bucket,), {"s3:ListBucketVersions": KEEPS}),
        Part((bucket,), {"s3:GetBucketObjectLockConfiguration": KEEPS}),
    )


def _arns(settings: SageMakerSettings, account: Account, kind: str, names: list[str]) -> tuple[str, ...]:
    place = f"arn:{account.partition}:sagemaker:{settings.region}:{account.number}"
    return tuple(f"{place}:{kind}/{name.lower()}" for name in names)
