"""M1: Actors who draw on their own lose the experts' coordination."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ...planning.expected_regret import expected_regret
from ...program import enumerate_program
from ...team import Team
from ...world import Family
from ..bounds import epsilon_greedy
from ..claim import Claim, Settings, Subject
from ..closed_forms import two_doors_regret
from ..constants import worst_case
from ..figure import Curves, Series
from ..verdict import Outcome, TwinOutcome, all_of, identity, inequality, not_applicable
from .e2 import coin_rules

ACTORS = range(2, 7)
EPISODES = 64
TOLERANCE = 1e-10  # sums of 64 episodes
TWIN_LIGHT = 0.02


def _regret(family: Family, planner: str) -> np.ndarray:
    """Exact regret of T = 1, 2, ... episodes without exploration, [C, T]."""
    return expected_regret(family, planner, 0.0, EPISODES).cumulative


def _closed_forms(subject: Subject, light: float = 0.0) -> dict[tuple[int, bool], tuple[np.ndarray, np.ndarray]]:
    """(K, whether Actors draw on their own) -> regret [C, T], and its closed form [T]."""
    program: Any = subject.program
    out = {}
    for actors in ACTORS:
        family = enumerate_program(functools.partial(program, actors=actors, light=light))
        for independent in (False, True):
            claimed = [two_doors_regret(actors, t, independent=independent) for t in range(1, EPISODES + 1)]
            out[actors, independent] = _regret(family, "independent" if independent else "bail"), np.array(claimed)
    return out


def _bound(subject: Subject, actors: int) -> Outcome:
    """Independent Actors against E2 with its BAIL term K times, by every schedule of E2."""
    values, bounds, trivial = [], [], []
    for explorer in subject.explorers.values():
        own = explorer.constants
        worst = worst_case(own.horizon, own.prior, own.least_eta)
        for rule in coin_rules(own) if own.least_eta > 0 else ():
            regret = subject.expected("independent", rule, explorer).cumulative
            T = regret.shape[1]
            values.append(regret.ravel())
            bounds.append(epsilon_greedy(worst, rule.coin, actors=actors)[:, :T].ravel())
            trivial.append(np.outer(own.trivial, np.arange(1, T + 1)).ravel())
    said = "K Actors on their own: exact regret / (E2 with its BAIL term K times), every schedule and task"
    return inequality(np.concatenate(values), np.concatenate(bounds), np.concatenate(trivial), said)


def check(subject: Subject, settings: Settings) -> Outcome:
    if not isinstance(subject.family.subgoals, Team):
        return not_applicable("one Actor")
    reason = subject.why_nothing_to_explore()
    if reason:
        return not_applicable(reason)
    outcomes = [_bound(subject, len(subject.family.subgoals.sizes))]
    if subject.name == "two_doors":
        found = _closed_forms(subject)
        error = max(float(np.abs(regret - claimed).max()) for regret, claimed in found.values())
        said = f"regret of joint and of independent draws against their closed forms, K = 2..6, T = 1..{EPISODES}"
        exact = identity(error, TOLERANCE, said)
        outcomes.append(Outcome(**{**exact.__dict__, "figures": (_figure(found),)}))
    return all_of(outcomes)


def _figure(found: dict[tuple[int, bool], tuple[np.ndarray, np.ndarray]]) -> Curves:
    times = list(range(1, EPISODES + 1))
    series = [Series("joint, any K", times, found[2, False][0].max(axis=0).tolist())]
    for actors in ACTORS[::2]:
        regret, claimed = found[actors, True]
        series.append(Series(f"independent, K = {actors}", times, regret.max(axis=0).tolist()))
        series.append(Series(f"closed form, K = {actors}", times, claimed.tolist(), kind="bound"))
    return Curves("Regret on the two doors, without exploration", "episodes T", "expected regret", series, log=True)


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    if subject.name != "two_doors":
        return []
    lit = _closed_forms(subject, TWIN_LIGHT)
    error = max(float(np.abs(regret - claimed).max()) for regret, claimed in lit.values())
    regret = _regret(subject.family, "independent")[:, 0].max()
    prior = np.asarray(subject.classes.family.task_prior, np.float64)
    once = float(epsilon_greedy(worst_case(subject.family.horizon, prior, 1.0), np.zeros(1)).max())
    return [
        TwinOutcome(
            "a split shows light under the door that opens",
            f"with probability {TWIN_LIGHT}",
            error > TOLERANCE,
            error,
            1.0,
        ),
        TwinOutcome(
            "E2 as it stands, for Actors who draw on their own",
            f"first episode: loss {regret:.3g}, bound {once:.3g}",
            bool(regret > once + 1e-9),
            float(regret),
            1.0,
        ),
    ]


M1 = Claim(
    id="M1",
    title="independent draws lose coordination",
    statement=(
        "Two doors, K Actors who must take the same one: before any evidence a joint draw from BAIL succeeds with "
        "probability 1/2, independent draws from its marginals with 2^-K; the total regret is 1/2 against "
        "2^(K-1) - 1/2. In any world K independent Actors keep E2's bound with its BAIL term K times."
    ),
    assumptions=("several Actors", "for the closed forms: the world is the two doors"),
    status="derived",
    worlds=1,
    check=check,
    twins=twins,
)
