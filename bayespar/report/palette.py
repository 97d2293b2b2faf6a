"""Colours, dashes and markers of the figures and of the page, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..theory.figure import Series

# Light and dark, at least 4.5 : 1 against the paper for text and 3 : 1 for lines. The series colours are told apart
# with any common colour blindness, and markers and dashes repeat what they say. Each light colour is used once: a
# drawing is made with them, and names are put in their place.
PALETTE: dict[str, tuple[str, str]] = {
    "paper": ("#fefefe", "#15181c"),
    "sheet": ("#f5f5f2", "#1d2126"),
    "ink": ("#1b1e22", "#e6e4df"),
    "muted": ("#5c6168", "#a0a5ab"),
    "line": ("#d9d9d4", "#363b42"),
    "good": ("#17683c", "#6fcf97"),
    "bad": ("#b3261e", "#ff8a80"),
    "doubt": ("#8a5a00", "#e8b84a"),
    "blue": ("#0a62ab", "#63b0f2"),
    "vermillion": ("#cb4f0c", "#f5925a"),
    "green": ("#0b8465", "#43c79f"),
    "purple": ("#a23a86", "#e492cb"),
    "ochre": ("#7a6308", "#d8bf57"),
}
SERIES_COLOURS = ("blue", "vermillion", "green", "purple", "ochre")

# As matplotlib names them, and as paths around the middle of a 32 by 12 key.
MARKERS = {
    "o": "M12.6,6a3.4,3.4 0 1,0 6.8,0a3.4,3.4 0 1,0 -6.8,0z",
    "s": "M13,3h6v6h-6z",
    "^": "M16,2l3.8,7h-7.6z",
    "D": "M16,2l4,4l-4,4l-4,-4z",
    "v": "M16,10l3.8,-7h-7.6z",
    "": "",
}
DASHES: dict[str, tuple[float, ...]] = {"measured": (), "bound": (6.0, 3.0), "reference": (1.2, 2.6)}
WIDTHS = {"measured": 1.9, "bound": 1.6, "reference": 1.2}


@dataclass(frozen=True)
class LineStyle:
    """How a series is drawn.

    Attributes:
        colour: a name in ``PALETTE``.
        dashes: on and off lengths; empty for a solid line.
        width: of the line.
        marker: a name in ``MARKERS``, "" for none.
    """

    colour: str
    dashes: tuple[float, ...]
    width: float
    marker: str


def line_styles(series: Sequence[Series]) -> list[LineStyle]:
    """One style a series: the dash says its kind, colour and marker which of that kind it is."""
    shapes = [name for name in MARKERS if name]
    kinds = [s.kind for s in series]
    coloured = 0
    out = []
    for i, kind in enumerate(kinds):
        rank = kinds[:i].count(kind)
        alone = kinds.count(kind) == 1
        colour = "muted" if kind == "reference" else SERIES_COLOURS[coloured % len(SERIES_COLOURS)]
        coloured += kind != "reference"
        # From the sixth line on colours come again, with another marker.
        marker = "" if alone else shapes[(rank + rank // len(shapes)) % len(shapes)]
        out.append(LineStyle(colour, DASHES[kind], WIDTHS[kind], marker))
    return out
