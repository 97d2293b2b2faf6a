"""A sequential test that several means are 0, which stops as soon as it knows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..statistics import MeanConfidence
from ..theory.verdict import Verdict

_BATCH = 64  # of the first look; every further one adds half as many draws as there are


@dataclass(frozen=True)
class Plan:
    """What a test promises.

    Attributes:
        alpha: the false-alarm level: the probability that a right function is ever refuted is at most this.
        resolution: the smallest mean, in units of the statistics' range [-1, 1], that must not be missed: a function
            with a statistic whose mean is at least this far from 0 is refuted with probability ``power``, and supported
            with probability at most alpha.
        statistics: K, how many means are tested together.
    """

    alpha: float
    resolution: float
    statistics: int

    @property
    def power(self) -> float:
        """1 - alpha: outside that probability the interval covers the mean, and then it does not reach 0."""
        return 1 - self.alpha

    @property
    def budget(self) -> int:
        """Draws after which every interval is at most ``resolution`` wide, whatever the variance.

        For draws in [-1, 1] at stake l the width is 4 (log(2/a) + n psi(l)/4) / (n l), a = alpha / statistics; the best
        stake makes it about 4 sqrt(log(2/a) / (2n)), and a quarter more pays for the stake of the first batch, which
        is chosen before anything is known.
        """
        return math.ceil(1.25 * 8 * math.log(2 * self.statistics / self.alpha) / self.resolution**2)


@dataclass(frozen=True)
class Sequential:
    """How a sequential test ended.

    Attributes:
        verdict: ``refuted`` if the e-value reached 1/alpha; ``supported`` if every interval lies within the resolution;
            else ``inconclusive``, with the budget spent.
        e_value: evidence against all means being 0: the average over the statistics.
        draws: how many were used.
        means: of the statistics, [K].
        half_widths: of their intervals, [K].
        plan: what was promised.
    """

    verdict: Verdict
    e_value: float
    draws: int
    means: Float[np.ndarray, " K"]
    half_widths: Float[np.ndarray, " K"]
    plan: Plan


def sequential_test(
    draw: Callable[[int], Float[np.ndarray, "n K"]],
    *,
    alpha: float = 1e-3,
    resolution: float = 0.1,
    one_sided: bool = False,
    budget: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Sequential:
    """Test that statistics in [-1, 1] have mean 0 (or, one-sided, at most 0), all K of them.

    Args:
        draw: ``draw(n)`` gives n independent draws of the K statistics, [n, K].
        alpha, resolution: see :class:`Plan`.
        one_sided: only a mean above 0 is wrong; ``supported`` then means that every interval lies at or below 0.
        budget: the most draws; what the resolution needs by default. A smaller one may end inconclusive.
        progress: called with the draws so far and the budget.

    Source: the e-values of :class:`bayespar.statistics.MeanConfidence`; an average of e-values is one.
    """
    batch = np.asarray(draw(_BATCH), np.float64)
    plan = Plan(alpha, resolution, batch.shape[1])
    limit = plan.budget if budget is None else budget
    means = [MeanConfidence(-1.0, 1.0, alpha / plan.statistics, plan=limit) for _ in range(plan.statistics)]
    while True:
        intervals = [m.update(column) for m, column in zip(means, batch.T, strict=True)]
        logs = np.array([m.log_e_value(0.0, above=one_sided) for m in means])
        e_value = float(np.exp(min(np.logaddexp.reduce(logs) - math.log(len(logs)), 700.0)))
        verdict = Verdict.INCONCLUSIVE
        if e_value >= 1 / alpha:
            verdict = Verdict.REFUTED
        elif all(i.high <= 0 if one_sided else max(-i.low, i.high) <= resolution for i in intervals):
            verdict = Verdict.SUPPORTED
        done = intervals[0].count
        if progress is not None:
            progress(done, limit)
        if verdict is not Verdict.INCONCLUSIVE or done >= limit:
            half_widths = np.array([i.half_width for i in intervals])
            return Sequential(verdict, e_value, done, np.array([i.mean for i in intervals]), half_widths, plan)
        batch = np.asarray(draw(min(max(_BATCH, done // 2), limit - done)), np.float64)
