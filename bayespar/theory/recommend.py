"""Which way of exploring to use for T episodes, and what it guarantees."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..planning.classes import TaskClasses, task_classes
from ..planning.design import as_exploration_policy
from ..planning.exploration import RULES, Exploration, by_coin, by_rule
from ..planning.graph_experts import graph_experts
from ..planning.information import graph_table, information_graph
from ..planning.planner import Planner
from ..program import Program
from ..validation import check_count
from ..world import Family
from .bounds import epsilon_greedy, gated_regret
from .constants import Constants, instance, worst_case


@dataclass(frozen=True)
class Recommendation:
    """One way of exploring, for BAIL.

    Attributes:
        rule: "constant", "anytime", "explore-first", "gated" or "gated-anytime"; "tuned explore-first" where the number
            of exploring episodes is the one that makes the guarantee of the world at hand smallest.
        policy_name: "uniform", "best", "cheapest", or "given".
        policy: the exploration policy.
        exploration: what :func:`simulate_regret` takes.
        eta: of the policy.
        epsilon: average probability that the coin shows up, over the T episodes; None for gates.
        guaranteed: largest Reg_z(T) over tasks, by the constants of this world.
        worst_case: likewise, by the constants of any world with this horizon, prior and eta.
        trivial: what T episodes can lose at most; a guarantee above it says nothing.
    """

    rule: str
    policy_name: str
    policy: Planner = field(repr=False)
    exploration: Exploration
    eta: float
    epsilon: float | None
    guaranteed: float
    worst_case: float
    trivial: float

    @property
    def informative(self) -> bool:
        """Whether the guarantee is below its trivial value."""
        return self.guaranteed < self.trivial


@dataclass(frozen=True)
class Recommendations:
    """The best way of exploring by every rule, best first.

    Attributes:
        ranked: one for each rule.
        classes: the tasks that were merged.
        episodes: T.
    """

    ranked: tuple[Recommendation, ...]
    classes: TaskClasses
    episodes: int

    @property
    def best(self) -> Recommendation:
        """The first."""
        return self.ranked[0]


def recommend(family_or_program: Family | Program, *, episodes: int, exploration_policy: Any = None) -> Recommendations:
    """How to explore for T episodes: for each rule its schedule, its policy, and the regret it guarantees.

    Args:
        family_or_program: a Family, or a finite program.
        episodes: T.
        exploration_policy: as for :func:`simulate_regret`; by default "uniform", "best" and "cheapest" compete.

    Raises:
        TooLargeError: the reachable histories do not fit.
        InvalidPlannerError: no episodes, or a policy that cannot be tabulated.

    Source: theory.md, E2, E3 and E5.
    """
    check_count("episodes", episodes)
    classes = task_classes(family_or_program)
    graph = information_graph(classes.family)
    experts = graph_experts(graph)
    names = ("uniform", "best", "cheapest") if exploration_policy is None else (exploration_policy,)
    found: dict[str, Recommendation] = {}
    for name in names:
        policy = as_exploration_policy(name, classes.family)
        own = instance(graph, graph_table(graph, policy), experts=experts)
        eta = own.least_eta
        any_world = worst_case(own.horizon, own.prior, eta)
        for rule, exploration in _candidates(own, int(episodes)):
            guaranteed, worst = (float(_bound(c, exploration)[:, -1].max()) for c in (own, any_world))
            if rule in found and found[rule].guaranteed <= guaranteed:
                continue
            found[rule] = Recommendation(
                rule,
                name if isinstance(name, str) else "given",
                policy,
                exploration,
                eta,
                None if exploration.gated else float(exploration.coin.mean()),
                guaranteed,
                worst,
                float(own.trivial.max() * episodes),
            )
    ranked = sorted(found.values(), key=lambda r: r.guaranteed)
    return Recommendations(tuple(ranked), classes, int(episodes))


def _candidates(constants: Constants, episodes: int) -> list[tuple[str, Exploration]]:
    """Every rule, where eta allows it, and the explore-first of the smallest guarantee."""
    eta = constants.least_eta
    rules = [r for r in RULES if eta > 0 or r.startswith("gated")]
    out = [(rule, by_rule(rule, constants.odds, eta, episodes)) for rule in rules]
    return [*out, ("tuned explore-first", _tuned(constants, episodes))]


def _tuned(constants: Constants, episodes: int) -> Exploration:
    """Explore in the first n episodes, with the n that guarantees most."""

    def guaranteed(count: int) -> float:
        return float(epsilon_greedy(constants, (np.arange(episodes) < count).astype(float))[:, -1].max())

    counts = np.unique(np.append(0, np.geomspace(1, episodes, 200).astype(int)))
    count = min(counts.tolist(), key=guaranteed)
    return by_coin((np.arange(episodes) < count).astype(np.float64))


def _bound(constants: Constants, exploration: Exploration) -> np.ndarray:
    if exploration.gated:
        return gated_regret(constants, exploration.gate)
    return epsilon_greedy(constants, exploration.coin)
