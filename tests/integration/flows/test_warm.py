"""The warm runner: runs of the urgent deployments, as the UI's Run button, a schedule and an alert start them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
import requests
from prefect import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Pending

from blocks.saving import block_name, blocks_of, save
from flows import deploying, warm
from flows.endings import Endings
from flows.orphans import CLAIM, claimant
from lockstep.operations.monitor import monitor as look
from lockstep.rules.event_names import ROLLBACK_COMPLETED, ROLLBACK_SPLIT, resource, resource_id
from lockstep.rules.lease import Process
from lockstep.stores.processes import is_gone, this_process
from tests.integration.deployed import Deployed
from tests.integration.flows.gate import Gate
from tests.integration.flows.prefect_server import PrefectServer
from tests.integration.flows.test_deployments import ask, deployment, ended

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(prefect_server: PrefectServer) -> PrefectServer:
    """With the deployments of prefect.yaml."""
    if any(one.change != "unchanged" for one in deploying.differences()):
        deploying.deploy()
    return prefect_server


def block_of(deployed: Deployed) -> str:
    """A Fleet block of the shared fleet's, under the model's name."""
    config = deployed.changed_config()
    config = config.model_copy(update={"fleets": {deployed.model: config.fleets["default"]}})
    model = config.models[deployed.model].model_copy(update={"fleet": deployed.model})
    save(blocks_of(config.model_copy(update={"models": {deployed.model: model}}), deployed.folder))
    return block_name(deployed.model)


def press_run(server: PrefectServer, name: str, *, ago: float = 0.0, **parameters: object) -> str:
    """Id of a run that the UI's button makes, or made `ago` seconds ago, when nobody took it."""
    path = f"/deployments/{deployment(server, name)['id']}/create_flow_run"
    at = {"scheduled_time": (datetime.now(UTC) - timedelta(seconds=ago)).isoformat()}
    made = ask(server, "POST", path, {"parameters": parameters, "state": {"type": "SCHEDULED", "state_details": at}})
    return str(made["id"])


def states(server: PrefectServer, run: str) -> list[str]:
    found: list[dict[str, Any]] = ask(server, "GET", f"/flow_run_states/?flow_run_id={run}")
    return [state["type"] for state in sorted(found, key=lambda state: str(state["timestamp"]))]


def test_two_runners_carry_a_run_out_once_and_the_log_is_in_prefect(deployed: Deployed, server: PrefectServer) -> None:
    block = block_of(deployed)
    first, second = warm.start(deployed.config), warm.start(deployed.config)
    try:
        assert first.wait_connected(60)
        assert second.wait_connected(60)
        rollback = press_run(server, "rollback", model=deployed.model, fleet=block, reason="alert 4711")
        looks = [press_run(server, "reconcile", model=deployed.model, fleet=block, dry_run=True) for _ in range(2)]
        done = ended(server, rollback)
        assert done["state_type"] == "COMPLETED", done["state"]["message"]
        for run in looks:
            ended(server, run)
        # As the agent reports a rollback that it carried out without Prefect.
        tell_split(server, deployed.model, block)
        mended = ended(server, run_with(server, {"model": deployed.model, "fleet": block, "wait": 600}))
        assert mended["state_type"] == "COMPLETED", mended["state"]["message"]
    finally:
        assert first.stop()
        assert second.stop()
    assert done["name"] == f"rollback {deployed.model} {deployed.v2.label} -> {deployed.v1.label}"
    assert ROLLBACK_COMPLETED in events(server, deployed.model)
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    assert len(deployed.fleet.ledger.entries(deployed.model, "rollback.outcome", last=50)) >= 1
    for run in (rollback, *looks):
        kinds = states(server, run)
        assert kinds.count("PENDING") == kinds.count("RUNNING") == 1, kinds
    via = [str(entry.body.get("via")) for entry in deployed.fleet.ledger.entries(deployed.model, "rollback.intent")]
    assert sum(rollback in told for told in via) == 1
    logs = ask(server, "POST", "/logs/filter", {"logs": {"flow_run_id": {"any_": [rollback]}}})
    assert any("rolling" in line["message"] for line in logs)
    queue = ask(server, "GET", f"/work_pools/{warm.POOL}/queues/{warm.QUEUE}")
    assert queue["priority"] == 1
    assert queue["last_polled"]


