"""Write what the documentation takes from the code: the configuration reference, its JSON Schema, detection times.

python docs/generate.py             docs/configuration.md and docs/lockstep.schema.json
python docs/generate.py --simulate  also docs/detection.json, its picture and its table in docs/verdicts.md (minutes)
python docs/generate.py --check     change nothing; exit with 1 when the first two are stale
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.special import logsumexp

DOCS: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from lockstep.config import MonitorSettings, RolloutSettings, schema  # noqa: E402
from lockstep.rules.judge import DOUBT, ODDS_RATIOS, PERIOD_REQUESTS, Decision, log_e_value  # noqa: E402
from lockstep.rules.limits import Observed, judge_alone  # noqa: E402
from lockstep.rules.rollout import Move, advance, plan_stages  # noqa: E402

REFERENCE: Final = DOCS / "configuration.md"
SCHEMA: Final = DOCS / "lockstep.schema.json"
DETECTION: Final = DOCS / "detection.json"
PICTURE: Final = DOCS / "pictures" / "detection.svg"
VERDICTS: Final = DOCS / "verdicts.md"
BEGIN, END = "<!-- simulated: begin -->\n", "<!-- simulated: end -->\n"

INTRODUCTION: Final = """\
# Every key of lockstep.yaml

This page and [lockstep.schema.json](lockstep.schema.json) are written by `docs/generate.py` from the models that read
the file; a test fails when they are stale. The command line prints the same schema:

```bash {test}
lockstep schema > lockstep.schema.json
```

To complete and check the file in an editor that runs the YAML language server, put this on its first line:

```yaml
# yaml-language-server: $schema=lockstep.schema.json
```

The file is found at `--config`, else at `$LOCKSTEP_CONFIG`, else at `./lockstep.yaml`. Everywhere in it `${NAME}`
stands for an environment variable, which must be set, and `${NAME:-text}` for one with a default: secrets are named,
not written. What stands under `agent:` and names a variable that is not set is left out for all commands but those of
the agent: a rollback by hand needs none of its tokens. A mistake is reported with file, line and key. An unknown key is
a mistake.

"""
SECTIONS: Final = (
    ("Top level", "", "Config"),
    ("mlflow", "The canonical version store.", "MlflowSettings"),
    ("ledger", "See [the ledger](production.md#the-ledger).", "LedgerSettings"),
    ("keys", "See [keys](production.md#keys).", "KeySettings"),
    ("clouds: kind sagemaker", "See [clouds](clouds.md#amazon-sagemaker).", "SageMakerSettings"),
    ("clouds: kind azureml", "See [clouds](clouds.md#azure-machine-learning).", "AzureMLSettings"),
    ("clouds: kind vertex", "See [clouds](clouds.md#google-vertex-ai).", "VertexSettings"),
    ("fleets", "A fleet is a set of clouds that serve models in step.", "FleetSettings"),
    ("fleets: rollout", "See [how a canary is judged](verdicts.md).", "RolloutSettings"),
    (
        "fleets: monitor",
        "See [what the monitor looks at](verdicts.md#when-nothing-stands-beside-it).",
        "MonitorSettings",
    ),
    ("fleets: reconcile", "See [reconciling](production.md#reconciling).", "ReconcileSettings"),
    ("models", "A model must be listed here to be worked on.", "ModelSettings"),
    ("models: outcomes of kind file", "See [outcomes](outcomes.md#files).", "FileOutcomes"),
    ("models: outcomes of kind sql", "See [outcomes](outcomes.md#sql).", "SqlOutcomes"),
    ("models: outcomes of kind prometheus", "See [outcomes](outcomes.md#prometheus).", "PrometheusOutcomes"),
    ("models: outcomes: columns", "", "Columns"),
    ("agent", "The long-lived process of `lockstep agent`.", "AgentSettings"),
    ("agent: notify", "", "NotifySettings"),
    ("agent: webhooks", "", "WebhookSettings"),
    ("agent: tokens", "", "TokenSettings"),
)


# -- the configuration reference -----------------------------------------------------------------------------------


def reference() -> str:
    """docs/configuration.md."""
    whole = schema()
    parts = [INTRODUCTION]
    for title, text, name in SECTIONS:
        model = whole if name == "Config" else whole["$defs"][name]
        parts.append(f"## {title}\n\n{text}\n\n" if text else f"## {title}\n\n")
        parts.append("| key | type | default | meaning |\n|---|---|---|---|\n")
        required = set(model.get("required", ()))
        for key, field in model["properties"].items():
            default = "**required**" if key in required else _code(field.get("default", _of_type(whole, field)))
            meaning = _meaning(whole, name, key, field).replace("|", "\\|")
            parts.append(f"| `{key}` | {_type(field)} | {default} | {meaning} |\n")
        parts.append("\n")
    return "".join(parts).rstrip("\n") + "\n"


def _meaning(whole: dict[str, Any], model: str, key: str, field: dict[str, Any]) -> str:
    """The field's own description, else that of what it refers to."""
    if "description" in field:
        return str(field["description"])
    if "const" in field:
        return "Which kind this is."
    if model == "Columns":
        return f"Name of the column with the {key.replace('_', ' ')}."
    reference = str(field.get("$ref", "")).rpartition("/")[2]
    return str(whole["$defs"].get(reference, {}).get("description", "")).partition("\n")[0]


