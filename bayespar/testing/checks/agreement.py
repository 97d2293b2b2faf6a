"""Comparison with the enumeration oracle."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...factored import Factored
from ...history import Prompt
from ...world import Family, Sparse
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


def extremes(f: Estimator, case: Case) -> Iterator[Equation]:
    """With hundreds of episodes, of steps or of hidden states, the answer is that of exact rationals.

    Catches: underflow, rounding that grows with the length, too short a window, mistakes in sparse or factored kernels.
    Blind to: whatever is wrong in one step in the same way (the agreement check sees it).
    Cost: one call, and a product of rationals with some thousand digits.
    """
    if id(case) not in _EXACT:
        _EXACT[id(case)] = case, truth(f.role, case, ExactOracle)
    expected = _EXACT[id(case)][1]
    # An evidence of hundreds of nats is right to so many digits.
    scale = np.maximum(np.abs(expected), 1) if f.role == "log_evidence" else 1.0
    yield Equation("the answer, over its size", f(case) / scale, "exact rationals, over theirs", expected / scale)


_EXACT: dict[int, tuple[Case, np.ndarray]] = {}


@functools.cache
def extreme_cases(role: str) -> list[Case]:
    """Prompts far less likely than the smallest float64, although little is certain after most of them."""

    def world(prior: Any, initial: Any, transition: Any, emission: Any, horizon: int) -> Family:
        return Family(
            prior, initial, transition, emission, np.zeros((horizon, np.shape(emission)[-1])), horizon=horizon
        )

    def episode(observations: Any, different: int = 2) -> Prompt:
        subgoals = np.arange(len(observations) - 1) % different
        if role == "log_evidence":
            return Prompt(np.array([observations]), subgoals[None])
        return Prompt(current_observations=observations[:-1], current_subgoals=subgoals[:-1])

    stay = [[[1, 0], [0, 1]]] * 2
    noisy = world([1 / 4, 3 / 4], [1, 0], stay, [[[3 / 5, 2 / 5]] * 2, [[2 / 5, 3 / 5]] * 2], 3)

    def many(episodes: list[list[int]]) -> Prompt:
        now = [0] if role == "next_observation" else []
        return Prompt(episodes, np.zeros((len(episodes), 2), int), None, now)

    lazy = [[[[99 / 100, 1 / 100], [1 / 100, 99 / 100]]] * 2, [[[49 / 50, 1 / 50], [1 / 50, 49 / 50]]] * 2]
    rare = world([1 / 2, 1 / 2], [1 / 3, 2 / 3], lazy, [[1 / 100, 99 / 100], [1 / 50, 49 / 50]], 300)
    # Words that say something come first and last, and between them only rare ones that say nothing: where the
    # hidden state is at the end depends on how often it was swapped, and the first word must not be forgotten.
    swap = [[[1, 0], [0, 1]], [[0, 1], [1, 0]]]
    told = [[1 / 100, 33 / 100, 66 / 100], [1 / 100, 66 / 100, 33 / 100]]
    once = world([1 / 2, 1 / 2], [[1 / 3, 2 / 3], [1 / 2, 1 / 2]], swap, told, 200)
    # The first half of an episode all but rules out one hidden state, and the second half brings it back.
    sure = world(
        [1 - 1e-12, 1e-12], [1 / 2, 1 / 2], stay, [[[9 / 10, 1 / 10], [1 / 10, 9 / 10]], [[1 / 2, 1 / 2]] * 2], 61
    )
    wide = [ring(5, [[3 / 4, 1 / 4], [1 / 2, 1 / 2]]), ring(120, [[1 / 100, 99 / 100], [1 / 50, 49 / 50]])]
    short = wide[0]
    dense = world(short.task_prior, short.initial, short.dense_transition()[:, 0], short.emission, short.horizon)
    return [
        Case(noisy, many([[0, 0, 1], [1, 1, 0]] * 300 + [[0, 0, 1]])),
        Case(noisy, many([[1, 1, 1]] * 700)),  # here all is certain: the two tasks are 850 nats apart
        Case(rare, episode([0] * 300)),
        Case(once, episode([1] + [0] * 198 + [2])),
        Case(sure, episode([0] * 30 + [1] * 31)),
        *(Case(family, episode([0] * family.horizon)) for family in (*wide, dense)),
        *(Case(trio(horizon), episode([0, 1] * (horizon // 2), 4)) for horizon in (6, 96)),
    ]


def trio(horizon: int) -> Family:
    """Three Actors, each going round in a ring, stored as one kernel an Actor; tasks differ in how the first moves."""

    def moves(states: int, chances: Any) -> Any:
        p = np.array(chances)[..., None, None]
        return p * np.roll(np.eye(states), 1, axis=1) + (1 - p) * np.eye(states)

    last = moves(3, [[[1 / 4]]])
    kernel = Factored([moves(4, [[[1 / 2, 3 / 4]], [[1 / 4, 1]]]), moves(3, [[[1 / 4, 1 / 2]]]), last])
    first, second, third = np.unravel_index(np.arange(36), (4, 3, 3))
    heard = np.array([[1 / 100, 99 / 100], [1 / 50, 49 / 50], [1 / 25, 24 / 25]])[(first + 2 * second * third) % 3]
    return Family([2 / 5, 3 / 5], np.eye(36)[0], kernel, heard, np.zeros((horizon, 2)), horizon=horizon)


def ring(horizon: int, emission: list[list[float]]) -> Family:
    """Eighty states in a ring, stored as two successors each; tasks differ in how readily they move on."""
    S = 80
    states = np.arange(S)
    successors = np.broadcast_to(np.stack([states, (states + 1) % S], axis=-1), (2, 1, 2, S, 2))
    moves = np.array([[[1 / 2, 1 / 2], [3 / 4, 1 / 4]], [[1 / 3, 2 / 3], [1, 0]]])[:, None, :, None]
    return Family(
        [2 / 5, 3 / 5],
        np.eye(S)[0],
        Sparse(successors, np.broadcast_to(moves, successors.shape)),
        np.array(emission)[states % 2],
        np.zeros((horizon, 2)),
        horizon=horizon,
    )
