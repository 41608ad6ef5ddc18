"""Proofs that entries stand in the ledger, in files that are checked offline, without Lockstep's configuration.

Each proof is a C2SP tlog-proof: the entry's place, its path to the root, and the signed checkpoint. The checkpoint is
signed by the ledger's key, so whoever checks one compares that key with the one that they know from elsewhere.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from lockstep.errors import LockstepError, NoteError, ProofError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint
from lockstep.rules.decision import Basis, Decision
from lockstep.rules.deeds import mapping, text
from lockstep.rules.history import Certainty
from lockstep.rules.merkle import inclusion_proof
from lockstep.rules.note import Verifier, parse_vkey
from lockstep.rules.state import Version
from lockstep.rules.tlog_proof import make_proof, verify_proof

DECISION_FORMAT: Final = "lockstep/decision-proof/v1"


class Log(Protocol):
    """What of a ledger a proof is made from."""

    def checkpoint(self) -> bytes | None:
        """The newest signed checkpoint."""

    def leaf(self, index: int) -> bytes:
        """The exact bytes of an entry."""

    def read_node(self, level: int, index: int) -> bytes:
        """One node of the tree."""


@dataclass(frozen=True)
class Proven:
    """One entry: its index, its exact bytes, and the proof file that it stands in the ledger."""

    index: int
    entry: bytes
    proof: bytes


def prove(log: Log, indices: Iterable[int]) -> tuple[bytes, tuple[Proven, ...]]:
    """The newest checkpoint's note, and a proof against it for each of the entries.

    Raises RefusedError when there is no checkpoint that covers them: then there is nothing to prove them by.
    """
    note = log.checkpoint()
    wanted = sorted(set(indices))
    if note is None:
        raise RefusedError(
            "the ledger has no signed checkpoint, so nothing in it can be proven",
            hint="make its key with `lockstep keys create`; the next operation signs all entries",
        )
    size = read_checkpoint(note).size
    if wanted and wanted[-1] >= size:
        raise RefusedError(
            f"the newest signed checkpoint covers {size} entries, but entry {wanted[-1]} is to be proven",
            hint="the ledger's key cannot be read: see `lockstep keys show`",
        )
    read = functools.cache(log.read_node)  # the proofs of one tree share most of their hashes
    return note, tuple(
        Proven(index, log.leaf(index), make_proof(index, inclusion_proof(index, size, read), note)) for index in wanted
    )


def read_checkpoint(note: bytes) -> Checkpoint:
    """The checkpoint of a note, whoever signed it."""
    text, gap, _ = note.decode(errors="replace").rpartition("\n\n")
    return parse_checkpoint(text + "\n" if gap else "")


def write_decision_proof(
    fleet: Fleet, log: Log, verifiers: Iterable[Verifier], answer: Mapping[str, object], found: Decision, path: Path
) -> None:
    """Write one JSON file that proves what an answer rests on: its entries, and its versions' manifests.

    A manifest is left out when MLflow cannot give it: its digest stands in the entry of its registration.
    """
    note, proven = prove(log, found.entries)
    manifests = {}
    for one in found.candidates:
        if one.version is not None:
            version = Version(found.model, one.version.label, one.version.digest, one.version.run_id)
            try:
                manifests[version.digest] = fleet.registry.manifest(version).to_bytes().decode()
            except LockstepError as error:
                fleet.say(f"{version}: its manifest is not in the proof: {error}")
    document = {
        "format": DECISION_FORMAT,
        "answer": answer,
        "keys": [verifier.vkey for verifier in verifiers],
        "checkpoint": note.decode(),
        "entries": [{"index": one.index, "entry": one.entry.decode(), "proof": one.proof.decode()} for one in proven],
        "manifests": manifests,
    }
    write_whole(path, (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())


def verify_decision_proof(content: bytes, trusted: Iterable[Verifier] = ()) -> tuple[str, ...]:
    """What is wrong with a decision's proof file, one sentence each; empty when it proves its answer.

    `trusted` are the keys that are known from elsewhere; without any, those that the file itself names are taken.
    """
    try:
        document = json.loads(content)
        if document["format"] != DECISION_FORMAT:
            return (f"its format is {document['format']!r}, not {DECISION_FORMAT!r}",)
        verifiers = tuple(trusted) or tuple(parse_vkey(key) for key in document["keys"])
        note = document["checkpoint"].encode()
        origin = read_checkpoint(note).origin
        checkpoint = open_checkpoint(note, origin, verifiers)
        problems: list[str] = []
        bodies: dict[int, Mapping[str, object]] = {}
        for one in document["entries"]:
            index, entry = one["index"], one["entry"].encode()
            try:
                found, vouched = verify_proof(one["proof"].encode(), entry, origin, verifiers)
            except (ProofError, NoteError) as error:
                problems.append(f"entry {index}: {error}")
                continue
            if found != index or vouched != checkpoint:
                problems.append(f"entry {index}: its proof is of entry {found} in a tree of {vouched.size}")
            leaf = json.loads(entry)
            bodies[index] = leaf["body"]
            if leaf["model"] != document["answer"]["model"]:
                problems.append(f"entry {index} is of the model {leaf['model']!r}")
        problems += _check_answer(document["answer"], bodies, document["manifests"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return (f"it is no decision's proof: {error!r}",)
    except (ProofError, NoteError) as error:
        return (f"checkpoint: {error}",)
    return tuple(problems)


def _check_answer(
    answer: Mapping[str, Any], bodies: Mapping[int, Mapping[str, object]], manifests: Mapping[str, str]
) -> list[str]:
    """Whether the entries say what the answer says."""
    problems = []
    listed, versions, cloud = answer["entries"], answer["versions"], answer["cloud"]
    if not isinstance(listed, list) or not isinstance(versions, list):
        raise TypeError("its answer lists no entries or no versions")
    missing = sorted(set(listed) - set(bodies))
    if missing:
        problems.append(f"the answer rests on entries that are not proven: {', '.join(map(str, missing))}")
    told = json.dumps([bodies[index] for index in bodies if _tells_of(bodies[index], str(cloud))])
    for version in versions:
        digest, seal = version["digest"], version["sealed_by_entry"]
        if answer["basis"] != "the cloud's captured request" and f'"{version["slot"]}"' not in told:
            problems.append(f"no proven entry tells of traffic on {version['slot']}")
        if seal is not None and bodies.get(seal, {}).get("digest") != digest:
            problems.append(f"entry {seal} does not register the digest {digest}")
        if digest in manifests and hashlib.sha256(manifests[digest].encode()).hexdigest() != digest:
            problems.append(f"the manifest of {digest} is not the one that was sealed")
    return problems + _check_interval(answer, versions, bodies)


def _check_interval(
    answer: Mapping[str, Any], versions: list[Mapping[str, Any]], bodies: Mapping[int, Mapping[str, object]]
) -> list[str]:
    """Whether nobody was left out, nobody's share changed, and the answer is no surer than its interval."""
    interval, cloud, captured = answer["interval"], str(answer["cloud"]), answer["basis"] == Basis.CAPTURED.value
    certain = interval["certainty"] == Certainty.CERTAIN.value
    problems = []
    if answer["sure"] and (len(versions) != 1 or not (captured or certain)):
        problems.append("it calls an answer sure that its own interval does not")
    proven = [bodies[index] for index in interval["entries"] if index in bodies]
    told: dict[str, set[int]] = {}
    for body in proven:
        for key in ("after", "wanted") if not certain else ("after",):
            for slot, weight in mapping(mapping(body, key), cloud).items():
                if isinstance(weight, int) and weight:
                    told.setdefault(slot, set()).add(weight)
    if not captured:
        named = {str(one["slot"]): one["weights"] for one in versions}
        problems += [f"the entries tell of traffic on {slot} too" for slot in sorted(told.keys() - named.keys())]
        if certain:
            wrong = [slot for slot, weights in named.items() if set(weights) != told.get(slot, set())]
            problems += [f"the share of {slot} is not the one that the entries tell" for slot in sorted(wrong)]
    if certain:
        read_back = max((text(mapping(body, "verified"), cloud) for body in proven), default="")
        if not read_back or not _comes_before(read_back, interval["since"], answer["time"]):
            problems.append(f"no proven entry read {cloud} back before {answer['time']}, and at {interval['since']}")
        if interval["until"] is not None and not _comes_before(answer["time"], interval["until"]):
            problems.append("its time lies behind its interval")
    return problems


def _comes_before(*moments: str) -> bool:
    times = [datetime.fromisoformat(one) for one in moments]
    # Shown with fewer digits than they were noted with.
    return all(one <= other + timedelta(milliseconds=1) for one, other in itertools.pairwise(times))


def _tells_of(body: Mapping[str, object], cloud: str) -> bool:
    return any(isinstance(body.get(key), dict) and cloud in body[key] for key in ("after", "clouds"))  # type: ignore[operator]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all; raises RefusedError when its folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, scratch = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            Path(scratch).chmod(0o644)
            Path(scratch).replace(path)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise RefusedError(f"{path} cannot be written: {error.strerror}", hint="name another file") from error
