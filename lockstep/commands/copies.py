"""The ledger's copies at the command line: what bringing them up to date, and comparing them, found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import typer

if TYPE_CHECKING:
    from lockstep.clouds.archive import Protection
    from lockstep.clouds.base import Cloud
    from lockstep.config import Config
    from lockstep.operations.comparison import CopyCheck
    from lockstep.operations.copies import CopyReport
    from lockstep.stores.ledger import Ledger

NO_COPY: Final = "keeps no copy (archive_bucket or archive_container is not set)"


def clouds_of(config: Config) -> tuple[Cloud, ...]:
    """Every configured cloud: the ledger belongs to all models."""
    return tuple(settings.connect(name) for name, settings in config.clouds.items())


def bring_up(config: Config, ledger: Ledger) -> tuple[CopyReport, ...]:
    """Every cloud's copy brought up to the ledger's newest checkpoint."""
    from datetime import timedelta

    from lockstep.operations.copies import copy_ledger

    return copy_ledger(clouds_of(config), ledger, timedelta(days=config.ledger.retention_days))


def check(config: Config, ledger: Ledger) -> tuple[CopyCheck, ...]:
    """Every cloud's copy compared with the ledger; `status_of` is the exit status, 0 when all that there are hold."""
    from lockstep.operations.comparison import compare_copies

    return compare_copies(clouds_of(config), ledger)


def show_reports(reports: Sequence[CopyReport]) -> None:
    """A table, and what went wrong."""
    from lockstep import terminal

    rows = [
        (one.cloud, NO_COPY)
        if not one.place and one.error is None
        else (one.cloud, _change(one), _said(one.protection))
        for one in reports
    ]
    terminal.show_rows("copies of the ledger", ("cloud", "entries", "protection"), rows)
    _show_errors(reports)


def show_checks(checks: Sequence[CopyCheck]) -> None:
    """A table, and what contradicts the ledger."""
    from lockstep import terminal

    rows: list[tuple[str, ...]] = []
    for one in checks:
        if not one.place and one.error is None:
            rows.append((one.cloud, NO_COPY))
            continue
        entries = "none" if one.size is None else f"{one.size} under {one.checkpoints} checkpoints"
        state = "holds" if one.holds else "not read" if one.error else "CONTRADICTS THE LEDGER"
        state += f", lacks the newest {one.behind} entries" if one.behind else ""
        rows.append((one.cloud, entries, _said(one.protection), state))
    terminal.show_rows("copies of the ledger", ("cloud", "entries", "protection", "state"), rows)
    for one in checks:
        for problem in one.problems:
            typer.echo(f"{one.cloud}: {problem}", err=True)
    _show_errors(checks)


def reports_as_json(reports: Sequence[CopyReport]) -> list[dict[str, object]]:
    """The same for a program."""
    return [
        {
            "cloud": one.cloud,
            "place": one.place,
            "before": one.before,
            "entries": one.size,
            "written": one.written,
            **_protection(one.protection),
            "error": one.error.reason if one.error else "",
        }
        for one in reports
    ]


def checks_as_json(checks: Sequence[CopyCheck]) -> list[dict[str, object]]:
    """The same for a program."""
    return [
        {
            "cloud": one.cloud,
            "place": one.place,
            "entries": one.size,
            "checkpoints": one.checkpoints,
            "behind": one.behind,
            **_protection(one.protection),
            "holds": one.holds,
            "first_bad": one.first_bad,
            "problems": list(one.problems),
            "error": one.error.reason if one.error else "",
        }
        for one in checks
    ]


def status_of(found: Sequence[CopyReport | CopyCheck]) -> int:
    """Exit status: 3 where a copy contradicts the ledger, else that of what kept a copy from being reached, else 0."""
    statuses = [one.error.exit_status for one in found if one.error is not None]
    statuses += [3 for one in found if getattr(one, "problems", ())]
    return min(statuses, default=0)


def _change(report: CopyReport) -> str:
    if report.size is None:
        return "none"
    if report.size == report.before:
        return f"{report.size}, as before"
    return f"{report.size}, {report.size - (report.before or 0)} of them new"


def _said(protection: Protection | None) -> str:
    return "not known" if protection is None else protection.text


def _protection(protection: Protection | None) -> dict[str, object]:
    return {"write_once": protection is not None and protection.enforced, "protection": _said(protection)}


def _show_errors(found: Sequence[CopyReport | CopyCheck]) -> None:
    for one in found:
        if one.error is not None:
            typer.echo(f"{one.cloud}: {one.error.reason}", err=True)
