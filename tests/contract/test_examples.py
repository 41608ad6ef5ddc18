"""The example scripts do what they say, each in a process of its own, as a reader runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lockstep.config import parse
from tests.docs_snippets import snippets
from tests.sandbox_control import RunningSandbox

EXAMPLES = Path(__file__).parents[2] / "examples" / "sandbox"
SECONDS = 150


def script(name: str, settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"deploy_{name}.py")]
    given = json.dumps(settings) + "\n"
    # azure-ai-ml leaves the cloud that it was last told in its process's environment.
    environment = {name: value for name, value in os.environ.items() if name != "AZUREML_CURRENT_CLOUD"}
    return subprocess.run(
        command, input=given, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )


@pytest.mark.parametrize("name", ["aws", "azure", "gcp"])
def test_two_versions_share_an_endpoint_and_rules_are_kept(sandbox: RunningSandbox, name: str) -> None:
    done = script(name, sandbox.settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout
    for step in ("v1 serves digest", "v2 serves digest", "both answer", "refused:", "nothing is left"):
        assert step in done.stdout


def test_an_example_fails_when_its_claim_does_not_hold(sandbox: RunningSandbox) -> None:
    with sandbox.control.during("aws", "ignore", operation="UpdateEndpointWeightsAndCapacities", count=1):
        done = script("aws", sandbox.settings)
    assert done.returncode == 1
    assert "FAILED both answer" in done.stdout


def test_an_example_without_its_cloud_says_so() -> None:
    done = script("aws", {"gcp": {}})
    assert (done.returncode, done.stderr.strip()) == (1, "the sandbox runs without aws: start it with --clouds aws")


def configure(settings: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / "configure.py"), "--mlflow", "http://127.0.0.1:1", "churn"]
    return subprocess.run(command, input=settings, capture_output=True, text=True, timeout=SECONDS, check=False)


def test_the_sandbox_gets_a_configuration_that_reaches_its_clouds(sandbox: RunningSandbox) -> None:
    done = configure(json.dumps(sandbox.settings))
    assert done.returncode == 0, done.stderr
    config = parse(done.stdout, "lockstep.yaml", {})
    assert config.model("churn").fleet == "default"
    for name, settings in config.clouds.items():
        settings.connect(name).check()
        granted = settings.connect(name).permissions(["churn"])
        assert (granted.missing, granted.unknown) == ((), ())


def test_what_is_no_sandboxs_settings_gets_one_line() -> None:
    done = configure("nothing")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)


def test_the_faults_of_the_sandboxs_page_are_taken(sandbox: RunningSandbox) -> None:
    page = Path(__file__).parents[2] / "docs" / "sandbox.md"
    shown = re.findall(r'\{"cloud": "[a-z]+", "kind"[^}]*\}', page.read_text(encoding="utf-8"))
    assert len(shown) == 3
    for body in shown:
        given = json.loads(body)
        with sandbox.control.during(given.pop("cloud"), given.pop("kind"), **given):
            pass
    denials = re.findall(r'\{"cloud": "[a-z]+", "denied"[^}]*\}', page.read_text(encoding="utf-8"))
    assert len(denials) == 2
    for body in denials:
        given = json.loads(body)
        with sandbox.control.denying(given["cloud"], *given["denied"]):
            pass
    assert any("curl" in snippet.text for snippet in snippets(page))
