"""E3: exploring only while the posterior is undecided."""

from __future__ import annotations

import numpy as np

from ...planning.exploration import Exploration, gated, gated_anytime
from ..bounds import gated_closed_form, gated_regret
from ..claim import Claim, Settings, Subject
from ..constants import Constants, worst_case
from ..figure import Curves, Figure, Series
from ..verdict import Outcome, TwinOutcome, all_of, below, not_applicable
from .e2 import FORGETFUL, against_bounds, reading, simulate_needle

EPISODES = 64
SIZE, FULL_SIZE = (32, 512), (256, 4096)  # tasks and episodes of the needle
# A run may lose anything from 0 to T, and rare long ones cannot be ruled out with fewer runs.
SEEDS, FULL_SEEDS = 3_000, 20_000


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = subject.why_nothing_to_explore()
    if reason:
        return not_applicable(reason)
    said = f"exact regret / bound, both gates, two policies, every task, up to {EPISODES} episodes"
    outcomes = [against_bounds(subject, _rules, lambda constants, rule: gated_regret(constants, rule.gate), said)]
    if subject.name == "needle":
        size, seeds = (FULL_SIZE, FULL_SEEDS) if settings.full else (SIZE, SEEDS)
        outcomes.append(_needle(subject, *size, seeds, settings))
    return all_of(outcomes)


def _rules(constants: Constants) -> list[Exploration]:
    """Both gates."""
    return [gated(constants.odds, EPISODES), gated_anytime(constants.odds, EPISODES)]


def _needle(subject: Subject, tasks: int, episodes: int, seeds: int, settings: Settings) -> Outcome:
    constants = worst_case(2, np.full(tasks, 1 / tasks), reading(tasks)[1])
    rules: dict[str, Exploration] = {
        "gated": gated(constants.odds, episodes),
        "gated, anytime": gated_anytime(constants.odds, episodes),
    }
    times = list(range(1, episodes + 1))
    outcomes, series, paths = [], [], []
    for name, rule in rules.items():
        curves = simulate_needle(subject, tasks, rule, seeds)
        interval = curves.interval(alpha=settings.alpha)
        bound = gated_regret(constants, rule.gate)[0]
        said = (
            f"needle, K = {tasks}, T = {episodes}, {name}: {interval.mean:.2f}, at most {interval.high:.2f}, bound "
            f"{bound[-1]:.2f}"
        )
        if name == "gated":
            said += f" (in closed form {gated_closed_form(constants, episodes)[0]:.1f})"
        outcomes.append(below(interval, float(bound[-1]), float(episodes), said))
        series.append(Series(name, times, curves.cumulative.mean(axis=0).tolist()))
        series.append(Series(f"{name}, bound", times, bound.tolist(), kind="bound"))
        if name == "gated":
            first = curves.true_task[:, :32]
            low, middle, high = np.quantile(first, [0.1, 0.5, 0.9], axis=0)
            paths += [
                Series("median, and 80 % of runs", times[:32], middle.tolist(), low.tolist(), high.tolist()),
                *(Series(f"run {n}", times[:32], first[n].tolist(), kind="reference") for n in (1, 2, 3)),
            ]
    figures: tuple[Figure, ...] = (
        Curves(
            f"Regret on the needle, K = {tasks}, exploring while undecided",
            "episodes",
            "expected regret",
            [*series, Series("at most", times, [float(t) for t in times], kind="reference")],
            log=True,
        ),
        Curves(f"Posterior of the true task, needle, K = {tasks}", "episode", "P(z | past)", paths),
    )
    merged = all_of(outcomes)
    return Outcome(**{**merged.__dict__, "figures": figures})


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    explorer = subject.explorers["best"]
    own = explorer.constants
    if own.loss.max() <= 1e-9:
        return []  # exploring costs nothing
    for T in FORGETFUL.tolist():
        gate = gated(own.odds, T).gate
        # A posterior that forgets stays at the prior: if its gate is open, every episode explores.
        regret, bound = T * own.loss, gated_regret(own, gate)[:, -1]
        worst = int(np.argmax(regret - bound))
        rejected = bool(1 - own.prior.max() > gate[0] and regret[worst] > bound[worst] + 1e-9)
        if rejected:
            break
    effect = f"T = {T}: regret {regret[worst]:.4g}, bound {bound[worst]:.4g}"
    name = "a gate on a posterior that forgets finished episodes"
    return [TwinOutcome(name, effect, rejected, float(regret[worst]), 1.0)]


E3 = Claim(
    id="E3",
    title="exploring while undecided: eta need not be known",
    statement=(
        "Explore in episode t iff 1 - max_z P(z | past) > delta, delta = 1/(T o), o = max_z (1 - P_Z(z)) / P_Z(z). "
        "Then Reg_z(T) <= (H-1) [log+(C_z sqrt((1-delta)/delta)) / -log(1-eta) + 1/eta] + (H-1) T o delta/(1-delta) + "
        "H(H-1)/2. delta_t = 1/(o t(t+1)) gives an anytime gate."
    ),
    assumptions=(
        "the gate reads the exact posterior, equal tasks merged, before o_1 and w",
        "the exploration policy does not depend on the past, and eta > 0",
        "two tasks or more, after merging equal ones",
        "a bound below its trivial value",
    ),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
    checks=2,
)
