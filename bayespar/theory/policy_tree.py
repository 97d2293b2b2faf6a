"""A policy over an information graph, as a tree in the world's own words."""

from __future__ import annotations

import numpy as np

from ..planning.information import Flow, InformationGraph
from .figure import Branch, PolicyTree

_RARE = 0.02  # branches that are taken less often are left out
_MOST = 60  # branches drawn


def policy_tree(title: str, graph: InformationGraph, policy: Flow, note: str = "") -> PolicyTree:
    """The likely part of a policy: from the first observation, what it chooses and what may be heard.

    Probabilities of observations are those under an equal mixture of tasks.
    """
    left = [_MOST]

    def chosen(h: int, node: int, reach: float) -> tuple[Branch, ...]:
        if h == len(graph.layers):
            return ()
        branches = []
        for g in np.argsort(-policy[h][node], kind="stable"):
            probability = float(policy[h][node, g])
            if probability * reach < _RARE or left[0] <= 0:
                break
            left[0] -= 1
            words = graph.family.subgoals[g]
            branches.append(Branch(words, "subgoal", probability, heard(h, node, int(g), probability * reach)))
        return tuple(branches)

    def heard(h: int, node: int, g: int, reach: float) -> tuple[Branch, ...]:
        layer = graph.layers[h]
        edges = np.flatnonzero((layer.node == node) & (layer.subgoal == g))
        mass = layer.joint[edges].mean(axis=1)
        branches = []
        for k in np.argsort(-mass, kind="stable"):
            probability = float(mass[k])
            if probability * reach < _RARE or left[0] <= 0:
                break
            left[0] -= 1
            after = chosen(h + 1, int(layer.child[edges[k]]), probability * reach)
            words = graph.family.observations[int(layer.observation[edges[k]])]
            branches.append(Branch(words, "observation", probability, after))
        return tuple(branches)

    family = graph.family
    first = np.broadcast_to(np.asarray(family.initial)[..., None] * np.asarray(family.emission),
                            (max(len(family.initial), len(family.emission)), *family.emission.shape[1:]))  # fmt: skip
    chance = first.sum(axis=1).mean(axis=0)
    roots = [
        Branch(family.observations[o], "observation", float(chance[o]), chosen(0, int(graph.root[o]), float(chance[o])))
        for o in np.argsort(-chance, kind="stable")
        if chance[o] >= _RARE
    ]
    return PolicyTree(title, tuple(roots), note)
