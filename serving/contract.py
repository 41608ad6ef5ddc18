"""What the three clouds tell a serving container through its environment.

- SageMaker: model files in `/opt/ml/model`, port 8080, `GET /ping`, `POST /invocations`.
- Azure ML: `AZUREML_MODEL_DIR` holds the model's folder; port and routes are what the environment's inference
  configuration says, by default 8080, `/health` and `/score`.
- Vertex AI: `AIP_STORAGE_URI`, `AIP_HTTP_PORT`, `AIP_HEALTH_ROUTE`, `AIP_PREDICT_ROUTE`; the container fetches
  its model itself.

`PORT` and `HOST` override, as a container runtime's port mapping does. `LOCKSTEP_DIGEST` pins the version.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SAGEMAKER_FOLDER: Final = "/opt/ml/model"
DEFAULT_PORT: Final = "8080"
SHA256: Final = re.compile(r"[0-9a-f]{64}")


class ContractError(Exception):
    """The container was started with settings that it cannot serve with."""


@dataclass(frozen=True)
class Contract:
    """How to find the model and how to be asked.

    Exactly one of `folder` and `storage_uri` is set. `digest` is the hex SHA-256 of the manifest, `version` its label.
    `health_routes` and `score_routes` are answered beside the routes of the scoring server; `vertex_route` is the one
    whose answers carry version and digest in their body, since Vertex AI passes no header of the container on.
    """

    host: str
    port: int
    folder: Path | None
    storage_uri: str | None
    digest: str
    version: str
    health_routes: frozenset[str]
    score_routes: frozenset[str]
    vertex_route: str | None


def read_contract(environment: Mapping[str, str]) -> Contract:
    """Read a container's environment; raises ContractError naming the variable that is missing or wrong."""
    digest = environment.get("LOCKSTEP_DIGEST", "")
    if not SHA256.fullmatch(digest):
        raise ContractError(
            "LOCKSTEP_DIGEST must be the 64 hex digits of the version's manifest digest, "
            f"not {digest!r}: deploy through Lockstep, or set it to `sha256sum manifest.json`"
        )
    port = environment.get("PORT") or environment.get("AIP_HTTP_PORT") or environment.get("SAGEMAKER_BIND_TO_PORT")
    try:
        number = int(port or DEFAULT_PORT)
    except ValueError:
        raise ContractError(f"PORT must be a number, not {port!r}") from None
    storage_uri = environment.get("AIP_STORAGE_URI") or None
    if storage_uri is not None and not storage_uri.startswith("gs://"):
        raise ContractError(f"AIP_STORAGE_URI must start with gs://, not {storage_uri!r}")
    folder = environment.get("AZUREML_MODEL_DIR") or environment.get("SM_MODEL_DIR") or SAGEMAKER_FOLDER
    predict = environment.get("AIP_PREDICT_ROUTE")
    return Contract(
        host=environment.get("HOST", "0.0.0.0"),  # noqa: S104 - inside a container the platform decides who may reach it
        port=number,
        folder=None if storage_uri else Path(folder),
        storage_uri=storage_uri,
        digest=digest,
        version=environment.get("LOCKSTEP_VERSION", digest[:12]),
        health_routes=frozenset({"/", "/ping", "/health"} | _present(environment, "AIP_HEALTH_ROUTE")),
        score_routes=frozenset({"/invocations", "/score"} | ({predict} if predict else set())),
        vertex_route=predict,
    )


def _present(environment: Mapping[str, str], name: str) -> set[str]:
    return {environment[name]} if environment.get(name) else set()
