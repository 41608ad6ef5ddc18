"""What the AWS sandbox tests do again and again, by boto3 alone."""

import itertools
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

BUSY = ("Creating", "Updating", "Deleting")


class Account:
    """Clients for one sandbox, and resources that are removed by `clean()`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.bucket = settings["bucket"]
        self._clients: dict[str, Any] = {}
        self._uploaded: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._run = uuid.uuid4().hex[:6]
        self._made: list[tuple[str, str]] = []

    def client(self, service: str, **changes: Any) -> Any:
        """A boto3 client without retries; `changes` replace arguments."""
        if service in self._clients and not changes:
            return self._clients[service]
        arguments: dict[str, Any] = {
            "endpoint_url": self.settings["endpoint_url"],
            "region_name": self.settings["region"],
            "aws_access_key_id": self.settings["access_key_id"],
            "aws_secret_access_key": self.settings["secret_access_key"],
            "config": Config(connect_timeout=5, read_timeout=60, retries={"total_max_attempts": 1}),
        }
        made: Any = boto3.client(service, **{**arguments, **changes})  # type: ignore[call-overload]
        if not changes:
            self._clients[service] = made
        return made

    @property
    def sm(self) -> Any:
        return self.client("sagemaker")

    @property
    def s3(self) -> Any:
        return self.client("s3")

    @property
    def runtime(self) -> Any:
        return self.client("sagemaker-runtime")

    def name(self, what: str) -> str:
        """A name that no other test has."""
        return f"{what}-{self._run}-{next(self._numbers)}"

    def upload(self, folder: Path, digest: str) -> str:
        """Put a sealed model folder into the bucket, once; returns its s3:// prefix."""
        prefix = f"models/{digest}/"
        if digest not in self._uploaded:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    key = prefix + path.relative_to(folder).as_posix()
                    self.s3.put_object(Bucket=self.bucket, Key=key, Body=path.read_bytes(), ChecksumAlgorithm="SHA256")
            self._uploaded[digest] = prefix
        return f"s3://{self.bucket}/{prefix}"

    def container(self, uri: str, digest: str, label: str = "1") -> dict[str, Any]:
        """A ContainerDefinition of the serving image over model data at `uri`."""
        return {
            "Image": self.settings["image"],
            "Environment": {"LOCKSTEP_DIGEST": digest, "LOCKSTEP_VERSION": label},
            "ModelDataSource": {"S3DataSource": {"S3Uri": uri, "S3DataType": "S3Prefix", "CompressionType": "None"}},
        }

    def model(self, uri: str, digest: str, label: str = "1") -> str:
        """CreateModel; returns its name."""
        name = self.name("model")
        self.sm.create_model(
            ModelName=name,
            ExecutionRoleArn=self.settings["role_arn"],
            PrimaryContainer=self.container(uri, digest, label),
        )
        self._made.append(("model", name))
        return name

    def config(self, *variants: tuple[str, str, float], **more: Any) -> str:
        """CreateEndpointConfig from (variant, model, weight); returns its name."""
        name = self.name("config")
        self.sm.create_endpoint_config(
            EndpointConfigName=name,
            ProductionVariants=[
                {
                    "VariantName": variant,
                    "ModelName": model,
                    "InstanceType": "ml.m5.large",
                    "InitialInstanceCount": 1,
                    "InitialVariantWeight": weight,
                }
                for variant, model, weight in variants
            ],
            **more,
        )
        self._made.append(("endpoint_config", name))
        return name

    def endpoint(self, config: str, **more: Any) -> str:
        """CreateEndpoint; returns its name at once."""
        name = self.name("endpoint")
        self.sm.create_endpoint(EndpointName=name, EndpointConfigName=config, **more)
        self._made.append(("endpoint", name))
        return name

    def settled(self, endpoint: str, seconds: float = 60.0) -> dict[str, Any]:
        """DescribeEndpoint's answer once no change is under way."""
        deadline = time.monotonic() + seconds
        while True:
            answer: dict[str, Any] = self.sm.describe_endpoint(EndpointName=endpoint)
            if answer["EndpointStatus"] not in BUSY:
                return answer
            assert time.monotonic() < deadline, f"{endpoint} is {answer['EndpointStatus']} after {seconds} s"
            time.sleep(0.02)

    def gone(self, endpoint: str, seconds: float = 60.0) -> None:
        """Wait until an endpoint that is being deleted is not there any more."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self.sm.describe_endpoint(EndpointName=endpoint)
            except ClientError:
                return
            time.sleep(0.02)
        raise AssertionError(f"{endpoint} is still there after {seconds} s")

    def clean(self) -> None:
        """Delete what was made, newest first."""
        for kind, name in reversed(self._made):
            parameter = {"model": "ModelName", "endpoint_config": "EndpointConfigName", "endpoint": "EndpointName"}[
                kind
            ]
            with suppress(ClientError):
                if kind == "endpoint":
                    self.settled(name)
                getattr(self.sm, f"delete_{kind}")(**{parameter: name})
                if kind == "endpoint":
                    self.gone(name)


def weights(answer: dict[str, Any], which: str = "Current") -> dict[str, float]:
    """Variant -> weight of a DescribeEndpoint answer."""
    return {variant["VariantName"]: variant[f"{which}Weight"] for variant in answer["ProductionVariants"]}
