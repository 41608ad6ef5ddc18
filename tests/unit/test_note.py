from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.errors import NoteError, ProofError
from lockstep.rules.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, sign_checkpoint
from lockstep.rules.merkle import inclusion_proof, root
from lockstep.rules.note import Signer, Verifier, key_id, open_note, parse_private, parse_vkey, sign
from lockstep.rules.tlog_proof import make_proof, verify_proof
from tests.trees import Tree, flipped

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "vectors" / "tlog.json").read_text())
LOG, NOTES = VECTORS["log"], VECTORS["notes"]
ORIGIN = "example.com/log/testdata"
PETER, ENOCH = parse_vkey(NOTES["peter"]), parse_vkey(NOTES["enoch"])
MINE = Signer("lockstep/ledger", bytes(range(32)))
OTHERS = Signer("lockstep/ledger", bytes(32))
ENTRIES = [leaf.encode() for leaf in LOG["leaves"]]


# -- keys ----------------------------------------------------------------------------------------------------------


def test_public_keys_are_read_and_written_as_by_others() -> None:
    for text in (NOTES["peter"], NOTES["enoch"], NOTES["foo_key"], LOG["public_key"]):
        assert parse_vkey(text).vkey == text
    for private, public in ((NOTES["peter_private"], NOTES["peter"]), (LOG["private_key"], LOG["public_key"])):
        signer = parse_private(private)
        assert signer.private_text == private
        assert signer.verifier.vkey == public


@pytest.mark.parametrize("text", [NOTES["peter"], NOTES["peter_private"]])
def test_every_mangled_key_is_refused(text: str) -> None:
    parse = parse_private if text.startswith("PRIVATE") else parse_vkey
    parts = {text[begin:end] for begin in range(len(text)) for end in range(begin, len(text))} - {text}
    shifted = {text[:at] + chr(ord(text[at]) + 1) + text[at + 1 :] for at in range(len(text))}
    for wrong in (*parts, *shifted):
        with pytest.raises(NoteError) as caught:
            parse(wrong)
        assert parse is parse_vkey or "YEKFALVFGyNhPJEMzD1QIDr" not in str(caught.value)
        assert caught.value.__cause__ is None  # which would show the key in a traceback


@pytest.mark.parametrize(
    "text", [*NOTES["bad_keys"], "", "a+b", "a b+c74f20a3+ARpc", "PeterNeumann+C74F20A3+" + "A" * 44]
)
def test_wrong_keys_are_refused(text: str) -> None:
    with pytest.raises(NoteError):
        parse_vkey(text)


def test_a_signer_keeps_its_key_out_of_its_repr() -> None:
    assert repr(MINE) == "Signer(name='lockstep/ledger')"


@pytest.mark.parametrize(("name", "key"), [("", bytes(32)), ("a b", bytes(32)), ("a+b", bytes(32)), ("a", bytes(31))])
def test_names_and_keys_that_no_note_can_carry_are_refused(name: str, key: bytes) -> None:
    with pytest.raises(NoteError):
        Signer(name, key)
    with pytest.raises(NoteError):
        Verifier(name, key_id(name, key), key)


# -- notes ---------------------------------------------------------------------------------------------------------


def test_signing_gives_the_bytes_that_go_gives() -> None:
    note = sign(NOTES["text"], parse_private(NOTES["peter_private"]))
    assert note.decode() == NOTES["text"] + "\n" + NOTES["peter_signature"]


def test_notes_signed_by_others_are_opened() -> None:
    both = (NOTES["text"] + "\n" + NOTES["peter_signature"] + NOTES["enoch_signature"]).encode()
    assert open_note(both, [PETER]) == (NOTES["text"], ("PeterNeumann",))
    assert open_note(both, [PETER, ENOCH, ENOCH]) == (NOTES["text"], ("PeterNeumann", "EnochRoot"))
    foo = NOTES["foo"].encode()
    assert open_note(foo, [parse_vkey(NOTES["foo_key"])]) == ("This is an example message.\n", ("example.com/foo",))


@pytest.mark.parametrize(
    ("note", "signed_by"), [("poem", "quasimodo.example/salvatore"), ("cosigned", "witness.example")]
)
def test_a_note_that_no_known_key_signed_is_refused_and_says_who_did(note: str, signed_by: str) -> None:
    with pytest.raises(NoteError, match=signed_by) as caught:
        open_note(NOTES[note].encode(), [PETER])
    assert "keys show" in caught.value.hint


