"""The ledger's tables, and the triggers that keep what is there as it is.

`entry` holds the leaves in their order, with columns to find them by; `node` every complete subtree of the tree;
`checkpoint` each signed note. `person` and `person_salt` alone may forget: they say, and prove, who a pseudonym is.
`lease` is no part of the record: it says who may write now (`stores/leases.py`). It lies here so that a database that
is put back to an older state takes fences and the entries that name them back together.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    bindparam,
    create_engine,
    inspect,
    text,
)

METADATA: Final = MetaData()
NUMBER: Final = BigInteger().with_variant(Integer, "sqlite")  # INTEGER: SQLite's own row number

ENTRY: Final = Table(
    "entry",
    METADATA,
    Column("number", NUMBER, primary_key=True, autoincrement=False),
    Column("event_id", Text, nullable=False, unique=True),
    Column("at", BigInteger, nullable=False),  # microseconds since 1970, UTC
    Column("kind", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("leaf", LargeBinary, nullable=False),
)
NODE: Final = Table(
    "node",
    METADATA,
    Column("level", SmallInteger, primary_key=True, autoincrement=False),
    Column("idx", BigInteger, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
CHECKPOINT: Final = Table(
    "checkpoint",
    METADATA,
    Column("size", NUMBER, primary_key=True, autoincrement=False),
    Column("note", LargeBinary, nullable=False),
)
PERSON: Final = Table(
    "person",
    METADATA,
    Column("pseudonym", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
)
LEASE: Final = Table(
    "lease",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("fence", BigInteger, nullable=False),
    Column("holder", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("urgent", Boolean, nullable=False),
    Column("version", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("place", Text, nullable=False),
    Column("started", Text, nullable=False),
    Column("since", Float(53), nullable=False),
    Column("beat", BigInteger, nullable=False),
)
SALT: Final = Table(
    "person_salt",
    METADATA,
    Column("pseudonym", Text, primary_key=True),
    Column("salt", Text, nullable=False),
)
KEPT: Final = (ENTRY, NODE, CHECKPOINT)
INDEX: Final = "CREATE INDEX IF NOT EXISTS entry_by_model ON entry (model, number)"

REFUSAL: Final = "the ledger is append-only"
SQLITE_TRIGGER: Final = (
    "CREATE TRIGGER IF NOT EXISTS {table}_no_{name} BEFORE {when} BEGIN SELECT RAISE(ABORT, '" + REFUSAL + "'); END"
)
POSTGRES_FUNCTION: Final = (
    "CREATE OR REPLACE FUNCTION ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION '" + REFUSAL + "'; END $$"
)
POSTGRES_TRIGGERS: Final = (
    "CREATE TRIGGER {table}_no_change BEFORE UPDATE OR DELETE ON {table} "
    "FOR EACH ROW EXECUTE FUNCTION ledger_append_only()",
    "CREATE TRIGGER {table}_no_truncate BEFORE TRUNCATE ON {table} "
    "FOR EACH STATEMENT EXECUTE FUNCTION ledger_append_only()",
)
#: A fence that was given out is never given out again.
FENCES: Final = "a fence only grows"
SQLITE_FENCES: Final = (
    "CREATE TRIGGER IF NOT EXISTS lease_no_lower BEFORE UPDATE ON lease WHEN NEW.fence < OLD.fence "
    "BEGIN SELECT RAISE(ABORT, '" + FENCES + "'); END",
    "CREATE TRIGGER IF NOT EXISTS lease_no_delete BEFORE DELETE ON lease "
    "BEGIN SELECT RAISE(ABORT, '" + FENCES + "'); END",
)
POSTGRES_FENCES: Final = (
    "CREATE OR REPLACE FUNCTION lease_fences() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION '" + FENCES + "'; END $$",
    "DROP TRIGGER IF EXISTS lease_no_lower ON lease",
    "CREATE TRIGGER lease_no_lower BEFORE UPDATE ON lease FOR EACH ROW "
    "WHEN (NEW.fence < OLD.fence) EXECUTE FUNCTION lease_fences()",
    "DROP TRIGGER IF EXISTS lease_no_delete ON lease",
    "CREATE TRIGGER lease_no_delete BEFORE DELETE ON lease FOR EACH ROW EXECUTE FUNCTION lease_fences()",
)
LEASE_NAMES: Final = ("lease_no_lower", "lease_no_delete")
SQLITE_NAMES: Final = (
    *(f"{table}_no_{name}" for table in KEPT for name in ("update", "delete", "replace")),
    *LEASE_NAMES,
)
POSTGRES_NAMES: Final = (*(f"{table}_no_{name}" for table in KEPT for name in ("change", "truncate")), *LEASE_NAMES)
#: These tell whether all that `create` makes is there: one look, instead of a writer's lock at every start.
SQLITE_COUNT: Final = "SELECT count(*) FROM sqlite_master WHERE type = 'trigger' AND name IN :names"
POSTGRES_COUNT: Final = (
    "SELECT count(*) FROM pg_trigger WHERE tgname IN :names AND tgenabled <> 'D' "
    "AND tgrelid IN (to_regclass('entry'), to_regclass('node'), to_regclass('checkpoint'), to_regclass('lease'))"
)
#: What the functions behind the triggers do.
POSTGRES_REFUSALS: Final = tuple(f"BEGIN RAISE EXCEPTION '{said}'; END" for said in (REFUSAL, FENCES))
SQLITE_SCHEMA: Final = "SELECT type, name, tbl_name, sql FROM sqlite_master"
COLUMNS: Final = frozenset(column.name for column in ENTRY.columns)


def blob(value: object) -> bytes:
    """A cell's bytes; none for a cell of another type, which SQLite lets anybody write and nothing here ever did."""
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else b""


