"""The ledger alone, or what was last known and the entries since: both give what MLflow should say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.amending import pointed, tagged
from lockstep.rules.owed import Debt, OwedAlias, OwedTag, amended, as_body, outstanding, read_debts
from lockstep.rules.replay import empty, replay
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK, ModelRecord, Version

V1, V2, V3 = (Version("m", str(number), letter * 64) for number, letter in ((1, "a"), (2, "b"), (3, "c")))


@dataclass(frozen=True)
class Said:
    """One entry."""

    number: int
    at: float
    kind: str
    body: Mapping[str, object] = field(default_factory=dict)
    event_id: str = ""
    actor: str = "test"
    late: bool = False


def said(*entries: tuple[str, Version | None, Mapping[str, object]]) -> list[Said]:
    named = [
        (kind, {**({} if version is None else {"version": version.label, "digest": version.digest}), **body})
        for kind, version, body in entries
    ]
    return [Said(number, float(number), kind, body) for number, (kind, body) in enumerate(named)]


def roles(record: ModelRecord) -> tuple[str | None, str | None, str | None]:
    desired = record.desired
    return tuple(one and one.label for one in (desired.champion, desired.challenger, desired.fallback))  # type: ignore[return-value]


LIFE = said(
    ("register.outcome", V1, {"run_id": "r1"}),
    ("canary_deploy.intent", V1, {}),
    ("promote.outcome", V1, {"champion": V1.digest}),
    ("canary_deploy.outcome", V1, {}),
    ("canary_deploy.intent", V2, {}),
    ("verdict.outcome", V2, {"decision": "fail", "reasons": ["bad outcomes"]}),
    ("canary_deploy.outcome", V2, {"error": "judged"}),
    ("canary_deploy.intent", V3, {}),
    ("verdict.outcome", V3, {"decision": "pass"}),
    ("known_good.outcome", V1, {"at": "2026-11-20T10:00:00Z"}),
    ("promote.outcome", V3, {"fallback": V1.digest}),
    ("canary_deploy.outcome", V3, {}),
    ("rollback.intent", V1, {"reason": "alert"}),
    ("rollback.outcome", V1, {"ending": "done", "left": ["3"], "condemned": {V3.digest: "alert"}, "fallback": None}),
    ("lift.outcome", V3, {"lifted": [V3.digest]}),
)


def test_a_models_life_from_the_ledger_alone() -> None:
    expected = {
        2: (None, None, None),
        4: ("1", None, None),
        5: ("1", "2", None),
        7: ("1", None, None),
        8: ("1", "3", None),
        11: ("3", None, "1"),
        13: ("3", None, "1"),
        14: ("1", None, None),
    }
    for upto, wanted in expected.items():
        assert roles(replay(empty("m"), LIFE[:upto])) == wanted, upto
    whole = replay(empty("m"), LIFE)
    assert whole.desired.champion is not None
    assert whole.desired.champion.run_id == "r1", "as its registration told"
    assert whole.of(V2).condemned == "judged bad: bad outcomes"
    assert whole.of(V1).known_good == "2026-11-20T10:00:00Z"
    assert (whole.of(V3).condemned, whole.of(V3).verdict) == ("", "pass")
    assert replay(empty("m"), LIFE[:14]).of(V3).condemned == "alert"


def test_what_never_came_to_its_commit_changes_nothing() -> None:
    promoted = LIFE[:4]
    for kind, body in (
        ("promote.outcome", {"error": "MLflow is down"}),
        ("rollback.outcome", {"error": "no cloud was ready"}),
        ("rollback.outcome", {"ending": "given up", "error": "given up for another"}),
        ("rollback.intent", {}),
        ("rollback.refused", {}),
    ):
        assert roles(
            replay(empty("m"), [*promoted, Said(9, 9.0, kind, {"version": "2", "digest": V2.digest, **body})])
        ) == (
            "1",
            None,
            None,
        )


def test_a_canary_that_could_not_be_taken_back_everywhere_stays_the_challenger() -> None:
    lines = [
        *LIFE[:5],
        Said(9, 9.0, "canary_deploy.outcome", {**LIFE[4].body, "error": "split", "challenger": V2.digest}),
    ]
    assert roles(replay(empty("m"), lines)) == ("1", "2", None)


def test_a_rollback_of_an_earlier_release_condemned_by_number() -> None:
    old = {"version": "1", "digest": V1.digest, "ending": "done", "left": ["3"], "reason": "slow"}
    whole = replay(empty("m"), [*LIFE[:12], Said(12, 12.0, "rollback.outcome", old)])
    assert whole.of(V3).condemned == "rolled back from: slow"


@given(st.integers(0, len(LIFE)))
def test_what_was_last_known_and_the_entries_since_say_the_same_as_all_of_them(upto: int) -> None:
    early = replay(empty("m"), LIFE[:upto])
    assert replay(early, LIFE[upto:]) == replay(empty("m"), LIFE)
    assert replay(early, LIFE[max(0, upto - 1) :]).desired == replay(empty("m"), LIFE).desired, "one seen twice"


def owed(number: int, by: str, *debts: Debt) -> Said:
    return Said(number, float(number), "mlflow.owed", {"within": by, "owed": [as_body(debt) for debt in debts]})


BACK, GONE = OwedAlias(CHAMPION, V1), OwedAlias(CHALLENGER, None)
BAD = OwedTag(V3, CONDEMNED_TAG, "alert")


def test_what_is_owed_is_owed_until_it_is_settled() -> None:
    lines = [owed(0, "r", BACK, GONE), owed(1, "r", BAD)]
    mine = Said(2, 2.0, "rollback.outcome", {"intent": "r", "ending": "done", "condemned": {V3.digest: "alert"}})
    assert outstanding("m", [*lines, mine]) == (BACK, GONE, BAD)
    part = Said(3, 3.0, "mlflow.settled", {"settled": [as_body(BACK)], "impossible": [{**as_body(BAD), "why": "gone"}]})
    assert outstanding("m", [*lines, mine, part]) == (GONE,)


def test_the_newest_decision_wins() -> None:
    lines: Sequence[Said] = [owed(0, "r", BACK, GONE), owed(1, "r", BAD)]
    later: Mapping[str, tuple[Mapping[str, object], tuple[Debt, ...]]] = {
        "promote.outcome": ({}, (BAD,)),
        "rollback.outcome": ({"intent": "x", "ending": "done", "condemned": {V1.digest: "y"}}, (BAD,)),
        "condemn.outcome": ({"condemned": {V3.digest: "another reason"}}, (BACK, GONE)),
        "lift.outcome": ({"lifted": [V3.digest]}, (BACK, GONE)),
    }
    for kind, (body, left) in later.items():
        assert outstanding("m", [*lines, Said(5, 5.0, kind, body)]) == left, kind
        failed = {**body, "error": "x"} if kind != "rollback.outcome" else {"intent": "x", "error": "refused"}
        assert outstanding("m", [*lines, Said(5, 5.0, kind, failed)]) == (BACK, GONE, BAD), f"{kind} that failed"
    assert outstanding("m", [*lines, owed(5, "x", OwedAlias(CHAMPION, V2))]) == (GONE, BAD, OwedAlias(CHAMPION, V2))


versions = st.sampled_from([V1, V2, V3])
debts = st.one_of(
    st.builds(OwedAlias, st.sampled_from([CHAMPION, CHALLENGER, FALLBACK]), st.one_of(st.none(), versions)),
    st.builds(OwedTag, versions, st.just(CONDEMNED_TAG), st.sampled_from(["", "slow"])),
)


@given(st.lists(debts, max_size=8))
def test_debts_are_read_as_they_were_written_and_the_last_about_a_thing_decides(wanted: list[Debt]) -> None:
    assert list(read_debts("m", {"owed": [as_body(debt) for debt in wanted]}, "owed")) == wanted
    lines = [owed(number, "r", debt) for number, debt in enumerate(wanted)]
    assert amended(empty("m"), outstanding("m", lines)).desired == amended(empty("m"), wanted).desired
    assert replay(empty("m"), lines).desired == amended(empty("m"), wanted).desired
    settled = Said(99, 99.0, "mlflow.settled", {"settled": [as_body(debt) for debt in outstanding("m", lines)]})
    assert outstanding("m", [*lines, settled]) == ()


def test_amending_keeps_the_rest() -> None:
    record = pointed(tagged(pointed(empty("m"), CHAMPION, V2), V1, CONDEMNED_TAG, "slow"), "mine", V1)
    assert record.aliases == {"champion": "2", "mine": "1"}
    assert [one.version for one in record.versions] == [V1, V2]
    assert record.of(V1).condemned == "slow"
    gone = pointed(record, CHAMPION, None)
    assert (gone.desired.champion, gone.aliases) == (None, {"mine": "1"})
    assert tagged(record, V1, "somebody.else", "x") == record
