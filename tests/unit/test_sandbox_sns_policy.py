"""When SNS in the AWS sandbox tries a delivery again."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.aws.errors import AwsError
from sandbox.aws.sns_delivery import BACKOFF, retry_delays


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        ({}, (20, 20, 20)),
        ({"numRetries": 0}, ()),
        ({"numNoDelayRetries": 1, "numMinDelayRetries": 1, "numMaxDelayRetries": 1, "maxDelayTarget": 60}, (0, 20, 60)),
        ({"numRetries": 3, "minDelayTarget": 1, "maxDelayTarget": 9}, (1, 5, 9)),
        ({"numRetries": 3, "minDelayTarget": 1, "maxDelayTarget": 9, "backoffFunction": "geometric"}, (1, 3, 9)),
        (
            {"numRetries": 5, "minDelayTarget": 1, "maxDelayTarget": 6, "backoffFunction": "exponential"},
            (1, 2, 4, 6, 6),
        ),
    ],
)
def test_delays(policy: dict[str, Any], delays: tuple[float, ...]) -> None:
    assert retry_delays(policy) == pytest.approx(delays)


@given(
    shortest=st.integers(1, 30),
    more=st.integers(0, 30),
    retries=st.integers(0, 50),
    function=st.sampled_from(BACKOFF),
)
def test_the_delays_grow_from_the_shortest_to_the_longest(
    shortest: int, more: int, retries: int, function: str
) -> None:
    policy = {"minDelayTarget": shortest, "maxDelayTarget": shortest + more, "numRetries": retries}
    delays = retry_delays({**policy, "backoffFunction": function})
    assert len(delays) == retries
    assert list(delays) == sorted(delays)
    assert all(shortest <= delay <= shortest + more + 1e-9 for delay in delays)


@pytest.mark.parametrize(
    "policy",
    [
        {"numRetries": 101},
        {"numRetries": -1},
        {"minDelayTarget": 0},
        {"minDelayTarget": 30},
        {"maxDelayTarget": 3601},
        {"numRetries": 1, "numNoDelayRetries": 2},
        {"numRetries": 100, "minDelayTarget": 60, "maxDelayTarget": 60},
        {"numRetries": 1.5},
        {"backoffFunction": "random"},
        {"numTries": 3},
    ],
)
def test_a_policy_that_sns_would_refuse(policy: dict[str, Any]) -> None:
    with pytest.raises(AwsError, match="DeliveryPolicy"):
        retry_delays(policy)
