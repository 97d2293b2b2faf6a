"""Comparison with the enumeration oracle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ...history import Prompt
from ...world import Family
from ..case import AnswerError, Case, Estimator, truth
from ..check import Equation
from ..oracle import ExactOracle


def agreement(f: Estimator, case: Case) -> Iterator[Equation]:
    """The answer is that of the enumeration oracle.

    Catches: every wrong answer on a tiny world and a short prompt.
    Blind to: what only happens on long prompts, in large worlds, or between calls.
    Cost: one call, and every path of hidden states; for a planner, every future too.
    """
    yield Equation("the answer", f(case), "the sum over every hidden path", truth(f.role, case))


def refusal(f: Estimator, case: Case) -> Iterator[Equation]:
    """Evidence that no task allows is refused: the function raises an error, or answers NaN.

    Catches: zeros that are clipped or smoothed, a fall back on the prior, 0/0 taken for 0.
    Blind to: everything on possible prompts.
    Cost: one call.
    """
    try:
        answer = f(case)
    except AnswerError:
        return
    if not np.isnan(answer).any():
        yield Equation("the answer to a prompt that no task allows", answer, "NaN, or an error", np.nan * answer)


def long_prompts(f: Estimator, case: Case) -> Iterator[Equation]:
    """On prompts of hundreds of episodes, and episodes of hundreds of steps, the answer is that of exact rationals.

    Catches: underflow, rounding that grows with the length, a window that is too short.
    Blind to: whatever is wrong in one step in the same way (the agreement check sees it).
    Cost: one call, and a product of rationals with some thousand digits.
    """
    oracle, prompt = ExactOracle(case.family), case.prompt
    rows = zip(prompt.observations.tolist(), prompt.subgoals.tolist(), strict=True)
    chances: dict[tuple[tuple[int, ...], tuple[int, ...]], list] = {}
    episodes = [(tuple(o), tuple(g)) for o, g in rows]
    for episode in episodes:
        if episode not in chances:
            chances[episode] = [oracle.long_likelihood(z, *episode) for z in range(oracle.Z)]
    if f.role == "log_evidence":
        expected = np.array([[oracle.log(chances[e][z]) for e in episodes] for z in range(oracle.Z)])
        scale = np.maximum(np.abs(np.where(np.isfinite(expected), expected, 0)), 1)
    else:
        weights = []
        for z in range(oracle.Z):
            weight = oracle.prior[z]
            for episode in episodes:
                weight *= chances[episode][z]
            weights.append(weight)
        expected, scale = np.array([float(w / oracle.total(weights)) for w in weights]), 1.0
    found = f(case)
    with np.errstate(invalid="ignore"):
        yield Equation("the answer, over its size", found / scale, "exact rationals, over theirs", expected / scale)


def long_cases() -> list[Case]:
    """Prompts far less likely than the smallest float64, although little is certain after them."""

    def world(prior: Any, initial: Any, transition: Any, emission: Any, horizon: int) -> Family:
        return Family(prior, initial, transition, emission, np.zeros((horizon, 2)), horizon=horizon)

    def once(observations: Any) -> Prompt:
        return Prompt(np.array([observations]), np.arange(len(observations) - 1)[None] % 2)

    stay = [[[1, 0], [0, 1]]] * 2
    noisy = world([1 / 4, 3 / 4], [1, 0], stay, [[[3 / 5, 2 / 5]] * 2, [[2 / 5, 3 / 5]] * 2], 3)
    balanced = np.tile([[0, 0, 1], [1, 1, 0]], (300, 1))
    lazy = [[[[99 / 100, 1 / 100], [1 / 100, 99 / 100]]] * 2, [[[9 / 10, 1 / 10], [1 / 10, 9 / 10]]] * 2]
    rare = world([1 / 2, 1 / 2], [1, 0], lazy, [[1 / 100, 99 / 100], [1 / 50, 49 / 50]], 300)
    # The first half of an episode all but rules out one hidden state, and the second half brings it back.
    sure = world(
        [1 - 1e-12, 1e-12], [1 / 2, 1 / 2], stay, [[[9 / 10, 1 / 10], [1 / 10, 9 / 10]], [[1 / 2, 1 / 2]] * 2], 60
    )
    return [
        Case(noisy, Prompt(balanced, np.zeros((600, 2), int))),
        Case(rare, once([0] * 300)),
        Case(sure, once([0] * 30 + [1] * 30)),
    ]
