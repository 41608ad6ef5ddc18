"""The documentation holds: links lead somewhere, examples are valid and run, what is generated is fresh."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import numpy as np
import pytest
import typer
import yaml
from pydantic import TypeAdapter

from lockstep import errors
from lockstep.agent.notices import receivers
from lockstep.cli import app
from lockstep.config import parse
from lockstep.rules.judge import Period, evidence, log_e_value
from lockstep.stores.outcomes import AnyOutcomes, FileOutcomes, OutcomeSource, SqlOutcomes
from sandbox.faults import KINDS, Fault
from tests.chaos import table
from tests.chaos.faults import troubles
from tests.docs_snippets import Snippet, pages, snippets

ROOT = Path.cwd()
ALL = [one for page in pages() for one in snippets(page)]
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")
ENVIRONMENT = {f"SERVING_DIGEST_{name}": "ab" * 32 for name in ("AWS", "AZURE", "GCP")}
#: What stands around a page's `clouds:` alone, or around its outcomes alone, to make a whole file.
FRAME: dict[str, Any] = {"mlflow": {"tracking_uri": "http://127.0.0.1:5000"}, "models": {"tumour": {}}}


def marked(language: str, mark: str) -> list[Snippet]:
    return [one for one in ALL if one.language == language and one.mark == mark]


def anchors(page: Path) -> set[str]:
    """Headings as GitHub names them."""
    found: dict[str, int] = {}
    fenced = False
    for line in page.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        if not fenced and (heading := re.match(r"#{1,6} (.*)", line)):
            slug = re.sub(r"[^\w\- ]", "", heading[1].strip().lower()).replace(" ", "-")
            found[slug] = found.get(slug, -1) + 1
    return {slug if not number else f"{slug}-{number}" for slug, count in found.items() for number in range(count + 1)}


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for link in LINK.finditer(text):
        target, _, anchor = link["target"].partition("#")
        if target.startswith(("http://", "https://")):
            continue
        other = (page.parent / target).resolve() if target else page.resolve()
        assert other.exists(), f"{page}: {link['target']}"
        if anchor:
            assert anchor in anchors(other), f"{page}: {link['target']}"


@pytest.mark.parametrize("page", [page for page in pages() if page.parts[0] == "docs"], ids=str)
def test_every_page_can_be_reached(page: Path) -> None:
    linked = {
        (other.parent / link["target"].partition("#")[0]).resolve()
        for other in pages()
        if other != page
        for link in LINK.finditer(other.read_text(encoding="utf-8"))
    }
    entrances = {ROOT / "docs" / name for name in ("architecture.md", "clouds.md", "production.md", "glossary.md")}
    assert page.resolve() in linked | entrances | {ROOT / "docs" / "adr" / "README.md"}, f"nothing links to {page}"


@pytest.mark.parametrize("snippet", [one for one in ALL if one.language == "json"], ids=str)
def test_json_is_valid(snippet: Snippet) -> None:
    json.loads(snippet.text)


@pytest.mark.parametrize("snippet", [one for one in ALL if one.language == "yaml"], ids=str)
def test_yaml_is_valid(snippet: Snippet) -> None:
    yaml.safe_load(snippet.text)


@pytest.mark.parametrize("snippet", marked("yaml", "config"), ids=str)
def test_whole_configurations_are_accepted(snippet: Snippet) -> None:
    assert parse(snippet.text, str(snippet), ENVIRONMENT).clouds


@pytest.mark.parametrize("snippet", marked("yaml", "clouds"), ids=str)
def test_clouds_are_accepted_also_with_what_is_commented_out(snippet: Snippet) -> None:
    clouds = yaml.safe_load(snippet.text)["clouds"]
    whole = {**FRAME, **yaml.safe_load(snippet.text), "fleets": {"default": {"clouds": list(clouds)}}}
    config = parse(yaml.safe_dump(whole), str(snippet), ENVIRONMENT)
    assert all(cloud.image.endswith("@sha256:" + "ab" * 32) for cloud in config.clouds.values())
    for cloud in config.clouds.values():
        assert cloud.connect("any").endpoint("tumour")
    options = re.sub(r"^(    )# ([a-z_]+: \S)", r"\1\2", snippet.text, flags=re.M)
    whole.update(yaml.safe_load(options))
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", options), "x")
    parse(yaml.safe_dump(whole), str(snippet), {**variables, **ENVIRONMENT})


@pytest.mark.parametrize("snippet", marked("yaml", "agent"), ids=str)
def test_settings_of_the_agent_are_accepted(snippet: Snippet) -> None:
    cloud = yaml.safe_load(marked("yaml", "clouds")[0].text)
    whole = {**FRAME, **cloud, "fleets": {"default": {"clouds": list(cloud["clouds"])}}, **yaml.safe_load(snippet.text)}
    variables = dict.fromkeys(re.findall(r"\$\{(\w+)\}", snippet.text), f"json://127.0.0.1/{'a' * 40}")
    told = parse(yaml.safe_dump(whole), str(snippet), {**variables, **ENVIRONMENT}).agent
    expected = len(told.notify.addresses) + len(told.notify.urgent) + len(told.webhooks)
    assert len(receivers(told, {})) == expected


@pytest.mark.parametrize("snippet", [one for one in ALL if one.language == "bash"], ids=str)
def test_shell_is_well_formed_and_its_lockstep_commands_exist(snippet: Snippet) -> None:
    checked = subprocess.run(
        ["bash", "-n"], input=snippet.text, capture_output=True, text=True, check=False, timeout=30
    )
    assert checked.returncode == 0, checked.stderr
    commands = getattr(typer.main.get_command(app), "commands")  # noqa: B009 - typer's group has it, its base has not
    for line in re.split(r"\n|&&|;", snippet.text):
        words = shlex.split(line, comments=True) if line.lstrip().startswith("lockstep") else []
        if not words:
            continue
        assert words[1] in commands, line
        command = commands[words[1]]
        if nested := getattr(command, "commands", {}):
            assert words[2] in nested, line
            command = nested[words[2]]
        known = {name for parameter in command.params for name in parameter.opts + parameter.secondary_opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known | {"--help"}, line


@pytest.mark.parametrize("page", sorted({one.page for one in marked("python", "test")}), ids=str)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_python(page)


def run_python(page: Path) -> None:
    """The page's Python from top to bottom, each block in a namespace of its own."""
    for snippet in marked("python", "test"):
        if snippet.page == page:
            exec(compile(snippet.text, str(snippet), "exec"), {})


