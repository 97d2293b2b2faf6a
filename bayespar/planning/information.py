"""What histories say about the task, as a graph: histories merged where nothing that is still to come can differ.

Two histories of one length are merged when their likelihoods are proportional over tasks and the beliefs over states
agree under every task. Then every continuation has the same causal likelihoods up to one factor, so policies over
the graph lose nothing against policies over histories, neither in information nor in reward. In a fully observed world
a node is a state and a posterior; where few posteriors are possible there are few nodes, however long the episode.

A policy enters through its *flow*: y(n, g) is the probability, in an equal mixture of all tasks, of reaching node n and
choosing g. Expected rewards and Hellinger distances are linear in it (the sequence form, theory.md, E4).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array, precision_of
from ..errors import InvalidPlannerError, TooLargeError
from ..keys import as_key
from ..world import Family
from .beliefs import DEFAULT_MAX_BYTES, belief_graph, merge_rows
from .histories import possible_continuations
from .planner import Observed, Planner, UniformPolicy, check_probabilities, check_shape
from .value import step_all

Flow = list[Float[np.ndarray, "_ G"]]
"""y(n, g), layer by layer."""


@dataclass(frozen=True)
class InformationLayer:
    """The nodes after h+1 observations that have a decision, and the edges that leave them.

    Attributes:
        size: number of nodes.
        node, subgoal, observation: of each edge, in lexicographic order, [e].
        joint: L_z(tau, g, o) / m(tau) with m the mean of L_z(tau) over tasks, [e, Z].
        child: node of the next layer, or -1 where no decision is left, [e].
    """

    size: int
    node: Int[np.ndarray, " e"]
    subgoal: Int[np.ndarray, " e"]
    observation: Int[np.ndarray, " e"]
    joint: Float[np.ndarray, "e Z"]
    child: Int[np.ndarray, " e"]

    def total(self, values: Float[np.ndarray, " e"], subgoals: int) -> Float[np.ndarray, "_ G"]:
        """Sums of ``values`` over the edges of every node and subgoal."""
        index = self.node.astype(np.int64) * subgoals + self.subgoal
        return np.bincount(index, values, self.size * subgoals).reshape(self.size, subgoals)

    def totals(self, values: Float[np.ndarray, "e Z"], subgoals: int) -> Float[np.ndarray, "_ G Z"]:
        """:meth:`total`, column by column."""
        return np.stack([self.total(column, subgoals) for column in values.T], axis=-1)


@dataclass(frozen=True)
class InformationGraph:
    """The graph of a family whose tasks all have positive prior.

    Attributes:
        family: the family.
        root: node after the first observation, or -1, [O].
        start: probability of each first node in the equal mixture, [n].
        likelihood: L_z(o_1) / m(o_1) at each first node, [n, Z].
        layers: one for each decision; empty if H = 1.
    """

    family: Family
    root: Int[np.ndarray, " O"]
    start: Float[np.ndarray, " n"]
    likelihood: Float[np.ndarray, "n Z"]
    layers: tuple[InformationLayer, ...]

    @property
    def variables(self) -> int:
        """Number of pairs (node, subgoal)."""
        return sum(layer.size for layer in self.layers) * self.family.num_subgoals

    def flow(self, policy: Sequence[Float[np.ndarray, "_ G"]]) -> Flow:
        """y(n, g) of a behavioural policy given node by node."""
        inflow, flow = self.start, []
        for layer, probabilities in zip(self.layers, policy, strict=True):
            flow.append(inflow[:, None] * probabilities)
            if layer is not self.layers[-1]:
                passed = flow[-1][layer.node, layer.subgoal] * layer.joint.mean(axis=1)
                inflow = np.bincount(layer.child, passed, self.layers[len(flow)].size)
        return flow

    def behaviour(self, flow: Flow) -> Flow:
        """The behavioural policy that has this flow; uniform where it never comes."""
        out = []
        for y in flow:
            total = y.sum(axis=1, keepdims=True)
            out.append(np.where(total > 0, y / np.where(total > 0, total, 1), 1 / self.family.num_subgoals))
        return out

    def best(self, gains: Sequence[Float[np.ndarray, "_ G"]]) -> tuple[float, Flow]:
        """The largest sum of y(n, g) gain(n, g) over all policies, and a deterministic policy that attains it."""
        policy: Flow = []
        later = np.zeros(len(self.start))
        for h in reversed(range(len(self.layers))):
            layer, q = self.layers[h], gains[h]
            if h < len(self.layers) - 1:
                q = q + layer.total(layer.joint.mean(axis=1) * later[layer.child], self.family.num_subgoals)
            later = q.max(axis=1)
            policy.append(np.eye(self.family.num_subgoals)[q.argmax(axis=1)])
        return float(self.start @ later), policy[::-1]

    def children(self) -> Int[np.ndarray, "N G O"]:
        """The next node of every node, subgoal and observation; N-1 where there is none. Layers follow one another."""
        G, O = self.family.num_subgoals, self.family.num_observations
        offsets = np.concatenate([[0], np.cumsum([layer.size for layer in self.layers])]).astype(int)
        last = int(offsets[-1])
        child = np.full((last + 1, G, O), last, np.int32)
        for h, layer in enumerate(self.layers[:-1]):
            child[layer.node + offsets[h], layer.subgoal, layer.observation] = layer.child + offsets[h + 1]
        return child

    def likelihoods(self) -> list[Float[np.ndarray, "_ Z"]]:
        """L_z(tau) / m(tau) at every node that has a decision; at the first nodes also if none has."""
        out = [self.likelihood]
        for layer in self.layers[:-1]:
            _, first = np.unique(layer.child, return_index=True)
            joint = layer.joint[first]
            out.append(joint / joint.mean(axis=1, keepdims=True))
        return out

    def rewards(self, instruction: int) -> list[Float[np.ndarray, "_ G Z"]]:
        """Expected reward of the observation that follows, by node and subgoal, under every task: J_z is linear in y.

        Without r_1, on which no policy has a say.
        """
        reward = np.asarray(self.family.reward, np.float64)[..., instruction]
        return [
            layer.totals(layer.joint * reward[h + 1, layer.observation][:, None], self.family.num_subgoals)
            for h, layer in enumerate(self.layers)
        ]


def information_graph(family: Family, *, max_bytes: int = DEFAULT_MAX_BYTES) -> InformationGraph:
    """Build the graph.

    Args:
        family: every task of positive prior, no two of one class (see :func:`task_classes`).
        max_bytes: largest layer that is built.

    Raises:
        TooLargeError: a layer would exceed ``max_bytes``; nothing of it has been allocated.
    """
    graph = belief_graph(family, family.horizon, max_bytes=max_bytes)
    seen = np.flatnonzero((graph.root_probability > 0).any(axis=0))
    first, node, inverse, mass = _merge(graph.root_probability[:, seen].T, graph.root[:, seen].T)
    root = np.full(family.num_observations, -1, np.int32)
    root[seen] = inverse
    start, likelihood = np.bincount(inverse, mass, len(first)), first
    everyone = np.ones(family.num_tasks, bool)
    layers = []
    for h in range(family.horizon - 1):
        size, beliefs = len(node), graph.layers[h]
        probability = np.append(beliefs.probability, np.zeros((1, *beliefs.probability.shape[1:])), axis=0)
        child = np.append(beliefs.child, np.full((1, *beliefs.child.shape[1:]), -1, np.int32), axis=0)
        edges = possible_continuations(probability > 0, node, everyone)
        predicted = len(edges[0]) * family.num_tasks * 32
        if predicted > max_bytes:
            raise TooLargeError(
                f"{len(edges[0])} continuations after {h + 1} observations need {predicted / 1e9:.2f} GB, more than "
                f"{max_bytes / 1e9:.2f} GB; shorten the horizon, raise max_bytes, or sample instead",
                predicted,
            )
        parent, subgoal, observation = edges
        place = node[parent], subgoal[:, None], observation[:, None]
        joint = likelihood[parent] * probability[place]
        if h == family.horizon - 2:
            after = np.full(len(parent), -1, np.int32)
        else:
            likelihood, node, after, _ = _merge(joint, child[place])
        layers.append(InformationLayer(size, *edges, joint, after))
    return InformationGraph(family, root, start, first, tuple(layers))


def _merge(joint: Float[np.ndarray, "e Z"], node: Int[np.ndarray, "e Z"]) -> tuple[np.ndarray, ...]:
    """Distinct (likelihoods up to a factor, beliefs) as (likelihood, node), the index of each row, and its mass."""
    mass = joint.mean(axis=1)
    likelihood = joint / mass[:, None]
    places = np.where(joint > 0, node, -1)
    _, index = merge_rows(np.concatenate([likelihood, places + 1.0], axis=1))
    _, first = np.unique(index, return_index=True)
    return likelihood[first], places[first], index, mass


class GraphPolicy(Planner):
    """A policy over an information graph, as a planner; it forgets between episodes.

    Attributes:
        root: [O].
        child: [N + 1, G, O]; node N stands for histories that are impossible under every task.
        table: probabilities, [W or 1, N + 1, G]; uniform at node N.
    """

    root: Int[Array, " O"]
    child: Int[Array, "N G O"]
    table: Float[Array, "Wp N G"]

    def __init__(self, graph: InformationGraph, policies: Sequence[Flow]):
        """``policies`` are behavioural: one for every instruction, or a single one for all."""
        self.root, self.child = places(graph)
        sink = np.full((1, graph.family.num_subgoals), 1 / graph.family.num_subgoals)
        self.table = np.stack([np.concatenate([*p, sink]) for p in policies]).astype(graph.family.dtype)

    def same_graph(self, graph: InformationGraph) -> bool:
        """Whether this is a policy over the nodes of ``graph``."""
        return all(map(np.array_equal, (self.root, self.child), places(graph)))

    def init(self, instruction: Any, key: Any) -> Any:
        return jnp.int32(0)

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        o, g, h, w = observed
        node = jnp.where(h == 0, jnp.asarray(self.root)[o], jnp.asarray(self.child)[state, g, o])
        row = w if self.table.shape[0] > 1 else 0
        return node, jnp.asarray(self.table)[row, node]


def places(graph: InformationGraph) -> tuple[np.ndarray, np.ndarray]:
    """The first node by observation, and the next ones; the last one where there is none."""
    child = graph.children()
    if not graph.layers:
        return np.zeros_like(graph.root), child
    return np.where(graph.root < 0, len(child) - 1, graph.root).astype(np.int32), child


def graph_table(graph: InformationGraph, policy: Planner, *, key: Any = 0) -> list[Flow]:
    """The probabilities of a policy at every node, [n, G] a layer, for each instruction.

    Raises:
        InvalidPlannerError: the policy returns no distribution, or it tells histories apart that the graph merges (it
            remembers more than what bears on the task and the future).
    """
    family = graph.family
    known = _known_table(graph, policy)
    if known is not None:
        return known
    check_shape("policy", policy, family)
    root = as_key(key)
    seen = np.flatnonzero(graph.root >= 0)
    tables: list[Flow] = []
    with precision_of(family):
        for w in range(family.num_instructions):
            start = jax.tree.map(lambda a: _rows(jnp.asarray(a)[None], np.zeros_like(seen)), policy.init(w, root))
            arrived = step_all(
                policy, start, seen.astype(np.int32), np.full(len(seen), -1, np.int32), np.int32(0), np.int32(w)
            )
            into, table = graph.root[seen], []
            for h, layer in enumerate(graph.layers):
                state, probabilities = _merged(arrived, into)
                table.append(check_probabilities(probabilities, family.num_subgoals))
                if h < len(graph.layers) - 1:
                    before = jax.tree.map(lambda a, n=layer.node: _rows(a, n), state)
                    heard = layer.observation.astype(np.int32), layer.subgoal.astype(np.int32)
                    arrived, into = step_all(policy, before, *heard, np.int32(h + 1), np.int32(w)), layer.child
            tables.append(table)
    return tables


def _known_table(graph: InformationGraph, policy: Planner) -> list[Flow] | None:
    """The table of a policy that need not be asked: uniform, or one over the same graph."""
    W, G = graph.family.num_instructions, graph.family.num_subgoals
    sizes = [layer.size for layer in graph.layers]
    if isinstance(policy, UniformPolicy):
        return [[np.full((size, G), 1 / G) for size in sizes]] * W
    if isinstance(policy, GraphPolicy) and policy.same_graph(graph) and len(policy.table) in (1, W):
        if not sizes:
            return [[]] * W
        rows = [np.split(np.asarray(table[:-1], np.float64), np.cumsum(sizes)[:-1]) for table in policy.table]
        return [list(r) for r in rows] * (W // len(rows))
    return None


def _merged(arrived: Any, into: Int[np.ndarray, " e"]) -> Any:
    """State and probabilities at each of ``size`` nodes, from those at the edges that lead there; all must agree."""
    _, first = np.unique(into, return_index=True)
    for leaf in jax.tree.leaves(arrived):
        rows, same = _rows(leaf, slice(None)), _rows(leaf, first[into])
        if isinstance(rows, np.ndarray) and not np.allclose(rows, same, rtol=1e-9, atol=1e-12, equal_nan=True):
            raise InvalidPlannerError(
                "the policy keeps apart histories of equal posterior and beliefs, so it cannot be tabulated over this "
                "graph; simulate it instead"
            )
    return jax.tree.map(lambda a: _rows(a, first), arrived)


def _rows(leaf: Any, index: Any) -> Any:
    """Rows of an array on the host; of an array of keys, which only JAX can hold, on the device."""
    is_key = isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return leaf[index] if is_key else np.asarray(leaf)[index]
