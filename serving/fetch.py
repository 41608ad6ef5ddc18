"""Fetch a model folder from Google Cloud Storage, which on Vertex AI is the container's own task."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Final

TIMEOUT: Final = (10.0, 300.0)  # seconds to connect, and between two reads


def fetch_prefix(uri: str, folder: Path) -> None:
    """Download every object under `gs://bucket/prefix` into `folder`, keeping the paths below the prefix.

    Raises FileNotFoundError for an empty prefix, ValueError for an object whose name would leave the folder.
    """
    from google.cloud import storage  # only a Vertex container has it, and needs it

    bucket, _, prefix = uri.removeprefix("gs://").partition("/")
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    client = storage.Client(project=os.environ.get("AIP_PROJECT_NUMBER") or None)
    found = False
    for blob in client.list_blobs(bucket, prefix=prefix, timeout=TIMEOUT):
        name = blob.name.removeprefix(prefix)
        if not name or name.endswith("/"):
            continue
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise ValueError(f"object {blob.name!r} in {uri} has a name that leaves its folder")
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        blob.download_to_filename(str(target), timeout=TIMEOUT)
        found = True
    if not found:
        raise FileNotFoundError(f"nothing lies under {uri}")
