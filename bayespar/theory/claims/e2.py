"""E2: epsilon-greedy exploration, by any schedule of coins, bounds the regret."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...planning.expert import solve_experts
from ...planning.exploration import Exploration, anytime_epsilon, by_coin, constant_epsilon, explore_first
from ...planning.planner import FunctionPlanner
from ...program import enumerate_program
from ...simulate.regret import RegretCurves, simulate_regret
from ..bounds import epsilon_greedy
from ..claim import Claim, Settings, Subject
from ..constants import Constants, worst_case
from ..figure import Curves, Figure, Series
from ..verdict import Outcome, TwinOutcome, all_of, below, inequality, not_applicable

EPISODES = 64
SIZES, FULL_SIZES = (32, 64), (32, 64, 128, 256, 512, 1024)
SEEDS = 2_000
# A run may lose anything from 0 to T: a bound that is a few percent away needs this many runs for each episode.
SEEDS_AN_EPISODE = 40
FORGETFUL = 4 ** np.arange(3, 11)  # episodes after which a twin is looked at


def schedules(constants: Constants, episodes: int) -> dict[str, Exploration]:
    """The three schedules of the theorem."""
    odds, eta = constants.odds, constants.least_eta
    return {
        "constant": constant_epsilon(odds, eta, episodes),
        "anytime": anytime_epsilon(odds, eta, episodes),
        "explore-first": explore_first(odds, eta, episodes),
    }


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = subject.why_nothing_to_explore()
    if reason:
        return not_applicable(reason)
    said = f"exact regret / bound, four schedules, two policies, every task, up to {EPISODES} episodes"
    outcomes = [against_bounds(subject, coin_rules, lambda constants, rule: epsilon_greedy(constants, rule.coin), said)]
    if subject.name == "needle":
        outcomes += [_needle(subject, tasks, settings) for tasks in (FULL_SIZES if settings.full else SIZES)]
    return all_of(outcomes)


def coin_rules(constants: Constants) -> list[Exploration]:
    """The three schedules, and one exploring episode."""
    return [*schedules(constants, EPISODES).values(), by_coin((np.arange(EPISODES) < 1).astype(float))]


def against_bounds(
    subject: Subject,
    rules: Callable[[Constants], Sequence[Exploration]],
    bound: Callable[[Constants, Exploration], np.ndarray],
    said: str,
    *,
    planner: str = "bail",
    trivial: Callable[[Constants], np.ndarray] = lambda constants: constants.trivial,
) -> Outcome:
    """Exact expected regret of as many episodes as posteriors can be followed, by both policies and both constants."""
    values, bounds, most = [], [], []
    for explorer in subject.explorers.values():
        own = explorer.constants
        if own.least_eta <= 0:
            continue
        for rule in rules(own):
            regret = subject.expected(planner, rule, explorer).cumulative
            T = regret.shape[1]
            for constants in (own, worst_case(own.horizon, own.prior, own.least_eta)):
                values.append(regret.ravel())
                bounds.append(bound(constants, rule)[:, :T].ravel())
                most.append(np.outer(trivial(constants), np.arange(1, T + 1)).ravel())
    return inequality(np.concatenate(values), np.concatenate(bounds), np.concatenate(most), said)


@functools.cache  # one object, for which the loop is compiled once
def reading(tasks: int, accuracy: float = 0.5) -> tuple[FunctionPlanner, float]:
    """Always read the sign of the needle, and its eta: 1 - [2 sqrt(a b) + (K-2) b], a = q + b, b = (1-q)/K."""

    def start(instruction: Any, key: Any) -> Any:
        return ()

    def step(state: Any, observed: Any) -> Any:
        return state, np.eye(tasks + 1)[tasks]

    b = (1 - accuracy) / tasks
    a = accuracy + b
    return FunctionPlanner(start, step), float((np.sqrt(a) - np.sqrt(b)) ** 2)


def simulate_needle(subject: Subject, tasks: int, rule: Exploration, seeds: int) -> RegretCurves:
    """BAIL on the needle of K tasks, exploring by reading the sign; by symmetry every task has the same regret."""
    program: Any = subject.program
    family = enumerate_program(functools.partial(program, tasks=tasks))
    explorer, _ = reading(tasks)
    experts = solve_experts(family)
    key = subject.key + tasks
    return simulate_regret(family, tasks // 2, "bail", rule, len(rule.coin), seeds, explorer, key=key, experts=experts)


def _needle(subject: Subject, tasks: int, settings: Settings) -> Outcome:
    """K = T, simulated: a constant epsilon, and exploring first."""
    constants = worst_case(2, np.full(tasks, 1 / tasks), reading(tasks)[1])
    rules = schedules(constants, tasks)
    outcomes, series = [], []
    times = list(range(1, tasks + 1))
    for name in ("constant", "explore-first"):
        rule = rules[name]
        seeds = SEEDS if name == "constant" else max(SEEDS, SEEDS_AN_EPISODE * tasks)
        curves = simulate_needle(subject, tasks, rule, seeds)
        interval = curves.interval(alpha=settings.alpha)
        bound = epsilon_greedy(constants, rule.coin)[0]
        said = (
            f"needle, K = T = {tasks}, {name}: {interval.mean:.2f} ± {interval.half_width / interval.mean:.1%}, "
            f"bound / regret {bound[-1] / interval.mean:.2f}"
        )
        outcomes.append(below(interval, float(bound[-1]), float(tasks), said))
        series.append(Series(name, times, curves.cumulative.mean(axis=0).tolist()))
        series.append(Series(f"{name}, bound", times, bound.tolist(), kind="bound"))
    figure: Figure = Curves(
        f"Regret on the needle, K = T = {tasks}, exploring by reading the sign",
        "episodes",
        "expected regret",
        [*series, Series("at most", times, [float(t) for t in times], kind="reference")],
        log=True,
    )
    merged = all_of(outcomes)
    return Outcome(**{**merged.__dict__, "figures": (figure,)})


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    explorer = subject.explorers["best"]
    own = explorer.constants
    loss = subject.expected("bail", by_coin(np.zeros(1)), explorer).regret[:, 0]
    if loss.max() <= 1e-9:
        return []  # BAIL loses nothing before it has seen anything
    for T in FORGETFUL.tolist():
        coin = explore_first(own.odds, own.least_eta, T).coin
        regret = coin.sum() * own.loss + (1 - coin).sum() * loss  # what is forgotten is lost anew in every episode
        bound = epsilon_greedy(own, coin)[:, -1]
        worst = int(np.argmax(regret - bound))
        if regret[worst] > bound[worst] + 1e-9:
            break
    effect = f"explore-first, T = {T}: regret {regret[worst]:.4g}, bound {bound[worst]:.4g}"
    rejected = bool(regret[worst] > bound[worst] + 1e-9)
    return [TwinOutcome("a BAIL that forgets finished episodes", effect, rejected, float(regret[worst]), 1.0)]


E2 = Claim(
    id="E2",
    title="exploring by a coin makes the regret sublinear",
    statement=(
        "Reg_z(T) <= (H-1) sum_t [eps_t + (1-eps_t) min(1, (H/4) S_t)]. A constant epsilon and eps_t ~ 1/sqrt(t) give "
        "O(H^{3/2} sqrt(T log(1+C)/eta)); exploring in the first n0 = ceil(log(H C T/4) / -log(1-eta)) episodes gives "
        "(H-1)(n0+1): logarithmic. On the world at hand H-1 becomes the loss of its exploration policy, and H-h the "
        "largest advantage that another task's expert can give away."
    ),
    assumptions=(
        "one coin an episode, independent of everything else",
        "the exploration policy does not depend on the past",
        "two tasks or more, after merging equal ones",
        "a bound below its trivial value",
    ),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
    checks=2 * len(FULL_SIZES),
)
