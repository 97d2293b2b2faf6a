"""Expected regret without simulation: dynamic programming over the posteriors that a planner can hold.

Between episodes a planner that acts on its posterior is in one of finitely many places after t episodes: the distinct
posteriors. Their probabilities under every task are carried forward, one episode at a time; equal posteriors are
merged. It is exact, and cheap where few posteriors are possible; where there are too many, simulate.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import sparse

from ..errors import InvalidPlannerError, TooLargeError
from ..program import Program
from ..validation import check_count, check_fits, check_limit, shown
from ..world import Family
from .aggregated import GraphPlans
from .beliefs import merge_rows
from .classes import TaskClasses, task_classes
from .design import as_exploration_policy
from .expert import first_best
from .exploration import Exploration, Odds, as_exploration, by_rule, check_rule
from .game import Game
from .graph_experts import GraphExperts, first_reward, graph_experts
from .information import Flow, InformationGraph, graph_table, information_graph
from .several import independent, sequential, team_of

_BLOCK = 1 << 22  # entries of a temporary array


@dataclass(frozen=True)
class ExpectedRegret:
    """What a planner loses on average, episode by episode, under every class of tasks (C of them).

    Attributes:
        regret: E[J_z(pi*_z, w) - J_z(pi_t, w)], [C, T], in units of reward.
        by_instruction: likewise, of an episode whose instruction is w, [W, C, T]; its mean under P_Omega is ``regret``.
        explored: probability that the exploration policy acts, [C, T].
        doubt: E[1 - P(z | pt_h)] after each observation h of episode t if the planner acts in it, whatever the coin or
            the gate say, [C, T, H].
        doubt_exploring: likewise, if the exploration policy acts in it.
        posteriors: distinct posteriors before each episode, [T].
        classes: which tasks were merged.
    """

    regret: Float[np.ndarray, "C T"]
    by_instruction: Float[np.ndarray, "W C T"]
    explored: Float[np.ndarray, "C T"]
    doubt: Float[np.ndarray, "C T H"]
    doubt_exploring: Float[np.ndarray, "C T H"]
    posteriors: np.ndarray
    classes: TaskClasses

    @property
    def cumulative(self) -> Float[np.ndarray, "C T"]:
        """Regret summed over episodes, [C, T]."""
        return np.cumsum(self.regret, axis=1)


def expected_regret(
    family_or_program: Family | Program,
    planner: str = "bail",
    exploration: Any = 0.0,
    episodes: int = 3,
    exploration_policy: Any = "uniform",
    *,
    max_posteriors: int = 200_000,
) -> ExpectedRegret:
    """Expected regret of each of the first T episodes, exactly, under every task.

    Args:
        family_or_program: a Family, or a finite program.
        planner: "bail", "bawm" (the best plan in the aggregated world model), "map" or "thompson"; where several Actors
            act, also "independent" or "sequential" (how they draw from BAIL).
        exploration: as for :func:`simulate_regret`.
        episodes: T.
        exploration_policy: as for :func:`simulate_regret`, if it acts on nothing but the posterior and the beliefs
            within the episode.
        max_posteriors: the most distinct posteriors that are carried.

    Raises:
        TooLargeError: more posteriors than that, or histories that do not fit.
        InvalidPlannerError: no such planner, rule or schedule, or a policy that cannot be tabulated.

    Source: theory.md, sections 3 and 4.
    """
    check_count("episodes", episodes)
    check_limit("max_posteriors", max_posteriors, InvalidPlannerError)
    if not isinstance(planner, str) or planner not in PLANNERS:
        raise InvalidPlannerError(
            f"planner = {shown(planner)}; give {', '.join(map(repr, PLANNERS))}, or simulate a planner of your own"
        )
    rule = exploration
    if isinstance(rule, str):
        check_rule(rule)
    else:
        rule = as_exploration(rule, episodes)
    classes = task_classes(family_or_program)
    if planner in ("independent", "sequential"):
        team_of(classes.family)
    check_fits(f"episodes = {episodes}", 32 * classes.family.num_tasks * classes.family.horizon * int(episodes))
    graph = information_graph(classes.family)
    explorer = graph_table(graph, as_exploration_policy(exploration_policy, classes.family))
    if isinstance(rule, str):
        game = Game(graph)
        least = game.information([graph.flow(table) for table in explorer]).min(initial=1.0)
        rule = by_rule(rule, Odds.of(classes.family), float(least), episodes)
    return posterior_recursion(graph, classes, planner, rule, explorer, max_posteriors=max_posteriors)


def posterior_recursion(
    graph: InformationGraph,
    classes: TaskClasses,
    planner: str | list[Flow],
    rule: Exploration,
    explorer: list[Flow],
    *,
    experts: GraphExperts | None = None,
    remembers: Sequence[bool] | None = None,
    coin_per_step: bool = False,
    doubt: bool = True,
    max_posteriors: int = 200_000,
    truncate: bool = False,
) -> ExpectedRegret:
    """:func:`expected_regret` on a graph that is at hand, with what the false twins of theorems need.

    Args:
        graph: of ``classes.family``.
        classes: from :func:`task_classes`.
        planner: a name, or a policy that learns nothing, from :func:`graph_table`.
        rule: when to explore, for T episodes.
        explorer: the exploration policy, from :func:`graph_table`.
        experts: from :func:`graph_experts`; solved here if not given.
        remembers: [T], False for episodes whose evidence the planner forgets; by default it remembers all.
        coin_per_step: toss the coin anew at every step instead of once an episode; no theorem covers that.
        doubt: compute the doubts too, which is half of the work; otherwise they are NaN.
        max_posteriors: the most distinct posteriors that are carried.
        truncate: return the episodes that can be computed instead of raising.

    Raises:
        TooLargeError: more posteriors than ``max_posteriors``.
    """
    episode = _Episode(graph, planner, explorer, graph_experts(graph) if experts is None else experts)
    remembers = [True] * len(rule.coin) if remembers is None else remembers
    C, T, H = classes.family.num_tasks, len(rule.coin), classes.family.horizon
    beliefs = np.asarray(classes.family.task_prior, np.float64)[None]
    mass = np.ones((1, C))
    regret, explored = np.zeros((len(episode.chance), C, T)), np.zeros((C, T))
    unsure, counts = np.full((2, C, T, H), 0.0 if doubt else np.nan), np.zeros(T, int)
    for t in range(T):
        counts[t] = len(beliefs)
        largest = beliefs.argmax(axis=1)
        others = np.where(np.arange(C) == largest[:, None], 0, beliefs).sum(axis=1)
        coin = np.where(others > rule.gate[t], 1.0, rule.coin[t])
        next_beliefs, next_mass = [], []
        size = max(1, _BLOCK // episode.width)
        for begin in range(0, len(beliefs), size):
            rows = slice(begin, begin + size)
            out = episode.play(beliefs[rows], coin[rows], coin_per_step, doubt)
            regret[:, :, t] += (mass[rows] * out.loss).sum(axis=1)
            explored[:, t] += (mass[rows] * coin[rows, None]).sum(axis=0)
            if doubt:
                unsure[:, :, t] += np.einsum("mc,kmch->kch", mass[rows], out.doubt)
            if t == T - 1:
                continue
            if not remembers[t]:
                next_beliefs.append(beliefs[rows])
                next_mass.append(mass[rows])
                continue
            arrived = mass[rows][:, None] * out.heard[..., None] * episode.messages  # [m, messages, C]
            joint = beliefs[rows][:, None] * episode.messages
            possible = (arrived > 0).any(axis=2)
            joint, arrived = joint[possible], arrived[possible]
            merged, index = merge_rows(joint / joint.sum(axis=1, keepdims=True))
            next_beliefs.append(merged)
            next_mass.append(_sum_rows(arrived, index, len(merged)))
        if t == T - 1:
            break
        merged, index = merge_rows(np.concatenate(next_beliefs))
        if len(merged) > max_posteriors and truncate:
            T = t + 1
            break
        if len(merged) > max_posteriors:
            raise TooLargeError(
                f"{len(merged)} posteriors are possible after {t + 1} episodes, more than {max_posteriors}; ask for "
                "fewer episodes, raise max_posteriors, or simulate",
                len(merged) * C * 16,
            )
        beliefs, mass = merged, _sum_rows(np.concatenate(next_mass), index, len(merged))
    regret, unsure = regret[:, :, :T], unsure[:, :, :T]
    total = np.einsum("w,wct->ct", episode.chance, regret)
    return ExpectedRegret(total, regret, explored[:, :T], unsure[0], unsure[1], counts[:T], classes)


def episode_loss(
    graph: InformationGraph,
    planner: str,
    beliefs: Float[np.ndarray, "m C"],
    *,
    experts: GraphExperts | None = None,
) -> Float[np.ndarray, "m C"]:
    """J_z(pi*_z) - J_z(pi) of one episode, averaged over instructions, for a planner that starts from each posterior.

    Args:
        graph: of a family without duplicate tasks.
        planner: a name.
        beliefs: P(z | past) of the classes.
        experts: from :func:`graph_experts`; solved here if not given.
    """
    episode = _Episode(graph, planner, [], graph_experts(graph) if experts is None else experts)
    size = max(1, _BLOCK // episode.width)
    return np.concatenate([episode.planned_loss(beliefs[k : k + size]) for k in range(0, len(beliefs), size)])


@dataclass(frozen=True)
class _Played:
    """One episode from m posteriors: loss [W, m, C]; doubt [2, m, C, H]; weight of each message [m, messages]."""

    loss: np.ndarray
    doubt: np.ndarray
    heard: np.ndarray


class _Episode:
    """What one episode does to a batch of posteriors.

    Attributes:
        messages: likelihoods over tasks, up to a factor, that an episode can end in, [messages, C].
        width: entries of the largest temporary array for one posterior.
    """

    def __init__(self, graph: InformationGraph, planner: str | list[Flow], explorer: list[Flow], experts: GraphExperts):
        self.graph, self.planner, self.explorer, self.experts = graph, planner, explorer, experts
        family = graph.family
        self.chance = np.asarray(family.instruction_prior, np.float64)
        self.rewards = [graph.rewards(w) for w in range(family.num_instructions)]
        self.owed = self.experts.value - first_reward(graph)
        last = graph.layers[-1].joint if graph.layers else graph.likelihood
        scale = last.mean(axis=1)
        self.messages, message = merge_rows(last / scale[:, None])
        self.endings = _gather(message, scale, len(self.messages))
        self.arrivals = [
            _gather(layer.child, layer.joint.mean(axis=1), after.size)
            for layer, after in itertools.pairwise(graph.layers)
        ]
        self.width = max(len(last), *(e.size for e in self.experts.scaled), len(self.messages) * family.num_tasks, 1)
        if planner == "bawm":
            self.plans = GraphPlans(graph)
            self.width = max(self.width, self.plans.width)

    @functools.cached_property
    def expert_flows(self) -> list[list[np.ndarray]]:
        """The flows of the experts, [C, n, G] a layer, for every instruction."""
        G, C = self.graph.family.num_subgoals, self.graph.family.num_tasks
        flows = [
            [self.graph.flow([np.eye(G)[a[:, c, w]] for a in self.experts.actions]) for c in range(C)]
            for w in range(len(self.chance))
        ]
        return [[np.stack(layers) for layers in zip(*by_task, strict=True)] for by_task in flows]

    def play(
        self, beliefs: Float[np.ndarray, "m C"], coin: Float[np.ndarray, " m"], coin_per_step: bool, doubt: bool
    ) -> _Played:
        """Loss, doubt and what is heard; with a coin per step both entries of doubt are those of the mixture."""
        m, C = beliefs.shape
        H, total = self.graph.family.horizon, len(self.messages)
        loss = np.zeros((len(self.chance), m, C))
        unsure, heard = np.zeros((2, m, C, H)), np.zeros((m, total))
        for w, chance in enumerate(self.chance):
            if coin_per_step:
                policy = self._mixed(beliefs, w, coin)
                parts = [(np.ones(m), policy), (np.zeros(m), policy)]
            else:
                parts = [(1 - coin, self._planned(beliefs, w)), (coin, _same(self.explorer[w], m))]
            for k, (share, policy) in enumerate(parts):
                if not (doubt or share.any()):
                    continue
                flows = self._follow(m, policy)
                if doubt:
                    unsure[k] += chance * self._doubts(beliefs, flows)
                loss[w] += share[:, None] * self._lost(flows, m, w)
                heard += chance * share[:, None] * self._ending(flows, m)
        return _Played(loss, unsure, heard)

    def planned_loss(self, beliefs: Float[np.ndarray, "m C"]) -> Float[np.ndarray, "m C"]:
        """What the planner loses under every task if it acts from each of m posteriors."""
        m, total = len(beliefs), np.zeros(beliefs.shape)
        for w, chance in enumerate(self.chance):
            total += chance * self._lost(self._follow(m, self._planned(beliefs, w)), m, w)
        return total

    def _lost(self, flows: list[np.ndarray], m: int, w: int) -> np.ndarray:
        """J_z(pi*_z, w) - J_z(pi, w) of each of m policies, [m, C]."""
        left = np.broadcast_to(self.owed[:, w], (m, self.owed.shape[0])).copy()
        for y, paid in zip(flows, self.rewards[w], strict=True):
            left -= y.reshape(m, -1) @ paid.reshape(-1, left.shape[1])
        return left

    def _planned(self, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
        """The planner's probabilities at every node, [m, n, G] a layer."""
        if not isinstance(self.planner, str):
            return _same(self.planner[w], len(beliefs))
        return PLANNERS[self.planner](self, beliefs, w)

    def _posteriors(self, beliefs: np.ndarray) -> Iterator[np.ndarray]:
        """P(z | pt) at every node, [m, n, C] a layer."""
        for likelihood, _ in zip(self.experts.likelihood, self.graph.layers, strict=False):
            joint = beliefs[:, None] * likelihood
            total = joint.sum(axis=2, keepdims=True)
            yield joint / np.where(total > 0, total, 1)

    def _vote(self, posteriors: Iterable[np.ndarray], w: int) -> list[np.ndarray]:
        """Experts averaged under a posterior at every node."""
        votes = [np.eye(self.graph.family.num_subgoals)[a[..., w]] for a in self.experts.actions]  # [n, C, G]
        return [np.einsum("mnc,ncg->mng", p, v, optimize=True) for p, v in zip(posteriors, votes, strict=True)]

    def _bail(self, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
        return self._vote(self._posteriors(beliefs), w)

    def _map(self, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
        return self._vote((np.eye(p.shape[2])[first_best(p)] for p in self._posteriors(beliefs)), w)

    def _bawm(self, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
        return [np.eye(q.shape[-1])[first_best(q[:, 0])] for q in self.plans.q(beliefs, w)]

    def _by_actor(self, beliefs: np.ndarray, w: int, law: Callable[..., Any]) -> list[np.ndarray]:
        """Several Actors who draw by ``law``."""
        team = team_of(self.graph.family)
        pairs = zip(self._posteriors(beliefs), self.experts.actions, strict=True)
        return [law(team, p, np.broadcast_to(a[..., w], p.shape)) for p, a in pairs]

    def _independent(self, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
        return self._by_actor(beliefs, w, independent)

    def _sequential(self, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
        return self._by_actor(beliefs, w, sequential)

    def _thompson(self, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
        """One task an episode: the mixture of the experts' flows, as a behavioural policy."""
        G = self.graph.family.num_subgoals
        policy = []
        for flows in self.expert_flows[w]:
            mixed = np.einsum("mc,cng->mng", beliefs, flows)
            total = mixed.sum(axis=2, keepdims=True)
            policy.append(np.where(total > 0, mixed / np.where(total > 0, total, 1), 1 / G))
        return policy

    def _mixed(self, beliefs: np.ndarray, w: int, coin: np.ndarray) -> list[np.ndarray]:
        share = coin[:, None, None]
        if self.planner == "thompson":  # one task an episode also where the steps are mixed
            return self._thompson_mixed(beliefs, w, share)
        pairs = zip(self._planned(beliefs, w), _same(self.explorer[w], len(beliefs)), strict=True)
        return [(1 - share) * plan + share * explore for plan, explore in pairs]

    def _thompson_mixed(self, beliefs: np.ndarray, w: int, share: np.ndarray) -> list[np.ndarray]:
        G = self.graph.family.num_subgoals
        total = [np.zeros((len(beliefs), layer.size, G)) for layer in self.graph.layers]
        for c in range(beliefs.shape[1]):
            votes = [np.eye(G)[actions[:, c, w]] for actions in self.experts.actions]
            steps = [(1 - share) * v + share * e for v, e in zip(votes, self.explorer[w], strict=True)]
            flows = self._follow(len(beliefs), steps)
            total = [t + beliefs[:, c, None, None] * y for t, y in zip(total, flows, strict=True)]
        reached = [t.sum(axis=2, keepdims=True) for t in total]
        return [np.where(r > 0, t / np.where(r > 0, r, 1), 1 / G) for t, r in zip(total, reached, strict=True)]

    def _follow(self, m: int, policy: list[np.ndarray]) -> list[np.ndarray]:
        """Flows [m, n, G] a layer."""
        graph = self.graph
        inflow, flows = np.broadcast_to(graph.start, (m, len(graph.start))), []
        for h, (layer, probabilities) in enumerate(zip(graph.layers, policy, strict=True)):
            flows.append(inflow[..., None] * probabilities)
            if h < len(graph.layers) - 1:
                inflow = (self.arrivals[h] @ flows[-1][:, layer.node, layer.subgoal].T).T
        return flows

    def _doubts(self, beliefs: np.ndarray, flows: list[np.ndarray]) -> np.ndarray:
        """E_z[1 - P(z | tau_h)] after every observation, [m, C, H]."""
        graph = self.graph
        start = np.broadcast_to(graph.start, (len(beliefs), len(graph.start)))
        unsure = [_doubt(beliefs, start, graph.likelihood)]
        for layer, flow in zip(graph.layers, flows, strict=True):
            unsure.append(_doubt(beliefs, flow[:, layer.node, layer.subgoal], layer.joint))
        return np.stack(unsure, axis=2)

    def _ending(self, flows: list[np.ndarray], m: int) -> np.ndarray:
        """The weight with which an episode ends in each message, [m, messages]; times messages, a probability."""
        weight = np.broadcast_to(self.graph.start, (m, len(self.graph.start)))
        if flows:
            last = self.graph.layers[-1]
            weight = flows[-1][:, last.node, last.subgoal]
        return (self.endings @ weight.T).T


PLANNERS: dict[str, Callable[[_Episode, np.ndarray, int], list[np.ndarray]]] = {
    "bail": _Episode._bail,
    "bawm": _Episode._bawm,
    "independent": _Episode._independent,
    "map": _Episode._map,
    "sequential": _Episode._sequential,
    "thompson": _Episode._thompson,
}
"""The planners by name: (episode, posteriors [m, C], instruction) -> probabilities at every node, [m, n, G] a layer."""


def _same(policy: Flow, m: int) -> list[np.ndarray]:
    """One policy from all of m posteriors."""
    return [np.broadcast_to(rows, (m, *rows.shape)) for rows in policy]


def _doubt(beliefs: np.ndarray, weight: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
    """sum over histories of weight L_z (1 - P(z | tau)), [m, C], for weights [m, n] and likelihoods [n, C]."""
    joint = beliefs[:, None] * likelihood
    total = joint.sum(axis=2, keepdims=True)
    wrong = (total - joint) / np.where(total > 0, total, 1)
    return (weight[:, None] @ (likelihood * wrong))[:, 0]


def _sum_rows(rows: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """Rows added up by index."""
    return _gather(index, np.ones(len(index)), size) @ rows


def _gather(index: np.ndarray, weights: np.ndarray, size: int) -> sparse.csc_array:
    """The matrix that adds up weighted entries by index."""
    return sparse.csc_array((weights, index, np.arange(len(index) + 1)), shape=(size, len(index)))
