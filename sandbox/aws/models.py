"""Models and endpoint configurations: what an endpoint will be made of. Both are immutable."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from sandbox.aws import capture
from sandbox.aws.errors import invalid, not_implemented
from sandbox.aws.listing import page
from sandbox.aws.moto_host import MotoHost
from sandbox.aws.packages import Packages
from sandbox.aws.shapes import refuse_unsupported
from sandbox.aws.state import REGION, Document, State, arn, now

ECR_IMAGE: Final = re.compile(r"\d{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/[^\s]+")
MODEL_UNSUPPORTED: Final = ("InferenceExecutionConfig", "VpcConfig", "EnableNetworkIsolation")
CONTAINER_UNSUPPORTED: Final = (
    "ImageConfig",
    "ModelDataUrl",
    "AdditionalModelDataSources",
    "InferenceSpecificationName",
    "MultiModelConfig",
    "ContainerMetricsConfig",
)
CONFIG_UNSUPPORTED: Final = (
    "AsyncInferenceConfig",
    "ExplainerConfig",
    "ShadowProductionVariants",
    "VpcConfig",
    "EnableNetworkIsolation",
    "MetricsConfig",
    "CrossRegionTrafficConfig",
)
VARIANT_UNSUPPORTED: Final = (
    "InstancePools",
    "AcceleratorType",
    "CoreDumpConfig",
    "ServerlessConfig",
    "ManagedInstanceScaling",
    "CapacityReservationConfig",
    "AcceleratorPartitionLayouts",
)


def data_location(container: Document) -> tuple[str, str] | None:
    """Bucket and prefix of a container's model data, None when it has none; raises AwsError when it is malformed."""
    source = container.get("ModelDataSource", {}).get("S3DataSource")
    if source is None:
        return None
    uri = str(source["S3Uri"])
    if source["S3DataType"] != "S3Prefix" or source["CompressionType"] != "None":
        raise not_implemented(f"ModelDataSource {source['S3DataType']}/{source['CompressionType']}")
    refuse_unsupported(source, ("ModelAccessConfig", "HubAccessConfig", "ManifestS3Uri"), "ModelDataSource")
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not prefix.endswith("/"):
        raise invalid(f'S3Uri "{uri}" with S3DataType S3Prefix must be an S3 prefix that ends with a forward slash.')
    return bucket, prefix


