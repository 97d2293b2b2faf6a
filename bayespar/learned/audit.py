"""How Bayesian is a planner? Its distance from BAIL, what it behaves like instead, and what that costs.

The parts are in modules of their own: the distance in :mod:`compare`, what it behaves like in :mod:`ranking` and
:mod:`rivals`, what it makes of the evidence in :mod:`weights`, whether its probabilities come true in :mod:`labels`,
and its regret in :mod:`cost`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import precision_of
from ..errors import InvalidPlannerError, InvalidWorldError
from ..keys import check_key
from ..planning.expert import Experts, check_experts, solve_experts
from ..planning.planner import Planner, PromptPlanner, as_planner, check_shape
from ..program import Program, as_family
from ..simulate.corpus import sample_corpus
from ..simulate.regret import SEED_BLOCK
from ..simulate.replay import replay
from ..validation import check_count, check_fraction, check_limit, shown
from ..world import Family
from .compare import compare, normalised
from .cost import cost_of
from .labels import bet_on_labels
from .loading import named_planner
from .ranking import rank
from .result import Audit as Audit
from .rivals import RIVALS, Evidence, fit
from .text import of_text
from .weights import evidence_weights, with_errors
from .words import prior_in_words, words_of

_MOST_PROMPTS, _FEWEST_PROMPTS = 2048, 64
_ENTRIES = 2**22  # of a corpus's arrays: about as much as is drawn in a few seconds
_UNEXPLAINED = 0.1  # of the excess: what a rival may leave and still give its name
_RANKED_DECISIONS = 8192
_BET_PROMPTS = 1024
_RUNS = 256  # of all tasks together, in blocks of 16 seeds


def audit(
    planner: Any,
    family_or_program: Family | Program,
    *,
    prompts: int | None = None,
    episodes: int = 16,
    behaviour: Any = "uniform",
    key: Any = 0,
    budget: int | None = None,
    seeds: int | None = None,
    experts: Experts | None = None,
    text: bool = False,
    alpha: float = 1e-2,
    resolution: float = 1e-2,
    names: tuple[str, str] | None = None,
) -> Audit:
    """Ask a planner for its probabilities on prompts from P_D, and compare them with BAIL's.

    Args:
        planner: anything that :func:`as_planner` takes; with ``text``, a callable from the words of a prompt (see
            :func:`bayespar.learned.text.of_text`); or a name: of a shipped planner, or ``module:function``, or
            ``file.py:function`` (loading runs that code).
        family_or_program: a Family, or a finite program.
        prompts: how many; by default as many as a few seconds allow, up to 2048, and 64 for a callable.
        episodes: N, finished and unfinished ones of a prompt; every decision in them is asked.
        behaviour: what chose the subgoals in the prompts; see :func:`sample_corpus`.
        key: a JAX key or an int.
        budget: the most decisions that are asked; fewer prompts are drawn if need be. It does not count ``seeds``.
        seeds: runs for each task to measure regret; 0 for none; by default 16 to 64, and 0 for a callable,
            which would be called at each of their decisions.
        experts: from :func:`solve_experts`; solved here if not given.
        text: whether the planner reads words.
        alpha, resolution: see :class:`Audit`.
        names: of the planner and of the world, for the report.

    Raises:
        InvalidPlannerError: no planner, or what it returns is no distribution; or the budget is too small.
        InvalidWorldError: an episode has no decision.
        TooLargeError: so many prompts do not fit.
    """
    started = time.perf_counter()
    family = as_family(family_or_program).astype(np.float64)
    if family.horizon == 1:
        raise InvalidWorldError("H = 1: an episode has no decision, so a planner has nothing to do")
    check_count("episodes", episodes)
    check_fraction("alpha", alpha)
    check_limit("resolution", resolution, InvalidPlannerError)
    check_key(key)
    _check_words(text, names)
    experts = solve_experts(family) if experts is None else check_experts(experts, family)
    called = names or (planner if isinstance(planner, str) else _name_of(planner), "the world")
    chosen, failure = _prepared(planner, family, experts, text, episodes)
    asked = isinstance(chosen, PromptPlanner)
    B = _how_many(prompts, family, episodes, asked, budget)
    seeds = (0 if asked else _default_seeds(family)) if seeds is None else seeds
    if seeds != 0:
        check_count("seeds", seeds)

    corpus = sample_corpus(family, B, episodes, behaviour, key=key, experts=experts)
    q = normalised(replay(chosen, family, corpus.instructions, corpus.observations, corpus.subgoals, key=key))
    comparison = compare(q, corpus.bail, alpha=alpha)

    decisions = episodes * (family.horizon - 1)
    few = min(B, max(_RANKED_DECISIONS // decisions, _FEWEST_PROMPTS)) // 2 * 2
    bet = min(B, _BET_PROMPTS)
    data = Evidence.of(family, corpus.observations[:bet], corpus.subgoals[:bet], corpus.actions[:bet])
    some = data.at(slice(0, few))
    ranking = rank(some, q[:few], alpha=alpha / 4, key=key)
    martingale = bet_on_labels(data, q[:bet], corpus.labels[:bet], alpha=alpha / 4, key=key)
    cost = None
    if seeds:
        try:
            cost = cost_of(chosen, family, experts, episodes=episodes, seeds=seeds, key=key)
        except Exception:
            raise failure.error or InvalidPlannerError("the planner failed while it was run") from None

    surely_not = not ranking.row("bail").left and comparison.asked > resolution
    found = surely_not or comparison.excess.low > resolution
    name = ranking.name(max(resolution, comparison.excess.mean * _UNEXPLAINED)) if found else "bail"
    rival = next((r for r in RIVALS if r.name == name), None) if found else None
    knobs = () if rival is None else with_errors(rival, some, q[:few])
    prior = prior_in_words(family, fit(rival, some, q[:few])) if rival is not None and "tilt" in rival.free else ""
    finding, excess = words_of(comparison, ranking, name if found else None, found, knobs, resolution, prior)
    return Audit(
        finding=finding,
        found=found,
        name=name,
        excess_in_words=excess,
        comparison=comparison,
        ranking=ranking,
        weights=evidence_weights(some, q[:few]),
        knobs=knobs,
        labels=martingale,
        cost=cost,
        resolution=resolution,
        alpha=alpha,
        prompts=B,
        episodes=episodes,
        decisions=B * decisions,
        behaviour=behaviour if isinstance(behaviour, str) else _name_of(behaviour),
        notes=tuple(chosen.function.notes()) if isinstance(chosen, PromptPlanner) else (),
        planner=called[0],
        world=called[1],
        seconds=time.perf_counter() - started,
    )


def _check_words(text: Any, names: Any) -> None:
    """Raise for a ``text`` that is no bool, or ``names`` that are no two strings."""
    if not isinstance(text, bool):
        raise InvalidPlannerError(f"text = {shown(text)}; give True or False")
    if names is None:
        return
    if not isinstance(names, tuple) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise InvalidPlannerError(f"names = {shown(names)}; give those of the planner and of the world, or neither")


class _Failure:
    """The first error of a callable: inside traced code it would lose its type."""

    error: Exception | None = None


def _prepared(planner: Any, family: Family, experts: Experts, text: bool, episodes: int) -> tuple[Planner, _Failure]:
    failure = _Failure()
    if isinstance(planner, str):
        planner = named_planner(planner, family, experts)
    if text:
        if not callable(planner):
            raise InvalidPlannerError(f"{shown(planner)} cannot read words: give a callable, or leave out text")
        planner = of_text(planner, family)
    chosen = as_planner(planner, family, episodes=episodes)
    if isinstance(chosen, PromptPlanner):
        chosen = dataclasses.replace(chosen, function=_watched(chosen.function, failure))
    else:
        with precision_of(family):
            check_shape("planner", chosen, family)
    return chosen, failure


def _watched(function: Callable[..., Any], failure: _Failure) -> Callable[..., Any]:
    def call(prompt: Any) -> Any:
        try:
            return function(prompt)
        except Exception as error:
            failure.error = failure.error or error
            raise

    more: Any = call
    more.notes = getattr(function, "notes", tuple)
    if hasattr(function, "batch"):
        more.batch = function.batch  # pyright: ignore[reportFunctionMemberAccess]
    return call


def _how_many(prompts: int | None, family: Family, episodes: int, asked: bool, budget: int | None) -> int:
    decisions = episodes * (family.horizon - 1)
    each = family.num_subgoals + family.num_observations + 2 * family.num_tasks + 4
    fits = max(_FEWEST_PROMPTS, min(_MOST_PROMPTS, _ENTRIES // (decisions * each)))
    B = (_FEWEST_PROMPTS if asked else fits) if prompts is None else check_count("prompts", prompts)
    if budget is not None:
        B = min(B, check_count("budget", budget) // decisions)
    if B < 2:
        raise InvalidPlannerError(
            f"an audit needs 2 prompts or more, of {decisions} decisions each; "
            + ("ask for fewer episodes, or raise the budget" if budget is not None else "ask for more prompts")
        )
    return B


def _default_seeds(family: Family) -> int:
    tasks = int((np.asarray(family.task_prior) > 0).sum())
    return SEED_BLOCK * min(max(_RUNS // (SEED_BLOCK * tasks), 1), 4)


def _name_of(planner: Any) -> str:
    return getattr(planner, "__name__", None) or type(planner).__name__
