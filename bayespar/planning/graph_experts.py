"""Experts, and what it costs to follow another task's, at the nodes of an information graph."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .expert import first_best
from .information import InformationGraph


@dataclass(frozen=True)
class GraphExperts:
    """Values under every task and instruction, layer by layer; the layers are those of the graph.

    Attributes:
        scaled: (L_z(tau) / m(tau)) Q*_z(tau, g, w) where Q* counts what is paid after tau, [n, G, Z, W] a layer.
        likelihood: L_z(tau) / m(tau), [n, Z] a layer.
        actions: pi*_z(tau, w), ties to the lowest index; arbitrary where tau is impossible under z, [n, Z, W] a layer.
        value: J_z(pi*_z, w), [Z, W].
    """

    scaled: list[Float[np.ndarray, "_ G Z W"]]
    likelihood: list[Float[np.ndarray, "_ Z"]]
    actions: list[Int[np.ndarray, "_ Z W"]]
    value: Float[np.ndarray, "Z W"]


def graph_experts(graph: InformationGraph) -> GraphExperts:
    """Solve every task on the graph, backwards.

    Source: theory.md, section 1 (experts and ties).
    """
    family = graph.family
    G, W = family.num_subgoals, family.num_instructions
    paid = [graph.rewards(w) for w in range(W)]
    likelihood = graph.likelihoods()
    scaled: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    later = np.zeros((0, family.num_tasks, W))
    for h in reversed(range(len(graph.layers))):
        layer = graph.layers[h]
        q = np.stack([p[h] for p in paid], axis=-1)
        if h < len(graph.layers) - 1:
            carried = layer.joint.mean(axis=1)[:, None, None] * later[layer.child]
            flat = layer.totals(carried.reshape(len(carried), -1), G)
            q = q + flat.reshape(*flat.shape[:2], family.num_tasks, W)
        later = q.max(axis=1)
        alive = likelihood[h] > 0
        per_task = q / np.where(alive, likelihood[h], 1)[:, None, :, None]
        actions.append(np.asarray(first_best(np.moveaxis(per_task, 1, -1))))
        scaled.append(q)
    if not graph.layers:
        later = np.zeros((len(graph.start), family.num_tasks, W))
    value = np.einsum("n,nzw->zw", graph.start, later) + first_reward(graph)
    return GraphExperts(scaled[::-1], likelihood, actions[::-1], value)


def first_reward(graph: InformationGraph) -> Float[np.ndarray, "Z W"]:
    """E r_1(o_1, w), on which no policy has a say."""
    family = graph.family
    heard = np.asarray(family.initial, np.float64)[..., None] * np.asarray(family.emission, np.float64)
    paid = heard.sum(axis=1) @ np.asarray(family.reward, np.float64)[0]
    return np.broadcast_to(paid, (family.num_tasks, family.num_instructions))
