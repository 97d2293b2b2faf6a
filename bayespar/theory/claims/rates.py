"""What COUNT and CONTRAST share: how fast an error falls with the size of the corpus, measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from ...statistics import Interval
from ..claim import Settings
from ..figure import Curves, Figure, Series
from ..verdict import LARGEST_HALF_WIDTH, Outcome, TwinOutcome, closed_form

RATE = -0.5
GROWTH = (1, 10, 100)  # of the corpus: two decades
GROUPS = 100  # of replications, in each of which an exponent is fitted to means: a single error may be 0
NEGLIGIBLE = 1e-3  # share of the constant that may come from what is still rare in the smallest corpus
_MOST, _LEAST = 200_000, 500  # replications
_LARGEST_CORPUS = 1e13
LARGEST_CELLS = 2_000


@dataclass(frozen=True)
class Measured:
    """Errors of many corpora of each size.

    Attributes:
        sizes: n, [J].
        errors: total variation, [R, J].
        constant: what sqrt(n) times the error tends to on average, as derived.
    """

    sizes: np.ndarray
    errors: np.ndarray
    constant: float

    def exponent(self, alpha: float) -> Interval:
        """The slope of log error in log n: fitted in every group of corpora, with Student's interval of their mean."""
        x = np.log(self.sizes) - np.log(self.sizes).mean()
        grouped = np.stack([group.mean(axis=0) for group in np.array_split(self.errors, GROUPS)])
        return interval_of(np.log(grouped) @ x / (x @ x), alpha)

    def reached(self, alpha: float) -> Interval:
        """sqrt(n) times the mean error in the largest corpora."""
        return interval_of(self.errors[:, -1] * np.sqrt(self.sizes[-1]), alpha)

    def outcomes(self, what: str, alpha: float) -> list[Outcome]:
        """The exponent and the constant against what is derived."""
        slope, reached = self.exponent(alpha), self.reached(alpha)
        between = f"n = {self.sizes[0]:.2g} to {self.sizes[-1]:.2g}"
        return [
            closed_form(slope, RATE, f"{what}: exponent {slope.mean:.4f} ± {slope.half_width:.4f}, {between}"),
            closed_form(reached, self.constant, f"sqrt(n) error {reached.mean:.4g}, derived {self.constant:.4g}"),
        ]

    def figure(self, title: str, x_label: str, more: tuple[Series, ...] = ()) -> Figure:
        """Error against n."""
        x = self.sizes.astype(float).tolist()
        asymptote = (self.constant / np.sqrt(self.sizes)).tolist()
        measured = Series("mean error, measured", x, self.errors.mean(axis=0).tolist())
        line = Series("derived constant / sqrt(n)", x, asymptote, kind="reference")
        return Curves(title, x_label, "total variation", [measured, line, *more], log=True)


def interval_of(draws: np.ndarray, alpha: float) -> Interval:
    """Student's interval for a mean, of a hundred draws or more."""
    half = student.isf(alpha / 2, len(draws) - 1) * draws.std(ddof=1) / np.sqrt(len(draws))
    return Interval(float(draws.mean()), float(draws.mean() - half), float(draws.mean() + half), alpha, len(draws))


def smallest_corpus(shares: np.ndarray, chances: np.ndarray, often: float) -> float:
    """The smallest corpus in which all that matters occurs often.

    Args:
        shares: what each cell contributes to the constant.
        chances: how often it occurs, for one prompt or pair.
        often: how often it shall occur.
    """
    order = np.argsort(chances, axis=None)
    grown = np.cumsum(shares.ravel()[order])
    rare = chances.ravel()[order][np.searchsorted(grown, NEGLIGIBLE * grown[-1])]
    return min(often / float(rare), _LARGEST_CORPUS)


def two_decades(smallest: float) -> np.ndarray:
    """Sizes of corpora, from the smallest."""
    return np.ceil(smallest * np.array(GROWTH)).astype(np.int64)


def replications(shares: np.ndarray, settings: Settings) -> int:
    """How many corpora of each size make the interval narrow enough, if cells err in pairs and pairs independently.

    A cell's error is |x| of a normal x: its standard deviation is sqrt(pi/2 - 1) of its mean.
    """
    spread = np.sqrt((np.pi / 2 - 1) * 2 * (shares**2).sum()) / shares.sum()
    narrow = 0.75 * LARGEST_HALF_WIDTH / student.isf(settings.alpha / 2, _LEAST)
    return int(np.clip((spread / narrow) ** 2, _LEAST, _MOST)) * (4 if settings.full else 1)


def rate_twin(name: str, effect: str, interval: Interval, value: float) -> TwinOutcome:
    """Rejected by the same interval."""
    return TwinOutcome(name, effect, not interval.contains(value), interval.mean, 1 - interval.alpha)
