"""Checks of the arrays of a world: shapes always, values whenever they are concrete, before any other work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import Array, as_float_array, is_traced
from .errors import BayesparError, InvalidPlannerError, InvalidWorldError, TooLargeError

# A row is accepted when its sum is this close to 1: rounding of a normalised row stays far below it,
# a typing mistake such as 0.33 + 0.33 + 0.33 far above.
ROW_TOLERANCE = {np.dtype(np.float64): 1e-9, np.dtype(np.float32): 1e-5}


# What numpy, JAX and Python raise for things that are no rectangular array; JAX a SystemError for thousands of levels.
NO_ARRAY = (TypeError, ValueError, OverflowError, RecursionError, SystemError)
_NUMBER = (int, float, np.integer, np.floating)
_LONGEST_SHOWN = 200
_LARGEST_RESULT = 2**34  # bytes


def shown(value: Any) -> str:
    """``value`` as it stands in a message: short, whatever it is, and soon."""
    if isinstance(value, Array) and value.size > _LONGEST_SHOWN:
        return f"<{value.dtype} array of shape {list(value.shape)}>"  # numpy may take minutes where axes are many
    try:
        text = repr(value)
    except Exception:  # Python refuses to print an integer of thousands of digits or a list of thousands of levels
        return f"<{type(value).__name__}>"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def float_array(name: str, value: Any, error: type[BayesparError] = InvalidWorldError) -> Array:
    """``value`` as a float array, or an error that names it."""
    try:
        return as_float_array(value)
    except NO_ARRAY as reason:
        raise error(f"{name}: {reason}; give a rectangular array of real numbers") from None


def check_count(name: str, value: Any) -> int:
    """``value``, if it says how many.

    Raises:
        InvalidPlannerError: not an integer of at least 1.
        TooLargeError: one number for each would not fit.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InvalidPlannerError(f"{name} = {shown(value)}; give an integer of at least 1")
    check_fits(f"{name} = {shown(value)}", 8 * int(value))
    return int(value)


def check_fits(what: str, nbytes: int) -> None:
    """Raise if a result of ``nbytes`` bytes is out of the question; ``what`` asks for it."""
    if nbytes > _LARGEST_RESULT:
        raise TooLargeError(f"{what} would need more than {_LARGEST_RESULT / 1e9:.0f} GB; ask for fewer", nbytes)


def check_fraction(name: str, value: Any) -> float:
    """``value``, if it lies strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, _NUMBER) or not 0 < value < 1:
        raise InvalidPlannerError(f"{name} = {shown(value)}; give a number above 0 and below 1")
    return float(value)


def check_limit(name: str, value: Any, error: type[BayesparError] = InvalidWorldError) -> None:
    """Raise unless ``value`` can be a limit: of bytes, or of how many."""
    if isinstance(value, bool) or not isinstance(value, _NUMBER) or not value > 0:
        raise error(f"{name} = {shown(value)}; give a number above 0")


def check_ndim(name: str, array: Any, allowed: Sequence[int], layout: str) -> None:
    """Raise unless ``array.ndim`` is one of ``allowed``; ``layout`` is the cure, e.g. ``[Z, S] or [S]``."""
    if array.ndim not in allowed:
        raise InvalidWorldError(f"{name} has shape {list(array.shape)}; it must be {layout}")


def check_axis(name: str, array: Any, axis: int, size: int | Iterable[int], meaning: str) -> None:
    """Raise unless axis ``axis`` of ``array`` has one of the sizes ``size``."""
    sizes = (size,) if isinstance(size, int) else tuple(size)
    if array.shape[axis] not in sizes:
        wanted = " or ".join(shown(s) for s in dict.fromkeys(sizes))
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
    """``names`` as strings, if there are ``count`` distinct ones that survive a round trip through text.

    A tuple of strings is returned as it is, so that what else it knows of them (see ``Team``) stays with them.
    """
    try:
        labels = tuple(label_name(n) for n in names)
    except NO_ARRAY:
        raise InvalidWorldError(f"{kind} = {shown(names)}; give a list of {count} names") from None
    if len(labels) != count:
        raise InvalidWorldError(f"{kind} has {len(labels)} names, but the arrays have {count} {kind}")
    for i, label in enumerate(labels):
        if not label or label != label.strip() or len(label.splitlines()) != 1 or not _is_unicode(label):
            raise InvalidWorldError(
                f"{kind}[{i}] = {shown(label)} cannot be written on a line of its own; "
                "a name is non-empty, on one line, and neither starts nor ends with white space"
            )
    if len(set(labels)) != len(labels):
        twice = next(n for n in labels if labels.count(n) > 1)
        raise InvalidWorldError(f"{kind} has the name {shown(twice)} more than once; names must be distinct")
    return names if isinstance(names, tuple) and names == labels else labels


def _is_unicode(text: str) -> bool:
    """Whether the text can be written to a file: half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_sites(sites: Any, tasks: int) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """``sites`` as pairs (name, value under each task), if there is a value for each task that can be looked up."""
    if not isinstance(sites, Mapping):
        raise InvalidWorldError(f"sites = {shown(sites)}; give a dict: name -> the value under each task")
    checked = []
    for name, given in sites.items():
        place = f"sites[{shown(name)}]"
        try:
            values = tuple(given)
            hash(values)
        except NO_ARRAY:
            raise InvalidWorldError(f"{place} = {shown(given)}; give a list of numbers or words") from None
        if any(v != v for v in values):
            raise InvalidWorldError(f"{place} = {shown(given)} has a NaN, which equals nothing, itself included")
        if len(values) != tasks:
            raise InvalidWorldError(f"{place} has {len(values)} values; give one for each of the {tasks} tasks")
        checked.append((str(name), values))
    return tuple(checked)


def label_name(label: Any) -> str:
    """The words for a label: a string stands for itself, a tuple is joined by commas."""
    if isinstance(label, tuple):
        return ", ".join(label_name(part) for part in label)
    return str(label)
