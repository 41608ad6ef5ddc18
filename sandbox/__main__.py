"""`python -m sandbox`: start the three clouds, print how to reach them, run until told to stop."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NoReturn

from sandbox.calls import Calls
from sandbox.containers import ContainerRuntime
from sandbox.control import Control
from sandbox.delays import SPEEDS, Delays
from sandbox.faults import CLOUDS, Faults
from sandbox.template import die_with_parent
from sandbox.world import CloudServers, World

STOP_SECONDS: Final = 15.0
#: In the order of launching. Azure is the first, and the last to be waited for: its Azurite takes seconds to come up,
#: in a process of its own, while the others import their modules and start.
SERVERS: Final = {
    "azure": ("sandbox.azure.servers", "AzureServers"),
    "aws": ("sandbox.aws.servers", "AwsServers"),
    "gcp": ("sandbox.gcp.servers", "GcpServers"),
}


class StartError(Exception):
    """The sandbox could not start; the message is one line and names the cloud."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"sandbox: {message} (python -m sandbox --help lists the arguments)\n")


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; wrong arguments end the process with one line and status 2."""
    parser = _Parser(prog="python -m sandbox", description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true", help="print the settings as one line of JSON")
    parser.add_argument("--speed", choices=SPEEDS, default="instant", help="how long the clouds take")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument("--clouds", default=",".join(CLOUDS), help="which clouds to start, separated by commas")
    parser.add_argument(
        "--image-command",
        default="serving",
        metavar="MODULE [ARG...]",
        help="the Python module that every image runs as its entry point",
    )
    parser.add_argument("--parent", type=int, metavar="PID", help="stop when this process, our parent, dies")
    parsed = parser.parse_args(given)
    asked = {name.strip() for name in parsed.clouds.split(",")} - {""}
    unknown = sorted(asked - set(CLOUDS))
    if unknown or not asked:
        parser.error(f"--clouds takes some of {', '.join(CLOUDS)}, not {unknown[0] if unknown else 'nothing'!r}")
    parsed.clouds = tuple(name for name in CLOUDS if name in asked)
    parsed.image_command = tuple(parsed.image_command.split())
    if not parsed.image_command or not _is_module(parsed.image_command[0]):
        parser.error(f"--image-command names no Python module: {' '.join(parsed.image_command)!r}")
    if parsed.parent is not None and parsed.parent != os.getppid():
        parser.error(f"--parent is the process that started this one, {os.getppid()}, not {parsed.parent}")
    return parsed


def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@contextlib.contextmanager
def running(options: argparse.Namespace) -> Iterator[tuple[World, dict[str, object]]]:
    """The whole sandbox: yields the world and the settings, and leaves no process and no file behind.

    Raises StartError when something cannot start; what had started by then is stopped.
    """
    folder = Path(tempfile.mkdtemp(prefix="lockstep-sandbox-"))
    containers = ContainerRuntime(options.image_command, folder)
    world = World(Delays(options.speed), Faults(options.seed), Calls(), containers, folder, options.seed)
    clouds: dict[str, CloudServers] = {}
    with contextlib.ExitStack() as exits:
        exits.callback(shutil.rmtree, folder, ignore_errors=True)
        exits.callback(containers.close)
        exits.callback(_stop, clouds)
        with _one_line("the containers' template"):
            containers.open()
        for name, (module, servers) in SERVERS.items():
            if name in options.clouds:
                with _one_line(name):
                    clouds[name] = getattr(importlib.import_module(module), servers)(world)
                    clouds[name].launch()
        for name, cloud in reversed(clouds.items()):
            with _one_line(name):
                cloud.start()
        control = Control(world, clouds)
        exits.callback(control.stop)
        exits.callback(world.stop.set)
        settings: dict[str, object] = {"control": control.url, "speed": options.speed, "seed": options.seed}
        settings.update({name: clouds[name].settings() for name in options.clouds})
        control.publish(settings)
        yield world, settings


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        said = " ".join(str(error).split()) or "it gives no reason"
        kind = "" if isinstance(error, OSError) else f"{type(error).__name__}: "
        raise StartError(f"{what} could not start: {kind}{said}") from error


def _stop(clouds: dict[str, CloudServers]) -> None:
    stopping = [threading.Thread(target=cloud.stop, name=f"stop-{name}") for name, cloud in clouds.items()]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join(timeout=STOP_SECONDS)


def show(settings: dict[str, object]) -> None:
    """Print the settings for a person."""
    print(f"control address  {settings['control']}")
    for cloud in CLOUDS:
        values = settings.get(cloud)
        if isinstance(values, dict):
            print(f"\n{cloud}")
            for name, value in values.items():
                print(f"  {name:24} {value}")
    print("\nCtrl-C stops it.", flush=True)


def main(given: list[str] | None = None) -> int:
    """Run until SIGINT, SIGTERM, SIGHUP or the parent's death."""
    options = arguments(given)
    # Not by way of SIGINT: a shell that starts us in the background has set that to be ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup ignores it
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    if options.parent is not None:
        die_with_parent(options.parent, signal.SIGTERM)
    try:
        with running(options) as (world, settings), _deaf_afterwards():
            if options.json:
                print(json.dumps(settings), flush=True)
            else:
                show(settings)
            world.stop.wait()
    except KeyboardInterrupt:
        return 0
    except (StartError, OSError) as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


@contextlib.contextmanager
def _deaf_afterwards() -> Iterator[None]:
    # An impatient second Ctrl-C must not cut the cleaning up short.
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything has been stopped by now; to take the interpreter and its thousand modules apart would cost a second.
    os._exit(status)
