"""N3: on a fixed world, BAIL's regret is o(T): "linear" reads "for every T there is a world"."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ...planning.expected_regret import expected_regret
from ...program import enumerate_program
from ..claim import Claim, Settings, Subject
from ..closed_forms import lock_regret, needle_regret
from ..figure import Curves, Series
from ..verdict import Outcome, TwinOutcome, identity, not_applicable

TASKS, LENGTH = 8, 3
EPISODES = {"needle": 4 * TASKS, "lock": 256}
TOLERANCE = 1e-10


def _exact(subject: Subject) -> np.ndarray:
    """Expected regret of the fixed world after each episode, the largest over tasks."""
    program: Any = subject.program
    size = {"tasks": TASKS} if subject.name == "needle" else {"length": LENGTH}
    family = enumerate_program(functools.partial(program, **size))
    return expected_regret(family, "bail", 0.0, EPISODES[subject.name]).cumulative.max(axis=0)


def _predicted(name: str, episodes: int) -> float:
    return needle_regret(TASKS, episodes) if name == "needle" else lock_regret(LENGTH, episodes)


def _limit(name: str) -> float:
    """What the regret of infinitely many episodes is."""
    p = 2.0 ** (1 - LENGTH)
    return (TASKS - 1) / 2 if name == "needle" else (1 - p / 2) / p


def check(subject: Subject, settings: Settings) -> Outcome:
    if subject.name not in EPISODES:
        return not_applicable("verified on the closed forms of the needle and the lock; a finite run shows no limit")
    regret, T, limit = _exact(subject), EPISODES[subject.name], _limit(subject.name)
    predicted = [_predicted(subject.name, t) for t in range(1, T + 1)]
    error = max(float(np.abs(regret - predicted).max()), abs(float(regret[-1]) - limit))
    times = list(range(1, T + 1))
    figure = Curves(
        f"Regret of BAIL alone on one {subject.name}",
        "episodes T",
        "expected regret",
        [
            Series("BAIL", times, regret.tolist()),
            Series("its limit", [1, T], [limit, limit], kind="bound"),
            Series("(1 - 1/e)(T - 1/2)", times, [(1 - math.exp(-1)) * (t - 0.5) for t in times], kind="reference"),
        ],
        log=True,
        note="A slope fitted to the left part would call it linear.",
    )
    said = f"error against the closed form at every T up to {T}, and of its limit {limit:g}"
    outcome = identity(error, TOLERANCE, said)
    return Outcome(**{**outcome.__dict__, "figures": (figure,)})


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    regret = _exact(subject)
    claimed = (1 - math.exp(-1)) * (len(regret) - 0.5)
    return [
        TwinOutcome(
            "this fixed world has linear regret",
            f"at least {claimed:.4g} at T = {len(regret)} instead of {_limit(subject.name):g}",
            float(regret[-1]) < claimed - TOLERANCE,
            float(regret[-1]),
            1.0,
        )
    ]


N3 = Claim(
    id="N3",
    title="on a fixed world the regret of BAIL is o(T)",
    statement=(
        "For every finite world and every task of positive prior, Reg_z(T) / T of BAIL tends to 0. On the needle with "
        "K tasks the regret is (K-1)/2 from T = K on; on the lock with words of L letters it tends to (1 - p/2)/p, "
        "p = 2^-(L-1)."
    ),
    assumptions=("a closed form is known: the needle and the lock of fixed size",),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
)
