"""Small files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from lockstep.errors import BusyError, LockstepError

MODE: Final = 0o600
FOLDER_MODE: Final = 0o700
BESIDE: Final = ".being-written."


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[Path]:
    """The folder, made if it is missing, for this process alone; raises BusyError while another one has it."""
    with _translated(folder):
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"another process is writing {folder}", hint="try again in a moment") from error
        for left in folder.glob(f"{BESIDE}*"):  # by a process that was killed: it may hold a key
            left.unlink()
        yield folder
    finally:
        os.close(descriptor)


def create_file(path: Path, content: Callable[[], bytes]) -> bool:
    """Write a file that is not there; False, and nothing done, when it is. Raises LockstepError."""
    if os.path.lexists(path):
        return False
    with _translated(path):
        written = _write_beside(path, content())
        try:
            os.link(written, path)  # unlike a rename it never replaces what another process made meanwhile
        except FileExistsError:
            return False
        finally:
            written.unlink()
        _sync_folder(path.parent)
    return True


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file in one step. Raises LockstepError."""
    with _translated(path):
        _write_beside(path, content).replace(path)
        _sync_folder(path.parent)


def readable_by_others(path: Path) -> bool:
    """Whether the file is there and somebody besides its owner may read or write it."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o077)


def _write_beside(path: Path, content: bytes) -> Path:
    """A new file in the same folder, on the disk before it gets its name."""
    beside = path.with_name(f"{BESIDE}{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    return beside


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LockstepError(
            f"{path} cannot be written: {error.strerror or error}", hint="check the folder's owner, mode and free space"
        ) from error
