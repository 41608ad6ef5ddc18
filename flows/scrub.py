"""Flow: is what serves, and what it could go back to, still what was sealed?"""

from __future__ import annotations

from prefect import flow

import blocks
from flows.opening import explained, load_fleet, open_in_flow, parameters
from lockstep.errors import DigestMismatchError, LockstepError
from lockstep.operations.scrub import Scrub
from lockstep.operations.scrub import scrub as look
from tasks.artifacts import bullets, explain_failure, links, publish, table


def _run_name() -> str:
    given = parameters()
    return f"scrub {given.get('model') or 'every model of ' + str(given.get('fleet'))}"


@flow(name="lockstep-scrub", flow_run_name=_run_name)
@explained
def scrub(model: str | None = None, fleet: str = "default", days: int = 7, newest: int = 3) -> tuple[Scrub, ...]:
    """Compare versions with what was sealed, in MLflow, the stores, the native registries and at the endpoints.

    Looks at what serves, at the version that a rollback would go to, and at the newest ones. Ends as Failed when
    something was altered, or could not be looked at; the artifact and the ledger name it.

    Args:
        model: Name of the model in MLflow; every model of the fleet, when left out.
        fleet: Name of the Fleet block.
        days: Days in which every byte is read once, when this runs once a day.
        newest: How many of the newest versions are looked at.
    """
    block = load_fleet(fleet)
    if model is not None:
        return (_look_at(block, model, days, newest),)
    done, failed = [], dict[str, LockstepError]()
    for name in block.models:
        try:
            done.append(_look_at(block, name, days, newest))
        except LockstepError as error:  # one model must not hide the others
            explain_failure("scrub", name, error)
            failed[name] = error
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        reasons = "; ".join(f"{name}: {error}" for name, error in failed.items())
        raise DigestMismatchError(f"{len(failed)} models need a look: {reasons}", hint="see the artifact of each model")
    return tuple(done)


def _look_at(block: blocks.Fleet, model: str, days: int, newest: int) -> Scrub:
    opened = open_in_flow(block, model, "scrub")
    done = look(opened, days=days, newest=newest)
    found = done.found
    summary = "everything is as it was sealed" if found.intact else f"{len(found.altered)} differences"
    text = f"# {model}: {summary}\n\nEvery byte is read once in {days} days; this is one day's share.\n\n"
    text += table(*found.table())
    for title, lines in (("Altered", found.altered), ("Could not be looked at", found.unknown)):
        text += f"\n## {title}\n\n{bullets(lines)}" if lines else ""
    publish("scrub report", model, f"{text}\n{links(opened)}", summary)
    if found.error is not None:
        raise found.error
    return done
