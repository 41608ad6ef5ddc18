"""What Lockstep must be allowed to do on Google Cloud, as it follows from the settings, and Google's own answer.

docs/clouds.md grants these very permissions; a test compares both with the calls that the adapter makes. Project,
buckets and service account are asked by `testIamPermissions`, which takes no permission itself.
https://cloud.google.com/iam/docs/testing-permissions
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, urlencode

from lockstep.clouds.vertex.rest import Rest, VertexError
from lockstep.clouds.vertex.settings import VertexSettings
from lockstep.rules.permissions import Finding, Need, Permissions

LOOKS: Final = "tells what serves"
REGISTERS: Final = "registers versions"
COPIES: Final = "copies versions and reads them back"
KEEPS: Final = "keeps copies of the ledger"
CAPTURED: Final = "finds captured requests"

#: Permissions in the project, with what cannot be done without each.
PROJECT: Final[Mapping[str, str]] = {
    "aiplatform.endpoints.create": "makes endpoints",
    "aiplatform.endpoints.deploy": "makes and resizes slots",
    "aiplatform.endpoints.get": LOOKS,
    "aiplatform.endpoints.list": LOOKS,
    "aiplatform.endpoints.predict": "proves who answers",
    "aiplatform.endpoints.undeploy": "removes slots",
    "aiplatform.endpoints.update": "moves traffic",
    "aiplatform.models.get": "checks registered versions",
    "aiplatform.models.list": "finds registered versions",
    "aiplatform.models.upload": REGISTERS,
    "aiplatform.operations.list": "waits for what was begun",
    "monitoring.timeSeries.list": "judges what serves",
}
QUERIES: Final = "bigquery.jobs.create"
ROWS: Final = "bigquery.tables.getData"
ACT_AS: Final = "iam.serviceAccounts.actAs"
REPAIRS: Final = "storage.objects.delete"
#: Granted below what can be asked about: a no for the project does not mean that it is missing.
BELOW: Final[Mapping[str, str]] = {
    ROWS: "the project does not grant it; whether the dataset does, BigQuery does not tell",
}

#: What to look at when a resource cannot be asked about, by its kind.
HINTS: Final[Mapping[str, str]] = {
    "project": "correct project, or enable cloudresourcemanager.googleapis.com in it",
    "bucket": "correct bucket or archive_bucket",
    "account": "correct service_account, or enable iam.googleapis.com in the project",
}


@dataclass(frozen=True)
class Part:
    """Permissions with their purposes on one resource, as Google names it; `kind` says who is asked about it."""

    kind: str
    resource: str
    permissions: Mapping[str, str]

    def needs(self) -> tuple[Need, ...]:
        """One need a permission."""
        on = f"gs://{self.resource}" if self.kind == "bucket" else self.resource
        return tuple(Need(name, on, purpose, name == REPAIRS) for name, purpose in self.permissions.items())


def parts(settings: VertexSettings) -> tuple[Part, ...]:
    """Everything that is needed."""
    capturing = {QUERIES: CAPTURED, ROWS: CAPTURED} if settings.capture_dataset else {}
    found = [
        Part("project", f"projects/{settings.project}", {**PROJECT, **capturing}),
        Part(
            "bucket",
            settings.bucket,
            {
                "storage.objects.create": COPIES,
                "storage.objects.get": COPIES,
                "storage.objects.list": COPIES,
                REPAIRS: "repairs copies, lockstep replicate --repair",
            },
        ),
    ]
    if settings.archive_bucket:
        names = ("storage.buckets.get", "storage.objects.create", "storage.objects.get", "storage.objects.list")
        found.append(Part("bucket", settings.archive_bucket, dict.fromkeys(names, KEEPS)))
    if settings.service_account:
        resource = f"projects/-/serviceAccounts/{settings.service_account}"
        found.append(Part("account", resource, {ACT_AS: "gives containers their service account"}))
    return tuple(found)


def ask(rest: Rest, settings: VertexSettings) -> Permissions:
    """What is needed, and what of it Google says that the caller has."""
    findings: list[Finding] = []
    for part in parts(settings):
        held, why = _held(rest, settings, part)
        for need in part.needs():
            hidden = why or BELOW.get(need.permission, "")
            if need.permission in held:
                findings.append(Finding(need, True))
            else:
                findings.append(Finding(need, None if hidden else False, hidden))
    return Permissions(tuple(findings))


def _held(rest: Rest, settings: VertexSettings, part: Part) -> tuple[frozenset[str], str]:
    """Which of a part's permissions the caller holds; or why that cannot be told. One request takes a hundred."""
    names = list(part.permissions)
    try:
        if part.kind == "bucket":
            query = urlencode([("permissions", name) for name in names])
            bucket = f"{settings.storage}/storage/v1/b/{quote(part.resource, safe='')}"
            answer = rest.call("GET", f"{bucket}/iam/testPermissions?{query}")
        else:
            api = f"{settings.resource_manager}/v3" if part.kind == "project" else f"{settings.iam}/v1"
            url = f"{api}/{part.resource}:testIamPermissions"
            answer = rest.call("POST", url, body={"permissions": names}, repeatable=True)
    except VertexError as error:
        if error.http not in (400, 403, 404):
            raise
        return frozenset(), f"Google does not answer about {part.resource}: {error.message} ({HINTS[part.kind]})"
    return frozenset(answer.get("permissions", ())), ""
