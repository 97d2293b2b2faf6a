"""P1 for a planner at hand: every term of its regret bound, measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InvalidPlannerError, TooLargeError
from ..learned.counts import PromptLaw
from ..planning.classes import TaskClasses, task_classes
from ..planning.design import as_exploration_policy
from ..planning.expert import Experts, solve_experts
from ..planning.graph_experts import GraphExperts, graph_experts
from ..planning.information import InformationGraph, graph_table, information_graph
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
        slack: what exploration + doubt + error leave above the regret, run by run.
        promised: E2's bound: what exploration and doubt are at most, without running anything.
        corpus: the error term by a corpus, or None.
        violations: runs that lose more in an episode than P1 allows, pathwise; none where the experts are exact.
        runs: the curves themselves.
    """

    regret: Interval
    exploration: Interval
    doubt: Interval
    error: Interval
    slack: Interval
    promised: float
    corpus: CorpusTerm | None
    violations: int
    runs: JudgedRuns

    @property
    def bound(self) -> float:
        """P1: E2's bound plus the planner's error, as measured."""
        return self.promised + self.error.mean

    @property
    def measured(self) -> float:
        """P1 with nothing promised: exploration + doubt + error."""
        return self.exploration.mean + self.doubt.mean + self.error.mean

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
    step_losses: Float[np.ndarray, " Hm1"] | None = None,
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
        step_losses: what each step can lose at most under this task, [H-1], from :func:`largest_step_losses`; H-h,
            which holds in every world, if not given.
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
    experts = solve_experts(family) if experts is None else experts
    runs = judge_planner(family, z, planner, exploration, episodes, seeds, explorer, key=key, experts=experts)
    T, weights = runs.regret.shape[1], np.arange(H - 1, 0, -1.0) if step_losses is None else step_losses
    most = max(float(weights.sum()), 1e-9)
    doubt, error = runs.weighed(runs.doubt, weights), runs.weighed(runs.error, weights)
    acting = np.where(runs.explored, 0.0, runs.regret)
    # An advantage lies between 0 and what a step can lose; a loss as it was realised may be a gain.
    low, high = (0.0, min(most, runs.bound)) if experts.gap == 0 else (-runs.bound, runs.bound)
    tolerance = 1e-6 if family.dtype == np.float64 else 1e-4  # a network answers in single precision
    classes = task_classes(family)
    own = constants_of(classes, explorer)
    label = int(classes.label[z])
    promised = float(epsilon_greedy(replace(own, cap=own.worst), runs.rule.coin)[label, -1])
    term = None
    if corpus is not None:
        prior = float(np.asarray(classes.family.task_prior, np.float64)[label])
        distance = distance_on(planner, family, corpus, T, key=key)
        term = corpus_term(distance, weights, 1 / prior if density is None else density, alpha)
    return PracticalTerms(
        total(runs.regret, low, high, alpha),
        total(runs.regret - acting, low, high, alpha),
        total(doubt, 0.0, most, alpha),
        total(error, 0.0, most, alpha),
        total(doubt + error - acting, -high, 2 * most - low, alpha),
        promised,
        term,
        int((acting > doubt + error + tolerance).any(axis=1).sum()),
        runs,
    )


def largest_step_losses(graph: InformationGraph, experts: GraphExperts | None = None) -> Float[np.ndarray, "C Hm1"]:
    """What each step can lose at most in the world at hand, whatever is done there: max Q*_z - min Q*_z <= H-h.

    Over all histories and instructions that are possible under task z.
    """
    experts = graph_experts(graph) if experts is None else experts
    out = np.zeros((graph.family.num_tasks, len(graph.layers)))
    for h, (scaled, likelihood) in enumerate(zip(experts.scaled, experts.likelihood, strict=False)):
        alive = likelihood > 0
        spread = (scaled.max(axis=1) - scaled.min(axis=1)) / np.where(alive, likelihood, 1)[..., None]
        out[:, h] = np.where(alive[..., None], spread, 0.0).max(axis=(0, 2))
    return out


def constants_of(classes: TaskClasses, explorer: Planner) -> Constants:
    """Those of the world at hand; those of the worst, with an estimated eta, where its histories do not fit."""
    try:
        graph = information_graph(classes.family)
        return instance(graph, graph_table(graph, explorer))
    except TooLargeError:
        prior = np.asarray(classes.family.task_prior, np.float64)
        return worst_case(classes.family.horizon, prior, max(0.0, estimate_eta(classes.family, explorer).low))


def distance_on(
    planner: Any, family: Family, corpus: Corpus, episodes: int, *, key: Any = 0
) -> Float[np.ndarray, "B T Hm1"]:
    """TV(q, BAIL) at every decision of the first T episodes of the prompts of a corpus.

    Raises:
        InvalidPlannerError: the prompts are shorter.
    """
    if corpus.labels.shape[1] < episodes:
        raise InvalidPlannerError(
            f"the prompts of the corpus have {corpus.labels.shape[1]} episodes, but T = {episodes}; draw longer ones"
        )
    prompts = corpus.instructions[:, :episodes], corpus.observations[:, :episodes], corpus.subgoals[:, :episodes]
    return total_variation(replay(planner, family, *prompts, key=key), corpus.bail[:, :episodes])