class Definitions:
    """The operations on models and endpoint configurations."""

    def __init__(self, state: State, moto: MotoHost, packages: Packages) -> None:
        self._state = state
        self._moto = moto
        self._packages = packages

    def create_model(self, given: Document) -> Document:
        """CreateModel: one container, from an image and S3 data or from an approved model package."""
        refuse_unsupported(given, MODEL_UNSUPPORTED, "CreateModel")
        name = given["ModelName"]
        container = self._container(given)
        key = "PrimaryContainer" if "PrimaryContainer" in given else "Containers"
        deployed = self._checked(container, given.get("ExecutionRoleArn", ""))
        with self._state.lock:
            if name in self._state.now.models:
                raise invalid(f'Cannot create already existing model "{arn("model", name)}".')
            self._state.tag(arn("model", name), given.get("Tags"))
            self._state.now.models[name] = {
                **given,
                key: container if key == "PrimaryContainer" else [container],
                "deployed": deployed,
                "ModelArn": arn("model", name),
                "CreationTime": now(),
                "EnableNetworkIsolation": False,
            }
        return {"ModelArn": arn("model", name)}

    def describe_model(self, given: Document) -> Document:
        """DescribeModel."""
        return find_model(self._state.reading("DescribeModel").models, given["ModelName"])

    def list_models(self, given: Document) -> Document:
        """ListModels."""
        models = self._state.reading("ListModels").models.values()
        return page(models, given, "Models", lambda d: str(d["ModelName"]))

    def delete_model(self, given: Document) -> None:
        """DeleteModel; the service lets a model go that an endpoint still runs."""
        with self._state.lock:
            model = find_model(self._state.now.models, given["ModelName"])
            del self._state.now.models[model["ModelName"]]
            self._state.now.tags.pop(model["ModelArn"], None)

    def create_config(self, given: Document) -> Document:
        """CreateEndpointConfig."""
        refuse_unsupported(given, CONFIG_UNSUPPORTED, "CreateEndpointConfig")
        name = given["EndpointConfigName"]
        variants = [self._variant(variant) for variant in given["ProductionVariants"]]
        names = [variant["VariantName"] for variant in variants]
        if len(set(names)) != len(names):
            raise invalid("Production variant names must be unique within an endpoint configuration.")
        refuse_zero_weights([float(variant["InitialVariantWeight"]) for variant in variants])
        config = arn("endpoint-config", name)
        captured = {"DataCaptureConfig": capture.checked(given["DataCaptureConfig"])} if _captures(given) else {}
        with self._state.lock:
            if name in self._state.now.configs:
                raise invalid(f'Cannot create already existing endpoint configuration "{config}".')
            for variant in variants:
                find_model(self._state.now.models, variant["ModelName"])
            self._state.tag(config, given.get("Tags"))
            self._state.now.configs[name] = {
                **given,
                **captured,
                "ProductionVariants": variants,
                "EndpointConfigArn": config,
                "CreationTime": now(),
                "EnableNetworkIsolation": False,
            }
        return {"EndpointConfigArn": config}

    def describe_config(self, given: Document) -> Document:
        """DescribeEndpointConfig."""
        return find_config(self._state.reading("DescribeEndpointConfig").configs, given["EndpointConfigName"])

    def list_configs(self, given: Document) -> Document:
        """ListEndpointConfigs."""
        configs = self._state.reading("ListEndpointConfigs").configs.values()
        return page(configs, given, "EndpointConfigs", lambda d: str(d["EndpointConfigName"]))

    def delete_config(self, given: Document) -> None:
        """DeleteEndpointConfig; the service does not look whether an endpoint lives on it."""
        with self._state.lock:
            config = find_config(self._state.now.configs, given["EndpointConfigName"])
            del self._state.now.configs[config["EndpointConfigName"]]
            self._state.now.tags.pop(config["EndpointConfigArn"], None)

    @staticmethod
    def _container(given: Document) -> Document:
        several = given.get("Containers") or []
        if bool(several) == ("PrimaryContainer" in given):
            raise invalid("Exactly one of PrimaryContainer and Containers must be provided.")
        if len(several) > 1:
            raise not_implemented("CreateModel with an inference pipeline")
        container: Document = several[0] if several else given["PrimaryContainer"]
        refuse_unsupported(container, CONTAINER_UNSUPPORTED, "CreateModel")
        if container.get("Mode", "SingleModel") != "SingleModel":
            raise not_implemented("CreateModel with Mode MultiModel")
        return container

    def _checked(self, container: Document, role: str) -> Document:
        """The container that will run; a model package stands for its first container."""
        if "ModelPackageName" in container:
            if "Image" in container or "ModelDataSource" in container:
                raise invalid("Image and ModelDataSource must not be given together with ModelPackageName.")
            package = self._packages.find(container["ModelPackageName"])
            if package.get("ModelApprovalStatus", "Approved") != "Approved":
                raise invalid(
                    f"Model package {package['ModelPackageArn']} is {package['ModelApprovalStatus']}: "
                    "it must be Approved to deploy."
                )
            specified = package.get("InferenceSpecification", {}).get("Containers", [{}])[0]
            environment = {**specified.get("Environment", {}), **container.get("Environment", {})}
            container = {**specified, "Environment": environment}
        image = container.get("Image")
        if not image:
            raise invalid("A container needs an Image or a ModelPackageName.")
        if not ECR_IMAGE.fullmatch(image):
            raise invalid(f'Using non-ECR image "{image}" without Vpc repository access mode is not supported.')
        location = data_location(container)
        if location is not None and not self._moto.objects(*location):
            raise invalid(no_access(location, role))
        return container

    @staticmethod
    def _variant(variant: Document) -> Mapping[str, Any]:
        refuse_unsupported(variant, VARIANT_UNSUPPORTED, "CreateEndpointConfig")
        for name in ("ModelName", "InstanceType", "InitialInstanceCount"):
            if name not in variant:
                raise invalid(f'{name} is required for production variant "{variant["VariantName"]}".')
        refuse_no_instance(int(variant["InitialInstanceCount"]), variant["VariantName"])
        return {"InitialVariantWeight": 1.0, **variant}


def _captures(given: Document) -> bool:
    return given.get("DataCaptureConfig") is not None


def find_model(models: Mapping[str, Document], name: str) -> Document:
    """A model's document; raises AwsError in the service's words."""
    if name not in models:
        raise invalid(f'Could not find model "{arn("model", name)}".')
    return models[name]


def find_config(configs: Mapping[str, Document], name: str) -> Document:
    """An endpoint configuration's document; raises AwsError in the service's words."""
    if name not in configs:
        raise invalid(f'Could not find endpoint configuration "{arn("endpoint-config", name)}".')
    return configs[name]


def refuse_zero_weights(weights: list[float]) -> None:
    """Some variant must get traffic."""
    if not sum(weights) > 0.0:
        raise invalid("The sum of the variant weights must be greater than 0.")


def refuse_no_instance(count: int, variant: str) -> None:
    """Only inference components scale to zero."""
    if count < 1:
        raise invalid(f"The instance count of production variant {variant} must be at least 1.")


def no_access(location: tuple[str, str], role: str) -> str:
    """What CreateModel says when it finds nothing under the prefix."""
    return (
        f"Could not access model data at s3://{'/'.join(location)}. Please ensure that the role "
        f'"{role}" exists and that its trust relationship policy allows the action "sts:AssumeRole" for the service '
        'principal "sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that the '
        f"object is located in {REGION}. If your Model uses multiple models or uncompressed models, please ensure "
        'that the role has "s3:ListBucket" permission.'
    )
