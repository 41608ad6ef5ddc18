"""Azure Machine Learning: managed online endpoints, one deployment per version, bytes in Blob Storage.

| module       | speaks to                                                                        |
|--------------|----------------------------------------------------------------------------------|
| `settings`   | nobody: what a person configures                                                 |
| `access`     | Entra ID: credentials, and which certificates are trusted                        |
| `arm`        | Azure Resource Manager's REST API below one workspace, through ARMPipelineClient |
| `assets`     | the workspace's models and environments (azure-ai-ml)                            |
| `endpoints`  | endpoints and their traffic                                                      |
| `slots`      | deployments                                                                      |
| `scoring`    | the endpoints' own addresses                                                     |
| `metrics`    | Azure Monitor                                                                    |
| `failures`   | nobody: vendor errors in Lockstep's words                                        |
"""

from lockstep.clouds.azureml.adapter import AzureML
from lockstep.clouds.azureml.settings import AzureMLSettings

__all__ = ["AzureML", "AzureMLSettings"]
