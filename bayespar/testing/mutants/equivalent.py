"""Mutants made by machine that are not wrong, each with the argument why."""

from __future__ import annotations

EQUIVALENT: dict[tuple[str, str, str, str], str] = {}
"""(module, function, statement before, statement after) -> why the two do the same."""
