"""What an AWS account, region and bucket need in order to serve models through Lockstep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, SecretStr

from lockstep.clouds.base import CloudSettings

if TYPE_CHECKING:
    from lockstep.clouds.sagemaker.adapter import SageMaker


class SageMakerSettings(CloudSettings):
    """One account and region of AWS. Credentials come from boto3's default chain unless keys or a profile are given."""

    kind: Annotated[Literal["sagemaker"], Field(description="Which cloud this is.")] = "sagemaker"
    region: Annotated[str, Field(min_length=1, description="AWS region, such as eu-central-1.")]
    bucket: Annotated[str, Field(min_length=3, description="S3 bucket that holds the versions' bytes.")]
    prefix: Annotated[str, Field(description="Folder in the bucket under which everything lies.")] = "lockstep"
    archive_bucket: Annotated[
        str | None,
        Field(description="S3 bucket with Object Lock for copies of the ledger; without it no copy is kept."),
    ] = None
    role_arn: Annotated[
        str, Field(min_length=20, description="ARN of the role that SageMaker assumes to read the bucket and image.")
    ]
    instance_type: Annotated[str, Field(description="Instance type of a slot.", pattern=r"^ml\.")] = "ml.m5.large"
    capture_percent: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="Per cent of requests that new deployments capture, rows and answers, beside the versions.",
        ),
    ] = 0
    endpoint_url: Annotated[
        str | None, Field(description="Address of every AWS service; empty for the real ones of the region.")
    ] = None
    access_key_id: Annotated[str | None, Field(description="Access key id; empty for the default chain.")] = None
    secret_access_key: Annotated[
        SecretStr | None, Field(description="Secret access key; empty for the default chain.")
    ] = None
    session_token: Annotated[
        SecretStr | None, Field(description="Session token of temporary keys; empty for long-lived ones.")
    ] = None
    profile: Annotated[str | None, Field(description="Profile in ~/.aws/config; empty for the default chain.")] = None

    @property
    def uri(self) -> str:
        """`s3://bucket[/prefix]`, without a slash at the end."""
        return f"s3://{self.bucket}/{self.prefix.strip('/')}".rstrip("/")

    def connect(self, name: str) -> SageMaker:
        """The adapter for these settings; `name` is what the fleet calls this cloud. Opens no connection yet."""
        from lockstep.clouds.sagemaker.adapter import SageMaker

        return SageMaker(name, self)
