"""What served when: random lives of a fleet, written down as operations write them, must be told truly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.errors import NotFoundError
from lockstep.rules.deeds import Ending, read_deeds
from lockstep.rules.history import Certainty, Split, read_history
from lockstep.rules.moments import show_moment
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit
from tests.unit.lines import Line

V1, V2, V3 = (Version("tumour", str(n), f"{n}" * 64) for n in (1, 2, 3))
CLOUDS = ("aws", "azure")


@dataclass
class Book:
    """Entries as operations write them."""

    lines: list[Line] = field(default_factory=list)

    def write(self, event_id: str, at: float, kind: str, **body: object) -> int:
        self.lines.append(Line(len(self.lines), event_id, at, kind, body))
        return len(self.lines) - 1

    def shift(
        self,
        at: float,
        ended: float | None,
        after: Mapping[str, Mapping[str, int]],
        verified: Mapping[str, float],
        **more: object,
    ) -> str:
        event = f"shift-{len(self.lines)}"
        slots = {v.slot: {"version": v.label, "digest": v.digest} for v in (V1, V2, V3)}
        self.write(f"{event}/intent", at, "shift.intent", after=after, slots=slots, **more)
        if ended is not None:
            self.write(
                f"{event}/outcome",
                ended,
                "shift.outcome",
                intent=event,
                error="",
                wanted=after,
                after={cloud: after[cloud] for cloud in verified},
                verified={cloud: show_moment(moment).replace("Z", "+00:00") for cloud, moment in verified.items()},
                split={cloud: "it did not follow" for cloud in after if cloud not in verified},
                **more,
            )
        return event


def all_to(version: Version, *clouds: str) -> dict[str, dict[str, int]]:
    return {cloud: {version.slot: 100} for cloud in clouds or CLOUDS}


def whole(version: Version) -> TrafficSplit:
    return TrafficSplit.all_to(version.slot)


def test_a_deploy_a_canary_and_a_rollback_that_one_cloud_does_not_follow() -> None:
    book = Book()
    book.write("r/intent", 1, "register.intent", source="runs:/1/model")
    seal = book.write("r/outcome", 2, "register.outcome", intent="r", version="1", digest=V1.digest, content="c" * 64)
    book.shift(10, 13, all_to(V1), {"aws": 11, "azure": 13})
    split = {"aws": {V1.slot: 75, V2.slot: 25}}
    book.shift(20, 22, split, {"aws": 21})
    book.shift(30, 40, all_to(V1), {"aws": 31})
    history = read_history(book.lines)

    def told(cloud: str, at: float) -> tuple[Certainty, tuple[Split, ...]]:
        found = history.at(cloud, at)
        return found.certainty, found.splits

    canary = TrafficSplit.of({V1.slot: 75, V2.slot: 25})
    assert told("aws", 1) == (Certainty.UNKNOWN, ())
    assert told("aws", 10.5) == (Certainty.TRANSITION, (None, whole(V1)))
    assert told("azure", 12) == (Certainty.TRANSITION, (None, whole(V1)))
    assert told("aws", 12) == told("azure", 25) == (Certainty.CERTAIN, (whole(V1),))
    assert told("aws", 20) == (Certainty.TRANSITION, (whole(V1), canary))
    assert told("aws", 29) == (Certainty.CERTAIN, (canary,))
    assert told("aws", 31) == told("aws", 1e12) == (Certainty.CERTAIN, (whole(V1),))
    assert told("azure", 41) == (Certainty.UNKNOWN, (whole(V1),)), "it had v1 before and was to have v1"
    assert "did not follow" in history.at("azure", 41).note
    assert history.at("aws", 12).entries == (3,), "the outcome that was verified"
    assert history.versions[V1.slot].entry == seal
    assert history.versions[V1.slot].content == "c" * 64
    assert history.versions[V2.slot].digest == V2.digest


def test_a_killed_shift_leaves_the_unknown_until_a_later_one_is_verified() -> None:
    book = Book()
    book.shift(0, 1, all_to(V1), {"aws": 1, "azure": 1})
    lost = book.write("k/intent", 10, "shift.intent", after=all_to(V2))
    history = read_history(book.lines)
    found = history.at("aws", 500)
    assert (found.certainty, found.splits) == (Certainty.UNKNOWN, (whole(V1), whole(V2)))
    assert str(lost) in found.note
    book.shift(600, 602, all_to(V1), {"aws": 601, "azure": 601})
    history = read_history(book.lines)
    assert history.at("aws", 500).certainty is Certainty.UNKNOWN
    assert history.at("aws", 602).splits == (whole(V1),)
    assert history.at("aws", 602).certainty is Certainty.CERTAIN


def test_the_first_slot_of_an_endpoint_may_serve_before_any_shift() -> None:
    book = Book()
    book.write("p/intent", 5, "prepare.intent", clouds={"aws": [V1.slot]})
    book.write("p/outcome", 7, "prepare.outcome", clouds={"aws": [V1.slot]}, intent="p", error="")
    book.shift(8, 9, {"aws": {V1.slot: 100}}, {"aws": 9})
    book.write("q/intent", 20, "prepare.intent", clouds={"aws": [V2.slot]})
    history = read_history(book.lines)
    assert history.at("aws", 6).splits == history.at("aws", 8.5).splits == (None, whole(V1))
    assert history.at("aws", 6).certainty is Certainty.TRANSITION
    assert history.at("aws", 7.5).certainty is Certainty.UNKNOWN
    assert history.at("aws", 25).certainty is Certainty.CERTAIN, "a second slot takes no traffic by itself"


def test_traffic_that_somebody_else_moved_is_a_surprise() -> None:
    book = Book()
    book.shift(0, 1, all_to(V1, "aws"), {"aws": 1})
    book.shift(10, 11, all_to(V3, "aws"), {"aws": 11}, before={"aws": {V2.slot: 100}})
    book.shift(20, 21, all_to(V1, "aws"), {"aws": 21}, before={"aws": {V3.slot: 100}})
    (surprise,) = read_history(book.lines).surprises
    assert (surprise.expected, surprise.reported, surprise.entry) == (whole(V1), whole(V2), 2)


def test_questions_without_an_answer_say_what_is_known() -> None:
    with pytest.raises(NotFoundError, match="no entry"):
        read_history([])
    book = Book()
    book.shift(100, 101, all_to(V1, "aws"), {"aws": 101})
    history = read_history(book.lines)
    with pytest.raises(NotFoundError, match="aws"):
        history.at("gcp", 100)
    with pytest.raises(NotFoundError, match="1970-01-01T00:01:40"):
        history.at("aws", 99)


def test_late_entries_count_by_their_own_time() -> None:
    book = Book()
    book.shift(0, 1, all_to(V1, "aws"), {"aws": 1})
    book.shift(50, 51, all_to(V3, "aws"), {"aws": 51})
    book.shift(20, 21, all_to(V2, "aws"), {"aws": 21})  # spooled, appended afterwards
    history = read_history(book.lines)
    assert [history.at("aws", at).splits for at in (10, 30, 60)] == [(whole(V1),), (whole(V2),), (whole(V3),)]


def test_deeds_hold_their_steps_and_every_entry_once() -> None:
    book = Book()
    book.write("op/intent", 1, "rollback.intent", reason="alert 7", version="1", digest=V1.digest)
    book.shift(2, 3, all_to(V1), {"aws": 3}, within="op")
    book.write("op/outcome", 4, "rollback.outcome", intent="op", error="azure is down", within="gone")
    book.write("x", 5, "canary_deploy.refused", refused="it is condemned")
    book.write("y/intent", 6, "replicate.intent")
    deeds = read_deeds(book.lines)
    assert [(deed.operation, deed.ending) for deed in deeds] == [
        ("rollback", Ending.FAILED),
        ("canary_deploy", Ending.REFUSED),
        ("replicate", Ending.OPEN),
    ]
    rollback = deeds[0]
    assert (rollback.reason, rollback.error, rollback.ended) == ("alert 7", "azure is down", 4)
    assert [step.operation for step in rollback.steps] == ["shift"]
    assert rollback.clouds == {"aws", "azure"}
    assert deeds[1].error == "it is condemned"


@dataclass
class Life:
    """What really served: by cloud, (time, split) in order."""

    truth: dict[str, list[tuple[float, Split]]] = field(default_factory=lambda: {cloud: [] for cloud in CLOUDS})

    def at(self, cloud: str, moment: float) -> Split:
        return next((split for at, split in reversed(self.truth[cloud]) if at <= moment), None)


SPLITS = st.sampled_from([{V1.slot: 100}, {V2.slot: 100}, {V1.slot: 75, V2.slot: 25}, {V3.slot: 100}])


@st.composite
def lives(draw: st.DrawFn) -> tuple[Book, Life, float]:
    """Shifts one after the other: some verified, some that failed after or before they took effect, some killed."""
    book, life, now = Book(), Life(), 0.0
    book.write("first", 0.0, "verdict.outcome")
    for _ in range(draw(st.integers(1, 8))):
        now += draw(st.integers(0, 5))
        began, after = now, {cloud: draw(SPLITS) for cloud in CLOUDS if draw(st.booleans())}
        before = {cloud: dict(split.weights) for cloud in after if (split := life.at(cloud, began)) is not None}
        verified, ended = {}, began + draw(st.integers(1, 9))
        for cloud, weights in after.items():
            took_effect = began + draw(st.integers(0, 3)) if draw(st.booleans()) else None
            if took_effect is None:
                continue
            took_effect = min(took_effect, ended)
            life.truth[cloud].append((took_effect, TrafficSplit.of(weights)))
            if draw(st.booleans()):
                verified[cloud] = took_effect + draw(st.integers(0, int(ended - took_effect)))
        killed = draw(st.integers(0, 4)) == 0
        book.shift(began, None if killed else ended, after, {} if killed else verified, before=before)
        now = ended
    return book, life, now


@settings(max_examples=300, deadline=None)
@given(lives())
def test_what_is_told_covers_all_time_and_holds_the_truth(made: tuple[Book, Life, float]) -> None:
    book, life, end = made
    history = read_history(book.lines)
    for cloud, intervals in history.intervals.items():
        assert intervals[0].since == history.began
        assert intervals[-1].until is None
        for one, other in pairwise(intervals):
            assert one.until == other.since, "they touch and do not overlap"
            assert one.since < other.since
        for half in range(int(2 * end) + 4):
            moment = half / 2 + 0.25
            told, truth = history.at(cloud, moment), life.at(cloud, moment)
            if told.splits:
                assert truth in told.splits, f"{moment} on {cloud}: {told}"
            if told.certainty is Certainty.CERTAIN:
                assert told.splits == (truth,)
                assert told.note == ""


@settings(max_examples=200, deadline=None)
@given(lives())
def test_the_answer_after_a_shift_is_its_verified_outcome(made: tuple[Book, Life, float]) -> None:
    book, _, _ = made
    outcomes = [line for line in book.lines if line.kind == "shift.outcome"]
    history = read_history(book.lines)
    for line in outcomes:
        later = [other for other in book.lines if other.kind == "shift.intent" and other.number > line.number]
        quiet = later[0].at if later else line.at + 100
        if quiet <= line.at:
            continue
        verified, wanted = line.body["verified"], line.body["wanted"]
        assert isinstance(verified, dict)
        assert isinstance(wanted, dict)
        for cloud, weights in wanted.items():
            told = history.at(cloud, (line.at + quiet) / 2)
            if cloud in verified:
                assert (told.certainty, told.splits) == (Certainty.CERTAIN, (TrafficSplit.of(weights),))
            else:
                assert told.certainty is Certainty.UNKNOWN


def test_of_shifts_that_meet_the_newest_read_back_stays() -> None:
    book = Book()
    book.shift(0, 1, all_to(V1, "aws"), {"aws": 1})
    one, after = "one", all_to(V2, "aws")
    book.write(f"{one}/intent", 10, "shift.intent", after=after)
    book.shift(12, 16, all_to(V3, "aws"), {"aws": 14})
    book.write(f"{one}/outcome", 20, "shift.outcome", intent=one, wanted=after, after={}, split={"aws": "too late"})
    history = read_history(book.lines)
    assert set(history.at("aws", 13).splits) == {whole(V1), whole(V2), whole(V3)}
    assert set(history.at("aws", 15).splits) == {whole(V2), whole(V3)}
    assert history.at("aws", 15).certainty is Certainty.TRANSITION
    assert history.at("aws", 21).certainty is Certainty.UNKNOWN
