"""Adapters that stay connected from one run to the next, in a process that carries out many."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Final

import blocks
from lockstep.clouds.base import Cloud
from lockstep.config import AnyCloud, load
from lockstep.errors import LockstepError
from lockstep.operations.fleet import open_fleet

LOG: Final = logging.getLogger("lockstep.warm")
_kept: Final[dict[str, tuple[AnyCloud, Cloud]]] = {}
_lock: Final = threading.Lock()


def adapters(block: blocks.Fleet) -> dict[str, Cloud]:
    """The adapters of a fleet by name; those of the last run where no setting of the cloud has changed."""
    return {name: _connected(name, cloud.settings()) for name, cloud in block.clouds().items()}


def _connected(name: str, settings: AnyCloud) -> Cloud:
    with _lock:
        kept = _kept.get(name)
        if kept is None or kept[0] != settings:
            kept = _kept[name] = (settings, settings.connect(name))
        return kept[1]


def warm_up(config_path: Path | None) -> None:
    """Look at what serves once, so that everything is imported and connected before it is needed in a hurry."""
    try:
        config = load(config_path)
        connected = {name: _connected(name, settings) for name, settings in config.clouds.items()}
        for model in config.models:
            state = open_fleet(config, model, clouds=connected).observe()
            for cloud, why in state.unreachable.items():
                LOG.info("%s is not reached yet: %s", cloud, why)
    except LockstepError as error:
        LOG.info("nothing is connected beforehand: %s", error)
