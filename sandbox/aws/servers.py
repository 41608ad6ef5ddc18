"""AWS: its services at one HTTP address, and what an account holds at the start."""

from __future__ import annotations

import hashlib
from typing import Final

from sandbox.aws import operations
from sandbox.aws.capture import Capture
from sandbox.aws.deployment import Deployer
from sandbox.aws.endpoints import Endpoints
from sandbox.aws.metrics import CloudWatch
from sandbox.aws.models import Definitions
from sandbox.aws.moto_host import MotoHost
from sandbox.aws.packages import Packages
from sandbox.aws.runtime import Runtime
from sandbox.aws.s3 import S3
from sandbox.aws.sagemaker import SageMaker
from sandbox.aws.service import ACCESS_KEY, SECRET_KEY, Aws
from sandbox.aws.state import ACCOUNT, CLOUD, REGION, State
from sandbox.web import FaultyApp, WebServer
from sandbox.world import World

BUCKET: Final = "lockstep-models"
ARCHIVE: Final = "lockstep-ledger"
ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/lockstep-serving"
IMAGE: Final = (
    f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/lockstep-serving@sha256:"
    + hashlib.sha256(b"lockstep-serving").hexdigest()
)


class AwsServers:
    """S3, STS, CloudWatch, SNS, Route 53, SageMaker and its runtime; see `CloudServers` in sandbox/world.py."""

    cloud = CLOUD

    def __init__(self, world: World) -> None:
        self._world = world
        self._moto = MotoHost()
        self._state = State(world)
        self._server: WebServer | None = None

    def launch(self) -> None:
        """Nothing here runs in a process of its own."""

    def start(self) -> None:
        """Bind and serve."""
        metrics = CloudWatch(self._world)
        metrics.install()
        self._moto.create_bucket(BUCKET)
        self._moto.create_bucket(ARCHIVE, object_lock=True)
        packages = Packages(self._state)
        definitions = Definitions(self._state, self._moto, packages)
        endpoints = Endpoints(self._world, self._state, Deployer(self._world, self._moto))
        aws = Aws(
            self._moto,
            S3(self._world, self._moto),
            SageMaker(self._world, self._state, packages, definitions, endpoints),
            Runtime(self._world, endpoints, metrics, Capture(self._world, self._moto)),
        )
        self._server = WebServer(FaultyApp(aws, self._world.faults, self._world.calls, self._world.stop), threads=32)

    def settings(self) -> dict[str, object]:
        """What boto3 needs."""
        if self._server is None:
            raise RuntimeError("the AWS servers are not started")
        return {
            "endpoint_url": self._server.url,
            "region": REGION,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "account_id": ACCOUNT,
            "role_arn": ROLE,
            "bucket": BUCKET,
            "archive_bucket": ARCHIVE,
            "image": IMAGE,
        }

    def freeze(self) -> None:
        """Remember what stale reads show."""
        self._state.freeze()

    def operations(self) -> frozenset[str]:
        """The operations in botocore's descriptions of the services here."""
        return operations.names()

    def corrupt(self, key: str, offset: int) -> str:
        """Flip one byte of an S3 object."""
        return self._moto.corrupt(key, offset)

    def evict(self, endpoint: str, slot: str) -> str:
        """AWS sells no spot capacity for endpoints."""
        raise KeyError(f"AWS has no spot on endpoints: {endpoint}/{slot} cannot be evicted")

    def stop(self) -> None:
        """Close the address; containers end with their runtime."""
        if self._server is not None:
            self._server.stop()
