"""Operations in processes that are killed right before or after the N-th thing that they do for good.

The process that `running_killer` starts imports everything once, then forks a child for each order that it reads (one
JSON document a line) and answers how that one ended. It stays single-threaded, as whoever forks must.

What is done for good: an entry of the ledger, an alias or a tag in MLflow, a change on a cloud. In a child each of
these has a boundary before it, and a change on a cloud, beside which others go on, has one after it: what comes after
the others is before the next one. They are counted over all threads. A child's clock may jump as well.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lockstep.clouds.base import Cloud
from lockstep.config import load
from lockstep.operations.canary import canary_deploy
from lockstep.operations.condemn import condemn, lift
from lockstep.operations.fleet import Fleet, open_fleet
from lockstep.operations.reconcile import reconcile
from lockstep.operations.rollback import rollback
from lockstep.stores.ledger import Ledger
from lockstep.stores.registry import Registry
from tests.chaos import clock

#: What is imported at the first use of a cloud or of MLflow, and costs each child seconds otherwise.
LATER: Final = (
    "aiohttp",
    "azure.storage.blob",
    "boto3",
    "botocore.session",
    "azure.core.rest",
    "azure.mgmt.core",
    "azure.identity",
    "google.auth.transport.requests",
    "google.oauth2.credentials",
    "google.oauth2.reauth",
    "mlflow",
    "mlflow.tracking",
    "mlflow.store.model_registry.rest_store",
    "obstore",
    "pandas",
)
REGISTRY: Final = ("set_alias", "delete_alias", "tag", "untag")
CLOUD: Final = ("prepare", "set_traffic", "resize", "retire")
NEVER: Final = 0
#: The process that forks. Its clock comes before all that might keep the real one.
SERVER: Final = "from tests.chaos import clock; clock.install(); from tests.chaos.killing import serve; serve()"
JUMPS: Final = "after ledger shift.intent"
OPERATIONS: Final = ("rollback", "canary_deploy", "reconcile")


@dataclass(frozen=True)
class Ended:
    """`passed` is what was met, in order; `error` what the operation raised, "" for nothing."""

    killed: bool
    passed: tuple[str, ...]
    error: str

    @property
    def boundaries(self) -> int:
        """How many places to be killed at were met."""
        return sum(map(is_boundary, self.passed))


def is_boundary(name: str) -> bool:
    """Whether a process is killed there."""
    moment, where, *_ = name.split()
    return moment == "before" or where not in ("ledger", "mlflow")


class Killer:
    """The process that forks; one order at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(
        self,
        config: Path,
        model: str,
        operation: str,
        label: str = "",
        at: int = NEVER,
        *,
        ahead: float = 0.0,
        jump: float = 0.0,
    ) -> Ended:
        """Run the operation in a child that is killed at its boundary number `at`, from 1; it ends by itself at 0.

        Its clock is `ahead` by these seconds, and `jump` more when it has announced that it moves traffic.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        asked = {"operation": operation, "label": label, "at": at, "ahead": ahead, "jump": jump}
        order = {"config": str(config), "model": model, **asked}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ended(answer["signal"] == signal.SIGKILL, tuple(answer["passed"]), answer["error"])


@contextmanager
def running_killer() -> Iterator[Killer]:
    """Start the process that forks, and end it with its standard input."""
    command = [sys.executable, "-c", SERVER]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Killer(process)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=120)


class Boundaries:
    """Counts, tells each boundary before anything else happens, and kills this process at one of them."""

    def __init__(self, at: int, jump: float, tell: Callable[[str], None]) -> None:
        self._at = at
        self._jump = jump
        self._tell = tell
        self._met = 0
        self._lock = threading.Lock()

    def meet(self, name: str) -> None:
        with self._lock:
            self._met += is_boundary(name)
            self._tell(name)
            if name == JUMPS:
                clock.set_by(self._jump)
            if self._met == self._at and is_boundary(name):
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, owner: type, method: str, name: Callable[..., str]) -> None:
        """Tell of what comes before and after every call of a method."""
        original = getattr(owner, method)

        def guarded(this: Any, *arguments: Any, **named: Any) -> Any:
            told = name(this, *arguments, **named)
            self.meet(f"before {told}")
            done = original(this, *arguments, **named)
            self.meet(f"after {told}")
            return done

        setattr(owner, method, guarded)

    def everywhere(self) -> None:
        """All deeds of this process."""
        self.around(Ledger, "append", lambda this, event, kind, *rest, **named: f"ledger {kind}")
        for method in REGISTRY:
            self.around(Registry, method, lambda this, *asked, method=method: f"mlflow {method} {asked[-1]}")
        for method in CLOUD:
            self.around(Cloud, method, lambda this, *asked, method=method: f"{this.name} {method}")


def carry_out(fleet: Fleet, operation: str, label: str) -> None:
    """The operation of that name; `label` names the version that it is about."""
    if operation == "rollback":
        rollback(fleet, to=label or None, reason="chaos")
    elif operation == "canary_deploy":
        canary_deploy(fleet, fleet.registry.version(fleet.model, label))
    elif operation == "reconcile":
        for done in reconcile([fleet], accept_surprise="chaos"):
            if done.error is not None:
                raise done.error
    elif operation == "condemn":
        condemn(fleet, fleet.registry.version(fleet.model, label), "chaos")
    elif operation == "lift":
        lift(fleet, fleet.registry.version(fleet.model, label), "chaos")
    else:
        raise ValueError(operation)


def child(order: dict[str, Any], passed: int, error: int) -> None:
    """Become the process that may be killed; never returns."""
    status = 1
    try:
        clock.set_by(order["ahead"])
        Boundaries(order["at"], order["ahead"] + order["jump"], lambda name: _write(passed, f"{name}\n")).everywhere()
        fleet = open_fleet(load(Path(order["config"])), order["model"], actor="machine:chaos")
        carry_out(fleet, order["operation"], order["label"])
        status = 0
    except BaseException as failure:
        told = f"{type(failure).__name__}: {failure}"
        _write(error, told)
        if not type(failure).__module__.startswith("lockstep"):
            traceback.print_exc()
    finally:
        os._exit(status)


def serve() -> None:
    """Fork for every line of standard input."""
    for name in LATER:
        importlib.import_module(name)
    for line in sys.stdin:
        order = json.loads(line)
        passed, passed_in = os.pipe()
        error, error_in = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.dup2(2, 1)  # the answers' way is not the child's
            child(order, passed_in, error_in)
        os.close(passed_in)
        os.close(error_in)
        told = _read(passed).splitlines()
        reason = _read(error)
        _, status = os.waitpid(pid, 0)
        ended = {"signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, "passed": told, "error": reason}
        print(json.dumps(ended), flush=True)


def _write(pipe: int, text: str) -> None:
    os.write(pipe, text.encode())


def _read(pipe: int) -> str:
    with os.fdopen(pipe, "rb") as stream:
        return stream.read().decode()
