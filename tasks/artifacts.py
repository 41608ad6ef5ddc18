"""What a run leaves in the Prefect UI: tables of clouds, versions and weights, verdicts and links.

An artifact tells of a deed and never decides over one: one that cannot be written is a warning in the log.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact

from lockstep.errors import LockstepError
from lockstep.operations.fleet import Fleet
from lockstep.operations.watch import StageReport
from lockstep.rules.measurement import NativeVersion, SlotMetrics
from lockstep.rules.state import FleetState, Version
from lockstep.stores.outcomes import OutcomeCount


def artifact_key(*parts: str) -> str:
    """A key as Prefect takes it, of lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(part for part in ("lockstep", *parts) if part).lower()).strip("-")


@contextlib.contextmanager
def kept(what: str) -> Iterator[None]:
    """A block of reporting whose failure is logged and goes no further."""
    try:
        yield
    except Exception as error:
        get_run_logger().warning("the %s could not be written to Prefect: %s", what, error)


def publish(operation: str, model: str, markdown: str, summary: str) -> None:
    """Leave one artifact for the run; runs of one operation on one model form its history."""
    with kept("report"):
        create_markdown_artifact(markdown, key=artifact_key(operation, model), description=summary)


def explain_failure(operation: str, model: str, error: LockstepError) -> None:
    """What went wrong and what to do next."""
    next_step = f"\n\n**What to do:** {error.hint}" if error.hint else ""
    publish(operation, model, f"# {operation} {model}: failed\n\n{error}{next_step}\n", f"failed: {error}")


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; pipes and line ends in cells are escaped."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in line) + " |" for line in lines) + "\n"


def traffic_table(fleet: Fleet, before: FleetState, after: FleetState | None = None) -> str:
    """Clouds x slots with the per cents of traffic before and after; clouds that gave no answer say why."""
    states = [before] if after is None else [before, after]
    heading = ["cloud", "version", "traffic"] if after is None else ["cloud", "version", "before", "after", "status"]
    rows: list[list[object]] = []
    for cloud in fleet.clouds:
        seen = [next((found for found in state.clouds if found.cloud == cloud.name), None) for state in states]
        reasons = [state.unreachable[cloud.name] for state in states if cloud.name in state.unreachable]
        link = f"[{cloud.name}]({cloud.console_url(fleet.model)})"
        names = sorted({slot.name for found in seen if found is not None for slot in found.slots})
        for name in names:
            slots = [found.slot(name) if found is not None else None for found in seen]
            weights = [f"{slot.weight} %" if slot is not None else "–" for slot in slots]
            status = "" if slots[-1] is None else slots[-1].status
            rows.append([link, name, *weights, *([status] if after is not None else [])])
        if not names or reasons:
            filler = [""] * (len(heading) - 2)
            rows.append([link, f"unreachable: {reasons[-1]}" if reasons else "nothing deployed", *filler])
    return table(heading, rows)


def stages_table(stages: Sequence[StageReport]) -> str:
    """The verdict of every stage of a rollout."""
    return table(
        ["stage", "verdict", "why", "seconds", "then"],
        [
            [stage.stage.title, stage.verdict.decision.value, "; ".join(stage.verdict.reasons),
             f"{stage.seconds:.1f}", stage.move.value]
            for stage in stages
        ],
    )  # fmt: skip


def metrics_table(metrics: Sequence[SlotMetrics], outcomes: Sequence[OutcomeCount]) -> str:
    """What each cloud counted per version, and the user's outcomes."""
    rows = [
        [slot.cloud, slot.slot, slot.requests, slot.errors, _seconds(slot.latency_p95)]
        for slot in sorted(metrics, key=lambda slot: (slot.cloud, slot.slot))
    ]
    text = table(["cloud", "version", "requests", "errors", "p95 latency"], rows)
    if outcomes:
        counted = [[count.cloud, count.version, count.total, count.bad] for count in outcomes]
        text += "\n" + table(["cloud", "version", "outcomes", "bad"], counted)
    return text


def records_table(records: Sequence[NativeVersion]) -> str:
    """Where the version is found in each cloud's own registry."""
    return table(
        ["cloud", "registered as", "console"],
        [[record.cloud, f"`{record.resource}`", f"[open]({record.console_url})"] for record in records],
    )


def links(fleet: Fleet, *versions: Version | None) -> str:
    """Where a person can look further: MLflow's page of each version, every endpoint's console, the ledger's entry."""
    lines = [f"- [{version} in MLflow]({fleet.registry.url(version)})" for version in versions if version is not None]
    lines += [f"- [{fleet.model} on {cloud.title}]({cloud.console_url(fleet.model)})" for cloud in fleet.clouds]
    return "\n".join([*lines, *_newest_entry(fleet)]) + "\n"


def _newest_entry(fleet: Fleet) -> list[str]:
    try:
        newest = fleet.ledger.entries(fleet.model, last=1, waiting=False)
    except LockstepError:
        return []
    return [f"- entry {entry.number} of the ledger, {entry.kind}: `lockstep log {fleet.model}`" for entry in newest]


def bullets(lines: Iterable[str] | Mapping[str, str]) -> str:
    """A list, one line each."""
    if isinstance(lines, Mapping):
        lines = [f"{name}: {text}" for name, text in lines.items()]
    return "".join(f"- {line}\n" for line in lines)


def _seconds(value: float | None) -> str:
    return "–" if value is None else f"{value * 1000:.0f} ms"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
