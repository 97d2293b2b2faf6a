"""Experts pi*_z: optimal for every history that is possible under their task.

Three representations share one interface (:class:`Experts`). The memory of an expert is what it must carry along a
history besides the belief; all of them are pure functions of arrays, so they run inside ``jit``, ``scan``, ``vmap``.
"""

from __future__ import annotations

import abc
from typing import Any, Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ..arrays import Array, is_traced
from ..errors import InvalidPlannerError, InvalidWorldError, TooLargeError
from ..kernels import HostKernel
from ..program import Program, as_family
from ..validation import check_limit, shown
from ..world import Family
from .alpha_vectors import solve_alpha_vectors
from .beliefs import DEFAULT_MAX_BYTES, BeliefGraph, belief_graph

TIE = 1e-9
# What fits in memory may still take minutes; the automatic choice of a method gives up earlier.
_MOST_VECTORS, _QUICK_VECTORS = 20_000, 100
_QUICK_BYTES = 2**26


def take(table: Array, *index: Any) -> Array:
    """``table[index]``: by numpy where everything is concrete, so that nothing is compiled for a look-up."""
    return jnp.asarray(table)[index] if is_traced(table, index) else np.asarray(table)[index]


def first_best(values: Float[Array, "*batch G"]) -> Int[Array, "*batch"]:
    """The lowest index within 1e-9 of the best, along the last axis."""
    xp = np if isinstance(values, np.ndarray) else jnp
    return xp.argmax(values >= values.max(axis=-1, keepdims=True) - TIE, axis=-1).astype(np.int32)


class Experts(eqx.Module):
    """One expert a task. Tasks under which a history is impossible act arbitrarily on it, never with NaN.

    Attributes:
        value: J_z(pi*_z, w), [Z, W].
        gap: no expert's value is further than this from the optimum; 0 for the exact methods.
    """

    value: eqx.AbstractVar[Float[Array, "Z W"]]
    gap: eqx.AbstractVar[float]

    @abc.abstractmethod
    def fits(self, family: Family) -> bool:
        """Whether the tables have the sizes of ``family``."""

    @abc.abstractmethod
    def start(self, observation: Any) -> Any:
        """The memory after the first observation."""

    @abc.abstractmethod
    def advance(self, memory: Any, step: Any, subgoal: Any, observation: Any) -> Any:
        """The memory after ``subgoal`` at step ``step`` (from 0) and the ``observation`` that followed."""

    @abc.abstractmethod
    def q(self, memory: Any, belief: Any, step: Any, instruction: Any, task: Any) -> Float[Array, " G"]:
        """Q*_z(tau, g, w) of one task z: reward still to come after each subgoal.

        Args:
            memory: of the history tau.
            belief: forward weights of each task, proportional to P_z(s | tau), [Z, S]; read only by experts whose
                memory is empty.
            step: index of the decision, from 0.
            instruction: w.
            task: z.
        """

    @abc.abstractmethod
    def act(self, memory: Any, belief: Any, step: Any, instruction: Any) -> Int[Array, " Z"]:
        """The expert subgoal of every task; ties fall on the lowest index. Arguments as for :meth:`q`."""


class StateExperts(Experts):
    """Experts of a fully observed family: the observation tells the state, so Q is a table over states.

    Attributes:
        state_of: the state that an observation reveals, [Z or 1, O].
        table: Q, [Z or 1, H-1, S, G, W].
        actions: [Z or 1, H-1, S, W].
    """

    value: Float[Array, "Z W"]
    state_of: Int[Array, "Zs O"]
    table: Float[Array, "Zq steps S G W"]
    actions: Int[Array, "Zq steps S W"]
    gap: float = eqx.field(static=True)

    def fits(self, family: Family) -> bool:
        S, G, W = family.num_states, family.num_subgoals, family.num_instructions
        sizes = max(family.horizon - 1, 1), S, G, W
        return self.state_of.shape[1] == family.num_observations and self.table.shape[1:] == sizes

    def start(self, observation: Any) -> Any:
        states = take(self.state_of, slice(None), observation)
        return (jnp if is_traced(states) else np).broadcast_to(states, (self.value.shape[0],))

    def advance(self, memory: Any, step: Any, subgoal: Any, observation: Any) -> Any:
        return self.start(observation)

    def q(self, memory: Any, belief: Any, step: Any, instruction: Any, task: Any) -> Float[Array, " G"]:
        row = task if self.table.shape[0] > 1 else 0
        return take(self.table, row, step, memory[task], slice(None), instruction)

    def act(self, memory: Any, belief: Any, step: Any, instruction: Any) -> Int[Array, " Z"]:
        Z, shared = memory.shape[0], self.actions.shape[0] == 1
        rows = np.zeros(Z, np.int32) if shared else np.arange(Z)
        return take(self.actions, rows, step, memory, instruction)


