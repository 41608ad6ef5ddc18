"""Each flow end to end: Prefect's server, MLflow and the three clouds of the sandbox, all real."""

from __future__ import annotations

import contextlib
import contextvars
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import requests
from prefect import flow, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
)
from prefect.client.schemas.objects import State

from blocks.saving import block_name, blocks_of, save
from flows.canary_deploy import canary_deploy
from flows.monitor import monitor
from flows.register import register
from flows.replicate import replicate
from flows.rollback import rollback
from lockstep.config import Config
from lockstep.errors import BusyError, CredentialsError, NotFoundError, RefusedError, UnreachableError, VerdictError
from lockstep.operations.fleet import Fleet, open_fleet
from lockstep.operations.running import Job, Outcome
from lockstep.rules.approval import Gate
from lockstep.rules.judge import Decision
from lockstep.rules.state import CONDEMNED_TAG
from tasks.rollout_slot import only_rollout_of
from tasks.runner import PrefectRunner
from tests.integration.fleets import Traffic, configure, save_model, unique, wait_for_requests
from tests.integration.flows.prefect_server import PrefectServer
from tests.sandbox_control import RunningSandbox

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Place:
    """A model of its own with a fleet block of its own."""

    model: str
    block: str
    fleet: Fleet
    config: Config
    folder: Path
    api: str

    @property
    def asking(self) -> str:
        """Name of another Fleet block of the model's, which wants an approval before a promotion."""
        settings = self.config.fleets[self.model]
        rollout = settings.rollout.model_copy(update={"approval": Gate.BEFORE_PROMOTION, "approval_seconds": 120})
        name = f"{self.model}-asking"
        model = self.config.models[self.model].model_copy(update={"fleet": name})
        changes = {"fleets": {name: settings.model_copy(update={"rollout": rollout})}, "models": {self.model: model}}
        save(blocks_of(self.config.model_copy(update=changes), self.folder))
        return block_name(name)


@contextlib.contextmanager
def answering(here: Place, decision: str) -> Iterator[None]:
    """Answer the next run of canary-deploy that pauses, as the UI's form does."""
    said = {"decision": decision, "reason": "measured offline", "name": "Ada"}
    paused = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}, "name": {"like_": f"deploy {here.model}"}}}
    stop, answers = threading.Event(), list[int]()

    def answer() -> None:
        while not stop.wait(0.5):
            found = requests.post(f"{here.api}/flow_runs/filter", json=paused, timeout=30)
            for run in found.json() if found.ok else []:
                path = f"{here.api}/flow_runs/{run['id']}/resume"
                answers.append(requests.post(path, json={"run_input": said}, timeout=30).status_code)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert 201 in answers, answers


def place(sandbox: RunningSandbox, mlflow: str, folder: Path, api: str) -> Place:
    model = unique("flows")
    config = configure(sandbox, mlflow, folder, model)
    config = config.model_copy(update={"fleets": {model: config.fleets["default"]}})
    config = config.model_copy(update={"models": {model: config.models[model].model_copy(update={"fleet": model})}})
    save(blocks_of(config, folder))
    return Place(model, block_name(model), open_fleet(config, model), config, folder, api)


@pytest.fixture(scope="module")
def here(
    sandbox: RunningSandbox,
    mlflow_server: str,
    prefect_server: PrefectServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Place:
    return place(sandbox, mlflow_server, tmp_path_factory.mktemp("flows"), prefect_server.api)


def splits(fleet: Fleet) -> dict[str, str]:
    state = fleet.observe()
    assert not state.unreachable
    return {cloud.cloud: str(cloud.split) for cloud in state.clouds}


def artifacts(run: UUID) -> str:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=wanted)
    return "\n".join(str(artifact.data) for artifact in found)


