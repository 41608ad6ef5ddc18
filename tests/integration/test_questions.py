"""What the ledger answers about a fleet that really served: log, at, decision, audit, and the page's commands."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from lockstep.operations.canary import canary_deploy
from lockstep.operations.history import decision
from lockstep.operations.rollback import rollback
from lockstep.rules.decision import Basis, Sighting
from lockstep.rules.moments import show_moment
from lockstep.rules.note import Signer
from tests.docs_snippets import snippets
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import Traffic
from tests.integration.tampered import object_overwritten
from tests.integration.test_docs import run

pytestmark = pytest.mark.timeout(300)


def test_the_log_and_the_past_of_a_canary_and_a_rollback(deployed: Deployed) -> None:
    model, config = deployed.model, deployed.config
    with Traffic(deployed.fleet, deployed.outcomes).flowing():
        canary_deploy(deployed.fleet, deployed.v3)
    between = time.time()
    rollback(deployed.fleet, to=deployed.v2, reason="alert <b>4711</b>")

    told = lockstep("log", model, "-n", "2", "--json", config=config).document
    assert [deed["operation"] for deed in told] == ["rollback", "canary_deploy"]
    back, canary = told
    assert (back["reason"], back["version"], back["ending"]) == ("alert <b>4711</b>", deployed.v2.label, "done")
    steps = [step["operation"] for step in canary["steps"]]
    assert steps.count("shift") == 3, "one cloud alone, then all at 50 and 100 per cent"
    assert [one for one in steps if one != "shift"] == ["prepare", "verdict", "verdict", "verdict", "promote"] + (
        ["retire"] if "retire" in steps else []
    )
    (shift,) = (step for step in back["steps"] if step["operation"] == "shift")
    assert shift["details"]["before"] == {cloud: {deployed.v3.slot: 100} for cloud in deployed.clouds}
    assert shift["details"]["after"] == {cloud: {deployed.v2.slot: 100} for cloud in deployed.clouds}
    assert set(shift["details"]["verified"]) == set(deployed.clouds)
    printed = lockstep("log", model, "--cloud", "azure", "--since", "1h", "-n", "1", config=config).out
    assert "rollback" in printed
    assert "alert <b>4711</b>" in printed
    assert f"azure: {deployed.v3.slot} 100 % -> {deployed.v2.slot} 100 %" in printed

    now = lockstep("at", model, "0s", "--json", config=config).document["clouds"]
    then = lockstep("at", model, show_moment(between), "--json", config=config).document["clouds"]
    for cloud in deployed.clouds:
        assert [(one["digest"], one["weights"]) for one in now[cloud]["versions"]] == [(deployed.v2.digest, [100])]
        assert [(one["digest"], one["weights"]) for one in then[cloud]["versions"]] == [(deployed.v3.digest, [100])]
        assert now[cloud]["certainty"] == then[cloud]["certainty"] == "certain"
    table = lockstep("at", model, show_moment(between), config=config).out
    assert table.count("100 %") == len(deployed.clouds)

    found = decision(deployed.fleet, "aws", moment=between)
    assert (found.sure, found.basis) == (True, Basis.INTERVALS)
    assert [one.version.digest for one in found.candidates if one.version] == [deployed.v3.digest]

    def captured(since: float, until: float, request_id: str) -> tuple[Sighting, ...]:
        assert since < between < until
        return (Sighting(between, request_id, deployed.v3.slot),)

    found = decision(deployed.fleet, "aws", request_id="r-1", captured=captured)
    assert (found.sure, found.basis, found.request_id) == (True, Basis.CAPTURED, "r-1")
    shown = lockstep("decision", model, "--cloud", "aws", "--time", show_moment(between), config=config)
    assert "by the ledger's intervals: this version answered" in shown.out
    assert deployed.v3.digest in shown.out, "an identity is copied whole"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["at", "MODEL", "yesterday"], 2, "not a time"),
        (["at", "MODEL", "2026-11-22T10:00"], 2, "zone"),
        (["at", "MODEL", "2999-01-01T00:00Z"], 3, "not come yet"),
        (["at", "MODEL", "1999-01-01T00:00Z"], 4, "before the model's first entry"),
        (["log", "MODEL", "--since", "a while"], 2, "--since"),
        (["log", "MODEL", "--cloud", "oracle"], 4, "oracle"),
        (["decision", "MODEL", "--cloud", "aws"], 2, "--request-id"),
        (["decision", "MODEL", "--cloud", "aws", "--request-id", "4711"], 3, "--request-id 4711 --time TIME"),
        (["decision", "MODEL", "--cloud", "mars", "--time", "1s"], 4, "name one of them: --cloud "),
    ],
)
def test_questions_that_cannot_be_answered_say_why(
    deployed: Deployed, arguments: list[str], status: int, said: str
) -> None:
    given = [deployed.model if one == "MODEL" else one for one in arguments]
    ended = lockstep(*given, config=deployed.config)
    assert ended.status == status
    assert said in " ".join((ended.out + ended.err).replace("│", " ").split())


def test_a_refusal_is_in_the_log(deployed: Deployed) -> None:
    deployed.fleet.registry.tag(deployed.v3, "lockstep.condemned", "it was wrong")
    ended = lockstep("deploy", deployed.model, deployed.v3.label, config=deployed.config)
    assert ended.status == 3
    (newest,) = lockstep("log", deployed.model, "-n", "1", "--json", config=deployed.config).document
    assert (newest["operation"], newest["ending"], newest["digest"]) == ("canary_deploy", "refused", deployed.v3.digest)
    assert "it was wrong" in newest["error"]


def test_the_audit_page_s_commands_run(deployed: Deployed, tmp_path: Path) -> None:
    rollback(deployed.fleet, to=deployed.v1, reason="alert 4711")
    for snippet in snippets(Path("docs/audit.md")):
        if snippet.language == "bash" and snippet.mark == "audit":
            text = re.sub(r"\btumour\b", deployed.model, snippet.text)
            printed = run(snippet, text, tmp_path, {"LOCKSTEP_CONFIG": str(deployed.config)})
            assert f"report holds: {len(list((tmp_path / 'report' / 'entries').iterdir()))} entries proven" in printed
            assert "decision.json holds" in printed
        elif snippet.mark == "report":
            printed = run(snippet, snippet.text, tmp_path / "report", {})
            assert "entries/" in printed


def test_a_report_says_what_registries_and_endpoints_say_now(deployed: Deployed, tmp_path: Path) -> None:
    def report(name: str, *more: str) -> tuple[dict[str, Any], int]:
        span = ("--from", "5m", "--json", *more)
        ended = lockstep("audit", deployed.model, "--out", tmp_path / name, *span, config=deployed.config)
        assert lockstep("audit", "verify", tmp_path / name).status == 0
        told: dict[str, Any] = json.loads((tmp_path / name / "audit.json").read_text())
        return told, ended.status

    told, status = report("whole")
    assert (told["live"]["intact"], told["live"]["altered"], status) == (True, [], 0)
    asked = {(check["where"], check["check"]) for check in told["live"]["checks"]}
    assert asked >= {(cloud, what) for cloud in deployed.clouds for what in ("record", "answers")}
    assert not any(what == "bytes" for _, what in asked), "a report reads no model"
    with (
        deployed.control.during("azure", "down"),
        object_overwritten(deployed.fleet.cloud("aws"), deployed.v1, "manifest.json"),
    ):
        told, _ = report("troubled")
    assert any("aws" in line and "manifest.json" in line for line in told["live"]["altered"])
    assert any("azure" in line for line in told["live"]["unknown"])
    page = (tmp_path / "troubled" / "index.html").read_text()
    assert "Not all of it is what was sealed" in page
    assert report("quiet", "--no-live")[0]["live"] is None


def test_a_report_is_checked_without_configuration_and_by_the_right_key(deployed: Deployed, tmp_path: Path) -> None:
    report = tmp_path / "report"
    ended = lockstep("audit", deployed.model, "--from", "5m", "--out", report, "--json", config=deployed.config)
    assert (ended.status, ended.document["holds"]) == (0, True)
    (key,) = ended.document["keys"]
    nowhere = tmp_path / "nowhere.yaml"
    assert lockstep("audit", "verify", report, "--key", key, config=nowhere).status == 0
    other = Signer("lockstep/ledger", bytes(32)).verifier.vkey
    assert lockstep("audit", "verify", report, "--key", other, config=nowhere).status == 3
    page = report / "index.html"
    page.write_text(page.read_text().replace(deployed.v2.digest, deployed.v1.digest))
    ended = lockstep("audit", "verify", report, "--json", config=nowhere)
    assert (ended.status, list(ended.document["problems"])) == (3, ["index.html"])
    assert lockstep("audit", "verify", tmp_path / "gone").status == 4
    assert lockstep("audit", deployed.model, "--from", "noon", "--out", report, config=deployed.config).status == 2
    assert lockstep("audit", deployed.model, "--out", tmp_path, config=deployed.config).status == 3