def test_prefect_goes_away_and_comes_back(deployed: Deployed, server: PrefectServer) -> None:
    block = block_of(deployed)
    port = urlsplit(server.api).port
    assert port is not None
    way = Gate(port)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{way.port}/api"}):
        way.shut()
        runner = warm.start(deployed.config)
        try:
            waiting = press_run(server, "monitor", model=deployed.model, fleet=block)
            assert not runner.wait_connected(2.0)
            way.open()
            assert ended(server, waiting)["state_type"] == "COMPLETED"
            assert runner.connected
            way.shut()
            again = press_run(server, "monitor", model=deployed.model, fleet=block)
            wait_until(lambda: not runner.connected)
            way.open()
            assert ended(server, again)["state_type"] == "COMPLETED"
        finally:
            assert runner.stop()


def test_of_what_piled_up_the_newest_is_carried_out(deployed: Deployed, server: PrefectServer) -> None:
    block = block_of(deployed)
    asked = {"model": deployed.model, "fleet": block, "dry_run": True}
    old = [press_run(server, "reconcile", ago=300.0 * (30 - number), **asked) for number in range(21)]
    newest = press_run(server, "reconcile", ago=120.0, **asked)
    other = press_run(server, "reconcile", ago=7200.0, **{**asked, "remove_foreign": True})
    back = press_run(server, "rollback", ago=7200.0, model=deployed.model, fleet=block)
    promoted = {"version": deployed.v2.label, "digest": deployed.v2.digest, "error": ""}
    deployed.fleet.ledger.append(str(uuid4()), "promote.outcome", deployed.model, "test", promoted)
    with deployed.unchanged():
        runner = warm.start(deployed.config)
        try:
            done = {run: ended(server, run) for run in (*old, newest, other, back)}
        finally:
            assert runner.stop()
    assert [done[run]["state_type"] for run in (newest, other, back)] == ["COMPLETED"] * 3
    assert {done[run]["state_type"] for run in old} == {"CANCELLED"}
    assert all(f"({newest}), which is newer" in done[run]["state"]["message"] for run in old)
    assert all(not {"PENDING", "RUNNING"} & set(states(server, run)) for run in old)
    # What serves now was promoted after it was asked for: its sender has not seen it.
    assert done[back]["name"] == f"rollback {deployed.model}: nothing was left to roll back"


def test_a_claim_whose_answer_was_lost_is_carried_out_once(deployed: Deployed, server: PrefectServer) -> None:
    block = block_of(deployed)
    lost: list[str] = []

    def loses(run: str, body: bytes) -> bool:
        """The answer to the first claim, which the server has accepted."""
        if lost or CLAIM.encode() not in body:
            return False
        lost.append(run)
        return True

    with way_to(server, loses) as api, temporary_settings({PREFECT_API_URL: api}):
        runner = warm.start(deployed.config)
        try:
            assert runner.wait_connected(60)
            run = press_run(server, "reconcile", model=deployed.model, fleet=block, dry_run=True)
            done = ended(server, run)
        finally:
            assert runner.stop()
    assert lost == [run]
    assert done["state_type"] == "COMPLETED", done["state"]["message"]
    kinds = states(server, run)
    assert kinds.count("PENDING") == kinds.count("RUNNING") == 1, kinds


