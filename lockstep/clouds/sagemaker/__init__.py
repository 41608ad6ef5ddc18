"""Amazon SageMaker: settings and adapter. Importing this loads no vendor SDK."""

from lockstep.clouds.sagemaker.adapter import SageMaker
from lockstep.clouds.sagemaker.settings import SageMakerSettings

__all__ = ["SageMaker", "SageMakerSettings"]
