"""Commands that ask what was: the log of a model, what served at a time, which version made a decision."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockstep.commands.options import AsJson, Model, emit, opened

if TYPE_CHECKING:
    from lockstep.rules.decision import Candidate, Decision
    from lockstep.rules.history import Interval

TIME_HELP = "ISO 8601 with a zone, or how long ago: 2d, 3h, 90s."


def moment_of(given: str, option: str) -> float:
    """Unix seconds of a time that was given for `option`; wrong usage when it is none."""
    from lockstep.errors import RefusedError
    from lockstep.rules.moments import parse_moment

    try:
        return parse_moment(given, time.time())
    except RefusedError as error:
        raise typer.BadParameter(f"{option}: {error.reason}") from None


def log(
    model: Model,
    cloud: Annotated[str | None, typer.Option(help="Only what touched this cloud.")] = None,
    since: Annotated[str | None, typer.Option(help=f"From this time on. {TIME_HELP}")] = None,
    until: Annotated[str | None, typer.Option(help=f"Up to this time. {TIME_HELP}")] = None,
    last: Annotated[int | None, typer.Option("-n", "--last", min=1, help="At most so many operations.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who changed what, when and why, with verdicts and the traffic before and after; newest first."""
    from lockstep import terminal
    from lockstep.operations.history import log as ask
    from lockstep.rules.telling import as_json as plain
    from lockstep.rules.telling import tell

    begin = moment_of(since, "--since") if since else None
    end = moment_of(until, "--until") if until else None
    with opened(model, as_json) as fleet:
        found = ask(fleet, cloud=cloud or "", since=begin, until=end, last=last)
        doubts = fleet.ledger.contradictions()
    if as_json:
        emit([plain(deed) for deed in found])
        end_with(doubts)
        return
    for deed in found:
        terminal.show_deed(tell(deed, deed.actor))
    if not found:
        typer.echo(f"{model}: nothing in that time")
    end_with(doubts)


def at(
    model: Model,
    moment: Annotated[str, typer.Argument(metavar="TIME", help=TIME_HELP)],
    as_json: AsJson = False,
) -> None:
    """Show which version served on each cloud at a time, with which weight, and how certain that is."""
    from lockstep import terminal
    from lockstep.operations.history import at as ask
    from lockstep.rules.moments import show_moment

    instant = moment_of(moment, "TIME")
    with opened(model, as_json) as fleet:
        found = ask(fleet, instant)
        doubts = fleet.ledger.contradictions()
    if as_json:
        clouds = {
            one.cloud: {"versions": [_candidate(each) for each in one.candidates], **_interval(one.interval)}
            for one in found
        }
        emit({"model": model, "time": show_moment(instant), "clouds": clouds})
        end_with(doubts)
        return
    rows = []
    for one in found:
        entries = ", ".join(map(str, one.interval.entries))
        for each in one.candidates:
            rows.append([one.cloud, *_cells(each), one.interval.certainty.value, entries])
        if not one.candidates:
            said = "nothing" if one.interval.splits else "not known"
            rows.append([one.cloud, said, "", "", one.interval.certainty.value, entries])
    headings = ("cloud", "version", "weight", "digest", "known", "ledger entry")
    terminal.show_rows(f"{model} at {show_moment(instant)}", headings, rows)
    _show_digests([each for one in found for each in one.candidates])
    for one in found:
        if one.interval.note:
            typer.echo(f"{one.cloud}: {one.interval.certainty.value}: {one.interval.note}")
    end_with(doubts)


