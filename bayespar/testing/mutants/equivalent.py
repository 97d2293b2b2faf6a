"""Mutants made by machine that are not wrong, each with the argument why."""

from __future__ import annotations

EQUIVALENT: dict[tuple[str, str], str] = {}
"""(module.function, the statement after the change) -> why it does the same."""
