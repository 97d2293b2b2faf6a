"""Checks by simulation: of worlds too large for enumeration, and of functions that are random themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ...history import Prompt
from ..case import AnswerError, Case, Estimator
from ..draws import Simulation

EPISODES = 6  # finished episodes of a simulated prompt, at most
SUM_TOLERANCE = 1e-4  # float32 is welcome here


def chances(f: Estimator, world: Simulation, prompt: Prompt) -> Float[np.ndarray, " n"]:
    """The answer to a prompt, if it is a distribution at all.

    Raises:
        AnswerError: it is not.
    """
    answer = f(Case(world.family, prompt))
    if not (answer.min() >= 0 and abs(answer.sum() - 1) <= SUM_TOLERANCE):
        raise AnswerError(f"the function returned {answer.tolist()}, which is no distribution")
    return answer


def martingale(f: Estimator, world: Simulation, rng: np.random.Generator, count: int) -> Float[np.ndarray, "n Z"]:
    """C3: over prompts of the world, the average posterior of each task is its prior.

    Catches: a bias towards some tasks, a prior other than the world's.
    Blind to: evidence that is ignored, tempered or forgotten in a symmetric way.
    Cost: one call a draw.
    """
    _, prompts = world.prompts(rng, count, episodes=EPISODES)
    return np.array([chances(f, world, prompt) for prompt in prompts]) - world.family.task_prior


def calibration(f: Estimator, world: Simulation, rng: np.random.Generator, count: int) -> Float[np.ndarray, "n K"]:
    """Of the tasks that get probability p, a share p is the true one; also after each last observation and subgoal.

    The statistics are f(z') - 1{z = z'} at the likeliest task z', over all prompts and over those that end in each
    observation and were led there by each subgoal, and f(z) - sum f^2 at the true task z (the slope of the Brier
    score). Each has mean 0 if f is the probability given the whole prompt.

    Catches: over- and underconfidence, a last observation or subgoal that is ignored.
    Blind to: old episodes that are forgotten: the probability given less is calibrated too.
    Cost: one call a draw.
    """
    family = world.family
    tasks, prompts = world.prompts(rng, count, episodes=EPISODES)
    rows = []
    for z, prompt in zip(tasks, prompts, strict=True):
        answer = chances(f, world, prompt)
        likeliest = int(np.argmax(answer))
        claim = answer[likeliest] - (z == likeliest)
        heard, chosen = np.zeros(family.num_observations), np.zeros(family.num_subgoals)
        if prompt.step:
            heard[prompt.current_observations[-1]] = claim
        if prompt.step > 1:
            chosen[prompt.current_subgoals[-1]] = claim
        rows.append(np.concatenate([[claim, answer[z] - (answer**2).sum()], heard, chosen]))
    return np.clip(np.array(rows), -1, 1)


def labels(f: Estimator, world: Simulation, rng: np.random.Generator, count: int) -> Float[np.ndarray, "n K"]:
    """C1 in a simulated corpus: of the labels after prompts where the planner gives g probability p, a share p is g.

    The statistics are f(g) - 1{g* = g} for each subgoal, at every step and after each last observation (by the subgoal
    that the planner likes best), and f(g*) - sum f^2.

    Catches: a planner that follows another task's expert, or the wrong step's, or an old episode's belief.
    Blind to: a planner that averages over more than it must (a window on the last episodes).
    Cost: one call a draw, and the expert of its task.
    """
    family = world.family
    tasks, prompts = world.prompts(rng, count, episodes=EPISODES, decision=True)
    rows = []
    for z, prompt in zip(tasks, prompts, strict=True):
        answer = chances(f, world, prompt)
        label = np.eye(family.num_subgoals)[world.label(int(z), prompt)]
        best = int(np.argmax(answer))
        heard, step = np.zeros(family.num_observations), np.zeros(family.horizon - 1)
        heard[prompt.current_observations[-1]] = step[prompt.step - 1] = answer[best] - label[best]
        rows.append(np.concatenate([[answer @ label - (answer**2).sum()], answer - label, heard, step]))
    return np.clip(np.array(rows), -1, 1)


Sampler = Callable[..., Any]


def ranks(
    sampler: Sampler, world: Simulation, rng: np.random.Generator, count: int, *, draws: int = 7
) -> Float[np.ndarray, "n 6"]:
    """Simulation-based calibration: the true task's rank among posterior draws is uniform.

    Ranked are the task's index, and its log-likelihood log L_z(pt), which sees what the index cannot; ties are broken
    at random. The statistics are 1{rank <= r} - (r+1)/(draws+1) at three ranks. Source: Talts et al. (2018),
    "Validating Bayesian inference algorithms with simulation-based calibration"; Modrak et al. (2023) for the second
    quantity.

    Catches: draws from a posterior that is too wide, too narrow, shifted, or made of the prior alone.
    Blind to: draws given less evidence than there is, unless the likelihood tells; dependence between draws looks like
        a wrong width, so thin a chain.
    Cost: one call of ``draws`` draws a draw, and an evidence.
    """
    family = world.family
    tasks, prompts = world.prompts(rng, count, episodes=EPISODES)
    cuts = np.array([(draws + 1) // 4, (draws + 1) // 2, 3 * (draws + 1) // 4]) - 1
    rows = []
    for z, prompt in zip(tasks, prompts, strict=True):
        drawn = np.asarray(sampler(family, prompt, draws, key=int(rng.integers(2**31))), int)
        row = []
        for quantity in (np.arange(family.num_tasks), world.log_evidence(prompt)):
            below, equal = (quantity[drawn] < quantity[z]).sum(), (quantity[drawn] == quantity[z]).sum()
            rank = below + rng.integers(0, equal + 1)
            row += ((rank <= cuts) - (cuts + 1) / (draws + 1)).tolist()
        rows.append(row)
    return np.array(rows)


@dataclass(frozen=True)
class Joint:
    """A joint law of something latent and data, and an MCMC kernel for the latent given the data.

    Attributes:
        prior: ``prior(key) -> latent``.
        data: ``data(key, latent) -> data``.
        kernel: ``kernel(key, latent, data) -> latent``; must leave the posterior of the latent invariant.
        quantities: ``quantities(latent, data) -> [K]``, numbers in [0, 1] to compare.

    Every ``key`` is an integer.
    """

    prior: Callable[[int], Any]
    data: Callable[[int, Any], Any]
    kernel: Callable[[int, Any, Any], Any]
    quantities: Callable[[Any, Any], Any]


def geweke(
    joint: Joint, world: Simulation | None, rng: np.random.Generator, count: int, *, cycles: int = 4
) -> Float[np.ndarray, "n K"]:
    """The joint test of a kernel: alternating it with fresh data must leave the joint law of latent and data as it was.

    Each draw starts from the joint law, alternates kernel and data ``cycles`` times, and compares the quantities at the
    end with those at the start, so draws are independent. Source: Geweke (2004), "Getting it right".

    Catches: a kernel with another invariant law: a wrong acceptance ratio, a wrong conditional, a step that is never
        taken back.
    Blind to: a kernel that is right but slow, or does not move at all; errors in the prior that the kernel shares.
    Cost: ``cycles`` steps of the kernel a draw.
    """
    rows = []
    for _ in range(count):
        keys = rng.integers(2**31, size=(cycles + 1, 2)).tolist()
        latent = joint.prior(keys[0][0])
        data = joint.data(keys[0][1], latent)
        start = np.asarray(joint.quantities(latent, data), np.float64)
        for n, (first, second) in enumerate(keys[1:]):
            # The kernel comes last: a kernel that reads too little of the data shows against the data it was given.
            data = joint.data(first, latent) if n else data
            latent = joint.kernel(second, latent, data)
        rows.append(np.asarray(joint.quantities(latent, data), np.float64) - start)
    return np.array(rows)