def test_an_end_that_could_not_be_told_is_told_later(deployed: Deployed, server: PrefectServer) -> None:
    block, away, begun = block_of(deployed), threading.Event(), list[str]()

    def loses(run: str, body: bytes) -> bool:
        """From the run's beginning on, until Prefect is back."""
        if b'"RUNNING"' in body:
            begun.append(run)
            return False
        return run in begun and away.is_set()

    away.set()
    with way_to(server, loses, status=500) as api, temporary_settings({PREFECT_API_URL: api}):
        runner = warm.start(deployed.config)
        try:
            run = press_run(server, "reconcile", model=deployed.model, fleet=block, dry_run=True)
            wait_until(lambda: run in begun and run not in runner.running)
            assert ask(server, "GET", f"/flow_runs/{run}")["state_type"] == "RUNNING"
            away.clear()
            done = ended(server, run)
        finally:
            away.clear()
            assert runner.stop()
    assert done["state_type"] == "CRASHED"
    assert "what it did is in the ledger" in done["state"]["message"]
    assert states(server, run).count("RUNNING") == 1


def test_a_run_that_was_deleted_keeps_no_other_s_end_from_being_told(server: PrefectServer) -> None:
    endings = Endings()
    with way_to(server, lambda run, body: True, status=500) as api, temporary_settings({PREFECT_API_URL: api}):
        runs = [press_run(server, "reconcile", model="none") for _ in range(2)]
        for run in runs:
            set_state(server, run, "RUNNING", "")
            with get_client(sync_client=True) as client:
                endings.tell(client.read_flow_run(UUID(run)), RuntimeError("it broke"))
    assert endings.untold == set(runs)
    with get_client(sync_client=True) as client:
        client.delete_flow_run(UUID(runs[0]))
    endings.tell_again()
    wait_until(lambda: not endings.untold)
    assert ask(server, "GET", f"/flow_runs/{runs[1]}")["state_type"] == "CRASHED"


@pytest.mark.parametrize(
    ("told", "process"),
    [
        ('{"host": "h", "pid": 1, "place": "p", "started": "9", "new": 1}', Process("h", 1, "p", "9")),
        ('{"host": "h", "pid": 1}', Process("h", 1)),
        *((odd, None) for odd in ("", "no JSON", "{}", "[]", "null", "7", "[" * 99999, '{"host": "h", "pid": "../1"}')),
        *((odd, None) for odd in ('{"host": "h", "pid": true}', '{"host": "h", "pid": 1, "place": {}}')),
    ],
)
def test_a_claim_names_a_process_or_nobody(told: str, process: Process | None) -> None:
    assert claimant([Pending(message=CLAIM + told)]) == process


def test_what_a_dead_runner_had_claimed_is_not_left_running(deployed: Deployed, server: PrefectServer) -> None:
    block = block_of(deployed)
    gone = dead_process()
    begun = press_run(server, "rollback", model=deployed.model, fleet=block)
    waiting, another = (
        press_run(server, "reconcile", model=deployed.model, fleet=block, dry_run=True) for _ in range(2)
    )
    odd = press_run(server, "reconcile", ago=5.0, model=deployed.model, fleet=block)
    set_state(server, odd, "PENDING", f"{CLAIM}[]")
    for run, process in ((begun, gone), (waiting, gone), (another, this_process())):
        set_state(server, run, "PENDING", CLAIM + claim(process))
    set_state(server, begun, "RUNNING", "")
    before = deployed.answers()
    runner = warm.start(deployed.config)
    try:
        crashed = ended(server, begun)
        assert crashed["state_type"] == "CRASHED"
        assert str(gone.pid) in crashed["state"]["message"]
        assert ended(server, waiting)["state_type"] == "COMPLETED", "it had not begun, so it is run"
        wanted = {"flow_runs": {"idempotency_key": {"any_": [f"lockstep-after-{begun}"]}}}
        (mending,) = ask(server, "POST", "/flow_runs/filter", wanted)
        assert mending["parameters"]["model"] == deployed.model
        assert ended(server, mending["id"])["state_type"] == "COMPLETED"
        assert states(server, another)[-1] == "PENDING", "its process lives"
        assert states(server, odd)[-1] == "PENDING", "nobody knows whose it is"
    finally:
        assert runner.stop()
    assert deployed.answers() == before


