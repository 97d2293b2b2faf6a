"""What a claim is, and what it is checked on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import TooLargeError
from ..evidence import prefix_log_evidence
from ..planning.bail import expert_table
from ..planning.classes import TaskClasses, task_classes
from ..planning.design import Design, cheapest_exploration, design_exploration
from ..planning.expected_regret import ExpectedRegret, posterior_recursion
from ..planning.expert import Experts, solve_experts
from ..planning.exploration import Exploration
from ..planning.game import Game
from ..planning.graph_experts import GraphExperts, graph_experts
from ..planning.histories import Histories, enumerate_histories
from ..planning.information import Flow, InformationGraph, graph_table, information_graph
from ..planning.planner import UniformPolicy
from ..planning.value import policy_table
from ..posterior.latents import Latents, as_latents
from ..program import Program, as_family, enumerate_worlds
from ..simulate.corpus import Corpus, sample_corpus
from ..world import Family, World
from .constants import Constants, instance
from .joint_law import joint_conditionals, uneven_behaviour
from .verdict import Outcome, TwinOutcome

FALSE_ALARM = 1e-4  # of a whole run
LARGEST_EXACT_BYTES = 2**29
_POSTERIORS = 2_000
_ENTRIES = 2 * 10**6  # of posteriors times histories times tasks, followed at once


class Subject:
    """A world under test; what several claims need of it is computed once.

    Attributes:
        name: as shown in the table.
        program: the world's program.
        key: every random choice of the checks follows from it.
    """

    def __init__(self, name: str, program: Family | Program, *, key: int = 0):
        self.name, self.program, self.key = name, program, key
        self._found: dict[Any, Any] = {}

    def once(self, compute: Callable[..., Any], *arguments: Any) -> Any:
        """``compute(self, *arguments)``, remembered: for what a check and its twins both need."""
        place = compute, arguments
        if place not in self._found:
            self._found[place] = compute(self, *arguments)
        return self._found[place]

    @cached_property
    def latents(self) -> Latents | None:
        """The latent sites of a program that has sites with a density; None where tasks are finite."""
        return as_latents(self.program)

    @cached_property
    def family(self) -> Family:
        """All tasks, in float64."""
        return as_family(self.program).astype(np.float64)

    @cached_property
    def experts(self) -> Experts:
        """The experts of every task."""
        return solve_experts(self.family)

    @cached_property
    def histories(self) -> Histories:
        """Every reachable history.

        Raises:
            TooLargeError: they do not fit.
        """
        return enumerate_histories(self.family, max_bytes=LARGEST_EXACT_BYTES)

    @cached_property
    def expert_table(self) -> list[np.ndarray]:
        """The expert subgoal of every task at every history, [n, W, Z] a layer."""
        return expert_table(self.histories, self.experts)

    @cached_property
    def evidence(self) -> list[np.ndarray]:
        """log L_z(tau) at every history by the evidence kernel, nats, [n, Z] a layer."""
        family, layers = self.family, self.histories.layers
        leaves = len(layers[-1].parent)
        observations = np.zeros((leaves, family.horizon), np.int32)
        subgoals = np.zeros((leaves, family.horizon - 1), np.int32)
        above = [np.arange(leaves)]
        for h in range(family.horizon - 1, -1, -1):
            observations[:, h] = layers[h].observation[above[-1]]
            if h:
                subgoals[:, h - 1] = layers[h].subgoal[above[-1]]
                above.append(layers[h].parent[above[-1]])
        prefixes = np.asarray(prefix_log_evidence(family, observations, subgoals))
        out = []
        for h, index in enumerate(above[::-1]):
            _, leaf = np.unique(index, return_index=True)
            out.append(prefixes[:, leaf, h].T)
        return out

    @cached_property
    def corpus(self) -> Corpus:
        """A few prompts of five episodes."""
        return sample_corpus(self.family, 32, 5, key=self.key, experts=self.experts)

    def corpus_law(self, strength: float) -> tuple[np.ndarray, np.ndarray]:
        """What the joint law says of the prompts of ``corpus``, if behaviour depends on the task by ``strength``.

        Returns:
            P_D(z | pt_h) at every decision, [B, N, H-1, Z], and the law of every observation, [B, N, H, O].
        """
        prompts = self.corpus.instructions, self.corpus.observations, self.corpus.subgoals
        behaviour = uneven_behaviour(self.family, strength, self.key)
        return joint_conditionals(self.family, *prompts, behaviour)

    @cached_property
    def worlds(self) -> list[World]:
        """The World of every task, as the program returned it; none if the subject is a family."""
        return [] if isinstance(self.program, Family) else enumerate_worlds(self.program)

    @cached_property
    def classes(self) -> TaskClasses:
        """The tasks of positive prior, equal ones merged."""
        return task_classes(self.family)

    @cached_property
    def graph(self) -> InformationGraph:
        """Its histories, merged.

        Raises:
            TooLargeError: they do not fit.
        """
        return information_graph(self.classes.family, max_bytes=LARGEST_EXACT_BYTES)

    @cached_property
    def graph_experts(self) -> GraphExperts:
        """The experts of every class on the graph."""
        return graph_experts(self.graph)

    @cached_property
    def design(self) -> Design:
        """The exploration policy of largest eta."""
        return design_exploration(self.classes.family)

    @cached_property
    def cheapest(self) -> Design:
        """The exploration policy of least loss per information."""
        return cheapest_exploration(self.classes.family)

    @cached_property
    def game(self) -> Game:
        """Information and loss of policies over the graph."""
        return Game(self.graph, self.graph_experts.value)

    @cached_property
    def explorers(self) -> dict[str, Explorer]:
        """The policies to explore with: uniform subgoals, and the best."""
        tables = {
            "uniform": graph_table(self.graph, UniformPolicy(self.family.num_subgoals)),
            "best": graph_table(self.graph, self.design.policy),
        }
        return {n: Explorer(n, t, instance(self.graph, t, experts=self.graph_experts)) for n, t in tables.items()}

    @cached_property
    def best_table(self) -> list[np.ndarray]:
        """The policy of largest eta at every history, asked step by step like any planner."""
        return policy_table(self.histories, self.design.policy)

    @cached_property
    def cheapest_table(self) -> list[np.ndarray]:
        """The cheapest policy at every history, likewise."""
        return policy_table(self.histories, self.cheapest.policy)

    def expected(
        self,
        planner: str | list[Flow],
        rule: Exploration,
        explorer: Explorer,
        *,
        remembers: Sequence[bool] | None = None,
        coin_per_step: bool = False,
        doubt: bool = False,
    ) -> ExpectedRegret:
        """Exact expected regret of as many episodes of ``rule`` as can be followed in about a second."""
        width = max(len(layer.node) for layer in self.graph.layers) * self.graph.family.num_tasks
        return posterior_recursion(
            self.graph,
            self.classes,
            planner,
            rule,
            explorer.table,
            experts=self.graph_experts,
            remembers=remembers,
            coin_per_step=coin_per_step,
            doubt=doubt,
            max_posteriors=max(1, min(_POSTERIORS, _ENTRIES // width)),
            truncate=True,
        )

    def why_nothing_to_explore(self) -> str | None:
        """Why no theorem about exploration applies, if none does."""
        if self.family.horizon == 1:
            return "H = 1: an episode has no decision"
        if len(self.classes.members) == 1:
            merged = f", as {' and '.join(self.classes.members[0])} are one class" if self.classes.merged else ""
            return f"there is nothing to learn{merged}"
        try:
            _ = self.graph
        except TooLargeError as error:
            return f"too large for the exact side: {error}"
        return None

    @cached_property
    def live(self) -> np.ndarray:
        """Tasks of positive prior."""
        return np.flatnonzero(np.asarray(self.family.task_prior) > 0)


@dataclass(frozen=True)
class Explorer:
    """An exploration policy under test.

    Attributes:
        name: "uniform" or "best".
        table: its probabilities on the graph, for every instruction.
        constants: what the bounds of the world at hand depend on.
    """

    name: str
    table: list[Flow]
    constants: Constants


@dataclass(frozen=True)
class Settings:
    """How hard to look.

    Attributes:
        full: the full profile, which takes longer.
        named: these claims and this one world were asked for by name, so that what takes minutes may be done.
        alpha: false-alarm probability that one statistical check may spend.
    """

    full: bool
    alpha: float
    named: bool = False


Check = Callable[[Subject, Settings], Outcome]
Twins = Callable[[Subject, Settings], list[TwinOutcome]]


@dataclass(frozen=True)
class Claim:
    """A statement, its check, and the false twins that the same check must reject.

    Attributes:
        id: its label on the theory page.
        title: a few words.
        statement: in full.
        assumptions: what it needs of the world at hand, each checked there; empty if nothing.
        status: "derived" (proved on the theory page), or "measured" (no theorem says how large it is).
        worlds: the least number of worlds that must support it; 1 if it is about one world.
        checks: the most statistical checks that it makes in a run, twins included; each gets its share of the
            probability of a false alarm.
        check: the evidence on one world.
        twins: the check where the claim must fail; called only where the claim applies.
        continuous: the check and the twins where tasks have a density; None where the claim does not carry over.
    """

    id: str
    title: str
    statement: str
    assumptions: tuple[str, ...]
    status: str
    worlds: int
    check: Check
    twins: Twins
    checks: int = 0
    continuous: tuple[Check, Twins] | None = None

    def on(self, subject: Subject) -> tuple[Check, Twins] | None:
        """The check and the twins that fit a world; None where the claim does not carry over to it."""
        return (self.check, self.twins) if subject.latents is None else self.continuous
