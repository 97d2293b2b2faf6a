"""The beliefs that a Planner who knows the task can reach, as a graph, with equal beliefs merged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..errors import TooLargeError
from ..kernels import HostKernel
from ..validation import check_limit
from ..world import Family

# Two beliefs are merged when every entry agrees in its first 40 bits, a relative 1e-12: far below the 1e-10 to
# which values are exact, and a zero is never merged with a positive entry, however small.
_DROPPED_BITS = 12
DEFAULT_MAX_BYTES = 2**31


@dataclass(frozen=True)
class Layer:
    """The beliefs after h+1 observations, over all tasks.

    Attributes:
        task: the task of each node, [M].
        belief: P_z(s | tau), [M, S].
        probability: P_z(o' | tau, g), [M, G, O]; in the last layer, [0, G, O].
        child: index of the node in the next layer, or -1 where the probability is 0, shaped likewise.
    """

    task: Int[np.ndarray, " M"]
    belief: Float[np.ndarray, "M S"]
    probability: Float[np.ndarray, "inner G O"]
    child: Int[np.ndarray, "inner G O"]


@dataclass(frozen=True)
class BeliefGraph:
    """Layers h = 0, 1, ..., and the node of each first observation.

    Attributes:
        layers: as many as were asked for.
        root: node of the first layer after o_1, or -1, [Z, O].
        root_probability: P_z(o_1), [Z, O].
    """

    layers: tuple[Layer, ...]
    root: Int[np.ndarray, "Z O"]
    root_probability: Float[np.ndarray, "Z O"]


def belief_graph(family: Family, depth: int, *, max_bytes: int = DEFAULT_MAX_BYTES) -> BeliefGraph:
    """Every belief that some history of at most ``depth`` observations reaches, task by task.

    Args:
        family: its arrays are used in float64.
        depth: number of layers, from 1 to H.
        max_bytes: largest layer that is built.

    Raises:
        TooLargeError: a layer would exceed ``max_bytes``; nothing of it has been allocated.
        InvalidWorldError: ``max_bytes`` is no number above 0.

    Source: theory.md, section 1.
    """
    check_limit("max_bytes", max_bytes)
    Z, S, G, O = family.num_tasks, family.num_states, family.num_subgoals, family.num_observations
    initial = np.broadcast_to(np.asarray(family.initial, np.float64), (Z, S))
    emission = np.asarray(family.emission, np.float64)
    kernel = HostKernel(family)

    def emit(z: int) -> np.ndarray:
        return emission[min(z, emission.shape[0] - 1)]

    root_probability = np.stack([initial[z] @ emit(z) for z in range(Z)])
    root = np.full((Z, O), -1, np.int32)
    tasks, beliefs, count = [], [], 0
    for z in range(Z):
        seen = np.flatnonzero(root_probability[z] > 0)
        unique, inverse = merge_rows(_condition(np.broadcast_to(initial[z], (len(seen), S)), emit(z)[:, seen].T))
        root[z, seen] = count + inverse
        tasks.append(np.full(len(unique), z, np.int32))
        beliefs.append(unique)
        count += len(unique)

    layers = []
    for h in range(depth):
        task, belief = np.concatenate(tasks), np.concatenate(beliefs)
        if h == depth - 1:
            layers.append(Layer(task, belief, np.zeros((0, G, O)), np.zeros((0, G, O), np.int32)))
            break
        predicted = len(task) * G * O * 12
        _refuse(predicted, max_bytes, f"{len(task)} beliefs after {h + 1} observations")
        probability = np.zeros((len(task), G, O))
        child = np.full((len(task), G, O), -1, np.int32)
        tasks, beliefs, count = [], [], 0
        bounds = np.searchsorted(task, np.arange(Z + 1))
        for z in range(Z):
            rows = slice(bounds[z], bounds[z + 1])
            # Predicted next state [m, G, S'] before its observation.
            moved = kernel.push(z, h, belief[rows])
            probability[rows] = moved @ emit(z)
            m, g, o = np.nonzero(probability[rows] > 0)
            _refuse(len(m) * S * 24, max_bytes, f"{len(m)} next beliefs after {h + 1} observations")
            unique, inverse = merge_rows(_condition(moved[m, g], emit(z).T[o]))
            child[rows][m, g, o] = count + inverse
            tasks.append(np.full(len(unique), z, np.int32))
            beliefs.append(unique)
            count += len(unique)
        layers.append(Layer(task, belief, probability, child))
    return BeliefGraph(tuple(layers), root, root_probability)


def merge_rows(rows: Float[np.ndarray, "C S"]) -> tuple[Float[np.ndarray, "U S"], Int[np.ndarray, " C"]]:
    """The distinct rows, to a relative 1e-12 in every entry, and the index of each row among them."""
    if len(rows) == 0:
        return rows, np.zeros(0, np.int32)
    bits = (np.ascontiguousarray(rows).view(np.int64) + (1 << (_DROPPED_BITS - 1))) >> _DROPPED_BITS
    multipliers = np.random.default_rng(0).integers(1, 2**63 - 1, rows.shape[1], dtype=np.int64) | 1
    with np.errstate(over="ignore"):
        hashed = (bits * multipliers).sum(axis=1)
    _, first, inverse = np.unique(hashed, return_index=True, return_inverse=True)
    if not np.array_equal(bits[first][inverse], bits):  # two different rows with one hash
        _, first, inverse = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return rows[first], inverse.reshape(-1).astype(np.int32)


def _condition(weights: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """Bayes: rows of ``weights * likelihood`` [C, S], normalised."""
    joint = weights * likelihood
    return joint / joint.sum(axis=-1, keepdims=True)


def _refuse(predicted: int, limit: int, what: str) -> None:
    if predicted > limit:
        raise TooLargeError(
            f"{what} need {predicted / 1e9:.2f} GB, more than {limit / 1e9:.2f} GB; "
            'solve with method="alpha", shorten the horizon, or raise max_bytes',
            predicted,
        )
