"""The Prefect server: one worker runs all tests of this folder, since each server costs half a minute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.flows.prefect_server import PrefectServer, running_prefect


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A real, empty Prefect server of this session; this process speaks to it as well."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with (
        running_prefect(tmp_path_factory.mktemp("prefect")) as server,
        temporary_settings({PREFECT_API_URL: server.api}),
    ):
        yield server
