"""Which check kills which mutant."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..theory.verdict import Verdict
from .case import Case, Estimator
from .check import ExactCheck
from .checks import EXACT, STATISTICAL
from .mutants import CORRECT, Mutant
from .run import collect, run_exact, run_statistical

RESOLUTION = 0.2  # of the statistical checks in the matrix


@functools.cache
def _cases(check: ExactCheck, role: str) -> list[Case]:
    return collect(check, role)


@dataclass
class Row:
    """What became of one function.

    Attributes:
        killed_by: names of the checks that refute it.
        seconds: time of each check, s.
        inconclusive: names of the checks that ran out of budget.
    """

    name: str
    role: str
    killed_by: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    inconclusive: list[str] = field(default_factory=list)


def examine(name: str, role: str, build: Callable[[], object], *, key: int = 0) -> Row:
    """Run every check that applies on a function; each check gets a fresh one."""
    row = Row(name, role)
    for check in (*EXACT, *STATISTICAL):
        if role not in check.roles:
            continue
        start = time.perf_counter()
        if check in EXACT:
            result = run_exact(check, Estimator(role, build()), given=_cases(check, role))
        else:
            result = run_statistical(check, role, build(), resolution=RESOLUTION, key=key)
        row.seconds[check.name] = time.perf_counter() - start
        if result.verdict is Verdict.REFUTED:
            row.killed_by.append(check.name)
        elif result.verdict is Verdict.INCONCLUSIVE:
            row.inconclusive.append(check.name)
    return row


def examine_all(mutants: Iterable[Mutant]) -> list[Row]:
    """One row for each mutant."""
    return [examine(m.name, m.role, m.build) for m in mutants]


def correct_rows() -> list[Row]:
    """One row for each of our own functions; nothing may kill them."""
    return [examine(role, role, build) for role, build in CORRECT.items()]
