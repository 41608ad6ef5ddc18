"""Loads obstore, a Rust library that not every command needs, when bytes are first asked for."""

from __future__ import annotations


def load_obstore() -> None:
    """Import the whole package; to be called before a part of it is imported, since that may happen in many threads.

    The package and `obstore.store` import each other. Of two threads that begin with one each, Python would end the
    mutual wait by giving one a module that is not whole yet; all that begin with the package take turns.
    """
    import obstore  # noqa: F401
