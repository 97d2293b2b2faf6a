"""BAWM: the posterior over tasks as a world model, to predict with and to plan in."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..arrays import precision_of
from ..errors import InvalidPlannerError, InvalidPromptError, TooLargeError
from ..evidence import prefix_log_evidence
from ..history import Prompt, as_indices, check_prompt
from ..keys import as_key, check_key
from ..posterior.choose import posterior as posterior_of
from ..posterior.exact import exact_posterior
from ..posterior.latents import Latents, as_latents
from ..posterior.result import Posterior
from ..program import Program, as_family
from ..statistics import log_normalise, log_sum_exp
from ..validation import check_count, check_limit, shown
from ..world import Family
from .aggregated import GraphPlans, plan_graph
from .bail import BailState
from .beliefs import DEFAULT_MAX_BYTES
from .by_draws import DRAWS, check_posterior, mixture_of
from .expert import Experts, check_experts, first_best, solve_experts
from .information import places
from .lookahead import DEPTH, LookaheadPlanner
from .planner import Observed
from .search import SIMULATIONS, SearchPlanner

METHODS = ("exact", "lookahead", "search")
_QUICK_BYTES = 2**26  # of a graph that is built unasked: it takes seconds


@dataclass(frozen=True)
class Plan:
    """What to do next, in the aggregated world model.

    Attributes:
        subgoal: index of the best subgoal; ties fall on the lowest.
        values: expected reward still to come after each subgoal, [G]: exact, or at most so much.
        value: that of ``subgoal``.
        gap: choosing ``subgoal`` and going on optimally gives away at most this; 0 for "exact", NaN where the experts
            that the bound rests on have a gap of their own.
        method: "exact", "lookahead" or "search".
    """

    subgoal: int
    values: Float[np.ndarray, " G"]
    value: float
    gap: float
    method: str


@dataclass(frozen=True)
class WorldModel:
    """The aggregated world model after a prompt: worlds, each with the probability that it is the one at hand.

    Attributes:
        family: the worlds that are mixed: all tasks where they are finite, else those of posterior draws.
        prompt: what was seen.
        posterior: P(z | pt).
        weights: P(z | pt) of each world in ``family``, [Z].

    Source: theory.md, W1, W2 and section 8.
    """

    family: Family
    prompt: Prompt
    posterior: Posterior
    weights: Float[np.ndarray, " Z"]

    @functools.cached_property
    def _log_past(self) -> Float[np.ndarray, " Z"]:
        """log P(z | finished episodes), nats."""
        if self.posterior.family is None:  # draws given all that was seen: the current history is taken back
            now = self.prompt
            tau = now.current_observations[None], now.current_subgoals[None]
            log_likelihood = self._log_likelihoods(*tau)[:, 0] if now.step else 0.0
            return log_normalise(np.log(self.weights) - log_likelihood)
        with np.errstate(divide="ignore"):
            log_prior = np.log(np.asarray(self.family.task_prior, np.float64))
        episodes = self.posterior.episode_log_evidence
        return log_normalise(log_prior if episodes is None else log_prior + episodes.sum(axis=1, dtype=np.float64))

    def next_observation(self, subgoal: int | str | None = None) -> Float[np.ndarray, " O"]:
        """P(o' | pt, g): the law of the next observation.

        Args:
            subgoal: index or name of the subgoal to be executed; None before the first observation of an episode.

        Returns:
            Probabilities of the observations, [O].

        Raises:
            InvalidPromptError: the episode is over, there is no such subgoal, or one too many or too few.
        """
        family, now = self.family, self.prompt
        if now.step == family.horizon:
            raise InvalidPromptError(f"current_observations has all H = {family.horizon} entries; the episode is over")
        if now.step == 0 and subgoal is not None:
            raise InvalidPromptError(
                f"subgoal = {shown(subgoal)}, but the first observation of an episode comes before any subgoal"
            )
        chosen = now.current_subgoals if now.step == 0 else np.append(now.current_subgoals, _index(family, subgoal))
        rows = (family.num_observations, 1)
        observations = np.tile(now.current_observations, rows)
        every = np.concatenate([observations, np.arange(family.num_observations)[:, None]], axis=1)
        return np.exp(self._log_joint(every, np.tile(chosen, rows)) - self._log_now)

    def log_probability(self, observations: Any, subgoals: Any) -> float:
        """log P(o || g | pt) of a continuation of the current episode, nats; -inf where it is impossible.

        Args:
            observations: those that follow, [n].
            subgoals: those executed, [n]; before the first observation of an episode [n-1], for none comes before it.

        Raises:
            InvalidPromptError: they do not fit together, are out of range, or go on after the episode is over.
        """
        now = self.prompt
        more = Prompt(
            current_observations=np.append(now.current_observations, as_indices("observations", observations, 1)),
            current_subgoals=np.append(now.current_subgoals, as_indices("subgoals", subgoals, 1)),
        )
        check_prompt(more, self.family)
        after = self._log_joint(more.current_observations[None], more.current_subgoals[None])
        return float(after[0] - self._log_now)

    @functools.cached_property
    def _log_now(self) -> float:
        """log P(tau || g | finished episodes), nats."""
        return float(self._log_joint(self.prompt.current_observations[None], self.prompt.current_subgoals[None])[0])

    def _log_joint(self, observations: Any, subgoals: Any) -> Float[np.ndarray, " N"]:
        """log sum_z P(z | finished episodes) L_z(tau), nats, of histories tau [N, h] with their subgoals [N, h-1]."""
        N, step = observations.shape
        if step == 0:
            return np.zeros(N)
        return log_sum_exp(self._log_past + self._log_likelihoods(observations, subgoals).T)

    def _log_likelihoods(self, observations: Any, subgoals: Any) -> Float[np.ndarray, "Z N"]:
        """log L_z(tau) of histories of at least one observation, nats."""
        step = observations.shape[1]
        rest = [(0, 0), (0, self.family.horizon - step)]
        prefixes = prefix_log_evidence(self.family, np.pad(observations, rest), np.pad(subgoals, rest))
        return np.asarray(prefixes, np.float64)[:, :, step - 1]

    def plan(
        self,
        method: str | None = None,
        *,
        depth: int = DEPTH,
        simulations: int = SIMULATIONS,
        experts: Experts | None = None,
        key: Any = 0,
        max_bytes: float | None = None,
    ) -> Plan:
        """The best next subgoal: reward to come within the episode, information counted where it pays in the episode.

        Args:
            method: "exact" (dynamic programming over all histories), "lookahead" (a few decisions ahead, the task taken
                to be revealed after them) or "search" (Monte Carlo tree search). By default "exact" if the histories
                take seconds, else "lookahead".
            depth: of "lookahead", decisions; from the number of those left on it is exact.
            simulations: of "search".
            experts: from :func:`solve_experts`, for "lookahead" and "search"; solved here if not given.
            key: of "search", where it only breaks ties: a JAX key or an int.
            max_bytes: of "exact", the largest layer that is built; 2 GiB by default, 64 MiB where it is one of two.

        Raises:
            InvalidPromptError: there is no decision to make (no observation yet, or the episode is over).
            InvalidPlannerError: no such method, depth, number of simulations, key, limit, or experts of another family.
            TooLargeError: the named method does not fit.

        Source: theory.md, W2.
        """
        family, step = self.family, self.prompt.step
        if method is not None and not (isinstance(method, str) and method in METHODS):
            raise InvalidPlannerError(f"method = {shown(method)}; give {', '.join(map(repr, METHODS))}")
        if max_bytes is not None:
            check_limit("max_bytes", max_bytes, InvalidPlannerError)
        if not 1 <= step <= family.horizon - 1:
            raise InvalidPromptError(
                f"current_observations has {step} entries; a decision is made after 1 to H-1 = {family.horizon - 1}"
            )
        check_count("depth", depth)
        check_count("simulations", simulations)
        check_key(key)
        if experts is not None:
            check_experts(experts, family)
        if method in (None, "exact"):
            try:
                return self._exact(max_bytes or (DEFAULT_MAX_BYTES if method else _QUICK_BYTES))
            except TooLargeError:
                if method == "exact":
                    raise
        experts = solve_experts(family) if experts is None else experts
        if method == "search":
            return self._ahead(SearchPlanner(family, experts, simulations), key)
        return self._ahead(LookaheadPlanner(family, experts, depth), key)

    def _exact(self, max_bytes: float) -> Plan:
        classes, graph = plan_graph(self.family, max_bytes=max_bytes)
        root, child = places(graph)
        prompt, h = self.prompt, self.prompt.step - 1
        node = int(root[prompt.current_observations[0]])
        for g, o in zip(prompt.current_subgoals, prompt.current_observations[1:], strict=True):
            node = int(child[node, g, o])
        node -= sum(layer.size for layer in graph.layers[:h])
        plans = GraphPlans(graph)
        live = classes.label >= 0
        task = np.bincount(classes.label[live], self.weights[live], len(classes.members))
        # Weights that give this posterior at this node: from here on they are all that counts, and none underflows.
        likelihood = plans.likelihood[h][node]
        weights = np.where(likelihood > 0, task / np.where(likelihood > 0, likelihood, 1), 0)
        values = np.asarray(plans.q(weights, int(prompt.current_instruction))[h][0, node])
        best = int(first_best(values[None])[0])
        return Plan(best, values, float(values[best]), 0.0, "exact")

    def _ahead(self, planner: LookaheadPlanner, key: Any) -> Plan:
        """By lookahead or search; what its subgoal gives away is bounded by the lookahead either way."""
        prompt, family = self.prompt, self.family
        h, w = prompt.step - 1, int(prompt.current_instruction)
        with precision_of(family):
            start = planner.start(jnp.asarray(self._log_past, family.dtype))
            subgoals = np.append(-1, prompt.current_subgoals)
            for k, (o, g) in enumerate(zip(prompt.current_observations, subgoals, strict=True)):
                start = _track(planner, start, Observed(*map(jnp.int32, (o, g, k, w))))
            upper, lower = (np.asarray(b, np.float64) for b in _bounds(planner, start, jnp.int32(h), jnp.int32(w)))
            method, values = "lookahead", upper
            if isinstance(planner, SearchPlanner):
                method = "search"
                values = np.asarray(_search(planner, start, jnp.int32(h), jnp.int32(w), as_key(key)), np.float64)
        best = int(first_best(values[None])[0])
        gap = max(0.0, float(values.max() - lower[best])) if planner.experts.gap == 0 else math.nan
        return Plan(best, values, float(values[best]), gap, method)


@eqx.filter_jit
def _track(planner: LookaheadPlanner, state: BailState, observed: Observed) -> BailState:
    return planner.track(state, observed)


@eqx.filter_jit
def _bounds(planner: LookaheadPlanner, state: BailState, h: Any, w: Any) -> Any:
    return planner.bounds(state, h, w)


@eqx.filter_jit
def _search(planner: SearchPlanner, state: BailState, h: Any, w: Any, key: Any) -> Any:
    return planner.search(state, h, w, key)


def bawm(
    family_or_program: Family | Program | Latents,
    prompt: Prompt,
    *,
    posterior: Posterior | None = None,
    draws: int = DRAWS,
) -> WorldModel:
    """The Bayesian aggregated world model: what a network pretrained on next observations computes from a prompt.

    Args:
        family_or_program: a Family, or a program, finite or not.
        prompt: what was seen.
        posterior: from :func:`bayespar.posterior` for the same program and prompt; computed here if not given.
        draws: where tasks have a density, how many points of the posterior stand for it.

    Returns:
        A model to predict with, ``next_observation`` and ``log_probability``, and to plan in, ``plan``.

    Raises:
        ImpossibleEvidenceError: no task of positive prior can have produced the prompt; names the episode and step.
        InvalidPromptError: the prompt does not fit the family, or the posterior is of another prompt.
        InvalidProgramError: the posterior is of another program.
        InvalidPlannerError: no number of draws.

    Source: theory.md, W1, W2 and section 8.
    """
    latents = as_latents(family_or_program)
    check_count("draws", draws)
    if latents is not None:
        check_prompt(prompt, latents.example)
        known = posterior_of(latents, prompt) if posterior is None else check_posterior(posterior, latents, prompt)
        mixture = mixture_of(known, draws)
        return WorldModel(mixture.family, prompt, known, mixture.weights)
    assert not isinstance(family_or_program, Latents)
    family = as_family(family_or_program)
    check_prompt(prompt, family)
    known = exact_posterior(family, prompt) if posterior is None else check_posterior(posterior, family, prompt)
    return WorldModel(family, prompt, known, known.probabilities)


def _index(family: Family, subgoal: Any) -> int:
    """The index of a subgoal given by index or by name."""
    if isinstance(subgoal, str) and subgoal in family.subgoals:
        return family.subgoals.index(subgoal)
    if isinstance(subgoal, (int, np.integer)) and not isinstance(subgoal, bool) and 0 <= subgoal < family.num_subgoals:
        return int(subgoal)
    names = ", ".join(map(shown, family.subgoals[:8]))
    raise InvalidPromptError(
        f"subgoal = {shown(subgoal)}; give an index from 0 to {family.num_subgoals - 1}, or a name: {names}"
    )
