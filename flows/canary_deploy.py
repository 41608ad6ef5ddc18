"""Flow: try a version beside the one that serves, and promote it on all clouds or on none."""

from __future__ import annotations

from functools import partial

from prefect import flow

from flows.approving import ask_by_pausing
from flows.events import tell
from flows.opening import explained, load_fleet, open_in_flow, parameters, rename
from lockstep.errors import DeploymentFailedError, LockstepError, RejectedError, VerdictError
from lockstep.operations.canary import Rollout, check_deployable
from lockstep.operations.canary import canary_deploy as deploy
from lockstep.operations.fleet import Fleet
from lockstep.rules.event_names import ROLLOUT_PROMOTED, ROLLOUT_TAKEN_BACK
from lockstep.rules.plan import Target, plan_changes
from lockstep.rules.rollout import plan_stages
from lockstep.rules.state import Version
from tasks.artifacts import bullets, links, publish, stages_table, traffic_table
from tasks.rollout_slot import only_rollout_of


def _run_name() -> str:
    given = parameters()
    return f"deploy {given.get('model')} {given.get('version')}" + (" (dry run)" if given.get("dry_run") else "")


@flow(name="lockstep-canary-deploy", flow_run_name=_run_name)
@explained
def canary_deploy(
    model: str,
    version: str,
    fleet: str = "default",
    steps: list[int] | None = None,
    dry_run: bool = False,
    accept_broken_seal: str = "",
) -> Rollout | None:
    """Deploy a version as a canary, in steps over all clouds together; promote it everywhere, or take it back.

    Errors, latency and outcomes are compared with those of the version that serves, at each step. The previous version
    stays warm for a rollback. Where the fleet wants an approval, the run pauses and asks for it. A second rollout of
    the same model is refused while one runs; other models do not wait.

    Args:
        model: Name of the model in MLflow.
        version: Number (3), alias (challenger) or at least 8 digits of the digest.
        fleet: Name of the Fleet block.
        steps: Per cents of traffic for the canary, rising to 100; those of the fleet when left out.
        dry_run: Only check that it could be deployed and say what would be done.
        accept_broken_seal: Reason to go on with a version whose seal does not hold, when no other known-good one is
            intact; kept in the ledger.
    """
    opened = open_in_flow(load_fleet(fleet), model, "canary-deploy")
    chosen = opened.registry.find(model, version)
    rename(f"deploy {model} {chosen.label}{' (dry run)' if dry_run else ''}")
    if dry_run:
        _show_plan(opened, chosen, tuple(steps) if steps else None, accept_broken_seal)
        return None
    with only_rollout_of(model):
        try:
            rollout = deploy(
                opened,
                chosen,
                steps=tuple(steps) if steps else None,
                accept_broken_seal=accept_broken_seal,
                approver=partial(ask_by_pausing, fleet=fleet),
            )
        except LockstepError as error:
            if isinstance(error, VerdictError | RejectedError | DeploymentFailedError):
                tell(ROLLOUT_TAKEN_BACK, model, fleet, target=chosen.label, problem=str(error))
            now = opened.observe()
            text = f"# {chosen} was not promoted\n\n{traffic_table(opened, now)}\n{links(opened, chosen)}"
            publish("canary-deploy traffic", model, text, f"what serves after {chosen} was not promoted")
            raise
    tell(ROLLOUT_PROMOTED, model, fleet, target=chosen.label, target_digest=chosen.digest)
    verdicts = stages_table(rollout.stages) if rollout.stages else "The first version: nothing to compare it with.\n"
    publish(
        "canary-deploy",
        model,
        f"# {chosen} serves everywhere\n\n{traffic_table(opened, rollout.before, rollout.after)}\n"
        f"## Stages\n\n{verdicts}\n## Links\n\n{links(opened, chosen)}",
        f"{chosen} promoted after {len(rollout.stages)} stages",
    )
    return rollout


def _show_plan(opened: Fleet, chosen: Version, steps: tuple[int, ...] | None, accept_broken_seal: str) -> None:
    check_deployable(opened, chosen, accept_broken_seal)
    champion = opened.registry.desired(opened.model).champion
    before = opened.observe()
    first = champion is None or champion.digest == chosen.digest
    stable = () if champion is None or first else (champion,)
    plan = plan_changes(Target((*stable, chosen), {}), before)
    stages = plan_stages([cloud.name for cloud in opened.clouds], steps or opened.settings.rollout.steps)
    lines = [*plan.explain(), *(["all traffic to it, at once"] if first else [stage.title for stage in stages])]
    text = f"# Dry run: deploying {chosen} would\n\n{bullets(lines)}\n{traffic_table(opened, before)}"
    publish("canary-deploy", opened.model, text, f"dry run: {chosen}")
