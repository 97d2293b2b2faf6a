"""The two linear programs of exploration, solved by generating columns.

A policy earns eta_zz', its squared Hellinger distance, on every pair of tasks, and costs loss_z under every task; both
are linear in its flow. A small program mixes the policies found so far; its dual prices turn the question "which policy
is missing?" into one backward pass over the information graph. The same pass bounds what any policy can reach, so
every solution comes with a certificate.

Sources: theory.md, E4 and E5; Dantzig and Wolfe (1960).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linprog

from .graph_experts import first_reward
from .information import Flow, InformationGraph

GAP = 1e-10
"""Relative distance between the two sides at which a solution counts as exact."""

_MOST_ROUNDS = 3000
_NEARLY, _PATIENCE = 1e-8, 30  # a gap so small that no longer closes is the linear program's rounding
_ROUNDING = 1e-13  # a loss per episode that is none
_FEASIBILITY = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}

Flows = list[Flow]
"""The flow of a policy under every instruction."""


@dataclass(frozen=True)
class Solution:
    """A policy, and what no policy can beat.

    Attributes:
        flows: of the policy, one for each instruction (one alone if instructions do not matter).
        value: of the objective.
        bound: on the objective of any policy.
        prices: of the pairs, [P], from which the bound follows.
        tasks: weights of the tasks, [Z], likewise; only where there is loss.
    """

    flows: Flows
    value: float
    bound: float
    prices: Float[np.ndarray, " P"]
    tasks: Float[np.ndarray, " Z"] | None = None


class Game:
    """Information and loss of policies over one graph.

    Attributes:
        graph: the graph.
        pairs: first and second task of every pair, [2, P].
    """

    def __init__(self, graph: InformationGraph, values: Float[np.ndarray, "Z W"] | None = None):
        """``values`` are J_z(pi*_z, w); without them there is no loss."""
        family = graph.family
        self.graph = graph
        self.pairs = np.stack(np.triu_indices(family.num_tasks, 1))
        self._roots = np.sqrt(graph.layers[-1].joint if graph.layers else graph.likelihood)
        self._starts = np.append(0, np.cumsum(np.arange(family.num_tasks - 1, 0, -1)))
        self.instructions = np.asarray(family.instruction_prior, np.float64)
        if values is not None:
            self._owed = values - first_reward(graph)  # what is left to earn after r_1, [Z, W]
            self._rewards = [graph.rewards(w) for w in range(family.num_instructions)]

    def eta(self, flow: Flow) -> Float[np.ndarray, " P"]:
        """eta_zz' of a policy for every pair of tasks."""
        weight = self.graph.start
        if flow:
            last = self.graph.layers[-1]
            weight = flow[-1][last.node, last.subgoal]
        roots, weight = self._roots[weight > 0], weight[weight > 0]
        Z = self.graph.family.num_tasks
        rows = [weight @ (roots[:, z : z + 1] - roots[:, z + 1 :]) ** 2 / 2 for z in range(Z - 1)]
        return np.concatenate([np.zeros(0), *rows])  # no pair if there is one task

    def loss(self, flows: Flows) -> Float[np.ndarray, " Z"]:
        """J_z(pi*_z) - J_z(pi) for every task, averaged over instructions."""
        left = self._owed.copy()
        for w, flow in enumerate(flows):
            for y, reward in zip(flow, self._rewards[w], strict=True):
                left[:, w] -= np.einsum("ng,ngz->z", y, reward)
        return left @ self.instructions

    def information(self, flows: Flows) -> Float[np.ndarray, " P"]:
        """:meth:`eta` averaged over instructions."""
        return np.einsum("w,wp->p", self.instructions, np.stack([self.eta(flow) for flow in flows]))

    def _prize(self, prices: Float[np.ndarray, " P"]) -> Float[np.ndarray, "n G"]:
        """sum over pairs of price times squared Hellinger distance, by node and subgoal of the last decision."""
        last = self.graph.layers[-1]
        total = np.zeros(len(self._roots))
        for z in range(self.graph.family.num_tasks - 1):
            price = prices[self._starts[z] : self._starts[z + 1]]
            used = np.flatnonzero(price)
            if len(used):
                others = self._roots[:, z + 1 :][:, used]
                total += (self._roots[:, z : z + 1] - others) ** 2 @ price[used] / 2
        return last.total(total, self.graph.family.num_subgoals)

    def most_informative(self, prices: Float[np.ndarray, " P"]) -> tuple[float, Flow]:
        """The largest sum of price times eta_zz' over policies, and a deterministic policy that attains it."""
        nothing = [np.zeros((layer.size, self.graph.family.num_subgoals)) for layer in self.graph.layers[:-1]]
        value, policy = self.graph.best([*nothing, self._prize(prices)])
        return value, self.graph.flow(policy)

    def least_loss(self, prices: Float[np.ndarray, " P"], tasks: Float[np.ndarray, " Z"]) -> tuple[float, Flows]:
        """The least (sum of task weight times loss - sum of price times eta) over policies, and one that attains it."""
        prize, total, flows = self._prize(prices), 0.0, []
        for w, chance in enumerate(self.instructions):
            gains = [r @ tasks for r in self._rewards[w]]
            gains[-1] = gains[-1] + prize
            value, policy = self.graph.best(gains)
            total += chance * (self._owed[:, w] @ tasks - value)
            flows.append(self.graph.flow(policy))
        return float(total), flows

    def uniform(self) -> Flow:
        """The flow of uniform subgoals."""
        G = self.graph.family.num_subgoals
        return self.graph.flow([np.full((layer.size, G), 1 / G) for layer in self.graph.layers])


