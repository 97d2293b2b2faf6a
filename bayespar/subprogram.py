"""Sub-programs: kernels written as functions with numpyro sites in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .arrays import Array, is_traced
from .enumeration import Leaf, enumerate_leaves
from .errors import InvalidProgramError, InvalidWorldError, TooLargeError
from .validation import NO_ARRAY, label_name, shown

_MOST_ENTRIES = 2**27  # of a kernel that is made entry by entry


def labels_of(kind: str, given: Sequence[Any] | int | None) -> Sequence[Any] | None:
    """The labels of states, subgoals or observations: those given, or indices where only a count is."""
    if given is None:
        return None
    if isinstance(given, (int, np.integer)) and not isinstance(given, bool) and 0 < given < 2**31:
        return range(int(given))
    try:
        labels = given if isinstance(given, tuple) else tuple(given)  # pyright: ignore[reportArgumentType]
        hash(labels)
        label_name(labels)
    except NO_ARRAY:
        raise InvalidWorldError(f"{kind} = {shown(given)}; give a list of labels, or how many there are") from None
    return labels


# Sub-programs that do not close over a task are the same object under every task; while a program is being
# enumerated, each is enumerated once. The key holds the function itself, so that its id cannot be reused.
kernel_cache: list[dict[Any, Any]] = []


def enumerate_kernel(
    name: str,
    fn: Callable[..., Any],
    inputs: tuple[str, ...],
    outcomes: Sequence[Any] | None,
    labels: Mapping[str, Sequence[Any] | None],
) -> Array:
    """The kernel of a sub-program, [*inputs, outcomes]."""
    what = "observations" if name == "emission" else "states"
    missing = [kind for kind in (*inputs, what) if labels[kind] is None]
    if missing or outcomes is None:
        raise InvalidWorldError(
            f"{name} is a sub-program, so the world must say its {' and '.join(dict.fromkeys(missing))}: "
            "pass a list of labels, or how many there are"
        )
    key = (fn, tuple(labels[kind] for kind in inputs), outcomes)
    if kernel_cache and key in kernel_cache[-1]:
        return kernel_cache[-1][key]
    shape = tuple(len(labels[kind] or ()) for kind in inputs)
    entries = math.prod((*shape, len(outcomes)))
    if entries > _MOST_ENTRIES:
        raise TooLargeError(
            f"{name} is a sub-program, and its kernel would have {entries} entries, more than {_MOST_ENTRIES}; give it "
            "as a Sparse, or use fewer labels",
            8 * entries,
        )
    index = {label: i for i, label in enumerate(outcomes)}
    rows: list[Any] = []
    for place in np.ndindex(*shape):
        arguments = [(labels[kind] or ())[i] for kind, i in zip(inputs, place, strict=True)][::-1]
        row: list[Any] = [0.0] * len(outcomes)
        call = f"{name}({', '.join(shown(a) for a in arguments)})"
        for leaf in enumerate_leaves(lambda a=arguments: fn(*a), what=call):
            outcome = _outcome(leaf, index, call, what)
            row[outcome] = row[outcome] + leaf.weight if is_traced(row[outcome]) or row[outcome] else leaf.weight
        rows += row
    kernel = _weights(rows).reshape(*shape, len(outcomes))
    if kernel_cache and not is_traced(kernel):
        kernel_cache[-1][key] = kernel
    return kernel


def _weights(weights: Sequence[Any]) -> Array:
    """Weights as an array, in the precision of those that have one (a Python number has none)."""
    if is_traced(weights):
        # Entries that are the same tracer are read off one place.
        places: dict[Any, int] = {}
        index = [places.setdefault(id(w) if is_traced(w) else w, len(places)) for w in weights]
        distinct = dict(zip(index, weights, strict=True))
        return jax.numpy.stack([jax.numpy.asarray(distinct[i]) for i in range(len(places))])[np.array(index)]
    dtypes = [w.dtype for w in weights if isinstance(w, np.generic)]
    return np.array(weights, np.result_type(*dtypes) if dtypes else np.float64)


def _outcome(leaf: Leaf, index: Mapping[Any, int], call: str, what: str) -> int:
    value = leaf.value
    if isinstance(value, (jax.Array, np.ndarray, np.generic)) and not is_traced(value) and np.ndim(value) == 0:
        value = np.asarray(value).item()
    try:
        return index[value]
    except (KeyError, TypeError):
        known = ", ".join(shown(label) for label in list(index)[:6])
        raise InvalidProgramError(
            f"{call} returned {shown(value)}, which is not one of the world's {what} ({known}, ...); "
            f"return one of its labels"
        ) from None
