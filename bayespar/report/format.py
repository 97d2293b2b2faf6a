"""Numbers and verdicts in words, the same in the terminal and on the page."""

from __future__ import annotations

from ..theory.runner import Report
from ..theory.verdict import Outcome, Verdict


def number(value: float | None) -> str:
    """Four digits, or one and an exponent where it is tiny; "" for None."""
    return "" if value is None else f"{value:.4g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.0e}"


def predicted(outcome: Outcome) -> str:
    """The number claimed; with ``≤`` where the check is exact, and it is the largest that is allowed."""
    if outcome.predicted is None:
        return ""
    return number(outcome.predicted) if outcome.half_width is not None else f"≤ {number(outcome.predicted)}"


def half_width(outcome: Outcome) -> str:
    """The relative half-width as ``± 1.2%``; "" for an exact check."""
    return "" if outcome.half_width is None else f"± {outcome.half_width:.1%}"


def tightness(outcome: Outcome) -> str:
    """Measured / bound with two decimals, or ""."""
    return "" if outcome.tightness is None else f"{outcome.tightness:.2f}"


def counts(report: Report) -> str:
    """One line: how many are supported, how many twins were rejected, how long it took."""
    supported = sum(f.outcome.verdict is Verdict.SUPPORTED for f in report.findings)
    twins = [t for f in report.findings for t in f.twins]
    rejected = sum(t.rejected for t in twins)
    return f"{supported} supported, {rejected} of {len(twins)} false twins rejected, {report.seconds:.0f} s"


def conclusion(report: Report) -> str:
    """What the whole run says, in two or three words."""
    return "everything holds" if report.passed else "not everything holds"
