"""Planning where tasks have a density: the worlds of posterior draws stand for the posterior, and experts are averaged.

A draw of the sites with a density leaves finitely many worlds, one for each leaf, with exact probabilities. So many
draws make a family of many tasks, which is solved as any other; the Monte Carlo error is that of the draws alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from ..errors import InvalidProgramError, InvalidPromptError
from ..history import Prompt, check_prompt
from ..kernels import HostKernel
from ..posterior.choose import posterior as posterior_of
from ..posterior.exact import state_posterior_by_task
from ..posterior.latents import Latents, as_latents
from ..posterior.result import Posterior
from ..program import Program
from ..validation import check_count, shown
from ..world import Family
from .expert import Experts, solve_experts

DRAWS = 400
_FEWEST_FOR_ERROR = 4  # draws a chain


@dataclass(frozen=True)
class Mixture:
    """The worlds of posterior draws that are still possible.

    Attributes:
        family: one task for each leaf of each draw with a positive probability; its prior is uniform and means nothing.
        weights: P(task | pt) in the mixture, [Z]; they sum to 1.
        chain, draw, leaf: where each task comes from, [Z].
        shape: chains and draws; the draws weigh 1/(chains draws) each unless ``weighted``.
        weighted: whether the points have weights of their own, so that their error is not estimated.
    """

    family: Family
    weights: Float[np.ndarray, " Z"]
    chain: Int[np.ndarray, " Z"]
    draw: Int[np.ndarray, " Z"]
    leaf: Int[np.ndarray, " Z"]
    shape: tuple[int, int]
    weighted: bool


@dataclass(frozen=True)
class BailEstimate:
    """BAIL, averaged over draws.

    Attributes:
        probabilities: BAIL(g | pt), [G]; they sum to 1.
        standard_errors: Monte Carlo standard error of each, from the chains and their autocorrelation, [G]; 0 where
            all draws agree, NaN where points have weights or a chain has fewer than 4 draws.
        total_variation: the expected distance from the exact BAIL: half the sum of the expected absolute errors, which
            are sqrt(2/pi) standard errors each where errors are normal.
        draws: points whose worlds were solved.
        posterior: that they were taken from.
    """

    probabilities: Float[np.ndarray, " G"]
    standard_errors: Float[np.ndarray, " G"]
    total_variation: float
    draws: int
    posterior: Posterior


def bail_by_draws(
    program: Program | Latents,
    prompt: Prompt,
    *,
    posterior: Posterior | None = None,
    draws: int = DRAWS,
) -> BailEstimate:
    """BAIL(g | pt) = E[pi*_z(g | tau_h, w) | pt] of a program with a density, with its Monte Carlo error.

    Args:
        program: a program that has sites with a density.
        prompt: with 1 <= h <= H-1 observations in the current episode.
        posterior: from :func:`bayespar.posterior` for this program and prompt; computed here if not given.
        draws: points whose worlds are solved, spread evenly over the chains and over each of them; all, if there are
            no more.

    Raises:
        InvalidPromptError: there is no decision to make, or the posterior is of another prompt.
        InvalidProgramError: the program is finite, or the posterior is of another program.
        InvalidPlannerError: no number of draws.
        ImpossibleEvidenceError: no task can have produced the prompt.

    Source: theory.md, C1 and section 8.
    """
    latents = _latents(program)
    family = latents.example
    check_prompt(prompt, family)
    check_decision(prompt, family)
    posterior = _posterior(latents, prompt, posterior, draws)
    mixture = mixture_of(posterior, draws)
    follows = what_follows(mixture.family, prompt)
    actions = first_actions(follows, solve_experts(follows), prompt)
    votes = np.zeros((*mixture.shape, family.num_subgoals))
    np.add.at(votes, (mixture.chain, mixture.draw, actions), mixture.weights)
    probabilities = votes.sum(axis=(0, 1))
    errors = np.full(family.num_subgoals, np.nan)
    if not mixture.weighted and mixture.shape[1] >= _FEWEST_FOR_ERROR:
        errors = _standard_errors(votes * (mixture.shape[0] * mixture.shape[1]))
    return BailEstimate(
        probabilities,
        errors,
        float(errors.sum() * np.sqrt(2 / np.pi) / 2),
        mixture.shape[0] * mixture.shape[1],
        posterior,
    )


def mixture_of(posterior: Posterior, draws: int = DRAWS) -> Mixture:
    """The worlds of some points of a posterior of a program with a density.

    Args:
        posterior: from :func:`bayespar.posterior`.
        draws: how many points; all, if there are no more. Equal weights are thinned evenly along each chain, other
            points are taken evenly along their cumulative weights.

    Raises:
        InvalidProgramError: the posterior is of a finite program.
        InvalidPlannerError: no number of draws.
    """
    check_count("draws", draws)
    latents, points, leaves = posterior.latents, posterior.draws, posterior.leaf_probabilities
    if latents is None or points is None or leaves is None:
        raise InvalidProgramError("the posterior is of a finite program, which has no draws")
    leaves = np.asarray(leaves)
    chains, length = leaves.shape[:2]
    if posterior.log_weights is None:
        each = min(length, max(draws // chains, 1))
        row = np.repeat(np.arange(chains), each)
        kept = ((np.arange(each) + 0.5) * length / each).astype(int)
        column, weights, shape = np.tile(kept, chains), np.full(chains * each, 1 / (chains * each)), (chains, each)
    else:
        flat, weights = _thinned(np.exp(np.asarray(posterior.log_weights)).ravel(), draws)
        row, column, shape = flat // length, flat % length, (1, len(flat))
    log_prior, family = latents.mixture({name: np.asarray(points[name])[row, column] for name in latents.shapes})
    joint = (weights[:, None] * leaves[row, column]).ravel()
    tasks = np.flatnonzero(joint > 0)
    point, leaf = np.divmod(tasks, log_prior.shape[1])
    return Mixture(
        subfamily(family, tasks),
        joint[tasks] / joint.sum(),
        point // shape[1],
        point % shape[1],
        leaf,
        shape,
        posterior.log_weights is not None,
    )


def what_follows(family: Family, prompt: Prompt) -> Family:
    """What is left of the episode, as worlds of their own that begin with the last observation of ``prompt``.

    The horizon is H-h+1, and the initial law is that of the state at the last observation, given those before it. Every
    task must be able to produce the current history.
    """
    step = prompt.step
    if step == 1:
        return family
    before = Prompt(
        current_observations=prompt.current_observations[:-1], current_subgoals=prompt.current_subgoals[:-1]
    )
    belief = state_posterior_by_task(family, before)
    kernel, g = HostKernel(family), int(prompt.current_subgoals[-1])
    initial = np.stack([kernel.push(z, step - 2, belief[z : z + 1])[0, g] for z in range(family.num_tasks)])
    transition = jax.tree.map(lambda a: a[:, step - 1 :] if a.shape[1] > 1 else a, family.transition)
    return Family(
        family.task_prior,
        initial / initial.sum(axis=1, keepdims=True),
        transition,
        family.emission,
        family.reward[step - 1 :],
        horizon=family.horizon - step + 1,
        instruction_prior=family.instruction_prior,
    )


def first_actions(family: Family, experts: Experts, prompt: Prompt) -> Int[np.ndarray, " Z"]:
    """pi*_z after the last observation of ``prompt``, where ``family`` is :func:`what_follows` it, [Z]."""
    o = int(prompt.current_observations[-1])
    belief = state_posterior_by_task(family, Prompt(current_observations=[o]))
    return np.asarray(experts.act(experts.start(o), belief, 0, int(prompt.current_instruction)))


def check_decision(prompt: Prompt, family: Family) -> None:
    """Raise unless a subgoal is to be chosen after ``prompt``.

    Raises:
        InvalidPromptError: no observation yet, or the episode is over.
    """
    if not 1 <= prompt.step <= family.horizon - 1:
        raise InvalidPromptError(
            f"current_observations has {prompt.step} entries; a decision is made after 1 to H-1 = {family.horizon - 1}"
        )


def check_posterior(posterior: Posterior, worlds: Family | Latents, prompt: Prompt) -> Posterior:
    """``posterior``, if it is of these worlds and this prompt.

    Raises:
        InvalidProgramError, InvalidPromptError: it is of others.
    """
    if not isinstance(posterior, Posterior):
        raise InvalidProgramError(f"posterior = {shown(posterior)}; give what bayespar.posterior returned")
    finite = isinstance(worlds, Family)
    same = (
        posterior.family is not None
        and posterior.family.num_tasks == worlds.num_tasks
        and posterior.family.horizon == worlds.horizon
        if isinstance(worlds, Family)
        else posterior.latents is worlds
    )
    if not same:
        raise InvalidProgramError(
            f"the posterior is of another {'family' if finite else 'program'}; give that of this one"
        )
    seen, now = (jax.tree.leaves(p) for p in (posterior.prompt, prompt))
    if len(seen) != len(now) or any(not np.array_equal(a, b) for a, b in zip(seen, now, strict=True)):
        raise InvalidPromptError("the posterior is of another prompt; give that of this one")
    return posterior


def _latents(program: Program | Latents) -> Latents:
    latents = as_latents(program)
    if latents is None:
        raise InvalidProgramError("the program is finite, so nothing need be drawn; use bayespar.bail or bayespar.bawm")
    return latents


def _posterior(latents: Latents, prompt: Prompt, posterior: Posterior | None, draws: int) -> Posterior:
    check_count("draws", draws)
    return posterior_of(latents, prompt) if posterior is None else check_posterior(posterior, latents, prompt)


def _thinned(weights: Float[np.ndarray, " P"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """At most ``count`` points that stand for all, evenly along the cumulative weights, and their weights."""
    alive = np.flatnonzero(weights > 0)
    if len(alive) <= count:
        return alive, weights[alive] / weights[alive].sum()
    edges = np.cumsum(weights[alive])
    index = np.searchsorted(edges, (np.arange(count) + 0.5) / count * edges[-1], side="right")
    kept, times = np.unique(alive[np.minimum(index, len(alive) - 1)], return_counts=True)
    return kept, times / count


def _standard_errors(votes: Float[np.ndarray, "chain draw G"]) -> Float[np.ndarray, " G"]:
    from arviz_stats.base.array import array_stats  # it takes a second to load

    x = np.moveaxis(votes, -1, 0)
    constant = np.ptp(x, axis=(1, 2)) <= 1e-12  # sums of leaf probabilities round
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(constant, 0.0, array_stats.mcse(x, method="mean"))


def subfamily(family: Family, tasks: Int[np.ndarray, " Z"]) -> Family:
    """The family of some tasks, under a uniform prior."""
    if len(tasks) == family.num_tasks:
        return family

    def rows(a: Any) -> Any:
        return a if a.shape[0] == 1 else a[tasks]

    initial, transition, emission = jax.tree.map(rows, (family.initial, family.transition, family.emission))
    return Family(
        np.full(len(tasks), 1 / len(tasks)),
        initial,
        transition,
        emission,
        family.reward,
        horizon=family.horizon,
        instruction_prior=family.instruction_prior,
        tasks=[family.tasks[z] for z in tasks],
        states=family.states,
        subgoals=family.subgoals,
        observations=family.observations,
        instructions=family.instructions,
    )
