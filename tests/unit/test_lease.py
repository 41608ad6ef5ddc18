from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import lockstep.operations
from lockstep.rules.lease import LIFE, Claim, Lease, Life, Process, Sight, Standing, claim, life, standing, watch

OURS = Lease("tumour", 7, "us", "canary_deploy", False, "3", "d3", Process("host", 1), 0.0)
THEIRS = replace(OURS, holder="them", operation="rollback", urgent=True)
HOLDERS = st.sampled_from(["", "us", "them"])
LEASES = st.builds(
    replace, st.just(OURS), fence=st.integers(1, 12), holder=HOLDERS, urgent=st.booleans(), beat=st.integers(0, 3)
)


def test_who_may_take_a_lease() -> None:
    rollout, rollback = replace(OURS, holder="them"), THEIRS
    table = {
        (None, Life.DEAD): (Claim.TAKE, Claim.TAKE),
        (replace(rollout, holder=""), Life.UNKNOWN): (Claim.TAKE, Claim.TAKE),
        (replace(rollback, holder=""), Life.ALIVE): (Claim.TAKE, Claim.TAKE),
        (rollout, Life.DEAD): (Claim.TAKE, Claim.TAKE),
        (rollback, Life.DEAD): (Claim.TAKE, Claim.TAKE),
        (rollout, Life.UNKNOWN): (Claim.TAKE, Claim.WAIT),
        (rollback, Life.UNKNOWN): (Claim.JOIN, Claim.WAIT),
        (rollout, Life.ALIVE): (Claim.TAKE, Claim.REFUSE),
        (rollback, Life.ALIVE): (Claim.JOIN, Claim.REFUSE),
    }
    for (present, holder), (urgent, other) in table.items():
        assert claim(present, holder, urgent=True) is urgent, (present, holder)
        assert claim(present, holder, urgent=False) is other, (present, holder)


@given(LEASES, st.sampled_from(Life), st.booleans())
def test_only_a_rollback_pushes_a_living_holder_aside(present: Lease, holder: Life, urgent: bool) -> None:
    wanted = claim(present, holder, urgent=urgent)
    if present.holder and holder is not Life.DEAD:
        assert (wanted is Claim.TAKE) == (urgent and not present.urgent)
    else:
        assert wanted is Claim.TAKE


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 2)), min_size=1, max_size=20), st.booleans())
def test_a_holder_is_dead_after_its_silence_and_not_before(looks: list[tuple[float, int]], gone: bool) -> None:
    now, beat, silent = 0.0, 0, 0.0
    sight: Sight | None = None
    moved = False
    for pause, beats in looks:
        now += pause
        if sight is None or beats:
            moved = moved or (sight is not None and bool(beats))
            silent = now
        beat += beats
        sight = watch(sight, replace(OURS, beat=beat), now)
        expected = Life.DEAD if gone or now - silent >= LIFE else Life.ALIVE if moved else Life.UNKNOWN
        assert life(sight, now, gone=gone) is expected


def test_another_taking_is_watched_anew() -> None:
    sight = watch(watch(None, OURS, 0.0), replace(OURS, beat=1), 1.0)
    assert (sight.since, sight.moved) == (1.0, True)
    assert watch(sight, replace(OURS, fence=8, holder="them", beat=1), 9.0) == Sight(
        replace(OURS, fence=8, holder="them", beat=1), 9.0
    )


@given(st.none() | LEASES, LEASES)
def test_a_lease_that_was_taken_stays_ours_or_is_lost(present: Lease | None, ours: Lease) -> None:
    found = standing(present, ours)
    if present is None:
        assert found is Standing.PUT_BACK
    elif (present.fence, present.holder) == (ours.fence, ours.holder):
        assert found is Standing.OURS
    elif present.fence >= ours.fence:
        assert found is Standing.LOST, "somebody took it after us"
    else:  # a database of an older state: whoever is urgent goes first
        assert (found is Standing.LOST) == (bool(present.holder) and present.urgent and not ours.urgent)


def test_no_operation_changes_an_alias_past_the_check() -> None:
    """`aliases.py` asks whether the lease is still held; the registry itself does not."""
    folder = Path(lockstep.operations.__file__).parent
    direct = [
        f"{path.name}:{node.lineno}"
        for path in sorted(folder.rglob("*.py"))
        if path.name != "aliases.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in ("set_alias", "delete_alias")
        if isinstance(node.value, ast.Attribute) and node.value.attr == "registry"
    ]
    assert direct == []