def maximise_eta(game: Game) -> Solution:
    """max over policies of the least eta_zz'.

    The bound is the value of the best answer to some prices over pairs: a mixture of pairs is never harder than the
    hardest one.
    """
    P = game.pairs.shape[1]
    flows = [game.uniform()]
    earned = [game.eta(flows[0])]
    prices, bound = np.full(P, 1 / P), math.inf
    proof, done = prices, _Closing()
    for _ in range(_MOST_ROUNDS):
        value, flow = game.most_informative(prices)
        if value < bound:
            bound, proof = value, prices
        flows.append(flow)
        earned.append(game.eta(flow))
        table = np.stack(earned, axis=1)
        scale = _scale(table)  # pairs may differ by orders of magnitude, and the solver takes 1e-9 for 0
        mixed = linprog(
            np.append(np.zeros(len(flows)), -1.0),
            A_ub=np.hstack([-table / scale[:, None], scale.min() / scale[:, None]]),
            b_ub=np.zeros(P),
            A_eq=np.append(np.ones(len(flows)), 0.0)[None],
            b_eq=[1.0],
            bounds=[(0, None)] * len(flows) + [(None, None)],
            method="highs-ds",
            options=_FEASIBILITY,
        )
        weights, prices = _positive(mixed.x[:-1]), _positive(-mixed.ineqlin.marginals / scale)
        best = float((table @ weights).min())
        if done(bound - best, bound):
            break
    used = np.flatnonzero(weights)  # only now: columns dropped on the way may come back for ever
    return Solution([_mixture([flows[k] for k in used], weights[used])], best, bound, proof)


def minimise_ratio(game: Game) -> Solution:
    """min over policies of the largest loss_z over the least eta_zz'.

    After the change of variables of Charnes and Cooper (1962), policies enter with weights x >= 0 of any sum, their
    information adds up to at least 1 on every pair, and the ratio is the largest loss. For task weights a summing to
    1 and prices p on pairs, no ratio is below t sum(p) if a . loss(pi) >= t p . eta(pi) for every policy pi.
    """
    P, Z = game.pairs.shape[1], game.graph.family.num_tasks
    W = len(game.instructions)
    columns: list[Flows] = [[game.uniform()] * W]
    earned, lost = [game.information(columns[0])], [game.loss(columns[0])]
    bound, proof, done = 0.0, (np.zeros(P), np.full(Z, 1 / Z)), _Closing()
    for _ in range(_MOST_ROUNDS):
        gains, costs = np.stack(earned, axis=1), np.stack(lost, axis=1)
        scale = _scale(gains)  # as above
        rows = np.hstack([-gains / scale[:, None], np.zeros((P, 1))]), np.hstack([costs, -np.ones((Z, 1))])
        mixed = linprog(
            np.append(np.zeros(len(columns)), 1.0),
            A_ub=np.vstack(rows),
            b_ub=np.append(-scale.min() / scale, np.zeros(Z)),
            bounds=(0, None),
            method="highs-ds",
            options=_FEASIBILITY,
        )
        weights, duals = np.maximum(mixed.x[:-1], 0), np.maximum(-mixed.ineqlin.marginals, 0)
        best = float((costs @ weights).max() / (gains @ weights).min())
        if (costs @ weights).max() <= _ROUNDING * weights.sum():
            break  # exploring is free, and no ratio is below 0
        tasks, prices = _positive(duals[P:]), duals[:P] / scale
        flows = game.least_loss(prices, tasks)[1]
        proven = _certified(game, prices, tasks)
        if proven.sum() >= bound:
            bound, proof = float(proven.sum()), (proven, tasks)
        if done(best - bound, best):
            break
        columns.append(flows)
        earned.append(game.information(flows))
        lost.append(game.loss(flows))
    used = np.flatnonzero(weights > 0)
    share = weights[used] / weights[used].sum()
    flows = [_mixture([columns[k][w] for k in used], share) for w in range(W)]
    return Solution(flows, best, bound, *proof)


class _Closing:
    """Whether a gap is closed, or as nearly closed as it will be."""

    def __init__(self) -> None:
        self.least, self.waited = math.inf, 0

    def __call__(self, gap: float, value: float) -> bool:
        self.waited = 0 if gap < self.least else self.waited + 1
        self.least = min(self.least, gap)
        return gap <= GAP * value or (self.least <= _NEARLY * value and self.waited >= _PATIENCE)


def _certified(game: Game, prices: Float[np.ndarray, " P"], tasks: Float[np.ndarray, " Z"]) -> np.ndarray:
    """t times prices, for the largest t with tasks . loss >= t prices . eta for every policy (Dinkelbach, 1967)."""
    if prices.sum() == 0:
        return prices
    t = 1.0
    for _ in range(50):
        value, flows = game.least_loss(t * prices, tasks)
        if value >= -1e-13:
            break
        t = max(0.0, float(tasks @ game.loss(flows)) / float(prices @ game.information(flows)))
    return t * prices


def _scale(table: Float[np.ndarray, "P k"]) -> Float[np.ndarray, " P"]:
    """The largest entry of every row."""
    largest = table.max(axis=1)
    return np.where(largest > 0, largest, 1.0)


def _positive(weights: np.ndarray) -> np.ndarray:
    weights = np.maximum(weights, 0)
    return weights / weights.sum()


def _mixture(flows: Flows, weights: np.ndarray) -> Flow:
    return [np.einsum("k,kng->ng", weights, np.stack(layers)) for layers in zip(*flows, strict=True)]
