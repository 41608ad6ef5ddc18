"""Fixtures of tests that go through whole servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.deployed import Deployed, deploy_two
from tests.sandbox_control import RunningSandbox


@pytest.fixture(scope="session")
def two_versions(sandbox: RunningSandbox, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """One model with two versions on all clouds, for every test that needs something deployed."""
    return deploy_two(sandbox, mlflow_server, tmp_path_factory.mktemp("deployed"))


@pytest.fixture
def deployed(two_versions: Deployed) -> Iterator[Deployed]:
    """v2 serves, v1 is warm, v3 is replicated; put back in order after the test."""
    yield two_versions
    two_versions.restore()
