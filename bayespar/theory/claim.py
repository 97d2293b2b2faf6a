"""What a claim is, and what it is checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..evidence import prefix_log_evidence
from ..planning.bail import expert_table
from ..planning.expert import Experts, solve_experts
from ..planning.histories import Histories, enumerate_histories
from ..program import Program, as_family
from ..simulate.corpus import Corpus, sample_corpus
from ..world import Family
from .verdict import Outcome, TwinOutcome

FALSE_ALARM = 1e-4  # of a whole run
LARGEST_EXACT_BYTES = 2**29


class Subject:
    """A world under test; what several claims need of it is computed once.

    Attributes:
        name: as shown in the table.
        program: the world's program.
        key: every random choice of the checks follows from it.
    """

    def __init__(self, name: str, program: Family | Program, *, key: int = 0):
        self.name, self.program, self.key = name, program, key

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

    @cached_property
    def live(self) -> np.ndarray:
        """Tasks of positive prior."""
        return np.flatnonzero(np.asarray(self.family.task_prior) > 0)


@dataclass(frozen=True)
class Settings:
    """How hard to look.

    Attributes:
        full: the full profile, which takes longer.
        alpha: false-alarm probability that one statistical check may spend.
    """

    full: bool
    alpha: float


@dataclass(frozen=True)
class Claim:
    """A statement, its check, and the false twins that the same check must reject.

    Attributes:
        id: its label on the theory page.
        title: a few words.
        statement: in full.
        assumptions: what it needs of the world at hand, each checked there; empty if nothing.
        status: "derived" (proved on the theory page).
        worlds: the least number of worlds that must support it; 1 if it is about one world.
        check: the evidence on one world.
        twins: the check where the claim must fail; called only where the claim applies.
    """

    id: str
    title: str
    statement: str
    assumptions: tuple[str, ...]
    status: str
    worlds: int
    check: Callable[[Subject, Settings], Outcome]
    twins: Callable[[Subject, Settings], list[TwinOutcome]]
