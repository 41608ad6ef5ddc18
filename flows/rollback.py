"""Flow: take every cloud back to a known-good version at once."""

from __future__ import annotations

import time
from collections.abc import Sequence

from prefect import flow

from flows.events import tell
from flows.opening import explained, load_fleet, open_in_flow, parameters, rename, waited_for
from lockstep.errors import LockstepError, SplitError
from lockstep.operations.expecting import expect_times
from lockstep.operations.fleet import Fleet
from lockstep.operations.lastly import told_first
from lockstep.operations.rollback import Rollback
from lockstep.operations.rollback import rollback as roll_back
from lockstep.operations.rollback_plan import plan_rollback
from lockstep.rules.event_names import ROLLBACK_COMPLETED, ROLLBACK_FAILED, ROLLBACK_SPLIT
from lockstep.rules.meanwhile import Meanwhile
from lockstep.rules.waited import asked_at
from tasks.artifacts import bullets, links, publish, traffic_table


def _run_name() -> str:
    given = parameters()
    dry = " (dry run)" if given.get("dry_run") else ""
    return f"rollback {given.get('model')} -> {given.get('to') or 'fallback'}{dry}"


@flow(name="lockstep-rollback", flow_run_name=_run_name)
@explained
def rollback(
    model: str,
    to: str | None = None,
    reason: str = "",
    fleet: str = "default",
    dry_run: bool = False,
    alert: str = "",
    alert_at: str = "",
    accept_broken_seal: str = "",
    meanwhile: Meanwhile = Meanwhile.KEEP,
) -> Rollback | None:
    """Put every cloud on the last known-good version, or on a named one, and prove that it answers.

    It waits for no other run. One that begins late, since nobody carried it out in time, leaves what served when it was
    asked for, and nothing that came since. The version that is left behind is condemned: it will not be deployed again.
    Clouds that could not follow are brought over by a run of reconcile, which the event `lockstep.rollback.split`
    starts.

    Args:
        model: Name of the model in MLflow.
        to: Number (3), alias or 8 digits of the digest; when left out, the champion while a canary runs, else the
            newest version that is known to be good.
        reason: Why, in a sentence; kept in the ledger and on the version that is left.
        fleet: Name of the Fleet block.
        dry_run: Only say what would be changed.
        alert: Id of the alert that asks, if one does; kept in the ledger.
        alert_at: When the alert was given, ISO 8601 with a zone; time to restore service counts from then.
        accept_broken_seal: Reason to go on with a version whose seal does not hold, when no other known-good one is
            intact; kept in the ledger.
        meanwhile: Where the target must be deployed first: keep what serves, or drain it to another good version.
    """
    opened = open_in_flow(load_fleet(fleet), model, "rollback")
    if dry_run:
        _show_plan(opened, to, accept_broken_seal)
        return None
    with told_first():
        try:
            done = roll_back(
                opened,
                to=to or None,
                reason=reason,
                accept_broken_seal=accept_broken_seal,
                meanwhile=meanwhile,
                asked=asked_at(waited_for(), time.time()),
            )
        except SplitError as error:  # prefect.yaml has an automation that reconciles then
            tell(ROLLBACK_SPLIT, model, fleet, reason=reason, problem=str(error))
            now = traffic_table(opened, opened.observe())
            text = f"# Not every cloud followed\n\n{now}\n{links(opened)}"
            publish("rollback traffic", model, text, "clouds are split")
            raise
        except LockstepError as error:
            tell(ROLLBACK_FAILED, model, fleet, reason=reason, problem=str(error))
            raise
        if done.needless:
            _show_needless(opened, done)
            return done
        tell_done(done, model, fleet, reason)
        rename(f"rollback {move(model, done)}")
        _show_done(opened, done, reason)
    return done


def _show_needless(opened: Fleet, done: Rollback) -> None:
    rename(f"rollback {opened.model}: nothing was left to roll back")
    text = f"# Nothing was rolled back\n\nThis run began late: {done.needless}. Run it anew to leave that as well.\n"
    publish("rollback", opened.model, f"{text}\n{traffic_table(opened, done.before)}\n{links(opened)}", done.needless)


def _show_done(opened: Fleet, done: Rollback, reason: str) -> None:
    seconds = ", ".join(f"{cloud} {value:.1f} s" for cloud, value in done.result.seconds.items())
    left = ", ".join(map(str, done.served))
    owed = f" MLflow did not answer and is still to be told: {'; '.join(done.owed)}." if done.owed else ""
    publish(
        "rollback",
        opened.model,
        f"# {done.target} serves everywhere\n\nReason: {reason or 'none given'}. Left: {left or 'nothing'}. "
        f"Took {done.seconds:.1f} s ({seconds}).{owed}\n\n{traffic_table(opened, done.before, done.after)}\n"
        f"{links(opened, done.target, *done.served)}",
        f"{left or opened.model} -> {done.target} in {done.seconds:.1f} s",
    )


def tell_done(done: Rollback, model: str, fleet: str, reason: str) -> None:
    """Send the event of a rollback that every cloud has followed."""
    tell(
        ROLLBACK_COMPLETED,
        model,
        fleet,
        reason=reason,
        target=done.target.label,
        target_digest=done.target.digest,
        left=[version.label for version in done.served],
        seconds=round(done.seconds, 3),
    )


def move(model: str, done: Rollback) -> str:
    """The model with where it went, as `churn 7 -> 6`; `churn -> 6` where nothing else served."""
    return _way(model, [version.label for version in done.served], done.target.label)


def _way(model: str, left: Sequence[str], target: str) -> str:
    return " ".join([model, *([", ".join(left)] if left else []), "->", target])


def _show_plan(opened: Fleet, to: str | None, accept_broken_seal: str) -> None:
    planned = plan_rollback(opened, to or None, accept_broken_seal)
    target = planned.way.target
    lines = (*planned.plan.explain(), *map(str, expect_times(opened, planned)))
    text = f"# Dry run: a rollback to {target} would\n\nChosen because {planned.way.why}.\n\n{bullets(lines)}\n"
    text += traffic_table(opened, planned.before)
    publish("rollback", opened.model, text, f"dry run: {target}")
    rename(f"rollback {_way(opened.model, [one.label for one in planned.way.left], target.label)} (dry run)")