def complete(connection: Connection) -> bool:
    """Whether tables and triggers are all there."""
    sqlite = connection.dialect.name == "sqlite"
    names = SQLITE_NAMES if sqlite else POSTGRES_NAMES
    count = text(SQLITE_COUNT if sqlite else POSTGRES_COUNT).bindparams(bindparam("names", names, expanding=True))
    # The salts came last: where they are, all tables are.
    return bool(connection.execute(count).scalar_one() == len(names)) and inspect(connection).has_table(SALT.name)


def foreign_objects(connection: Connection) -> tuple[str, ...]:
    """What acts on these tables and was not made here, or was altered: triggers, views, rules. One sentence each.

    With one of them a database can drop or alter an entry at the moment at which it is appended.
    """
    if connection.dialect.name == "sqlite":
        return _foreign_in_sqlite(connection)
    tables = [table.name for table in METADATA.sorted_tables]
    wanted: BindParameter[str] = bindparam("tables", tables, expanding=True)
    triggers = text(
        "SELECT c.relname, t.tgname, p.prosrc FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid "
        "JOIN pg_proc p ON p.oid = t.tgfoid "
        "WHERE NOT t.tgisinternal AND c.relname IN :tables AND pg_table_is_visible(c.oid)"
    ).bindparams(wanted)
    found = [
        f"the trigger {name} on the table {table} is not the ledger's, or was altered"
        for table, name, does in connection.execute(triggers)
        if name not in POSTGRES_NAMES or does.strip() not in POSTGRES_REFUSALS
    ]
    rules = text("SELECT tablename, rulename FROM pg_rules WHERE tablename IN :tables").bindparams(wanted)
    return (*found, *(f"the table {table} has a rule {name}" for table, name in connection.execute(rules)))


def _foreign_in_sqlite(connection: Connection) -> tuple[str, ...]:
    tables = {table.name for table in METADATA.sorted_tables}
    with create_engine("sqlite://").begin() as fresh:
        create(fresh)
        ours = {name: sql for _, name, _, sql in fresh.execute(text(SQLITE_SCHEMA))}
    told = []
    for kind, name, table, sql in connection.execute(text(SQLITE_SCHEMA)):
        if kind in ("trigger", "view") and table in tables and ours.get(name) != sql:
            told.append(f"the {kind} {name} on the table {table} is not the ledger's, or was altered")
    return tuple(told)


def create(connection: Connection) -> None:
    """Make what is missing; the caller holds the writer's lock."""
    METADATA.create_all(connection)
    connection.execute(text(INDEX))
    if connection.dialect.name == "sqlite":
        for table in KEPT:
            _create_sqlite_triggers(connection, table)
        for statement in SQLITE_FENCES:
            connection.execute(text(statement))
        return
    connection.execute(text(POSTGRES_FUNCTION))
    for statement in POSTGRES_FENCES:
        connection.execute(text(statement))
    for table in KEPT:
        for trigger, name in zip(POSTGRES_TRIGGERS, ("change", "truncate"), strict=True):
            connection.execute(text(f"DROP TRIGGER IF EXISTS {table.name}_no_{name} ON {table.name}"))
            connection.execute(text(trigger.format(table=table.name)))


def _create_sqlite_triggers(connection: Connection, table: Table) -> None:
    """REPLACE fires no trigger for what it deletes, so an insert over what is there is refused by itself."""
    same = [f"({' AND '.join(f'{key.name} = NEW.{key.name}' for key in table.primary_key.columns)})"]
    same += [f"{column.name} = NEW.{column.name}" for column in table.columns if column.unique]
    replace = f"INSERT ON {table.name} WHEN EXISTS (SELECT 1 FROM {table.name} WHERE {' OR '.join(same)})"  # noqa: S608
    for name, when in (("update", f"UPDATE ON {table.name}"), ("delete", f"DELETE ON {table.name}")):
        connection.execute(text(SQLITE_TRIGGER.format(table=table.name, name=name, when=when)))
    connection.execute(text(SQLITE_TRIGGER.format(table=table.name, name="replace", when=replace)))
