"""Planners to compare BAIL with: Thompson sampling, the most probable task, and an oracle that knows the task."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..world import Family
from .bail import BailPlanner, BailState
from .expert import Experts, first_best
from .planner import Episode, Observed


class MapPlanner(BailPlanner):
    """Follows the expert of the most probable task at every step; ties fall on the lowest index."""

    def choose(self, posterior: Any, actions: Any) -> Any:
        return jnp.zeros(self.subgoals, posterior.dtype).at[actions[first_best(posterior)]].set(1)


class OraclePlanner(BailPlanner):
    """Follows the expert of the true task.

    Attributes:
        task: its index.
    """

    task: Any

    def __init__(self, family: Family, experts: Experts, task: int):
        super().__init__(family, experts)
        self.task = np.int32(task)

    def choose(self, posterior: Any, actions: Any) -> Any:
        return jnp.zeros(self.subgoals, posterior.dtype).at[actions[self.task]].set(1)


class ThompsonState(eqx.Module):
    """What Thompson sampling remembers.

    Attributes:
        inner: as for BAIL.
        key: of the draws to come.
        task: drawn for the current episode.
    """

    inner: BailState
    key: Any
    task: Any


class ThompsonPlanner(BailPlanner):
    """Draws one task an episode from P(z | past), and follows its expert throughout the episode.

    Where the episode shows that it cannot be that task, its expert is arbitrary: the first subgoal is chosen.

    Source: Thompson (1933); for episodes, Osband, Russo and Van Roy (2013).
    """

    def init(self, instruction: Any, key: Any) -> ThompsonState:
        return ThompsonState(super().init(instruction, key), key, jnp.int32(0))

    def step(self, state: ThompsonState, observed: Observed) -> tuple[ThompsonState, Any]:
        key, draw = jax.random.split(state.key)
        first = observed.step == 0
        fresh = jax.random.categorical(draw, state.inner.log_weights).astype(jnp.int32)
        task = jnp.where(first, fresh, state.task)
        inner, _ = super().step(state.inner, observed)
        possible = jnp.isfinite(self.tracker.log_likelihood(inner.forward)[task])
        action = jnp.where(possible, self.actions(inner, observed.step, observed.instruction)[task], 0)
        probabilities = jnp.zeros(self.subgoals, inner.log_weights.dtype).at[action].set(1)
        return ThompsonState(inner, jnp.where(first, key, state.key), task), probabilities

    def observe(self, state: ThompsonState, episode: Episode) -> ThompsonState:
        return ThompsonState(super().observe(state.inner, episode), state.key, state.task)

    def posterior(self, state: ThompsonState) -> Any:
        return super().posterior(state.inner)
