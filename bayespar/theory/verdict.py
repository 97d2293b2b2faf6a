"""Verdicts: what a check may say, and what it must show for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from ..statistics import Interval
from .figure import Figure

LARGEST_HALF_WIDTH = 0.02


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
