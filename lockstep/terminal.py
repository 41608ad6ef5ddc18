"""What a person sees in a terminal: tables, progress bars, and errors with their next step."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lockstep.errors import LockstepError, StoppedError
from lockstep.rules.printable import visible

if TYPE_CHECKING:  # `lockstep --help` and every error of usage come this way: a quarter of a second, not one
    from lockstep.operations.fleet import Event, Observer
    from lockstep.operations.status import Status
    from lockstep.rules.plan import Plan
    from lockstep.rules.state import DesiredState, FleetState


#: Notes go to standard error, results to standard output, so that `--json | jq` works. That neither can be written ends
#: nothing: see lockstep.streams. What others wrote is shown as they did: rich would make a picture of `:watch:`.
NOTES: Final = Console(stderr=True, highlight=False, emoji=False)
RESULTS: Final = Console(highlight=False, emoji=False)
#: What an error may hold: tools explain themselves in several lines.
LINES: Final = "\n\t"


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Observer]:
    """An observer that shows a bar per cloud while bytes move or a step is watched, and lines for the rest.

    When `quiet` it tells of nothing but trouble: one JSON object a line, for whoever waits for a document.
    """
    if quiet:
        yield _tell_trouble
        return
    if not NOTES.is_terminal:
        yield _Lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=NOTES, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def observe(event: Event) -> None:
            if not event.total:
                with contextlib.suppress(OSError):  # a terminal that has gone
                    bars.console.print(_line(event), markup=False)
                return
            shown = escape(_line(event)[:70])
            if event.cloud not in tasks:
                tasks[event.cloud] = bars.add_task(shown, total=event.total)
            bars.update(tasks[event.cloud], description=shown, completed=event.done, total=event.total)

        yield observe


def _tell_trouble(event: Event) -> None:
    if not event.trouble:
        return
    _tell_program(event.text, event.model, event.cloud)


def _tell_program(trouble: str, model: str | None = None, cloud: str = "") -> None:
    told = {"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "model": model, "cloud": cloud or None}
    sys.stderr.write(f"{json.dumps({**told, 'trouble': trouble})}\n")
    sys.stderr.flush()


class _Lines:
    """Events as lines of a log: progress at its end alone, and what is said again and again only once."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, event: Event) -> None:
        line = _line(event)
        if (not event.total or event.done >= event.total) and line != self._last:
            NOTES.print(line, markup=False, soft_wrap=True)
            self._last = line


def _line(event: Event) -> str:
    return visible(f"{event.cloud}: {event.text}" if event.cloud else event.text)


def show_state(state: FleetState, desired: DesiredState | None = None) -> None:
    """The table of clouds x slots x traffic."""
    table = Table(title=escape(f"{state.model}: what serves"), title_justify="left")
    for heading in ("cloud", "slot", "role", "traffic", "state", "version digest"):
        table.add_column(heading, justify="right" if heading == "traffic" else "left")
    roles = _roles(desired)
    for cloud in state.clouds:
        if not cloud.slots:
            table.add_row(
                cloud.cloud, "-", "", "", "no endpoint" if not cloud.exists else escape(visible(cloud.status)), ""
            )
        for slot in sorted(cloud.slots, key=lambda slot: -slot.weight):
            shown = slot.status + ("" if slot.ready else " (not ready)") + (", cloud busy" if cloud.busy else "")
            role = roles.get(slot.name, "")
            cells = (escape(visible(cell)) for cell in (slot.name, role, f"{slot.weight} %", shown, slot.digest[:12]))
            table.add_row(cloud.cloud, *cells)
    for name in state.unreachable:
        table.add_row(name, "?", "", "?", "[red]unreachable[/red]", "")
    RESULTS.print(table)
    for name, reason in state.unreachable.items():
        _say("red", f"{name}: unreachable: {reason}")