def corpus_term(
    distance: Float[np.ndarray, "B T Hm1"], weights: Float[np.ndarray, " Hm1"], density: float, alpha: float = 1e-3
) -> CorpusTerm:
    """The error term by the prompts of a corpus, whose steps weigh ``weights``."""
    each, most = distance @ weights, max(float(weights.sum()), 1e-9)
    found = total(each, 0.0, most, alpha)
    scaled = replace(found, mean=density * found.mean, low=density * found.low, high=density * found.high)
    milder = float((np.sqrt(density * (distance**2).mean(axis=0)) @ weights).sum())
    return CorpusTerm(density, scaled, milder, float(each.mean() / most), float(distance.mean()))


def counting_error(law: PromptLaw, prompts: float, weights: Float[np.ndarray, " Hm1"]) -> Float[np.ndarray, " T"]:
    """What sum_t sum_h w_h E_D TV of the count-based predictor is at most, for every horizon t and any size n.

    A prompt of probability P is missing with probability (1 - P)^n, and predicted uniformly then. Where it was met k
    times a frequency is off by sqrt(p (1-p) / k) at most (Cauchy and Schwarz), and 1/k <= 1/(k+1) + 3/((k+1)(k+2))
    with E 1/(k+1) <= 1 / ((n+1) P) and E 1/((k+1)(k+2)) <= 1 / ((n+1)(n+2) P^2).
    """
    n, mass, labels = prompts, law.mass, law.bail.shape[1]
    missing = (1 - mass) ** n
    met = np.minimum(2.0, 1 + 3 / ((n + 2) * mass)) / ((n + 1) * mass)
    spread = np.sqrt(law.bail * (1 - law.bail)).sum(axis=1) / 2
    unseen = total_variation(np.full(labels, 1 / labels), law.bail)
    each = mass * (missing * unseen + spread * np.sqrt(np.minimum(met, 1) * (1 - missing)))
    by_position = np.bincount(law.position, each, law.positions)
    return np.cumsum(by_position.reshape(-1, len(weights)) @ weights)


def corpus_needed(
    law: PromptLaw, coin: Float[np.ndarray, " T"], weights: Float[np.ndarray, " Hm1"], *, density: float = 1.0
) -> Float[np.ndarray, " T"]:
    """How large a corpus keeps P1's error term below what exploration may lose, for every horizon t up to T.

    For the count-based predictor, whose error :func:`counting_error` bounds: lambda times that is to be at most
    (H-1) sum_{i<=t} eps_i.

    Args:
        law: the prompts of T episodes, from :func:`prompt_law`.
        coin: probability of exploring in each episode, [T].
        weights: what each step can lose, [H-1]: H-h, or :func:`largest_step_losses`.
        density: lambda.

    Returns:
        n for each t, infinite where nothing was explored yet.
    """
    allowed = len(weights) * np.cumsum(coin)
    out = np.full(len(coin), np.inf)
    for t in np.flatnonzero(allowed > 0):
        low, high = 0.0, 1.0  # the logarithm of n
        while density * counting_error(law, np.exp(high), weights)[t] > allowed[t]:
            low, high = high, 2 * high
        for _ in range(40):
            middle = (low + high) / 2
            above = density * counting_error(law, np.exp(middle), weights)[t] > allowed[t]
            low, high = (middle, high) if above else (low, middle)
        out[t] = np.ceil(np.exp(high))
    return out


def size_needed(
    sizes: Float[np.ndarray, " K"], error: Float[np.ndarray, "K T"], allowed: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """The same, measured: at which size, of K increasing ones, the error term of a horizon falls to what is allowed.

    Between two sizes both are taken to be powers of one another. Infinite where the largest size does not do, and the
    smallest where that does.
    """
    out = np.full(error.shape[1], np.inf)
    for t, (column, limit) in enumerate(zip(error.T, allowed, strict=True)):
        fits = np.flatnonzero(column <= limit)
        if not len(fits):
            continue
        k = int(fits[0])
        out[t] = sizes[k]
        if k and column[k] > 0:
            share = np.log(column[k - 1] / limit) / np.log(column[k - 1] / column[k])
            out[t] = sizes[k - 1] * (sizes[k] / sizes[k - 1]) ** share
    return out


def total(by_episode: Float[np.ndarray, "n T"], low: float, high: float, alpha: float) -> Interval:
    """The mean over runs of a sum over episodes, each of which lies between ``low`` and ``high``."""
    totals, T = by_episode.sum(axis=1), by_episode.shape[1]
    sequence = MeanConfidence(low * T, high * T, alpha, plan=len(totals))
    for batch in np.array_split(totals, min(len(totals), 64)):
        sequence.update(batch)
    return sequence.interval()
