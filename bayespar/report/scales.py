"""Axes that any numbers fit on: limits, ticks, and what cannot be drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS, _TIMES = "\u2212", "\u00d7"
_FURTHEST = 1e300  # beyond it, padding an axis overflows


def drawable(values: Sequence[float], log: bool) -> np.ndarray:
    """``values`` with NaN for all that has no place on the axis: NaN, infinities, and zero or less on a log axis."""
    array = np.asarray(values, np.float64)
    keep = (array > 1 / _FURTHEST if log else array > -_FURTHEST) & (array < _FURTHEST)
    return np.where(keep, array, np.nan)


def limits(arrays: Sequence[np.ndarray], log: bool) -> tuple[float, float]:
    """What shows every number that is not NaN, with some room; (0, 1), or (1, 10) on a log axis, if there is none."""
    values = np.concatenate([np.ravel(a) for a in arrays]) if arrays else np.zeros(0)
    values = values[~np.isnan(values)]
    if not len(values):
        return (1.0, 10.0) if log else (0.0, 1.0)
    values = np.log10(values) if log else values
    low, high = float(values.min()), float(values.max())
    # A constant gets an axis too, wide enough that its ticks are distinct numbers.
    room = (
        0.05 * (high - low) if high - low > 1e-9 * max(abs(low), abs(high)) else 0.3 if log else 0.1 * abs(low) or 0.5
    )
    return (10 ** (low - room), 10 ** (high + room)) if log else (low - room, high + room)


def set_scale(axes: Axes, which: str, bounds: tuple[float, float], log: bool) -> None:
    """Give the "x" or "y" axis its limits and a few readable ticks."""
    (axes.set_xlim if which == "x" else axes.set_ylim)(*bounds)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if not log:
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
        return
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    decades = math.log10(bounds[1]) - math.log10(bounds[0])
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0), numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    small = LogLocator(subs=tuple(range(2, 10)), numticks=7)
    axis.set_minor_locator(small if 1 < decades <= 5 else NullLocator())
    axis.set_minor_formatter(NullFormatter())


def tick(value: float) -> str:
    """A number as short as it can be, in plain text: ``0.25``, ``2000``, ``10⁻⁶``, ``3×10⁸``."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.6g}".replace("-", _MINUS)
    mantissa, exponent = f"{value:.3e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPTS)
    factor = f"{float(mantissa):g}".replace("-", _MINUS)
    return factor.removesuffix("1") + power if factor in ("1", f"{_MINUS}1") else factor + _TIMES + power
