"""Log-space sums, divergences, confidence sequences and e-values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import rel_entr

_LARGEST_STAKE = 0.95


def log_sum_exp(logs: Float[np.ndarray, "*batch Z"]) -> Float[np.ndarray, "*batch"]:
    """log sum exp over the last axis, nats; -inf where every entry is."""
    top = logs.max(axis=-1, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.exp(logs - top).sum(axis=-1)) + top[..., 0])


def log_normalise(logs: Float[np.ndarray, "*batch Z"]) -> Float[np.ndarray, "*batch Z"]:
    """``logs`` shifted so that their exponentials sum to 1 over the last axis.

    Raises:
        ValueError: a row is -inf throughout.
    """
    total = log_sum_exp(logs)
    if not np.isfinite(total).all():
        raise ValueError("cannot normalise a row whose every entry is -inf: it has no mass at all")
    return logs - total[..., None]


def kl_divergence(p: Float[np.ndarray, "*#batch G"], q: Float[np.ndarray, "*#batch G"]) -> Float[np.ndarray, "*batch"]:
    """KL(p || q), nats, over the last axis; infinite where q is 0 and p is not."""
    return np.asarray(rel_entr(p, q).sum(axis=-1))


def total_variation(
    p: Float[np.ndarray, "*#batch G"], q: Float[np.ndarray, "*#batch G"]
) -> Float[np.ndarray, "*batch"]:
    """sum |p - q| / 2 over the last axis."""
    return np.asarray(np.abs(p - q).sum(axis=-1) / 2)


@dataclass(frozen=True)
class Interval:
    """A confidence interval for a mean.

    Attributes:
        mean: sample mean.
        low, high: ends.
        alpha: probability that the interval, at any time, misses the truth, at most.
        count: draws used.
    """

    mean: float
    low: float
    high: float
    alpha: float
    count: int

    @property
    def half_width(self) -> float:
        """Half of high - low."""
        return (self.high - self.low) / 2

    def contains(self, value: float) -> bool:
        """Whether ``value`` lies inside."""
        return bool(self.low <= value <= self.high)


class MeanConfidence:
    """An anytime-valid confidence sequence for the mean of bounded draws, fed in batches.

    Empirical Bernstein with a predictable mixture of stakes: for draws in [low, high], scaled to [0, 1], with
    predictable centre m_i and stake l_i < 1, the process exp(sum l_i (x_i - mu) - v_i psi(l_i)), v_i = (x_i - m_i)^2,
    psi(l) = -log(1-l) - l, is a non-negative supermartingale. Stakes and centres are fixed within a batch, from the
    batches before, so that a batch costs a few sums. Stopping at any batch keeps the error at most alpha.

    Source: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by betting", theorem 2.
    """

    def __init__(self, low: float, high: float, alpha: float, *, plan: int):
        """
        Args:
            low, high: bounds of a draw.
            alpha: error over the whole run.
            plan: about how many draws will be used; only the width depends on it, never the validity.
        """
        if not (high > low and 0 < alpha < 1 and plan >= 1):
            raise ValueError(f"need low < high, 0 < alpha < 1 and plan >= 1; got {low}, {high}, {alpha}, {plan}")
        self.low, self.high, self.alpha, self.plan = float(low), float(high), alpha, plan
        self.count = 0
        self._sum = self._squares = 0.0
        self._stake_sum = self._staked = self._penalty = 0.0

    def update(self, draws: Float[np.ndarray, " n"]) -> Interval:
        """Feed a batch.

        Raises:
            ValueError: a draw lies outside [low, high] or is NaN.
        """
        x = (np.asarray(draws, np.float64).reshape(-1) - self.low) / (self.high - self.low)
        if not ((x >= -1e-9) & (x <= 1 + 1e-9)).all():
            raise ValueError(f"a draw lies outside [{self.low}, {self.high}]; the bounds must hold for every draw")
        centre = (0.5 + self._sum) / (1 + self.count)
        variance = max((0.25 + self._squares) / (1 + self.count) - centre**2, 1e-12) if self.count else 0.25
        stake = _best_stake(math.log(2 / self.alpha) / (variance * self.plan))
        self._stake_sum += stake * len(x)
        self._staked += stake * float(x.sum())
        self._penalty += (-math.log1p(-stake) - stake) * float(((x - centre) ** 2).sum())
        self._sum += float(x.sum())
        self._squares += float((x**2).sum())
        self.count += len(x)
        return self.interval()

    def log_e_value(self, mean: float, *, above: bool = False) -> float:
        """log of the evidence against the draws having this ``mean``, nats, valid at any time.

        If they have it, the probability that the e-value ever exceeds 1/alpha is at most alpha. It is the average of
        the processes that bet on a larger and on a smaller mean; or, with ``above``, the one that bets on a larger
        mean, which is evidence against every smaller one too.
        """
        x = (mean - self.low) / (self.high - self.low)
        gain = self._staked - self._stake_sum * x
        bet = gain if above else np.logaddexp(gain, -gain) - math.log(2)
        return float(bet - self._penalty)

    def interval(self) -> Interval:
        """The interval now."""
        if self.count == 0:
            return Interval(math.nan, self.low, self.high, self.alpha, 0)
        middle = self._staked / self._stake_sum
        width = (math.log(2 / self.alpha) + self._penalty) / self._stake_sum
        scale = self.high - self.low
        low, high = (self.low + scale * min(max(m, 0.0), 1.0) for m in (middle - width, middle + width))
        return Interval(self.low + scale * self._sum / self.count, low, high, self.alpha, self.count)


def _best_stake(target: float) -> float:
    """The stake l that makes (target + psi(l)) / l smallest: l psi'(l) - psi(l) = target, at most 0.95.

    For a small target it is sqrt(2 target); a width of log(2/alpha)/n + variance psi(l), over l, is what it minimises.
    """

    # Convex in l with derivative l / (1-l)^2, so Newton's steps fall from sqrt(2 target), which is too large.
    stake = min(_LARGEST_STAKE, math.sqrt(2 * target))
    for _ in range(50):
        excess = stake**2 / (1 - stake) + math.log1p(-stake) + stake - target
        step = excess * (1 - stake) ** 2 / stake
        if step <= 1e-12 * stake:
            break
        stake -= step
    return stake
