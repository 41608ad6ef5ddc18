"""What was written compared with what is there, one sentence a difference."""

from __future__ import annotations

from collections.abc import Mapping


def differences(where: str, found: Mapping[str, object], written: Mapping[str, object]) -> tuple[str, ...]:
    """One sentence for each thing in `written` that `found` has otherwise or lacks; what else it has does not matter.

    Keys are what a person calls it ("image"), values are compared as they are; an empty value stands for none.
    """
    told = []
    for name, wanted in written.items():
        shown = found.get(name)
        if (shown or None) != (wanted or None):
            told.append(f"{where}: {name} is {_text(shown)}, not {_text(wanted)}")
    return tuple(told)


def additions(where: str, what: str, found: Mapping[str, object], written: Mapping[str, object]) -> tuple[str, ...]:
    """One sentence for each thing in `found` that was never written, where an addition changes what runs."""
    return tuple(
        f"{where}: {what} {name} was added: {_text(value)}" for name, value in found.items() if name not in written
    )


def _text(value: object) -> str:
    return repr(value) if value else "none"
