"""SageMaker's control plane: every operation checked against the service description, carried out, and projected."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from sandbox.aws.endpoints import Endpoints
from sandbox.aws.errors import invalid, not_implemented
from sandbox.aws.models import Definitions
from sandbox.aws.packages import Packages
from sandbox.aws.shapes import check, project, service
from sandbox.aws.state import CLOUD, Document, State, Tables, arn
from sandbox.world import World

Operation = Callable[[Document], Document | None]
#: Writes without a long-running part, and what an `ignore` fault answers in their place (endpoints.py has the rest).
IGNORABLE: Final[Mapping[str, Operation]] = {
    "CreateModelPackageGroup": lambda g: {
        "ModelPackageGroupArn": arn("model-package-group", g["ModelPackageGroupName"])
    },
    "UpdateModelPackage": lambda g: {"ModelPackageArn": g["ModelPackageArn"]},
    "DeleteModelPackageGroup": lambda g: None,
    "DeleteModelPackage": lambda g: None,
    "CreateModel": lambda g: {"ModelArn": arn("model", g["ModelName"])},
    "DeleteModel": lambda g: None,
    "CreateEndpointConfig": lambda g: {"EndpointConfigArn": arn("endpoint-config", g["EndpointConfigName"])},
    "DeleteEndpointConfig": lambda g: None,
    "AddTags": lambda g: {"Tags": g["Tags"]},
    "DeleteTags": lambda g: {},
}


class SageMaker:
    """Dispatches one operation."""

    def __init__(
        self, world: World, state: State, packages: Packages, definitions: Definitions, endpoints: Endpoints
    ) -> None:
        self._world = world
        self._state = state
        self._model: Final = service("sagemaker")
        self._operations: Final[Mapping[str, Operation]] = {
            "CreateModelPackageGroup": packages.create_group,
            "DescribeModelPackageGroup": packages.describe_group,
            "ListModelPackageGroups": packages.list_groups,
            "DeleteModelPackageGroup": packages.delete_group,
            "CreateModelPackage": packages.create,
            "DescribeModelPackage": packages.describe,
            "UpdateModelPackage": packages.update,
            "ListModelPackages": packages.list,
            "DeleteModelPackage": packages.delete,
            "CreateModel": definitions.create_model,
            "DescribeModel": definitions.describe_model,
            "ListModels": definitions.list_models,
            "DeleteModel": definitions.delete_model,
            "CreateEndpointConfig": definitions.create_config,
            "DescribeEndpointConfig": definitions.describe_config,
            "ListEndpointConfigs": definitions.list_configs,
            "DeleteEndpointConfig": definitions.delete_config,
            "CreateEndpoint": endpoints.create,
            "DescribeEndpoint": endpoints.describe,
            "ListEndpoints": endpoints.list,
            "UpdateEndpoint": endpoints.update,
            "UpdateEndpointWeightsAndCapacities": endpoints.update_weights,
            "DeleteEndpoint": endpoints.delete,
            "AddTags": self._add_tags,
            "ListTags": self._list_tags,
            "DeleteTags": self._delete_tags,
        }

    def answer(self, operation: str, given: Document, resource: str) -> Any:
        """Carry out one operation on `resource`; returns JSON-ready output (None: empty body) or raises AwsError."""
        if operation not in self._operations:
            raise not_implemented(f"SageMaker {operation}")
        check(self._model, operation, given)
        carry_out = self._operations[operation]
        if operation in IGNORABLE and self._world.faults.take(CLOUD, operation, ("ignore",), resource) is not None:
            carry_out = IGNORABLE[operation]
        result = carry_out(given)
        shape = self._model.operation_model(operation).output_shape
        return None if shape is None or result is None else project(shape, result)

    def _add_tags(self, given: Document) -> Document:
        with self._state.lock:
            _known(self._state.now, given["ResourceArn"])
            self._state.tag(given["ResourceArn"], given["Tags"])
            return {"Tags": _pairs(self._state.now, given["ResourceArn"])}

    def _list_tags(self, given: Document) -> Document:
        tables = self._state.reading("ListTags")
        _known(tables, given["ResourceArn"])
        return {"Tags": _pairs(tables, given["ResourceArn"])}

    def _delete_tags(self, given: Document) -> Document:
        with self._state.lock:
            _known(self._state.now, given["ResourceArn"])
            tags = self._state.now.tags.get(given["ResourceArn"], {})
            self._state.now.tags[given["ResourceArn"]] = {
                key: value for key, value in tags.items() if key not in given["TagKeys"]
            }
        return {}


def _known(tables: Tables, resource: str) -> None:
    if resource not in tables.tags:
        raise invalid(f"Could not find resource {resource}.")


def _pairs(tables: Tables, resource: str) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tables.tags[resource].items()]
