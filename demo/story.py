"""The story: v1 serves, v2 is caught in the canary, v3 is promoted, an alert takes everything back to v1."""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import requests
import yaml

from demo import report
from demo.addresses import cloud_settings
from demo.alert import alert, answers_after
from demo.model import load_data, train
from demo.names import CLOUDS, MODEL, OUTCOMES_FILE
from demo.processes import QUIET, Server, StartError, running
from demo.telling import Story, first_sentence
from demo.traffic_record import TrafficRecord
from demo.view import View

if TYPE_CHECKING:
    from lockstep.operations.fleet import Fleet

RATE: Final = 9.0  # requests a second and cloud
STEPS: Final = 11
INIT_TIMEOUT: Final = 180.0
#: Limits that fit a demo: a canary's step lasts seconds here, minutes in production.
ROLLOUT: Final = {
    **{"steps": [25, 50, 100], "step_seconds": 2, "patience": 60, "look_every": 0.5, "min_requests": 12},
    "soak_seconds": 5,
}


def run(*, keep: bool, json_file: Path | None, picture: Path | None) -> int:
    """Tell the whole story; 0 when every claim held, 1 otherwise."""
    folder = Path(tempfile.mkdtemp(prefix="lockstep-demo-"))
    began = time.monotonic()
    try:
        traffic = TrafficRecord(folder)
        view = View(traffic, STEPS)
        with running(folder) as servers:
            story = Story(servers, view, traffic)
            with view.live():
                tell(story)
            traffic.refresh()
            story.measured["seconds"] = round(time.monotonic() - began, 1)
            return finish(story, keep=keep, json_file=json_file, picture=picture)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell(story: Story) -> None:
    """All steps in order."""
    os.environ.update({**QUIET, **story.servers.environment, "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"})
    fleet = set_up(story)
    worker = start_worker(story)
    first_version(story)
    load = start_load(story)
    try:
        faulty_version(story, fleet)
        good_version(story, fleet)
        await_worker(story, worker)
        alert(story, fleet)
        answers_after(story, fleet)
    finally:
        load.process.terminate()
        load.process.wait(timeout=30)
    proof(story, fleet)


def set_up(story: Story) -> Fleet:
    """Bring the servers up, configure, train three versions and save blocks and deployments to Prefect."""
    servers = story.servers
    with story.step("starting three clouds, MLflow and Prefect on this machine"):
        imported = threading.Thread(target=_import_what_is_slow, daemon=True)
        imported.start()
        sandbox = servers.await_sandbox()
        write_configuration(servers.folder, servers.mlflow_url, sandbox)
        servers.await_mlflow()
        servers.await_prefect()
        imported.join()
    with story.step("lockstep init saves blocks and deployments to Prefect; v1, v2 and v3 are trained") as notes:
        init = servers.spawn("init", ["-m", "lockstep.cli", "init", "--yes"], servers.environment)
        import mlflow

        mlflow.set_tracking_uri(servers.mlflow_url)
        data = load_data()
        for which in ("v1", "v2", "v3"):
            with _silenced():
                story.labels[which] = train(data, which)
        status = init.process.wait(timeout=INIT_TIMEOUT)
        story.claim("lockstep init saves blocks and deployments", status == 0)
        if status:
            raise StartError(f"lockstep init ended with status {status}; see {init.log}: {init.last_line()}")
        notes.append("scikit-learn's breast-cancer data; v2 has a feature in the wrong unit")
    from lockstep.config import load
    from lockstep.operations.fleet import open_fleet

    return open_fleet(load(), MODEL, actor="demo")


def write_configuration(folder: Path, mlflow_url: str, sandbox: Any) -> None:
    """lockstep.yaml for the demo; for real clouds only the part under `clouds:` differs."""
    configuration = {
        "mlflow": {"tracking_uri": mlflow_url},
        "ledger": str(folder / "ledger.db"),
        "clouds": cloud_settings({name: sandbox[name] for name in CLOUDS}),
        "fleets": {"default": {"clouds": list(CLOUDS), "rollout": ROLLOUT, "monitor": {"max_bad_outcomes": 0.15}}},
        "models": {MODEL: {"fleet": "default", "outcomes": {"kind": "file", "path": str(folder / OUTCOMES_FILE)}}},
    }
    (folder / "lockstep.yaml").write_text(yaml.safe_dump(configuration, sort_keys=False), encoding="utf-8")


