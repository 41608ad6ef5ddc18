"""The contract of `tests/contract/test_clouds.py` against real accounts. It costs money, and about an hour a cloud.

Variables:

- `LOCKSTEP_LIVE_CONFIG`: path of a YAML file with a `clouds:` mapping as in lockstep.yaml (other keys are ignored).
  Each entry names its `kind` and that cloud's settings; the serving image must have been pushed to its registry.
  Without this variable everything here is skipped.
- `LOCKSTEP_LIVE_CLOUDS`: names under `clouds:` to test, separated by commas; all of them by default.

Credentials come from each cloud's default chain, or from the file. Secrets may be written as `${VARIABLE}` in it.

The model is called `lockstep-live-` and eight hex digits, a new one every time. Slots that take no traffic are removed
at the end. The endpoint and the slot that serves on it, the registered versions and the bytes stay behind, since no
verb removes them: delete them by that name, or they go on costing money. Tests that make a cloud fail are skipped.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lockstep.clouds.base import CloudSettings
from lockstep.rules.state import Version
from tests.contract import test_clouds as contract
from tests.contract.clouds import Subject, breast_cancer_rows, settings_classes
from tests.model_files import ModelVersion

CONFIG = os.environ.get("LOCKSTEP_LIVE_CONFIG", "")
CHOSEN = tuple(name for name in os.environ.get("LOCKSTEP_LIVE_CLOUDS", "").split(",") if name)

pytestmark = [
    pytest.mark.skipif(not CONFIG, reason="LOCKSTEP_LIVE_CONFIG names no file with real accounts"),
    pytest.mark.timeout(3 * 3600),
]

pair, faults, intruder = contract.pair, contract.faults, contract.intruder
globals().update({name: test for name, test in vars(contract).items() if name.startswith("test_")})


def clouds() -> dict[str, dict[str, object]]:
    """The `clouds:` of the file, with `${VARIABLE}` replaced."""
    if not CONFIG:
        return {"none": {}}
    content = yaml.safe_load(os.path.expandvars(Path(CONFIG).read_text()))
    found: dict[str, dict[str, object]] = content["clouds"]
    missing = sorted(set(CHOSEN) - set(found))
    if missing:
        raise ValueError(f"LOCKSTEP_LIVE_CLOUDS names {missing[0]!r}, which {CONFIG} has not; it has {sorted(found)}")
    return {name: entry for name, entry in found.items() if not CHOSEN or name in CHOSEN}


@pytest.fixture(scope="module", params=sorted(clouds()))
def subject(request: pytest.FixtureRequest, model_versions: tuple[ModelVersion, ModelVersion]) -> Iterator[Subject]:
    """One real account, both versions uploaded under a new model."""
    entry = clouds()[request.param]
    settings: CloudSettings = settings_classes()[str(entry["kind"])].model_validate(entry)
    model = f"lockstep-live-{uuid.uuid4().hex[:8]}"
    stable, canary = (Version(model, str(n), sealed.digest, f"{n}" * 32) for n, sealed in enumerate(model_versions, 1))
    made = Subject(
        kind=str(entry["kind"]),
        cloud=settings.connect(request.param),
        stable=stable,
        canary=canary,
        rows=breast_cancer_rows(),
        objects={sealed.digest: sealed.objects() for sealed in model_versions},
    )
    for version in (stable, canary):
        made.upload(version, made.objects[version.digest])
    yield made
    made.give_back()
