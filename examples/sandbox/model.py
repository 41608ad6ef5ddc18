"""What the three example scripts share: two sealed model versions, rows to predict, and claims that must hold.

A version is a folder with `files/` (a scikit-learn model in MLflow's format) and `manifest.json`, which lists every
file with its SHA-256. The version's digest is the SHA-256 of that manifest: the serving container checks every file
against it before it loads the model, and names it in every answer.
"""

# ruff: noqa: T201 - scripts for people

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.sklearn
from mlflow.models import infer_signature
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


@dataclass(frozen=True)
class Version:
    """One sealed version on disk."""

    label: str
    folder: Path
    digest: str

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Name below the version's prefix, and bytes, of everything that goes into a cloud's store."""
        for path in sorted(self.folder.rglob("*")):
            if path.is_file():
                yield path.relative_to(self.folder).as_posix(), path.read_bytes()


def settings(cloud: str, described: str | None) -> dict[str, Any]:
    """One cloud's part of what `python -m sandbox --json` printed: from the file given as argument, else from stdin."""
    parser = argparse.ArgumentParser(description=described)
    parser.add_argument("settings", nargs="?", type=argparse.FileType(), default=sys.stdin)
    found: dict[str, Any] = json.loads(parser.parse_args().settings.readline())
    if cloud not in found:
        sys.exit(f"the sandbox runs without {cloud}: start it with --clouds {cloud}")
    return dict(found[cloud])


def two_versions(folder: Path) -> tuple[Version, Version]:
    """Train and seal v1, and v2, which was trained on a feature a thousand times too big and so predicts otherwise."""
    print("training two versions")
    return _version(folder / "v1", "v1", 1.0), _version(folder / "v2", "v2", 1000.0)


def rows(count: int = 100) -> dict[str, Any]:
    """Patients to predict, as MLflow's `dataframe_split`."""
    frame = _patients()[0].head(count)
    return dict(json.loads(frame.to_json(orient="split")))


def holds(what: str, condition: object) -> None:
    """Print a claim; end the script with status 1 when it is not true."""
    print(f"  {'ok    ' if condition else 'FAILED'} {what}")
    if not condition:
        sys.exit(1)


def refused(what: str, kind: type[Exception], call: Callable[[], object], words: str) -> None:
    """The cloud must refuse `call` with an exception of `kind` that says `words`."""
    try:
        call()
    except kind as error:
        said = " ".join(str(error).split())
        holds(f"refused: {what}\n         {said[-160:]}", words in said)
    else:
        holds(f"refused: {what}", False)


def _patients() -> tuple[Any, Any]:
    frame, target = load_breast_cancer(return_X_y=True, as_frame=True)
    return frame.rename(columns=lambda name: name.replace(" ", "_")), target


def _version(folder: Path, label: str, scale: float) -> Version:
    frame, target = _patients()
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(frame.assign(mean_radius=frame["mean_radius"] * scale), target)
    signature = infer_signature(frame, model.predict(frame))
    mlflow.sklearn.save_model(model, str(folder / "files"), signature=signature, pip_requirements=["scikit-learn"])
    files = [
        {
            "path": path.relative_to(folder / "files").as_posix(),
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted((folder / "files").rglob("*"))
        if path.is_file()
    ]
    manifest = {"schema": "lockstep/manifest/v2", "name": "tumour", "files": files}
    sealed = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    (folder / "manifest.json").write_bytes(sealed)
    return Version(label, folder, hashlib.sha256(sealed).hexdigest())
