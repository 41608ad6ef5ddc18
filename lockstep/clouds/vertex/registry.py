"""The model registry: one Vertex model per Lockstep model, one version of it per Lockstep version."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lockstep.clouds.vertex import records
from lockstep.clouds.vertex.endpoints import CONSOLE, Endpoints
from lockstep.clouds.vertex.rest import JsonObject, Rest, VertexError, delays
from lockstep.clouds.vertex.sdk import Sdk
from lockstep.clouds.vertex.settings import VertexSettings
from lockstep.errors import DigestMismatchError, RefusedError, RetryLaterError
from lockstep.rules.measurement import NativeVersion
from lockstep.rules.state import Version


class Registry:
    """Finds and uploads versions. An upload is never made the default version: no alias moves."""

    def __init__(self, cloud: str, settings: VertexSettings, rest: Rest, sdk: Sdk, endpoints: Endpoints) -> None:
        self._cloud = cloud
        self._settings = settings
        self._rest = rest
        self._sdk = sdk
        self._endpoints = endpoints

    def _model(self, version: Version) -> str:
        return f"{self._settings.parent}/models/{records.resource_id(version.model)}"

    def native(self, record: Mapping[str, Any]) -> NativeVersion:
        """A version's record as Lockstep's value."""
        given = self._settings
        model_id, number = str(record["name"]).rpartition("/")[2].partition("@")[0], str(record["versionId"])
        page = f"{CONSOLE}/models/locations/{given.location}/models/{model_id}/versions/{number}/properties"
        return NativeVersion(
            cloud=self._cloud,
            resource=f"{given.parent}/models/{model_id}@{number}",
            console_url=f"{page}?project={given.project}",
        )

    def find(self, version: Version) -> JsonObject | None:
        """The oldest Vertex version that was uploaded for this digest; None without one."""
        found = [one for one in self._listed(version) or () if _is_for(one, version.digest)]
        return min(found, key=lambda one: int(one["versionId"]), default=None)

    def _listed(self, version: Version) -> list[JsonObject] | None:
        url = f"{self._settings.api}/{self._model(version)}:listVersions"
        try:
            return list(self._rest.pages(url, "models", {"pageSize": 100}))
        except VertexError as error:
            if error.http == 404:
                return None
            raise

    def have(self, version: Version, deadline: float, image: str) -> JsonObject:
        """The version's record, uploaded if there is none; joins an upload that an earlier attempt left running.

        `deadline` is in `time.monotonic()` seconds.
        """
        resource = f"{self._settings.api}/{self._model(version)}"
        for delay in delays():
            listed = self._listed(version)
            found = [one for one in listed or () if _is_for(one, version.digest)]
            if found:
                return self._same_bytes(version, min(found, key=lambda one: int(one["versionId"])))
            self._refuse_taken_name(version, listed or [])
            running = self._endpoints.running(resource)
            if running:
                self._endpoints.await_others(running, deadline, f"{version} cannot be uploaded")
                continue
            try:
                number = self._upload(version, deadline, image, new_model=listed is None)
                return self._same_bytes(version, self._read_back(version, number))
            except VertexError as error:
                passing = error.status == "ALREADY_EXISTS" or error.is_busy
                if not passing or time.monotonic() > deadline:
                    raise
            time.sleep(delay)  # somebody else is uploading to the model at this moment
        raise AssertionError

    def _upload(self, version: Version, deadline: float, image: str, *, new_model: bool) -> str:
        """Upload, wait for the end, and return the number of the new Vertex version."""
        given = self._settings
        uri = f"{given.uri}/{version.prefix}"
        body: JsonObject = {"parent": given.parent, "model": records.upload_body(version, image, uri)}
        if new_model:
            body["modelId"] = records.resource_id(version.model)
        else:
            body["parentModel"] = self._model(version)
        if given.service_account:
            body["serviceAccount"] = given.service_account
        operation = self._sdk.upload_model(body)
        response = self._rest.finish(given.api, operation, deadline, f"the upload of {version}")
        return str(response.get("modelVersionId", ""))

    def _read_back(self, version: Version, number: str) -> JsonObject:
        """What was just uploaded, by its number: a listing may lag behind, and would invite a second upload."""
        limit = time.monotonic() + self._settings.traffic_timeout
        for delay in delays():
            try:
                return self._sdk.get_model(f"{self._model(version)}@{number}")
            except VertexError as error:
                if error.http != 404:
                    raise
            if time.monotonic() > limit:
                raise RetryLaterError(
                    f"{version} was uploaded, but does not appear in the model registry",
                    hint=f"look at `gcloud ai models list-version {records.resource_id(version.model)}`, then repeat",
                    cloud=self._cloud,
                )
            time.sleep(delay)
        raise AssertionError

    def _refuse_taken_name(self, version: Version, listed: list[JsonObject]) -> None:
        """Uploading would take the slot's alias away from the version that has it."""
        for one in listed:
            if version.slot in one.get("versionAliases", ()):
                raise RefusedError(
                    f"version {one['versionId']} of the Vertex model {records.resource_id(version.model)} is called "
                    f"{version.slot} and has digest {records.digest_of(one) or 'unknown'}, not {version.digest}",
                    hint="register the model again in MLflow, so that it gets another number",
                    cloud=self._cloud,
                )

    def _same_bytes(self, version: Version, record: JsonObject) -> JsonObject:
        uri, pinned = f"{self._settings.uri}/{version.prefix}", records.container_env(record).get("LOCKSTEP_DIGEST", "")
        at = str(record.get("artifactUri", "")).rstrip("/")
        labelled = record.get("labels", {}).get(records.DIGEST, version.digest)
        if (pinned, labelled, at) != (version.digest, version.digest, uri):
            raise DigestMismatchError(
                f"{version} is registered as {record['name']}@{record['versionId']}, which points to {at or 'no bytes'}"
                f" with digest {pinned or 'none'} (label {labelled}), not to {uri}",
                hint="its labels were changed or another store was in use; delete that Vertex version and repeat",
                cloud=self._cloud,
            )
        return record


def _is_for(record: Mapping[str, Any], digest: str) -> bool:
    return digest in (records.digest_of(record), record.get("labels", {}).get(records.DIGEST))
