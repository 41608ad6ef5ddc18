"""prefect.yaml as work pool and deployments on a Prefect server: what differs, and deploying it."""

from __future__ import annotations

import contextlib
import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.settings import get_current_settings
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from blocks.saving import Difference
from lockstep.errors import LockstepError

ROOT: Final = Path(__file__).resolve().parent.parent
TIMEOUT: Final = 180.0  # seconds for `prefect deploy --all`


def differences() -> tuple[Difference, ...]:
    """What deploying would change; reads the server only."""
    found: list[Difference] = []
    with get_client(sync_client=True) as client:
        for pool in sorted({entry["work_pool"]["name"] for entry in _entries()}):
            found.append(Difference("work pool", pool, "unchanged" if _has_pool(client, pool) else "added"))
        for entry in _entries():
            found.append(_difference(client, entry))
    return tuple(found)


def deploy() -> None:
    """Make the work pools and all deployments; schedules that a person turned on or off stay as they are."""
    with get_client(sync_client=True) as client:
        for pool in {entry["work_pool"]["name"] for entry in _entries()}:
            if not _has_pool(client, pool):
                template = ProcessWorker.get_default_base_job_template()
                client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
        for pool, queue in sorted(_queues()):
            with contextlib.suppress(ObjectAlreadyExists):  # a priority that a person gave it stays
                client.create_work_queue(queue, priority=1, work_pool_name=pool)
        before = {entry["name"]: _schedules(client, entry) for entry in _entries()}
        _run_prefect_deploy()
        for entry in _entries():
            deployed = _deployed(client, entry)
            for schedule in deployed.schedules if deployed is not None else ():
                active = before[entry["name"]].get(schedule.slug or "")
                if deployed is not None and active is not None and active != schedule.active:
                    client.update_deployment_schedule(deployed.id, schedule.id, active=active)


def _run_prefect_deploy() -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    settings = get_current_settings().to_environment_variables(exclude_unset=True, include_secrets=True)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **settings},  # the server that was compared with, whatever the shell says
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise LockstepError(
            f"`prefect deploy --all` did not end within {TIMEOUT:.0f} s", hint=f"run it by hand in {ROOT}"
        ) from error
    if done.returncode:
        tail = (done.stdout + done.stderr).strip()[-1500:]
        raise LockstepError(f"`prefect deploy --all` failed: {tail}", hint=f"run it by hand in {ROOT}")


def _entries() -> list[dict[str, Any]]:
    return list(yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8"))["deployments"])


def _queues() -> set[tuple[str, str]]:
    """Pools and the queues in them that deployments name."""
    pools = [entry["work_pool"] for entry in _entries()]
    return {(pool["name"], pool["work_queue_name"]) for pool in pools if "work_queue_name" in pool}


def _flow(entry: Mapping[str, Any]) -> Flow[Any, Any]:
    path, name = entry["entrypoint"].split(":")
    found = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
    assert isinstance(found, Flow)
    return found


def _deployed(client: SyncPrefectClient, entry: Mapping[str, Any]) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(f"{_flow(entry).name}/{entry['name']}")
    except ObjectNotFound:
        return None


def _schedules(client: SyncPrefectClient, entry: Mapping[str, Any]) -> dict[str, bool]:
    deployed = _deployed(client, entry)
    return {} if deployed is None else {schedule.slug or "": schedule.active for schedule in deployed.schedules}


def _difference(client: SyncPrefectClient, entry: Mapping[str, Any]) -> Difference:
    deployed = _deployed(client, entry)
    if deployed is None:
        return Difference("deployment", entry["name"], "added")
    wanted, existing = _wanted(entry), _existing(deployed)
    fields = [name for name in wanted if wanted[name] != existing[name]]
    names = [trigger["name"] for trigger in entry.get("triggers", ())]
    if any(not client.read_automations_by_name(name) for name in names):
        fields.append("triggers")
    return Difference("deployment", entry["name"], "changed" if fields else "unchanged", tuple(fields))


def _wanted(entry: Mapping[str, Any]) -> dict[str, object]:
    limit = entry.get("concurrency_limit")
    return {
        "description": entry["description"],
        "tags": sorted(entry["tags"]),
        "parameters": entry["parameters"],
        "entrypoint": entry["entrypoint"],
        "folder": str(ROOT),
        "work_pool": entry["work_pool"]["name"],
        "work_queue": entry["work_pool"].get("work_queue_name", "default"),
        "enforce_parameter_schema": entry["enforce_parameter_schema"],
        "concurrency_limit": (limit["limit"], limit["collision_strategy"]) if limit else None,
        "schedules": sorted((schedule["slug"], _rhythm(schedule)) for schedule in entry["schedules"]),
        "form": _filled(parameter_schema(_flow(entry)).model_dump_for_openapi()),
    }


def _existing(deployed: DeploymentResponse) -> dict[str, object]:
    limit, options = deployed.global_concurrency_limit, deployed.concurrency_options
    pulled: Any = next((next(iter(step.values()), None) for step in deployed.pull_steps or ()), None)
    return {
        "description": deployed.description,
        "tags": sorted(deployed.tags),
        "parameters": deployed.parameters,
        "entrypoint": deployed.entrypoint,
        "folder": pulled.get("directory") if isinstance(pulled, dict) else None,
        "work_pool": deployed.work_pool_name,
        "work_queue": deployed.work_queue_name,
        "enforce_parameter_schema": deployed.enforce_parameter_schema,
        "concurrency_limit": (limit.limit, options.collision_strategy.value) if limit and options else None,
        "schedules": sorted(
            (schedule.slug or "", _rhythm(schedule.schedule.model_dump())) for schedule in deployed.schedules
        ),
        "form": _filled(deployed.parameter_openapi_schema or {}),
    }


def _rhythm(schedule: Mapping[str, Any]) -> str:
    """A schedule's cron expression, or its seconds, as prefect.yaml and the server have them."""
    if "cron" in schedule:
        return str(schedule["cron"])
    interval = schedule["interval"]
    return f"{interval.total_seconds() if isinstance(interval, timedelta) else float(interval):g} s"


def _filled(form: Mapping[str, Any]) -> dict[str, Any]:
    """The server leaves out what is empty."""
    return {name: value for name, value in form.items() if value}


def _has_pool(client: SyncPrefectClient, name: str) -> bool:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        return False
    return True
