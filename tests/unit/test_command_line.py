"""What the command line tells programs: wrong usage as JSON, and trouble beside the one document."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lockstep import cli, terminal
from lockstep.operations.fleet import Event


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["lockstep", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    ("words", "error", "command"),
    [
        ("fly --json", "'fly'", "lockstep"),
        ("rollback --json", "'model'", "lockstep rollback"),
        ("status churn --prov --json", "--prov", "lockstep status"),
        ("hold churn --json", "'--reason'", "lockstep hold"),
        ("reconcile --wait soon --json", "'--wait'", "lockstep reconcile"),
        ("reconcile --accept-surprise " + "x" * 1001 + " --json", "1000 characters", "lockstep reconcile"),
        ("ledger fly --json", "'fly'", "lockstep ledger"),
        ("--jsn --json", "--jsn", "lockstep"),
    ],
)
def test_wrong_usage_is_json_where_json_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, error: str, command: str
) -> None:
    assert run(monkeypatch, *words.split()) == 2
    shown = capsys.readouterr()
    told = json.loads(shown.out)
    assert (told["exit_status"], shown.err) == (2, "")
    assert error in told["error"]
    assert told["hint"].endswith(f"{command} --help says how it is called")


def test_wrong_usage_is_text_elsewhere(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["fly"], ["status", "--", "--json", "b"], ["fly", "--", "--json"]):
        assert run(monkeypatch, *words) == 2
        shown = capsys.readouterr()
        assert (shown.out, shown.err[:6]) == ("", "Usage:"), words


def test_a_program_hears_of_trouble_and_of_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal.progress(quiet=True) as observe:
        observe(Event("rolling churn back", model="churn"))
        observe(Event("copying", "aws", 1, 2, "churn"))
        observe(Event("cannot be reached: trying until 12:00:00 UTC", "aws", model="churn", trouble=True))
        observe(Event("no lease can be taken", model="churn", trouble=True))
    shown = capsys.readouterr()
    told = [json.loads(line) for line in shown.err.splitlines()]
    assert shown.out == ""
    assert [(one["model"], one["cloud"], one["trouble"][:15]) for one in told] == [
        ("churn", "aws", "cannot be reach"),
        ("churn", None, "no lease can be"),
    ]
    assert all(one["at"].endswith("Z") for one in told)


def test_help_and_version_import_no_cloud_and_no_database() -> None:
    code = "import sys; from lockstep.cli import main; sys.argv = ['lockstep', '--version']\ntry: main()\nfinally: "
    code += "print(*sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert ran.stdout.startswith("lockstep ")
    assert "typer" in ran.stderr.split()
    assert not {"sqlalchemy", "boto3", "azure", "pydantic", "requests"} & set(ran.stderr.split())


def test_what_others_wrote_is_shown_as_they_did(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show_rows("log", ("who", "why"), [["alert:watch", "alert:watch: it is :fire: [red]"]])
    shown = " ".join(capsys.readouterr().out.split())
    assert "alert:watch: it is :fire: [red]" in shown
