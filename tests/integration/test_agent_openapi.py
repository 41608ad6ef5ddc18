"""Whatever is sent to the routes of the agent's own OpenAPI document, none fails by itself; all is refused alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.integration.agents import OPERATOR, Running, running_agent
from tests.integration.deployed import Deployed

EXAMPLES: Final = 12  # for each route

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def agent(two_versions: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_agent(two_versions, tmp_path_factory.mktemp("agent"), prove_every=0) as running:
        yield running


def test_no_route_fails_by_itself(agent: Running) -> None:
    document = agent.get("/openapi.json").json()
    assert {"/hooks/{source}", "/api/rollbacks", "/api/intents/{intent}", "/readyz"} <= set(document["paths"])
    schema = schemathesis.openapi.from_dict(document)
    operations: list[Any] = [found.ok() for found in schema.get_all_operations()]  # type: ignore[union-attr]
    tried = sum([ask_anything(agent, operation, token) for operation in operations for token in ("", OPERATOR)])
    assert tried > EXAMPLES


def ask_anything(agent: Running, operation: Any, token: str) -> int:
    """Requests that fit the operation and some that do not; gives back how many."""
    tried = 0
    headers = {"Authorization": f"Bearer {token}"} if token else {}

    @settings(
        max_examples=EXAMPLES,
        phases=(Phase.generate,),
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: Any) -> None:
        nonlocal tried
        tried += 1
        case.headers = {key: value for key, value in (case.headers or {}).items() if key != "Authorization"}
        answer = case.call(base_url=agent.base, headers=headers, allow_redirects=False, timeout=60.0)
        assert answer.status_code < 500, f"{case.method} {case.formatted_path}: {answer.text}"
        if answer.status_code >= 400:
            assert set(answer.json()) == {"error", "hint"}, f"{case.method} {case.formatted_path}: {answer.text}"

    ask()
    return tried
