"""What a check is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .case import Case, Estimator


class Equation(NamedTuple):
    """Two numbers, or arrays of numbers, that must be equal.

    Attributes:
        left, right: what is compared, in words.
        found, expected: their values, of one shape.
    """

    left: str
    found: Any
    right: str
    expected: Any

    def error(self) -> float:
        """The largest difference; infinite where one side is NaN or only one is infinite."""
        found, expected = np.asarray(self.found, np.float64), np.asarray(self.expected, np.float64)
        if np.isnan(found).any() or np.isnan(expected).any():
            return np.inf
        with np.errstate(invalid="ignore"):
            return float(np.where(found == expected, 0.0, np.abs(found - expected)).max(initial=0.0))


@dataclass(frozen=True, eq=False)
class ExactCheck:
    """A property that a right function has in every case, to rounding.

    Attributes:
        name: as shown.
        roles: the roles that it applies to.
        equations: what must hold in a case, given the function; its docstring says what it catches.
        draw: options of the cases that it is tried on: see :func:`bayespar.testing.run.cases`.
        changes_world: whether it calls the function with a world made from the given one.
    """

    name: str
    roles: tuple[str, ...]
    equations: Callable[[Estimator, Case], Iterator[Equation]]
    draw: Mapping[str, Any] = field(default_factory=dict)
    changes_world: bool = False

    @property
    def documentation(self) -> dict[str, str]:
        """The docstring: "property", "catches", "blind to" and "cost"."""
        return documentation(self.equations)


@dataclass(frozen=True, eq=False)
class StatisticalCheck:
    """A property of averages: statistics in [-1, 1] whose mean is 0 if the function is right.

    Attributes:
        name: as shown.
        roles: the roles that it applies to.
        statistics: ``(function, world, rng, count) -> [count, K]``, independent draws; its docstring says what it
            catches.
        one_sided: a mean below 0 is right too.
    """

    name: str
    roles: tuple[str, ...]
    statistics: Callable[..., np.ndarray]
    one_sided: bool = False

    @property
    def documentation(self) -> dict[str, str]:
        """The docstring: "property", "catches", "blind to" and "cost"."""
        return documentation(self.statistics)


def documentation(function: Callable[..., Any]) -> dict[str, str]:
    """A check's docstring, cut into "property", "catches", "blind to" and "cost".

    Raises:
        ValueError: a part is missing.
    """
    parts, current = {"property": ""}, "property"
    for line in (inspect.getdoc(function) or "").splitlines():
        head, separator, rest = line.partition(": ")
        if separator and head in ("Catches", "Blind to", "Cost"):
            current, line = head.lower(), rest
        parts[current] = f"{parts.get(current, '')} {line.strip()}".strip()
    missing = {"property", "catches", "blind to", "cost"} - {k for k, v in parts.items() if v}
    if missing:
        raise ValueError(f"the docstring of {function.__name__} does not say: {', '.join(sorted(missing))}")
    return parts
