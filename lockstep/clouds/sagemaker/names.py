"""Names that SageMaker accepts, derived from endpoint and slot so that every caller finds the same resource."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from lockstep.errors import RefusedError

#: EntityName, EndpointName, VariantName and ModelName of the service description; TAG is the charset of tag values
#: and of CustomerMetadataProperties.
NAME: Final = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}")
TAG: Final = re.compile(r"[\w .:/=+\-@]{1,256}")
SLOT: Final = re.compile(r"v(?P<label>.+)-(?P<digest>[0-9a-f]{8})")
LONGEST: Final = 63


def checked(name: str, what: str, cloud: str) -> str:
    """`name` if SageMaker takes it; raises RefusedError with the rule that it breaks."""
    if len(name) <= LONGEST and NAME.fullmatch(name):
        return name
    raise RefusedError(
        f"{what} {name!r} is not a name that SageMaker allows: 1 to {LONGEST} letters, digits and dashes, "
        "beginning and ending with a letter or digit",
        cloud=cloud,
        hint="rename the model in MLflow, or change endpoint_name of this cloud in lockstep.yaml",
    )


def tag_value(value: str, what: str, cloud: str) -> str:
    """`value` if AWS takes it as a tag's; raises RefusedError with the rule that it breaks."""
    if TAG.fullmatch(value):
        return value
    raise RefusedError(
        f"{what} {value!r} cannot be written on the record: "
        "an AWS tag takes 1 to 256 letters, digits, spaces and _.:/=+-@",
        cloud=cloud,
        hint="register the version under a label that follows this rule",
    )


def model_name(endpoint: str, slot: str) -> str:
    """Name of the SageMaker Model behind a slot."""
    name = f"{endpoint}-{slot}"
    if len(name) <= LONGEST:
        return name
    return f"{endpoint[: LONGEST - len(slot) - 10]}-{_hash(endpoint, 8)}-{slot}"


def config_stem(endpoint: str) -> str:
    """What the names of all configurations of an endpoint begin with, at most 46 characters."""
    return endpoint if len(endpoint) <= 46 else f"{endpoint[:37]}-{_hash(endpoint, 8)}"


def config_name(endpoint: str, content: Mapping[str, Any]) -> str:
    """Name of the configuration with this content: equal content, equal name."""
    return f"{config_stem(endpoint)}-{_hash(json.dumps(content, sort_keys=True, default=str), 16)}"


def is_own_config(endpoint: str, name: str) -> bool:
    """Whether `name` is one that `config_name` gives for this endpoint."""
    return re.fullmatch(re.escape(config_stem(endpoint)) + r"-[0-9a-f]{16}", name) is not None


def slot_label(slot: str) -> str:
    """The label in a slot's name; "" for a variant that Lockstep did not name."""
    match = SLOT.fullmatch(slot)
    return match["label"] if match else ""


def console(region: str, page: str) -> str:
    """A page of the SageMaker console in the region's partition."""
    host = f"{region}.console.aws.amazon.com"
    if region.startswith("cn-"):
        host = f"{region}.console.amazonaws.cn"
    elif region.startswith("us-gov-"):
        host = f"{region}.console.amazonaws-us-gov.com"
    return f"https://{host}/sagemaker/home?region={region}#/{page}"


def _hash(text: str, digits: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
