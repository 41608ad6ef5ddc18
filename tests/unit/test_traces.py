from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from lockstep.rules.deeds import in_order
from lockstep.rules.traces import JUST_NOW, Trace, read_trace
from lockstep.rules.traffic import TrafficSplit

V1, V2 = TrafficSplit.all_to("v1-11111111"), TrafficSplit.all_to("v2-22222222")


@dataclass(frozen=True)
class Line:
    number: int
    event_id: str
    at: float
    kind: str
    actor: str = "ann"
    body: Mapping[str, object] = field(default_factory=dict)
    late: bool = False


Given = tuple[str, str, Mapping[str, object]]


def lines(*given: Given) -> list[Line]:
    """Entries a second apart: kind, event, body."""
    made = []
    for number, (kind, event, body) in enumerate(given):
        stage = kind.rpartition(".")[2]
        whole = {"intent": event, "error": "", **body} if stage == "outcome" else body
        made.append(Line(number, f"{event}/{stage}", 1000.0 + number, kind, body=whole))
    return made


def trace(*given: Given) -> Trace:
    return read_trace(lines(*given))


def test_splits_that_were_read_back_come_first_and_those_asked_for_since_follow() -> None:
    done = ("shift.outcome", "a", {"within": "x", "after": {"aws": dict(V1.weights)}, "split": {"gcp": "busy"}})
    asked = ("shift.intent", "a", {"within": "x", "after": {"aws": dict(V1.weights), "gcp": dict(V1.weights)}})
    later = ("shift.intent", "b", {"within": "x", "after": {"aws": dict(V2.weights)}})
    assert trace(asked, done).known == {"aws": (V1,), "gcp": (V1,)}
    assert trace(asked, done, later).known["aws"] == (V1, V2)


def test_what_was_killed_is_unfinished_until_a_later_move_ends_well() -> None:
    killed = ("rollback.intent", "r", {"version": "1", "digest": "d"})
    found = trace(killed)
    assert found.unfinished is not None
    assert found.unfinished.event_id == "r/intent"
    assert "rollback to version 1 that ann began 1970-01-01 00:16:40 UTC" in found.killed
    failed: tuple[Given, ...] = (("reconcile.intent", "c", {}), ("reconcile.outcome", "c", {"error": "not in step"}))
    assert trace(killed, *failed).unfinished is not None
    mended: tuple[Given, ...] = (("reconcile.intent", "c", {}), ("reconcile.outcome", "c", {}))
    assert trace(killed, *mended).unfinished is None
    assert trace(("shift.intent", "s", {"within": "r"})).unfinished is None, "a step is part of its operation"
    monitored = trace(("monitor.intent", "m", {}), ("rollback.intent", "r", {"version": "1", "within": "m"}))
    assert monitored.unfinished is not None, "a rollback decides, also where monitoring asked for it"


def test_a_split_stands_until_the_next_move_ends() -> None:
    split: tuple[Given, ...] = (
        ("rollback.intent", "r", {}),
        ("rollback.outcome", "r", {"error": "split", "split": {"gcp": "busy"}}),
    )
    assert trace(*split).split == "the rollback is split: gcp: busy"
    done: tuple[Given, ...] = (("reconcile.intent", "c", {}), ("reconcile.outcome", "c", {"split": {}}))
    assert trace(*split, *done).split == ""


def test_slots_stay_for_a_while_after_a_rollback() -> None:
    found = trace(("rollback.intent", "r", {}), ("rollback.outcome", "r", {}))
    assert found.settling(1002.0) == "a rollback ended 1 s ago"
    assert found.settling(1001.0 + JUST_NOW) == ""
    assert found.settling(0.0) == "", "a clock that was set back keeps nothing for ever"
    assert trace().settling(0.0) == ""


def test_a_clock_that_is_set_back_makes_no_ended_rollback_an_unfinished_one() -> None:
    """Reconciling would finish it, and take a version back that was promoted since."""
    rollback = lines(("rollback.intent", "a", {"version": "1"}), ("rollback.outcome", "a", {"version": "1"}))
    promoted = lines(("canary_deploy.intent", "b", {"version": "3"}), ("canary_deploy.outcome", "b", {"version": "3"}))
    later = enumerate((rollback[1], *promoted), 1)
    back = [replace(line, number=number, at=line.at - 3600) for number, line in later]
    found = read_trace([rollback[0], *back])
    assert found.unfinished is None
    assert found.rolled_back is None


def test_what_was_appended_late_stands_where_it_happened() -> None:
    intent, outcome, other = lines(
        ("rollback.intent", "a", {"version": "1"}), ("rollback.outcome", "a", {}), ("canary_deploy.outcome", "b", {})
    )
    late = [replace(one, number=number, late=True) for number, one in ((5, intent), (6, outcome))]
    assert [line.number for line in in_order([other, *late])] == [5, 6, 2]
    assert read_trace([other, *late]).rolled_back is None


def test_the_ways_on_from_what_was_killed() -> None:
    rollout = trace(("canary_deploy.intent", "d", {"version": "2"}))
    assert rollout.ways_on("m", "1", "") == (
        "lockstep deploy m 2 goes on with it, lockstep reconcile m takes its canary back, "
        "lockstep rollback m condemns it as well"
    )
    assert rollout.ways_on("m", "2", "2") == "lockstep deploy m 2 goes on with it", "it serves by now"
    assert trace(("rollback.intent", "r", {"version": "1"})).ways_on("m", "1", "") == "lockstep reconcile m finishes it"
    assert trace().ways_on("m", "1", "") == ""
