"""When an alarm of the AWS sandbox changes its state, and how it says why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.aws.alarm_evaluation import SPARE, TREATMENTS, Datapoint, Judged, Rule, judge
from sandbox.aws.alarm_texts import reason

AT = 1_532_427_660.0  # 24/07/18 10:21:00


def rule(periods: int = 3, needed: int = 3, missing: str = "missing") -> Rule:
    return Rule("GreaterThanThreshold", 2.0, periods, needed, missing)


def points(drawn: str) -> list[Datapoint | None]:
    """The evaluation range, newest first, from a drawing, oldest first: X breaches, 0 does not, - is missing."""
    values = [{"X": 3.0, "0": 0.0, "-": None}[letter] for letter in drawn.split()]
    found: list[Datapoint | None] = []
    for age, value in enumerate(reversed(values)):
        found.append(None if value is None else Datapoint(AT - 60.0 * age, value, 1.0))
    return found


@pytest.mark.parametrize(
    ("needed", "drawn", "missing", "ignore", "breaching", "not_breaching"),
    [  # the tables in CloudWatch's documentation, "How alarm state is evaluated when data is missing"
        (3, "0 - X - X", "OK", "OK", "OK", "OK"),
        (3, "- - - - 0", "OK", "OK", "OK", "OK"),
        (3, "- - - - -", "INSUFFICIENT_DATA", None, "ALARM", "OK"),
        (3, "0 X X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (3, "- - X - -", "ALARM", None, "ALARM", "OK"),
        (2, "0 - X - X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (2, "0 0 X 0 X", "ALARM", "ALARM", "ALARM", "ALARM"),
        (2, "0 - X - -", "OK", "OK", "ALARM", "OK"),
        (2, "- - - - 0", "OK", "OK", "ALARM", "OK"),
        (2, "- - - X -", "ALARM", None, "ALARM", "OK"),
        # its text on premature alarms: the next datapoint may be a good one
        (3, "- - - - X", "OK", None, "ALARM", "OK"),
        (3, "- - - X -", "OK", None, "ALARM", "OK"),
    ],
)
def test_the_documented_tables(
    needed: int, drawn: str, missing: str, ignore: str | None, breaching: str, not_breaching: str
) -> None:
    expected = {"missing": missing, "ignore": ignore, "breaching": breaching, "notBreaching": not_breaching}
    for treatment, state in expected.items():
        judged = judge(rule(needed=needed, missing=treatment), points(drawn))
        assert (judged.state if judged else None) == state, treatment


@given(
    periods=st.integers(1, 6),
    share=st.floats(0.0, 1.0),
    missing=st.sampled_from(TREATMENTS),
    breaching=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_without_gaps_the_newest_periods_decide(
    periods: int, share: float, missing: str, breaching: list[bool]
) -> None:
    needed = max(1, round(share * periods))
    drawn = " ".join("X" if each else "0" for each in breaching[: periods + SPARE])
    judged = judge(rule(periods, needed, missing), points(drawn))
    newest = breaching[: periods + SPARE][-periods:]
    assert judged is not None
    assert judged.state == ("ALARM" if sum(newest) >= needed else "OK")
    assert judged.filled == 0


@pytest.mark.parametrize(
    ("periods", "needed", "missing", "drawn", "by_datapoints", "said"),
    [
        (
            1,
            1,
            "missing",
            "- - X",
            True,
            "Threshold Crossed: 1 out of the last 1 datapoints [3.0 (24/07/18 10:21:00)] was greater than the "
            "threshold (2.0) (minimum 1 datapoint for OK -> ALARM transition).",
        ),
        (
            3,
            2,
            "missing",
            "- - X 0 X",
            True,
            "Threshold Crossed: 2 out of the last 3 datapoints [3.0 (24/07/18 10:21:00), 3.0 (24/07/18 10:19:00)] were "
            "greater than the threshold (2.0) (minimum 2 datapoints for OK -> ALARM transition).",
        ),
        (
            1,
            1,
            "missing",
            "- - 0",
            False,
            "Threshold Crossed: 1 datapoint [0.0 (24/07/18 10:21:00)] was not greater than the threshold (2.0).",
        ),
        (
            2,
            2,
            "breaching",
            "- - - X",
            False,
            "Threshold Crossed: 1 datapoint [3.0 (24/07/18 10:21:00)] was greater than the threshold (2.0) and 1 "
            "missing datapoint was treated as [Breaching].",
        ),
        (
            2,
            2,
            "notBreaching",
            "- - - -",
            False,
            "Threshold Crossed: no datapoints were received for 2 periods and 2 missing datapoints were treated as "
            "[NonBreaching].",
        ),
        (2, 2, "missing", "- - - -", False, "Insufficient Data: 2 datapoints were unknown."),
    ],
)
def test_reasons(periods: int, needed: int, missing: str, drawn: str, by_datapoints: bool, said: str) -> None:
    asked = rule(periods, needed, missing)
    judged = judge(asked, points(drawn))
    assert isinstance(judged, Judged)
    assert reason(asked, judged, by_datapoints=by_datapoints) == said