@pytest.mark.parametrize("note", [*NOTES["bad_notes"], "", "\n", "\n\n"])
def test_malformed_notes_are_refused(note: str) -> None:
    with pytest.raises(NoteError):
        open_note(note.encode(), [PETER])


def test_a_wrong_signature_of_a_known_key_spoils_the_note() -> None:
    signature = NOTES["peter_signature"]
    spoilt = signature[:60] + "ABCD" + signature[60:]
    for lines in (spoilt, spoilt + NOTES["enoch_signature"], NOTES["enoch_signature"] + spoilt):
        with pytest.raises(NoteError, match="PeterNeumann"):
            open_note((NOTES["text"] + "\n" + lines).encode(), [PETER, ENOCH])
    # The same name with another key id is another key: its signature says nothing, and spoils nothing.
    strange = signature.replace("x08g", "xxxx")
    assert open_note((NOTES["text"] + "\n" + strange + signature).encode(), [PETER])[1] == ("PeterNeumann",)
    with pytest.raises(NoteError, match="no known key"):
        open_note((NOTES["text"] + "\n" + strange).encode(), [PETER])


def test_a_note_with_too_many_signatures_is_refused_unread() -> None:
    note = (NOTES["text"] + "\n" + NOTES["peter_signature"] * 101).encode()
    with pytest.raises(NoteError, match="100"):
        open_note(note, [PETER])
    assert open_note((NOTES["text"] + "\n" + NOTES["peter_signature"] * 16).encode(), [PETER])[1] == ("PeterNeumann",)


@pytest.mark.parametrize("text", ["", "no end", "a\tb\n", "a\r\n"])
def test_texts_that_no_note_can_hold_are_not_signed(text: str) -> None:
    with pytest.raises(NoteError):
        sign(text, MINE)


def test_a_note_is_not_signed_by_nobody() -> None:
    with pytest.raises(NoteError):
        sign("text\n")


texts = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n"), max_size=60).map(
    lambda t: t + "\n"
)


@given(texts)
def test_every_text_that_is_signed_opens_again(text: str) -> None:
    assert open_note(sign(text, MINE, OTHERS), [OTHERS.verifier, MINE.verifier]) == (text, ("lockstep/ledger",) * 2)


@given(texts, st.data())
def test_every_changed_note_is_refused(text: str, data: st.DataObject) -> None:
    note = sign(text, MINE)
    changed = flipped(note, data.draw(st.integers(0, 8 * len(note) - 1)))
    with pytest.raises(NoteError):
        open_note(changed, [MINE.verifier])


# -- checkpoints ---------------------------------------------------------------------------------------------------


def test_checkpoints_are_those_of_the_public_log() -> None:
    tree = Tree(ENTRIES)
    signer, verifiers = parse_private(LOG["private_key"]), [parse_vkey(LOG["public_key"])]
    assert len(LOG["checkpoints"]) == 16
    for size, note in enumerate(LOG["checkpoints"]):
        ours = Checkpoint(ORIGIN, size, root(size, tree.read))
        assert sign_checkpoint(ours, signer).decode() == note
        assert open_checkpoint(note.encode(), ORIGIN, verifiers) == ours


def test_the_example_of_the_specification_is_read() -> None:
    text, _, _ = NOTES["cosigned"].partition("\n\n")
    checkpoint = parse_checkpoint(text + "\n")
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text() == text + "\n"
    more = parse_checkpoint(text + "\nfirst extension\nsecond\n")
    assert more.extensions == ("first extension", "second")
    assert parse_checkpoint(more.text()) == more


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "log\n1\n",
        f"log\n1\n{ROOT}",
        f"\n1\n{ROOT}\n",
        f"log\n01\n{ROOT}\n",
        f"log\n-1\n{ROOT}\n",
        f"log\n1 \n{ROOT}\n",
        f"log\n٣\n{ROOT}\n",
        f"log\n{2**70}\n{ROOT}\n",
        f"log\n1\n{ROOT[:-4]}\n",
        f"log\n1\n{ROOT[:-2]}B=\n",
        f"log\n1\n{ROOT}\n\n",
        f"log\n1\n{ROOT}\n\nextension\n",
    ],
)
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(ProofError):
        parse_checkpoint(text)


