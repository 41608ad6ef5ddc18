"""What a Google Cloud project, region and bucket need in order to serve models through Lockstep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from lockstep.clouds.base import CloudSettings

if TYPE_CHECKING:
    from lockstep.clouds.vertex.adapter import Vertex


class VertexSettings(CloudSettings):
    """One project and region of Google Cloud. Credentials come from Google's default chain unless a file is given."""

    kind: Annotated[Literal["vertex"], Field(description="Kind of cloud: Google Vertex AI.")] = "vertex"
    project: Annotated[str, Field(min_length=1, description="Project id.")]
    location: Annotated[str, Field(min_length=1, description="Region, such as europe-west4.")]
    bucket: Annotated[str, Field(min_length=3, description="Cloud Storage bucket that holds the versions' bytes.")]
    prefix: Annotated[str, Field(description="Folder in the bucket under which everything lies.")] = "lockstep"
    archive_bucket: Annotated[
        str | None,
        Field(description="Bucket with a retention policy for copies of the ledger; without it no copy is kept."),
    ] = None
    capture_percent: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="Per cent of requests that are captured from the next deployment on, rows and answers.",
        ),
    ] = 0
    capture_dataset: Annotated[
        str, Field(description="BigQuery dataset, there already, for captured requests.", pattern=r"^\w*$")
    ] = ""
    bigquery_endpoint: Annotated[str | None, Field(description="Address of the BigQuery API; Google's by default.")] = (
        None
    )
    machine_type: Annotated[str, Field(description="Machine type of a slot's instances.")] = "n1-standard-2"
    spot: Annotated[bool, Field(description="Run slots on spot machines, which may be taken away at any time.")] = False
    service_account: Annotated[
        str | None, Field(description="Service account that containers run as; Vertex AI's own by default.")
    ] = None
    credentials_file: Annotated[
        str | None, Field(description="Key file or workload identity configuration; Google's default chain without it.")
    ] = None
    api_endpoint: Annotated[
        str | None, Field(description="Address of the Vertex AI API; the location's own by default.")
    ] = None
    monitoring_endpoint: Annotated[
        str | None, Field(description="Address of the Cloud Monitoring API; Google's by default.")
    ] = None
    storage_endpoint: Annotated[
        str | None, Field(description="Address of the Cloud Storage API; Google's by default.")
    ] = None
    resource_manager_endpoint: Annotated[
        str | None, Field(description="Address of the Resource Manager API; Google's by default.")
    ] = None
    iam_endpoint: Annotated[str | None, Field(description="Address of the IAM API; Google's by default.")] = None

    @model_validator(mode="after")
    def _captures_somewhere(self) -> VertexSettings:
        if self.capture_percent and not self.capture_dataset:
            raise ValueError("capture_percent needs capture_dataset beside it")
        return self

    @property
    def queries(self) -> str:
        """Address of BigQuery's queries in the project."""
        bigquery = (self.bigquery_endpoint or "https://bigquery.googleapis.com").rstrip("/")
        return f"{bigquery}/bigquery/v2/projects/{self.project}/queries"

    @property
    def uri(self) -> str:
        """`gs://bucket[/prefix]`, without a slash at the end."""
        return f"gs://{self.bucket}/{self.prefix.strip('/')}".rstrip("/")

    @property
    def host(self) -> str:
        """Address of the API, scheme included, without its version."""
        return (self.api_endpoint or f"https://{self.location}-aiplatform.googleapis.com").rstrip("/")

    @property
    def api(self) -> str:
        """Address of the API with its version."""
        return f"{self.host}/v1"

    @property
    def parent(self) -> str:
        """Resource name that models and endpoints lie under."""
        return f"projects/{self.project}/locations/{self.location}"

    @property
    def storage(self) -> str:
        """Address of Cloud Storage's JSON API, without its version."""
        return (self.storage_endpoint or "https://storage.googleapis.com").rstrip("/")

    @property
    def resource_manager(self) -> str:
        """Address of the Resource Manager API, without its version."""
        return (self.resource_manager_endpoint or "https://cloudresourcemanager.googleapis.com").rstrip("/")

    @property
    def iam(self) -> str:
        """Address of the IAM API, without its version."""
        return (self.iam_endpoint or "https://iam.googleapis.com").rstrip("/")

    @property
    def time_series(self) -> str:
        """Address of the project's time series."""
        monitoring = (self.monitoring_endpoint or "https://monitoring.googleapis.com").rstrip("/")
        return f"{monitoring}/v3/projects/{self.project}/timeSeries"

    def connect(self, name: str) -> Vertex:
        """The adapter for these settings; `name` is what the fleet calls this cloud. Opens no connection yet."""
        from lockstep.clouds.vertex.adapter import Vertex

        return Vertex(name, self)
