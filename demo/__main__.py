"""`python -m demo`: what `lockstep demo` runs."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn


def interrupt(*_: object) -> NoReturn:
    """Not by way of SIGINT, which a job in the background may have been started to ignore."""
    raise KeyboardInterrupt


def main() -> int:
    """Parse, prepare the surroundings, tell the story."""
    parser = argparse.ArgumentParser(prog="lockstep demo", description="The life of a model on three clouds, here.")
    parser.add_argument("--keep", action="store_true", help="leave everything running at the end, until Ctrl-C")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a picture of the traffic (SVG)")
    options = parser.parse_args()
    # SIGTERM ends the demo as Ctrl-C does, so that the servers are stopped on the way out.
    signal.signal(signal.SIGTERM, interrupt)
    from demo.processes import StartError
    from demo.story import run

    try:
        return run(keep=options.keep, json_file=options.json, picture=options.picture)
    except StartError as error:
        print(f"lockstep demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
