"""What MLflow's client would say past Lockstep."""

from __future__ import annotations

import logging

from lockstep.stores.mlflow_server import MlflowServer


def test_a_plugin_that_fails_for_every_request_is_not_heard() -> None:
    MlflowServer("http://127.0.0.1:1")
    import mlflow  # noqa: F401 - it sets up its loggers anew

    logger = logging.getLogger("mlflow.tracking.request_header.registry")
    for level, heard in ((logging.WARNING, False), (logging.ERROR, True)):
        assert bool(logger.filter(logging.makeLogRecord({"levelno": level}))) is heard
