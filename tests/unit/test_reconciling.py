from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.capacity import Least, cold_fallback
from lockstep.rules.plan import Plan, PrepareSlot, ReplaceSlot, ResizeSlot, RetireSlot, ShiftTraffic
from lockstep.rules.reconciliation import Facts, Finishing, Reconciliation
from lockstep.rules.reconciling import reconcile_model, surprising, unhealed
from lockstep.rules.state import CHALLENGER, FALLBACK, CloudState, DesiredState, FleetState, SlotState, Version
from lockstep.rules.traffic import TrafficSplit

V1, V2, V3, V4 = (Version("m", str(number), f"{number}" * 64) for number in range(1, 5))
DESIRED = DesiredState("m", V2, None, V1)
TO_V1, TO_V2 = TrafficSplit.all_to(V1.slot), TrafficSplit.all_to(V2.slot)


def slot(version: Version, weight: int = 0, *, ready: bool = True, capacity: int = 1) -> SlotState:
    return SlotState(version.slot, weight, ready, "", capacity, version.label, version.digest)


def cloud(*slots: SlotState, name: str = "aws") -> CloudState:
    return CloudState(name, "m", bool(slots), slots=slots)


def fleet(*clouds: CloudState, **unreachable: str) -> FleetState:
    return FleetState("m", clouds, unreachable)


def found(*slots: SlotState, desired: DesiredState = DESIRED, facts: Facts = Facts(), **how: bool) -> Reconciliation:  # noqa: B008 - frozen
    return reconcile_model(desired, fleet(cloud(*slots)), facts, **how)


def told(one: Reconciliation) -> str:
    return "; ".join(map(str, one.differences))


GOOD = (slot(V1), slot(V2, 100))


def test_what_is_in_step_is_left_alone() -> None:
    one = found(*GOOD)
    assert one.in_step
    assert one.plan == Plan("m", ())


def test_traffic_goes_back_to_the_champion_and_a_hand_is_named() -> None:
    moved = (slot(V1, 100), slot(V2))
    assert found(*moved).plan.changes == (ShiftTraffic("aws", TO_V1, TO_V2),)
    assert not found(*moved).by_hand
    by_hand = found(*moved, facts=Facts(known={"aws": (TO_V2,)}))
    assert by_hand.by_hand[0].before == str(TO_V2)
    assert by_hand.by_hand[0].after == str(TO_V1)
    asked_for = found(*moved, facts=Facts(known={"aws": (TO_V2, TO_V1)}))
    assert not asked_for.by_hand, "Lockstep itself asked for it, though it never read it back"


def test_missing_slots_are_made() -> None:
    assert found(slot(V2, 100)).plan.changes == (PrepareSlot("aws", V1),)
    assert found().plan.changes == (PrepareSlot("aws", V2), PrepareSlot("aws", V1), ShiftTraffic("aws", None, TO_V2))
    assert found(slot(V1, ready=False), slot(V2, 100)).plan.changes == (PrepareSlot("aws", V1),)


def test_a_live_operation_is_left_to_itself() -> None:
    one = found(slot(V1, 100), facts=Facts(holder="a rollout"))
    assert not one.work
    assert one.held == "a rollout"
    assert not one.in_step


def test_a_canary_whose_rollout_was_killed_is_taken_back() -> None:
    desired = replace(DESIRED, challenger=V3)
    one = found(slot(V1), slot(V2, 50), slot(V3, 50), desired=desired)
    assert one.plan.changes == (
        ShiftTraffic("aws", TrafficSplit.of({V2.slot: 50, V3.slot: 50}), TO_V2),
        RetireSlot("aws", V3.slot),
    )
    assert one.aliases == {CHALLENGER: None}
    assert one.over == V3
    assert one.expected


def test_after_a_killed_operation_no_cloud_is_believed() -> None:
    again = (ShiftTraffic("aws", TO_V2, TO_V2),)
    assert found(*GOOD, facts=Facts(unfinished="a rollback")).plan.changes == again
    assert found(*GOOD, desired=replace(DESIRED, challenger=V3)).plan.changes == again
    promoted = found(*GOOD, desired=replace(DESIRED, challenger=V2))
    assert promoted.aliases == {CHALLENGER: None}
    assert not promoted.plan.changes


