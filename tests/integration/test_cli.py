"""The command line as a user has it: every command, its tables, its JSON, its exit statuses, and Ctrl-C."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from typing import Any

import jsonschema
import obstore
import pytest
import yaml
from rich.console import Console

from lockstep import terminal
from lockstep.commands.options import complete_model, options
from lockstep.operations.copies import copy_ledger
from lockstep.rules.state import CHALLENGER, CHAMPION, CONDEMNED_TAG, FALLBACK
from tests.contract.clouds import eventually, open_store
from tests.integration.deployed import Deployed, lockstep
from tests.integration.fleets import Traffic, save_model

pytestmark = pytest.mark.timeout(180)

OTHER = f"sha256:{'e' * 64}"  # of an image that is not the configured one
COMMAND = [sys.executable, "-m", "lockstep.cli"]


def process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command as a process of its own."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=90,
    )  # fmt: skip


def test_versions_and_status(deployed: Deployed) -> None:
    listed = lockstep("versions", deployed.model, "--json", config=deployed.config)
    assert listed.err == ""
    rows = listed.document
    assert [(row["version"], row["digest"], row["role"]) for row in rows[:3]] == [
        ("1", deployed.v1.digest, "fallback"), ("2", deployed.v2.digest, "champion"), ("3", deployed.v3.digest, ""),
    ]  # fmt: skip
    status = lockstep("status", deployed.model, "--prove", "--json", config=deployed.config)
    assert (status.status, status.err) == (0, "")
    shown = status.document
    assert (shown["champion"], shown["digest"], shown["out_of_step"]) == ("2", deployed.v2.digest, {})
    assert {cloud: {a["digest"] for a in answers} for cloud, answers in shown["answers"].items()} == {
        cloud: {deployed.v2.digest} for cloud in deployed.clouds
    }
    for cloud in deployed.clouds:
        slots = {slot["slot"]: (slot["traffic"], slot["ready"]) for slot in shown["clouds"][cloud]["slots"]}
        assert slots == {deployed.v2.slot: (100, True), deployed.v1.slot: (0, True)}


def test_a_process_of_its_own_finds_the_configuration_by_its_variable(deployed: Deployed) -> None:
    ended = process("status", deployed.model, "--json", LOCKSTEP_CONFIG=str(deployed.config))
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)["champion"] == "2"
    refused = process("deploy", deployed.model, "99", "--json", LOCKSTEP_CONFIG=str(deployed.config))
    assert (refused.returncode, refused.stderr) == (4, "")
    told = json.loads(refused.stdout)
    assert told["exit_status"] == 4
    assert "'99'" in told["error"]
    assert told["hint"]


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(deployed: Deployed, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    deployed.fleet.registry.tag(deployed.v3, CONDEMNED_TAG, "rolled back from: [aws] p95 " + "too slow " * 20)
    for arguments in (("status", "--prove"), ("versions",), ("monitor", "--no-act")):
        out = io.StringIO()
        monkeypatch.setattr(terminal, "RESULTS", Console(file=out, width=width, force_terminal=True, color_system=None))
        ended = lockstep(arguments[0], deployed.model, *arguments[1:], config=deployed.config)
        assert ended.status == 0, ended
        table = [line for line in out.getvalue().splitlines() if line[:1] in "┏┃┡│└"]
        assert table
        assert max(map(len, out.getvalue().splitlines())) <= width, out.getvalue()
        assert len({len(line) for line in table}) == 1, "a row was cut or broken"
        assert "…" not in out.getvalue(), "something was left out"
        if arguments[0] == "versions":
            assert "[aws]" in out.getvalue(), "brackets in a reason were taken for markup"


def test_a_real_terminal_gets_colours_and_its_width(deployed: Deployed) -> None:
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    running = subprocess.Popen(
        [*COMMAND, "--config", str(deployed.config), "status", deployed.model],
        stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env={**environment, "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    text = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how a terminal says that the other side has gone
            break
        if not piece:
            break
        text += piece
    os.close(ours)
    assert running.wait(timeout=60) == 0
    shown = text.decode()
    assert "\x1b[32min step" in shown
    assert f"{deployed.v2.slot}" in shown


def test_dry_runs_change_nothing(deployed: Deployed) -> None:
    before = len(deployed.fleet.ledger.entries())
    with deployed.unchanged(), deployed.only_reads():
        rollback = lockstep("rollback", deployed.model, "--dry-run", "--json", config=deployed.config)
        assert rollback.status == 0, rollback
        assert (rollback.document["target"], rollback.document["condemns"]) == ("1", ["2"])
        assert (rollback.document["warnings"], rollback.document["further"]) == ([], None)
        assert rollback.document["plan"] == [
            f"{cloud}: traffic {deployed.v2.slot} 100 % -> {deployed.v1.slot} 100 %" for cloud in deployed.clouds
        ]
        for cloud, expected in rollback.document["expected"].items():
            assert (expected["cold"], 0 < expected["seconds"] < 60) == (False, True), cloud
            assert "flip" in expected["why"], cloud
        deploy = lockstep("deploy", deployed.model, "3", "--steps", "10,100", "--dry-run", config=deployed.config)
        shown = deploy.out.splitlines()
        assert {line for line in shown if "ready" in line} == {
            f"{cloud}: make slot {deployed.v3.slot} ready" for cloud in deployed.clouds
        }
        titles = [line.partition(" for at least")[0] for line in shown[-3:]]
        assert titles == [f"10 % on {deployed.clouds[0]}", "10 %", "100 %"]
        replicate = lockstep("replicate", deployed.model, "3", "--dry-run", config=deployed.config)
        assert replicate.out.startswith("present on every cloud")
    assert len(deployed.fleet.ledger.entries()) == before


def test_register_replicate_and_image(deployed: Deployed, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", regularisation=0.05)
    (tmp_path / "train.csv").write_text("a\n1\n")
    others = {
        f"clouds__{cloud.name}__image": f"{cloud.image.partition('@')[0]}@{OTHER}" for cloud in deployed.fleet.clouds
    }
    config = deployed.configured(tmp_path / "other.yaml", **others)
    facts = ("--code", tmp_path, "--data", f"s3://b/train.csv@7={tmp_path / 'train.csv'}", "--parent", "champion")
    ended = process("--config", config, "register", deployed.model, folder, *facts, "--json")
    assert ended.returncode == 0, ended.stderr
    made = json.loads(ended.stdout)
    version = deployed.fleet.registry.find(deployed.model, made["version"])
    manifest = deployed.fleet.registry.manifest(version)
    assert (made["model"], made["digest"], made["run_id"]) == (version.model, version.digest, version.run_id)
    assert made["content"] == manifest.content
    assert manifest.parents == (deployed.v2.digest,)
    assert [(data.uri, data.snapshot_id, data.rows) for data in manifest.data] == [("s3://b/train.csv", "7", 1)]
    assert set(manifest.env.images) == set(deployed.clouds)
    (listed,) = (
        row
        for row in lockstep("versions", deployed.model, "--json", config=deployed.config).document
        if row["version"] == version.label
    )
    assert (listed["content"], listed["run_id"]) == (manifest.content, version.run_id)

    dry = lockstep("replicate", deployed.model, version.label, "--dry-run", "--json", config=deployed.config)
    assert dry.document == dict.fromkeys(deployed.clouds, "its bytes are not there")
    done = lockstep("replicate", deployed.model, f"v{version.label}", "--json", config=deployed.config)
    assert (done.status, done.err) == (0, "")
    assert set(done.document) == set(deployed.clouds)
    assert all(record["console"].startswith("https://") for record in done.document.values())
    for cloud in deployed.fleet.clouds:
        # The image that was configured when it was sealed, not the one that is now.
        assert cloud.attest(version, manifest.env.images[cloud.name]) == ()
        assert manifest.env.images[cloud.name] != cloud.image
        store = open_store(cloud.store())
        lock = bytes(obstore.get(store, f"{version.prefix}/requirements.lock").bytes())
        assert lock == deployed.fleet.registry.lock(version)
        assert deployed.fleet.replicas(cloud).signature(version) == deployed.fleet.registry.signature(version)
    shown = lockstep("replicate", deployed.model, version.digest[:10], config=deployed.config)
    assert [line.split()[0] for line in shown.out.splitlines()] == list(deployed.clouds)

    image = lockstep("image", deployed.model, version.label, "--out", tmp_path / "image", config=deployed.config)
    assert image.status == 0, image
    assert {Path(line).name for line in image.out.splitlines()} >= {"Dockerfile", "requirements.lock"}
    early = lockstep("image", deployed.model, folder, "--out", tmp_path / "early", config=deployed.config)
    assert early.status == 0, early
    for name in ("Dockerfile", "requirements.lock"):  # the same image, before anything was registered
        assert (tmp_path / "early" / name).read_bytes() == (tmp_path / "image" / name).read_bytes()
    again = lockstep("image", deployed.model, version.label, "--out", folder, config=deployed.config)
    assert again.status == 3
    assert "next:" in again.err

    lost = lockstep("register", deployed.model, str(tmp_path / "nowhere"), "--json", config=deployed.config)
    assert lost.status in (3, 4)
    assert lost.document["hint"]


def test_deploy_and_rollback_with_live_traffic(deployed: Deployed) -> None:
    with Traffic(deployed.fleet, deployed.outcomes).flowing() as traffic:
        done = lockstep("deploy", deployed.model, "3", "--json", config=deployed.config)
        assert (done.status, done.err) == (0, ""), done
        assert [stage["decision"] for stage in done.document["stages"]] == ["pass"] * 3
        assert deployed.show().aliases == {CHAMPION: "3", FALLBACK: "2"}
        back = lockstep("rollback", deployed.model, "--reason", "alert 4711", "--json", config=deployed.config)
        assert (back.status, back.err) == (0, ""), back
    assert traffic.problems == []
    assert (back.document["target"], back.document["left"], back.document["condemned"]) == ("2", ["3"], ["3"])
    assert set(back.document["clouds"]) == set(deployed.clouds)
    assert back.document["digest"] == deployed.v2.digest
    assert "alert 4711" in deployed.fleet.registry.tags(deployed.v3)[CONDEMNED_TAG]
    assert deployed.answers() == deployed.everywhere(deployed.v2)


def test_a_rollback_is_told_before_the_ledger_is_copied(deployed: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def copying(*asked: Any) -> Any:
        told.append(getattr(sys.stdout, "getvalue", str)())
        return copy_ledger(*asked)

    monkeypatch.setattr("lockstep.operations.journal.copy_ledger", copying)
    with deployed.control.during("azure", "down"):
        dry = lockstep("rollback", deployed.model, "--dry-run", config=deployed.config)
        split = lockstep("rollback", deployed.model, "--json", config=deployed.config)
    done = lockstep("rollback", deployed.model, "--json", config=deployed.config)
    assert (split.status, done.status) == (6, 0)
    assert told == [split.out, done.out]
    facts = split.document
    assert (facts["exit_status"], facts["target"], facts["condemned"]) == (6, "1", ["2"])
    assert (sorted(facts["clouds"]), list(facts["split"])) == (["aws", "gcp"], ["azure"])
    assert facts["next"] == f"lockstep reconcile {deployed.model} --wait 300"
    assert "elsewhere nobody does" in facts["hint"]
    assert dry.status == 0
    assert "azure would be tried for " in dry.out
    assert "ends with status 6 (split)" in dry.out
    assert f"{deployed.v2} would be condemned" in dry.out
    assert (done.document["target"], done.document["further"]) == (
        "1",
        f"lockstep rollback {deployed.model} --to VERSION",
    )


def test_ctrl_c_during_a_canary_takes_it_back(deployed: Deployed, tmp_path: Path) -> None:
    config = deployed.configured(tmp_path / "c.yaml", fleets__default__rollout__patience=600.0)
    before = deployed.show()
    running = subprocess.Popen(
        [*COMMAND, "--config", str(config), "deploy", deployed.model, "3"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    scout = deployed.fleet.clouds[0]

    def takes_traffic() -> bool:
        slot = scout.observe(deployed.model).slot(deployed.v3.slot)
        return slot is not None and slot.weight > 0

    try:
        assert eventually(takes_traffic, 60)
        assert CHALLENGER in deployed.show().aliases
        running.send_signal(signal.SIGINT)
        _, err = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            running.kill()
            running.communicate()
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert f"taking {deployed.v3} back everywhere" in err
    assert err.count("canary requests seen at this stage") <= 1, "the same line was said again and again"
    assert deployed.show() == before
    assert deployed.answers() == deployed.everywhere(deployed.v2)
    (*_, outcome) = deployed.fleet.ledger.entries(deployed.model, "canary_deploy.outcome")
    assert "interrupted" in str(outcome.body["error"])
    assert f"interrupted: {deployed.v3} was taken back, {deployed.v2} serves everywhere\n" in err


def test_check(deployed: Deployed) -> None:
    ended = lockstep("check", config=deployed.config)
    assert (ended.status, ended.err) == (0, "")
    assert [line.split() for line in ended.out.splitlines()] == [
        [name, "ok"] for name in ("mlflow", "aws", "azure", "gcp")
    ]
    shown = lockstep("check", "--json", config=deployed.config).document
    assert shown["problems"] == {}
    assert set(shown["permissions"]) == {"aws", "azure", "gcp"}
    assert all(one["needed"] and not one["missing"] + one["cannot_tell"] for one in shown["permissions"].values())


def test_check_names_the_permission_that_is_missing(deployed: Deployed) -> None:
    with deployed.control.denying("aws", "sagemaker:UpdateEndpoint"):
        ended = lockstep("check", config=deployed.config)
        shown = lockstep("check", "--json", config=deployed.config)
    assert (ended.status, shown.status) == (3, 3)
    assert " missing sagemaker:UpdateEndpoint on arn:aws:sagemaker:" in ended.out
    assert "(places and removes slots): see docs/clouds.md#amazon-sagemaker" in ended.out
    assert ended.out.count(" ok\n") == 3
    (missing,) = shown.document["permissions"]["aws"]["missing"]
    assert missing["permission"] == "sagemaker:UpdateEndpoint"
    assert missing["on"].endswith(f"endpoint/{deployed.model.lower()}")
    with deployed.control.denying("aws", "sagemaker:ListEndpoints"):
        refused = lockstep("check", config=deployed.config)
    assert refused.status == 5
    assert "AccessDeniedException" in refused.out
    assert " missing sagemaker:ListEndpoints on * " in refused.out


def test_check_says_what_it_cannot_tell(deployed: Deployed) -> None:
    """Neither ok nor missing; and nothing is in the way of working."""
    with deployed.control.denying("aws", "iam:SimulatePrincipalPolicy"):
        ended = lockstep("check", config=deployed.config)
    assert ended.status == 0
    assert "cannot tell about" in ended.out
    assert "allow iam:SimulatePrincipalPolicy on arn:aws:iam::" in ended.out
    assert "missing" not in ended.out
    assert ended.out.count(" ok\n") == 3


def test_schema_describes_the_file_that_is_used(deployed: Deployed) -> None:
    schema = lockstep("schema").document
    jsonschema.validate(yaml.safe_load(deployed.config.read_text()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"mlflow": {}}, schema)


def test_configuration_errors(tmp_path: Path) -> None:
    missing = tmp_path / "nothing.yaml"
    asked: list[tuple[str, ...]] = [("check", "--json"), ("status", "m", "--json"), ("init", "--json")]
    for command in asked:
        ended = lockstep(*command, config=missing)
        assert ended.status == 3
        assert str(missing) in ended.document["error"]
        assert "--config" in ended.document["hint"]
    wrong = tmp_path / "lockstep.yaml"
    wrong.write_text("mlflow:\n  tracking_url: http://127.0.0.1:1\nclouds: {}\nfleets: {}\n")
    for words in (["init", "--yes"], ["check"], ["rollback", "m"]):
        ended = lockstep(*words, config=wrong)
        assert ended.status == 3
        assert f"{wrong}, line 2: mlflow.tracking_url" in ended.err


def test_init_outside_a_checkout_says_what_is_missing(
    deployed: Deployed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wheel ships the package alone; a folder with nothing else on the path is such a place."""
    package = tmp_path / "site"
    package.mkdir()
    (package / "lockstep").symlink_to(Path("lockstep").resolve())
    installed = [path for path in sys.path if "site-packages" in path]
    script = "import sys\n" \
        "sys.path[:] = [p for p in sys.path if not __import__('os').path.isdir(p + '/flows')]\n" \
        "from lockstep.cli import main; main()"  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-S", "-c", script, "--config", str(deployed.config), "init"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(package), *installed])},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ended.returncode == 3, ended
    assert "flows.init is not here" in ended.stderr
    assert "checkout" in ended.stderr


def test_wrong_usage(deployed: Deployed) -> None:
    for arguments in (
        ("rollback",),
        ("deploy", deployed.model, "3", "--steps", "many"),
        ("fly",),
    ):
        ended = lockstep(*arguments, config=deployed.config)
        assert ended.status == 2, ended
        assert ended.out == ""
    assert "rollback" in lockstep("--help").out


def test_model_names_complete(deployed: Deployed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(options, "config", deployed.config)
    assert complete_model("dep") == [deployed.model]
    assert complete_model("x") == []
    monkeypatch.setattr(options, "config", tmp_path / "nothing.yaml")
    assert complete_model("") == [], "a completion never fails"
    ended = process(
        LOCKSTEP_CONFIG=str(deployed.config), _LOCKSTEP_COMPLETE="complete_bash",
        COMP_WORDS="lockstep status dep", COMP_CWORD="2",
    )  # fmt: skip
    assert ended.stderr == ""
