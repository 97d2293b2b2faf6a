"""How plots for a notebook look: axes in the report's style, whatever the user's settings are."""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .palette import PALETTE, SERIES_COLOURS
from .plots import plain_style

F = TypeVar("F", bound=Callable[..., Any])


def styled(plot: F) -> F:
    """``plot``, run with settings of our own, which are undone afterwards."""

    @functools.wraps(plot)
    def run(*arguments: Any, **more: Any) -> Any:
        with plain_style(), matplotlib.rc_context({"font.size": 9.5, "axes.labelsize": 9.5, "legend.fontsize": 9}):
            return plot(*arguments, **more)

    return run  # pyright: ignore[reportReturnType]


def new_figure(width: float, height: float) -> Figure:
    """A figure, in inches, that a notebook shows by itself."""
    from matplotlib import pyplot

    return pyplot.figure(figsize=(width, height), layout="constrained")


def new_axes(ax: Axes | None, width: float, height: float) -> Axes:
    """``ax``, or the axes of a new figure."""
    return new_figure(width, height).add_subplot() if ax is None else ax


def frame(ax: Axes, title: str, grid: str = "both", legend: bool = True) -> Axes:
    """Title, grid, and a legend that hides nothing: to the right of the axes."""
    ax.set_title(title, loc="left", fontweight="bold", fontsize=10.5)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(False)
    if grid != "none":
        ax.grid(True, axis=grid, color=PALETTE["line"][0], lw=0.6)  # pyright: ignore[reportArgumentType]
    ax.set_axisbelow(True)
    if legend and ax.get_legend_handles_labels()[0]:
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, borderaxespad=0.2)
    return ax


def whole_numbers(ax: Axes) -> None:
    """Ticks of the horizontal axis at whole numbers only."""
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def colour(rank: int) -> str:
    """The colour of the series of a rank; they come again after the fifth, lighter."""
    return PALETTE[SERIES_COLOURS[rank % len(SERIES_COLOURS)]][rank // len(SERIES_COLOURS) % 2]


def short(words: Any, most: int = 44) -> str:
    """``words``, cut where they are too long for a legend."""
    text = " ".join(str(words).split())
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"


def wrapped(words: Any, width: int = 36) -> str:
    """``words`` on at most three lines, for legends."""
    return "\n".join(textwrap.wrap(" ".join(str(words).split()), width, max_lines=3, placeholder="…"))
