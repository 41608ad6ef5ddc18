"""What a person configures to reach one Azure ML workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import Field, SecretStr, model_validator

from lockstep.clouds.base import CloudSettings

if TYPE_CHECKING:
    from lockstep.clouds.azureml.adapter import AzureML

PUBLIC_RESOURCE_MANAGER: Final = "https://management.azure.com"


class AzureMLSettings(CloudSettings):
    """One Azure ML workspace and the Blob container behind its datastore."""

    kind: Annotated[Literal["azureml"], Field(description="Kind of cloud: Azure Machine Learning.")] = "azureml"
    subscription_id: Annotated[str, Field(min_length=1, description="Azure subscription.")]
    resource_group: Annotated[str, Field(min_length=1, description="Resource group of the workspace.")]
    workspace: Annotated[str, Field(min_length=1, description="Azure ML workspace.")]
    region: Annotated[str, Field(min_length=1, description="Region of the workspace, such as westeurope.")]
    storage_account: Annotated[str, Field(min_length=1, description="Storage account behind the datastore.")]
    storage_resource_group: Annotated[
        str | None, Field(description="Resource group of the storage account; the workspace's by default.")
    ] = None
    container: Annotated[str, Field(min_length=1, description="Blob container behind the datastore.")]
    prefix: Annotated[str, Field(description="Folder in the container under which Lockstep keeps versions.")] = (
        "lockstep"
    )
    archive_container: Annotated[
        str | None,
        Field(
            description="Container with an immutability policy for copies of the ledger; without it no copy is kept."
        ),
    ] = None
    datastore: Annotated[str, Field(description="The workspace's name for that container.")] = "workspaceblobstore"
    instance_type: Annotated[str, Field(description="Machine size of a slot's instances.")] = "Standard_DS3_v2"
    concurrency: Annotated[
        int, Field(ge=1, description="Requests that one instance works on at once; Azure refuses more with 429.")
    ] = 16
    request_timeout: Annotated[
        float, Field(gt=0, le=180, description="Seconds that Azure gives a slot to answer one request.")
    ] = 30.0
    capture_percent: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="Per cent of requests that new deployments capture, rows and answers, in workspaceblobstore.",
        ),
    ] = 0
    tenant_id: Annotated[str | None, Field(description="Entra tenant of the service principal.")] = None
    client_id: Annotated[
        str | None, Field(description="Service principal; without it Azure's default credential chain is used.")
    ] = None
    client_secret: Annotated[SecretStr | None, Field(description="Client secret of the service principal.")] = None
    authority: Annotated[str | None, Field(description="Entra address of another Azure cloud.")] = None
    resource_manager: Annotated[str, Field(description="Address of Azure Resource Manager.")] = PUBLIC_RESOURCE_MANAGER
    blob_endpoint: Annotated[
        str | None, Field(description="Address of the storage account, if not the public one.")
    ] = None
    storage_key: Annotated[SecretStr | None, Field(description="Account key; without it the credentials are used.")] = (
        None
    )
    metrics_endpoint: Annotated[
        str | None, Field(description="Address of Azure Monitor's metrics, if not the region's public one.")
    ] = None
    ca_file: Annotated[
        str | None, Field(description="CA certificate (PEM file) to trust in addition, at every address.")
    ] = None

    @model_validator(mode="after")
    def _whole_principal(self) -> AzureMLSettings:
        given = (self.tenant_id, self.client_id, self.client_secret)
        if self.client_secret is not None and None in given:
            raise ValueError("client_secret needs tenant_id and client_id beside it")
        return self

    @property
    def workspace_path(self) -> str:
        """The workspace's identifier in Resource Manager."""
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"
        )

    def container_path(self, container: str) -> str:
        """The identifier of one of the storage account's containers in Resource Manager."""
        group = self.storage_resource_group or self.resource_group
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{group}"
            f"/providers/Microsoft.Storage/storageAccounts/{self.storage_account}"
            f"/blobServices/default/containers/{container}"
        )

    @property
    def store_uri(self) -> str:
        """Lockstep's folder as Azure ML names it, without a slash at the end."""
        folder = f"paths/{self.prefix.strip('/')}".rstrip("/")
        return (
            f"azureml://subscriptions/{self.subscription_id}/resourcegroups/{self.resource_group}"
            f"/workspaces/{self.workspace}/datastores/{self.datastore}/{folder}"
        )

    @property
    def metrics_address(self) -> str:
        """Where Azure Monitor answers for the region."""
        return self.metrics_endpoint or f"https://{self.region}.metrics.monitor.azure.com"

    def connect(self, name: str) -> AzureML:
        """The adapter for this workspace."""
        from lockstep.clouds.azureml.adapter import AzureML

        return AzureML(name, self)
