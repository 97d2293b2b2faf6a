"""Pictures of grid worlds: walls, landmarks, what an Actor does in every cell, and where a walker went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from .palette import PALETTE

Cell = tuple[int, int]


def draw_grid(
    axes: Axes,
    size: int,
    cells: Iterable[Cell],
    *,
    landmarks: Mapping[str, Cell] | None = None,
    closed: Iterable[Cell] = (),
    arrows: Mapping[Cell, tuple[int, int]] | None = None,
    path: Sequence[Cell] = (),
) -> None:
    """Draw a grid of ``size`` rows and columns; a place is (row, column), and row 0 is at the top.

    Args:
        axes: where to draw.
        size: rows and columns, outer walls included.
        cells: places without a wall.
        landmarks: a letter or a short word -> where it stands.
        closed: doors that do not open.
        arrows: the step (rows, columns) that is taken in a cell; (0, 0) is drawn as a dot. Landmarks and closed doors
            show none.
        path: cells in the order in which they were visited; it ends in a ring.
    """
    landmarks, closed = landmarks or {}, list(closed)
    colours = np.full((size, size, 3), to_rgb(PALETTE["muted"][0]))
    for places, colour in ((cells, "paper"), (closed, "bad"), (landmarks.values(), "line")):
        for place in places:
            colours[place] = to_rgb(PALETTE[colour][0])
    axes.imshow(colours, interpolation="nearest")
    covered = {*landmarks.values(), *closed}
    taken = [(*cell, *step) for cell, step in (arrows or {}).items() if cell not in covered]
    row, column, down, right = np.array(taken, float).reshape(-1, 4).T
    still, blue = (down == 0) & (right == 0), PALETTE["blue"][0]
    axes.plot(column[still], row[still], ".", color=blue, markersize=3)
    shape = {"angles": "xy", "scale_units": "xy", "scale": 1.5, "width": 0.006, "headwidth": 4.5, "headlength": 4.5}
    axes.quiver(column[~still], row[~still], right[~still], down[~still], pivot="mid", color=blue, **shape)
    for name, (r, c) in landmarks.items():
        axes.text(
            c, r, name, ha="center", va="center", fontsize=8, fontweight="bold", color=PALETTE["ink"][0], zorder=4
        )
    if path:
        warm = PALETTE["vermillion"][0]
        axes.plot([c for _, c in path], [r for r, _ in path], color=warm, lw=2, alpha=0.7, solid_capstyle="round")
        ring = {"marker": "o", "markersize": 9, "markeredgewidth": 2.2, "markerfacecolor": "none"}
        axes.plot(path[-1][1], path[-1][0], color=warm, zorder=5, **ring)
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal", xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
