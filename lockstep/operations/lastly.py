"""What nobody should have to wait for: done at once, or after the result where the caller says when that is told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Final

#: What waits, by what it is about, in a `told_first` block; None outside of any.
_LATER: Final[ContextVar[dict[Hashable, Callable[[], None]] | None]] = ContextVar("lockstep_later", default=None)


def lastly(about: Hashable, call: Callable[[], None]) -> None:
    """Call it now, or at the end of the `told_first` block that this is in: once for all that is about the same."""
    later = _LATER.get()
    if later is None:
        call()
    else:
        later[about] = call


@contextlib.contextmanager
def told_first() -> Iterator[None]:
    """A block that tells the result, an error included; what can wait is done after it and changes nothing of it."""
    later: dict[Hashable, Callable[[], None]] = {}
    before = _LATER.set(later)
    try:
        yield
    finally:
        _LATER.reset(before)
        with contextlib.suppress(KeyboardInterrupt):  # whoever is impatient now has the result already
            for call in later.values():
                call()