class HistoryExperts(Experts):
    """Experts over reachable histories, merged where their beliefs are equal; the memory is a node a task.

    The last node of every table stands for histories that are impossible under the task.

    Attributes:
        root: node after the first observation, [Z, O].
        child: next node, for nodes that have decisions after the next, [M', G, O].
        table: Q, [M, G, W].
        actions: [M, W].
    """

    value: Float[Array, "Z W"]
    root: Int[Array, "Z O"]
    child: Int[Array, "M1 G O"]
    table: Float[Array, "M G W"]
    actions: Int[Array, "M W"]
    gap: float = eqx.field(static=True)

    def fits(self, family: Family) -> bool:
        G, O, W = family.num_subgoals, family.num_observations, family.num_instructions
        return self.child.shape[1:] == (G, O) and self.root.shape[1] == O and self.table.shape[1:] == (G, W)

    def start(self, observation: Any) -> Any:
        return take(self.root, slice(None), observation)

    def advance(self, memory: Any, step: Any, subgoal: Any, observation: Any) -> Any:
        inner, last = self.child.shape[0], self.table.shape[0] - 1
        if inner == 0:
            return 0 * memory + last
        xp = jnp if is_traced(memory, subgoal, observation) else np
        moved = take(self.child, xp.minimum(memory, inner - 1), subgoal, observation)
        return xp.where(memory < inner, moved, last)

    def q(self, memory: Any, belief: Any, step: Any, instruction: Any, task: Any) -> Float[Array, " G"]:
        return take(self.table, memory[task], slice(None), instruction)

    def act(self, memory: Any, belief: Any, step: Any, instruction: Any) -> Int[Array, " Z"]:
        return take(self.actions, memory, instruction)


class AlphaExperts(Experts):
    """Experts whose Q is the upper envelope of alpha vectors; they need no memory besides the belief.

    Attributes:
        vectors: [Z, W, H-1, G, V, S].
    """

    value: Float[Array, "Z W"]
    vectors: Float[Array, "Z W steps G V S"]
    gap: float = eqx.field(static=True)

    def fits(self, family: Family) -> bool:
        _, W, steps, G, _, S = self.vectors.shape
        sizes = family.num_instructions, family.horizon - 1, family.num_subgoals, family.num_states
        return (W, steps, G, S) == sizes

    def start(self, observation: Any) -> Any:
        return ()

    def advance(self, memory: Any, step: Any, subgoal: Any, observation: Any) -> Any:
        return ()

    def q(self, memory: Any, belief: Any, step: Any, instruction: Any, task: Any) -> Float[Array, " G"]:
        values = take(self.vectors, task, instruction, step) * _normalised(belief[task])
        return values.sum(axis=-1).max(axis=-1)

    def act(self, memory: Any, belief: Any, step: Any, instruction: Any) -> Int[Array, " Z"]:
        values = take(self.vectors, slice(None), instruction, step) * _normalised(belief)[:, None, None]
        return first_best(values.sum(axis=-1).max(axis=-1))


def _normalised(weights: Any) -> Any:
    """Weights over the last axis as a distribution; zeros stay zeros."""
    total = weights.sum(axis=-1, keepdims=True)
    return weights / (total + (total == 0))


def check_experts(experts: Any, family: Family) -> Experts:
    """``experts``, if they are and have the sizes of ``family``.

    Raises:
        InvalidPlannerError: neither.
    """
    if not isinstance(experts, Experts):
        raise InvalidPlannerError(f"experts = {shown(experts)}; give what solve_experts returned")
    if experts.value.shape != (family.num_tasks, family.num_instructions) or not experts.fits(family):
        raise InvalidPlannerError("the experts are of another family; give what solve_experts returned for this one")
    return experts


