"""uvicorn for a slot that is kept warm: it does nothing for weeks, and that should cost nothing."""

from __future__ import annotations

import asyncio
import contextlib
from types import FrameType
from typing import Final

import uvicorn

TICK: Final = 1.0  # seconds; the Date header of its answers counts in seconds


class Server(uvicorn.Server):
    """Wakes up once a second, and at once for a signal, where uvicorn looks ten times a second for one."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._signalled = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def main_loop(self) -> None:
        """Serve until a signal says otherwise."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._signalled.wait(), TICK)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal."""
        super().handle_exit(sig, frame)
        if self._loop is not None:  # before that the loop has not begun, and will look first
            self._loop.call_soon_threadsafe(self._signalled.set)
