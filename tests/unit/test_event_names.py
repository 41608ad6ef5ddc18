"""Names of events are what other people's automations wait for."""

from __future__ import annotations

import re

from lockstep.rules.event_names import ALL, resource


def test_names_are_unique_and_lockstep_s_own() -> None:
    assert len(set(ALL)) == len(ALL)
    assert all(re.fullmatch(r"lockstep(\.[a-z]+(-[a-z]+)*)+", name) for name in ALL)


def test_a_model_s_resource_carries_its_name() -> None:
    assert resource("churn") == {"prefect.resource.id": "lockstep.model.churn", "prefect.resource.name": "churn"}
