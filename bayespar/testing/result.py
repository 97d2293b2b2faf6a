"""What checks found."""

from __future__ import annotations

from dataclasses import dataclass

from ..theory.verdict import Verdict
from .case import Case
from .sequential import Sequential


@dataclass(frozen=True)
class Result:
    """What one check found about one function.

    Attributes:
        check: its name.
        role: the function's.
        verdict: for an exact check, ``supported`` means that no case tried contradicts it.
        detail: one line; for a refuted check, every number of it.
        cases: worlds and prompts tried, or draws.
        counterexample: the smallest case found that contradicts an exact check.
        test: how the test of a statistical check ended.
    """

    check: str
    role: str
    verdict: Verdict
    detail: str
    cases: int = 0
    counterexample: Case | None = None
    test: Sequential | None = None


@dataclass(frozen=True)
class Report:
    """What all checks found; printed, a table and every refutation in full."""

    results: tuple[Result, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """The checks that were refuted or stayed inconclusive."""
        return tuple(r for r in self.results if r.verdict in (Verdict.REFUTED, Verdict.INCONCLUSIVE))

    def __str__(self) -> str:
        rows = [("check", "of", "verdict", "cases")]
        rows += [(r.check, r.role, str(r.verdict), f"{r.cases:,}") for r in self.results]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"\n{r.detail}" for r in self.failures)])