def test_a_rollback_that_was_killed_is_finished_before_anything_else() -> None:
    """MLflow calls v2 the champion still, the fallback has no slot, and a slot is there that no alias names."""
    desired = DesiredState("m", V1, V3, V2)
    facts = Facts(unfinished="a rollback", finishing=Finishing(V1, "it is worse", (V3, V2)), good=V2)
    one = found(slot(V1), slot(V2, 100), slot(V4), desired=desired, facts=facts)
    assert one.explain() == (
        f"finish the rollback to {V1}: it is worse",
        *Plan("m", (ShiftTraffic("aws", TO_V2, TO_V1),)).explain(),
        f"condemn {V3}: rolled back from: it is worse",
        f"condemn {V2}: rolled back from: it is worse",
    )
    assert one.work
    assert one.expected
    assert not one.aliases, "what is left is no fallback"
    cold = found(slot(V2, 100), desired=desired, facts=facts)
    assert cold.plan.prepares == (PrepareSlot("aws", V1),)
    assert found(slot(V2, 100), desired=desired, facts=replace(facts, holder="a rollout")).held


def test_the_champion_is_no_way_back_from_itself() -> None:
    one = found(slot(V2, 100), desired=DesiredState("m", V2, None, V2))
    assert one.aliases == {FALLBACK: None}
    assert one.explain() == ("MLflow: delete the alias 'fallback'",)
    better = found(slot(V2, 100), desired=DesiredState("m", V2, None, V2), facts=Facts(good=V1))
    assert better.aliases == {FALLBACK: V1}
    assert better.plan.changes == (PrepareSlot("aws", V1),)
    assert found(slot(V2, 100), desired=DesiredState("m", V2), facts=Facts(good=V1)).aliases == {FALLBACK: V1}
    assert found(*GOOD, facts=Facts(good=V3)).in_step, "a fallback that can be one stays"


def test_foreign_slots() -> None:
    mine = SlotState("blue", 0, True, "")
    one = found(*GOOD, slot(V4), mine)
    assert one.plan.changes == (RetireSlot("aws", V4.slot),)
    assert [difference.healed for difference in one.differences] == [True, False]
    assert "--remove-foreign" in told(one)
    assert found(*GOOD, mine, remove_foreign=True).plan.changes == (RetireSlot("aws", "blue"),)
    settling = found(*GOOD, slot(V4), facts=Facts(settling="a rollback ended 3 s ago"))
    assert settling.in_step, "whoever waits for a model to be in step does not wait for that"
    assert "left for now" in told(settling)
    assert unhealed(settling) == ()
    serving = found(slot(V1), slot(V2), SlotState("blue", 100, True, ""))
    assert serving.plan.changes == (ShiftTraffic("aws", TrafficSplit.all_to("blue"), TO_V2),)


def test_an_altered_slot_is_made_anew_unless_it_serves() -> None:
    altered = Facts(altered={"aws": {V1.slot: ("image is another",), V2.slot: ("image is another",)}})
    one = found(*GOOD, facts=altered)
    assert one.plan.changes == (ReplaceSlot("aws", V1),)
    assert "100 % of the traffic: lockstep rollback m" in told(one)
    other = replace(slot(V1), digest="f" * 64)
    assert found(other, slot(V2, 100)).plan.changes == (ReplaceSlot("aws", V1),)


def test_capacity_below_the_least_is_raised() -> None:
    facts = Facts(least={"aws": Least(champion=2, fallback=2)})
    one = found(slot(V1), slot(V2, 100, capacity=5), facts=facts)
    assert one.plan.changes == (ResizeSlot("aws", V1.slot, 1, 2),)
    facts = Facts(least={"aws": Least(champion=1, fallback=2)})
    made = (PrepareSlot("aws", V1), ResizeSlot("aws", V1.slot, 1, 2))
    assert found(slot(V2, 100), facts=facts).plan.changes == made, "a new slot begins with the champion's least"


def test_a_way_back_that_is_not_warm_is_told_before_it_is_needed() -> None:
    def cold(*slots: SlotState, least: int = 1) -> str:
        return "; ".join(cold_fallback(fleet(cloud(*slots)), V1, {"aws": Least(fallback=least)}))

    assert cold(*GOOD) == ""
    assert "aws: the fallback m 1 (111111111111) has 1 of 2 instances" in cold(*GOOD, least=2)
    assert "has no slot; a rollback would take minutes (to mend it: lockstep reconcile m)" in cold(slot(V2, 100))
    assert "would wait for it" in cold(slot(V1, ready=False))


