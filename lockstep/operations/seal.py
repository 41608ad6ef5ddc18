"""Is a version still what was sealed? A cheap look, for before it is replicated, deployed or rolled back to."""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.errors import DigestMismatchError
from lockstep.rules.manifest import SCHEMA_V1
from lockstep.rules.state import Version
from lockstep.stores.keys import Keys
from lockstep.stores.model_signature import verify_signature
from lockstep.stores.registry import Registry


@dataclass(frozen=True)
class Seal:
    """What looking at a version's seal found.

    `problems` say what is broken, empty for one that holds; `doubts` what could not be told, which breaks nothing.
    `signer` is the hex SHA-256 of the public key that signed, "" where none could be told.
    """

    version: Version
    schema: str = ""
    content: str = ""
    signer: str = ""
    problems: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing contradicts that this is the version that was sealed."""
        return not self.problems


def check_seal(registry: Registry, version: Version, keys: Keys) -> Seal:
    """Look at manifest and signature: does one hash to the version's digest, is the other for it and by our key?

    Reads two small files and no bytes of the model. A broken seal is an answer and not an error; raised are only
    errors of reaching MLflow, and NotFoundError for a version that is no longer there.
    """
    try:
        manifest = registry.manifest(version)
    except DigestMismatchError as error:
        return Seal(version, problems=(error.problem,))
    seal = Seal(version, manifest.schema, manifest.content)
    if manifest.schema == SCHEMA_V1:
        return _with(seal, doubts=("it was sealed by an earlier release, which did not sign",))
    try:
        signature = registry.signature(version)
    except DigestMismatchError as error:
        return _with(seal, problems=(error.problem,))
    if signature is None:
        return _with(seal, problems=(f"the signature of {version} is gone",))
    if not keys.signing_public:
        return _with(seal, doubts=("there is no public key here to check its signature with",))
    try:
        signer = verify_signature(signature, manifest, keys.signing_public, str(version))
    except DigestMismatchError as error:
        return _with(seal, problems=(error.problem,))
    return Seal(version, manifest.schema, manifest.content, signer)


def _with(seal: Seal, problems: tuple[str, ...] = (), doubts: tuple[str, ...] = ()) -> Seal:
    return Seal(seal.version, seal.schema, seal.content, seal.signer, problems, doubts)
