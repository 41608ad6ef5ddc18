"""One endpoint with two deployments, and what they are made of, for all tests of the Azure sandbox."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.azure_account import Account
from tests.contract.sandbox_azure.shelf import Shelf, deploy
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox


@pytest.fixture(scope="package")
def account(sandbox: RunningSandbox) -> Account:
    return Account(sandbox.settings["azure"], sandbox.control)


@pytest.fixture
def azure(account: Account) -> Iterator[Account]:
    yield account
    account.clean()


@pytest.fixture(scope="package")
def sealed(model_versions: tuple[ModelVersion, ModelVersion]) -> dict[str, ModelVersion]:
    return {version.label: version for version in model_versions}


@pytest.fixture(scope="package")
def rows() -> dict[str, Any]:
    """Two patients, as the scoring server wants a table."""
    from sklearn.datasets import load_breast_cancer

    frame, _ = load_breast_cancer(return_X_y=True, as_frame=True)
    table = frame.rename(columns=lambda name: name.replace(" ", "_")).head(2)
    return {"columns": list(table.columns), "data": table.to_numpy().tolist()}


@pytest.fixture(scope="package")
def shelf(account: Account, sealed: dict[str, ModelVersion]) -> Shelf:
    prefixes = {label: account.upload(version) for label, version in sealed.items()}
    models = {label: account.model(prefix) for label, prefix in prefixes.items()}
    return Shelf(models, prefixes, {k: v.digest for k, v in sealed.items()}, account.environment())


@pytest.fixture(scope="package")
def served(account: Account, shelf: Shelf) -> Iterator[str]:
    """An endpoint with v1 in blue and v2 in green, no traffic; tests that use it set what they need."""
    name = account.name("served")
    account.done("PUT", f"/onlineEndpoints/{name}", {"location": "westeurope", "properties": {"authMode": "Key"}})
    deploy(account, shelf, name, "blue", "v1")
    deploy(account, shelf, name, "green", "v2")
    yield name
    account.control.clear()
    account.done("DELETE", f"/onlineEndpoints/{name}")
