"""The end of the demo: a table, a picture of the traffic, and the numbers as JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from demo.names import CLOUDS
from demo.traffic_record import TrafficRecord

if TYPE_CHECKING:
    from demo.telling import Claim, Step

TITLES: Final = {"aws": "Amazon SageMaker", "azure": "Azure ML", "gcp": "Vertex AI"}
COLOURS: Final = {"1": "#2e7d32", "2": "#c62828", "3": "#1565c0"}
BUCKET: Final = 1.0  # seconds
CLOSE: Final = 12.0  # seconds between events whose labels would overlap


def show_table(console: Console, proofs: Mapping[str, tuple[str, str]], traffic: TrafficRecord) -> None:
    """The final table: what each cloud serves, proven by its own answers, and what was asked of it."""
    table = Table(title="What every cloud serves at the end, by its own answers", title_justify="left")
    for heading in ("cloud", "version", "digest", "requests", "by version", "failed"):
        table.add_column(heading, justify="right" if heading in ("requests", "failed") else "left")
    totals = traffic.totals()
    for cloud in CLOUDS:
        label, digest = proofs.get(cloud, ("?", ""))
        rows = totals.get(cloud, {})
        sent = sum(row["sent"] for row in rows.values())
        failed = sum(row["failed"] for row in rows.values())
        shares = ", ".join(f"v{version} {row['sent']}" for version, row in sorted(rows.items()))
        table.add_row(TITLES[cloud], f"v{label}", f"{digest[:16]}…", f"{sent:,}", shares, str(failed))
    console.print(table)


def write_json(
    path: Path, steps: Sequence[Step], claims: Sequence[Claim], traffic: TrafficRecord, measured: Mapping[str, Any]
) -> None:
    """Everything that was measured."""
    answer = {
        "simulated": "three clouds in a sandbox on this machine, at its demo speed; see sandbox/delays.py",
        "steps": [{"name": step.title, "seconds": round(step.seconds, 3), "note": step.note} for step in steps],
        "requests": {"sent": len(traffic.requests), "failed": traffic.failed(), "by_cloud": traffic.totals()},
        "claims": [{"claim": claim.text, "holds": claim.holds} for claim in claims],
        **measured,
    }
    path.write_text(json.dumps(answer, indent=2) + "\n", encoding="utf-8")


def draw(path: Path, traffic: TrafficRecord, marks: Sequence[tuple[float, str]]) -> None:
    """A picture: per cloud, the share of answers by version over time, with the story's events marked."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "lockstep", "font.family": "DejaVu Sans", "svg.fonttype": "none"})
    import matplotlib.pyplot as plt

    start = traffic.requests[0].at
    figure, axes = plt.subplots(len(CLOUDS), 1, figsize=(10, 5.2), sharex=True, layout="constrained")
    versions = sorted({request.version for request in traffic.requests if request.ok})
    for axis, cloud in zip(axes, CLOUDS, strict=True):
        shares = _shares(traffic, cloud, versions, start)
        times = sorted(shares)
        stacked = [[shares[time].get(version, 0.0) for time in times] for version in versions]
        axis.stackplot(
            times,
            stacked,
            labels=[f"v{version}" for version in versions],
            colors=[COLOURS.get(version, "#777777") for version in versions],
            step="post",
            linewidth=0,
        )
        axis.set_ylim(0, 100)
        axis.set_yticks([0, 50, 100], ["0", "50", "100 %"])
        axis.set_ylabel(TITLES[cloud], rotation=0, ha="right", va="center")
        axis.margins(x=0)
        for at, _ in marks:
            axis.axvline(at - start, color="black", linewidth=0.8, linestyle=":")
    raised, last = 0, float("-inf")
    for at, text in marks:
        raised = 1 - raised if at - last < CLOSE else 0  # neighbours take turns in two rows
        last = at
        axes[0].annotate(
            text,
            (at - start, 100),
            xytext=(2, 4 + 14 * raised),
            textcoords="offset points",
            fontsize=8,
            annotation_clip=False,
        )
    axes[-1].set_xlabel("seconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower right", ncols=len(versions), frameon=False)
    figure.suptitle("Which version answers, by cloud", x=0.02, ha="left", fontsize=11)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _shares(traffic: TrafficRecord, cloud: str, versions: Sequence[str], start: float) -> dict[float, dict[str, float]]:
    counts: dict[float, dict[str, int]] = defaultdict(lambda: dict.fromkeys(versions, 0))
    for request in traffic.requests:
        if request.cloud == cloud and request.ok:
            counts[BUCKET * ((request.at - start) // BUCKET)][request.version] += 1
    return {
        time: {version: 100.0 * count / sum(row.values()) for version, count in row.items()}
        for time, row in counts.items()
    }
