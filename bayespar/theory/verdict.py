"""Verdicts: what a check may say, and what it must show for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from ..statistics import Interval
from .figure import Figure

LARGEST_HALF_WIDTH = 0.02
ROUNDING = 1e-12  # of expected regrets and posteriors, sums of some thousand terms of at most 1


class Verdict(StrEnum):
    """The four things that a check may say. Only ``supported`` counts."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True)
class Outcome:
    """What one check found.

    Attributes:
        verdict: see :class:`Verdict`.
        measured: the number found; for an identity, its largest error.
        predicted: the number claimed; for an identity, the error that rounding allows.
        reason: one line: what was compared, or why nothing was.
        tightness: measured / bound, for an inequality whose bound is not trivial.
        half_width: relative half-width of the confidence interval, for a statistical check.
        alpha: probability of a false alarm, 0 for an exact check.
        figures: what to draw beside the numbers.
    """

    verdict: Verdict
    measured: float | None = None
    predicted: float | None = None
    reason: str = ""
    tightness: float | None = None
    half_width: float | None = None
    alpha: float = 0.0
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True)
class TwinOutcome:
    """The same check where the claim must fail.

    Attributes:
        name: what was made false.
        effect: how far the false statement is from the true one, as stated before it is checked.
        rejected: whether the check refuted it.
        measured: the number found.
        power: least probability of rejecting it; 1 for an exact check.
    """

    name: str
    effect: str
    rejected: bool
    measured: float | None
    power: float


def not_applicable(reason: str) -> Outcome:
    """The outcome where an assumption fails, or the exact side is too large."""
    return Outcome(Verdict.NOT_APPLICABLE, reason=reason)


def identity(error: float, tolerance: float, reason: str) -> Outcome:
    """An exact identity: supported iff its largest error is at most ``tolerance``; NaN refutes."""
    verdict = Verdict.SUPPORTED if error <= tolerance else Verdict.REFUTED
    return Outcome(verdict, measured=error, predicted=tolerance, reason=reason)


def inequality(
    measured: Float[np.ndarray, "*shape"],
    bound: Float[np.ndarray, "*shape"],
    trivial: Float[np.ndarray, "*shape"],
    reason: str,
) -> Outcome:
    """Exact values against bounds, entry by entry.

    Refuted iff an entry exceeds its bound by more than rounding. The tightness is the largest ratio where the bound is
    below half its trivial value; where every bound is at least trivial, nothing was shown and the claim does not apply.
    """
    if (measured - bound).max() > ROUNDING or np.isnan(measured - bound).any():
        worst = int(np.argmax(np.nan_to_num(measured - bound, nan=np.inf)))
        return Outcome(Verdict.REFUTED, float(measured.flat[worst]), float(bound.flat[worst]), reason)
    informative = bound < trivial
    if not informative.any():
        return not_applicable(f"every bound lies above its trivial value: {reason}")
    ratio = np.where(bound > 0, measured / np.where(bound > 0, bound, 1.0), 0.0)
    tight = bound < trivial / 2
    return Outcome(
        Verdict.SUPPORTED,
        float(ratio[informative].max()),
        1.0,
        reason,
        tightness=float(ratio[tight].max()) if tight.any() else None,
    )


def below(interval: Interval, bound: float, trivial: float, reason: str) -> Outcome:
    """A mean against a bound: supported if all of its interval is below, refuted if all of it is above."""
    if bound >= trivial:
        return not_applicable(f"the bound {bound:.4g} lies above its trivial value {trivial:.4g}: {reason}")
    verdict = Verdict.INCONCLUSIVE
    if interval.high <= bound:
        verdict = Verdict.SUPPORTED
    elif interval.low > bound:
        verdict = Verdict.REFUTED
    return Outcome(
        verdict,
        interval.mean,
        bound,
        reason,
        tightness=interval.mean / bound if bound < trivial / 2 else None,
        half_width=interval.half_width / abs(interval.mean) if interval.mean else None,
        alpha=interval.alpha,
    )


def all_of(outcomes: Sequence[Outcome]) -> Outcome:
    """The worst of several outcomes of one claim, with the reasons, figures and the best tightness of all.

    Outcomes that do not apply are left out, unless none applies.
    """
    apply = [o for o in outcomes if o.verdict is not Verdict.NOT_APPLICABLE]
    if not apply:
        return outcomes[0]
    order = (Verdict.REFUTED, Verdict.INCONCLUSIVE, Verdict.SUPPORTED)
    worst = min(apply, key=lambda o: order.index(o.verdict))
    return replace(
        worst,
        reason="; ".join(dict.fromkeys(o.reason for o in apply)),
        tightness=max((o.tightness for o in apply if o.tightness is not None), default=None),
        alpha=sum(o.alpha for o in apply),
        figures=tuple(f for o in apply for f in o.figures),
    )


def closed_form(interval: Interval, predicted: float, reason: str) -> Outcome:
    """A mean against its closed form: refuted if outside the interval, supported if inside a narrow enough one."""
    relative = interval.half_width / abs(predicted)
    if not interval.contains(predicted):
        verdict = Verdict.REFUTED
    elif relative <= LARGEST_HALF_WIDTH:
        verdict = Verdict.SUPPORTED
    else:
        verdict = Verdict.INCONCLUSIVE
    return Outcome(verdict, interval.mean, predicted, reason, half_width=relative, alpha=interval.alpha)
