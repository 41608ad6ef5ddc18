"""Random walks through all that may happen; see `walk.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.chaos.killing import Killer
from tests.chaos.seed import SEED
from tests.chaos.test_killed import ROLLOUT
from tests.chaos.walk import Walk
from tests.integration.deployed import Deployed
from tests.integration.fleets import save_model

EXAMPLES = int(os.environ.get("LOCKSTEP_CHAOS_EXAMPLES", "12"))
IMPATIENT = {
    f"clouds__{cloud}__{key}": seconds
    for cloud in ("aws", "azure", "gcp")
    for key, seconds in {"call_timeout": 3.0, "traffic_timeout": 4.0}.items()
}


def walk(deployed: Deployed, killer: Killer, folder: Path, examples: int, steps: int) -> None:
    """The first walk is the plainest. What fails is not made smaller: as clouds go, no walk is the same twice."""
    rollout = {**ROLLOUT, "steps": [100], "patience": 6, "min_requests": 3}
    config = deployed.configured(folder / "lockstep.yaml", fleets__default__rollout=rollout, **IMPATIENT)
    further = save_model(folder / "v4", regularisation=0.1) if examples > 2 else ""  # seconds

    class Walked(Walk):
        pass

    Walked.deployed, Walked.killer, Walked.config, Walked.further = deployed, killer, config, further
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    print(f"seed {SEED}")
    run_state_machine_as_test(seed(SEED)(Walked), settings=chosen)


@pytest.mark.timeout(180)
def test_a_short_walk(deployed: Deployed, killer: Killer, tmp_path: Path) -> None:
    walk(deployed, killer, tmp_path, 2, 3)


@pytest.mark.chaos_full
@pytest.mark.timeout(1200)
def test_long_walks(deployed: Deployed, killer: Killer, tmp_path: Path) -> None:
    walk(deployed, killer, tmp_path, EXAMPLES, 12)
