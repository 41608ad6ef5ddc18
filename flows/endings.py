"""How runs of the warm runner ended, told to Prefect where the engine could not: also later, when Prefect is back."""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import Final

import httpx
from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.states import Cancelled, Crashed

LOG: Final = logging.getLogger("lockstep.warm")
TROUBLE: Final = (httpx.HTTPError, PrefectException, OSError, TimeoutError)


class Endings:
    """The ends of runs, some of which are still to be told: else Prefect would show such a run as Running for ever."""

    def __init__(self) -> None:
        self._untold: dict[str, tuple[FlowRun, BaseException | None]] = {}
        self._lock = threading.Lock()
        self._telling = threading.Lock()

    @property
    def untold(self) -> frozenset[str]:
        """Ids of the runs whose end is still to be told."""
        with self._lock:
            return frozenset(self._untold)

    def tell(self, run: FlowRun, error: BaseException | None) -> None:
        """End the run in Prefect: it broke, or was cancelled while it went on; what cannot be told is kept."""
        try:
            with get_client(sync_client=True) as client:
                _end(client, run, error)
        except TROUBLE as trouble:
            LOG.warning("how run %s ended could not be told to Prefect: %r", run.id, trouble)
            with self._lock:
                self._untold[str(run.id)] = (run, error)

    def tell_again(self) -> None:
        """Tell what could not be told, in a thread beside the runs: Prefect's client tries for a minute."""
        if self.untold:
            threading.Thread(target=contextvars.copy_context().run, args=(self._tell_again,), daemon=True).start()

    def _tell_again(self) -> None:
        if not self._telling.acquire(blocking=False):
            return
        try:
            with self._lock:
                untold = dict(self._untold)
            with get_client(sync_client=True) as client:
                for key, (run, error) in untold.items():
                    try:
                        _end(client, run, error, again=True)
                    except httpx.TransportError:
                        raise  # nor would it hear of the others
                    except Exception as trouble:  # this one's, for which the others do not wait
                        LOG.debug("Prefect cannot be told yet how run %s ended: %r", run.id, trouble)
                        continue
                    with self._lock:
                        del self._untold[key]
        except TROUBLE as trouble:
            LOG.debug("Prefect cannot be told yet: %r", trouble)
        finally:
            self._telling.release()


def _end(client: SyncPrefectClient, run: FlowRun, error: BaseException | None, *, again: bool = False) -> None:
    """`again` leaves a run that never began, which is taken up once more."""
    try:
        state = client.read_flow_run(run.id).state
        if state is None or state.is_final() or (again and state.is_pending()):
            return
        if error is not None:
            told = f"{type(error).__name__}: {error}; what it did is in the ledger"
            client.set_flow_run_state(run.id, Crashed(message=told), force=True)
        elif state.is_cancelling():
            told = "cancelled after it had begun: what it had begun was done to the end, see its log and the ledger"
            client.set_flow_run_state(run.id, Cancelled(message=told), force=True)
    except ObjectNotFound:
        LOG.info("run %s was deleted in Prefect while it ran: nobody is to be told how it ended", run.id)
