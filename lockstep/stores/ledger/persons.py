"""Who a pseudonym is. Entries stay for ever and so hold pseudonyms; this mapping can forget a person.

A pseudonym is a salted commitment to the name: SHA-256 over a random salt and the name. So nobody who can write to the
mapping can put another person in somebody's place, and once name and salt are forgotten nothing leads back. Earlier
releases made random pseudonyms, of 16 digits, which prove nothing.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from lockstep.stores.ledger.tables import PERSON, SALT

#: What is no person stands in the entry as it is.
MACHINES: Final = ("alert:", "flow:", "machine:", "schedule:")
PREFIX: Final = "person:"
PSEUDONYM: Final = re.compile(r"person:(?:[0-9a-f]{16}|[0-9a-f]{32})")
RANDOM: Final = len(PREFIX) + 16  # characters of an earlier release's
SALT_BYTES: Final = 16


def is_person(actor: str) -> bool:
    """Whether `actor` is a name that an entry may not hold; whatever is not known as a machine is taken for one."""
    return bool(actor) and not actor.startswith(MACHINES) and not PSEUDONYM.fullmatch(actor)


def pseudonyms(connection: Connection, actors: Iterable[str]) -> Mapping[str, str]:
    """What stands for each actor, new pseudonyms included; the caller holds the writer's lock."""
    standing = {actor: actor for actor in actors}
    persons = {actor for actor in standing if is_person(actor)}
    if persons:
        standing.update({name: known for known, name in names(connection, persons).items()})
    for name in sorted(person for person in persons if standing[person] == person):
        # A row that is there all the same names a pseudonym that is not this person's: `lockstep ledger verify` tells.
        connection.execute(delete(PERSON).where(PERSON.c.name == name))
        salt = secrets.token_hex(SALT_BYTES)
        standing[name] = commitment(salt, name)
        connection.execute(insert(PERSON).values(pseudonym=standing[name], name=name))
        connection.execute(insert(SALT).values(pseudonym=standing[name], salt=salt))
    return standing


def commitment(salt: str, name: str) -> str:
    """The pseudonym that stands for `name` and for nobody else; `salt` is 32 hex digits."""
    return PREFIX + hashlib.sha256(f"{salt}\n{name}".encode()).hexdigest()[:32]


def names(connection: Connection, only: Iterable[str] | None = None) -> Mapping[str, str]:
    """Names by pseudonym, of everybody who is not forgotten (or of these names); what is not proven is left out."""
    rows = select(PERSON.c.pseudonym, PERSON.c.name, SALT.c.salt).join(
        SALT, SALT.c.pseudonym == PERSON.c.pseudonym, isouter=True
    )
    if only is not None:
        rows = rows.where(PERSON.c.name.in_(list(only)))
    return {pseudonym: name for pseudonym, name, salt in connection.execute(rows) if _proven(pseudonym, name, salt)}


def forged_names(connection: Connection) -> tuple[str, ...]:
    """Pseudonyms whose row names somebody whom they do not stand for."""
    known = names(connection)
    rows = connection.execute(select(PERSON.c.pseudonym)).scalars()
    return tuple(sorted(str(pseudonym) for pseudonym in rows if pseudonym not in known))


def forget(connection: Connection, name: str) -> tuple[str, ...]:
    """Remove a person's name; gives the pseudonyms that are nobody's now, none for a name that is unknown."""
    found = tuple(connection.execute(select(PERSON.c.pseudonym).where(PERSON.c.name == name)).scalars())
    connection.execute(delete(PERSON).where(PERSON.c.name == name))
    connection.execute(delete(SALT).where(SALT.c.pseudonym.in_(found)))
    return found


def _proven(pseudonym: object, name: object, salt: object) -> bool:
    if not isinstance(pseudonym, str) or not isinstance(name, str) or not PSEUDONYM.fullmatch(pseudonym):
        return False
    return len(pseudonym) == RANDOM or (isinstance(salt, str) and commitment(salt, name) == pseudonym)
