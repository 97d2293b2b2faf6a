"""Which check kills which mutant: ``python -m bayespar.testing.matrix`` finds out and writes the page.

It exits with 1 if a mutant survives that is not argued to be equivalent, if a check kills nothing that a cheaper one
does not kill already, or if a function of ours is killed.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from ..theory.verdict import Verdict
from .case import Case, Estimator
from .check import ExactCheck
from .checks import EXACT, STATISTICAL
from .mutants import CORRECT, Mutant, mechanical_mutants, written_mutants
from .mutants.equivalent import EQUIVALENT
from .run import collect, run_exact, run_statistical

NAMES = tuple(check.name for check in (*EXACT, *STATISTICAL))


@functools.cache
def _cases(check: ExactCheck, role: str) -> list[Case]:
    return collect(check, role)


@dataclass
class Row:
    """What became of one function.

    Attributes:
        name, role: of the function.
        killed_by: names of the checks that refute it.
        seconds: time of each check, s.
        inconclusive: names of the checks that ran out of budget.
    """

    name: str
    role: str
    killed_by: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    inconclusive: list[str] = field(default_factory=list)


def examine(
    name: str,
    role: str,
    build: Callable[[], Any],
    *,
    until: str | None = None,
    first_kill: bool = False,
    key: int = 0,
) -> Row:
    """Run every check that applies on a function; each check gets a fresh one.

    Args:
        name, role, build: of the function.
        until: the last check to run; all by default.
        first_kill: stop at the first check that refutes it.
        key: of the statistical checks.
    """
    row = Row(name, role)
    for check in (*EXACT, *STATISTICAL):
        if role not in check.roles or until in row.seconds or (first_kill and row.killed_by):
            continue
        given = _cases(check, role) if isinstance(check, ExactCheck) else None
        start = time.perf_counter()
        if isinstance(check, ExactCheck):
            result = run_exact(check, Estimator(role, build()), given=given)
        else:
            result = run_statistical(check, role, build(), key=key)
        row.seconds[check.name] = time.perf_counter() - start
        if result.verdict is Verdict.REFUTED:
            row.killed_by.append(check.name)
        elif result.verdict is Verdict.INCONCLUSIVE:
            row.inconclusive.append(check.name)
    return row


def only_kills(rows: Sequence[Row]) -> dict[str, list[str]]:
    """For each check, the mutants that it kills and no cheaper check does."""
    return {name: [row.name for row in rows if row.killed_by[:1] == [name]] for name in NAMES}


def problems(ours: Sequence[Row], rows: Sequence[Row], mutants: Sequence[Mutant]) -> list[str]:
    """What the catalogue must not show."""
    found = [f"our own {row.name} is refuted by {', '.join(row.killed_by)}" for row in ours if row.killed_by]
    for mutant, row in zip(mutants, rows, strict=True):
        if not row.killed_by and mutant.equivalent is None:
            found.append(f"{mutant.name} survives: {mutant.wrong}")
        if row.killed_by and mutant.equivalent is not None:
            found.append(f"{mutant.name} is said to be equivalent, but {row.killed_by[0]} kills it")
    found += [
        f"{name} kills nothing that a cheaper check does not" for name, only in only_kills(rows).items() if not only
    ]
    stale = set(EQUIVALENT) - {m.key for m in mutants}
    return found + [f"there is no mutant {key} any more" for key in sorted(stale)]


def page(ours: Sequence[Row], rows: Sequence[Row], mutants: Sequence[Mutant]) -> str:
    """The matrix as a page of Markdown."""
    written = [(m, r) for m, r in zip(mutants, rows, strict=True) if m.mutation is None]
    made = [(m, r) for m, r in zip(mutants, rows, strict=True) if m.mutation is not None]
    equivalent = [m for m, _ in made if m.equivalent is not None]
    killed = sum(bool(r.killed_by) for r in rows)
    lines = [
        "# Mutants",
        "",
        "Wrong estimators, and which check kills which. This page is generated: `make mutants`.",
        "",
        f"{len(mutants)} mutants: {len(written)} written by hand, {len(made)} made by machine from the source. "
        f"{killed} are killed; {len(equivalent)} are equivalent, for the reasons given below; "
        f"{len(mutants) - killed - len(equivalent)} survive. Our own functions in the {len(ours)} roles are killed by "
        f"{sum(len(r.killed_by) for r in ours)} checks.",
        "",
        "## Checks, cheapest first",
        "",
        "Seconds are the median over our own functions, on one core. *Kills* counts the mutants written by hand that "
        "the check kills; *first*, all mutants that it kills and no cheaper one does, for example the last column.",
        "",
        "| check | catches | blind to | cost | seconds | kills | first | for example |",
        "|---|---|---|---|---|---|---|---|",
    ]
    only = only_kills(rows)
    for check in (*EXACT, *STATISTICAL):
        said = check.documentation
        seconds = median([r.seconds[check.name] for r in ours if check.name in r.seconds])
        kills = sum(check.name in r.killed_by for _, r in written)
        example = only[check.name][0] if only[check.name] else "none"
        lines.append(
            f"| {check.name} | {said['catches']} | {said['blind to']} | {said['cost']} | {seconds:.1f} | {kills} | "
            f"{len(only[check.name])} | `{example}` |"
        )
    lines += ["", "## Written by hand", ""]
    lines += ["| mutant | role | what is wrong | " + " | ".join(NAMES) + " |", "|---" * (3 + len(NAMES)) + "|"]
    for mutant, row in written:
        marks = ["●" if name in row.killed_by else ("" if name in row.seconds else "·") for name in NAMES]
        lines.append(f"| `{mutant.name}` | {mutant.role} | {mutant.wrong} | " + " | ".join(marks) + " |")
    lines += ["", "● kills; blank does not; · does not apply to the role.", "", "## Made by machine", ""]
    lines += [
        "| function changed | role | mutants | killed | equivalent | killed first by |",
        "|---|---|---|---|---|---|",
    ]
    places = dict.fromkeys((m.mutation.module, m.mutation.function, m.role) for m, _ in made if m.mutation)
    for module, function, role in places:
        of = [(m, r) for m, r in made if m.mutation and (m.mutation.module, m.mutation.function) == (module, function)]
        first = [r.killed_by[0] for _, r in of if r.killed_by]
        counts = ", ".join(f"{name} {first.count(name)}" for name in NAMES if name in first)
        same = sum(m.equivalent is not None for m, _ in of)
        lines.append(f"| `{module}.{function}` | {role} | {len(of)} | {len(first)} | {same} | {counts} |")
    lines += ["", "## Equivalent mutants", "", "| function | changed to | why it is not wrong |", "|---|---|---|"]
    for mutant in equivalent:
        change = mutant.mutation
        if change is not None:
            after = change.after.replace("|", "\\|")
            lines.append(f"| `{change.module}.{change.function}` | `{after}` | {mutant.equivalent} |")
    return "\n".join([*lines, ""])


def _examine_at(index: int) -> Row:
    mutant = _all_mutants()[index]
    return examine(mutant.name, mutant.role, mutant.build, first_kill=mutant.mutation is not None)


@functools.cache
def _all_mutants() -> list[Mutant]:
    return [*written_mutants(), *mechanical_mutants()]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bayespar.testing.matrix", description=__doc__)
    parser.add_argument("--out", type=Path, help="write the page here")
    parser.add_argument("--processes", type=int, default=2, help="processes that work side by side")
    options = parser.parse_args(arguments)
    mutants = _all_mutants()
    ours = [examine(role, role, build) for role, build in CORRECT.items()]
    rows = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for row in pool.imap(_examine_at, range(len(mutants))):
            rows.append(row)
            print(
                f"{len(rows)}/{len(mutants)} {row.name}: {row.killed_by[0] if row.killed_by else 'survives'}",
                flush=True,
            )
    if options.out:
        options.out.write_text(page(ours, rows, mutants), encoding="utf-8")
    found = problems(ours, rows, mutants)
    for line in found:
        print(line, file=sys.stderr)
    print(f"{len(mutants)} mutants, {sum(bool(r.killed_by) for r in rows)} killed, {len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
