"""Which rival a planner behaves like, and which it certainly does not.

One subgoal is drawn from the planner's probabilities at every decision. Rivals are fitted to half of the prompts. On
the other half the fitted rivals' mean likelihood bets against each rival in turn: the e-value against a rival is that
mean over the largest likelihood that the rival can reach there with *any* knobs. If the planner is that rival, the
probability that its e-value exceeds 1/alpha is at most alpha (universal inference); it needs neither many prompts nor
independent ones. A rival whose e-value is smaller is left.

Source: Wasserman, Ramdas and Balakrishnan (2020), "Universal inference".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InvalidPlannerError
from ..simulate.environment import split_key, uniforms
from ..simulate.low_level import draw_rows
from ..statistics import kl_divergence
from .rivals import RIVALS, Evidence, Fit, fit

_TIE = 1e-5  # nats a decision: what the least lapse alone may cost


@dataclass(frozen=True)
class Row:
    """One rival.

    Attributes:
        name, says: of it.
        knobs: as fitted to the first half of the prompts; the free ones and the lapse.
        nats: E KL(planner || rival) on the other half, nats a decision: what the rival leaves unexplained.
        log_e: log of the e-value against the planner being this rival, with any knobs, nats.
        left: whether that is not enough to rule it out.
        drawn: whether rival and planner both draw what they do, so that ``nats`` holds what chance alone leaves open.
    """

    name: str
    says: str
    knobs: Mapping[str, Any]
    nats: float
    log_e: float
    left: bool
    drawn: bool

    def explains(self, tolerance: float) -> bool:
        """Whether the planner may be this rival, but for ``tolerance`` nats a decision."""
        return self.left and (self.drawn or self.nats <= tolerance)


@dataclass(frozen=True)
class Ranking:
    """What a planner behaves like.

    Attributes:
        rows: the rivals, nearest first; of those as near as each other, the one with fewer knobs.
        alpha: the probability that the rival which the planner is, if it is one, is ruled out, at most.
        decisions: of the half on which they were compared.
    """

    rows: tuple[Row, ...]
    alpha: float
    decisions: int

    def name(self, tolerance: float) -> str | None:
        """The nearest rival that explains the planner but for ``tolerance`` nats a decision, or None if none does."""
        return next((row.name for row in self.rows if row.explains(tolerance)), None)

    def row(self, name: str) -> Row:
        """The row of a rival."""
        return next(row for row in self.rows if row.name == name)


def rank(data: Evidence, q: Float[np.ndarray, "B N Hm1 G"], *, alpha: float = 1e-3, key: Any = 0) -> Ranking:
    """Rank what planner probabilities q may come from.

    Args:
        data: the evidence at each decision.
        q: the planner's probabilities there.
        alpha: see :class:`Ranking`.
        key: of the draws, a JAX key or an int.

    Raises:
        InvalidPlannerError: fewer than 2 prompts.
    """
    B = len(q) // 2
    if B < 1:
        raise InvalidPlannerError("one prompt cannot be halved; give at least 2")
    first, second = data.at(slice(0, B)), data.at(slice(B, 2 * B))
    known, asked = q[:B], q[B : 2 * B]
    decided = bool((q.max(axis=-1) > 1 - _TIE).all())
    rows_of = asked.reshape(-1, q.shape[-1])
    uniform = uniforms(split_key(key)[1], 0, 0, (len(rows_of),), np.float64)
    chosen = np.eye(q.shape[-1])[draw_rows(np.cumsum(rows_of, axis=-1), uniform)].reshape(asked.shape)
    fitted = [fit(rival, first, known) for rival in RIVALS]
    bets = [_log_likelihood(f, second, chosen) for f in fitted]
    pot = float(np.logaddexp.reduce(bets)) - math.log(len(bets))
    rows = []
    for found, bet in zip(fitted, bets, strict=True):
        again = fit(found.rival, second, chosen, found.knobs)
        most = max(bet, *(_log_likelihood(again, second, chosen, **lapse) for lapse in ({}, {"lapse": 0.0})))
        log_e = pot - most
        knobs = {k: v for k, v in found.knobs.items() if k in (*found.rival.free, "lapse")}
        nats = max(float(kl_divergence(asked, found.predict(second, asked)).mean()), 0.0)
        left, drawn = log_e < math.log(1 / alpha), found.rival.draws and decided
        rows.append(Row(found.rival.name, found.rival.says, knobs, nats, log_e, left, drawn))
    return Ranking(tuple(_nearest_first(rows)), alpha, chosen[..., 0].size)


def _nearest_first(rows: list[Row]) -> list[Row]:
    """By nats; among those within a hair of the nearest left, the order of ``RIVALS``, simple ones first."""
    best = min(row.nats for row in rows)
    place = {row.name: i for i, row in enumerate(rows)}
    return sorted(rows, key=lambda row: (0.0, place[row.name]) if row.nats <= best + _TIE else (row.nats, 0))


def _log_likelihood(found: Fit, data: Evidence, chosen: np.ndarray, **changes: float) -> float:
    """log of the probability of everything that was chosen, nats."""
    law = found.predict(data, chosen, **changes)
    with np.errstate(divide="ignore"):
        return float(np.log((law * chosen).sum(axis=-1)).sum())
