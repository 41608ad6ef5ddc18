"""Prefect blocks: typed, secret settings with forms in the Prefect UI. Register them: prefect block register -m blocks.

No block needs a server, a cloud or the internet to be made. Fields are those of lockstep.yaml, declared there once.
"""

from blocks.azureml import AzureMLCloud
from blocks.fleet import Fleet
from blocks.mlflow_registry import MlflowRegistry
from blocks.sagemaker import SageMakerCloud
from blocks.vertex import VertexCloud

__all__ = ["AzureMLCloud", "Fleet", "MlflowRegistry", "SageMakerCloud", "VertexCloud"]
