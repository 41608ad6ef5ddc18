"""Fixtures of tests in which everything goes wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.killing import Killer, running_killer


@pytest.fixture(scope="session")
def killer() -> Iterator[Killer]:
    """Runs operations that are killed."""
    with running_killer() as started:
        yield started
