"""Confidence limits for means of non-negative draws, by betting: tight where nearly all draws are small.

A gambler who believes that the mean exceeds m pays 1 - f + f x/m for each draw x, with 0 < f < 1: a fair game or worse
if the mean is at most m, whatever else x may be, even infinite. One who believes that it is below m pays
1 - f (x - m)/(R - m) for draws of at most R. The stakes f are fixed in advance, and capital is shared among them; so
either is a non-negative supermartingale, and the probability that it ever reaches 1/alpha is at most alpha. The limits
are the m at which it does. Where all draws are about 0 the upper one is R log(1/alpha)/n: nothing can be better, as one
draw in n might be R.

Source: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting", section 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ..statistics import Interval

_STAKES = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 0.9, 0.99, 0.999, 0.99999)  # large ones where draws scatter little
_HALVINGS = 20  # what is left of the last interval widens the limits


def mean_of_non_negative(draws: Float[np.ndarray, "n K"], most: float, alpha: float) -> list[Interval]:
    """Intervals for the means of K quantities, each from n independent draws in [0, most].

    Args:
        draws: [n, K]; may be infinite, which counts as ``most``.
        most: R, what no draw can exceed; only the upper limits need it.
        alpha: the probability that an interval, at any time, misses its mean, at most; for each of the K.

    Raises:
        ValueError: a draw is negative, or above ``most`` but finite, or NaN.
    """
    x = np.where(np.isposinf(draws), most, np.asarray(draws, np.float64)) / most
    if not ((x >= -1e-9) & (x <= 1 + 1e-9)).all():
        raise ValueError(f"a draw lies outside [0, {most}]; the bounds must hold for every draw")
    x, goal = np.clip(x, 0, 1), math.log(2 / alpha)
    low = _boundary(lambda m: _capital(x, lambda f: np.log1p(f * (x / m - 1))) >= goal, x.shape[1])
    high = 1 - _boundary(
        lambda d: _capital(x, lambda f: np.log1p(-f * (x - (1 - d)) / np.maximum(d, 1e-300))) >= goal, x.shape[1]
    )
    means = x.mean(axis=0)
    low, high = np.minimum(low, means), np.maximum(high, means)
    return [
        Interval(float(m * most), float(a * most), float(b * most), alpha, len(x))
        for m, a, b in zip(means, low, high, strict=True)
    ]


def _capital(x: Float[np.ndarray, "n K"], log_gain: Callable[[float], np.ndarray]) -> Float[np.ndarray, " K"]:
    """log of the capital of all stakes together."""
    logs = np.stack([log_gain(f).sum(axis=0) for f in _STAKES])
    return np.logaddexp.reduce(logs, axis=0) - math.log(len(_STAKES))


def _boundary(won: Callable[[np.ndarray], np.ndarray], columns: int) -> Float[np.ndarray, " K"]:
    """The largest m in [0, 1] at which the game is won, by halving in each column: smaller ones are won too."""
    low, high = np.zeros(columns), np.ones(columns)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        yes = won(middle)
        low, high = np.where(yes, middle, low), np.where(yes, high, middle)
    return low
