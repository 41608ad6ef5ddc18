"""lockstep.yaml for one model on the sandbox's clouds: what `python -m sandbox --json` printed in, the file out.

python examples/sandbox/configure.py --mlflow http://127.0.0.1:5000 churn < settings.json > lockstep.yaml
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[2]))  # the checkout, from wherever this is called

from demo.addresses import cloud_settings

#: Steps that take seconds with the traffic of one script, and a minute to earn known-good; in production they take
#: minutes and an hour.
ROLLOUT = {
    "steps": [25, 50, 100],
    "step_seconds": 5,
    "patience": 120,
    "soak_seconds": 60,
    "look_every": 1,
    "min_requests": 20,
}


def main() -> int:
    """Read settings, print YAML; one line and status 1 for something that is no sandbox's settings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", help="name that the model has in MLflow")
    parser.add_argument("--mlflow", required=True, metavar="URL", help="address of the MLflow server")
    options = parser.parse_args()
    try:
        clouds = cloud_settings(json.load(sys.stdin))
    except (ValueError, KeyError, TypeError):
        clouds = {}
    if not clouds:
        sys.stderr.write(
            "configure: standard input holds no sandbox's settings: python -m sandbox --json prints them\n"
        )
        return 1
    file = {
        "mlflow": {"tracking_uri": options.mlflow},
        "clouds": clouds,
        "fleets": {"default": {"clouds": list(clouds), "rollout": ROLLOUT}},
        "models": {options.model: {}},
    }
    sys.stdout.write(yaml.safe_dump(file, sort_keys=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
