"""The demo's model: is a breast tumour benign? scikit-learn's own copy of the Wisconsin data, split once.

v1 and v3 are sound. v2 has a silent fault: one feature was in another unit when it was trained, so it answers every
request quickly, without an error, and wrongly.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.locks import environment_lock, pinned_requirements
from demo.names import MODEL

if TYPE_CHECKING:
    import pandas as pd

FAULTY_FEATURES: Final = ("worst_area", "mean_area")
UNIT: Final = 1e-2  # square centimetres in training, square millimetres in production


@dataclass(frozen=True)
class Data:
    """Rows to learn from, and rows that play the requests of production with their true labels (1 = benign)."""

    train: pd.DataFrame
    train_labels: pd.Series[int]
    live: pd.DataFrame
    live_labels: pd.Series[int]


def load_data() -> Data:
    """The 569 tumours, half to learn from, half to ask about."""
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    frame, labels = load_breast_cancer(return_X_y=True, as_frame=True)
    frame = frame.rename(columns=lambda name: name.replace(" ", "_"))
    train, live, train_labels, live_labels = train_test_split(
        frame, labels, test_size=0.5, random_state=7, stratify=labels
    )
    return Data(train, train_labels, live, live_labels)


def train(data: Data, which: str) -> str:
    """Train version `which` (v1, v2, v3) in an MLflow run; returns the logged model's URI."""
    import mlflow
    import mlflow.sklearn
    from mlflow.models import infer_signature
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = data.train.copy()
    if which == "v2":
        for feature in FAULTY_FEATURES:
            rows[feature] *= UNIT
    model = (
        RandomForestClassifier(n_estimators=25, random_state=7)
        if which == "v3"
        else make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
    )
    mlflow.set_experiment(MODEL)
    with mlflow.start_run(run_name=which):
        model.fit(rows, data.train_labels)
        # The faulty version looks fine here: it is tested on data with the same mistake.
        mlflow.log_params({"version": which, "estimator": type(model).__name__, "rows": len(rows)})
        mlflow.log_metric("train_accuracy", float(model.score(rows, data.train_labels)))
        logged = mlflow.sklearn.log_model(
            model,
            name="model",
            signature=infer_signature(rows, model.predict(rows)),
            pip_requirements=pinned_requirements(),
            serialization_format="cloudpickle",
        )
        with tempfile.TemporaryDirectory() as scratch:
            lock = Path(scratch) / "requirements.lock"
            lock.write_text(environment_lock(), encoding="utf-8")
            mlflow.MlflowClient().log_model_artifact(str(logged.model_id), str(lock))
    return str(logged.model_uri)
