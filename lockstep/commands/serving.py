"""Commands about what serves: deploy, look, judge, roll back."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.approving import approver_for
from lockstep.commands.integrity import Accept
from lockstep.commands.options import (
    AsJson,
    DryRun,
    Model,
    WhichVersion,
    emit,
    opened,
    parse_steps,
)
from lockstep.errors import SplitError
from lockstep.rules.meanwhile import Meanwhile

if TYPE_CHECKING:
    from lockstep.operations.fleet import Fleet
    from lockstep.operations.monitor import Report


def deploy(
    model: Model,
    version: WhichVersion,
    steps: Annotated[str | None, typer.Option(help="Per cents for the canary, such as 5,25,50,100.")] = None,
    accept_broken_seal: Accept = "",
    approve: Annotated[
        str,
        typer.Option(help="Why it may go on where the fleet wants an approval; asked for at the terminal if left out."),
    ] = "",
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Deploy a version as a canary on all clouds and promote it when every step passes."""
    from lockstep import terminal
    from lockstep.operations.canary import canary_deploy, check_deployable
    from lockstep.operations.watch import describe
    from lockstep.rules.plan import Target, plan_changes
    from lockstep.rules.rollout import plan_stages

    with opened(model, as_json) as fleet:
        found = fleet.registry.find(model, version)
        wanted = parse_steps(steps)
        if dry_run:
            check_deployable(fleet, found, accept_broken_seal)
            names = [cloud.name for cloud in fleet.clouds]
            rollout = fleet.settings.rollout
            stages = [
                f"{stage.title} for at least {rollout.step_seconds:g} s and {rollout.min_requests} requests"
                for stage in plan_stages(names, wanted or rollout.steps)
            ]
            stable = fleet.registry.desired(model).champion
            first = stable is None or stable.digest == found.digest
            stages = ["100 % at once: nothing else serves"] if first else stages
            plan = plan_changes(Target((found,) if stable is None or first else (stable, found), {}), fleet.observe())
            if as_json:
                emit({"version": found.label, "digest": found.digest, "plan": list(plan.explain()), "stages": stages})
            else:
                typer.echo(f"{found} as a canary" if not first else str(found))
                terminal.show_plan(plan)
                typer.echo("\n".join(stages))
            return
        approver = approver_for(fleet.actor, approve, quiet=as_json)
        done = canary_deploy(fleet, found, steps=wanted, accept_broken_seal=accept_broken_seal, approver=approver)
        desired = None if as_json else fleet.registry.desired(model)
    if as_json:
        stages_done = [describe(report) for report in done.stages]
        emit({"version": found.label, "stages": stages_done, "after": terminal.state_as_json(done.after)})
    else:
        terminal.show_state(done.after, desired)
        typer.echo(f"{found} serves everywhere")


