"""What the tests of the Azure sandbox deploy, and ask again and again."""

import json
import time
from dataclasses import dataclass
from typing import Any

from tests.contract.azure_account import Account

SPACE = "Microsoft.MachineLearningServices/workspaces/onlineEndpoints"


@dataclass(frozen=True)
class Shelf:
    """What deployments are made of, uploaded and registered once."""

    models: dict[str, str]
    prefixes: dict[str, str]
    digests: dict[str, str]
    environment: str


def deploy(azure: Account, shelf: Shelf, endpoint: str, name: str, label: str, **changes: Any) -> Any:
    body = azure.deployment_body(shelf.models[label], shelf.environment, shelf.digests[label], label, **changes)
    return azure.done("PUT", f"/onlineEndpoints/{endpoint}/deployments/{name}", body)


def refused(answer: Any, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text()
    message = json.dumps(answer.json())
    for word in words:
        assert word in message


def operation(azure: Account, answer: Any) -> Any:
    """The operation's status once it has ended."""
    url = answer.headers["Azure-AsyncOperation"]
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        token = azure.credential.get_token("https://management.azure.com/.default").token
        status = azure.http.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10).json()
        if status["status"] != "InProgress":
            return status
        time.sleep(0.02)
    raise AssertionError("the operation did not end")
