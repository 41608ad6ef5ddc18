"""How long an endpoint's answers stand on the page, and when it is asked again."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lockstep.agent.proofs import AGAIN, Proofs
from lockstep.operations.lease import Holder
from lockstep.operations.status import CloudProof, Status
from lockstep.rules.measurement import Answer
from lockstep.rules.state import CloudState, DesiredState, FleetState, SlotState, Version

V1, V2 = Version("churn", "1", "a" * 64), Version("churn", "2", "b" * 64)
EVERY = 300.0
WRITER = Holder(7, "rollback to version 1", runs=True)


def found(
    serves: Version, answers: Version | None, desired: Version | None = V1, writer: Holder | None = None
) -> Status:
    """What a look finds: the cloud's record says `serves`, and its endpoint names `answers` where it is asked."""
    slot = SlotState(serves.slot, 100, True, "InService", label=serves.label, digest=serves.digest)
    state = FleetState("churn", (CloudState("aws", "churn", exists=True, slots=(slot,)),), {})
    answer = (Answer("aws", "", "", answers.digest, b"", "", 0.0),) if answers else ()
    proofs = (CloudProof("aws", answer, "" if answers else "no answer came"),) if desired else ()
    return Status(DesiredState("churn", desired), state, proofs, (), writer=writer)


def asked_at(proofs: Proofs, looks: list[tuple[float, Status]]) -> list[float]:
    """Which of the looks asked the endpoint."""
    times = []
    for now, what in looks:
        asked = proofs.is_due(now)
        proofs.keep(what if asked else replace(what, proofs=()), now, asked=now if asked else None)
        times += [now] if asked else []
    return times


def test_what_verified_stands_for_long() -> None:
    proofs = Proofs(EVERY)
    assert asked_at(proofs, [(at, found(V1, V1)) for at in (1.0, 11.0, 300.0, 301.0, 302.0)]) == [1.0, 301.0]
    assert proofs.at == {"aws": 301.0}
    assert asked_at(Proofs(0.0), [(1.0, found(V1, V1))]) == []


def test_what_serves_otherwise_than_when_it_was_asked_is_asked_again() -> None:
    """By hand a slot may be given other bytes, or break, at the same share of the traffic."""
    for change in ({"digest": V2.digest}, {"ready": False}, {"digest": ""}):
        before, after = found(V1, V1), found(V1, None)
        (cloud,) = after.state.clouds
        changed = replace(cloud, slots=(replace(cloud.slots[0], **change),))
        after = replace(after, state=replace(after.state, clouds=(changed,)))
        proofs = Proofs(EVERY)
        assert asked_at(proofs, [(1.0, before), (11.0, before), (21.0, after), (31.0, after)]) == [1.0, 31.0]


def test_what_was_not_verified_is_asked_again_soon_and_ever_more_seldom() -> None:
    """The record has moved already, and the endpoint answers as before for a while: that stood for five minutes."""
    proofs = Proofs(EVERY)
    stale = [(at, found(V1, V2)) for at in (0.0, AGAIN / 2, AGAIN, 2 * AGAIN, 3 * AGAIN)]
    assert asked_at(proofs, stale) == [0.0, AGAIN, 3 * AGAIN]
    assert asked_at(proofs, [(6 * AGAIN, found(V1, V1)), (7 * AGAIN, found(V1, V1))]) == [7 * AGAIN]
    never = Proofs(EVERY)
    looks = [(float(at), found(V1, None)) for at in range(0, 3600, 5)]
    assert len(asked_at(never, looks)) <= 3600 / EVERY + 6, "real answers cost money"


def test_a_first_version_is_asked_as_soon_as_it_should_serve() -> None:
    proofs = Proofs(EVERY)
    asked_at(proofs, [(0.0, found(V1, None, desired=None))])
    assert asked_at(proofs, [(10.0, found(V1, V1))]) == [10.0]


def test_traffic_that_was_moved_is_asked_for_at_the_next_look() -> None:
    proofs = Proofs(EVERY)
    asked_at(proofs, [(0.0, found(V2, V2, desired=V2))])
    moved = replace(found(V1, V1), proofs=())
    assert proofs.keep(moved, 10.0, asked=None).proofs == (), "they were another version's"
    assert asked_at(proofs, [(20.0, found(V1, V1))]) == [20.0]


def test_the_end_of_what_changed_the_model_is_asked_for_at_once() -> None:
    proofs = Proofs(EVERY)
    during = [(0.0, found(V1, V2, writer=WRITER)), (AGAIN, found(V1, V2, writer=WRITER))]
    assert asked_at(proofs, during) == [0.0, AGAIN]
    assert asked_at(proofs, [(AGAIN + 1, found(V1, V1)), (AGAIN + 2, found(V1, V1))]) == [AGAIN + 2]


def test_a_rollback_that_ends_while_endpoints_are_asked_has_them_asked_once_more() -> None:
    proofs = Proofs(EVERY)
    assert proofs.is_due(0.0)
    proofs.moved()
    proofs.keep(found(V1, V1), 1.0, asked=1.0)
    assert asked_at(proofs, [(2.0, found(V1, V1)), (3.0, found(V1, V1))]) == [2.0]


@given(st.lists(st.tuples(st.floats(0.1, 60.0), st.sampled_from((V1, V2, None)), st.booleans()), max_size=60))
def test_no_doubt_is_older_than_the_next_pause(looks: list[tuple[float, Version | None, bool]]) -> None:
    proofs, now, asked = Proofs(EVERY), 0.0, 0.0
    for step, answers, moved in looks:
        now += step
        if moved:
            proofs.moved()
        due = proofs.is_due(now)
        assert due or not moved
        assert due or now - asked < EVERY
        asked = now if due else asked
        kept = proofs.keep(found(V1, answers), now, asked=now if due else None)
        assert kept.proofs, "nothing was moved: it stands"
