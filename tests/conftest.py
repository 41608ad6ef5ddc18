"""Fixtures that every kind of test may use."""

from __future__ import annotations

import gc
import os
import signal
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.ledger_places import Place
from tests.mlflow_server import running_mlflow
from tests.model_files import ModelVersion, seal_model
from tests.postgres import NoPostgresError, PostgresServer, running_postgres
from tests.sandbox_control import RunningSandbox, running_sandbox

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

    from tests.integration.deployed import Deployed

# A shell that starts the tests in the background lets them ignore SIGINT, and so would every process that they start
# and then interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)

# MLflow and Prefect would otherwise report usage over the internet.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")

# How long an example takes tells of the machine's other work, not of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


#: Tests of such a folder share what is too dear to be started by several workers: a server, an endpoint.
ON_ONE_WORKER = (
    "tests/integration/flows/",
    "tests/contract/sandbox_aws/",
    "tests/contract/sandbox_azure/",
    "tests/contract/sandbox_gcp/",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that the workers end together; what turns clocks after all that share a ledger with it.

    An entry from an hour ahead would be the newest one of a log for that hour.
    """
    order = ("tests/integration/flows/", "tests/integration/", "tests/chaos/", "tests/contract/", "tests/")
    items.sort(key=lambda item: next(which for which, start in enumerate(order) if item.nodeid.startswith(start)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector need not walk it again and again."""
    gc.freeze()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """How several workers share the tests: file by file, and some folders as a whole."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            shared = (folder for folder in ON_ONE_WORKER if nodeid.startswith(folder))
            return next(shared, nodeid.partition("::")[0])

    config.option.loadscopereorder = False  # by the number of tests, which says nothing of their length
    return ByFile(config, log)


@pytest.fixture(scope="session")
def sandbox() -> Iterator[RunningSandbox]:
    """The clouds of this machine, one set for the whole session; SANDBOX_CLOUDS narrows it while developing."""
    chosen = os.environ.get("SANDBOX_CLOUDS", "aws,azure,gcp")
    with running_sandbox("--clouds", chosen) as started:
        yield started


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real, empty MLflow server of this session."""
    with running_mlflow(tmp_path_factory.mktemp("mlflow")) as address:
        yield address


@pytest.fixture(scope="session")
def two_versions(sandbox: RunningSandbox, mlflow_server: str, tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """One model with two versions on all clouds, for every test that needs something deployed."""
    from tests.integration.deployed import deploy_two  # seconds of imports, which unit tests need not wait for

    made = deploy_two(sandbox, mlflow_server, tmp_path_factory.mktemp("deployed"))
    gc.freeze()  # every SDK is imported now
    return made


@pytest.fixture
def deployed(two_versions: Deployed) -> Iterator[Deployed]:
    """v2 serves, v1 is warm, v3 is replicated; put back in order after the test."""
    yield two_versions
    two_versions.restore()


@pytest.fixture(scope="session")
def model_versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelVersion, ModelVersion]:
    """Two sealed versions of one real model, v1 (right) and v2 (a feature scaled wrong), as folders on disk."""
    root: Path = tmp_path_factory.mktemp("models")
    return seal_model(root / "v1", "v1", scale=1.0), seal_model(root / "v2", "v2", scale=1000.0)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this session; tests that ask for it are skipped where it is not installed."""
    try:
        with running_postgres() as server:
            yield server
    except NoPostgresError as missing:
        pytest.skip(str(missing))


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where an empty ledger may lie: in a file, and then in a database of PostgreSQL."""
    if request.param == "sqlite":
        return Place(str(tmp_path / "ledger.db"), tmp_path / "ledger.spool")
    server = request.getfixturevalue("postgres")
    return Place(server.database(f"ledger-{uuid.uuid4().hex[:12]}"), tmp_path / "ledger.spool")