def start_worker(story: Story) -> Server:
    """A Prefect worker, which will run the deployment that the alert triggers."""
    return story.servers.spawn(
        "worker",
        ["-m", "prefect", "worker", "start", "--pool", "lockstep", "--type", "process", "--name", "demo"],
        {
            **story.servers.environment,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent),
        },
    )


def first_version(story: Story) -> None:
    """v1: registered, replicated, serving everywhere."""
    from flows.canary_deploy import canary_deploy

    with story.step("v1 registered and replicated to three clouds") as notes:
        notes.append(register_and_replicate(story, "v1"))
    with story.step("v1 deployed on three clouds") as notes:
        state = run_flow(canary_deploy, model=MODEL, version=story.labels["v1"])
        story.claim("v1 serves on every cloud", state.is_completed())
        if not state.is_completed():
            raise StartError(f"v1 could not be deployed, so there is nothing to show: {first_sentence(state)}")
        notes.append("serving")


def start_load(story: Story) -> Server:
    """Traffic from here on; returns when the first answers have come from every cloud."""
    with story.step("live traffic to every endpoint") as notes:
        load = story.servers.spawn(
            "load", ["-m", "demo.load", str(story.servers.folder), str(RATE)], story.servers.environment
        )

        def flowing() -> bool:
            story.traffic.refresh()
            return {request.cloud for request in story.traffic.requests if request.ok} == set(CLOUDS)

        load.await_ready(flowing)
        story.mark("v1 serves")
        notes.append(f"{RATE * len(CLOUDS):.0f} requests a second")
    return load


def faulty_version(story: Story, fleet: Fleet) -> None:
    """v2: answers quickly, without an error, and wrongly."""
    from flows.canary_deploy import canary_deploy
    from lockstep.rules.state import VERDICT_TAG

    with story.step("v2 registered and replicated") as notes:
        notes.append(register_and_replicate(story, "v2"))
    with story.step("v2 as a canary") as notes:
        story.mark("v2: canary")
        state = run_flow(canary_deploy, model=MODEL, version=story.labels["v2"])
        story.mark("taken back")
        observed = fleet.observe()
        v2 = fleet.registry.version(MODEL, story.labels["v2"])
        gone = all(cloud.slot(v2.slot) is None for cloud in observed.clouds)
        judged = fleet.registry.tags(v2).get(VERDICT_TAG) == "fail"  # a rollout may fail for other reasons
        story.claim("v2 was judged worse and taken back everywhere by itself", state.is_failed() and judged and gone)
        notes.append(f"[red]caught and taken back[/red]: {first_sentence(state)}")


def good_version(story: Story, fleet: Fleet) -> None:
    """v3: passes every step on all clouds."""
    from flows.canary_deploy import canary_deploy

    with story.step("v3 registered and replicated") as notes:
        notes.append(register_and_replicate(story, "v3"))
    with story.step("v3 as a canary") as notes:
        story.mark("v3: canary")
        state = run_flow(canary_deploy, model=MODEL, version=story.labels["v3"])
        story.mark("v3 promoted")
        champion = fleet.registry.desired(MODEL).champion
        promoted = state.is_completed() and champion is not None and champion.label == story.labels["v3"]
        story.claim("v3 was promoted on all clouds in step", promoted)
        notes.append("[cyan]promoted everywhere[/cyan]" if promoted else first_sentence(state))
        story.measured["v3_stages"] = _stages(fleet)


def await_worker(story: Story, worker: Server) -> None:
    """The worker was started long ago; make sure that it is there before the alert."""
    url = f"{story.servers.prefect_url}/api/work_pools/lockstep/workers/filter"

    def online() -> bool:
        found = requests.post(url, json={}, timeout=5).json()
        return any(one.get("status") == "ONLINE" for one in found)

    worker.await_ready(online)


