"""W3: planning greedily in the aggregated world model never learns, on a fixed world."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ...planning.classes import task_classes
from ...planning.expected_regret import posterior_recursion
from ...planning.exploration import by_coin
from ...planning.information import graph_table, information_graph
from ...planning.planner import UniformPolicy
from ...program import enumerate_program
from ..claim import Claim, Settings, Subject
from ..closed_forms import gamble_bail_regret, gamble_bawm_regret
from ..figure import Curves, Series
from ..verdict import Outcome, TwinOutcome, identity, not_applicable

EPISODES = 512
TOLERANCE = 1e-10  # relative; T <= 512 episodes, each to a few roundings
SAFE = 0.6
# (prior, horizon, episodes): stuck; stuck although it could look ahead; not stuck, for looking ahead pays.
CASES = ((0.3, 2, EPISODES), (0.3, 4, EPISODES // 4), (0.4, 4, EPISODES // 4))
CLOSED: dict[str, Callable[..., float]] = {"bail": gamble_bail_regret, "bawm": gamble_bawm_regret}
COIN, OFF = 0.01, 0.01


def _exact(subject: Subject, planner: str, prior: float, horizon: int, episodes: int, coin: float = 0.0) -> np.ndarray:
    """Cumulative regret under the bad and the good gamble, [2, T]; exploring uniformly with probability ``coin``."""
    program: Any = subject.program
    classes = task_classes(enumerate_program(functools.partial(program, safe=SAFE, prior=prior, horizon=horizon)))
    graph = information_graph(classes.family)
    explorer = graph_table(graph, UniformPolicy(classes.family.num_subgoals))
    rule = by_coin(np.full(episodes, coin))
    return posterior_recursion(graph, classes, planner, rule, explorer, doubt=False).cumulative


def _predicted(planner: str, prior: float, horizon: int, episodes: int) -> np.ndarray:
    """The closed forms of the same, [2, T]."""
    times = range(1, episodes + 1)
    return np.array([[CLOSED[planner](SAFE, prior, good, horizon - 1, T) for T in times] for good in (False, True)])


def _error(found: np.ndarray, predicted: np.ndarray) -> float:
    """Largest relative error; absolute below 1."""
    return float((np.abs(found - predicted) / np.maximum(1, predicted)).max())


def check(subject: Subject, settings: Settings) -> Outcome:
    if subject.name != "safe_or_risky":
        return not_applicable("a statement about a safe prize and a gamble")
    error, series = 0.0, []
    for case in CASES:
        prior, horizon, episodes = case
        for planner in CLOSED:
            found = _exact(subject, planner, *case)
            error = max(error, _error(found, _predicted(planner, *case)))
            if case == CASES[0] or planner == "bawm":
                label = f"{planner.upper()}, H = {horizon}, prior {prior:g}"
                series.append(Series(label, list(range(1, episodes + 1)), found[1].tolist()))
    outcome = identity(
        error,
        TOLERANCE,
        f"relative error of the exact regret at every T up to {EPISODES}, of BAIL and BAWM, under both tasks; H = 2, "
        "and H = 4 where it is stuck and where it is not",
    )
    figure = Curves(
        "Regret where the gamble is good, nobody exploring", "episodes T", "expected regret", series, log=True
    )
    return Outcome(**{**outcome.__dict__, "figures": (figure,)})


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    case = CASES[0]
    prior, *rest = case
    linear, off = _predicted("bawm", *case), _predicted("bail", prior + OFF, *rest)
    learns, imitates = _exact(subject, "bawm", *case, coin=COIN), _exact(subject, "bail", *case)
    return [
        TwinOutcome(
            "BAWM stays linear if it explores a little",
            f"a coin of {COIN}: regret {learns[1, -1]:.4g} instead of {linear[1, -1]:.4g} at T = {EPISODES}",
            _error(learns, linear) > TOLERANCE,
            float(learns[1, -1]),
            1.0,
        ),
        TwinOutcome(
            "BAIL's closed form at another prior",
            f"prior {prior + OFF:g} instead of {prior:g}",
            _error(imitates, off) > TOLERANCE,
            float(imitates[1, -1]),
            1.0,
        ),
    ]


W3 = Claim(
    id="W3",
    title="greedy planning never learns",
    statement=(
        "Safety shows s in both tasks; the risk pays 1 in task 1 and 0 in task 0; p = P_Z(1) < s. At H = 2 and without "
        "exploration BAWM has Reg_1(T) = (1-s) T and Reg_0 = 0, on a fixed world; BAIL has Reg_1(T) = (1-s)((1-p)/p)"
        "(1 - (1-p)^T) and Reg_0(T) = s(1 - (1-p)^T). With n = H-1 choices an episode BAWM tries the risk at once iff "
        "p > s/(n - (n-1)s), and then Reg_1 = 0, Reg_0 = s."
    ),
    assumptions=("the world is the safe prize and the gamble", "0 < p < s < 1"),
    status="derived",
    worlds=1,
    check=check,
    twins=twins,
)
