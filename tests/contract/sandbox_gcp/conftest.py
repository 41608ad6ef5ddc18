"""One endpoint that serves two versions, and what they are made of, for all tests of the Google Cloud sandbox."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator

import pytest
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.oauth2 import service_account

from tests.contract.gcp_rest import Json, Uploaded, Vertex
from tests.contract.sandbox_gcp.calls import SCOPES
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox


@pytest.fixture(scope="package")
def settings(sandbox: RunningSandbox) -> dict[str, str]:
    return dict(sandbox.settings["gcp"])


@pytest.fixture(scope="package")
def credentials(settings: dict[str, str]) -> service_account.Credentials:
    made: service_account.Credentials = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
        settings["credentials_file"], scopes=SCOPES
    )
    return made


@pytest.fixture(scope="package")
def vertex(settings: dict[str, str], credentials: service_account.Credentials) -> Vertex:
    return Vertex(AuthorizedSession(credentials), settings)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="package")
def bucket(settings: dict[str, str], credentials: service_account.Credentials) -> storage.Bucket:
    options = {"api_endpoint": settings["storage_endpoint"]}
    client = storage.Client(project=settings["project"], credentials=credentials, client_options=options)
    return client.bucket(settings["bucket"])


@pytest.fixture(scope="package")
def store(bucket: storage.Bucket) -> Callable[[ModelVersion, str], Uploaded]:
    def put(version: ModelVersion, prefix: str) -> Uploaded:
        for name, content in version.objects().items():
            bucket.blob(f"{prefix}/{name}").upload_from_string(content, timeout=30)
        return Uploaded(version, f"gs://{bucket.name}/{prefix}")

    return put


@pytest.fixture(scope="package")
def uploads(
    store: Callable[[ModelVersion, str], Uploaded], model_versions: tuple[ModelVersion, ModelVersion]
) -> tuple[Uploaded, Uploaded]:
    return store(model_versions[0], "sandbox-gcp/v1"), store(model_versions[1], "sandbox-gcp/v2")


@pytest.fixture
def model_body(vertex: Vertex, uploads: tuple[Uploaded, Uploaded]) -> Json:
    version = uploads[0].version
    return vertex.model_body(uploads[0].uri, version.digest, version.label)


@pytest.fixture
def name() -> str:
    return "t" + uuid.uuid4().hex[:12]


@pytest.fixture(scope="package")
def model(vertex: Vertex, uploads: tuple[Uploaded, Uploaded]) -> Iterator[str]:
    """A model with two versions that can be deployed."""
    model_id = "m" + uuid.uuid4().hex[:12]
    for n, uploaded in enumerate(uploads):
        version = uploaded.version
        where = {"parentModel": f"{vertex.parent}/models/{model_id}"} if n else {"modelId": model_id}
        vertex.upload(vertex.model_body(uploaded.uri, version.digest, version.label), **where)
    yield model_id
    vertex.done(vertex.models("DELETE", f"/{model_id}"))


@pytest.fixture(scope="package")
def serving(vertex: Vertex, model: str) -> Iterator[tuple[str, str, str]]:
    """An endpoint that serves both versions: its id and the two deployed model ids; all traffic goes to the first."""
    with vertex.endpoint("e" + uuid.uuid4().hex[:12]) as endpoint:
        first = vertex.deploy(endpoint, f"{model}@1", 100, displayName="first")
        second = vertex.deploy(endpoint, f"{model}@2", displayName="second")
        yield endpoint, first, second


@pytest.fixture(scope="package")
def instances() -> list[Json]:
    from sklearn.datasets import load_breast_cancer

    frame, _ = load_breast_cancer(return_X_y=True, as_frame=True)
    frame = frame.rename(columns=lambda column: column.replace(" ", "_"))
    return list(json.loads(frame.head(2).to_json(orient="records")))
