"""The sandbox's traffic script reaches every cloud with rows that the model takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.integration.deployed import Deployed

SCRIPT = Path(__file__).parents[2] / "examples" / "sandbox" / "traffic.py"


def traffic(deployed: Deployed, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        env={**os.environ, "LOCKSTEP_CONFIG": str(deployed.config)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_cloud_is_asked_and_its_champion_answers(deployed: Deployed) -> None:
    done = traffic(deployed, deployed.model, "--rate", "4", "--seconds", "3")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert all(f"{cloud} {deployed.v2.slot}: " in last for cloud in deployed.clouds)
    assert "failed" not in last


def test_a_model_that_is_not_there_gets_one_line(deployed: Deployed) -> None:
    done = traffic(deployed, "nothing", "--seconds", "1")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
