"""N1: with many tasks, executing BAIL alone has linear regret."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from ...planning.bail import BailPlanner, BailState
from ...planning.expert import solve_experts
from ...planning.planner import Episode
from ...program import enumerate_program
from ...simulate.regret import RegretCurves, simulate_regret
from ..claim import Claim, Settings, Subject
from ..closed_forms import forgetful_needle_regret, needle_regret
from ..figure import Curves, Figure, Series
from ..verdict import Outcome, TwinOutcome, all_of, closed_form, not_applicable

# (K, T, runs). At T = K the standard deviation is near 0.58 of the mean, at T = K/2 near 0.43 of it; so many runs give
# a half-width near 1.8 % at the error level of one check.
SIZES = ((16, 16, 28_000), (64, 32, 17_000))
FULL_SIZES = (*SIZES, (64, 64, 28_000), (256, 256, 28_000))
TWIN_SIZE = (64, 64, 4_000)  # the twin is 24 % off
FORGETS_EVERY = 4


class ForgetfulBail(BailPlanner):
    """BAIL that drops the evidence of every fourth episode."""

    def init(self, instruction: Any, key: Any) -> Any:
        return super().init(instruction, key), jnp.int32(0)

    def step(self, state: Any, observed: Any) -> Any:
        inner, probabilities = super().step(state[0], observed)
        return (inner, state[1]), probabilities

    def posterior(self, state: Any) -> Any:
        return super().posterior(state[0])

    def observe(self, state: Any, episode: Episode) -> Any:
        inner, t = state
        kept = super().observe(inner, episode)
        forget = t % FORGETS_EVERY == FORGETS_EVERY - 1
        log_weights = jnp.where(forget, inner.log_weights, kept.log_weights)
        return BailState(log_weights, kept.forward, kept.memory), t + 1


def _measure(
    subject: Subject, tasks: int, episodes: int, seeds: int, planner: type[BailPlanner] = BailPlanner
) -> RegretCurves:
    """Regret of T <= K episodes from the task in the middle; every task has the same, by symmetry."""
    program: Any = subject.program
    family = enumerate_program(functools.partial(program, tasks=tasks))
    experts = solve_experts(family)
    acting = planner(family, experts)
    return simulate_regret(family, tasks // 2, acting, 0.0, episodes, seeds, key=subject.key + tasks, experts=experts)


def _is_needle(subject: Subject) -> bool:
    return subject.name == "needle"


def check(subject: Subject, settings: Settings) -> Outcome:
    if not _is_needle(subject):
        return not_applicable("a statement about the needle")
    outcomes = []
    for tasks, episodes, seeds in FULL_SIZES if settings.full else SIZES:
        curves = _measure(subject, tasks, episodes, seeds)
        interval, predicted = curves.interval(alpha=settings.alpha), needle_regret(tasks, episodes)
        half = interval.half_width / interval.mean
        reason = f"K = {tasks}, T = {episodes}: {interval.mean:.2f} ± {half:.1%} for {predicted:g}, {seeds} runs"
        outcome = closed_form(interval, predicted, reason)
        outcomes.append(dataclasses.replace(outcome, figures=(_figure(tasks, curves),)))
    return all_of(outcomes)


def _figure(tasks: int, curves: RegretCurves) -> Figure:
    times = list(range(1, curves.regret.shape[1] + 1))
    return Curves(
        f"Regret of BAIL alone on the needle, K = {tasks}",
        "episodes T",
        "expected regret",
        [
            Series("BAIL, simulated", times, curves.cumulative.mean(axis=0).tolist()),
            Series("T - T(T+1)/(2K)", times, [needle_regret(tasks, t) for t in times], kind="bound"),
            Series("(T-1)/2", times, [(t - 1) / 2 for t in times], kind="reference"),
        ],
        log=True,
    )


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    tasks, episodes, _ = TWIN_SIZE
    remembers = [t % FORGETS_EVERY != FORGETS_EVERY - 1 for t in range(episodes)]
    truth, other = needle_regret(tasks, episodes), forgetful_needle_regret(tasks, episodes, remembers)
    interval = _measure(subject, *TWIN_SIZE, ForgetfulBail).interval(alpha=settings.alpha)
    # A mean that is off by two half-widths leaves an interval of this half-width with at most the level's probability.
    power = 1 - settings.alpha if abs(other - truth) > 2 * interval.half_width else 0.0
    return [
        TwinOutcome(
            "BAIL that forgets every fourth episode",
            f"regret {other:.2f} instead of {truth:g} ({other / truth - 1:+.1%})",
            not interval.contains(truth) and power >= 0.99,
            interval.mean,
            power,
        )
    ]


N1 = Claim(
    id="N1",
    title="BAIL alone has linear regret: the needle",
    statement=(
        "K tasks, uniform prior, H = 2: button k wins iff k is the task, and no expert ever reads the sign. BAIL "
        "eliminates one task per failure, so Reg_z(T) = T - T(T+1)/(2K) for T <= K; with K >= T it is at least (T-1)/2."
    ),
    assumptions=("the world is the needle, with K >= T tasks",),
    status="derived",
    worlds=1,
    check=check,
    twins=twins,
    checks=len(FULL_SIZES) + 1,
)
