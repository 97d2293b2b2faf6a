"""What it costs to act as a planner does: its regret, and the part of it that is due to not being Bayesian."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..planning.expert import Experts
from ..planning.planner import Planner
from ..simulate.corpus import PROMPT_BLOCK, sample_corpus
from ..simulate.regret import simulate_regret
from ..simulate.replay import replay
from ..statistics import total_variation
from ..world import Family
from .compare import normalised


@dataclass(frozen=True)
class Mean:
    """A mean of independent draws.

    Attributes:
        mean: of them.
        error: its standard error.
    """

    mean: float
    error: float

    @staticmethod
    def of(draws: Float[np.ndarray, " n"]) -> Mean:
        """The mean of draws [n]; the error is NaN for one draw."""
        error = draws.std(ddof=1) / math.sqrt(len(draws)) if len(draws) > 1 else math.nan
        return Mean(float(draws.mean()), float(error))


@dataclass(frozen=True)
class Cost:
    """What a planner loses in T episodes, without exploration, averaged over tasks by the prior; in units of reward.

    Attributes:
        regret: of the planner.
        bail: of BAIL, with the same random numbers.
        difference: of the two, run by run: what not being Bayesian costs (less than 0: it gains).
        error_term: what P1 adds to BAIL's bound: the sum over decisions of what can still be lost then times
            E TV(planner, BAIL), over the prompts that the planner itself meets. It does not bound the difference: a
            planner that errs little may still forgo what it would have learned.
        episodes: T.
        seeds: runs for each task.
    """

    regret: Mean
    bail: Mean
    difference: Mean
    error_term: Mean
    episodes: int
    seeds: int


def cost_of(planner: Planner, family: Family, experts: Experts, *, episodes: int, seeds: int, key: Any = 0) -> Cost:
    """Run a planner, and BAIL beside it.

    Args:
        planner: made by :func:`as_planner` for so many episodes.
        family: the worlds.
        experts: from :func:`solve_experts`.
        episodes: T.
        seeds: runs for each task of positive prior; and prompts met online, of which there are at least 32.
        key: a JAX key or an int.

    Raises:
        InvalidPlannerError: the planner returns no distribution somewhere.

    Source: theory.md, P1; the weight H-h is what rewards can still differ by on the world at hand.
    """
    prior = np.asarray(family.task_prior, np.float64)
    tasks = np.flatnonzero(prior > 0).tolist()

    def total(who: Any) -> np.ndarray:
        runs = [simulate_regret(family, z, who, 0.0, episodes, seeds, key=key, experts=experts) for z in tasks]
        return sum(prior[z] * r.cumulative[:, -1] for z, r in zip(tasks, runs, strict=True)) / prior[tasks].sum()

    own, best = total(planner), total("bail")
    met = sample_corpus(family, max(seeds, PROMPT_BLOCK), episodes, planner, key=key, experts=experts)
    q = normalised(replay(planner, family, met.instructions, met.observations, met.subgoals, key=key))
    apart = total_variation(q, met.bail) @ still_at_stake(family)
    return Cost(Mean.of(own), Mean.of(best), Mean.of(own - best), Mean.of(apart.sum(axis=1)), episodes, seeds)


def still_at_stake(family: Family) -> Float[np.ndarray, " Hm1"]:
    """What the rewards after each decision can differ by: at most H-h."""
    reward = np.asarray(family.reward, np.float64)
    spread = (reward.max(axis=1) - reward.min(axis=1)).max(axis=1)
    return np.cumsum(spread[:0:-1])[::-1]
