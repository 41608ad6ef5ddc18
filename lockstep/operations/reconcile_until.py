"""Reconcile again and again while clouds are busy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from lockstep.operations.fleet import Fleet
from lockstep.operations.interrupting import told_if_interrupted
from lockstep.operations.reconcile import Reconciled, courses_of, folder_of, interruption, reconcile
from lockstep.stores.looks import Looks, read_looks


def reconcile_until(
    fleets: Sequence[Fleet],
    seconds: float,
    *,
    accept_surprise: str = "",
    remove_foreign: bool = False,
    looks: Looks | None = None,
) -> tuple[Reconciled, ...]:
    """Reconcile again and again, at first soon and then every 15 seconds, until all is in step or the time is over."""
    deadline, pause, looks = time.monotonic() + seconds, 1.0, looks or read_looks(folder_of(fleets))
    done: dict[str, Reconciled] = {}
    told: dict[str, str] = {}
    waiting, courses = list(fleets), courses_of(fleets)
    until = f"{datetime.now(UTC) + timedelta(seconds=seconds):%H:%M:%S} UTC"
    with told_if_interrupted(partial(interruption, courses)):
        while True:
            for one in reconcile(
                waiting, accept_surprise=accept_surprise, remove_foreign=remove_foreign, looks=looks, courses=courses
            ):
                done[one.model] = one
            waiting = [fleet for fleet in waiting if not done[fleet.model].in_step]
            left = deadline - time.monotonic()
            if not waiting or left <= 0:
                return tuple(done[fleet.model] for fleet in fleets)
            for fleet in waiting:
                why = done[fleet.model].why
                if told.get(fleet.model) != why:
                    told[fleet.model] = why
                    fleet.warn(f"{fleet.model}: not in step, trying until {until}: {why}")
            time.sleep(min(pause, left))  # no cloud tells when it takes changes again: asking is all there is
            pause = min(2 * pause, 15.0)
