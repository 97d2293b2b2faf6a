"""How far predictions are from the exact conditionals of a corpus: excess log-loss, and total variation by position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from ..errors import InvalidPlannerError
from ..statistics import Interval, kl_divergence, total_variation
from ..validation import check_fraction, check_limit
from .betting import mean_of_non_negative

CAP = 1.0  # nats a decision: what happens is held e times less likely than it is, on average


@dataclass(frozen=True)
class Band:
    """Means, and limits that hold for all of them together.

    Attributes:
        mean, low, high: of one shape.
        alpha: the probability that any limit misses its mean, at most.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    alpha: float


@dataclass(frozen=True)
class Comparison:
    """How far predictions q are from exact ones, over prompts from the law of the corpus.

    Attributes:
        excess: E min(KL(exact || q), cap), nats a decision: the excess log-loss of q (C2), where no decision counts
            for more than ``cap``, so that a mean over finitely many prompts says something about all. Its lower limit
            is one for the excess itself; the upper one only where nothing was cut.
        tv: E TV(exact, q), of q as it is.
        by_context: E TV by finished episodes before the decision, [N].
        by_position: E TV by episode and step, [N, H-1].
        cap: see ``excess``, nats.
        asked: mean KL(exact || q) over the decisions of these prompts, without a cap, nats: exact, and infinite if
            ``impossible`` is not 0.
        impossible: the share of decisions at which q gives 0 to something that can happen: if not 0, the excess itself
            is infinite.
        count: prompts.
    """

    excess: Interval
    tv: Interval
    by_context: Band
    by_position: Band
    cap: float
    asked: float
    impossible: float
    count: int


def compare(
    q: Float[np.ndarray, "B N Hm1 G"],
    exact: Float[np.ndarray, "B N Hm1 G"],
    *,
    alpha: float = 1e-2,
    cap: float = CAP,
) -> Comparison:
    """Compare predictions with exact conditionals, decision by decision.

    Args:
        q: from :func:`bayespar.simulate.replay.replay`, or a network: of labels with ``exact = corpus.bail``, of next
            observations with ``exact = corpus.next_observation``.
        exact: the true conditionals at the same places.
        alpha: the probability that any interval or band misses, at most; each has a quarter of it. All are valid at any
            time, so that prompts may be added until they are narrow enough.
        cap: see :class:`Comparison`.

    Raises:
        InvalidPlannerError: the shapes differ, there is nothing to compare, or no such level or cap.
    """
    check_fraction("alpha", alpha)
    check_limit("cap", cap, InvalidPlannerError)
    if q.shape != exact.shape or 0 in q.shape:
        raise InvalidPlannerError(
            f"q has shape {list(q.shape)} and exact {list(exact.shape)}; give the same, not empty"
        )
    q, share = normalised(q), alpha / 4
    divergence = np.maximum(kl_divergence(exact, q), 0)  # rounding can make it negative
    variation = np.minimum(total_variation(exact, q), 1)
    (excess,) = mean_of_non_negative(np.minimum(divergence, cap).mean(axis=(1, 2))[:, None], cap, share)
    (tv,) = mean_of_non_negative(variation.mean(axis=(1, 2))[:, None], 1.0, share)
    return Comparison(
        excess,
        tv,
        _band(variation.mean(axis=2), share),
        _band(variation, share),
        cap,
        float(divergence.mean()),
        float(((q == 0) & (exact > 0)).any(axis=-1).mean()),
        len(q),
    )


def normalised(q: Float[np.ndarray, "*batch G"]) -> Float[np.ndarray, "*batch G"]:
    """Rows that sum to 1 within what a planner may be off, made to."""
    q = np.asarray(q, np.float64)
    return q / q.sum(axis=-1, keepdims=True)


def _band(values: np.ndarray, alpha: float) -> Band:
    """Of values [B, ...], bounded by 1."""
    columns = values.reshape(len(values), -1)
    found = mean_of_non_negative(columns, 1.0, alpha / columns.shape[1])
    mean, low, high = np.array([(i.mean, i.low, i.high) for i in found]).T.reshape(3, *values.shape[1:])
    return Band(mean, low, high, alpha)
