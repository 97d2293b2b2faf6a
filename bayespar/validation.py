"""Checks of the arrays of a world: shapes always, values whenever they are concrete, before any other work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .arrays import Array, as_float_array, is_traced
from .errors import InvalidWorldError

# A row is accepted when its sum is this close to 1: rounding of a normalised row stays far below it,
# a typing mistake such as 0.33 + 0.33 + 0.33 far above.
ROW_TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}


def float_array(name: str, value: Any) -> Array:
    """``value`` as a float array, or an error that names it."""
    try:
        return as_float_array(value)
    except (TypeError, ValueError) as error:
        raise InvalidWorldError(f"{name}: {error}; give a rectangular array of real numbers") from None


def check_ndim(name: str, array: Any, allowed: Sequence[int], layout: str) -> None:
    """Raise unless ``array.ndim`` is one of ``allowed``; ``layout`` is the cure, e.g. ``[Z, S] or [S]``."""
    if array.ndim not in allowed:
        raise InvalidWorldError(f"{name} has shape {list(array.shape)}; it must be {layout}")


def check_axis(name: str, array: Any, axis: int, size: int | Iterable[int], meaning: str) -> None:
    """Raise unless axis ``axis`` of ``array`` has one of the sizes ``size``."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    if array.shape[axis] not in sizes:
        wanted = " or ".join(str(s) for s in dict.fromkeys(sizes))
        raise InvalidWorldError(
            f"{name} has shape {list(array.shape)}: axis {axis} has size {array.shape[axis]}, but {meaning} is {wanted}"
        )


def _first(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def check_finite(name: str, array: Array) -> None:
    """Raise if a concrete array holds NaN or infinity."""
    if is_traced(array):
        return
    bad = ~np.isfinite(array)
    if bad.any():
        index = _first(bad)
        raise InvalidWorldError(f"{name}[{_index(index)}] is {np.asarray(array)[index]}; every entry must be finite")


def check_rows(name: str, array: Array) -> None:
    """Raise unless every row (last axis) of a concrete array is a probability distribution."""
    if is_traced(array):
        return
    check_finite(name, array)
    if (array < 0).any():
        index = _first(np.asarray(array) < 0)
        raise InvalidWorldError(
            f"{name}[{_index(index)}] = {float(array[index]):g} is negative; probabilities must be at least 0"
        )
    totals = np.asarray(array, dtype=np.float64).sum(axis=-1)
    off = np.abs(totals - 1) > ROW_TOLERANCE[np.dtype(array.dtype)]
    if off.any():
        index = _first(off) if totals.ndim else ()
        place = f"{name}[{_index(index)}]" if index else name
        raise InvalidWorldError(
            f"{place} sums to {float(totals[index]):.10g}, not 1; every row must be a distribution: "
            "divide it by its sum if that is what you mean"
        )


def check_range(name: str, array: Array, low: float, high: float) -> None:
    """Raise unless every entry of a concrete array lies in [low, high]."""
    if is_traced(array):
        return
    check_finite(name, array)
    bad = (np.asarray(array) < low) | (np.asarray(array) > high)
    if bad.any():
        index = _first(bad)
        raise InvalidWorldError(
            f"{name}[{_index(index)}] = {float(array[index]):g} lies outside [{low:g}, {high:g}]; "
            f"rescale {name} (regrets scale with it)"
        )


def _index(index: Iterable[int]) -> str:
    return ", ".join(str(i) for i in index)


def check_names(kind: str, names: Sequence[Any], count: int) -> tuple[str, ...]:
    """``names`` as strings, if there are ``count`` distinct ones that survive a round trip through text."""
    labels = tuple(label_name(n) for n in names)
    if len(labels) != count:
        raise InvalidWorldError(f"{kind} has {len(labels)} names, but the arrays have {count} {kind}")
    for i, label in enumerate(labels):
        if not label or label != label.strip() or len(label.splitlines()) != 1:
            raise InvalidWorldError(
                f"{kind}[{i}] = {label!r} cannot be written on a line of its own; "
                "a name is non-empty, on one line, and neither starts nor ends with white space"
            )
    if len(set(labels)) != len(labels):
        twice = next(n for n in labels if labels.count(n) > 1)
        raise InvalidWorldError(f"{kind} has the name {twice!r} more than once; names must be distinct")
    return labels


def label_name(label: Any) -> str:
    """The words for a label: a string stands for itself, a tuple is joined by commas."""
    if isinstance(label, tuple):
        return ", ".join(label_name(part) for part in label)
    return str(label)