def show_status(status: Status) -> None:
    """State, what the endpoints answered, and everything that a person should know."""
    show_state(status.state, status.desired)
    if status.silent:
        _say("red", f"what should serve is from memory, as was last known; MLflow cannot be asked: {status.silent}")
    for proof in status.proofs:
        named = sorted({f"{answer.label or '?'} ({answer.digest[:12] or answer.slot})" for answer in proof.answers})
        _say("", f"{proof.cloud:>6} answers as {', '.join(named)}" if named else f"{proof.cloud:>6} does not answer")
    for cloud, problem in status.out_of_step.items():
        if cloud not in status.state.unreachable:
            _say("red", f"{cloud}: out of step: {problem}")
        if cloud in status.split:
            _say("yellow", f"{cloud}: {status.split[cloud].told(time.time())}")
    if status.writer is not None:
        _say("yellow", f"note: being changed by the {status.writer.told}")
    for operation in status.running:
        _say("yellow", f"note: running: {operation}")
    for warning in status.warnings:
        _say("yellow", f"note: {warning}")
    for what, problems in (("keys", status.keys), ("ledger", status.ledger)):
        for problem in problems:
            _say("yellow", f"{what}: {problem}")
    if status.killed:
        _say("red", f"not in step: {status.killed}")
    elif status.in_step:
        canary = f", with {status.desired.challenger} as its canary" if status.desired.challenger else ""
        known = " (as was last known)" if status.silent else ""
        _say("green", f"in step{known}: {status.desired.champion} everywhere{canary}")
    elif status.desired.champion is None:
        _say("", f"no version of {status.state.model} is champion: nothing should serve")


def show_plan(plan: Plan) -> None:
    """One line a change."""
    for line in plan.explain():
        _say("", line)


def show_deed(lines: Sequence[str]) -> None:
    """One operation of the log: its heading, what is under it, and an empty line."""
    heading, *rest = lines
    _say("bold yellow", heading)
    for line in rest:
        _say("", line)
    _say("", "")


def show_rows(title: str, headings: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A plain table."""
    table = Table(title=escape(visible(title)), title_justify="left")
    for heading in headings:
        table.add_column(heading, overflow="fold")  # what is cut cannot be copied
    for row in rows:
        table.add_row(*(escape(visible(str(cell))) for cell in row))
    RESULTS.print(table)


def _say(colour: str, line: str) -> None:
    """A line as it is: clouds' own words hold brackets, and a line that is copied must stay one.

    Others' words are shown, and not carried out: an escape of theirs would hide or forge what stands around it.
    """
    RESULTS.print(visible(line), style=colour, markup=False, soft_wrap=True)


def emit(answer: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(answer, indent=2, default=str) + "\n")
    sys.stdout.flush()  # who waits for it need not wait for what comes after it


def show_error(error: LockstepError, *, as_json: bool) -> None:
    """What is wrong and what to do, on standard error (and as JSON on standard output when asked for)."""
    if as_json:
        emit({"error": str(error), "hint": error.hint, "exit_status": error.exit_status, **error.facts})
        return
    # Not wrapped: what is copied out of here, a command or an address, must not have a line's end in it.
    told = "" if isinstance(error, StoppedError) else "[bold red]error:[/bold red] "
    NOTES.print(f"{told}{escape(visible(str(error), LINES))}", soft_wrap=True)
    if error.hint:
        NOTES.print(f"[bold]next:[/bold]  {escape(visible(error.hint, LINES))}", soft_wrap=True)


def show_lost(error: OSError, *, as_json: bool) -> None:
    """That the result is not where it was sent, on standard error; what was done was done."""
    told = f"the result could not be written: {error.strerror or error}; the exit status tells what was done"
    if as_json:
        _tell_program(told)
        return
    NOTES.print(f"note: {told}", markup=False, soft_wrap=True)


def state_as_json(state: FleetState) -> Mapping[str, object]:
    """A fleet's state as plain values."""
    clouds: dict[str, object] = {
        cloud.cloud: {
            "endpoint": cloud.endpoint,
            "exists": cloud.exists,
            "busy": cloud.busy,
            "slots": [
                {
                    "slot": s.name,
                    "version": s.label,
                    "traffic": s.weight,
                    "ready": s.ready,
                    "status": s.status,
                    "digest": s.digest,
                }
                for s in cloud.slots
            ],
        }
        for cloud in state.clouds
    }
    return {**clouds, **{cloud: {"unreachable": reason} for cloud, reason in state.unreachable.items()}}


def _roles(desired: DesiredState | None) -> dict[str, str]:
    if desired is None:
        return {}
    named = {"fallback": desired.fallback, "challenger": desired.challenger, "champion": desired.champion}
    return {version.slot: role for role, version in named.items() if version is not None}
