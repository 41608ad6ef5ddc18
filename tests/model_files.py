"""Real, small, sealed model versions for tests of sandbox and clouds: a scikit-learn pipeline in MLflow's format."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelVersion:
    """A folder with `manifest.json` and `files/`; `digest` is the SHA-256 of the manifest's bytes."""

    label: str
    folder: Path
    digest: str

    def objects(self) -> dict[str, bytes]:
        """Relative path -> bytes of everything that goes into a store."""
        return {
            path.relative_to(self.folder).as_posix(): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        }


def seal_model(folder: Path, label: str, scale: float) -> ModelVersion:
    """Train on scikit-learn's breast-cancer data and write the folder; `scale` multiplies the first feature."""
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.datasets import load_breast_cancer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    frame, target = load_breast_cancer(return_X_y=True, as_frame=True)
    frame = frame.rename(columns=lambda name: name.replace(" ", "_"))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    model.fit(frame.assign(mean_radius=frame["mean_radius"] * scale), target)
    mlflow.sklearn.save_model(
        model,
        str(folder / "files"),
        signature=infer_signature(frame, model.predict(frame)),
        pip_requirements=["scikit-learn"],
    )
    return seal_folder(folder, label)


def seal_folder(folder: Path, label: str) -> ModelVersion:
    """Write the manifest of the model files that lie in `folder/files`."""
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
    return ModelVersion(label, folder, hashlib.sha256(sealed).hexdigest())
