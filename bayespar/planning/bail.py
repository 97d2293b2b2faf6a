"""BAIL: experts averaged under the posterior over tasks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array
from ..errors import InvalidPlannerError
from ..filtering import Filter, Weights
from ..history import Prompt, check_prompt
from ..posterior.exact import exact_posterior, state_posterior_by_task
from ..posterior.latents import Latents, as_latents
from ..posterior.result import Posterior
from ..program import Program, as_family
from ..world import Family
from .by_draws import bail_by_draws, check_decision, check_posterior
from .expert import Experts, check_experts, solve_experts
from .histories import Histories
from .planner import Episode, Observed, Planner

# Comparing every task with every subgoal beats scattering until this many pairs.
_LARGEST_ONE_HOT = 1024


def bail(
    family_or_program: Family | Program | Latents,
    prompt: Prompt,
    *,
    experts: Experts | None = None,
    posterior: Posterior | None = None,
) -> Float[np.ndarray, " G"]:
    """BAIL(g | pt) = sum_z pi*_z(g | tau_h, w) P(z | pt).

    Where tasks have a density the sum is an average over posterior draws; :func:`bail_by_draws` tells its error.

    Args:
        family_or_program: a Family, or a program, finite or not.
        prompt: with 1 <= h <= H-1 observations in the current episode.
        experts: of a finite program, from :func:`solve_experts`; solved here if not given, which is the bulk of the
            cost.
        posterior: from :func:`bayespar.posterior` for the same program and prompt; computed here if not given.

    Returns:
        Probabilities of the subgoals, [G].

    Raises:
        InvalidPromptError: there is no decision to make (no observation yet, or the episode is over), or the posterior
            is of another prompt.
        InvalidProgramError: the posterior is of another program.
        InvalidPlannerError: the experts are of another family, or given where each draw has its own.
        ImpossibleEvidenceError: no task of positive prior can have produced the prompt.

    Source: theory.md, C1 and section 8.
    """
    latents = as_latents(family_or_program)
    if latents is not None:
        if experts is not None:
            raise InvalidPlannerError("experts are solved for each draw where tasks have a density; leave them out")
        return bail_by_draws(latents, prompt, posterior=posterior).probabilities
    assert not isinstance(family_or_program, Latents)
    family = as_family(family_or_program)
    check_prompt(prompt, family)
    check_decision(prompt, family)
    experts = solve_experts(family) if experts is None else check_experts(experts, family)
    known = exact_posterior(family, prompt) if posterior is None else check_posterior(posterior, family, prompt)
    weights = known.probabilities
    actions = expert_actions(family, experts, prompt)
    return np.bincount(actions, weights=weights, minlength=family.num_subgoals)


def expert_actions(family: Family, experts: Experts, prompt: Prompt) -> Array:
    """pi*_z(tau_h, w) of every task at the current history of ``prompt``, [Z]; arbitrary where tau is impossible."""
    o, g = prompt.current_observations, prompt.current_subgoals
    memory, belief = experts.start(int(o[0])), None
    for h in range(prompt.step - 1):
        memory = experts.advance(memory, h, int(g[h]), int(o[h + 1]))
    if isinstance(memory, tuple):  # experts without a memory read the belief
        belief = state_posterior_by_task(family, prompt)
    return np.asarray(experts.act(memory, belief, prompt.step - 1, int(prompt.current_instruction)))


def expert_table(histories: Histories, experts: Experts) -> list[Int[np.ndarray, "_ W Z"]]:
    """pi*_z(tau, w) of every task at every history that has a decision, layer by layer; arbitrary where impossible."""
    family = histories.family
    table, memories = [], []
    for h, layer in enumerate(histories.layers[: family.horizon - 1]):
        belief = histories.belief(h)
        above = memories
        memories = [
            experts.start(int(o)) if h == 0 else experts.advance(above[parent], h - 1, int(g), int(o))
            for parent, g, o in zip(layer.parent, layer.subgoal, layer.observation, strict=True)
        ]
        rows = np.zeros((len(memories), family.num_instructions, family.num_tasks), np.int32)
        for n, memory in enumerate(memories):
            for w in range(family.num_instructions):
                rows[n, w] = experts.act(memory, belief[n], h, w)
        table.append(rows)
    return table


def bail_table(
    histories: Histories,
    experts: Experts,
    weights: Float[np.ndarray, " Z"] | None = None,
    *,
    actions: list[Int[np.ndarray, "_ W Z"]] | None = None,
) -> list[Float[np.ndarray, "_ W G"]]:
    """BAIL at every history that has a decision, layer by layer.

    Args:
        histories: from :func:`enumerate_histories`.
        experts: from :func:`solve_experts`.
        weights: P(z | past), the posterior after the finished episodes; the prior by default. Histories that are
            impossible under it get the uniform distribution.
        actions: from :func:`expert_table`; computed here if not given.
    """
    family = histories.family
    prior = np.asarray(family.task_prior if weights is None else weights, np.float64)
    table = []
    actions = expert_table(histories, experts) if actions is None else actions
    for layer, chosen in zip(histories.layers, actions, strict=False):
        joint = layer.likelihood * prior
        total = joint.sum(axis=1, keepdims=True)
        task = joint / np.where(total > 0, total, 1)
        rows = np.zeros((*chosen.shape[:2], family.num_subgoals))
        n, w = np.arange(chosen.shape[0])[:, None, None], np.arange(chosen.shape[1])[:, None]
        np.add.at(rows, (n, w, chosen), np.broadcast_to(task[:, None], chosen.shape))
        rows[total[:, 0] == 0] = 1 / family.num_subgoals
        table.append(rows)
    return table


class BailState(eqx.Module):
    """What BAIL remembers.

    Attributes:
        weights: P_Z(z) times the evidence of the finished episodes, up to a constant; made of their logarithms [Z], in
            nats, or given.
        forward: forward weights of the current episode (see :class:`Filter`).
        memory: the experts' memory of the current history.
    """

    weights: Weights
    forward: Float[Array, "S Z"]
    memory: Any

    def __init__(self, weights: Weights | Float[Array, " Z"], forward: Float[Array, "S Z"], memory: Any):
        self.weights = weights if isinstance(weights, Weights) else Weights.from_log(weights)
        self.forward, self.memory = forward, memory

    @property
    def log_weights(self) -> Float[Array, " Z"]:
        """Logarithms of the weights, nats."""
        return self.weights.log()


class BailPlanner(Planner):
    """BAIL as a planner; a step costs the same however long the prompt is."""

    log_prior: Float[Array, " Z"]
    tracker: Filter
    experts: Experts
    subgoals: int = eqx.field(static=True)

    def __init__(self, family: Family, experts: Experts):
        with np.errstate(divide="ignore"):
            self.log_prior = np.log(family.task_prior)
        self.tracker = Filter(family)
        self.experts = experts
        self.subgoals = family.num_subgoals

    def init(self, instruction: Any, key: Any) -> BailState:
        forward = self.tracker.start(0)
        return BailState(jnp.asarray(self.log_prior), forward, self.experts.start(0))

    def step(self, state: BailState, observed: Observed) -> tuple[BailState, Any]:
        o, g, h, w = observed
        before = jnp.maximum(h - 1, 0)
        # A branch, not a choice between two results: loops over runs share the step, so one of the two is worked out.
        forward, memory = jax.lax.cond(
            h == 0,
            lambda: _arrays((self.tracker.start(o), self.experts.start(o))),
            lambda: _arrays(
                (
                    self.tracker.advance(state.forward, before, g, o),
                    self.experts.advance(state.memory, before, g, o),
                )
            ),
        )
        state = BailState(state.weights, forward, memory)
        return state, self.choose(self.probabilities(state), self.actions(state, h, w))

    def observe(self, state: BailState, episode: Episode) -> BailState:
        weights = state.weights * self.tracker.likelihood(state.forward)
        return BailState(weights.reduced(), state.forward, state.memory)

    def posterior(self, state: BailState) -> Float[Array, " Z"]:
        """P(z | past), between episodes."""
        return state.weights.normalised()

    def probabilities(self, state: BailState) -> Float[Array, " Z"]:
        """P(z | pt_h), after the observations of the current episode; NaN if they are impossible under every task."""
        return (state.weights * self.tracker.likelihood(state.forward)).normalised()

    def actions(self, state: BailState, step: Any, instruction: Any) -> Any:
        """pi*_z(tau_h, w) of every task, [Z]."""
        return self.experts.act(state.memory, self.tracker.weights(state.forward), step, instruction)

    def choose(self, posterior: Float[Array, " Z"], actions: Any) -> Float[Array, " G"]:
        """The probabilities of the subgoals, from the posterior and each task's expert subgoal."""
        if posterior.shape[0] * self.subgoals > _LARGEST_ONE_HOT:
            return jnp.zeros(self.subgoals, posterior.dtype).at[actions].add(posterior)
        votes = actions == jnp.arange(self.subgoals)[:, None]
        return jnp.where(votes, posterior, 0).sum(axis=1)


def _arrays(tree: Any) -> Any:
    return jax.tree.map(jnp.asarray, tree)


class WatchedPlanner(Planner):
    """A planner without a posterior, beside which the exact one is kept: a gate can then read it."""

    planner: Planner
    watch: BailPlanner

    def init(self, instruction: Any, key: Any) -> Any:
        return self.planner.init(instruction, key), self.watch.init(instruction, key)

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        inner, probabilities = self.planner.step(state[0], observed)
        return (inner, self.watch.step(state[1], observed)[0]), probabilities

    def observe(self, state: Any, episode: Episode) -> Any:
        return self.planner.observe(state[0], episode), self.watch.observe(state[1], episode)

    def posterior(self, state: Any) -> Any:
        return self.watch.posterior(state[1])