def schema_text() -> str:
    """docs/lockstep.schema.json."""
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema()}, indent=2) + "\n"


def _code(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "see below" if value else "empty"
    return f"`{json.dumps(value)}`" if value not in ([], "") else "empty"


def _of_type(whole: dict[str, Any], field: dict[str, Any]) -> object:
    return {"see": "below"} if "$ref" in field else None


def _type(field: dict[str, Any]) -> str:
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        kinds = [_type(one) for one in field["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "oneOf" in field or "discriminator" in field:
        return "one of the kinds below"
    if "$ref" in field:
        return "mapping, see below"
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field.get('items', {}))}"
    if kind == "object":
        return "mapping"
    limits = [
        f"{sign} {field[key]:g}"
        for key, sign in (("exclusiveMinimum", ">"), ("minimum", "≥"), ("exclusiveMaximum", "<"), ("maximum", "≤"))
        if key in field
    ]
    return ", ".join([{"string": "text", "boolean": "true or false"}.get(kind, kind), *limits])


# -- detection times -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One kind of harm under one load: shares of bad events, requests per second on each of three clouds."""

    guardrail: str
    stable: float
    canary: float
    rate: float


@dataclass(frozen=True)
class Row:
    """What came of a case: share taken back, median minutes and canary requests (all clouds) of those."""

    case: Case
    runs: int
    taken_back: float
    minutes: float | None
    requests: float | None


CLOUDS: Final = ("first", "second", "third")
SEED: Final = 20260
RUNS: Final = 200
CASES: Final = tuple(
    Case(guardrail, stable, canary, rate)
    for rate in (1.0, 10.0)
    for guardrail, stable, worse in (
        ("errors", 0.01, (0.01, 0.02, 0.05, 0.1, 0.5, 1.0)),
        ("outcomes", 0.1, (0.1, 0.12, 0.15, 0.2, 0.4)),
    )
    for canary in worse
)


def simulate(case: Case, runs: int = RUNS) -> Row:
    """Roll `runs` canaries out with the default settings; Poisson traffic, seeded by the case.

    Where outcomes are kept there are two guardrails, errors and outcomes, that share alpha; here no request fails.
    """
    random = np.random.default_rng([SEED, *(round(value * 1000) for value in (case.stable, case.canary, case.rate))])
    ends = [_roll_out(case, random) for _ in range(runs)]
    back = [(seconds, requests) for taken, seconds, requests in ends if taken]
    return Row(
        case,
        runs,
        len(back) / runs,
        round(float(np.median([seconds for seconds, _ in back])) / 60, 1) if back else None,
        round(float(np.median([requests for _, requests in back]))) if back else None,
    )


def _roll_out(case: Case, random: np.random.Generator) -> tuple[bool, float, int]:
    """Whether one canary was taken back, after how many seconds and canary requests."""
    settings, alone = RolloutSettings(), MonitorSettings().limits()
    outcomes = case.guardrail == "outcomes"
    bound = settings.caution * np.log((2 if outcomes else 1) / settings.alpha)
    totals = np.zeros((len(CLOUDS) + 1, len(ODDS_RATIOS)))
    growing = {cloud: np.zeros(4, dtype=int) for cloud in CLOUDS}
    seconds, requests = 0.0, 0
    for stage in plan_stages(CLOUDS, settings.steps):
        at_start, waited = requests, 0.0
        counts = {cloud: [0, 0] for cloud in CLOUDS}
        while True:
            waited += settings.look_every
            for cloud in CLOUDS:
                new = _period(case, stage.per_cent[cloud], settings.look_every, random)
                growing[cloud] += new
                requests += new[0]
                counts[cloud][0] += new[0]
                counts[cloud][1] += new[1]
            enough = requests - at_start >= settings.min_requests
            for index, cloud in enumerate(CLOUDS):
                if growing[cloud][0] >= PERIOD_REQUESTS or (enough and waited >= settings.step_seconds):
                    logs = np.asarray(log_e_value(*map(int, growing[cloud])))
                    totals[0] += logs
                    totals[index + 1] += logs
                    growing[cloud] = np.zeros(4, dtype=int)
            if set(stage.per_cent.values()) == {100}:
                seen = [
                    Observed(cloud, total, 0, total, bad) if outcomes else Observed(cloud, total, bad)
                    for cloud, (total, bad) in counts.items()
                ]
                decision = judge_alone(seen, alone).decision
            elif mean_evidence(totals) >= bound:
                decision = Decision.FAIL
            else:
                decision = Decision.PASS if enough and mean_evidence(totals) < DOUBT else Decision.INCONCLUSIVE
            move = advance(decision, waited, settings.step_seconds, settings.patience)
            if move is Move.TAKE_BACK:
                return True, seconds + waited, requests
            if move is Move.ADVANCE:
                break
        seconds += waited
    return False, seconds, requests


def mean_evidence(totals: np.ndarray[Any, Any]) -> float:
    """What `judge.evidence` says of sums of log e-values: one row for all clouds together, one for each."""
    return float(logsumexp(totals) - np.log(totals.size))


def _period(case: Case, per_cent: int, seconds: float, random: np.random.Generator) -> tuple[int, int, int, int]:
    canary = int(random.poisson(case.rate * seconds * per_cent / 100))
    stable = int(random.poisson(case.rate * seconds * (100 - per_cent) / 100))
    return canary, int(random.binomial(canary, case.canary)), stable, int(random.binomial(stable, case.stable))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| requests per second and cloud | counted | bad, stable | bad, canary | taken back | median minutes |"
        " median canary requests |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        case = row["case"]
        cells = (
            f"{case['rate']:g}",
            case["guardrail"],
            f"{case['stable']:.0%}",
            f"{case['canary']:.0%}" + (" (no harm)" if case["canary"] == case["stable"] else ""),
            f"{row['taken_back']:.1%}",
            "–" if row["minutes"] is None else str(row["minutes"]),
            "–" if row["requests"] is None else f"{row['requests']:,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Median minutes until a canary is taken back, over its share of bad events; readable on light and dark."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "lockstep", "font.family": "sans-serif"})
    from matplotlib import pyplot

    grey = "#7d8590"
    figure, axes = pyplot.subplots(figsize=(8, 4))
    looks = {(0.01, 1.0): ("#d1773b", "--"), (0.01, 10.0): ("#d1773b", "-"), (0.1, 1.0): ("#3b82d1", "--")}
    for stable, rate in sorted({(row["case"]["stable"], row["case"]["rate"]) for row in rows}):
        found = [
            (100 * row["case"]["canary"], row["minutes"])
            for row in rows
            if (row["case"]["stable"], row["case"]["rate"]) == (stable, rate)
            and row["case"]["canary"] > stable
            and row["taken_back"] >= 0.5
        ]
        colour, line = looks.get((stable, rate), ("#3b82d1", "-"))
        kind = "failed requests" if stable < 0.1 else "bad outcomes"
        label = f"{kind}, stable {stable:.0%}; {rate:g} requests/s and cloud"
        axes.plot(*zip(*found, strict=True), line, color=colour, marker="o", label=label)
    for minute in (0.2, 1, 5, 20):
        axes.axhline(minute, color=grey, linewidth=0.5, linestyle=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([2, 5, 10, 20, 50, 100], ["2 %", "5 %", "10 %", "20 %", "50 %", "100 %"])
    axes.set_yticks([0.2, 1, 5, 20], ["10 s", "1 min", "5 min", "20 min"])
    axes.minorticks_off()
    axes.set_xlabel("bad events of the canary", color=grey)
    axes.set_ylabel("median time until taken back", color=grey)
    axes.tick_params(colors=grey)
    for spine in axes.spines.values():
        spine.set_color(grey)
    for entry in axes.legend(frameon=False, fontsize=9).get_texts():
        entry.set_color(grey)
    figure.tight_layout()
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": "docs/generate.py"})
    text = re.sub(r"^<\?xml.*?(?=<svg)| <metadata>.*?</metadata>\n", "", path.read_text(), flags=re.S)
    text = re.sub(r'width="(\d+)pt" height="(\d+)pt"', r'width="\1" height="\2" role="img"', text)
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")


def _simulate_all() -> None:
    rows = []
    for case in CASES:
        row = simulate(case)
        rows.append(asdict(row))
        sys.stderr.write(f"{row}\n")
    DETECTION.write_text(json.dumps({"seed": SEED, "runs": RUNS, "rows": rows}, indent=1) + "\n")


def _publish() -> None:
    rows = json.loads(DETECTION.read_text())["rows"]
    draw(rows, PICTURE)
    before, _, rest = VERDICTS.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    VERDICTS.write_text(f"{before}{BEGIN}{table(rows)}{END}{after}")


# -- the command ---------------------------------------------------------------------------------------------------


def outputs() -> Iterator[tuple[Path, str]]:
    """Files that follow from the code alone, with their text."""
    yield REFERENCE, reference()
    yield SCHEMA, schema_text()


def main() -> int:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--simulate", action="store_true")
    options = parser.parse_args()
    stale = [path for path, text in outputs() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path} is stale: run python docs/generate.py\n")
        return 1 if stale else 0
    for path, text in outputs():
        path.write_text(text, encoding="utf-8")
    if options.simulate:
        _simulate_all()
        _publish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
