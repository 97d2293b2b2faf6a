"""Every history that some task can produce, as a tree, with its causal likelihood under every task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from ..errors import InvalidWorldError, TooLargeError
from ..program import Program, as_family
from ..world import Family
from .beliefs import DEFAULT_MAX_BYTES, BeliefGraph, belief_graph


@dataclass(frozen=True)
class HistoryLayer:
    """The histories tau_{h+1} of layer h, in lexicographic order of (parent, g, o).

    Attributes:
        parent: index in the layer before (-1 in the first layer), [n].
        subgoal: g_h, the last subgoal (-1 in the first layer), [n].
        observation: o_{h+1}, the last observation, [n].
        likelihood: L_z(tau), [n, Z].
        node: the belief of each task in the graph's layer h, or -1, [n, Z].
    """

    parent: Int[np.ndarray, " n"]
    subgoal: Int[np.ndarray, " n"]
    observation: Int[np.ndarray, " n"]
    likelihood: Float[np.ndarray, "n Z"]
    node: Int[np.ndarray, "n Z"]


@dataclass(frozen=True)
class Histories:
    """All reachable histories of a family, layers h = 0..H-1.

    Attributes:
        family: the family.
        graph: its belief graph, of H layers.
        layers: one for each number of observations.
    """

    family: Family
    graph: BeliefGraph
    layers: tuple[HistoryLayer, ...]

    @property
    def count(self) -> int:
        """Number of histories, of every length."""
        return sum(len(layer.parent) for layer in self.layers)

    def belief(self, h: int) -> Float[np.ndarray, "n Z S"]:
        """P_z(s | tau) of layer h; zeros where tau is impossible under z."""
        padded = np.append(self.graph.layers[h].belief, np.zeros((1, self.family.num_states)), axis=0)
        return padded[self.layers[h].node]

    def sequence(self, h: int, index: int) -> tuple[list[int], list[int]]:
        """The observations and subgoals of history ``index`` of layer h."""
        observations, subgoals = [], []
        for layer in reversed(self.layers[: h + 1]):
            observations.append(int(layer.observation[index]))
            if layer.parent[index] >= 0:
                subgoals.append(int(layer.subgoal[index]))
            index = int(layer.parent[index])
        return observations[::-1], subgoals[::-1]


def enumerate_histories(family_or_program: Family | Program, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Histories:
    """Every history with positive probability under a task of positive prior, whatever the subgoals.

    Args:
        family_or_program: a Family, or a finite program.
        max_bytes: largest layer that is built.

    Raises:
        TooLargeError: a layer would exceed ``max_bytes``; nothing of it has been allocated.
        InvalidWorldError: ``max_bytes`` is no number above 0.

    Source: theory.md, section 1.
    """
    family = as_family(family_or_program)
    graph = belief_graph(family, family.horizon, max_bytes=max_bytes)
    alive = np.asarray(family.task_prior) > 0
    Z = family.num_tasks

    first = graph.root_probability
    seen = np.flatnonzero((first[alive] > 0).any(axis=0))
    none = np.full(len(seen), -1, np.int32)
    layers = [HistoryLayer(none, none, seen.astype(np.int32), first[:, seen].T.copy(), graph.root[:, seen].T.copy())]
    for h in range(family.horizon - 1):
        above, nodes = layers[-1], graph.layers[h]
        probability = np.append(nodes.probability, np.zeros((1, *nodes.probability.shape[1:])), axis=0)
        child = np.append(nodes.child, np.full((1, *nodes.child.shape[1:]), -1, np.int32), axis=0)
        parent, subgoal, observation = possible_continuations(probability > 0, above.node, alive)
        predicted = len(parent) * Z * 12
        if predicted > max_bytes:
            raise TooLargeError(
                f"{len(parent)} histories of {h + 2} observations under {Z} tasks need {predicted / 1e9:.2f} GB, "
                f"more than {max_bytes / 1e9:.2f} GB; shorten the horizon or sample instead",
                predicted,
            )
        place = above.node[parent], subgoal[:, None], observation[:, None]
        layers.append(
            HistoryLayer(parent, subgoal, observation, above.likelihood[parent] * probability[place], child[place])
        )
    return Histories(family, graph, tuple(layers))


def histories_of(family: Family, given: Any = None) -> Histories:
    """The histories that were given, if they are those of ``family``; enumerated here if none were.

    Raises:
        InvalidWorldError: they are of another family.
        TooLargeError: as :func:`enumerate_histories`.
    """
    if given is None:
        return enumerate_histories(family)
    if not isinstance(given, Histories) or not _equal(given.family, family):
        raise InvalidWorldError(
            f"histories = {type(given).__name__}, which are not of this family; enumerate_histories makes them"
        )
    return given


def _equal(one: Family, other: Family) -> bool:
    if one is other:
        return True
    (leaves, structure), (others, its) = jax.tree.flatten(one), jax.tree.flatten(other)
    return structure == its and all(map(np.array_equal, leaves, others))


def possible_continuations(
    positive: Bool[np.ndarray, "M G O"], node: Int[np.ndarray, "n Z"], alive: Bool[np.ndarray, " Z"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The (parent, g, o) that some live task makes possible, in lexicographic order."""
    flat = positive.reshape(len(positive), -1)
    found = []
    block = max(1, 2**26 // max(1, flat.shape[1]))
    for start in range(0, len(node), block):
        rows = node[start : start + block]
        possible = np.zeros((len(rows), flat.shape[1]), bool)
        for z in np.flatnonzero(alive):
            possible |= flat[rows[:, z]]
        n, cell = np.nonzero(possible)
        found.append((n + start, cell))
    parent = np.concatenate([n for n, _ in found]).astype(np.int32)
    subgoal, observation = np.divmod(np.concatenate([c for _, c in found]), positive.shape[2])
    return parent, subgoal.astype(np.int32), observation.astype(np.int32)
