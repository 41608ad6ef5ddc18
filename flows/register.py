"""Flow: make a trained model a sealed version."""

from __future__ import annotations

from prefect import flow

from flows.opening import explained, load_fleet, open_in_flow, parameters
from lockstep.operations.journal import record, sealed
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
def register(model: str, source: str, fleet: str = "default", experiment: str = EXPERIMENT) -> Version:
    """Register a trained model in MLflow as a version whose files are sealed by their digests.

    The same source gives the same version however often it is registered. A model without signature or without
    exactly pinned requirements is refused, and the run says how to mend it.

    Args:
        model: Name of the model: 3 to 32 letters, digits and single dashes.
        source: Where it was logged: runs:/<run_id>/<path>, models:/m-<id>, or a folder on the worker's machine.
        fleet: Name of the Fleet block, which names the MLflow server.
        experiment: MLflow experiment that holds what is uploaded from a folder.
    """
    block = load_fleet(fleet)
    check_model_name(model)
    opened = open_in_flow(block, model, "register")
    registry = opened.registry
    observer = FlowObserver("register")

    def call() -> Version:
        return register_model(registry, model, source, experiment=experiment, progress=observer.progress)

    with record(opened, "register", None, source=source) as outcome:
        (done,) = opened.runner.run([Job("", f"register {model}", call)])
        if done.error is not None:
            raise done.error
        assert done.value is not None
        version = done.value
        outcome.update(sealed(version, registry.manifest(version)))
    rows = [
        ["version", f"[{version.label}]({registry.url(version)})"],
        ["digest", f"`{version.digest}`"],
        ["run", version.run_id],
    ]
    publish("register", model, f"# {version}\n\n{table(['', model], rows)}", f"registered {version}")
    return version
