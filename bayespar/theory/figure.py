"""What a check may draw, as plain data; :mod:`bayespar.report` renders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        name: in the legend.
        x, y: points, of one length.
        low, high: a band around ``y``, or None.
        kind: "measured" (computed or simulated), "bound" (what a theorem promises), or "reference" (a baseline).
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    kind: Literal["measured", "bound", "reference"] = "measured"


@dataclass(frozen=True)
class Curves:
    """Lines over a common x axis.

    Attributes:
        title, x_label, y_label: words and units.
        series: the lines.
        log: both axes logarithmic.
        note: one line below the plot, or "".
    """

    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    log: bool = False
    note: str = ""


@dataclass(frozen=True)
class Bars:
    """One bar a label.

    Attributes:
        title, x_label: words and units of the values.
        labels, values: of one length.
        note: one line below the plot, or "".
    """

    title: str
    x_label: str
    labels: Sequence[str]
    values: Sequence[float]
    note: str = ""


@dataclass(frozen=True)
class Branch:
    """One thing that is said or chosen, and what may follow.

    Attributes:
        words: an observation or a subgoal.
        kind: which of the two.
        probability: of this branch given the one above it (of an observation: under the mixture of tasks).
        children: what may follow; fewer than all where the rest was left out.
    """

    words: str
    kind: Literal["observation", "subgoal"]
    probability: float
    children: tuple[Branch, ...] = ()


@dataclass(frozen=True)
class PolicyTree:
    """A policy in the world's own words.

    Attributes:
        title: which policy.
        branches: first observations.
        note: one line below, or "".
    """

    title: str
    branches: tuple[Branch, ...]
    note: str = ""


Figure = Curves | Bars | PolicyTree
