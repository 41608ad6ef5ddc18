"""AWS: its services at one HTTP address (and, for SNS, one over TLS), and what an account holds at the start."""

from __future__ import annotations

import hashlib
from typing import Final

from sandbox.aws import cloudwatch, operations, sns_api
from sandbox.aws.alarms import Alarms
from sandbox.aws.capture import Capture
from sandbox.aws.deployment import Deployer
from sandbox.aws.endpoints import Endpoints
from sandbox.aws.iam import SERVING, Iam
from sandbox.aws.metrics import CloudWatch
from sandbox.aws.models import Definitions
from sandbox.aws.moto_host import MotoHost
from sandbox.aws.packages import Packages
from sandbox.aws.permissions import known
from sandbox.aws.runtime import Runtime
from sandbox.aws.s3 import S3
from sandbox.aws.sagemaker import SageMaker
from sandbox.aws.service import ACCESS_KEY, SECRET_KEY, Aws
from sandbox.aws.sns import Topics
from sandbox.aws.sns_delivery import Deliveries
from sandbox.aws.sns_messages import Signer
from sandbox.aws.state import ACCOUNT, CLOUD, REGION, State
from sandbox.tls import Certificates, issue
from sandbox.web import FaultyApp, WebServer
from sandbox.world import World

BUCKET: Final = "lockstep-models"
ARCHIVE: Final = "lockstep-ledger"
IMAGE: Final = (
    f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/lockstep-serving@sha256:"
    + hashlib.sha256(b"lockstep-serving").hexdigest()
)


class AwsServers:
    """S3, STS, IAM, CloudWatch, SNS, Route 53, SageMaker and its runtime; see `CloudServers` in sandbox/world.py."""

    cloud = CLOUD

    def __init__(self, world: World) -> None:
        self._world = world
        self._moto = MotoHost()
        self._state = State(world)
        self._server: WebServer | None = None
        self._sns: WebServer | None = None
        self._certificates: Certificates | None = None
        self._alarms: Alarms | None = None
        self._deliveries: Deliveries | None = None

    def launch(self) -> None:
        """Nothing here runs in a process of its own."""

    def start(self) -> None:
        """Bind and serve."""
        certificates = issue(self._world.folder / "aws", signer="sns.amazonaws.com")
        if certificates.signer is None or certificates.signer_key is None:
            raise RuntimeError("no certificate to sign with")
        signer = Signer(certificates.signer, certificates.signer_key)
        self._certificates = certificates
        self._deliveries = Deliveries(self._world, certificates.authority)
        topics = Topics(signer, self._deliveries)
        topics.install(sns_api.answers(self._world, topics))
        metrics = CloudWatch(self._world)
        self._alarms = Alarms(self._world, metrics, topics.announce)
        metrics.install(cloudwatch.answers(self._world, self._alarms))
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
            sns_api.PublicPages(topics, signer),
            Iam(self._moto, self._world.permissions),
            self._world.permissions,
        )
        app = FaultyApp(aws, self._world.faults, self._world.calls, self._world.stop)
        self._server = WebServer(app, threads=32)
        self._sns = WebServer(app, threads=8, certificate=certificates.server)
        signer.address = self._sns.url

    def settings(self) -> dict[str, object]:
        """What boto3 needs, and what a subscriber of SNS pins: the certificate's host, and the file of its CA."""
        if self._server is None or self._sns is None or self._certificates is None:
            raise RuntimeError("the AWS servers are not started")
        return {
            "endpoint_url": self._server.url,
            "region": REGION,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": SECRET_KEY,
            "account_id": ACCOUNT,
            "role_arn": SERVING,
            "bucket": BUCKET,
            "archive_bucket": ARCHIVE,
            "image": IMAGE,
            "sns_endpoint_url": self._sns.url,
            "sns_certificate_host": f"127.0.0.1:{self._sns.port}",
            "ca_file": str(self._certificates.authority),
        }

    def freeze(self) -> None:
        """Remember what stale reads show."""
        self._state.freeze()
        if self._alarms is not None:
            self._alarms.freeze()

    def operations(self) -> frozenset[str]:
        """The operations in botocore's descriptions of the services here."""
        return operations.names()

    def permissions(self) -> frozenset[str]:
        """IAM's actions."""
        return known()

    def corrupt(self, key: str, offset: int) -> str:
        """Flip one byte of an S3 object."""
        return self._moto.corrupt(key, offset)

    def evict(self, endpoint: str, slot: str) -> str:
        """AWS sells no spot capacity for endpoints."""
        raise KeyError(f"AWS has no spot on endpoints: {endpoint}/{slot} cannot be evicted")

    def stop(self) -> None:
        """Close the addresses; containers end with their runtime."""
        for part in (self._alarms, self._deliveries, self._sns, self._server):
            if part is not None:
                part.stop()
