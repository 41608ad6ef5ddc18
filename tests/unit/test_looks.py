from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lockstep.rules.state import CloudState, SlotState
from lockstep.stores.looks import NAME, Looks, keep_looks, read_looks

SLOTS = st.builds(
    SlotState, st.text(), st.integers(0, 100), st.booleans(), st.text(), st.integers(1, 9), st.text(), st.text()
)
STATES = st.builds(
    CloudState,
    st.text(),
    st.text(),
    st.booleans(),
    st.booleans(),
    st.text(),
    st.lists(SLOTS, max_size=3).map(tuple),
    st.text(min_size=1),
)
LOOKS = st.builds(
    Looks,
    st.dictionaries(st.tuples(st.text(), st.text()), STATES, max_size=3),
    st.dictionaries(st.tuples(st.text(), st.text(), st.text()), st.text(), max_size=3),
)


@given(LOOKS)
def test_what_is_kept_is_read_again(looks: Looks) -> None:
    with tempfile.TemporaryDirectory() as folder:
        keep_looks(Path(folder), looks)
        found = read_looks(Path(folder))
    assert found == looks
    assert {key: state.mark for key, state in found.states.items()} == {
        key: state.mark for key, state in looks.states.items()
    }


def test_a_state_without_a_mark_is_not_kept(tmp_path: Path) -> None:
    keep_looks(tmp_path, Looks({("aws", "m"): CloudState("aws", "m", True)}))
    assert read_looks(tmp_path) == Looks()


def test_a_file_that_is_none_is_nothing(tmp_path: Path) -> None:
    assert read_looks(tmp_path) == Looks()
    assert read_looks(None) == Looks()
    for content in ("", "[]", "{}", '{"format": "lockstep.looks/1", "states": [{}], "intact": []}'):
        (tmp_path / NAME).write_text(content)
        assert read_looks(tmp_path) == Looks()
    keep_looks(tmp_path / "made", Looks())
    assert (tmp_path / "made" / NAME).stat().st_mode & 0o777 == 0o600
