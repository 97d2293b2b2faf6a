"""When to explore: coins tossed once an episode, and gates that read the posterior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InvalidPlannerError
from ..validation import float_array, shown
from ..world import Family
from .classes import task_classes

RULES = ("constant", "anytime", "explore-first", "gated", "gated-anytime")


@dataclass(frozen=True, repr=False)
class Exploration:
    """A rule that says before every episode whether the exploration policy acts in it.

    It does if a coin, independent of everything else, shows up, or if too little is known.

    Attributes:
        coin: probability of exploring in episode t, [T].
        gate: explore if 1 - max_z P(z | past) is above this, classes of tasks merged, [T]; infinite where only the
            coin decides.
    """

    coin: Float[np.ndarray, " T"]
    gate: Float[np.ndarray, " T"]

    def __post_init__(self) -> None:
        """
        Raises:
            InvalidPlannerError: no two schedules of one length; their values are checked where they are used.
        """
        coin, gate = (_schedule(f"exploration.{name}", getattr(self, name)) for name in ("coin", "gate"))
        if coin.ndim != 1 or coin.shape != gate.shape:
            raise InvalidPlannerError(
                f"exploration has coin {list(coin.shape)} and gate {list(gate.shape)}; both must be [T]"
            )
        object.__setattr__(self, "coin", coin)
        object.__setattr__(self, "gate", gate)

    @property
    def gated(self) -> bool:
        """Whether the posterior is read."""
        return bool(np.isfinite(self.gate).any())

    def __repr__(self) -> str:
        return f"<Exploration: {self}; {len(self.coin)} episodes>"

    def __str__(self) -> str:
        """In words: when it explores."""
        coin, gate = self.coin, self.gate
        if self.gated:
            last = f"1 - max P > {gate[-1]:.2g}"
            return last if gate[0] == gate[-1] else f"{last}, falling" if gate[0] > gate[-1] else "a varying gate"
        if not coin.any():
            return "never"
        if coin.all() and coin.min() == 1:
            return "always"
        count = int(coin.sum())
        if (coin == (np.arange(len(coin)) < count)).all():
            return f"in the first {count}"
        first, last = f"{coin[0]:.3g}", f"{coin[-1]:.3g}"
        return f"epsilon = {first}" if coin.min() == coin.max() else f"epsilon from {first} to {last}"


@dataclass(frozen=True)
class Odds:
    """What the schedules need to know of a prior, after merging classes.

    Attributes:
        horizon: H.
        roots: C = max_z C_z, with C_z = sum over z' of sqrt(P_Z(z') / P_Z(z)); 0 if there is one class.
        against: o = max_z (1 - P_Z(z)) / P_Z(z).
    """

    horizon: int
    roots: float
    against: float

    @classmethod
    def of(cls, family: Family) -> Odds:
        """Of a family, equal tasks merged."""
        return cls.of_prior(family.horizon, np.asarray(task_classes(family).family.task_prior, np.float64))

    @classmethod
    def of_prior(cls, horizon: int, prior: Float[np.ndarray, " C"]) -> Odds:
        """Of a prior over classes, all positive."""
        roots = np.sqrt(prior).sum() / np.sqrt(prior) - 1
        return cls(horizon, max(0.0, float(roots.max())), float((1 / prior - 1).max()))


def constant_epsilon(odds: Odds, eta: float, episodes: int) -> Exploration:
    """The same coin in every episode: eps = min(1, sqrt(H log(1 + C) / (T eta))). Source: theory.md, E2 (a)."""
    return by_coin(np.full(episodes, math.sqrt(odds.horizon * math.log1p(odds.roots) / (episodes * eta))))


def anytime_epsilon(odds: Odds, eta: float, episodes: int) -> Exploration:
    """eps_t = min(1, sqrt(H log(1 + C) / (eta t))): T need not be known. Source: theory.md, E2 (b)."""
    return by_coin(np.sqrt(odds.horizon * math.log1p(odds.roots) / (eta * np.arange(1, episodes + 1))))


def explore_first(odds: Odds, eta: float, episodes: int) -> Exploration:
    """Explore in the first n0 = ceil(log(H C T / 4) / -log(1 - eta)) episodes, then never. Source: theory.md, E2 (c).

    One episode is enough where eta = 1, and none is needed where H C T / 4 <= 1.
    """
    needed = odds.horizon * odds.roots * episodes / 4
    if needed <= 1:
        count = 0
    elif eta >= 1:
        count = 1
    else:
        count = max(1, math.ceil(math.log(needed) / -math.log1p(-eta))) if eta > 0 else episodes
    return by_coin((np.arange(episodes) < count).astype(np.float64))


def gated(odds: Odds, episodes: int) -> Exploration:
    """Explore while 1 - max_z P(z | past) > 1 / (T o); eta need not be known. Source: theory.md, E3."""
    return _by_gate(odds, np.full(episodes, float(episodes)))


def gated_anytime(odds: Odds, episodes: int) -> Exploration:
    """Explore in episode t while 1 - max_z P(z | past) > 1 / (o t (t + 1)). Source: theory.md, E3."""
    t = np.arange(1.0, episodes + 1)
    return _by_gate(odds, t * (t + 1))


def by_rule(rule: str, odds: Odds, eta: float, episodes: int) -> Exploration:
    """The exploration that a rule's name stands for.

    Raises:
        InvalidPlannerError: no such rule, or eta = 0 where the rule divides by it.
    """
    check_rule(rule)
    if rule == "gated":
        return gated(odds, episodes)
    if rule == "gated-anytime":
        return gated_anytime(odds, episodes)
    rules = {"constant": constant_epsilon, "anytime": anytime_epsilon, "explore-first": explore_first}
    if not eta > 0:
        raise InvalidPlannerError(
            f"the exploration policy has eta = {eta:g}: it never tells some pair of tasks apart, so the schedule "
            f"{rule!r} would explore for ever; give another policy, for instance that of bayespar.design_exploration"
        )
    return rules[rule](odds, eta, episodes)


def as_exploration(exploration: Any, episodes: int) -> Exploration:
    """Epsilon, a schedule [T] or an :class:`Exploration`, checked.

    Raises:
        InvalidPlannerError: of another length, or with entries outside [0, 1].
    """
    if isinstance(exploration, Exploration):
        if exploration.coin.shape != (episodes,) or exploration.gate.shape != (episodes,):
            raise InvalidPlannerError(
                f"exploration has coin {list(exploration.coin.shape)} and gate {list(exploration.gate.shape)}; both "
                f"are [T] = [{episodes}]"
            )
        if np.isnan(exploration.gate).any():
            raise InvalidPlannerError("exploration.gate has a NaN; give a threshold, infinite where there is none")
        check_coin(exploration.coin)
        return exploration
    array = _schedule("exploration", exploration)
    if array.shape not in ((), (episodes,)):
        raise InvalidPlannerError(f"exploration has shape {list(array.shape)}; give epsilon or a schedule [{episodes}]")
    check_coin(array)
    return by_coin(np.broadcast_to(array, (episodes,)))


def _schedule(name: str, value: Any) -> np.ndarray:
    return np.asarray(float_array(name, value, InvalidPlannerError), np.float64)


def check_rule(rule: str) -> None:
    """Raise unless there is a rule of this name."""
    if rule not in RULES:
        raise InvalidPlannerError(
            f"exploration = {shown(rule)}; give epsilon, a schedule [T], or one of {', '.join(map(repr, RULES))}"
        )


def check_coin(coin: np.ndarray) -> None:
    """Raise unless all are probabilities."""
    if not ((coin >= 0) & (coin <= 1)).all():
        raise InvalidPlannerError("exploration has entries outside [0, 1]; each is the probability of a coin")


def by_coin(coin: np.ndarray) -> Exploration:
    """Exploration by coins of these probabilities [T] only, cut at 1."""
    return Exploration(np.minimum(coin, 1.0), np.full(len(coin), np.inf))


def _by_gate(odds: Odds, scale: np.ndarray) -> Exploration:
    with np.errstate(divide="ignore"):
        gate = 1 / (odds.against * scale)
    return Exploration(np.zeros(len(scale)), gate)
