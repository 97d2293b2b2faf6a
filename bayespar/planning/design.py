"""Exploration by design: the policy that tells tasks apart fastest, and the one that pays least for doing so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..program import Program
from ..world import Family
from .beliefs import DEFAULT_MAX_BYTES
from .classes import TaskClasses, task_classes
from .expert import TIE
from .game import Flows, Game, Solution, maximise_eta, minimise_ratio
from .graph_experts import graph_experts
from .information import GraphPolicy, InformationGraph, information_graph
from .planner import Planner, as_policy


@dataclass(frozen=True)
class Design:
    """An exploration policy, and what it tells apart.

    Attributes:
        policy: behavioural, over reachable histories; plugs in wherever an exploration policy is taken.
        eta: least squared Hellinger distance between the histories of two tasks, over all pairs of tasks; 0.0 if two
            tasks are one class, which no policy can tell apart.
        eta_classes: the same over pairs of classes, which is what the bounds need; 1.0 if there is only one class.
        upper: no policy has a larger ``eta_classes``.
        hardest_pair: names of the two tasks that attain ``eta``; None if there is only one task.
        classes: the tasks that were merged, and the proof that they are equal.
        loss: max_z [J_z(pi*_z) - J_z(policy)], averaged over instructions, in units of reward per episode; None from
            :func:`design_exploration`, which does not look at rewards.
        ratio_lower: no policy has a smaller ``loss / eta_classes``; None likewise.
        prices: weights of the pairs of classes, [P]: the proof of ``upper``, as no policy earns more than that on their
            weighted mean; or of ``ratio_lower``, their sum.
        task_weights: weights of the classes, [C], which belong to that proof; None from :func:`design_exploration`.
    """

    policy: GraphPolicy
    eta: float
    eta_classes: float
    upper: float
    hardest_pair: tuple[str, str] | None
    classes: TaskClasses
    loss: float | None = None
    ratio_lower: float | None = None
    prices: Float[np.ndarray, " P"] | None = None
    task_weights: Float[np.ndarray, " C"] | None = None

    @property
    def gap(self) -> float:
        """What another policy could add to ``eta_classes``, at most; 0 to rounding from :func:`design_exploration`."""
        return max(0.0, self.upper - self.eta_classes)

    @property
    def ratio(self) -> float | None:
        """``loss / eta_classes``: loss per information, in units of reward."""
        return None if self.loss is None else self.loss / self.eta_classes


def design_exploration(family_or_program: Family | Program, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Design:
    """The policy of largest eta: max over policies of min over pairs of eta_zz'.

    Args:
        family_or_program: a Family, or a finite program.
        max_bytes: largest table that is built.

    Raises:
        TooLargeError: the reachable histories do not fit, even merged; ``bayespar.estimate_eta`` can still bound the
            eta of a policy of your own, by simulation.

    Source: theory.md, E4.
    """
    classes = task_classes(family_or_program)
    graph = information_graph(classes.family, max_bytes=max_bytes)
    game = Game(graph)
    if _nothing_to_design(graph):
        return _design(game, classes, [game.uniform()], 0.0)
    solution = maximise_eta(game)
    return _design(game, classes, solution.flows, solution.bound, proof=solution)


def cheapest_exploration(family_or_program: Family | Program, *, max_bytes: int = DEFAULT_MAX_BYTES) -> Design:
    """The policy of least loss per information: min over policies of max_z [J_z(pi*_z) - J_z(pi)] / eta(pi).

    Args:
        family_or_program: a Family, or a finite program.
        max_bytes: largest table that is built.

    Raises:
        TooLargeError: the reachable histories do not fit, even merged.

    Source: theory.md, E5.
    """
    classes = task_classes(family_or_program)
    graph = information_graph(classes.family, max_bytes=max_bytes)
    game = Game(graph, graph_experts(graph).value)
    if _nothing_to_design(graph):  # all that is left is to lose nothing
        flows = game.least_loss(np.zeros(0), np.ones(1))[1] if graph.layers else [[]] * graph.family.num_instructions
        return _design(game, classes, flows, 0.0, ratio_lower=0.0)
    solution = minimise_ratio(game)
    return _design(game, classes, solution.flows, 1.0, ratio_lower=solution.bound, proof=solution)


def as_exploration_policy(policy: Any, family: Family, *, episodes: int = 1) -> Planner:
    """A policy by name ("uniform", "best": of largest eta, "cheapest": of least loss per information), or any other.

    Raises:
        InvalidPlannerError: no such policy.
        TooLargeError: it is to be designed, and the histories do not fit.
    """
    if isinstance(policy, str) and policy == "best":
        return design_exploration(family).policy
    if isinstance(policy, str) and policy == "cheapest":
        return cheapest_exploration(family).policy
    return as_policy(policy, family, episodes=episodes)


def _design(
    game: Game,
    classes: TaskClasses,
    flows: Flows,
    upper: float,
    *,
    ratio_lower: float | None = None,
    proof: Solution | None = None,
) -> Design:
    eta = game.eta(flows[0]) if len(flows) == 1 else game.information(flows)
    least = float(eta.min(initial=1.0))
    hardest = None
    if len(eta):
        first, second = game.pairs[:, np.argmax(eta <= least + TIE)]
        hardest = classes.members[first][0], classes.members[second][0]
    if classes.merged:
        hardest = classes.merged[0][0], classes.merged[0][1]
    return Design(
        policy=GraphPolicy(game.graph, [game.graph.behaviour(flow) for flow in flows]),
        eta=0.0 if classes.merged else least,
        eta_classes=least,
        upper=max(upper, least),
        hardest_pair=hardest,
        classes=classes,
        loss=None if ratio_lower is None else max(0.0, float(game.loss(flows).max())),
        ratio_lower=ratio_lower,
        prices=None if proof is None else proof.prices,
        task_weights=None if proof is None else proof.tasks,
    )


def _nothing_to_design(graph: InformationGraph) -> bool:
    """No decision, or no two tasks to tell apart."""
    return not graph.layers or graph.family.num_tasks == 1
