"""Standard output and error for a command: what cannot be written there changes nothing of what was done.

A reader may go, a disk may be full, a stream may be closed: none of these undoes a rollback, so none may change the
exit status that tells of it.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast


class Lossy(io.RawIOBase):
    """The bytes of a stream; `lost` says why some of them could not be written."""

    def __init__(self, inner: io.RawIOBase) -> None:
        self._inner = inner
        self.lost: OSError | None = None

    def write(self, some: object) -> int:
        """Write them, or let them go."""
        content = memoryview(cast("bytes", some))
        try:
            while (count := self._inner.write(content)) is None:  # a pipe that does not block, and is full
                select.select((), (self._inner,), ())
        except OSError as error:
            self.lost = error
            return content.nbytes
        return count

    def writable(self) -> bool:
        """Always: that is what it is for."""
        return True

    def fileno(self) -> int:
        """Of the stream itself."""
        return self._inner.fileno()

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        return self._inner.isatty()


class Told:
    """Whether what was written to standard output got there."""

    def __init__(self, out: TextIO, raw: Lossy | None) -> None:
        self._out = out
        self._raw = raw

    def lost(self) -> OSError | None:
        """Why some of it could not be written; None for a reader that went away, as it wanted no more."""
        with contextlib.suppress(OSError):
            self._out.flush()
        lost = self._raw.lost if self._raw is not None else None
        return None if isinstance(lost, BrokenPipeError) else lost


@contextlib.contextmanager
def heedless() -> Iterator[Told]:
    """A block in which writing to `sys.stdout` and `sys.stderr` raises no OSError, and no error of an encoding."""
    before = sys.stdout, sys.stderr
    (out, raw), (err, _) = _heedless(before[0]), _heedless(before[1])
    sys.stdout, sys.stderr = out, err
    try:
        yield Told(out, raw)
    finally:
        for stream in (out, err):
            with contextlib.suppress(OSError):
                stream.flush()
        sys.stdout, sys.stderr = before


def _heedless(stream: TextIO | None) -> tuple[TextIO, Lossy | None]:
    """A stream that writes where this one does, and its bytes; itself where it is no file, as in a test."""
    if stream is None:  # closed by whoever started this process
        return Path(os.devnull).open("w", encoding="utf-8"), None
    buffer = getattr(stream, "buffer", None)
    inner = getattr(buffer, "raw", buffer)  # PYTHONUNBUFFERED leaves the buffer out
    if not isinstance(stream, io.TextIOWrapper) or not isinstance(inner, io.RawIOBase):
        return stream, None
    stream.flush()
    raw = Lossy(inner)
    text = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",  # a terminal of few characters shows the others as escapes
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
    return text, raw
