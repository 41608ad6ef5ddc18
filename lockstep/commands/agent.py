"""The long-lived process: alerts in, rollbacks out, and a page that shows what serves."""

from __future__ import annotations

import gc
import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol, cast

import typer

from lockstep.commands.options import AsJson, emit, load_config, options
from lockstep.errors import ConfigError

if TYPE_CHECKING:
    from lockstep.agent.server import Server

LOG: Final = logging.getLogger("lockstep.agent")
NEEDED: Final = ("uvicorn", "prometheus_client", "apprise", "jwt")
SWITCH: Final = 0.0005  # seconds; see `agent`
WARM_SECONDS: Final = 600.0  # after which a page that is not ready yet is not waited for


class Stoppable(Protocol):
    """What runs beside the server."""

    def stop(self) -> None: ...  # noqa: D102 - told above


def agent(
    address: Annotated[str | None, typer.Option(help="Address to listen on (default: agent.address).")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on, 0 for a free one (default: agent.port).")] = None,
    as_json: AsJson = False,
) -> None:
    """Take alerts over HTTP, roll back at once, and show what serves; until it is interrupted."""
    options.json = as_json
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"the agent needs {', '.join(missing)}, which is not installed", hint="pip install 'lockstep[agent]'"
        )
    from lockstep.agent.alert_rules import AlertRules, load_alert_rules
    from lockstep.agent.assembly import Agent
    from lockstep.agent.server import Server
    from lockstep.agent.taking import clouds_of
    from lockstep.agent_settings import AgentSettings
    from lockstep.config import AgentNeeds

    config = load_config(AgentNeeds.ALL)
    given = {name: value for name, value in (("address", address), ("port", port)) if value is not None}
    config = config.model_copy(update={"agent": config.agent.model_copy(update=given)})
    alerts = Path(config.agent.alerts)
    # Without a file the page and Prefect's runs are served all the same; a name that was chosen must be there.
    chosen = alerts.name != AgentSettings().alerts
    rules = load_alert_rules(alerts) if chosen or alerts.exists() else AlertRules()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("azure").setLevel(logging.ERROR + 1)
    logging.getLogger("httpx").setLevel(
        logging.WARNING
    )  # each call to Prefect: a refusal would not be found among them
    for unknown in rules.unknown(clouds_of(config)):
        LOG.warning("%s: %s", alerts, unknown)
    server = Server(Agent(config, rules))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.end)
    if as_json:
        emit({"address": server.address, "pid": os.getpid(), "sources": sorted(rules.sources)})
        sys.stdout.flush()  # whoever reads it waits for it
    else:
        typer.echo(f"lockstep agent at {server.address} ({len(rules.sources)} sources, {len(config.models)} models)")
        if not config.agent.tokens:
            typer.echo("note: nobody can sign in to the page: no tokens stand under agent.tokens in lockstep.yaml")
        if rules.sources:
            typer.echo(f"alerts are taken at /hooks/ and a source's name: {', '.join(sorted(rules.sources))}")
        else:
            why = "names no sources" if alerts.exists() else "is not there"
            typer.echo(f"note: no alerts are taken: {alerts} {why}")
    # Each read and write of a connection gives Python's lock away, and gets it back after so long while another thread
    # computes: by default 5 ms, of which a few hundred deliveries a second would have none.
    sys.setswitchinterval(SWITCH)
    beside = _Beside()
    threading.Thread(target=_when_warm, args=(server, beside, as_json), daemon=True).start()
    try:
        server.serve()
    finally:
        beside.stop()


class _Beside:
    """Prefect's warm runner, where there is a Prefect API and the checkout that holds it; never needed by the agent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: Stoppable | None = None
        self._over = False

    def start(self) -> None:
        """Start it; that it cannot be started is told, and stops nothing."""
        if not os.environ.get("PREFECT_API_URL") or importlib.util.find_spec("flows") is None:
            return
        try:
            warm = importlib.import_module("flows.warm")
            running = cast("Stoppable", warm.start(options.config))
        except Exception as error:  # whatever Prefect may raise, alerts come in without it
            LOG.warning("Prefect's deployments are not served by this agent: %s", error)
            return
        with self._lock:
            self._running = running
            over = self._over
        if over:
            running.stop()

    def stop(self) -> None:
        """Stop it, and start it no more."""
        with self._lock:
            self._over, running = True, self._running
        if running is None:
            return
        try:
            running.stop()
        except Exception as error:
            LOG.warning("Prefect's warm runner did not stop well: %s", error)


def _when_warm(server: Server, beside: _Beside, quiet: bool) -> None:
    """Only then Prefect, whose import takes seconds of the same processor."""
    if server.agent.refresher.wait_until_warm(WARM_SECONDS) and not quiet:
        LOG.info("ready: every model was looked at, and what a rollback needs is connected")
    # What was imported stays; looking through it for garbage again and again would stop alerts for a third of a second.
    gc.freeze()
    server.agent.catch_up()
    beside.start()
    gc.freeze()
