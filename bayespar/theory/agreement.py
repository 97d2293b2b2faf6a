"""Estimates by Monte Carlo against exact answers, at a stated probability of a false alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from .verdict import LARGEST_HALF_WIDTH, Outcome, TwinOutcome, Verdict

ROUNDING = 1e-9


@dataclass(frozen=True)
class Compared:
    """Estimates in units where the quantities lie in [0, 1], and what they should be.

    Attributes:
        estimates, exact: [K].
        errors: Monte Carlo standard errors of the estimates, [K].
        draws: points behind each estimate.
        slack: by how much the exact side may be off.
    """

    estimates: Float[np.ndarray, " K"]
    exact: Float[np.ndarray, " K"]
    errors: Float[np.ndarray, " K"]
    draws: int
    slack: float = 0.0

    def half_widths(self, z: float) -> Float[np.ndarray, " K"]:
        """z standard errors, and z^2/draws for what is rare: an event that no draw saw has no standard error.

        By Bernstein's inequality z^2/(3 draws) does for independent draws; this allows for a third as many.
        """
        return np.where(self.errors > 0, z * self.errors, 0) + z**2 / self.draws


def agreement(comparisons: Sequence[Compared], alpha: float, reason: str) -> Outcome:
    """Whether all estimates agree with the exact answers.

    Refuted if one is further off than its half-width, for z such that all of them together raise a false alarm with
    probability alpha, as normal estimates; supported if besides no half-width exceeds 2 %, of a range of 1.
    """
    z = float(norm.isf(alpha / (2 * sum(len(c.exact) for c in comparisons))))
    gaps = np.concatenate([np.abs(c.estimates - c.exact) for c in comparisons])
    widths = np.concatenate([c.half_widths(z) for c in comparisons])
    bounds = widths + np.concatenate([np.full(len(c.exact), c.slack + ROUNDING) for c in comparisons])
    worst = int(np.argmax(np.nan_to_num(gaps / bounds, nan=np.inf)))
    half = float(widths.max())
    verdict = Verdict.SUPPORTED if half <= LARGEST_HALF_WIDTH else Verdict.INCONCLUSIVE
    if not (gaps <= bounds).all():
        verdict = Verdict.REFUTED
    return Outcome(verdict, float(gaps[worst]), float(bounds[worst]), reason, half_width=half, alpha=alpha)


def twin(name: str, effect: str, compared: Compared, alpha: float) -> TwinOutcome:
    """The same test of a false answer; its power is that of the largest difference that was found."""
    z = float(norm.isf(alpha / (2 * len(compared.exact))))
    gaps = np.abs(compared.estimates - compared.exact)
    bounds = compared.half_widths(z) + compared.slack + ROUNDING
    worst = int(np.argmax(gaps / bounds))
    spare, error = gaps[worst] - bounds[worst], compared.errors[worst]
    power = float(norm.cdf(spare / error)) if error > 0 else float(spare > 0)
    return TwinOutcome(name, effect, bool(spare > 0), float(gaps[worst]), power)