def run_of(state: State[Any]) -> UUID:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def test_the_life_of_a_model_by_flows(here: Place) -> None:
    model, fleet, block = here.model, here.fleet, here.block
    clouds = [cloud.name for cloud in fleet.clouds]

    v1 = register(model, save_model(here.folder / "v1"), fleet=block)
    assert fleet.registry.versions(model) == (v1,)
    copied = replicate(model, "1", fleet=block, return_state=True)
    assert copied.is_completed(), copied.message
    assert all(cloud.registered(v1) is not None for cloud in fleet.clouds)
    assert all(cloud.name in artifacts(run_of(copied)) for cloud in fleet.clouds)
    first = canary_deploy(model, "1", fleet=block)
    assert first is not None
    assert first.stages == ()
    assert splits(fleet) == dict.fromkeys(clouds, f"{v1.slot} 100 %")

    with Traffic(fleet, here.folder / "outcomes.csv").flowing() as traffic:
        v2 = register(model, save_model(here.folder / "v2", scale=0.01), fleet=block)
        replicate(model, v2.digest[:12], fleet=block)
        refused = canary_deploy(model, "2", fleet=block, return_state=True)
        assert refused.is_failed()
        assert "bad outcomes" in str(refused.message)
        assert "what to do" in str(refused.message)
        assert isinstance(refused.data.result if hasattr(refused.data, "result") else refused.data, VerdictError)
        assert "was not promoted" in artifacts(run_of(refused))
        assert splits(fleet) == dict.fromkeys(clouds, f"{v1.slot} 100 %")
        assert fleet.registry.desired(model).champion == v1

        v3 = register(model, save_model(here.folder / "v3", regularisation=0.5), fleet=block)
        replicate(model, "3", fleet=block)
        with answering(here, "approve"):
            promoted = canary_deploy(model, "3", fleet=here.asking, steps=[50, 100])
        assert promoted is not None
        (approved,) = fleet.ledger.entries(model, "approval.outcome")
        assert approved.actor == "Ada"
        assert (approved.body["answer"], approved.body["reason"]) == ("approved", "measured offline")
        assert {report.verdict.decision for report in promoted.stages} == {Decision.PASS}
        assert splits(fleet) == dict.fromkeys(clouds, f"{v3.slot} 100 %")
        wait_for_requests(traffic, 60)
        (report,) = monitor(fleet=block)
        assert report.verdict.decision is Decision.PASS
        assert report.rolled_back is None

        dry = rollback(model, fleet=block, dry_run=True, return_state=True)
        assert dry.is_completed()
        assert f"{v1.slot} 100 %" in artifacts(run_of(dry))
        assert splits(fleet) == dict.fromkeys(clouds, f"{v3.slot} 100 %"), "a dry run changed the traffic"

        state = rollback(model, reason="alert 4711", fleet=block, return_state=True)
        assert state.is_completed(), state.message
        assert splits(fleet) == dict.fromkeys(clouds, f"{v1.slot} 100 %")
        answered = len(traffic.answers)
        wait_for_requests(traffic, 12)
        assert {digest for _, digest in traffic.answers[answered + len(clouds) :]} == {v1.digest}
    assert traffic.problems == []
    assert "alert 4711" in fleet.registry.tags(v3)[CONDEMNED_TAG]
    text = artifacts(run_of(state))
    assert all(
        word in text for word in ("alert 4711", "of the ledger, rollback.outcome", "100 %", v1.slot, v3.slot, *clouds)
    )

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(run_of(state))
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    assert run.name == f"rollback {model} 3 -> 1"
    assert {tag for task in tasks for tag in task.tags} >= set(clouds)
    assert any("traffic" in task.name for task in tasks)
    (entry,) = fleet.ledger.entries(model, "rollback.outcome")
    assert entry.actor == f"flow:rollback {model} -> fallback", "as it was asked for"
    intent = fleet.ledger.entries(model, "rollback.intent")[-1]
    assert str(run.id) in str(intent.body["via"])


def test_no_second_rollout_of_a_model_but_of_another(here: Place) -> None:
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with only_rollout_of(here.model):
            held.set()
            let_go.wait(60)

    # The server's address is set for this context, which a thread does not inherit.
    holder = threading.Thread(target=contextvars.copy_context().run, args=(hold,))
    holder.start()
    try:
        assert held.wait(30)
        with pytest.raises(BusyError, match="another rollout"), only_rollout_of(here.model):
            raise AssertionError("two rollouts at once")
        with only_rollout_of(f"{here.model}-other"):
            pass
    finally:
        let_go.set()
        holder.join()
    with only_rollout_of(here.model):
        pass


def test_what_is_refused_says_why_and_changes_nothing(here: Place) -> None:
    before = splits(here.fleet)
    for wrong, error, words in (
        (lambda: rollback(here.model, to="99", fleet=here.block, return_state=True), NotFoundError, "no version '99'"),
        (lambda: rollback("nobody", fleet=here.block, return_state=True), NotFoundError, "not in the configuration"),
        (lambda: rollback(here.model, fleet="nowhere", return_state=True), NotFoundError, "lockstep init"),
        (lambda: canary_deploy(here.model, "3", fleet=here.block, return_state=True), RefusedError, "condemned"),
        (lambda: register("a b", "/nowhere", fleet=here.block, return_state=True), RefusedError, "every cloud"),
    ):
        state: State[Any] = wrong()
        assert state.is_failed()
        assert words in str(state.message), state.message
        with pytest.raises(error):
            state.result()
    assert splits(here.fleet) == before


@pytest.mark.usefixtures("prefect_server")
def test_jobs_run_at_the_same_time_and_errors_come_back_as_outcomes() -> None:
    together = threading.Barrier(3, timeout=30)
    attempts: list[str] = []
    refusals: list[str] = []
    said: list[str] = []

    def meet() -> str:
        together.wait()
        return "met"

    def later() -> str:
        attempts.append("later")
        if len(attempts) == 1:
            meet()
        if len(attempts) < 3:
            raise UnreachableError("not yet", cloud="azure")
        return "now"

    def never() -> str:
        meet()
        refusals.append("never")
        raise CredentialsError("no", cloud="gcp", hint="log in")

    @flow(name="jobs")
    def carry_out() -> tuple[Outcome[str], ...]:
        return PrefectRunner(60).run(
            [Job("aws", "aws: {a}", meet), Job("azure", "azure", later, say=said.append), Job("gcp", "gcp", never)]
        )

    state = carry_out(return_state=True)
    met, tried, refused = state.result()
    assert (met.value, tried.value, refused.value) == ("met", "now", None)
    assert isinstance(refused.error, CredentialsError)
    assert refused.error.hint == "log in"
    assert said == ["not yet: trying again"]
    assert (len(attempts), len(refusals)) == (3, 1), "only what may succeed later is tried again"
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_of(state)])))
    assert {(task.name, task.state_name, task.run_count) for task in tasks} == {
        ("aws: (a)", "Completed", 1),
        ("azure", "Completed", 3),
        ("gcp", "Failed", 1),
    }


@pytest.mark.usefixtures("prefect_server")
def test_a_mistake_in_the_program_fails_the_flow() -> None:
    @flow(name="mistake")
    def carry_out() -> None:
        PrefectRunner(60).run([Job("aws", "divide", lambda: 1 // 0)])

    with pytest.raises(ZeroDivisionError):
        carry_out()