def test_a_checkpoint_of_another_log_or_of_a_stranger_is_refused() -> None:
    note = sign_checkpoint(Checkpoint("lockstep/ledger", 3, bytes(32)), MINE)
    with pytest.raises(NoteError, match="another/log"):
        open_checkpoint(note, "another/log", [MINE.verifier])
    with pytest.raises(NoteError):
        open_checkpoint(note, "lockstep/ledger", [OTHERS.verifier])


def test_after_a_rotation_the_old_checkpoints_still_open() -> None:
    old = sign_checkpoint(Checkpoint("lockstep/ledger", 3, bytes(32)), MINE)
    new = sign_checkpoint(Checkpoint("lockstep/ledger", 4, bytes(32)), OTHERS)
    for note, size in ((old, 3), (new, 4)):
        assert open_checkpoint(note, "lockstep/ledger", [MINE.verifier, OTHERS.verifier]).size == size


# -- proof files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree(ENTRIES)


def proof_of(tree: Tree, index: int, size: int = len(ENTRIES)) -> bytes:
    note = sign_checkpoint(Checkpoint("lockstep/ledger", size, root(size, tree.read)), MINE)
    return make_proof(index, inclusion_proof(index, size, tree.read), note)


def test_a_proof_file_proves_its_entry_and_is_small(tree: Tree) -> None:
    for index, entry in enumerate(ENTRIES):
        proof = proof_of(tree, index)
        assert len(proof) < 1024
        found, checkpoint = verify_proof(proof, entry, "lockstep/ledger", [MINE.verifier])
        assert (found, checkpoint.size) == (index, len(ENTRIES))
        with pytest.raises(ProofError):
            verify_proof(proof, entry + b" ", "lockstep/ledger", [MINE.verifier])
        with pytest.raises(ProofError):
            verify_proof(proof, entry, "lockstep/ledger", [OTHERS.verifier])
        with pytest.raises(ProofError):
            verify_proof(proof, entry, "another/log", [MINE.verifier])


def test_a_proof_file_has_the_form_of_the_specification(tree: Tree) -> None:
    lines = proof_of(tree, 5).decode().split("\n")
    assert lines[:2] == ["c2sp.org/tlog-proof@v1", "index 5"]
    assert lines[6:9] == ["", "lockstep/ledger", "15"]
    assert [len(base64.b64decode(line)) for line in lines[2:6]] == [32] * 4


def test_a_proof_with_extra_data_is_read_and_the_data_not_believed(tree: Tree) -> None:
    proof = proof_of(tree, 5).replace(b"index 5\n", b"extra AAAA\nindex 5\n")
    assert verify_proof(proof, ENTRIES[5], "lockstep/ledger", [MINE.verifier])[0] == 5


@pytest.mark.parametrize(
    "proof",
    [
        b"",
        b"wrong-header\nindex 0\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1",
        b"c2sp.org/tlog-proof@v1\nextra !!notbase64!!\nindex 0\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\n\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex notanumber\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex -5\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex 05\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n!!notbase64!!\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\nAAAA\n\ncheckpoint\n",
        b"c2sp.org/tlog-proof@v1\nindex 0\n\xff\n\ncheckpoint\n",
    ],
)
def test_malformed_proof_files_are_refused(proof: bytes) -> None:
    with pytest.raises(ProofError):
        verify_proof(proof, b"", "lockstep/ledger", [MINE.verifier])


@given(st.data())
def test_every_changed_bit_of_a_proof_file_is_refused(data: st.DataObject) -> None:
    tree = Tree(ENTRIES)
    index = data.draw(st.integers(0, len(ENTRIES) - 1))
    proof = proof_of(tree, index)
    changed = flipped(proof, data.draw(st.integers(0, 8 * len(proof) - 1)))
    with pytest.raises(ProofError):
        verify_proof(changed, ENTRIES[index], "lockstep/ledger", [MINE.verifier])


def test_a_proof_replayed_for_another_tree_is_refused(tree: Tree) -> None:
    forged = Tree([*ENTRIES[:5], b"another past", *ENTRIES[6:]])
    head, _, _ = proof_of(tree, 5).partition(b"\n\n")
    _, _, note = proof_of(forged, 5).partition(b"\n\n")
    with pytest.raises(ProofError):
        verify_proof(head + b"\n\n" + note, ENTRIES[5], "lockstep/ledger", [MINE.verifier])
