"""What a rollback imports before its first call: nothing that costs seconds and serves something else."""

from __future__ import annotations

import subprocess
import sys

HEAVY = (
    *("azure.ai.ml", "google.cloud.aiplatform", "google.cloud.aiplatform_v1", "sagemaker", "grpc"),
    *("pandas", "numpy", "scipy", "sklearn", "matplotlib", "pyarrow", "mlflow", "prefect"),
)
PROGRAM = """
import sys
import lockstep.cli
import lockstep.commands.serving
import lockstep.terminal
import lockstep.operations.rollback
import lockstep.operations.rollback_plan
from lockstep.config import parse
from lockstep.operations.fleet import open_fleet
print(*sorted(name for name in sys.modules if name in sys.argv[1:]))
"""


def test_a_rollback_imports_no_heavy_sdk() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *HEAVY], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == []
