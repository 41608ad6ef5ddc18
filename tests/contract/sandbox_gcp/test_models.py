"""Models and their versions in the Google Cloud sandbox."""

from __future__ import annotations

from functools import partial

import pytest

from tests.contract.gcp_rest import Json, Vertex
from tests.contract.sandbox_gcp.calls import refusal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"displayName": ""}, "display name is required"),
        ({"displayName": "x" * 129}, "128 characters"),
        ({"containerSpec": {"imageUri": "docker.io/library/nginx"}}, "Artifact Registry"),
        ({"containerSpec": {}}, "container_spec"),
        ({"artifactUri": "/tmp/model"}, "gs://bucket/path"),
        ({"labels": {"digest": "sha256:abc"}}, "Label value"),
        ({"labels": {"Digest": "abc"}}, "Label key"),
        ({"labels": {f"l{n}": "x" for n in range(65)}}, "No more than 64"),
        ({"versionAliases": ["not_an_alias"]}, "version alias"),
    ],
)
def test_an_upload_is_checked(vertex: Vertex, model_body: Json, change: Json, message: str) -> None:
    error = refusal(lambda: vertex.models("POST", ":upload", {"model": {**model_body, **change}}))
    assert error.status == "INVALID_ARGUMENT"
    assert message in error.message


def test_a_sha256_fits_into_a_label_and_ids_are_unique(vertex: Vertex, model_body: Json, name: str) -> None:
    vertex.upload({**model_body, "labels": {"digest": "a" * 64}}, modelId=name)
    again = refusal(lambda: vertex.upload(model_body, modelId=name))
    assert (again.code, again.status) == (409, "ALREADY_EXISTS")
    assert refusal(lambda: vertex.upload(model_body, modelId="9lives")).status == "INVALID_ARGUMENT"
    both = {"modelId": "x", "parentModel": f"{vertex.parent}/models/{name}"}
    assert refusal(lambda: vertex.upload(model_body, **both)).status == "INVALID_ARGUMENT"
    assert refusal(lambda: vertex.upload(model_body, parentModel=f"{vertex.parent}/models/none")).status == "NOT_FOUND"
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_an_upload_without_files_fails_in_its_operation(vertex: Vertex, model_body: Json, name: str) -> None:
    body = {"model": {**model_body, "artifactUri": model_body["artifactUri"] + "-none"}, "modelId": name}
    error = vertex.finished(vertex.models("POST", ":upload", body))["error"]
    assert error["code"] == 9
    assert "There are no files under" in error["message"]
    assert refusal(lambda: vertex.models("GET", f"/{name}")).status == "NOT_FOUND"


def test_versions_and_aliases(vertex: Vertex, model_body: Json, name: str) -> None:
    vertex.upload(model_body, modelId=name)
    parent = {"parentModel": f"{vertex.parent}/models/{name}"}
    vertex.upload({**model_body, "versionAliases": ["default", "fresh"]}, **parent)
    vertex.upload(model_body, **parent)

    def aliases(version: str) -> list[str]:
        return list(vertex.models("GET", f"/{name}@{version}").get("versionAliases", []))

    assert (aliases("1"), aliases("2"), aliases("3")) == ([], ["default", "fresh"], [])
    assert vertex.models("GET", f"/{name}")["versionId"] == "2"

    def merge(version: str, *wanted: str) -> Json:
        return vertex.models("POST", f"/{name}{version}:mergeVersionAliases", {"versionAliases": wanted})

    assert merge("@3", "champion")["versionAliases"] == ["champion"]
    merge("@1", "champion", "default")
    assert (aliases("1"), aliases("2"), aliases("3")) == (["champion", "default"], ["fresh"], [])
    assert vertex.models("GET", f"/{name}@champion")["versionId"] == "1"
    merge("@1", "-champion")
    assert aliases("1") == ["default"]
    assert "must include a version ID" in refusal(lambda: merge("", "champion")).message
    assert "cannot be removed" in refusal(lambda: merge("@1", "-default")).message
    assert "version alias" in refusal(lambda: merge("@1", "has_underscore")).message
    listed = vertex.models("GET", f"/{name}:listVersions", pageSize="2")
    assert [m["versionId"] for m in listed["models"]] == ["3", "2"]
    rest = vertex.models("GET", f"/{name}:listVersions", pageSize="2", pageToken=listed["nextPageToken"])
    assert [m["versionId"] for m in rest["models"]] == ["1"]
    assert refusal(lambda: vertex.models("GET", f"/{name}@9")).status == "NOT_FOUND"
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_an_update_changes_words_only(vertex: Vertex, model_body: Json, name: str) -> None:
    vertex.upload(model_body, modelId=name)
    changed = vertex.models("PATCH", f"/{name}@1", {"versionDescription": "v1"}, updateMask="version_description")
    assert changed["versionDescription"] == "v1"
    for mask in ("artifactUri", "containerSpec.imageUri", ""):
        error = refusal(partial(vertex.models, "PATCH", f"/{name}@1", {}, updateMask=mask))
        assert error.status == "INVALID_ARGUMENT"
    stale = {"description": "x", "etag": "old"}
    assert refusal(lambda: vertex.models("PATCH", f"/{name}", stale, updateMask="description")).status == "ABORTED"
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_versions_are_deleted_by_the_rules(vertex: Vertex, model_body: Json, name: str) -> None:
    vertex.upload(model_body, modelId=name)

    def delete(version: str) -> Json:
        return vertex.done(vertex.models("DELETE", f"/{name}{version}:deleteVersion"))

    assert "only version" in refusal(lambda: delete("@1")).message
    vertex.upload(model_body, parentModel=f"{vertex.parent}/models/{name}")
    assert "default version" in refusal(lambda: delete("@1")).message
    assert "must include a version" in refusal(lambda: delete("")).message
    delete("@2")
    third = vertex.upload(model_body, parentModel=f"{vertex.parent}/models/{name}")
    assert third["modelVersionId"] == "3"  # numbers are never used twice
    vertex.done(vertex.models("DELETE", f"/{name}"))


def test_a_deployed_model_is_not_deleted(vertex: Vertex, model: str, serving: tuple[str, str, str]) -> None:
    for path in (f"/{model}", f"/{model}@2:deleteVersion"):
        error = refusal(partial(vertex.models, "DELETE", path))
        assert error.status == "FAILED_PRECONDITION"
        assert serving[0] in error.message
    shown = vertex.models("GET", f"/{model}@2")["deployedModels"]
    assert [d["deployedModelId"] for d in shown] == [serving[2]]