def solve_experts(
    family_or_program: Family | Program, *, method: str | None = None, max_bytes: int | None = None
) -> Experts:
    """Solve every task's world for its optimal, history-dependent expert.

    Args:
        family_or_program: a Family, or a finite program.
        method: "states" (fully observed families, plain MDP recursion), "histories" (dynamic programming over
            reachable histories with equal beliefs merged), "alpha" (alpha vectors by incremental pruning, exact), or
            "points" (alpha vectors at sampled beliefs, with a proven ``gap``). By default the first of "states" and
            "histories" that applies and fits, then "alpha", then "points".
        max_bytes: largest table that "histories" may build; by default 2 GiB where it is named, and 64 MiB, which
            takes seconds, where it is one of several choices.

    Returns:
        Experts, with ``value`` [Z, W] in units of reward per episode.

    Raises:
        TooLargeError: the named method does not fit.
        InvalidWorldError: no such method or limit, or "states" for a family that is not fully observed.

    Source: theory.md, section 1 (experts and ties).
    """
    family = as_family(family_or_program)
    if is_traced(family):
        raise InvalidWorldError("experts are solved outside of traced code; solve them first and pass them in")
    if max_bytes is not None:
        check_limit("max_bytes", max_bytes)
    if method is not None and not (isinstance(method, str) and method in ("states", "histories", "alpha", "points")):
        raise InvalidWorldError(f"method = {shown(method)}; give 'states', 'histories', 'alpha' or 'points'")
    observed = fully_observed(family)
    if method == "states" or (method is None and observed.all()):
        if not observed.all():
            z, o = (int(i) for i in np.argwhere(~observed)[0])
            raise InvalidWorldError(
                f"observation {family.observations[o]!r} does not tell the state under {family.tasks[z]!r}; "
                'use method="histories"'
            )
        return _solve_states(family)
    if method == "histories":
        return _solve_histories(family, max_bytes or DEFAULT_MAX_BYTES)
    if method in ("alpha", "points"):
        return _solve_alpha(family, "exact" if method == "alpha" else "points", _MOST_VECTORS)
    for attempt in (
        lambda: _solve_histories(family, max_bytes or _QUICK_BYTES),
        lambda: _solve_alpha(family, "exact", _QUICK_VECTORS),
        lambda: _solve_alpha(family, "points", _MOST_VECTORS),
    ):
        try:
            return attempt()
        except TooLargeError as error:
            refusal = error
    raise refusal


def fully_observed(family: Family) -> Bool[np.ndarray, "Ze O"]:
    """Which observations are emitted by at most one state, [Z or 1, O]."""
    return (np.asarray(family.emission) > 0).sum(axis=1) <= 1


def _mean_reward(family: Family) -> Float[np.ndarray, "Ze H S W"]:
    """Expected reward of the observation made in a state, [Z or 1, H, S, W]."""
    return np.einsum("zso,how->zhsw", np.asarray(family.emission, np.float64), np.asarray(family.reward, np.float64))


def _solve_states(family: Family) -> StateExperts:
    H, S, G, W = family.horizon, family.num_states, family.num_subgoals, family.num_instructions
    kernel = HostKernel(family)
    reward = _mean_reward(family)
    Zq = max(kernel.tasks, reward.shape[0])
    table = np.zeros((Zq, max(H - 1, 1), S, G, W))  # one idle step if H = 1, so that it can be indexed
    best = np.zeros((Zq, S, W))
    for h in reversed(range(H - 1)):
        gain = reward[:, h + 1] + best
        table[:, h] = kernel.pull_each(h, gain)
        best = table[:, h].max(axis=2)
    value = np.einsum(
        "zs,zsw->zw",
        np.broadcast_to(np.asarray(family.initial, np.float64), (family.num_tasks, S)),
        np.broadcast_to(reward[:, 0] + best, (family.num_tasks, S, W)),
    )
    state_of = (np.asarray(family.emission) > 0).argmax(axis=1).astype(np.int32)
    return StateExperts(
        value=value, gap=0.0, state_of=state_of, table=table, actions=first_best(np.moveaxis(table, -1, -2))
    )


