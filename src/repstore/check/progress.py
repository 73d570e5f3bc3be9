"""How far a long check is: told to whoever wants to know, between two parts of its work.

What is called may raise, KeyboardInterrupt above all: a check ends there, and has no verdict.
"""
from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]      # what, done, of so many


def silent(what: str, done: int, of: int) -> None:
    """Nobody wants to know."""
