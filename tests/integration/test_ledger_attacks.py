"""Whoever owns the database can change it; none of it passes an audit, and the first bad entry is named."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lockstep.errors import ProofError
from lockstep.rules.note import Signer
from lockstep.rules.tlog_proof import verify_proof
from lockstep.stores.ledger import Audit
from tests.ledger_places import ORIGIN, SIGNER, Place, fill, first_flaw

COUNT = 21
VICTIM = 11
NAMED = (VICTIM, f"e{VICTIM}")


@pytest.fixture
def filled(place: Place) -> Place:
    ledger = place.open()
    fill(ledger, COUNT)
    assert ledger.verify().flaws == ()
    ledger.close()
    return place


def audit(place: Place) -> Audit:
    found = place.open().verify()
    with pytest.raises(ProofError, match="does not hold"):
        found.raise_if_bad()
    return found


def leaves(place: Place) -> list[bytes]:
    return list(place.open().leaves(0, COUNT))


def other(leaf: bytes) -> bytes:
    return leaf.replace(b'"number":', b'"number":9')


def test_an_edited_entry(filled: Place) -> None:
    leaf = other(filled.open().leaf(VICTIM))
    filled.attack("UPDATE entry SET leaf = :leaf WHERE number = :number", leaf=leaf, number=VICTIM)
    assert first_flaw(audit(filled)) == NAMED
    assert len(audit(filled).flaws) == 1, "what stands above an edited entry is not to blame"


@pytest.mark.parametrize("change", ["kind = 'nothing'", "model = 'other'", "at = at + 1", "event_id = 'mine'"])
def test_an_entry_hidden_from_those_who_look_for_it(filled: Place, change: str) -> None:
    filled.attack(f"UPDATE entry SET {change} WHERE number = :number", number=VICTIM)
    assert first_flaw(audit(filled)) == NAMED


def test_an_edited_entry_with_its_leaf_hash(filled: Place) -> None:
    from lockstep.rules.merkle import leaf_hash

    leaf = other(filled.open().leaf(VICTIM))
    filled.attack(
        "UPDATE entry SET leaf = :leaf WHERE number = :number",
        "UPDATE node SET hash = :hash WHERE level = 0 AND idx = :number",
        leaf=leaf, number=VICTIM, hash=leaf_hash(leaf),
    )  # fmt: skip
    assert first_flaw(audit(filled))[0] == VICTIM


def test_an_edited_entry_with_every_node_above_it(filled: Place) -> None:
    changed = leaves(filled)
    changed[VICTIM] = other(changed[VICTIM])
    filled.rewrite(changed, None)
    assert first_flaw(audit(filled)) == NAMED


def test_a_deleted_entry(filled: Place) -> None:
    filled.attack("DELETE FROM entry WHERE number = :number", number=VICTIM)
    found = audit(filled)
    assert first_flaw(found)[0] == VICTIM
    assert "missing" in str(found.first)


def test_a_deleted_entry_whose_followers_move_up(filled: Place) -> None:
    filled.attack("DELETE FROM entry WHERE number = :number", number=VICTIM)
    for number in range(VICTIM + 1, COUNT):
        filled.execute(f"UPDATE entry SET number = {number - 1} WHERE number = {number}")
    assert first_flaw(audit(filled))[0] == VICTIM


def test_an_inserted_entry(filled: Place) -> None:
    for number in reversed(range(VICTIM, COUNT)):
        filled.attack(f"UPDATE entry SET number = {number + 1} WHERE number = {number}")
    leaf = filled.open().leaf(0).replace(b'"e0"', b'"mine"')
    filled.execute(
        f"INSERT INTO entry (number, event_id, at, kind, model, leaf) "
        f"SELECT {VICTIM}, 'mine', at, kind, model, :leaf FROM entry WHERE number = 0",
        leaf=leaf,
    )
    assert first_flaw(audit(filled)) == (VICTIM, "mine")


def test_an_entry_put_at_the_end_with_its_nodes_but_without_the_key(filled: Place) -> None:
    filled.open(signer=None).append("mine", "approval", "tumour", "ann", {})
    found = audit(filled)
    assert first_flaw(found) == (COUNT, "mine")
    assert "under no signed checkpoint" in str(found.first)


def test_two_entries_in_each_others_place(filled: Place) -> None:
    filled.attack(
        f"UPDATE entry SET number = -1 WHERE number = {VICTIM}",
        f"UPDATE entry SET number = {VICTIM} WHERE number = {VICTIM + 1}",
        f"UPDATE entry SET number = {VICTIM + 1} WHERE number = -1",
    )
    assert first_flaw(audit(filled)) == (VICTIM, f"e{VICTIM + 1}")


def test_two_entries_in_each_others_place_with_every_node_above_them(filled: Place) -> None:
    changed = leaves(filled)
    changed[VICTIM], changed[VICTIM + 1] = changed[VICTIM + 1], changed[VICTIM]
    filled.rewrite(changed, None)
    assert first_flaw(audit(filled))[0] == VICTIM


def test_entries_cut_from_the_end(filled: Place) -> None:
    filled.attack(f"DELETE FROM entry WHERE number >= {VICTIM}")
    assert first_flaw(audit(filled))[0] == VICTIM


def cut(place: Place, size: int) -> None:
    """The database as it was when it had `size` entries."""
    beyond = " OR ".join(f"(level = {level} AND idx >= {size >> level})" for level in range(20))
    place.attack(
        f"DELETE FROM entry WHERE number >= {size}",
        f"DELETE FROM node WHERE {beyond}",
        f"DELETE FROM checkpoint WHERE size > {size}",
    )


def test_a_database_put_back_to_an_older_state(filled: Place) -> None:
    cut(filled, VICTIM)
    found = audit(filled)
    assert first_flaw(found)[0] == VICTIM
    assert "older state" in str(found.first)
    assert f"{COUNT} entries" in str(found.first)


def test_a_database_put_back_and_used_again(filled: Place) -> None:
    cut(filled, VICTIM)
    ledger = filled.open()
    for number in range(COUNT):
        ledger.append(f"again {number}", "test.intent", "tumour", "ann", {})
    assert any("has seen" in problem for problem in ledger.problems)
    assert first_flaw(audit(filled))[0] <= COUNT
    assert "checkpoint" in str(audit(filled).first)


def test_another_history_signed_with_the_real_key(filled: Place) -> None:
    changed = leaves(filled)
    changed[VICTIM] = other(changed[VICTIM])
    kept_elsewhere = filled.open().checkpoint()
    assert kept_elsewhere is not None
    filled.rewrite(changed, SIGNER)
    assert str(filled.spool.with_suffix(".checkpoint")) in str(audit(filled).first)
    filled.spool.with_suffix(".checkpoint").unlink()
    assert filled.open().verify().flaws == (), "only who has seen an older checkpoint can tell"
    (flaw,) = filled.open().verify({"aws": kept_elsewhere}).flaws
    assert "aws" in flaw.what


def test_another_history_signed_with_another_key(filled: Place) -> None:
    changed = leaves(filled)
    changed[VICTIM] = other(changed[VICTIM])
    filled.rewrite(changed, Signer(ORIGIN, random.Random(8).randbytes(32)))
    assert first_flaw(audit(filled))[0] == 0


def test_a_node_or_a_checkpoint_that_was_altered_or_taken_away(filled: Place) -> None:
    filled.attack("UPDATE node SET hash = :hash WHERE level = 2 AND idx = 1", hash=bytes(32))
    assert first_flaw(audit(filled)) == (7, "e7")
    filled.attack(f"DELETE FROM checkpoint WHERE size = {COUNT}")
    assert first_flaw(audit(filled)) == (7, "e7")
    (_, unsigned) = audit(filled).flaws
    assert (unsigned.index, unsigned.event_id) == (COUNT - 1, f"e{COUNT - 1}")
    filled.attack("UPDATE checkpoint SET note = :note WHERE size = 3", note=b"nonsense")
    assert first_flaw(audit(filled))[0] == 2


def test_a_proof_is_good_for_its_own_tree_alone(place: Place, tmp_path: Path) -> None:
    ledger = place.open()
    fill(ledger, 8)
    twin = Place(str(tmp_path / "twin.db"), tmp_path / "twin.spool").open(Signer("twin", SIGNER.private))
    fill(twin, 8)
    proof, leaf = ledger.proof(3), ledger.leaf(3)
    assert verify_proof(proof, leaf, ORIGIN, [SIGNER.verifier])[0] == 3
    with pytest.raises(ProofError):
        verify_proof(twin.proof(3), leaf, ORIGIN, [SIGNER.verifier])
    with pytest.raises(ProofError):
        verify_proof(proof, twin.leaf(3), ORIGIN, [SIGNER.verifier])


def test_a_damaged_entry_is_named_when_it_is_read(filled: Place) -> None:
    filled.attack("UPDATE entry SET leaf = :leaf WHERE number = :number", leaf=b"{}", number=VICTIM)
    with pytest.raises(ProofError, match=f"entry {VICTIM}"):
        filled.open().entries()
    assert first_flaw(audit(filled)) == NAMED


def test_a_missing_node_stops_no_append(filled: Place) -> None:
    filled.attack("DELETE FROM node WHERE level = 4")
    ledger = filled.open()
    assert ledger.append("more", "rollback.intent", "tumour", "ann", {}).number == -1
    assert any("damaged" in problem for problem in ledger.problems)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("entry", "leaf", "'text'"),
        ("entry", "leaf", "4611686018427387904"),
        ("entry", "leaf", "1.5"),
        ("entry", "kind", "x'00'"),
        ("node", "hash", "4611686018427387904"),
        ("node", "idx", "'nowhere'"),
        ("node", "level", "x'00'"),
        ("checkpoint", "note", "'text'"),
        ("checkpoint", "note", "-1"),
        ("checkpoint", "size", "0"),
        ("checkpoint", "size", "-1"),
    ],
)
def test_a_cell_of_another_type_is_a_flaw_and_stops_nothing(
    tmp_path: Path, table: str, column: str, value: str
) -> None:
    """SQLite takes any type in any column; 2**62 as a number of bytes would be more than any machine has."""
    filled = Place(str(tmp_path / "ledger.db"), tmp_path / "ledger.spool")
    fill(filled.open(), COUNT)
    number = {"entry": f"number = {VICTIM}", "node": f"level = 0 AND idx = {VICTIM}", "checkpoint": f"size = {COUNT}"}
    filled.attack(f"UPDATE {table} SET {column} = {value} WHERE {number[table]}")
    assert audit(filled).flaws
    ledger = filled.open()
    ledger.condition()
    assert ledger.append(f"e{VICTIM}", "rollback.intent", "tumour", "ann", {}).event_id == f"e{VICTIM}"
    assert ledger.append("new", "rollback.intent", "tumour", "ann", {}).event_id == "new"


def test_an_entry_outside_of_the_tree(filled: Place) -> None:
    filled.attack(
        "INSERT INTO entry (number, event_id, at, kind, model, leaf) "
        "SELECT -1, 'mine', at, kind, model, leaf FROM entry WHERE number = 3"
    )
    found = audit(filled)
    assert any("'mine'" in str(flaw) for flaw in found.flaws)


def test_nodes_that_belong_to_nothing(filled: Place) -> None:
    filled.attack("INSERT INTO node (level, idx, hash) SELECT 7, 5, hash FROM node WHERE level = 0 AND idx = 0")
    assert "nodes" in str(audit(filled).first)


def test_a_trigger_that_is_not_ours(filled: Place) -> None:
    """It could drop or change an entry at the moment at which it is appended."""
    if filled.sqlite:
        mine = "CREATE TRIGGER mine BEFORE INSERT ON entry WHEN NEW.kind = 'x' BEGIN SELECT RAISE(IGNORE); END"
        filled.attack(mine)
    else:
        filled.attack(
            "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
            "CREATE TRIGGER mine BEFORE INSERT ON entry FOR EACH ROW WHEN (NEW.kind = 'x') EXECUTE FUNCTION mine()",
        )
    assert any("trigger mine" in str(flaw) for flaw in audit(filled).flaws)


def test_a_trigger_of_ours_that_does_nothing_any_more(filled: Place) -> None:
    if filled.sqlite:
        filled.execute(
            "DROP TRIGGER entry_no_delete",
            "CREATE TRIGGER entry_no_delete BEFORE DELETE ON entry WHEN 0 BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
    else:
        filled.execute(
            "CREATE OR REPLACE FUNCTION ledger_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RETURN OLD; END $$"
        )
    assert any("trigger entry_no_" in str(flaw) and "altered" in str(flaw) for flaw in audit(filled).flaws)


@pytest.fixture
def peopled(place: Place) -> Place:
    """Ann and Bob did something."""
    ledger = place.open()
    for name in ("Ann", "Bob"):
        ledger.append(name, "rollback.intent", "tumour", name, {})
    assert ledger.verify().flaws == ()
    ledger.close()
    return place


def test_one_person_put_in_anothers_place(peopled: Place) -> None:
    peopled.execute(
        "UPDATE person SET name = 'x' WHERE name = 'Ann'", "UPDATE person SET name = 'Ann' WHERE name = 'Bob'"
    )
    ledger = peopled.open()
    assert len([flaw for flaw in audit(peopled).flaws if "the name of person:" in str(flaw)]) == 2
    assert all(entry.actor.startswith("person:") for entry in ledger.entries()), "nobody is blamed for what Bob did"
    assert ledger.append("more", "rollback.intent", "tumour", "Ann", {}).actor == "Ann", "and work goes on"


def test_a_person_who_was_taken_out(peopled: Place) -> None:
    peopled.execute("DELETE FROM person WHERE name = 'Ann'")
    assert "no entry says that it was to be forgotten" in str(audit(peopled).first)


def test_a_person_who_was_forgotten_is_no_flaw_and_leaves_no_salt(peopled: Place) -> None:
    ledger = peopled.open()
    (pseudonym,) = ledger.forget("Ann", "Ann")
    assert ledger.verify().flaws == ()
    assert ledger.entries()[0].actor == pseudonym
    peopled.execute(f"INSERT INTO person (pseudonym, name) VALUES ('{pseudonym}', 'Carl')")
    assert pseudonym in str(audit(peopled).first), "nobody can be put there later"
