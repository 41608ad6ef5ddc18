"""What one cloud holds of versions, compared with what was sealed: replica, native record, slot, answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from lockstep.clouds.base import Cloud, Row
from lockstep.errors import LockstepError, RefusedError
from lockstep.operations.fleet import Fleet
from lockstep.operations.intact import replica_problems
from lockstep.operations.known_versions import Known
from lockstep.operations.probe import PROBES, with_probe
from lockstep.operations.questions import Look, NothingToLookAtError, answer
from lockstep.operations.verify_mlflow import Share
from lockstep.rules.findings import ANSWERS, BYTES, QUESTIONS, RECORD, SEAL, Check, Finding
from lockstep.rules.manifest import Manifest
from lockstep.rules.state import CloudState, Version
from lockstep.stores.artifacts import MANIFEST, Replicas


def check_cloud(
    fleet: Fleet,
    cloud: Cloud,
    chosen: Sequence[Known],
    manifests: Mapping[Version, Manifest | None],
    share: Share,
    slots: Collection[str] | None,
    asked: Collection[str] = QUESTIONS,
) -> tuple[Check, ...]:
    """Every question that is `asked` about every version here; with `slots`, whatever else takes traffic is named."""
    replicas = fleet.replicas(cloud)
    checks: list[Check] = []
    state = cloud.observe(fleet.model)
    if slots is not None:
        told = tuple(
            f"slot {slot.name} of {state.endpoint} takes {slot.weight} % of the traffic and is no sealed version's"
            for slot in state.slots
            if slot.weight and slot.name not in slots
        )
        checks += [Check(None, cloud.name, ANSWERS, Finding.ALTERED, told)] if told else []
    for known in chosen:
        fleet.say(f"looking at {known.version}", cloud.name)
        checks += _Questions(fleet, cloud, replicas, state, known, manifests[known.version], share).answers(asked)
    return tuple(checks)


class _Questions:
    """What is asked of one version on one cloud."""

    def __init__(
        self,
        fleet: Fleet,
        cloud: Cloud,
        replicas: Replicas,
        state: CloudState,
        known: Known,
        manifest: Manifest | None,
        share: Share,
    ) -> None:
        self._fleet = fleet
        self._cloud = cloud
        self._replicas = replicas
        self._state = state
        self._known = known
        self._version = known.version
        self._manifest = manifest
        self._share = share

    def answers(self, asked: Collection[str]) -> list[Check]:
        """One check a question."""
        looks: dict[str, Look] = {
            SEAL: self._seal, BYTES: self._bytes, RECORD: self._record, ANSWERS: self._answers
        }  # fmt: skip
        return [answer(self._version, self._cloud.name, what, look) for what, look in looks.items() if what in asked]

    def _should_be_here(self) -> bool:
        return self._cloud.name in self._known.clouds

    def _seal(self) -> tuple[str, ...]:
        if self._replicas.is_committed(self._version):
            return replica_problems(self._replicas, self._version, self._fleet.keys)
        if not self._should_be_here():
            raise NothingToLookAtError("it is not replicated to this cloud")
        return (f"{self._version.prefix}/COMMIT is gone or changed: the replica was whole once",)

    def _bytes(self) -> tuple[str, ...]:
        if self._manifest is None:
            raise RefusedError("no intact manifest is left to compare its bytes with")
        committed = self._replicas.is_committed(self._version)
        if not committed and not self._should_be_here():
            raise NothingToLookAtError("it is not replicated to this cloud")

        def progress(text: str, done: int, total: int) -> None:
            self._fleet.say(text, self._cloud.name, done, total)

        found = self._replicas.check(self._version, self._manifest, progress, self._share(self._manifest))
        return tuple(
            f"{path[1:] if path.startswith('/') else f'files/{path}'} {problem}"
            for path, problem in sorted(found.problems.items())
            if path != MANIFEST or any(file.path == MANIFEST for file in self._manifest.files)
        )

    def _record(self) -> tuple[str, ...]:
        here = self._should_be_here() or self._state.slot(self._version.slot) is not None
        if not here and not self._replicas.is_committed(self._version):
            raise NothingToLookAtError("it is not replicated to this cloud")
        images = self._manifest.env.images if self._manifest is not None else {}
        return self._cloud.attest(self._version, images.get(self._cloud.name, ""))

    def _answers(self) -> tuple[str, ...]:
        slot = self._state.slot(self._version.slot)
        if slot is None:
            raise NothingToLookAtError("it has no slot on this cloud")
        if slot.digest and slot.digest != self._version.digest:
            return (f"slot {slot.name} was deployed with digest {slot.digest[:12]}",)
        if not slot.ready:
            raise NothingToLookAtError(f"its slot is not ready: {slot.status}")
        rows = self._rows()
        try:
            answers = [self._cloud.invoke(self._fleet.model, rows, slot=slot.name) for _ in range(PROBES)]
        except RefusedError as error:  # a cloud that routes by the split alone
            raise NothingToLookAtError(error.problem) from error
        wrong = {one.digest for one in answers} - {self._version.digest}
        if "" in wrong:
            raise RefusedError(f"slot {slot.name} answers without saying which digest it serves")
        return tuple(f"slot {slot.name} answers with digest {digest[:12]}" for digest in sorted(wrong))

    def _rows(self) -> Sequence[Row]:
        try:
            rows = with_probe(self._fleet, self._version).probe
        except LockstepError as error:
            raise NothingToLookAtError(f"there is no row to ask it with: {error.problem}") from error
        if not rows:
            raise NothingToLookAtError("there is no row to ask it with: set `probe:` of the model in lockstep.yaml")
        return rows
