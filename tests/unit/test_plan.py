from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.plan import Plan, PrepareSlot, RetireSlot, ShiftTraffic, Target, plan_changes
from lockstep.rules.state import CloudState, FleetState, SlotState, Version
from lockstep.rules.traffic import TrafficSplit

V1, V2 = Version("m", "1", "a" * 64), Version("m", "2", "b" * 64)


def slot(version: Version, weight: int, *, ready: bool = True) -> SlotState:
    return SlotState(version.slot, weight, ready, "InService" if ready else "Creating")


def fleet(**clouds: tuple[SlotState, ...]) -> FleetState:
    states = tuple(CloudState(name, "m", bool(slots), slots=slots) for name, slots in clouds.items())
    return FleetState("m", states, {})


def test_what_is_there_is_left_alone() -> None:
    observed = fleet(aws=(slot(V1, 100), slot(V2, 0)))
    target = Target((V1, V2), {"aws": TrafficSplit.all_to(V1.slot)})
    assert plan_changes(target, observed) == Plan("m", ())
    assert plan_changes(target, observed).explain() == ("m: nothing to change",)


def test_a_missing_and_an_unready_slot_are_prepared() -> None:
    observed = fleet(aws=(slot(V1, 100),), gcp=(slot(V1, 100), slot(V2, 0, ready=False)))
    assert plan_changes(Target((V1, V2), {}), observed).changes == (PrepareSlot("aws", V2), PrepareSlot("gcp", V2))


def test_traffic_moves_only_where_it_differs() -> None:
    wanted = TrafficSplit.all_to(V2.slot)
    observed = fleet(aws=(slot(V1, 100), slot(V2, 0)), gcp=(slot(V1, 0), slot(V2, 100)))
    plan = plan_changes(Target((V2,), {"aws": wanted, "gcp": wanted}), observed)
    assert plan.changes == (ShiftTraffic("aws", TrafficSplit.all_to(V1.slot), wanted),)


def test_a_slot_that_will_have_traffic_is_never_retired() -> None:
    observed = fleet(aws=(slot(V1, 100), slot(V2, 0)))
    target = Target((), {"aws": TrafficSplit.all_to(V1.slot)}, frozenset({V1.slot, V2.slot}))
    assert plan_changes(target, observed).retires == (RetireSlot("aws", V2.slot),)
    assert plan_changes(Target((), {}, frozenset({V1.slot})), observed).retires == ()


weights = st.integers(0, 100)


@given(weights, weights, st.booleans(), weights)
def test_carrying_a_plan_out_leaves_nothing_to_plan(before: int, wanted: int, ready: bool, other: int) -> None:
    observed = fleet(aws=(slot(V1, 100 - before), slot(V2, before, ready=ready)), gcp=(slot(V1, 100),))
    splits = {name: TrafficSplit.canary(V1.slot, V2.slot, share) for name, share in (("aws", wanted), ("gcp", other))}
    target = Target((V1, V2), splits)
    plan = plan_changes(target, observed)
    assert plan_changes(target, carried_out(plan, observed)) == Plan("m", ())


def carried_out(plan: Plan, observed: FleetState) -> FleetState:
    slots = {cloud.cloud: {one.name: one for one in cloud.slots} for cloud in observed.clouds}
    for prepare in plan.prepares:
        old = slots[prepare.cloud].get(prepare.version.slot)
        slots[prepare.cloud][prepare.version.slot] = slot(prepare.version, old.weight if old else 0)
    for shift in plan.shifts:
        slots[shift.cloud] = {
            name: SlotState(name, shift.after.weight(name), one.ready, one.status)
            for name, one in slots[shift.cloud].items()
        }
    return fleet(**{cloud: tuple(known.values()) for cloud, known in slots.items()})