def status(
    model: Model,
    prove: Annotated[bool, typer.Option(help="Ask every endpoint for real answers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what should serve and what does, on every cloud; exits with 6 when they differ.

    While MLflow cannot be asked, what should serve is what was last known, and said to be so.
    """
    from lockstep import terminal
    from lockstep.operations.status import status as run

    with opened(model, as_json) as fleet:
        found = run(fleet, prove=prove)
    if as_json:
        champion, challenger, fallback = found.desired.champion, found.desired.challenger, found.desired.fallback
        emit(
            {
                "model": model,
                "champion": champion.label if champion else None,
                "digest": champion.digest if champion else None,
                "challenger": challenger.label if challenger else None,
                "fallback": fallback.label if fallback else None,
                "from_memory": found.silent or None,
                "clouds": terminal.state_as_json(found.state),
                "answers": {
                    p.cloud: [{"version": a.label, "digest": a.digest} for a in p.answers] for p in found.proofs
                },
                "in_step": found.in_step,
                "out_of_step": found.out_of_step,
                "killed": found.killed or None,
                "split": {cloud: asdict(one) for cloud, one in found.split.items()},
                "writer": found.writer.told if found.writer else None,
                "running": list(found.running),
                "warnings": list(found.warnings),
                "keys": {"problems": list(found.keys)},
                "ledger": {"problems": list(found.ledger)},
            }
        )
    else:
        terminal.show_status(found)
    if found.out_of_step or found.killed:
        raise typer.Exit(SplitError.exit_status)


def monitor(
    model: Model,
    act: Annotated[bool, typer.Option(help="Roll back on a breach.")] = True,
    as_json: AsJson = False,
) -> None:
    """Judge what serves by each cloud's own metrics and the model's outcomes; roll back on a breach."""
    from lockstep.errors import VerdictError
    from lockstep.operations.monitor import monitor as run
    from lockstep.rules.judge import Decision

    with opened(model, as_json) as fleet:
        report = run(fleet, act=act)
    back = report.rolled_back
    if as_json:
        emit(
            {
                "verdict": report.verdict.decision.value,
                "reasons": list(report.verdict.reasons),
                "numbers": dict(report.verdict.numbers),
                "warnings": list(report.warnings),
                "rolled_back_to": back.target.label if back else None,
            }
        )
    else:
        _show_report(report)
    if report.verdict.decision is Decision.FAIL:
        raise typer.Exit(VerdictError.exit_status)


def _show_report(report: Report) -> None:
    from lockstep import terminal

    back = report.rolled_back
    rows = [
        [m.cloud, m.slot, m.requests, m.errors, "-" if m.latency_p95 is None else f"{m.latency_p95:.3f}"]
        for m in report.metrics
    ]
    terminal.show_rows(
        f"{report.model}: the last minutes", ("cloud", "slot", "requests", "errors", "p95 seconds"), rows
    )
    typer.echo(f"{report.verdict.decision.value}: {'; '.join(report.verdict.reasons)}")
    for warning in report.warnings:
        typer.echo(f"note: {warning}")
    if back:
        typer.echo(f"rolled back to {back.target} in {back.seconds:.1f} s")


def rollback(
    model: Model,
    to: Annotated[
        str | None,
        typer.Option(
            help="Version to go back to (default: the champion while a canary runs, else the newest known-good one)."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; goes into the ledger and onto the version left behind.")] = "",
    accept_broken_seal: Accept = "",
    meanwhile: Annotated[
        Meanwhile,
        typer.Option(
            help="Where the target must be deployed first: keep what serves, or drain it to another good version."
        ),
    ] = Meanwhile.KEEP,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Take every cloud back to the last known-good version, or to a named one, at once.

    With --json: `left` are the versions that served until now, `condemned` those of them that are condemned for it,
    `changed` the clouds whose traffic was moved, `seconds` the time from the call until every cloud was verified and
    `clouds` that of each cloud's switch alone.
    """
    from lockstep import terminal
    from lockstep.operations.rollback import rollback as run
    from lockstep.rules.brought import brought_over
    from lockstep.rules.state import DesiredState

    with opened(model, as_json) as fleet:
        if dry_run:
            _show_rollback(fleet, to, accept_broken_seal, as_json)
            return
        done = run(fleet, to=to or None, reason=reason, accept_broken_seal=accept_broken_seal, meanwhile=meanwhile)
    condemned = [version.label for version in done.left]
    if as_json:
        emit(
            {
                "target": done.target.label,
                "digest": done.target.digest,
                "left": [version.label for version in done.served],
                "condemned": condemned,
                "changed": list(done.changed),
                "seconds": round(done.seconds, 3),
                "clouds": {cloud: round(seconds, 3) for cloud, seconds in done.result.seconds.items()},
                "joined": done.first.event if done.first else None,
                "owed": list(done.owed),
                "further": done.further or None,
            }
        )
        return
    terminal.show_state(done.after, DesiredState(model, done.target))
    if done.first:
        typer.echo(f"{done.first} was already running")
    what = "rolled back to" if done.left or done.changed else "already on"
    typer.echo(f"{what} {done.target}, verified on every cloud after {done.seconds:.1f} s")
    if done.changed and not done.left:
        typer.echo(brought_over(done.changed, [version.label for version in done.brought]))
    for version in done.left:
        typer.echo(f"{version} is condemned: it is not deployed, and not rolled back to, until it is lifted")
    if done.further:
        typer.echo(f"note: a rollback had just led there; to go further back: {done.further}")
    for debt in done.owed:
        typer.echo(f"note: MLflow is still to be told: {debt}")


def _show_rollback(fleet: Fleet, to: str | None, accept_broken_seal: str, as_json: bool) -> None:
    """What a rollback would do, and how it may end."""
    from lockstep import terminal
    from lockstep.operations.expecting import expect_times
    from lockstep.operations.rollback_plan import further_back, plan_rollback

    planned = plan_rollback(fleet, to or None, accept_broken_seal)
    target, unreachable = planned.way.target, dict(planned.before.unreachable)
    expected, further = expect_times(fleet, planned), further_back(planned)
    warnings = [
        f"{cloud} would be tried for {fleet.cloud(cloud).traffic_timeout:.0f} s; should it not answer by then, the "
        f"rollback ends with status {SplitError.exit_status} (split), after the others have followed"
        for cloud in unreachable
    ]
    if as_json:
        emit(
            {
                "target": target.label,
                "why": planned.way.why.value,
                "plan": list(planned.plan.explain()) if planned.plan.changes else [],
                "condemns": [version.label for version in planned.way.left],
                "expected": {one.cloud: {**asdict(one), "seconds": round(one.seconds, 3)} for one in expected},
                "unreachable": unreachable,
                "warnings": warnings,
                "further": further or None,
            }
        )
        return
    typer.echo(f"target: {target}: {planned.way.why}")
    terminal.show_plan(planned.plan)
    for version in planned.way.left:
        typer.echo(f"{version} would be condemned")
    for one in expected:
        typer.echo(str(one))
    for cloud, why in unreachable.items():
        typer.echo(f"{cloud}: unreachable: {why}")
    for warning in warnings:
        typer.echo(f"note: {warning}")
    if further:
        typer.echo(f"note: to go further back: {further}")
