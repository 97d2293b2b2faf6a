"""N2: with two tasks and a long horizon, executing BAIL alone has linear regret."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from ...planning.design import design_exploration
from ...planning.expected_regret import expected_regret
from ...program import enumerate_program
from ...simulate.regret import simulate_regret
from ...world import Family
from ..claim import Claim, Settings, Subject
from ..closed_forms import lock_regret
from ..figure import Curves, Series
from ..verdict import Outcome, TwinOutcome, all_of, closed_form, identity, not_applicable

SIZES = (32, 128, 512)
SIMULATED = SIZES  # in the full profile: what is exact at every T does not need it
SEEDS = 60_000
TOLERANCE = 1e-10  # relative; T <= 512 episodes, each to a few roundings


def word_length(episodes: int) -> int:
    """The length of words that makes T episodes too few: ceil(log2 T) + 1."""
    return math.ceil(math.log2(episodes)) + 1


def _lock(subject: Subject, episodes: int) -> Family:
    program: Any = subject.program
    return enumerate_program(functools.partial(program, length=word_length(episodes)))


def _exact(family: Family, episodes: int, planner: str = "bail") -> np.ndarray:
    """Expected regret after each episode, the larger of both tasks."""
    return expected_regret(family, planner, 0.0, episodes).cumulative.max(axis=0)


def _ties_on_a_letter(family: Family) -> Family:
    """The same lock with ``idle`` last in the list, so that ties fall on a letter of one of the words."""
    order = [1, 2, 0]
    return Family(
        family.task_prior,
        family.initial,
        family.dense_transition()[:, :, order],
        family.emission,
        family.reward,
        horizon=family.horizon,
        tasks=family.tasks,
        subgoals=[family.subgoals[g] for g in order],
    )


def check(subject: Subject, settings: Settings) -> Outcome:
    if subject.name != "lock":
        return not_applicable("a statement about the lock")
    error, slack, thompson, eta = 0.0, math.inf, 0.0, 1.0
    exact: dict[int, np.ndarray] = {}
    for T in SIZES:
        family = _lock(subject, T)
        exact[T] = _exact(family, T)
        predicted = np.array([lock_regret(word_length(T), t) for t in range(1, T + 1)])
        error = max(error, float(np.abs(exact[T] / predicted - 1).max()))
        slack = min(slack, float(exact[T][-1] / ((1 - math.exp(-1)) * (T - 0.5))))
        thompson = max(thompson, abs(float(_exact(family, T, "thompson")[-1]) - 0.5))
        eta = min(eta, design_exploration(family).eta)
    lawful = slack >= 1 and thompson <= TOLERANCE and abs(eta - 1) <= TOLERANCE
    T = SIZES[-1]
    outcomes = [
        identity(
            error if lawful else math.inf,
            TOLERANCE,
            f"relative error of the exact regret at every T up to {T}; at least {slack:.3f} times (1 - 1/e)(T - 1/2); "
            "Thompson sampling 1/2; eta* = 1",
        )
    ]
    for T in SIMULATED if settings.full else ():
        family = _lock(subject, T)
        curves = simulate_regret(family, 0, "bail", 0.0, T, SEEDS, key=subject.key + T)
        interval = curves.interval(alpha=settings.alpha)
        predicted = lock_regret(word_length(T), T)
        half = interval.half_width / interval.mean
        told = f"simulated at T = {T}: {interval.mean:.2f} ± {half:.1%} for {predicted:.2f}, {SEEDS} runs"
        outcomes.append(closed_form(interval, predicted, told))
    return all_of([_with_figure(outcomes[0], exact), *outcomes[1:]])


def _with_figure(outcome: Outcome, exact: dict[int, np.ndarray]) -> Outcome:
    series = [
        Series(f"BAIL, words of {word_length(T)} letters", list(range(1, T + 1)), r.tolist()) for T, r in exact.items()
    ]
    T = SIZES[-1]
    least = [(1 - math.exp(-1)) * (t - 0.5) for t in range(1, T + 1)]
    series += [
        Series("(1 - 1/e)(T - 1/2)", list(range(1, T + 1)), least, kind="bound"),
        Series("Thompson sampling", [1, T], [0.5, 0.5], kind="reference"),
    ]
    note = "Each curve flattens in the end (N3); a word long enough keeps it linear up to any T."
    figure = Curves("Regret of BAIL alone on the lock", "episodes T", "expected regret", series, log=True, note=note)
    return Outcome(**{**outcome.__dict__, "figures": (figure,)})


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    T = SIZES[0]
    wrong = _ties_on_a_letter(_lock(subject, T))
    regret, predicted = float(_exact(wrong, T)[-1]), lock_regret(word_length(T), T)
    return [
        TwinOutcome(
            "ties fall on a letter of the other word",
            f"regret {regret:.3g} instead of {predicted:.3g} at T = {T}",
            abs(regret / predicted - 1) > TOLERANCE,
            regret,
            1.0,
        ),
        TwinOutcome(
            "Thompson sampling has linear regret too",
            "one task an episode instead of one a step",
            abs(float(_exact(_lock(subject, T), T, "thompson")[-1]) / predicted - 1) > TOLERANCE,
            0.5,
            1.0,
        ),
    ]


N2 = Claim(
    id="N2",
    title="BAIL alone has linear regret: the lock",
    statement=(
        "Two code words of L letters that differ everywhere, ties on idle: BAIL mixes at every step, so it completes a "
        "word with probability p = 2^-(L-1), and Reg_z(T) = (1 - p/2) sum_{n<T} (1-p)^n. With L = ceil(log2 T) + 1 it "
        "is at least (1 - 1/e)(T - 1/2) for every T. Thompson sampling has regret 1/2, and one word played to its end "
        "has eta = 1."
    ),
    assumptions=("the world is the lock, with words of L = ceil(log2 T) + 1 letters",),
    status="derived",
    worlds=1,
    check=check,
    twins=twins,
    checks=len(SIMULATED),
)