def decision(
    model: Model,
    cloud: Annotated[str, typer.Option(help="Cloud that answered the request.")],
    request_id: Annotated[str | None, typer.Option(help="The request's id, as the cloud captured it.")] = None,
    moment: Annotated[str | None, typer.Option("--time", help=f"When it answered. {TIME_HELP}")] = None,
    proof: Annotated[
        Path | None,
        typer.Option(help="File for a proof that is checked offline: `lockstep audit verify FILE`.", dir_okay=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say which sealed version made a decision, and whether the cloud's capture or the ledger says so."""
    from lockstep.operations.history import decision as ask
    from lockstep.operations.proof import write_decision_proof

    if not request_id and not moment:
        raise typer.BadParameter("name the request: --request-id ID, --time TIME, or both")
    instant = moment_of(moment, "--time") if moment else None
    with opened(model, as_json) as fleet:
        found = ask(fleet, cloud, moment=instant, request_id=request_id or "")
        if proof is not None:
            ledger = fleet.ledger
            write_decision_proof(fleet, ledger, ledger.verifiers, describe_decision(found), found, proof)
        doubts = fleet.ledger.contradictions()
    if as_json:
        emit({**describe_decision(found), "proof": str(proof) if proof else None})
        end_with(doubts)
        return
    _show_decision(found)
    if proof is not None:
        typer.echo(f"proof: {proof} (check it anywhere: lockstep audit verify {proof})")
    end_with(doubts)


def end_with(doubts: tuple[str, ...]) -> None:
    """What was answered rests on a ledger that somebody changed: told, and no success."""
    from lockstep.errors import ProofError

    for doubt in doubts:
        typer.echo(f"the ledger was tampered with: {doubt}: run `lockstep ledger verify`", err=True)
    if doubts:
        raise typer.Exit(ProofError.exit_status)


def _show_decision(found: Decision) -> None:
    from lockstep import terminal
    from lockstep.rules.moments import show_moment

    by_id = f", request {found.request_id}" if found.request_id else ""
    rows = [list(_cells(each)) for each in found.candidates]
    title = f"{found.model} on {found.cloud} at {show_moment(found.moment)}{by_id}"
    terminal.show_rows(title, ("version", "weight", "digest"), rows or [["not known", "", ""]])
    _show_digests(found.candidates)
    if found.sure:
        typer.echo(f"by {found.basis.value}: this version answered")
    elif found.candidates:
        typer.echo(
            f"by {found.basis.value}: one of these versions can have answered ({found.interval.certainty.value})"
        )
    if found.source:
        typer.echo(f"captured in: {found.source}")
    typer.echo(f"ledger entries: {', '.join(map(str, found.entries)) or 'none'}")
    for note in found.notes:
        typer.echo(f"note: {note}")


def describe_decision(found: Decision) -> dict[str, object]:
    """A decision as plain values."""
    from lockstep.rules.moments import show_moment

    return {
        "model": found.model,
        "cloud": found.cloud,
        "time": show_moment(found.moment),
        "request_id": found.request_id or None,
        "basis": found.basis.value,
        "captured_in": found.source or None,
        "sure": found.sure,
        "versions": [_candidate(each) for each in found.candidates],
        "interval": _interval(found.interval),
        "entries": list(found.entries),
        "notes": list(found.notes),
    }


def _interval(interval: Interval) -> dict[str, object]:
    from lockstep.rules.moments import show_moment

    return {
        "certainty": interval.certainty.value,
        "since": show_moment(interval.since),
        "until": None if interval.until is None else show_moment(interval.until),
        "entries": list(interval.entries),
        "note": interval.note or None,
    }


def _candidate(one: Candidate) -> dict[str, object]:
    sealed = one.version
    return {
        "slot": one.slot,
        "version": sealed.label if sealed else None,
        "digest": sealed.digest if sealed else None,
        "weights": list(one.weights),
        "sealed_by_entry": sealed.entry if sealed else None,
    }


def _show_digests(candidates: Sequence[Candidate]) -> None:
    """Whole, and each in a line of its own: tables are as narrow as the terminal, and an identity is copied."""
    for sealed in dict.fromkeys(one.version for one in candidates if one.version is not None):
        typer.echo(f"version {sealed.label}: {sealed.digest}")


def _cells(one: Candidate) -> tuple[str, str, str]:
    label = one.version.label if one.version else one.slot
    digest = one.version.digest[:16] if one.version else "not in the ledger"
    return label, " or ".join(f"{weight} %" for weight in one.weights) or "-", digest
