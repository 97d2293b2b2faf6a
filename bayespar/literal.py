"""Arrays and objects as Python source that builds them again: what ``repr`` of a small world shows."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np

LARGEST_SHOWN = 400
"""Entries of the arrays of an object whose ``repr`` is still its source."""


def number(value: Any) -> str:
    """A number as source: small fractions as fractions, so that a row of a kernel can be read."""
    if not isinstance(value, (float, np.floating)):
        return repr(value.item() if isinstance(value, np.generic) else value)
    exact = float(value)
    if not np.isfinite(exact):
        return f'float("{exact}")'
    if exact.is_integer():
        return str(int(exact))
    near = Fraction(exact).limit_denominator(99)
    if type(value)(near.numerator) / type(value)(near.denominator) == value:
        return min(f"{near.numerator}/{near.denominator}", repr(exact), key=len)
    return repr(exact)


def nested(array: Any) -> str:
    """An array as nested lists."""
    array = np.asarray(array)
    if array.ndim == 0:
        return number(array[()])
    return "[" + ", ".join(nested(a) for a in array) + "]"


def call(name: str, *positional: str, **named: str | None) -> str:
    """A call as source; named arguments that are None are left out."""
    given = [f"{key}={value}" for key, value in named.items() if value is not None]
    return f"{name}({', '.join([*positional, *given])})"


def names(given: tuple[str, ...], kind: str) -> str | None:
    """Names as source, or None if they are the default ones, "kind 0", "kind 1", ..."""
    default = tuple(f"{kind} {i}" for i in range(len(given)))
    if given == default:
        return None
    return repr(list(given)) if type(given) is tuple else repr(given)


def summary(name: str, sizes: Mapping[str, Any]) -> str:
    """What stands for an object that is too large to be shown."""
    return f"<{name}: {', '.join(f'{key} = {value}' for key, value in sizes.items())}>"
