"""P1 for a planner at hand: every term of its regret bound, measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InvalidPlannerError, TooLargeError
from ..planning.classes import TaskClasses, task_classes
from ..planning.design import as_exploration_policy
from ..planning.expert import Experts
from ..planning.information import graph_table, information_graph
from ..planning.planner import Planner
from ..program import Program, as_family
from ..simulate.corpus import Corpus
from ..simulate.practical import JudgedRuns, judge_planner
from ..simulate.replay import replay
from ..simulate.separation import estimate_eta
from ..statistics import Interval, MeanConfidence, total_variation
from ..validation import check_fraction
from ..world import Family
from .bounds import epsilon_greedy
from .constants import Constants, instance, worst_case


@dataclass(frozen=True)
class CorpusTerm:
    """What P1's error term is at most, judged by a corpus.

    Attributes:
        density: lambda, by which the prompts met online may be denser than those of the corpus.
        error: lambda sum_t sum_h (H-h) E_D TV.
        milder: sum_t sum_h (H-h) sqrt(lambda E_D TV^2), by Cauchy and Schwarz; an estimate.
        mean: E_D TV, positions weighted by H-h.
        plain: E_D TV, a plain mean over positions, which bounds nothing.
    """

    density: float
    error: Interval
    milder: float
    mean: float
    plain: float


@dataclass(frozen=True)
class PracticalTerms:
    """The regret of a planner under one task, and what bounds it; intervals are valid at any time.

    Attributes:
        regret: Reg_z(T).
        exploration: what exploring episodes lost.
        doubt: sum over the other episodes of sum_h (H-h) E[1 - P(z | pt_h)].
        error: likewise of E TV(q, BAIL), over the prompts that the planner met.
        promised: E2's bound: what exploration and doubt are at most, without running anything.
        corpus: the error term by a corpus, or None.
        violations: runs that lose more in an episode than P1 allows, pathwise; none where the experts are exact.
        runs: the curves themselves.
    """

    regret: Interval
    exploration: Interval
    doubt: Interval
    error: Interval
    promised: float
    corpus: CorpusTerm | None
    violations: int
    runs: JudgedRuns

    @property
    def bound(self) -> float:
        """P1: E2's bound plus the planner's error, as measured."""
        return self.promised + self.error.mean

    @property
    def holds(self) -> bool:
        """Whether the regret may lie below its bound, given the errors of both, and no run breaks it."""
        return self.violations == 0 and self.regret.low <= self.promised + self.error.high


def practical_terms(
    planner: Any,
    family_or_program: Family | Program,
    task: int | str,
    *,
    exploration: Any = "constant",
    episodes: int = 32,
    seeds: int = 256,
    exploration_policy: Any = "uniform",
    corpus: Corpus | None = None,
    density: float | None = None,
    alpha: float = 1e-3,
    key: Any = 0,
    experts: Experts | None = None,
) -> PracticalTerms:
    """Run a planner and measure every term of P1.

    Args:
        planner: anything that :func:`as_planner` takes, a trained network for one.
        family_or_program: a Family, or a finite program.
        task: the true task, an index or a name.
        exploration: epsilon, a schedule [T], or a rule of E2 by name: coins only.
        episodes: T.
        seeds: independent runs.
        exploration_policy: as for :func:`simulate_regret`.
        corpus: prompts of at least T episodes, to judge the planner's error by.
        density: lambda. By default 1 / P_Z(z), which is right if the corpus was drawn with the online behaviour: the
            planner with its coins (see :class:`Exploring`). For a corpus of any other it is not.
        alpha: error level of each interval.
        key: a JAX key or an int.
        experts: from :func:`solve_experts`; solved here if not given.

    Raises:
        InvalidPlannerError: as :func:`simulate_regret`; a gate; or a corpus of shorter prompts.
        InvalidWorldError: no such task, or its prior is 0.

    Source: theory.md, P1.
    """
    check_fraction("alpha", alpha)
    family = as_family(family_or_program)
    z, H = family.task_index(task), family.horizon
    explorer = as_exploration_policy(exploration_policy, family, episodes=episodes)
    runs = judge_planner(family, z, planner, exploration, episodes, seeds, explorer, key=key, experts=experts)
    T, most = runs.regret.shape[1], max(H * (H - 1) / 2, 1e-9)
    acting, allowed = np.where(runs.explored, 0.0, runs.regret), runs.weighed(runs.doubt) + runs.weighed(runs.error)
    slack = 1e-6 if family.dtype == np.float64 else 1e-4  # a network answers in single precision
    classes = task_classes(family)
    own = constants_of(classes, explorer)
    label = int(classes.label[z])
    promised = float(epsilon_greedy(replace(own, cap=own.worst), runs.rule.coin)[label, -1])
    term = None
    if corpus is not None:
        prior = float(np.asarray(classes.family.task_prior, np.float64)[label])
        term = corpus_term(planner, family, corpus, 1 / prior if density is None else density, T, alpha, key=key)
    return PracticalTerms(
        _total(runs.regret, runs.bound, alpha),
        _total(np.where(runs.explored, runs.regret, 0.0), runs.bound, alpha),
        _total(runs.weighed(runs.doubt), most, alpha),
        _total(runs.weighed(runs.error), most, alpha),
        promised,
        term,
        int((acting > allowed + slack).any(axis=1).sum()),
        runs,
    )


def constants_of(classes: TaskClasses, explorer: Planner) -> Constants:
    """Those of the world at hand; those of the worst, with an estimated eta, where its histories do not fit."""
    try:
        graph = information_graph(classes.family)
        return instance(graph, graph_table(graph, explorer))
    except TooLargeError:
        prior = np.asarray(classes.family.task_prior, np.float64)
        return worst_case(classes.family.horizon, prior, max(0.0, estimate_eta(classes.family, explorer).low))


def corpus_term(
    planner: Any, family: Family, corpus: Corpus, density: float, episodes: int, alpha: float = 1e-3, *, key: Any = 0
) -> CorpusTerm:
    """The planner's error on the first T episodes of the prompts of a corpus.

    Raises:
        InvalidPlannerError: the prompts are shorter.
    """
    if corpus.labels.shape[1] < episodes:
        raise InvalidPlannerError(
            f"the prompts of the corpus have {corpus.labels.shape[1]} episodes, but T = {episodes}; draw longer ones"
        )
    prompts = corpus.instructions[:, :episodes], corpus.observations[:, :episodes], corpus.subgoals[:, :episodes]
    distance = total_variation(replay(planner, family, *prompts, key=key), corpus.bail[:, :episodes])  # [B, T, H-1]
    weights = np.arange(distance.shape[2], 0, -1.0)
    each, most = distance @ weights, max(float(weights.sum()), 1e-9)
    total = _total(each, most, alpha)
    scaled = replace(total, mean=density * total.mean, low=density * total.low, high=density * total.high)
    milder = float((np.sqrt(density * (distance**2).mean(axis=0)) @ weights).sum())
    return CorpusTerm(density, scaled, milder, float(each.mean() / most), float(distance.mean()))


def corpus_needed(
    constant: float, horizon: int, coin: Float[np.ndarray, " T"], *, density: float = 1.0
) -> Float[np.ndarray, " T"]:
    """How large a corpus keeps P1's error term below what exploration may lose, for every horizon t up to T.

    For a predictor with E_D TV ~ constant n^{-1/2}, as the count-based one:
    (H(H-1)/2) t lambda constant n^{-1/2} <= (H-1) sum_{i<=t} eps_i.

    Returns:
        n for each t, infinite where nothing was explored yet.
    """
    t = np.arange(1, len(coin) + 1)
    explored = np.cumsum(coin)
    with np.errstate(divide="ignore"):
        return (horizon / 2 * t * density * constant / explored) ** 2


def _total(by_episode: Float[np.ndarray, "n T"], most: float, alpha: float) -> Interval:
    """The mean over runs of the sum over episodes, each between 0 and ``most`` (or below 0, by no more)."""
    T, low = by_episode.shape[1], 0.0 if by_episode.min(initial=0.0) >= 0 else -most * by_episode.shape[1]
    totals = by_episode.sum(axis=1)
    sequence = MeanConfidence(low, most * T, alpha, plan=len(totals))
    for batch in np.array_split(totals, min(len(totals), 64)):
        sequence.update(batch)
    return sequence.interval()
