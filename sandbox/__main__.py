"""`python -m sandbox`: start the three clouds, print how to reach them, run until told to stop."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sandbox.calls import Calls
from sandbox.containers import ContainerRuntime
from sandbox.control import Control
from sandbox.delays import SPEEDS, Delays
from sandbox.faults import CLOUDS, Faults
from sandbox.template import die_with_parent
from sandbox.world import CloudServers, World

SERVERS: Final = {
    "aws": ("sandbox.aws.servers", "AwsServers"),
    "azure": ("sandbox.azure.servers", "AzureServers"),
    "gcp": ("sandbox.gcp.servers", "GcpServers"),
}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
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
    parsed.clouds = tuple(name for name in parsed.clouds.split(",") if name)
    unknown = [name for name in parsed.clouds if name not in CLOUDS]
    if unknown or not parsed.clouds:
        parser.error(f"--clouds takes some of {', '.join(CLOUDS)}, not {unknown[0] if unknown else 'nothing'!r}")
    return parsed


@contextlib.contextmanager
def running(options: argparse.Namespace) -> Iterator[tuple[World, dict[str, object]]]:
    """The whole sandbox: yields the world and the settings, and leaves no process and no file behind."""
    folder = Path(tempfile.mkdtemp(prefix="lockstep-sandbox-"))
    containers = ContainerRuntime(tuple(options.image_command.split()), folder)
    world = World(Delays(options.speed), Faults(options.seed), Calls(), containers, folder, options.seed)
    clouds: dict[str, CloudServers] = {}
    with contextlib.ExitStack() as exits:
        exits.callback(shutil.rmtree, folder, ignore_errors=True)
        exits.callback(containers.close)
        containers.open()
        for name in options.clouds:
            module, servers = SERVERS[name]
            clouds[name] = getattr(importlib.import_module(module), servers)(world)
            exits.callback(clouds[name].stop)
            clouds[name].start()
        control = Control(world, clouds)
        exits.callback(control.stop)
        exits.callback(world.stop.set)
        settings: dict[str, object] = {"control": control.url, "speed": options.speed, "seed": options.seed}
        settings.update({name: cloud.settings() for name, cloud in clouds.items()})
        control.publish(settings)
        yield world, settings


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
    """Run until SIGINT, SIGTERM or the parent's death."""
    options = arguments(given)
    # Not by way of SIGINT: a shell that starts us in the background has set that to be ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if options.parent is not None:
        die_with_parent(options.parent)
    try:
        with running(options) as (world, settings):
            if options.json:
                print(json.dumps(settings), flush=True)
            else:
                show(settings)
            world.stop.wait()
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
