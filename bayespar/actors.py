"""Actors: optimal for a goal, or learned from demonstrations, with the error that learning leaves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .arrays import is_traced
from .errors import InvalidWorldError
from .keys import check_key
from .low_level import LowLevel, check_low_level
from .planning.expert import first_best
from .simulate.environment import split_key, uniforms
from .simulate.low_level import Simulator, draw_rows
from .sparse import Sparse
from .statistics import total_variation
from .validation import (
    NO_ARRAY,
    check_axis,
    check_count,
    check_fits,
    check_ndim,
    check_range,
    check_rows,
    float_array,
    shown,
)

_LARGEST_REWARD = 1e200  # sums of it over the steps of a subgoal do not overflow


@dataclass(frozen=True)
class Demonstrations:
    """What an Actor did.

    Attributes:
        states: [N, H_a + 1].
        actions: [N, H_a].
    """

    states: Int[np.ndarray, "N frames"]
    actions: Int[np.ndarray, "N moves"]


@dataclass(frozen=True)
class Imitation:
    """An Actor learned from demonstrations.

    Attributes:
        actor: frequencies of the actions, [H_a, S, A], or [1, S, A] if all steps were pooled; uniform in the rows that
            no demonstration visits.
        visits: how often each row was visited, [H_a or 1, S].
    """

    actor: Float[np.ndarray, "steps S A"]
    visits: Int[np.ndarray, "steps S"]

    @property
    def unvisited(self) -> float:
        """The fraction of rows that no demonstration visits."""
        return float((self.visits == 0).mean())


@dataclass(frozen=True)
class ActorDistance:
    """How far one Actor is from another.

    Attributes:
        distance: total variation between their actions, [H_a, S].
        visited: the law of the state in which the first Actor acts, [H_a, S]; each row sums to 1.
    """

    distance: Float[np.ndarray, "steps S"]
    visited: Float[np.ndarray, "steps S"]

    @property
    def largest(self) -> float:
        """The largest distance over steps and states: the delta of the theorem."""
        return float(self.distance.max())

    @property
    def largest_visited(self) -> float:
        """The largest over the steps and states that the first Actor can visit."""
        return float(self.distance[self.visited > 0].max())

    @property
    def on_visit(self) -> float:
        """The average over steps, in the states that the first Actor visits."""
        return float((self.visited * self.distance).sum(axis=1).mean())


def optimal_actor(low_level: Any, reward: Any) -> Float[np.ndarray, "steps S A"]:
    """The Actor that collects most, by value iteration over the low-level steps.

    Args:
        low_level: T and H_a; it may be a blueprint that differs from the world in which the Actor then acts.
        reward: what it gains by being in a state after a step, [S], or [H_a, S] where that depends on the step.

    Returns:
        Probabilities of the actions, [H_a, S, A], all 0 or 1; ties fall on the lowest index within 1e-9 of the best.

    Raises:
        InvalidWorldError: a wrong shape, or a reward that is not finite.

    Source: theory.md, section 1 (low level).
    """
    low_level = check_low_level(low_level)
    H_a, S, A = low_level.steps, low_level.num_states, low_level.num_actions
    reward = float_array("reward", reward)
    if is_traced(low_level, reward):
        raise InvalidWorldError("Actors are solved outside of traced code; the transition or reward is traced")
    reward = np.asarray(reward, np.float64)
    check_ndim("reward", reward, (1, 2), "[S] or [H_a, S]")
    check_axis("reward", reward, reward.ndim - 1, S, "the number of states")
    if reward.ndim == 2:
        check_axis("reward", reward, 0, H_a, "H_a, the low-level steps")
    check_range("reward", reward, -_LARGEST_REWARD, _LARGEST_REWARD)
    gains = np.broadcast_to(reward, (H_a, S))
    T = low_level.transition
    actor = np.zeros((H_a, S, A))
    later = np.zeros(S)
    for k in reversed(range(H_a)):
        worth = gains[k] + later
        if isinstance(T, Sparse):
            q = (np.asarray(T.probabilities, np.float64) * worth[np.asarray(T.next_states)]).sum(axis=-1).T
        else:
            q = (np.asarray(T, np.float64) @ worth).T
        actor[k] = np.eye(A)[first_best(q)]
        later = q.max(axis=1)
    return actor


def sample_demonstrations(low_level: Any, actor: Any, initial: Any, count: int, *, key: Any = 0) -> Demonstrations:
    """Runs of an Actor, each of H_a steps.

    Args:
        low_level: where it acts.
        actor: mu(a | s), [H_a or 1, S, A].
        initial: the law of the state in which a run begins, [S].
        count: N, how many runs.
        key: a JAX key or an int.

    Raises:
        InvalidWorldError: a wrong shape, or a row that is no distribution.
        InvalidPlannerError: ``count`` is no positive integer, or the key is none.
    """
    low_level = check_low_level(low_level)
    actor, initial = _check_actor("actor", actor, low_level), _check_initial(initial, low_level)
    N = check_count("count", count)
    check_fits(f"count = {N}", 8 * N * low_level.steps * 4)
    check_key(key)
    _, entropy = split_key(key)
    start = uniforms(entropy, 0, 0, (N,), np.float64)
    moves = uniforms(entropy, 1, 0, (N, low_level.steps, 2), np.float64)
    first = draw_rows(np.broadcast_to(np.cumsum(initial), (N, len(initial))), start)
    cumulative = np.cumsum(actor, axis=-1)[None]
    states, actions = Simulator(low_level).walk(cumulative, np.zeros(N, np.int32), first, moves)
    return Demonstrations(states, actions)


def imitate(low_level: Any, demonstrations: Any, *, stationary: bool = False) -> Imitation:
    """Behaviour cloning by counts: how often each action was taken in each state, at each step.

    A row that no demonstration visits is uniform over the actions; ``visits`` says which these are.

    Args:
        low_level: gives the sizes.
        demonstrations: from :func:`sample_demonstrations`, or your own.
        stationary: pool all steps, for an Actor that does the same at each.

    Raises:
        InvalidWorldError: the demonstrations are none, or speak of states or actions that there are not.
    """
    low_level = check_low_level(low_level)
    S, A = low_level.num_states, low_level.num_actions
    if not isinstance(demonstrations, Demonstrations):
        raise InvalidWorldError(f"demonstrations = {shown(demonstrations)}; give bayespar.Demonstrations")
    states, actions = (_indices(name, getattr(demonstrations, name)) for name in ("states", "actions"))
    states = states[:, :-1]
    if states.shape != actions.shape or actions.shape[1] != low_level.steps:
        raise InvalidWorldError(
            f"demonstrations.actions has shape {list(actions.shape)} and demonstrations.states "
            f"{list(np.shape(demonstrations.states))}; give [N, H_a] and [N, H_a + 1] with H_a = {low_level.steps}"
        )
    for name, given, size in (("states", states, S), ("actions", actions, A)):
        bad = (given < 0) | (given >= size)
        if bad.any():
            n, k = (int(i) for i in np.argwhere(bad)[0])
            raise InvalidWorldError(
                f"demonstrations.{name}[{n}, {k}] = {int(given[n, k])}, but {name} run from 0 to {size - 1}"
            )
    step = np.zeros_like(actions) if stationary else np.broadcast_to(np.arange(low_level.steps), actions.shape)
    counts = np.zeros((1 if stationary else low_level.steps, S, A), np.int64)
    np.add.at(counts, (step, states, actions), 1)
    visits = counts.sum(axis=-1)
    actor = np.where(visits[..., None] > 0, counts / np.maximum(visits, 1)[..., None], 1 / A)
    return Imitation(actor, visits)


def compare_actors(low_level: Any, actor: Any, other: Any, initial: Any) -> ActorDistance:
    """Total variation between two Actors in every state and step, and where the first one goes, exactly.

    Args:
        low_level: where ``actor`` acts.
        actor, other: [H_a or 1, S, A].
        initial: the law of the state in which it begins, [S].

    Raises:
        InvalidWorldError: a wrong shape, or a row that is no distribution.
    """
    low_level = check_low_level(low_level)
    actor, other = (_check_actor(name, a, low_level) for name, a in (("actor", actor), ("other", other)))
    H_a, S = low_level.steps, low_level.num_states
    distance = np.broadcast_to(total_variation(actor, other), (H_a, S))
    T = low_level.transition
    visited = np.zeros((H_a, S))
    visited[0] = _check_initial(initial, low_level)
    for k in range(H_a - 1):
        taken = (visited[k][:, None] * actor[min(k, len(actor) - 1)]).T  # [A, S]
        if isinstance(T, Sparse):
            np.add.at(visited[k + 1], np.asarray(T.next_states), taken[..., None] * np.asarray(T.probabilities))
        else:
            visited[k + 1] = np.einsum("as,ast->t", taken, np.asarray(T, np.float64))
    return ActorDistance(np.array(distance), visited)


def _indices(name: str, value: Any) -> Int[np.ndarray, "N times"]:
    """Demonstrations as an array of indices."""
    try:
        array = np.asarray(value)
    except NO_ARRAY:
        array = np.empty(0)
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        raise InvalidWorldError(f"demonstrations.{name} = {shown(value)}; give integers with two axes")
    return array


def _check_actor(name: str, actor: Any, low_level: LowLevel) -> Float[np.ndarray, "steps S A"]:
    actor = float_array(name, actor)
    check_ndim(name, actor, (3,), "[H_a or 1, S, A]")
    check_axis(name, actor, 0, (low_level.steps, 1), "H_a, the low-level steps (or 1, if every step is alike)")
    check_axis(name, actor, 1, low_level.num_states, "the number of states")
    check_axis(name, actor, 2, low_level.num_actions, "the number of actions")
    check_rows(name, actor)
    return np.asarray(actor, np.float64)


def _check_initial(initial: Any, low_level: LowLevel) -> Float[np.ndarray, " S"]:
    initial = float_array("initial", initial)
    check_ndim("initial", initial, (1,), "[S]")
    check_axis("initial", initial, 0, low_level.num_states, "the number of states")
    check_rows("initial", initial)
    return np.asarray(initial, np.float64)
