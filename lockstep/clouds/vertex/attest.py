"""What somebody changed of a version's records: its Vertex version and the deployed model of its slot.

A version's bytes, image and environment are set once; its labels, names, descriptions and aliases can be changed. A
deployed model cannot be changed, but a slot's name can be given to another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lockstep.clouds.vertex import records
from lockstep.clouds.vertex.records import EndpointRecord
from lockstep.rules.attestation import additions, differences
from lockstep.rules.state import Version

#: Of a container: what would run instead of what the image starts.
NEVER_WRITTEN = ("command", "args")
DESCRIPTIONS = ("displayName", "versionDescription", "artifactUri")


def attest_model(record: Mapping[str, Any], version: Version, image: str, artifact_uri: str) -> tuple[str, ...]:
    """What of a Vertex version differs; `image` is empty where no image was pinned."""
    where = f"Vertex model {_number(record)}"
    wanted = records.upload_body(version, image, artifact_uri)
    spec, written = record.get("containerSpec", {}), wanted["containerSpec"]
    shown = {**record, "artifactUri": str(record.get("artifactUri", "")).rstrip("/")}
    told = differences(where, shown, {name: wanted[name] for name in DESCRIPTIONS})
    told += differences(
        where,
        {f"label {key}": record.get("labels", {}).get(key) for key in wanted["labels"]},
        {f"label {key}": value for key, value in wanted["labels"].items()},
    )
    if version.slot not in record.get("versionAliases", ()):
        told += (f"{where}: its alias {version.slot} was taken away",)
    if image:
        told += differences(where, {"image": spec.get("imageUri")}, {"image": image})
    told += differences(where, spec, {name: written[name] for name in ("predictRoute", "healthRoute")})
    told += differences(where, {"ports": _ports(spec)}, {"ports": _ports(written)})
    told += additions(where, "setting", {name: spec[name] for name in NEVER_WRITTEN if spec.get(name)}, {})
    found, pinned = records.container_env(record), records.container_env(wanted)
    return told + differences(where, found, pinned) + additions(where, "environment variable", found, pinned)


def attest_slot(
    endpoint: EndpointRecord, version: Version, record: Mapping[str, Any] | None, title: str
) -> tuple[str, ...]:
    """What of the deployed models that bear the slot's name differs; nothing for an endpoint without this slot."""
    named = [deployed for deployed in endpoint.deployed if deployed.slot == version.slot]
    told: tuple[str, ...] = ()
    if len(named) > 1:
        told += (f"endpoint {title}: {len(named)} deployed models are called {version.slot}",)
    if record is None:
        return told
    for deployed in named:
        where = f"deployed model {deployed.id} ({version.slot}) of endpoint {title}"
        told += differences(where, {"model": f"{deployed.model}@{deployed.version_id}"}, {"model": _number(record)})
    return told


def _number(record: Mapping[str, Any]) -> str:
    return f"{str(record['name']).rpartition('/')[2].partition('@')[0]}@{record['versionId']}"


def _ports(spec: Mapping[str, Any]) -> list[int]:
    return [int(port["containerPort"]) for port in spec.get("ports", ())]
