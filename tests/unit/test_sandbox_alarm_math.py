"""Expressions that alarms of the AWS sandbox watch."""

from typing import Any

import pytest

from sandbox.aws.alarm_math import watched
from sandbox.aws.errors import AwsError


def metrics(*expressions: str, ids: str = "ab") -> dict[str, Any]:
    """Alarm settings over one series per letter, and expressions e0, e1, … of which the last counts."""
    series = [
        {
            "Id": name,
            "MetricStat": {"Metric": {"Namespace": "n", "MetricName": name}, "Period": 60, "Stat": "Sum"},
            "ReturnData": False,
        }
        for name in ids
    ]
    last = len(expressions) - 1
    made = [{"Id": f"e{n}", "Expression": text, "ReturnData": n == last} for n, text in enumerate(expressions)]
    return {"Metrics": [*series, *made]}


@pytest.mark.parametrize(
    ("expressions", "a", "b", "value"),
    [
        (["a / b"], 1.0, 4.0, 0.25),
        (["100 * (a / b) - -1"], 1.0, 4.0, 26.0),
        (["a / b"], 1.0, 0.0, None),
        (["a / b"], None, 4.0, None),
        (["FILL(a, 0) / b"], None, 4.0, 0.0),
        (["IF(b >= 10, a / b, 0)"], 5.0, 4.0, 0.0),
        (["IF(b >= 10, a / b, 0)"], 5.0, 10.0, 0.5),
        (["a + b", "e0 * 2"], 1.0, 2.0, 6.0),
        ([" a"], 1.0, None, 1.0),
    ],
)
def test_values(expressions: list[str], a: float | None, b: float | None, value: float | None) -> None:
    assert watched(metrics(*expressions)).value({"a": a, "b": b}) == value


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (metrics("a / c"), "refers to c"),
        (metrics("e1", "e0"), "refers back"),
        (metrics("ANOMALY_DETECTION_BAND(a)"), "not implemented"),
        (metrics("a ^ 2"), "not implemented"),
        (metrics("a if b else 1"), "not implemented"),
        (metrics("__import__('os')"), "not implemented"),
        (metrics("a and b"), "not implemented"),
        (metrics("a +"), "not implemented"),
        (metrics("1 < a < 2"), "not implemented"),
        (metrics(), "exactly one"),
        (metrics("a", ids="aa"), "given once"),
        (metrics("a", ids="A"), "lower-case"),
    ],
)
def test_what_cannot_be_watched_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(AwsError, match=said):
        watched(settings)


def test_one_series_alone_is_a_metric_too() -> None:
    settings = metrics(ids="a")
    settings["Metrics"][0]["ReturnData"] = True
    what = watched(settings)
    assert what.single is not None
    assert (what.single.statistic, what.period, what.value({"a": 2.0})) == ("Sum", 60, 2.0)
