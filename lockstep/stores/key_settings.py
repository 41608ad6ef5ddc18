"""What a person configures of the keys; apart from what reads them, since every command reads the configuration."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr

LEDGER_KEY, LEDGER_VKEYS = "ledger.key", "ledger.vkeys"
SIGNING_KEY, SIGNING_PUB = "signing.key", "signing.pub"
LEDGER_VARIABLE: Final = "LOCKSTEP_LEDGER_KEY"
SIGNING_VARIABLE: Final = "LOCKSTEP_SIGNING_KEY"


class KeySettings(BaseModel):
    """Where the keys are that sign the ledger and the versions."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    folder: Annotated[str, Field(min_length=1, description="Folder of the keys' files, relative to this file.")] = (
        ".lockstep/keys"
    )
    ledger_key: Annotated[
        SecretStr | None,
        Field(description=f"The ledger's private key in one line; else ${LEDGER_VARIABLE}, else {LEDGER_KEY}."),
    ] = None
    signing_key: Annotated[
        SecretStr | None,
        Field(description=f"The versions' private key, PEM; else ${SIGNING_VARIABLE}, else {SIGNING_KEY}."),
    ] = None
    verifiers: Annotated[
        tuple[str, ...],
        Field(description=f"Verifier keys of the ledger that are trusted besides those in {LEDGER_VKEYS}."),
    ] = ()