def _solve_histories(family: Family, max_bytes: int) -> HistoryExperts:
    H, G, W = family.horizon, family.num_subgoals, family.num_instructions
    graph = belief_graph(family, max(H - 1, 1), max_bytes=max_bytes)
    tables = history_values(family, graph)
    reward = np.asarray(family.reward, np.float64)
    sizes = [len(layer.task) for layer in graph.layers]
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
    last = int(offsets[-1])
    child = np.concatenate(
        [np.where(layer.child < 0, last, layer.child + offsets[h + 1]) for h, layer in enumerate(graph.layers)]
    )
    table = np.concatenate([*tables, np.zeros((1, G, W))])
    best = np.append(tables[0].max(axis=1), np.zeros((1, W)), axis=0) if H > 1 else np.zeros((last + 1, W))
    root = np.where(graph.root < 0, sizes[0], graph.root)
    value = np.einsum("zo,zow->zw", graph.root_probability, reward[0] + best[root])
    return HistoryExperts(
        value=value,
        gap=0.0,
        root=np.where(graph.root < 0, last, graph.root).astype(np.int32),
        child=child.astype(np.int32),
        table=table,
        actions=first_best(np.moveaxis(table, -1, -2)),
    )


def history_values(family: Family, graph: BeliefGraph) -> list[Float[np.ndarray, "_ G W"]]:
    """Q of every node of ``graph`` (which has H-1 layers), layer by layer."""
    H, G, W = family.horizon, family.num_subgoals, family.num_instructions
    reward = np.asarray(family.reward, np.float64)
    if H == 1:
        return [np.zeros((len(graph.layers[0].task), G, W))]
    tables: list[np.ndarray] = [np.empty(0)] * (H - 1)
    tables[-1] = _last_q(family, graph)
    for h in reversed(range(H - 2)):
        layer = graph.layers[h]
        best = np.append(tables[h + 1].max(axis=1), np.zeros((1, W)), axis=0)
        table = np.empty((len(layer.task), G, W))
        for g in range(G):
            table[:, g] = np.einsum("mo,mow->mw", layer.probability[:, g], reward[h + 1] + best[layer.child[:, g]])
        tables[h] = table
    return tables


def _last_q(family: Family, graph: BeliefGraph) -> Float[np.ndarray, "M G W"]:
    """Q at the last decision, by matrix products: no table over observations is needed."""
    layer, H = graph.layers[-1], family.horizon
    kernel = HostKernel(family)
    reward = _mean_reward(family)[:, H - 1]
    table = np.empty((len(layer.task), family.num_subgoals, family.num_instructions))
    bounds = np.searchsorted(layer.task, np.arange(family.num_tasks + 1))
    for z in range(family.num_tasks):
        rows = slice(bounds[z], bounds[z + 1])
        gain = kernel.pull(z, H - 2, reward[min(z, reward.shape[0] - 1)])
        table[rows] = np.einsum("ms,sgw->mgw", layer.belief[rows], gain)
    return table


def _solve_alpha(family: Family, method: Literal["exact", "points"], max_vectors: int) -> AlphaExperts:
    Z, S, H, W = family.num_tasks, family.num_states, family.horizon, family.num_instructions
    initial = np.broadcast_to(np.asarray(family.initial, np.float64), (Z, S))
    # In the family's precision: the solver computes in float64, but knows from it how far rows may be from 1.
    kernel, emission = np.asarray(family.dense_transition()), np.asarray(family.emission)
    reward = np.asarray(family.reward, np.float64)
    solved: dict[tuple[int, int], Any] = {}
    value = np.zeros((Z, W))
    for z in range(Z):
        emit = emission[min(z, emission.shape[0] - 1)]
        first = initial[z] @ emit.astype(np.float64)
        seen = np.flatnonzero(first > 0)
        starts = initial[z] * emit[:, seen].T / first[seen, None]
        for w in range(W):
            alpha = solve_alpha_vectors(
                kernel[min(z, kernel.shape[0] - 1)],
                emit,
                reward[..., w],
                H,
                start_beliefs=starts,
                method=method,
                max_vectors=max_vectors,
            )
            solved[z, w] = alpha
            best = np.einsum("gvs,ns->ngv", alpha.vectors[0], starts).max(axis=(1, 2)) if H > 1 else np.zeros(len(seen))
            value[z, w] = first[seen] @ (reward[0, seen, w] + best)
    width = max(a.vectors.shape[2] for a in solved.values())
    vectors = np.stack(
        [
            np.stack([np.pad(v := solved[z, w].vectors, [(0, 0), (0, 0), (0, width - v.shape[2]), (0, 0)], mode="edge")
                      for w in range(W)])
            for z in range(Z)
        ]
    )  # fmt: skip
    return AlphaExperts(value=value, gap=max(float(a.gap) for a in solved.values()), vectors=vectors)
