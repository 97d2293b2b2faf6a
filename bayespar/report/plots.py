"""Curves and bars drawn by matplotlib: object by object, with no global state and nobody's settings but these."""

from __future__ import annotations

import contextlib
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from ..errors import BayesparError
from ..theory.figure import Bars, Curves
from .palette import PALETTE, LineStyle, line_styles
from .scales import drawable, limits, set_scale, tick

WIDTH, HEIGHT, BAR_HEIGHT = 400.0, 264.0, 42.0  # in points, as many as CSS pixels on a narrow page
_BAND_POINTS = 400
_MARKS = 6
_POINTS_PER_INCH = 72
_SETTINGS = {
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "text.parse_math": False,  # a dollar is a dollar
    "text.color": PALETTE["ink"][0],
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "axes.labelcolor": PALETTE["muted"][0],
    "axes.edgecolor": PALETTE["muted"][0],
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALETTE["line"][0],
    "grid.linewidth": 0.7,
    "xtick.color": PALETTE["muted"][0],
    "ytick.color": PALETTE["muted"][0],
    "svg.fonttype": "none",
    "svg.hashsalt": "bayespar",
}


@contextlib.contextmanager
def plain_style() -> Iterator[None]:
    """Settings of our own inside, whatever a user's file or earlier code says; theirs are back afterwards."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the reader's browser may well have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def draw(figure: Curves | Bars) -> Canvas:
    """The plot without title, legend and note, on a transparent ground; call it inside :func:`plain_style`."""
    height = HEIGHT if isinstance(figure, Curves) else BAR_HEIGHT * max(len(figure.labels), 1) + 46
    canvas = Canvas(figsize=(WIDTH / _POINTS_PER_INCH, height / _POINTS_PER_INCH))
    canvas.patch.set_alpha(0)
    axes = canvas.add_subplot()
    axes.patch.set_alpha(0)
    if isinstance(figure, Curves):
        _curves(axes, figure)
    else:
        _bars(axes, figure)
    # Margins by the length of the words: much faster than matplotlib's own layouts, and near enough.
    ticks = [tick(value) for value in axes.get_yticks()] if isinstance(figure, Curves) else []
    left = 10 + 6.6 * max((len(t) for t in ticks), default=0)
    top = 26 if isinstance(figure, Curves) else 4
    axes.set_position((left / WIDTH, 42 / height, 1 - (left + 12) / WIDTH, 1 - (42 + top) / height))
    return canvas


def write_plot(figure: Curves | Bars, path: Path) -> None:
    """Write a figure with its title, legend and note, in light colours, as SVG or PNG by the suffix of ``path``.

    Raises:
        BayesparError: the suffix is another one.
    """
    suffix = path.suffix.lower()
    if suffix not in (".svg", ".png"):
        raise BayesparError(f"cannot write {path.name}: a plot is written as .svg or .png")
    metadata = {"Date": None, "Creator": None} if suffix == ".svg" else {"Software": None}
    with plain_style():
        canvas = draw(figure)
        canvas.patch.set(alpha=1, facecolor=PALETTE["paper"][0])
        _frame(canvas, figure)
        canvas.savefig(path, format=suffix[1:], metadata=metadata, bbox_inches="tight", pad_inches=0.12, dpi=160)


def undrawn(figure: Curves | Bars) -> int:
    """How many points have no place on the axes and are left out."""
    if isinstance(figure, Bars):
        return int(np.isnan(drawable(figure.values, False)).sum())
    return sum(
        int((np.isnan(drawable(s.x, figure.log)) | np.isnan(drawable(s.y, figure.log))).sum()) for s in figure.series
    )


def _curves(axes: Axes, figure: Curves) -> None:
    log = figure.log
    xs = [drawable(s.x, log) for s in figure.series]
    ys = [drawable(s.y, log) for s in figure.series]
    edges = [drawable(e, log) for s in figure.series for e in (s.low, s.high) if e is not None]
    x_limits, y_limits = limits(xs, log), limits([*ys, *edges], log)
    set_scale(axes, "x", x_limits, log)
    set_scale(axes, "y", y_limits, log)
    for s, style, x, y in zip(figure.series, line_styles(figure.series), xs, ys, strict=True):
        if s.low is not None and s.high is not None:
            _band(axes, x, np.asarray(s.low, float), np.asarray(s.high, float), y_limits, style)
        marks = _marks(x, y, log)
        marker = style.marker or ("o" if len(marks) == 1 else "")  # one point is no line
        front = 3 if s.kind == "measured" else 2.5
        axes.add_line(Line2D(x, y, **_line(style, marker=marker, markevery=marks, zorder=front)))
    axes.set_title(figure.y_label, loc="left", y=1.02, color=PALETTE["muted"][0])
    axes.set_xlabel(figure.x_label, loc="right")
    axes.tick_params(length=3, width=0.8, labelsize=10.5)
    axes.tick_params(which="minor", length=2, width=0.5)


def _band(
    axes: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, within: tuple[float, float], style: LineStyle
) -> None:
    """Fill between ``low`` and ``high``; what lies beyond the axis (zero on a log axis, infinity) ends at its edge."""
    keep = ~(np.isnan(x) | np.isnan(low) | np.isnan(high))
    thin = np.unique(np.linspace(0, len(x) - 1, min(len(x), _BAND_POINTS)).astype(int)) if len(x) else slice(0)
    low, high = (np.clip(np.where(keep, e, within[0]), *within)[thin] for e in (low, high))
    axes.fill_between(
        np.where(keep, x, np.nan)[thin],
        low,
        high,
        where=keep[thin].tolist(),
        color=PALETTE[style.colour][0],
        alpha=0.18,
        linewidth=0,
    )


def _line(style: LineStyle, **more: Any) -> dict[str, Any]:
    """The arguments of matplotlib's ``Line2D`` for a style."""
    line = {"color": PALETTE[style.colour][0], "linewidth": style.width, "marker": style.marker, "markersize": 5.5}
    if style.dashes:
        line["linestyle"] = (0, style.dashes)
    return line | more


