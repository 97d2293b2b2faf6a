"""Array types, and the precision in which an entry point works.

JAX silently turns float64 into float32 unless ``jax_enable_x64`` is set, and a library must not set it for
its users. So concrete inputs are kept as numpy arrays in the precision in which they came, and every entry
point does its work inside :func:`precision_of`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

Array = np.ndarray | jax.Array


def is_traced(*trees: Any) -> bool:
    """Whether any leaf of ``trees`` is being traced by a JAX transformation."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


@contextlib.contextmanager
def precision_of(*trees: Any) -> Iterator[None]:
    """Work in float64 if any concrete leaf of ``trees`` is float64; under a caller's trace, follow the trace."""
    leaves = jax.tree.leaves(trees)
    double = any(getattr(leaf, "dtype", None) == np.float64 for leaf in leaves)
    if double and not any(isinstance(leaf, Tracer) for leaf in leaves):
        with jax.enable_x64(True):
            yield
    else:
        yield


def as_float_array(value: Any) -> Array:
    """``value`` as a float array: a tracer stays one, everything concrete becomes numpy of the same precision.

    Integers and Python numbers become float64, half precision becomes float32.

    Raises:
        TypeError: ``value`` is not an array of real numbers.
    """
    if isinstance(value, Tracer):
        return value
    if isinstance(value, (list, tuple)) and is_traced(value):
        return jax.numpy.asarray(value)
    array = np.asarray(value)
    if array.dtype in (np.float32, np.float64):
        return array
    if jax.numpy.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):  # of a long double: the infinity is then refused by its index
            return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    raise TypeError(f"expected real numbers, got an array of dtype {array.dtype}")