def test_condemned_and_unreachable_are_told() -> None:
    one = reconcile_model(DESIRED, fleet(cloud(*GOOD), gcp="no answer"), Facts(condemned={V2.digest: "bad"}))
    assert not one.work
    assert "gcp: unreachable: no answer" in told(one)
    assert "the champion m 2 (222222222222) is condemned: bad – lockstep rollback m" in told(one)
    dead = found(slot(V2, 100), facts=Facts(condemned={V1.digest: "bad"}))
    assert not dead.work, "a condemned fallback is not made ready"


def test_without_a_champion_nothing_is_changed() -> None:
    one = found(slot(V1, 100), desired=DesiredState("m", None))
    assert not one.work
    assert "no version is champion" in told(one)
    assert found(desired=DesiredState("m", None)).in_step


def test_surprises() -> None:
    moved = [replace(found(slot(V1, 100), slot(V2)), model=f"m{number}") for number in range(4)]
    assert surprising(moved[:3], 3, 6) == ""
    assert "4 models" in surprising(moved, 3, 6)
    assert "4 times" in surprising(moved, 9, 3)
    assert surprising([replace(one, expected="split") for one in moved], 0, 0) == ""


VERSIONS = st.sampled_from((V1, V2, V3, V4))


@st.composite
def clouds(draw: st.DrawFn) -> CloudState:
    names = draw(st.lists(st.sampled_from((V1.slot, V2.slot, V3.slot, V4.slot, "blue")), unique=True))
    cut = sorted(draw(st.lists(st.integers(0, 100), min_size=max(0, len(names) - 1), max_size=max(0, len(names) - 1))))
    weights = [upper - lower for lower, upper in zip((0, *cut), (*cut, 100), strict=True)] if names else []
    silent = draw(st.booleans())
    digests = {version.slot: version.digest for version in (V1, V2, V3, V4)}
    slots = tuple(
        SlotState(
            name, 0 if silent else weight, draw(st.booleans()), "", draw(st.integers(1, 3)), "", digests.get(name, "")
        )
        for name, weight in zip(names, weights, strict=True)
    )
    return cloud(*slots, name=draw(st.sampled_from(("aws", "gcp"))))


@given(
    clouds(),
    VERSIONS,
    st.none() | VERSIONS,
    st.none() | VERSIONS,
    st.builds(Facts, settling=st.sampled_from(("", "now")), unfinished=st.sampled_from(("", "killed"))),
    st.booleans(),
)
def test_carried_out_the_plan_is_the_end(
    seen: CloudState,
    champion: Version,
    challenger: Version | None,
    fallback: Version | None,
    facts: Facts,
    remove_foreign: bool,
) -> None:
    desired = DesiredState("m", champion, challenger, fallback)
    one = reconcile_model(desired, fleet(seen), facts, remove_foreign=remove_foreign)
    after = carried_out(seen, one.plan)
    assert after.split == TrafficSplit.all_to(champion.slot)
    left = replace(
        desired,
        challenger=one.aliases.get(CHALLENGER, challenger),
        fallback=one.aliases.get(FALLBACK, fallback),
    )
    again = reconcile_model(left, fleet(after), replace(facts, unfinished=""), remove_foreign=remove_foreign)
    assert not again.work
    assert all(not difference.healed for difference in again.differences)
    if fallback is not None and fallback.digest != champion.digest:
        warm = after.slot(fallback.slot)
        assert warm is not None
        assert warm.ready
        assert RetireSlot(seen.cloud, fallback.slot) not in one.plan.changes


def carried_out(seen: CloudState, plan: Plan) -> CloudState:
    """The cloud after the plan, by the clouds' own rules: traffic to ready slots, removal without traffic."""
    slots = {one.name: one for one in seen.slots}
    for change in plan.changes:
        if isinstance(change, PrepareSlot | ReplaceSlot):
            if isinstance(change, ReplaceSlot):
                assert slots[change.version.slot].weight == 0
            before = slots.get(change.version.slot)
            slots[change.version.slot] = slot(change.version, before.weight if before else 0)
        elif isinstance(change, ShiftTraffic):
            assert all(slots[name].ready for name, _ in change.after.weights)
            slots = {name: replace(one, weight=change.after.weight(name)) for name, one in slots.items()}
        elif isinstance(change, ResizeSlot):
            slots[change.slot] = replace(slots[change.slot], capacity=change.after)
        else:
            assert slots.pop(change.slot).weight == 0
    return replace(seen, slots=tuple(slots.values()))
