"""How often the statistical checks refute a function that is right: ``python -m bayespar.testing.false_alarms``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ..history import Prompt
from ..theory.verdict import Verdict
from ..world import Family
from .case import Case, Estimator, truth
from .checks import STATISTICAL
from .draws import Draws, Simulation
from .mutants.entries import kernel
from .oracle import Oracle
from .sequential import sequential_test

CHEAP = {"martingale": 10_000, "calibration": 10_000, "labels": 10_000, "ranks": 1_000, "geweke": 500}
"""Checks whose draws cost microseconds on a tiny world, and how often each is replicated."""


@dataclass(frozen=True)
class FalseAlarms:
    """How many replications of a check ended in each verdict, and the level that was stated.

    Attributes:
        check: its name.
        level: the stated false-alarm level.
        replications, refuted, supported: how many in all, and how many of them ended so.
        low, high: a 99 % confidence interval (Clopper-Pearson) for the rate of refutations.
    """

    check: str
    level: float
    replications: int
    refuted: int
    supported: int
    low: float
    high: float


class Tabulated(Simulation):
    """Every prompt of one unfinished episode of a tiny world, with its probability, drawn from a table."""

    def __init__(self, family: Family):
        super().__init__(family)
        oracle, H = Oracle(family), family.horizon
        self.atoms: list[tuple[int, Prompt]] = []
        self._evidence: dict[int, np.ndarray] = {}
        chances, decisions = [], []
        for h in range(1, H + 1):
            for observations, subgoals in oracle.histories(h):
                prompt = Prompt(current_observations=observations, current_subgoals=subgoals)
                for z in range(oracle.Z):
                    chance = oracle.prior[z] * oracle.likelihood(z, observations, subgoals) / oracle.G ** (h - 1)
                    if chance > 0:
                        self.atoms.append((z, prompt))
                        chances.append(chance / H)
                        decisions.append(chance / (H - 1) if h < H else 0.0)
        self.chances = {False: np.array(chances), True: np.array(decisions)}

    def log_evidence(self, prompt: Prompt) -> np.ndarray:
        """As :meth:`Simulation.log_evidence`, once for each prompt."""
        if id(prompt) not in self._evidence:
            self._evidence[id(prompt)] = super().log_evidence(prompt)
        return self._evidence[id(prompt)]

    def prompts(self, rng: np.random.Generator, count: int, *, episodes: int, decision: bool = False) -> Draws:
        """As :meth:`Simulation.prompts`, without finished episodes and with at least one observation."""
        drawn = [self.atoms[i] for i in rng.choice(len(self.atoms), size=count, p=self.chances[decision])]
        return Draws(np.array([z for z, _ in drawn]), [prompt for _, prompt in drawn])


def tiny_world() -> Family:
    """Two tasks, two states, H = 2, nothing symmetric."""
    return Family(
        [2 / 3, 1 / 3],
        [[1 / 2, 1 / 2], [1 / 4, 3 / 4]],
        [[[[1, 0], [1 / 2, 1 / 2]], [[0, 1], [1 / 3, 2 / 3]]], [[[1 / 2, 1 / 2], [0, 1]], [[1, 0], [1 / 5, 4 / 5]]]],
        [[[3 / 4, 1 / 4], [1 / 4, 3 / 4]], [[1 / 2, 1 / 2], [0, 1]]],
        [[0, 1 / 2], [1, 0]],
        horizon=2,
    )


def by_enumeration(role: str) -> Callable[..., Any]:
    """The enumeration oracle in a role, its answers kept by prompt."""
    kept: dict[int, tuple[Prompt, np.ndarray]] = {}

    def answer(family: Family, prompt: Prompt) -> np.ndarray:
        if id(prompt) not in kept:
            kept[id(prompt)] = prompt, truth(role, Case(family, prompt))
        return kept[id(prompt)][1]

    return answer


def subject_of(check: str) -> Any:
    """A right function for a statistical check."""
    if check == "geweke":
        return kernel()
    if check == "ranks":
        exact = by_enumeration("posterior")

        def draw(family: Family, prompt: Prompt, draws: int, *, key: int) -> np.ndarray:
            ends = np.cumsum(exact(family, prompt))
            return (np.random.default_rng(key).random((draws, 1)) * ends[-1] >= ends).sum(axis=1)

        return draw
    role = "planner" if check == "labels" else "posterior"
    return Estimator(role, by_enumeration(role))


def false_alarms(
    check: str, replications: int, *, subject: Any = None, level: float = 0.05, resolution: float = 0.5, key: int = 0
) -> FalseAlarms:
    """Run a statistical check many times over on a function that is right (or on ``subject``)."""
    statistics = next(c.statistics for c in STATISTICAL if c.name == check)
    subject = subject_of(check) if subject is None else subject
    world, rng = Tabulated(tiny_world()), np.random.default_rng(key)
    verdicts = [
        sequential_test(lambda n: statistics(subject, world, rng, n), alpha=level, resolution=resolution).verdict
        for _ in range(replications)
    ]
    refuted = verdicts.count(Verdict.REFUTED)
    ends = binomtest(refuted, replications).proportion_ci(0.99)
    supported = verdicts.count(Verdict.SUPPORTED)
    return FalseAlarms(check, level, replications, refuted, supported, ends.low, ends.high)


def table(found: Sequence[FalseAlarms]) -> str:
    """The rates as a table in Markdown."""
    lines = ["| check | level | replications | refuted | supported | rate, 99 % interval |", "|---" * 6 + "|"]
    for f in found:
        lines.append(
            f"| {f.check} | {f.level:g} | {f.replications:,} | {f.refuted:,} | {f.supported:,} | "
            f"{f.low:.4f} to {f.high:.4f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Print the table; 1 if a rate is above its level for sure."""
    found = [false_alarms(check, count) for check, count in CHEAP.items()]
    print(table(found))
    return int(any(f.low > f.level for f in found))


if __name__ == "__main__":
    sys.exit(main())
