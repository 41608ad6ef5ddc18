"""What was seen of the clouds' endpoints, kept so that one that was not changed since is not asked for again.

One JSON file beside what was last known of the models. It is a memory and no authority: what is in it is used only
where the cloud's own list shows the same mark, and a file that is lost or damaged costs some calls.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from lockstep.errors import LockstepError
from lockstep.rules.state import CloudState, SlotState
from lockstep.stores.private_files import FOLDER_MODE, replace_file

FORMAT: Final = "lockstep.looks/1"
NAME: Final = "looks.json"


@dataclass
class Looks:
    """`states` by cloud and model; `intact` are marks of endpoints by cloud, model and digest.

    Under that mark the slot of the version with that digest was defined as Lockstep wrote it.
    """

    states: dict[tuple[str, str], CloudState] = field(default_factory=dict)
    intact: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def of(self, cloud: str) -> Mapping[str, CloudState]:
        """States of one cloud by model."""
        return {model: state for (name, model), state in self.states.items() if name == cloud}


def read_looks(folder: Path | None) -> Looks:
    """What is kept in the folder; nothing for a file that is missing, damaged, or of another release."""
    if folder is None:
        return Looks()
    try:
        return _read(json.loads((folder / NAME).read_bytes()))
    except (OSError, ValueError, KeyError, TypeError):
        return Looks()


def keep_looks(folder: Path | None, looks: Looks) -> None:
    """Write the file; of two processes the last one wins. Raises LockstepError when it cannot be written."""
    if folder is None:
        return
    states = [
        {"of": list(key), "state": {**asdict(state), "mark": state.mark}}
        for key, state in sorted(looks.states.items())
        if state.mark
    ]
    intact = [{"of": list(key), "mark": mark} for key, mark in sorted(looks.intact.items())]
    content = json.dumps({"format": FORMAT, "states": states, "intact": intact}, sort_keys=True).encode()
    path = folder / NAME
    try:
        if path.exists() and path.read_bytes() == content:
            return
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    except OSError as error:
        raise LockstepError(f"{path} cannot be written: {error}", hint="name another folder under state:") from error
    replace_file(path, content)


def _read(body: Mapping[str, Any]) -> Looks:
    """Raises ValueError, KeyError or TypeError for anything that `keep_looks` did not write."""
    if body["format"] != FORMAT:
        raise ValueError("another file")
    looks = Looks()
    for one in body["states"]:
        cloud, model = map(str, one["of"])
        given = one["state"]
        slots = tuple(SlotState(**slot) for slot in given["slots"])
        looks.states[cloud, model] = CloudState(**{**given, "slots": slots})
    for one in body["intact"]:
        cloud, model, digest = map(str, one["of"])
        looks.intact[cloud, model, digest] = str(one["mark"])
    return looks
