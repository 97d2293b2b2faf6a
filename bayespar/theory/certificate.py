"""The other side of E4 and E5: what any policy can reach at given prices, by a pass over the tree of histories.

It reads the causal likelihoods of whole histories and nothing of the graphs, programs and flows that it certifies.
"""

from __future__ import annotations

import itertools

import numpy as np
from jaxtyping import Float, Int

from ..planning.histories import Histories


def most_informative(histories: Histories, tasks: Int[np.ndarray, " C"], prices: Float[np.ndarray, " P"]) -> float:
    """max over policies of sum over pairs of price times eta_zz'.

    Args:
        histories: of the family.
        tasks: a member of each class, [C].
        prices: of the pairs (0, 1), (0, 2), ..., (1, 2), ... of classes, [P].
    """
    return _best(histories, None, _distances(histories, tasks, prices), 0)


def least_loss(
    histories: Histories,
    tasks: Int[np.ndarray, " C"],
    prices: Float[np.ndarray, " P"],
    weights: Float[np.ndarray, " C"],
    values: Float[np.ndarray, "Z W"],
) -> float:
    """min over policies of sum of weight times loss_z minus sum of price times eta_zz'.

    Args:
        histories, tasks, prices: as for :func:`most_informative`.
        weights: of the classes, [C].
        values: J_z(pi*_z, w), [Z, W].
    """
    distances = _distances(histories, tasks, prices)
    total = 0.0
    for w, chance in enumerate(np.asarray(histories.family.instruction_prior, np.float64)):
        best = _best(histories, (np.asarray(tasks), weights), distances, w)
        total += chance * (float(weights @ values[tasks, w]) - best)
    return float(total)


def _distances(histories: Histories, tasks: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """sum over pairs of price times (sqrt L_z - sqrt L_z')^2 / 2 at every whole history."""
    roots = np.sqrt(histories.layers[-1].likelihood[:, tasks])
    pairs = itertools.combinations(range(len(tasks)), 2)
    return sum(
        (price * (roots[:, i] - roots[:, j]) ** 2 / 2 for (i, j), price in zip(pairs, prices, strict=True) if price),
        start=np.zeros(len(roots)),
    )


def _best(
    histories: Histories, paid: tuple[np.ndarray, np.ndarray] | None, gains: np.ndarray, instruction: int
) -> float:
    """The largest sum over reached histories of gains at the leaves and, if ``paid``, weighted rewards on the way."""
    reward = np.asarray(histories.family.reward, np.float64)[..., instruction]
    G = histories.family.num_subgoals
    value = gains
    for h in reversed(range(len(histories.layers))):
        layer = histories.layers[h]
        if paid is not None:
            tasks, weights = paid
            value = value + (layer.likelihood[:, tasks] @ weights) * reward[h, layer.observation]
        if h:
            above = len(histories.layers[h - 1].parent)
            place = layer.parent.astype(np.int64) * G + layer.subgoal
            value = np.bincount(place, value, above * G).reshape(above, G).max(axis=1)
    return float(value.sum())
