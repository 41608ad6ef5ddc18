"""`python -m sandbox.azure.guard PID COMMAND...`: become COMMAND, in a process that dies with its parent PID.

The kernel keeps the wish across exec, so that Azurite ends even when the sandbox is killed without a chance to act.
"""

from __future__ import annotations

import os
import sys

from sandbox.template import die_with_parent

if __name__ == "__main__":
    die_with_parent(int(sys.argv[1]))
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - the very purpose
