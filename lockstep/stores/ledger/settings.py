"""What a person configures of the ledger: where it lies, what it is called, how long its copies are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator

DEFAULT_DATABASE: Final = ".lockstep/ledger.db"
DEFAULT_ORIGIN: Final = "lockstep/ledger"
POSTGRES: Final = "postgresql+psycopg://"
#: Beside lockstep.yaml when the database is on another machine.
SPOOL: Final = ".lockstep/ledger.spool"


class LedgerSettings(BaseModel):
    """The record of what was done; a text alone stands for its `database`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database: Annotated[
        str,
        Field(
            min_length=1,
            description="Path of a SQLite file, relative to this file, or postgresql+psycopg://USER@HOST/NAME.",
        ),
    ] = DEFAULT_DATABASE
    password: Annotated[SecretStr | None, Field(description="Password of the PostgreSQL user.")] = None
    origin: Annotated[
        str,
        Field(
            pattern=r"^[^\s+]{1,200}$",
            description="Name of this ledger in its checkpoints; no other ledger may have it, and it stays.",
        ),
    ] = DEFAULT_ORIGIN
    retention_days: Annotated[
        int, Field(ge=1, description="Days for which the clouds' copies cannot be deleted or overwritten.")
    ] = 400
    spool: Annotated[
        str | None,
        Field(
            description="Folder for entries that cannot be written, until they can; beside the SQLite file when left "
            "out, .lockstep/ledger.spool for PostgreSQL."
        ),
    ] = None

    @field_validator("database")
    @classmethod
    def _known_database(cls, database: str) -> str:
        if database.startswith(("postgresql://", "postgres://")):
            return POSTGRES + database.partition("://")[2]
        if "://" in database and not database.startswith(POSTGRES):
            raise ValueError(f"the ledger is a SQLite file or {POSTGRES}…, not {database.partition('://')[0]}://")
        return database

    @property
    def is_file(self) -> bool:
        """Whether it is a SQLite file."""
        return "://" not in self.database

    def placed(self, folder: Path) -> LedgerSettings:
        """The same with paths taken from `folder`."""

        def place(path: str) -> str:
            return str((folder / Path(path).expanduser()).absolute())

        spool = self.spool or (None if self.is_file else SPOOL)
        return self.model_copy(
            update={
                "database": place(self.database) if self.is_file else self.database,
                "spool": place(spool) if spool else None,
            }
        )


def _from_text(given: object) -> object:
    return {"database": given} if isinstance(given, str) else given


#: `ledger: PATH` and `ledger: {database: PATH, …}` mean the same.
AnyLedger = Annotated[LedgerSettings, BeforeValidator(_from_text, json_schema_input_type=str | LedgerSettings)]
