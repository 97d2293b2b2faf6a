"""Episodes of a two-level world, every low-level step of them: in plain numpy, from T and the Actors, uncomposed."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..arrays import is_traced
from ..errors import InvalidPlannerError, InvalidWorldError
from ..keys import check_key
from ..low_level import LowLevel, TwoLevel
from ..planning.planner import check_probabilities
from ..sparse import Sparse
from ..validation import NO_ARRAY, check_count, check_fits, shown
from ..world import World
from .environment import split_key, uniforms


@dataclass(frozen=True)
class LowLevelRollout:
    """Episodes, frame by frame. Frame 0 shows s_1, and frame h H_a the state after h subgoals.

    Attributes:
        states: [N, (H-1) H_a + 1].
        actions: [N, (H-1) H_a]; action k leads from frame k to frame k + 1.
        observations: [N, H].
        subgoals: [N, H-1].
        steps: H_a.
    """

    states: Int[np.ndarray, "N frames"]
    actions: Int[np.ndarray, "N moves"]
    observations: Int[np.ndarray, "N H"]
    subgoals: Int[np.ndarray, "N Hm1"]
    steps: int


def rollout_low_level(world: Any, policy: Any = "uniform", *, episodes: int = 1, key: Any = 0) -> LowLevelRollout:
    """Episodes of one task's two-level world, with every low-level state and action.

    Args:
        world: a World whose transition was given as a :class:`TwoLevel`.
        policy: "uniform"; the subgoals [H-1] of every episode, as indices or names; or a function of a history, the
            observations [h] and the subgoals [h-1] so far, to probabilities [G], called once for each that occurs.
        episodes: N.
        key: a JAX key or an int.

    Raises:
        InvalidWorldError: the world has no low level.
        InvalidPlannerError: the policy is none or returns no distribution, or ``episodes`` or the key is none.

    Source: theory.md, section 1 (low level).
    """
    two_level = check_two_level(world)
    H, H_a = world.horizon, two_level.low_level.steps
    N = check_count("episodes", episodes)
    check_fits(f"episodes = {N}", 8 * N * (H - 1) * H_a * 4)
    check_key(key)
    choose = _as_policy(policy, world)
    simulator = Simulator(two_level.low_level)
    actors = np.cumsum(np.asarray(two_level.actors, np.float64), axis=-1)
    initial, emission = (np.cumsum(np.asarray(a, np.float64), axis=-1) for a in (world.initial, world.emission))
    _, entropy = split_key(key)

    def chance(step: int, *shape: int) -> np.ndarray:
        return uniforms(entropy, step, 0, (N, *shape), np.float64)

    states = np.zeros((N, (H - 1) * H_a + 1), np.int32)
    actions = np.zeros((N, (H - 1) * H_a), np.int32)
    observations, subgoals = np.zeros((N, H), np.int32), np.zeros((N, H - 1), np.int32)
    first = chance(0, 2)
    states[:, 0] = draw_rows(np.broadcast_to(initial, (N, len(initial))), first[:, 0])
    observations[:, 0] = draw_rows(emission[states[:, 0]], first[:, 1])
    for h in range(H - 1):
        u = chance(h + 1, 2 + 2 * H_a)
        weights = _by_history(choose, observations[:, : h + 1], subgoals[:, :h], two_level.num_subgoals)
        subgoals[:, h] = draw_rows(np.cumsum(weights, axis=-1), u[:, 0])
        now = slice(h * H_a, (h + 1) * H_a)
        path = simulator.walk(actors, subgoals[:, h], states[:, h * H_a], u[:, 2:].reshape(N, H_a, 2))
        states[:, h * H_a + 1 : (h + 1) * H_a + 1], actions[:, now] = path[0][:, 1:], path[1]
        observations[:, h + 1] = draw_rows(emission[states[:, (h + 1) * H_a]], u[:, 1])
    return LowLevelRollout(states, actions, observations, subgoals, H_a)


class Simulator:
    """Draws low-level steps of many episodes at once.

    Attributes:
        steps: H_a.
    """

    def __init__(self, low_level: LowLevel):
        T = low_level.transition
        weights = T.probabilities if isinstance(T, Sparse) else T
        self.steps = low_level.steps
        self._cumulative = np.cumsum(np.asarray(weights, np.float64), axis=-1)
        self._next = np.asarray(T.next_states) if isinstance(T, Sparse) else None

    def walk(
        self,
        actors: Float[np.ndarray, "G steps S A"],
        subgoals: Int[np.ndarray, " N"],
        states: Int[np.ndarray, " N"],
        uniform: Float[np.ndarray, "N moves two"],
    ) -> tuple[Int[np.ndarray, "N frames"], Int[np.ndarray, "N moves"]]:
        """States [N, H_a + 1] and actions [N, H_a] of one subgoal each.

        Args:
            actors: cumulative over actions, [G, H_a or 1, S, A].
            subgoals: of each episode.
            states: where each begins.
            uniform: numbers in [0, 1), two for each step, [N, H_a, 2].
        """
        path, actions = [states], []
        for k in range(self.steps):
            a = draw_rows(actors[subgoals, min(k, actors.shape[1] - 1), path[-1]], uniform[:, k, 0])
            slot = draw_rows(self._cumulative[a, path[-1]], uniform[:, k, 1])
            path.append(slot if self._next is None else self._next[a, path[-1], slot])
            actions.append(a)
        return np.stack(path, axis=1).astype(np.int32), np.stack(actions, axis=1)


def draw_rows(cumulative: Float[np.ndarray, "N n"], uniform: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The index drawn from each row of cumulative weights by a number in [0, 1); never one of weight zero."""
    total = cumulative[:, -1]
    target = np.minimum(uniform * total, np.nextafter(total, 0))
    return (cumulative <= target[:, None]).sum(axis=1).astype(np.int32)


