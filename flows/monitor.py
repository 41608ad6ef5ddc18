"""Flow: look at what serves and roll back on a breach."""

from __future__ import annotations

from prefect import flow, get_run_logger

import blocks
from flows.events import tell
from flows.opening import explained, load_fleet, open_in_flow, parameters
from flows.rollback import tell_done
from lockstep.errors import LockstepError, NotFoundError, SplitError, VerdictError
from lockstep.operations.monitor import Report
from lockstep.operations.monitor import monitor as look
from lockstep.rules.event_names import MONITOR_BREACH, ROLLBACK_SPLIT
from lockstep.rules.judge import Decision
from tasks.artifacts import bullets, explain_failure, links, metrics_table, publish, traffic_table


def _run_name() -> str:
    given = parameters()
    return f"monitor {given.get('model') or 'every model of ' + str(given.get('fleet'))}"


@flow(name="lockstep-monitor", flow_run_name=_run_name)
@explained
def monitor(model: str | None = None, fleet: str = "default", act: bool = True) -> tuple[Report, ...]:
    """Read each cloud's metrics of the last minutes and judge the version that serves; roll back on a breach.

    Args:
        model: Name of the model in MLflow; every model of the fleet that serves, when left out.
        fleet: Name of the Fleet block.
        act: Roll back on a breach; otherwise the run ends as Failed and says what is wrong.
    """
    block = load_fleet(fleet)
    if model is not None:
        return (_look_at(block, model, fleet, act),)
    reports, failed = [], dict[str, LockstepError]()
    for name in block.models:
        try:
            if _serves(block, name):
                reports.append(_look_at(block, name, fleet, act))
        except LockstepError as error:  # one model must not hide the others
            explain_failure("monitor", name, error)
            failed[name] = error
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise SplitError(f"{len(failed)} models need a look: {reasons}", hint="see the artifact of each model")
    return tuple(reports)


def _serves(block: blocks.Fleet, model: str) -> bool:
    try:
        champion = block.mlflow.connect().desired(model).champion
    except NotFoundError:
        champion = None
    if champion is None:
        get_run_logger().info("%s has no champion yet; there is nothing to look at", model)
    return champion is not None


def _look_at(block: blocks.Fleet, model: str, fleet: str, act: bool) -> Report:
    opened = open_in_flow(block, model, "monitor")
    try:
        report = look(opened, act=act)
    except SplitError as error:
        tell(ROLLBACK_SPLIT, model, fleet, reason="monitor", problem=str(error))
        raise
    decision, reasons = report.verdict.decision, "; ".join(report.verdict.reasons)
    done = report.rolled_back
    if decision is Decision.FAIL:
        tell(MONITOR_BREACH, model, fleet, reason=reasons, version=str(report.champion), acted=done is not None)
    if done is not None:
        tell_done(done, model, fleet, f"monitor: {reasons}")
    text = f"# {report.champion}: {decision.value}\n\n{reasons}\n\n{metrics_table(report.metrics, report.outcomes)}\n"
    text += traffic_table(opened, report.state, done.after if done else None)
    if done:
        text += f"\nRolled back to {done.target} in {done.seconds:.1f} s.\n"
    if report.warnings:
        text += f"\n## Mend before it is needed\n\n{bullets(report.warnings)}"
    publish("monitor", model, f"{text}\n{links(opened, report.champion)}", f"{decision.value}: {reasons}")
    if decision is Decision.FAIL and done is None:
        raise VerdictError(
            f"{report.champion} is in breach: {reasons}", hint=f"run the rollback deployment for {model}, or mend it"
        )
    return report
