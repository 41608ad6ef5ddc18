"""SNS's deliveries over HTTP: a queue, a few threads, and retries by the subscription's delivery policy.

A 2xx answer within 15 seconds is a delivery. 5xx, 429, silence and no connection are tried again; any other answer
is final. Policy: "Amazon SNS message delivery retries" in SNS's developer guide; by default 3 retries, 20 seconds
apart. The speed says how long those 20 seconds last (`aws.sns.retry`), and other delays are scaled alike. While the
cloud is `down` for Publish nothing is delivered, and nothing is lost.
"""

from __future__ import annotations

import heapq
import itertools
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import urllib3
from urllib3.util import make_headers, parse_url

from sandbox.aws.errors import AwsError
from sandbox.aws.state import CLOUD
from sandbox.world import World

ANSWER_SECONDS: Final = 15.0
THREADS: Final = 8
LONGEST: Final = 3600
#: The default policy's delay: what `aws.sns.retry` is the length of.
USUAL: Final = 20.0
DEFAULT: Final[Mapping[str, Any]] = {
    "minDelayTarget": 20,
    "maxDelayTarget": 20,
    "numRetries": 3,
    "numNoDelayRetries": 0,
    "numMinDelayRetries": 0,
    "numMaxDelayRetries": 0,
    "backoffFunction": "linear",
}
#: How far from the shortest delay to the longest the i-th of n steps is, as a share (geometric: as an exponent).
BACKOFF: Final = ("linear", "arithmetic", "geometric", "exponential")


@dataclass(frozen=True)
class Delivery:
    """One message to one address; `delays` are the seconds before each retry that is left, as the policy says them."""

    url: str
    body: bytes
    headers: Mapping[str, str]
    delays: tuple[float, ...]
    topic: str
    attempt: int = 1


@dataclass(order=True, frozen=True)
class _Due:
    at: float
    number: int
    delivery: Delivery = field(compare=False)


class Deliveries:
    """Delivers until `stop()`; `authority` is trusted beside the usual ones, for subscribers over HTTPS."""

    def __init__(self, world: World, authority: Path) -> None:
        self._world = world
        context = ssl.create_default_context()
        context.load_verify_locations(authority)
        self._pool = urllib3.PoolManager(
            num_pools=16, maxsize=THREADS, timeout=ANSWER_SECONDS, retries=False, ssl_context=context
        )
        self._queue: list[_Due] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._ended = False

    def send(self, delivery: Delivery) -> None:
        """Queue a message; returns at once."""
        self._put(delivery, 0.0)

    def stop(self) -> None:
        """Give up what is queued."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        self._pool.clear()

    def _put(self, delivery: Delivery, seconds: float) -> None:
        with self._changed:
            if self._ended:
                return
            heapq.heappush(self._queue, _Due(time.monotonic() + seconds, next(self._numbers), delivery))
            if len(self._threads) < min(THREADS, len(self._queue)):
                name = f"deliveries-{len(self._threads)}"
                self._threads.append(threading.Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (not self._queue or self._queue[0].at > time.monotonic()):
                    self._changed.wait(self._queue[0].at - time.monotonic() if self._queue else None)
                if self._ended:
                    return
                delivery = heapq.heappop(self._queue).delivery
            if self._world.faults.since(CLOUD, "down", "Publish") is not None:
                self._put(delivery, 0.1)
            else:
                self._try(delivery)

    def _try(self, delivery: Delivery) -> None:
        began = time.time()
        status = self._post(delivery)
        kind = delivery.headers["x-amz-sns-message-type"]
        said = f"{kind}: attempt {delivery.attempt} {status or 'not answered'}"
        self._world.calls.event(CLOUD, "delivery", delivery.topic, began, said)
        if (status == 0 or status == 429 or status >= 500) and delivery.delays:
            scale = self._world.delays.seconds("aws.sns.retry") / USUAL
            again = replace(delivery, delays=delivery.delays[1:], attempt=delivery.attempt + 1)
            self._put(again, delivery.delays[0] * scale)

    def _post(self, delivery: Delivery) -> int:
        """The status of the answer, 0 when there is none."""
        url = parse_url(delivery.url)
        address = url._replace(auth=None).url
        try:
            answer = self._pool.request("POST", address, body=delivery.body, headers=delivery.headers, redirect=False)
            if answer.status == 401 and url.auth:  # a subscriber may ask for the user and password in its address
                headers = {**delivery.headers, **make_headers(basic_auth=url.auth)}
                answer = self._pool.request("POST", address, body=delivery.body, headers=headers, redirect=False)
        except (urllib3.exceptions.HTTPError, OSError):
            return 0
        return answer.status


def retry_delays(policy: Mapping[str, Any]) -> tuple[float, ...]:
    """Seconds before each retry by a healthyRetryPolicy; raises AwsError for one that SNS would refuse."""
    unknown = sorted(set(policy) - set(DEFAULT))
    if unknown:
        raise _wrong(f"unknown member {unknown[0]}")
    given = {**DEFAULT, **{name: value for name, value in policy.items() if value is not None}}
    shortest, longest, retries = given["minDelayTarget"], given["maxDelayTarget"], given["numRetries"]
    counts = [given[name] for name in ("numNoDelayRetries", "numMinDelayRetries", "numMaxDelayRetries")]
    if any(isinstance(n, bool) or not isinstance(n, int) for n in (shortest, longest, retries, *counts)):
        raise _wrong("numbers must be whole")
    if not 1 <= shortest <= longest <= LONGEST:
        raise _wrong(f"1 <= minDelayTarget <= maxDelayTarget <= {LONGEST} does not hold")
    backing_off = retries - sum(counts)
    if not 0 <= retries <= 100 or min(counts) < 0 or backing_off < 0:
        raise _wrong("numRetries must be 0 to 100 and no less than the retries of the single phases")
    if given["backoffFunction"] not in BACKOFF:
        raise _wrong(f"backoffFunction must be one of {', '.join(BACKOFF)}")
    steps = [_backoff(given["backoffFunction"], i, backing_off, shortest, longest) for i in range(backing_off)]
    delays = [0.0] * counts[0] + [float(shortest)] * counts[1] + steps + [float(longest)] * counts[2]
    if sum(delays) > LONGEST:
        raise _wrong(f"the retries take longer than {LONGEST} seconds together")
    return tuple(delays)


def _backoff(function: str, step: int, steps: int, shortest: float, longest: float) -> float:
    """The delay of one step; SNS publishes the functions as drawings alone, of which these have the shape."""
    share = step / (steps - 1) if steps > 1 else 0.0
    if function == "geometric":
        return float(shortest * (longest / shortest) ** share)
    if function == "exponential":
        return float(min(shortest * 2.0**step, longest))
    if function == "arithmetic":
        share *= (step + 1) / steps
    return float(shortest + (longest - shortest) * share)


def _wrong(message: str) -> AwsError:
    return AwsError("InvalidParameter", f"Invalid parameter: DeliveryPolicy: {message}")