def test_outcomes_are_read_where_the_page_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = Path("docs/outcomes.md")
    run_python(page)
    now = datetime.now(UTC)
    counted = {}
    for snippet in marked("yaml", "outcomes"):
        source = source_of(snippet)
        if isinstance(source, FileOutcomes | SqlOutcomes):
            counts = source.counts(now - timedelta(hours=1), now + timedelta(hours=1))
            counted[snippet.line] = {(one.cloud, one.version): (one.total, one.bad) for one in counts}
    assert list(counted.values()) == [
        {("aws", "3"): (2, 1)},
        {("gcp", "3"): (1, 0), ("gcp", "4"): (1, 1)},
        {("azure", "3"): (2, 1)},
        {("aws", "3"): (2, 1)},
    ]


def source_of(snippet: Snippet) -> OutcomeSource:
    """The outcomes of a page, read as lockstep.yaml would be."""
    cloud = yaml.safe_load(marked("yaml", "clouds")[0].text)
    models = {"tumour": {"outcomes": yaml.safe_load(snippet.text)}}
    whole = {**FRAME, **cloud, "fleets": {"default": {"clouds": list(cloud["clouds"])}}, "models": models}
    found = parse(yaml.safe_dump(whole), str(snippet), ENVIRONMENT).models["tumour"].outcomes
    assert found is not None
    return found


def test_every_kind_of_outcomes_is_shown() -> None:
    union = get_args(AnyOutcomes)[0]
    kinds = {get_args(kind.model_fields["kind"].annotation)[0] for kind in get_args(union)}
    assert {yaml.safe_load(snippet.text)["kind"] for snippet in marked("yaml", "outcomes")} == kinds
    assert TypeAdapter(AnyOutcomes)


