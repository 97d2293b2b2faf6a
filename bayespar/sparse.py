"""Transition kernels stored as a few possible successors for each row."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from .arrays import Array, is_traced
from .errors import InvalidWorldError
from .literal import LARGEST_SHOWN, call, nested
from .validation import NO_ARRAY, check_finite, float_array


class Sparse(eqx.Module):
    """A transition kernel stored as K possible successors for each row.

    Attributes:
        next_states: successor states [..., K], integers.
        probabilities: their probabilities [..., K]; each row sums to 1. A successor may occur twice in a row
            (its probabilities add) and a slot may be padded with probability 0.
    """

    next_states: Int[Array, "*rows K"]
    probabilities: Float[Array, "*rows K"]

    def __init__(self, next_states: Any, probabilities: Any):
        """
        Raises:
            InvalidWorldError: the two arrays differ in shape, ``next_states`` are no indices, or a probability is not
                finite.
        """
        self.probabilities = float_array("transition.probabilities", probabilities)
        try:
            states = next_states if is_traced(next_states) else np.asarray(next_states)
        except NO_ARRAY:
            raise InvalidWorldError("transition.next_states is ragged; give a rectangular array of states") from None
        if not jax.numpy.issubdtype(states.dtype, np.integer):
            raise InvalidWorldError(f"transition.next_states has dtype {states.dtype}; states are integers")
        if states.shape != self.probabilities.shape:
            raise InvalidWorldError(
                f"transition.next_states has shape {list(states.shape)} and transition.probabilities "
                f"{list(self.probabilities.shape)}; they must be equal"
            )
        check_finite("transition.probabilities", self.probabilities)
        if not is_traced(states) and states.size:
            check_successors(states, np.iinfo(np.int32).max)
        self.next_states = states.astype(np.int32)

    def __repr__(self) -> str:
        """The source that builds this kernel, where it is small."""
        arrays = self.next_states, self.probabilities
        if not all(isinstance(a, np.ndarray) for a in arrays) or 2 * self.probabilities.size > LARGEST_SHOWN:
            return super().__repr__()
        return call("bp.Sparse", *(nested(a) for a in arrays))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the two arrays, [..., K]."""
        return tuple(self.probabilities.shape)

    @property
    def ndim(self) -> int:
        """Number of axes, the successor axis K included."""
        return len(self.shape)

    def dense(self, states: int) -> Float[Array, "*rows S"]:
        """The same kernel as a dense array [..., S'], for ``states`` states."""
        rows = int(np.prod(self.shape[:-1], dtype=int))
        if is_traced(self):
            zeros = jax.numpy.zeros((rows, states), self.probabilities.dtype)
            index = jax.numpy.arange(rows)[:, None]
            flat = zeros.at[index, self.next_states.reshape(rows, -1)].add(self.probabilities.reshape(rows, -1))
        else:
            flat = np.zeros((rows, states), self.probabilities.dtype)
            np.add.at(
                flat,
                (np.arange(rows)[:, None], self.next_states.reshape(rows, -1)),
                self.probabilities.reshape(rows, -1),
            )
        return flat.reshape(*self.shape[:-1], states)


def check_successors(next_states: Array, states: int) -> None:
    """Raise if a concrete successor is none of the ``states`` states."""
    if is_traced(next_states):
        return
    bad = (next_states < 0) | (next_states >= states)
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InvalidWorldError(
            f"transition.next_states[{', '.join(map(str, index))}] = {int(next_states[index])}, "
            f"but states run from 0 to {states - 1}; pad unused slots with a valid state and probability 0"
        )