def check_two_level(world: Any) -> TwoLevel:
    """The low level of a world.

    Raises:
        InvalidWorldError: it is no world, or has none.
    """
    if not isinstance(world, World):
        raise InvalidWorldError(f"world = {shown(world)}; give what a program returns, a bayespar.World")
    if world.two_level is None:
        raise InvalidWorldError("the world has no low level: give its transition as a bayespar.TwoLevel")
    if is_traced(world):
        raise InvalidWorldError("episodes are simulated outside of traced code")
    return world.two_level


def _as_policy(policy: Any, world: World) -> Callable[[list[int], list[int]], Any]:
    G, H = len(world.subgoals), world.horizon
    if isinstance(policy, str) and policy == "uniform":
        return lambda observations, subgoals: np.full(G, 1 / G)
    if callable(policy):
        return policy
    try:
        plan = [world.subgoals.index(g) if isinstance(g, str) else operator.index(g) for g in policy]
    except NO_ARRAY:
        plan = []
    if isinstance(policy, str) or len(plan) != H - 1 or not all(0 <= g < G for g in plan):
        raise InvalidPlannerError(
            f"policy = {shown(policy)}; give 'uniform', {H - 1} subgoals by index or name, or a function of the "
            "observations and subgoals so far"
        )
    return lambda observations, subgoals: np.eye(G)[plan[len(subgoals)]]


def _by_history(choose: Any, observations: np.ndarray, subgoals: np.ndarray, count: int) -> Float[np.ndarray, "N G"]:
    """Probabilities of the subgoals in every episode; ``choose`` is asked once for each history."""
    h = observations.shape[1]
    distinct, episode = np.unique(np.concatenate([observations, subgoals], axis=1), axis=0, return_inverse=True)
    rows = [np.asarray(choose(row[:h].tolist(), row[h:].tolist()), np.float64) for row in distinct]
    if any(row.shape != (count,) for row in rows):
        raise InvalidPlannerError(f"the policy returned no array of {count} probabilities, one for each subgoal")
    return check_probabilities(np.stack(rows), count)[episode.reshape(-1)]