def proof(story: Story, fleet: Fleet) -> None:
    """Every cloud is asked which version and digest it serves."""
    from lockstep.operations.status import status

    with story.step("every cloud proves what it serves") as notes:
        v1 = fleet.registry.version(MODEL, story.labels["v1"])
        found = status(fleet, prove=True)
        proofs = {
            one.cloud: (one.answers[0].label, one.answers[0].digest) if one.answers else ("?", one.problem)
            for one in found.proofs
        }
        story.measured["serves"] = {
            cloud: {"version": label, "digest": digest} for cloud, (label, digest) in proofs.items()
        }
        right = {cloud: digest for cloud, (_, digest) in proofs.items()} == dict.fromkeys(CLOUDS, v1.digest)
        story.claim("every cloud proves that it serves v1, by digest", right and not found.out_of_step)
        notes.append(v1.digest[:16] + "…")


def finish(story: Story, *, keep: bool, json_file: Path | None, picture: Path | None) -> int:
    """Table, claims, files; with `keep` the servers stay until Ctrl-C."""
    console, traffic = story.view.console, story.traffic
    story.claim("no request failed", traffic.failed() == 0 and len(traffic.requests) > 0)
    proofs = {cloud: (row["version"], row["digest"]) for cloud, row in story.measured.get("serves", {}).items()}
    console.print()
    report.show_table(console, proofs, traffic)
    for problem in sorted({request.problem for request in traffic.requests if not request.ok})[:5]:
        console.print(f"[red]failed request: {problem}[/red]")
    for claim in story.claims:
        console.print(f"{'[green]holds[/green]  ' if claim.holds else '[red]BROKEN[/red] '} {claim.text}")
    console.print(
        f"[dim]{story.measured['seconds']} s in all. The clouds are simulated on this machine, at the sandbox's demo "
        "speed; requests went through the clouds' official clients.[/dim]"
    )
    if json_file is not None:
        report.write_json(json_file, story.steps, story.claims, traffic, story.measured)
    if picture is not None:
        report.draw(picture, traffic, story.marks)
    if keep:
        console.print(f"\nPrefect  {story.servers.prefect_url}\nMLflow   {story.servers.mlflow_url}")
        console.print(f"Sandbox  {story.servers.sandbox['control']}")
        console.print(f"\nexport LOCKSTEP_CONFIG={story.servers.environment['LOCKSTEP_CONFIG']}", soft_wrap=True)
        console.print(f"lockstep status {MODEL} --prove\n\nCtrl-C stops everything.")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0 if all(claim.holds for claim in story.claims) else 1


def register_and_replicate(story: Story, which: str) -> str:
    """Run both flows for a trained version; from then on `labels` holds MLflow's number."""
    from flows.register import register
    from flows.replicate import replicate

    registered = run_flow(register, model=MODEL, source=story.labels[which])
    if registered.is_completed():
        version = registered.result()
        story.labels[which] = version.label
        replicated = run_flow(replicate, model=MODEL, version=version.label)
        story.claim(f"{which} is registered and replicated to every cloud", replicated.is_completed())
        return f"sha256 {version.digest[:12]}…"
    story.claim(f"{which} is registered: {first_sentence(registered)}", False)
    return first_sentence(registered)


def run_flow(flow: Any, **parameters: object) -> Any:
    """Run a flow in this process, as a Prefect user does; returns its final state."""
    return flow(**parameters, return_state=True)


def _stages(fleet: Fleet) -> list[dict[str, Any]]:
    """How long each stage of the newest rollout was watched, and its verdict, from the ledger."""
    stages: Any = fleet.ledger.entries(MODEL, "canary_deploy.outcome")[-1].body.get("stages", [])
    return [{name: stage[name] for name in ("stage", "seconds", "decision", "reasons")} for stage in stages]


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """MLflow and `init` print for a person at a prompt; here the view does."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def _import_what_is_slow() -> None:
    """The flows with everything that they use: half a minute of imports, while the servers start."""
    for module in ("flows.canary_deploy", "flows.register", "flows.replicate", "flows.init", "mlflow.sklearn"):
        importlib.import_module(module)
