"""Who a pseudonym is. Entries stay for ever and so hold pseudonyms; this mapping can forget a person.

A pseudonym is random, not derived from the name: once the mapping has forgotten it, nothing leads back.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import Connection, delete, insert, select

from lockstep.stores.ledger.tables import PERSON

#: What is no person stands in the entry as it is.
MACHINES: Final = ("alert:", "flow:", "machine:", "schedule:")
PSEUDONYM: Final = re.compile(r"person:[0-9a-f]{16}")


def is_person(actor: str) -> bool:
    """Whether `actor` is a name that an entry may not hold; whatever is not known as a machine is taken for one."""
    return bool(actor) and not actor.startswith(MACHINES) and not PSEUDONYM.fullmatch(actor)


def pseudonyms(connection: Connection, actors: Iterable[str]) -> Mapping[str, str]:
    """What stands for each actor, new pseudonyms included; the caller holds the writer's lock."""
    standing = {actor: actor for actor in actors}
    persons = {actor for actor in standing if is_person(actor)}
    if persons:
        known = select(PERSON.c.name, PERSON.c.pseudonym).where(PERSON.c.name.in_(persons))
        standing.update((row.name, row.pseudonym) for row in connection.execute(known))
    for name in sorted(person for person in persons if standing[person] == person):
        standing[name] = f"person:{secrets.token_hex(8)}"
        connection.execute(insert(PERSON).values(pseudonym=standing[name], name=name))
    return standing


def names(connection: Connection) -> Mapping[str, str]:
    """Names by pseudonym, of everybody who is not forgotten."""
    return {row.pseudonym: row.name for row in connection.execute(select(PERSON.c.pseudonym, PERSON.c.name))}


def forget(connection: Connection, name: str) -> tuple[str, ...]:
    """Remove a person's name; gives the pseudonyms that are nobody's now, none for a name that is unknown."""
    found = tuple(connection.execute(select(PERSON.c.pseudonym).where(PERSON.c.name == name)).scalars())
    connection.execute(delete(PERSON).where(PERSON.c.name == name))
    return found