def _marks(x: np.ndarray, y: np.ndarray, log: bool) -> list[int]:
    """A few drawn points, evenly spread along the axis."""
    drawn = np.flatnonzero(~(np.isnan(x) | np.isnan(y)))
    if not len(drawn):
        return []
    place = np.log10(x[drawn]) if log else x[drawn]
    spread = np.linspace(place.min(), place.max(), _MARKS)
    return sorted({int(drawn[np.abs(place - at).argmin()]) for at in spread})


def _bars(axes: Axes, figure: Bars) -> None:
    """Each label stands above its bar, so that long names need no margin."""
    values = drawable(figure.values, False)
    shown = np.nan_to_num(values)
    rows = np.arange(len(shown))
    axes.barh(rows, shown, height=0.3, color=PALETTE["blue"][0])
    low, high = min(0.0, float(shown.min(initial=0))), max(0.0, float(shown.max(initial=0)))
    room = 0.12 * ((high - low) or 1.0)
    set_scale(axes, "x", (low - (room if low < 0 else 0), high + room), False)
    axes.set_ylim(max(len(shown), 1) - 0.7, -0.7)
    for row, label, value, given in zip(rows, figure.labels, shown, figure.values, strict=True):
        words = " ".join(label.split())
        axes.text(low, row - 0.22, words if len(words) <= 54 else f"{words[:53].rstrip()}…", ha="left", va="bottom")
        number = tick(float(f"{given:.3g}")) if np.isfinite(given) else f"{given:g}"
        axes.annotate(
            number,
            (max(float(value), 0.0), float(row)),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            color=PALETTE["muted"][0],
        )
    if low < 0:
        axes.axvline(0, color=PALETTE["muted"][0], linewidth=0.8)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(length=3, width=0.8, labelsize=10.5)
    axes.set_xlabel(figure.x_label, loc="right")


def _frame(canvas: Canvas, figure: Curves | Bars) -> None:
    """Title and note above, legend below."""
    height = canvas.get_size_inches()[1] * _POINTS_PER_INCH
    note = textwrap.fill(figure.note, 64)
    above = 1 + (8 + 15 * len(note.splitlines())) / height
    canvas.text(0.02, 1 + 6 / height, note, va="bottom", color=PALETTE["muted"][0])
    title = textwrap.fill(figure.title, 50)
    canvas.text(0.02, above, title, va="bottom", fontsize=12.5, fontweight="bold")
    if isinstance(figure, Curves):
        canvas.legend(
            [Line2D([], [], **_line(s)) for s in line_styles(figure.series)],
            [f" {textwrap.fill(s.name, 60)}" for s in figure.series],  # a first underscore would hide it
            loc="upper left",
            bbox_to_anchor=(0.0, 0.0),
            frameon=False,
            alignment="left",
            handlelength=3.2,
        )
