"""Azurite, Microsoft's own Blob emulator, as a child process, and the sandbox's own way to the bytes in it.

It listens over plain http on 127.0.0.1 for the sandbox alone: clients come in through `sandbox/azure/blob.py`, which
adds TLS and the fault board.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sandbox.azure.install import SCRIPT, MissingToolError, is_installed, node

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

LISTENING: Final = re.compile(r"listens on (http://127\.0\.0\.1:\d+)")
START_SECONDS: Final = 60.0


class Azurite:
    """One Azurite with one storage account, its blobs in memory."""

    def __init__(self, account: str) -> None:
        self.account: Final = account
        self.key: Final = base64.b64encode(secrets.token_bytes(64)).decode()
        self.url = ""
        self._process: subprocess.Popen[str] | None = None
        self._client: BlobServiceClient | None = None

    def launch(self) -> None:
        """Start the process. Call from the main thread: its life is tied to the calling thread.

        Raises MissingToolError (one line, what to do) when Azurite or Node.js is not installed.
        """
        if not is_installed():
            raise MissingToolError("Azurite is not installed: run `python -m sandbox.azure.install`")
        command = [str(node()), str(SCRIPT), "--blobHost", "127.0.0.1", "--blobPort", "0"]
        command += ["--silent", "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.azure.guard", str(os.getpid()), *command],
            env={**os.environ, "AZURITE_ACCOUNTS": f"{self.account}:{self.key}"},
            cwd=Path(__file__).parents[2],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def start(self, containers: tuple[str, ...]) -> None:
        """Wait until it listens and create the containers; raises OSError when it does not come up."""
        if self._process is None:
            raise RuntimeError("Azurite was not launched")
        self.url = self._await_address(self._process)
        for name in containers:
            self.client().create_container(name)

    def client(self) -> BlobServiceClient:
        """A client of the account that goes past every fault."""
        if self._client is None:
            from azure.storage.blob import BlobServiceClient

            self._client = BlobServiceClient(
                f"{self.url}/{self.account}", credential=self.key, connection_timeout=5, read_timeout=60
            )
        return self._client

    def download(self, container: str, prefix: str, target: Path) -> int:
        """Copy the blob `prefix` to `target`, or every blob below it into the folder `target`; returns how many."""
        source = self.client().get_container_client(container)
        prefix = prefix.strip("/")
        count = 0
        for name in source.list_blob_names(name_starts_with=prefix):
            if name != prefix and not name.startswith(f"{prefix}/"):
                continue
            path = target / name[len(prefix) + 1 :]
            if not path.resolve().is_relative_to(target.resolve()):
                raise ValueError(f"blob name {name!r} leads out of its folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                source.download_blob(name, max_concurrency=1).readinto(file)
            count += 1
        return count

    def flip_byte(self, key: str, offset: int) -> str:
        """Rewrite the blob whose `container/name` ends with `key` with one byte flipped; KeyError if there is none."""
        for container in self.client().list_containers():
            source = self.client().get_container_client(container.name)
            for name in source.list_blob_names():
                full = f"{container.name}/{name}"
                if not full.endswith(key):
                    continue
                blob = source.get_blob_client(name)
                properties = blob.get_blob_properties()
                content = bytearray(blob.download_blob().readall())
                if not content:
                    raise ValueError(f"blob {full} is empty: there is no byte to flip")
                content[offset % len(content)] ^= 0x01
                settings = properties.content_settings
                settings.content_md5 = None
                blob.upload_blob(
                    bytes(content), overwrite=True, metadata=properties.metadata, content_settings=settings
                )
                return full
        raise KeyError(f"blob {key!r}")

    def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(timeout=10)

    def _await_address(self, process: subprocess.Popen[str]) -> str:
        stream = process.stdout
        assert stream is not None
        timer = threading.Timer(START_SECONDS, process.kill)
        timer.start()
        seen = []
        try:
            for line in stream:
                seen.append(line.strip())
                match = LISTENING.search(line)
                if match:
                    threading.Thread(target=stream.read, name="azurite-output", daemon=True).start()
                    return match[1]
        finally:
            timer.cancel()
        process.wait(timeout=10)
        raise OSError("Azurite did not start: " + (" | ".join(seen[-5:]) or "it said nothing"))
