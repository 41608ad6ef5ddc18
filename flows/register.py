"""Flow: make a trained model a sealed version."""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.opening import explained, load_fleet, open_in_flow, parameters, rename
from lockstep.operations.journal import record, sealed
from lockstep.operations.lock import DEFAULT_PLATFORM
from lockstep.operations.register import EXPERIMENT, check_model_name
from lockstep.operations.register import register as register_model
from lockstep.operations.running import Job
from lockstep.rules.state import Version
from tasks.artifacts import publish, table
from tasks.observing import FlowObserver


def _run_name() -> str:
    given = parameters()
    return f"register {given.get('model')} from {given.get('source')}"


@flow(name="lockstep-register", flow_run_name=_run_name, log_prints=False)
@explained
def register(
    model: str,
    source: str,
    fleet: str = "default",
    experiment: str = EXPERIMENT,
    code: str | None = None,
    data: list[str] | None = None,
    parents: list[str] | None = None,
    lock: str | None = None,
    platform: str = DEFAULT_PLATFORM,
) -> Version:
    """Register a trained model in MLflow as a version whose files, code, data and environment are sealed and signed.

    The same facts give the same version however often it is registered. A model without signature, without exactly
    pinned requirements or without a lock is refused, and the run says how to mend it.

    Args:
        model: Name of the model: 3 to 32 letters, digits and single dashes.
        source: Where it was logged: runs:/<run_id>/<path>, models:/m-<id>, or a folder on the worker's machine.
        fleet: Name of the Fleet block, which names the MLflow server.
        experiment: MLflow experiment that holds what is uploaded from a folder.
        code: Folder on the worker's machine, in the git repository that trained it.
        data: Training data, each a path on the worker's machine, or URI[@SNAPSHOT]=PATH of a copy there.
        parents: Versions that it was made from: numbers, aliases or digests.
        lock: File on the worker's machine with its hash-pinned requirements, if the model does not bring its own.
        platform: Platform that it is served on.
    """
    block = load_fleet(fleet)
    check_model_name(model)
    opened = open_in_flow(block, model, "register")
    registry = opened.registry
    observer = FlowObserver("register")

    def call() -> Version:
        return register_model(
            registry,
            model,
            source,
            keys=opened.keys,
            code=Path(code) if code else None,
            data=data or (),
            parents=parents or (),
            lock=Path(lock) if lock else None,
            images={cloud.name: cloud.image for cloud in opened.clouds},
            platform=platform,
            experiment=experiment,
            progress=observer.progress,
        )

    with record(opened, "register", None, source=source) as outcome:
        (done,) = opened.runner.run([Job("", f"register {model}", call)])
        if done.error is not None:
            raise done.error
        assert done.value is not None
        version = done.value
        manifest = registry.manifest(version)
        outcome.update(sealed(version, manifest))
    rows = [
        ["version", f"[{version.label}]({registry.url(version)})"],
        ["digest", f"`{version.digest}`"],
        ["content", f"`{manifest.content}`"],
        ["lock", f"`{manifest.env.lock_sha256}`"],
        ["code", f"`{manifest.code.git_commit}`{' with changes' if manifest.code.dirty else ''}"],
        ["data", ", ".join(f"{one.uri} (`{one.sha256[:12] or 'not hashed'}`)" for one in manifest.data)],
        ["run", version.run_id],
    ]
    rename(f"register {model} {version.label}")
    publish("register", model, f"# {version}\n\n{table(['', model], rows)}", f"registered {version}")
    return version
