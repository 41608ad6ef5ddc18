"""The scheduled look: what serves, the way back and the newest versions, each byte in its turn."""

from __future__ import annotations

import pytest

from lockstep.errors import DigestMismatchError, RefusedError, UnreachableError
from lockstep.operations.scrub import scrub
from lockstep.rules.sampling import share_of
from tests.integration.deployed import Deployed
from tests.integration.tampered import object_overwritten

pytestmark = pytest.mark.timeout(300)


def outcome(deployed: Deployed) -> dict[str, object]:
    """Body of the newest scrub's entry."""
    return dict(deployed.fleet.ledger.entries(deployed.model, "scrub.outcome")[-1].body)


def test_what_serves_the_way_back_and_the_newest_are_looked_at(deployed: Deployed) -> None:
    with deployed.only_reads():
        done = scrub(deployed.fleet, newest=1)
    assert done.found.error is None
    newest = deployed.fleet.registry.versions(deployed.model)[-1]
    assert set(done.digests) == {deployed.v1.digest, deployed.v2.digest, newest.digest}
    assert {check.version for check in done.found.checks} == {deployed.v1, deployed.v2, newest}
    told = outcome(deployed)
    assert (told["intact"], told["altered"], told["altered_count"], told["error"]) == (True, [], 0, "")


def test_every_byte_is_read_on_one_of_so_many_days(deployed: Deployed) -> None:
    """A bit that flips in a file shows on the day whose share the file is in, and on no other of the round."""
    manifest = deployed.fleet.registry.manifest(deployed.v1)
    (path,) = {"MLmodel"} & {file.path for file in manifest.files}
    found = {}
    with object_overwritten(deployed.fleet.cloud("azure"), deployed.v1, f"files/{path}"):
        for day in range(3):
            done = scrub(deployed.fleet, days=3, day=day)
            found[day] = bool(done.found.altered)
            if done.found.altered:
                (line,) = done.found.altered
                assert f"azure: files/{path} has sha256" in line
                assert isinstance(done.found.error, DigestMismatchError)
                told = outcome(deployed)
                assert told["altered"] == [line]
                assert told["intact"] is False
    assert found == {day: path in share_of(manifest.files, 3, day, deployed.v1.digest) for day in range(3)}
    assert list(found.values()).count(True) == 1


def test_a_cloud_that_is_silent_is_not_taken_for_good(deployed: Deployed) -> None:
    with deployed.control.during("gcp", "down"):
        done = scrub(deployed.fleet)
    assert isinstance(done.found.error, UnreachableError)
    assert outcome(deployed)["intact"] is False


def test_rounds_have_at_least_a_day(deployed: Deployed) -> None:
    with pytest.raises(RefusedError, match="from 1 on"):
        scrub(deployed.fleet, days=0)
