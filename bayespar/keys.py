"""Randomness: a JAX key, or an int that stands for one."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .errors import InvalidPlannerError
from .validation import shown


def check_key(key: Any) -> None:
    """Raise unless ``key`` is a JAX key or an int of 64 bits; nothing is compiled."""
    if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
        if -(2**63) <= key < 2**63:
            return
    elif isinstance(key, (np.ndarray, jax.Array)):
        shape = () if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else (2,)
        if key.shape == shape and (shape == () or key.dtype == np.uint32):
            return
    raise InvalidPlannerError(f"key = {shown(key)}; give an integer of at most 63 bits, or a JAX key")


def as_key(key: Any) -> Any:
    """A JAX key, from one or an int.

    Raises:
        InvalidPlannerError: neither.
    """
    check_key(key)
    if isinstance(key, (int, np.integer)):
        return jax.random.key(key)
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)