def test_exit_statuses_are_those_of_the_errors() -> None:
    text = Path("docs/production.md").read_text(encoding="utf-8").partition("## Exit statuses")[2]
    told = {int(status) for status in re.findall(r"^\| (\d+) \|", text, flags=re.M)}
    classes = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.LockstepError)]
    raised = {one.exit_status for one in classes}
    assert told == raised | {0, 2}


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """docs/generate.py."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_configuration_reference_is_fresh(generator: ModuleType) -> None:
    for path, text in generator.outputs():
        assert path.read_text(encoding="utf-8") == text, f"{path} is stale: run python docs/generate.py"


def test_every_key_is_explained(generator: ModuleType) -> None:
    assert " |  |\n" not in generator.reference(), "a key of lockstep.yaml has no description"


def test_the_detection_table_is_what_the_simulation_gave(generator: ModuleType) -> None:
    kept = json.loads(generator.DETECTION.read_text(encoding="utf-8"))
    assert (kept["seed"], kept["runs"]) == (generator.SEED, generator.RUNS)
    assert generator.table(kept["rows"]) in generator.VERDICTS.read_text(encoding="utf-8")
    quick = next(row for row in kept["rows"] if row["case"]["canary"] == 1.0)
    again = generator.simulate(generator.Case(**quick["case"]))
    assert (again.taken_back, again.minutes, again.requests) == tuple(
        quick[name] for name in ("taken_back", "minutes", "requests")
    ), "the judge decides otherwise by now: run python docs/generate.py --simulate"


def test_the_simulation_sums_evidence_as_the_judge_does(generator: ModuleType) -> None:
    counts = [("first", 40, 3, 700, 4), ("second", 35, 0, 690, 9), ("third", 50, 1, 720, 8), ("first", 38, 2, 650, 5)]
    totals = generator.np.zeros((4, len(generator.ODDS_RATIOS)))
    for cloud, *numbers in counts:
        logs = generator.np.asarray(log_e_value(*numbers))
        totals[0] += logs
        totals[generator.CLOUDS.index(cloud) + 1] += logs
    expected = evidence([Period("errors", *numbers) for numbers in counts])
    assert generator.mean_evidence(totals) == pytest.approx(expected)


def z_score(canary: Any, of_canary: Any, stable: Any, of_stable: Any) -> Any:
    """Of two proportions, pooled; 0 where nothing bad was seen."""
    share = (canary + stable) / (of_canary + of_stable)
    error = np.sqrt(share * (1 - share) * (1 / of_canary + 1 / of_stable))
    return (canary / of_canary - stable / of_stable) / np.where(error > 0, error, np.inf)


def test_a_repeated_z_test_is_as_bad_as_the_page_says() -> None:
    random, looks, runs = np.random.default_rng(1), 400, 2000
    canary, stable = (random.binomial(50, 0.01, (runs, looks)).cumsum(axis=1) for _ in range(2))
    requests = 50 * np.arange(1, looks + 1)
    taken_back = (z_score(canary, requests, stable, requests) > 1.645).any(axis=1).mean()
    assert taken_back == pytest.approx(0.37, abs=0.02)
    assert "37 %" in (ROOT / "docs" / "verdicts.md").read_text(encoding="utf-8")


def test_pooled_counts_are_as_bad_under_a_ramp_as_the_decision_says() -> None:
    random, looks, runs = np.random.default_rng(2), 40, 400
    rates = np.linspace(0.005, 0.02, looks)
    of_canary = np.round(1000 * np.linspace(0.05, 0.5, looks)).astype(int)
    of_stable = 1000 - of_canary
    canary, stable = random.binomial(of_canary, rates, (runs, looks)), random.binomial(of_stable, rates, (runs, looks))
    pooled = z_score(canary.cumsum(axis=1), of_canary.cumsum(), stable.cumsum(axis=1), of_stable.cumsum())
    assert (pooled > 1.645).any(axis=1).mean() == pytest.approx(0.85, abs=0.03)
    judged = 0
    for bad_canary, bad_stable in zip(canary[:80], stable[:80], strict=True):
        counts = zip(of_canary, bad_canary, of_stable, bad_stable, strict=True)
        periods = [Period("errors", "aws", *map(int, numbers)) for numbers in counts]
        judged += any(evidence(periods[:end]) >= np.log(1 / 0.05) for end in range(5, looks + 1, 5))
    assert judged / 80 <= 0.05


def test_pictures_fetch_nothing_from_elsewhere() -> None:
    for picture in sorted(Path("docs/pictures").glob("*.svg")):
        text = picture.read_text(encoding="utf-8")
        names = re.sub(r'xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>|<!DOCTYPE[^>]*>', "", text, flags=re.S)
        assert "http" not in names, picture
        assert "@import" not in text, picture


def test_every_kind_of_fault_and_its_fields_are_explained() -> None:
    told = (ROOT / "docs/sandbox.md").read_text()
    assert [kind for kind in KINDS if f"| `{kind}` |" not in told] == []
    told += "`cloud` `kind`"  # which the page's examples show
    assert [field.name for field in fields(Fault) if f"`{field.name}`" not in told] == []


def test_the_page_of_faults_has_every_fault_that_is_tried() -> None:
    """`make chaos` writes the table; this tells when it has not been run since a fault was added."""
    assert table.names() == [trouble.name for trouble in troubles()]
