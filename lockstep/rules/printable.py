"""What a line may hold that is kept in the ledger or shown in a terminal: nothing that forges what is around it."""

from __future__ import annotations

import unicodedata
from typing import Final

#: Control characters, halves of surrogate pairs, and what ends a line without being one.
_CONTROLS: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: What has the text that follows read backwards.
_DIRECTIONS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})


def one_line(text: str) -> str:
    """The text without white space around it; line breaks and other white space in it are one space each."""
    return " ".join(text.split())


def unprintable(text: str) -> str:
    """The first character that a line may not hold; empty where there is none."""
    return next((sign for sign in text if _unprintable(sign)), "")


def visible(text: str, keep: str = "\t") -> str:
    r"""The text with an escape, such as `\x1b`, in place of each character that a line may not hold."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(escaped(sign) if sign not in keep and _unprintable(sign) else sign for sign in text)


def escaped(sign: str) -> str:
    """A character as Python writes it."""
    return sign.encode("unicode_escape").decode("ascii")


def _unprintable(sign: str) -> bool:
    return unicodedata.category(sign) in _CONTROLS or unicodedata.bidirectional(sign) in _DIRECTIONS