def test_a_run_that_is_cancelled_does_not_begin_or_is_told_as_cancelled(
    deployed: Deployed, server: PrefectServer
) -> None:
    block = block_of(deployed)
    never = press_run(server, "rollback", model=deployed.model, fleet=block)
    set_state(server, never, "CANCELLING", "by hand")
    late = press_run(server, "monitor", model=deployed.model, fleet=block)
    runner = warm.start(deployed.config)
    try:
        assert ended(server, never)["state_type"] == "CANCELLED"
        ended(server, late)
    finally:
        assert runner.stop()
    assert "RUNNING" not in states(server, never)
    assert deployed.answers() == deployed.everywhere(deployed.v2)
    assert look(deployed.fleet, act=False).champion == deployed.v2


def test_a_runner_without_a_server_says_so() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(Exception, match="no Prefect server"):
        warm.start()


@contextlib.contextmanager
def way_to(server: PrefectServer, loses: Callable[[str, bytes], bool], status: int = 0) -> Iterator[str]:
    """A way to the server's API that loses answers: `loses` gets the run and the body of each change of a run's state.

    The server has accepted what it answered. With a `status` that is answered in its place, and nothing was passed on.
    """
    place = server.api.removesuffix("/api")

    class Way(BaseHTTPRequestHandler):
        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            kept = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            kept["accept-encoding"] = "identity"
            lost = self.path.endswith("/set_state") and loses(self.path.split("/")[-2], body)
            if lost and status:
                self.send_error(status)
                return
            answer = requests.request(self.command, place + self.path, data=body, headers=kept, timeout=60)
            if lost:
                self.close_connection = True
                return
            self.send_response(answer.status_code)
            self.send_header("content-type", answer.headers.get("content-type", "application/json"))
            self.send_header("content-length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = forward  # noqa: N815 - named by http.server

        def log_message(self, format: str, *args: object) -> None:
            pass

    way = ThreadingHTTPServer(("127.0.0.1", 0), Way)
    threading.Thread(target=way.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{way.server_address[1]}/api"
    # It stays: Prefect's own threads go on by it to report what they have not reported yet.


def tell_split(server: PrefectServer, model: str, block: str) -> None:
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": ROLLBACK_SPLIT,
        "resource": dict(resource(model)),
        "payload": {"model": model, "fleet": block},
    }
    ask(server, "POST", "/events", [event])


def run_with(server: PrefectServer, parameters: dict[str, object]) -> str:
    """Id of the run of reconcile that was made with these parameters."""
    wanted = {"deployments": {"name": {"any_": ["reconcile"]}}}

    def made() -> list[str]:
        found = ask(server, "POST", "/flow_runs/filter", wanted)
        return [run["id"] for run in found if run["parameters"].items() >= parameters.items()]

    wait_until(made)
    return made()[0]


def events(server: PrefectServer, model: str) -> set[str]:
    """Names of the events about the model that the server has written; it does so when it comes to it."""
    wanted = {"filter": {"resource": {"id": [resource_id(model)]}}}

    def names() -> set[str]:
        return {event["event"] for event in ask(server, "POST", "/events/filter", wanted)["events"]}

    wait_until(lambda: ROLLBACK_COMPLETED in names())
    return names()


def set_state(server: PrefectServer, run: str, kind: str, message: str) -> None:
    ask(server, "POST", f"/flow_runs/{run}/set_state", {"state": {"type": kind, "message": message}})


def dead_process() -> Process:
    """A process of this machine that has ended, as it described itself while it lived."""
    code = "import json; from dataclasses import asdict; from lockstep.stores.processes import this_process; "
    code += "print(json.dumps(asdict(this_process())))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    process = Process(**json.loads(told.stdout))
    assert is_gone(process)
    return process


def claim(process: Process) -> str:
    return json.dumps(asdict(process))


def wait_until(true: Any, timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
