"""What the bounds of section 4 depend on, in the worst case and in the world at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..planning.exploration import Odds
from ..planning.game import Game
from ..planning.graph_experts import GraphExperts, first_reward, graph_experts
from ..planning.information import Flow, InformationGraph


@dataclass(frozen=True)
class Constants:
    """What the bounds depend on; C is the number of classes of tasks.

    Attributes:
        horizon: H.
        prior: P_Z of the classes, [C].
        eta: eta_zz' of the exploration policy, [C, C].
        loss: what an exploring episode loses, [C]; H-1 in the worst case.
        advantage: sum over h of what following another task's expert at step h can lose, [C]; H(H-1)/2 in the worst.
        cap: what an episode of following experts can lose in all, [C]; H-1 in the worst.
        worst: what an episode can lose whatever is done in it, [C]; H-1 in the worst.
        misled: what following the expert of task z (second) loses under task z' (first), [C, C]; H-1 in the worst.
    """

    horizon: int
    prior: Float[np.ndarray, " C"]
    eta: Float[np.ndarray, "C C"]
    loss: Float[np.ndarray, " C"]
    advantage: Float[np.ndarray, " C"]
    cap: Float[np.ndarray, " C"]
    worst: Float[np.ndarray, " C"]
    misled: Float[np.ndarray, "C C"]

    @property
    def least_eta(self) -> float:
        """The least eta_zz' over pairs; 1.0 if there is only one class."""
        return float(self.eta[np.triu_indices(len(self.prior), 1)].min(initial=1.0))

    @property
    def odds(self) -> Odds:
        """What schedules read."""
        return Odds.of_prior(self.horizon, self.prior)

    @property
    def trivial(self) -> Float[np.ndarray, " C"]:
        """What an episode can lose whatever is done in it, [C]: a bound of this much an episode says nothing."""
        return np.maximum(self.loss, self.cap)

    @property
    def roots(self) -> Float[np.ndarray, "C C"]:
        """sqrt(P_Z(z') / P_Z(z)), 0 on the diagonal."""
        ratio = np.sqrt(self.prior / self.prior[:, None])
        return np.where(np.eye(len(self.prior), dtype=bool), 0.0, ratio)


def worst_case(horizon: int, prior: Float[np.ndarray, " C"], eta: float) -> Constants:
    """The constants of any world with this horizon, this prior over classes, and an exploration policy of this eta."""
    C = len(prior)
    one, pairs = np.ones(C), np.where(np.eye(C, dtype=bool), 0.0, eta)
    H = horizon
    most = (H - 1) * one
    misled = np.where(np.eye(C, dtype=bool), 0.0, H - 1.0)
    return Constants(H, np.asarray(prior, np.float64), pairs, most, H * (H - 1) / 2 * one, most, most, misled)


def instance(graph: InformationGraph, policy: Sequence[Flow], *, experts: GraphExperts | None = None) -> Constants:
    """The constants of the world at hand.

    Args:
        graph: of a family without duplicate tasks.
        policy: the exploration policy, from :func:`graph_table`.
        experts: from :func:`graph_experts`; solved here if not given.

    Source: theory.md, E2; its H-1 and H-h are replaced by the exact loss of the policy and by the largest advantages
    that following the expert of another live task can give away, which the performance-difference lemma allows. W2; its
    H-1 are replaced by what any plan can lose, and by what following one task's expert loses under another.
    """
    family, experts = graph.family, graph_experts(graph) if experts is None else experts
    game = Game(graph, experts.value)
    flows = [graph.flow(table) for table in policy]
    eta = np.zeros((family.num_tasks, family.num_tasks))
    eta[tuple(game.pairs)] = game.information(flows)
    advantage, cap = _given_away(graph, experts)
    prior = np.asarray(family.task_prior, np.float64)
    loss = np.maximum(game.loss(flows), 0.0)
    return Constants(family.horizon, prior, eta + eta.T, loss, advantage, cap, *_planned(graph, experts, game))


def _planned(graph: InformationGraph, experts: GraphExperts, game: Game) -> tuple[np.ndarray, np.ndarray]:
    """The largest loss of any policy [C], and what each task's expert (second) loses under each task (first) [C, C]."""
    family = graph.family
    C, G, W = family.num_tasks, family.num_subgoals, family.num_instructions
    owed = experts.value - first_reward(graph)
    worst = np.zeros((C, W))
    for w in range(W):
        rewards = graph.rewards(w)
        for z in range(C):
            worst[z, w] = owed[z, w] + graph.best([-r[..., z] for r in rewards])[0]
    followed = [[graph.flow([np.eye(G)[a[:, z, w]] for a in experts.actions]) for w in range(W)] for z in range(C)]
    misled = np.stack([game.loss(flows) for flows in followed], axis=1)
    np.fill_diagonal(misled, 0.0)
    return np.maximum(worst @ game.instructions, 0.0), np.maximum(misled, 0.0)


def _given_away(graph: InformationGraph, experts: GraphExperts) -> tuple[np.ndarray, np.ndarray]:
    """The largest advantages of the steps, added up, and the largest sum of advantages along an episode; [C] each.

    Both over the experts of all tasks that are still possible, and averaged over instructions.
    """
    family = graph.family
    C, G, W = family.num_tasks, family.num_subgoals, family.num_instructions
    chance = np.asarray(family.instruction_prior, np.float64)
    largest = np.zeros((C, W))
    later = np.zeros((0, C, W))
    for h in reversed(range(len(graph.layers))):
        layer, scaled, alive = graph.layers[h], experts.scaled[h], experts.likelihood[h] > 0
        advantage = scaled.max(axis=1, keepdims=True) - scaled  # times L_z / m, [n, G, C, W]
        taken = np.zeros((layer.size, G, W), bool)
        n, other = np.nonzero(alive)
        for w in range(W):
            taken[n, experts.actions[h][n, other, w], w] = True
        lost = np.where(taken[:, :, None], advantage, 0.0)
        per_history = lost.max(axis=1) / np.where(alive, experts.likelihood[h], 1)[..., None]
        largest += np.where(alive[..., None], per_history, 0.0).max(axis=0)
        if h < len(graph.layers) - 1:
            carried = layer.joint.mean(axis=1)[:, None, None] * later[layer.child]
            flat = layer.totals(carried.reshape(len(carried), -1), G)
            advantage = advantage + flat.reshape(layer.size, G, C, W)
        later = np.where(taken[:, :, None], advantage, 0.0).max(axis=1)
    cap = np.einsum("n,ncw->cw", graph.start, later) if graph.layers else np.zeros((C, W))
    return largest @ chance, cap @ chance
