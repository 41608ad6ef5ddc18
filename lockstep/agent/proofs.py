"""What endpoints answered of a model, how long that stands, and when they are asked anew. Asks nobody itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from lockstep.agent.overview import Proved, read_proof
from lockstep.operations.status import CloudProof, Status
from lockstep.rules.state import CloudState

#: What takes a cloud's traffic, by its own record: slot, per cent, digest, whether it can answer.
Serving = tuple[tuple[str, int, str, bool], ...]
#: Seconds until what was not verified is asked again; twice as long each time, since real answers cost money.
AGAIN: Final = 10.0


class Proofs:
    """Of one model; a proof stands for `every` seconds where it verified each cloud, and while the same serves there.

    What was asked while a switch was under way, or of an endpoint that was out of order, says nothing of a while later.
    `now` is in seconds of a clock that only goes forward.
    """

    def __init__(self, every: float) -> None:
        """With 0.0 no endpoint is ever asked."""
        self._every = every
        self._proofs: tuple[CloudProof, ...] = ()
        self._served: Mapping[str, Serving] = {}
        self._at = 0.0
        self._due = 0.0
        self._pause = AGAIN
        self._written = False
        self._moved = False

    @property
    def at(self) -> Mapping[str, float]:
        """Unix seconds at which the clouds were asked whose proofs stand."""
        return {proof.cloud: self._at for proof in self._proofs}

    def moved(self) -> None:
        """Traffic was moved just now: what is asked from here on counts. For any thread."""
        self._moved = True

    def is_due(self, now: float) -> bool:
        """Whether the look that begins now is to ask."""
        if self._moved:
            self._moved = False  # before it is asked: what is moved meanwhile is asked once more
            self._anew()
        return self._every > 0 and now >= self._due

    def keep(self, found: Status, now: float, *, asked: float | None) -> Status:
        """What was found with the proofs that stand: its own, or those from before where that look asked nobody.

        `asked` is when it asked, in Unix seconds, None where it did not.
        """
        served = {state.cloud: serving(state) for state in found.state.clouds}
        ended, self._written = self._written and found.writer is None, found.writer is not None
        if asked is not None and found.desired.champion is not None:
            self._proofs, self._served, self._at = found.proofs, served, asked
            if all(read_proof(proof, found.desired)[0] is Proved.VERIFIED for proof in found.proofs):
                self._due, self._pause = now + self._every, AGAIN
            else:
                pause = AGAIN if ended else self._pause
                self._due, self._pause = now + min(pause, self._every), 2 * pause
            return found
        kept = tuple(proof for proof in self._proofs if served.get(proof.cloud) == self._served.get(proof.cloud))
        if ended or len(kept) < len(self._proofs):
            self._anew()
        self._proofs = kept
        return replace(found, proofs=kept)

    def _anew(self) -> None:
        self._due, self._pause = 0.0, AGAIN


def serving(state: CloudState) -> Serving:
    """What a proof was about: of anything else it says nothing."""
    return tuple(sorted((slot.name, slot.weight, slot.digest, slot.ready) for slot in state.slots if slot.weight))
