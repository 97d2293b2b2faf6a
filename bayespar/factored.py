"""Kernels of several Actors who move independently, kept as one small kernel each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .arrays import Array, is_traced
from .errors import InvalidWorldError, TooLargeError
from .literal import LARGEST_SHOWN, call, nested
from .validation import NO_ARRAY, check_finite, check_ndim, float_array, shown

_LARGEST_DENSE = 2**31  # bytes


class Factored(eqx.Module):
    """A transition kernel of K Actors who move independently: P(s' | s, g) = prod_k P_k(s_k' | s_k, g_k).

    The joint state counts the last Actor's states fastest, as a :class:`Team` counts joint subgoals. Predicting with it
    costs S (S_1 + ... + S_K) where the dense kernel costs S^2, with S = S_1 ... S_K, and it takes G_k S_k^2 numbers an
    Actor where the dense one takes G S^2.

    Attributes:
        factors: P_k of each Actor, [..., G_k, S_k, S_k'].
        subgoal_sizes: G_1..G_K.
        state_sizes: S_1..S_K.

    Source: theory.md, section 7.
    """

    factors: tuple[Float[Array, ...], ...]
    subgoal_sizes: tuple[int, ...] = eqx.field(static=True)
    state_sizes: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, factors: Any):
        """
        Args:
            factors: an array [G_k, S_k, S_k'] or [H-1, G_k, S_k, S_k'] for each Actor of one world, all with as many
                axes; or whatever has a method ``compose`` that makes one, such as a :class:`TwoLevel`.

        Raises:
            InvalidWorldError: no factors, or one that is no square kernel of finite numbers.
        """
        try:
            given = list(factors)
        except NO_ARRAY:
            given = []
        if not given or not isinstance(factors, (list, tuple)):
            raise InvalidWorldError(f"factors = {shown(factors)}; give a list with a kernel for each Actor")
        arrays = [_one_factor(f"transition.factors[{k}]", f) for k, f in enumerate(given)]
        for k, array in enumerate(arrays):
            name = f"transition.factors[{k}]"
            check_ndim(name, array, (3, 4, 5), "[G_k, S_k, S_k'] or [H-1, G_k, S_k, S_k']")
            if array.ndim != arrays[0].ndim:
                raise InvalidWorldError(
                    f"{name} has {array.ndim} axes and transition.factors[0] {arrays[0].ndim}; give all of them the "
                    "axis of steps, or none (an axis of size 1 means that all steps are alike)"
                )
            if array.shape[-1] != array.shape[-2] or 0 in array.shape[-3:]:
                raise InvalidWorldError(f"{name} has shape {list(array.shape)}; its last axes are [G_k, S_k, S_k']")
        self.factors = tuple(arrays)
        self.subgoal_sizes = tuple(a.shape[-3] for a in arrays)
        self.state_sizes = tuple(a.shape[-1] for a in arrays)

    def __repr__(self) -> str:
        """The source that builds this kernel, where it is small."""
        if (
            not all(isinstance(a, np.ndarray) for a in self.factors)
            or sum(a.size for a in self.factors) > LARGEST_SHOWN
        ):
            return super().__repr__()
        return call("bp.Factored", f"[{', '.join(map(nested, self.factors))}]")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the dense kernel, [..., G, S, S']."""
        lead = [max(sizes) for sizes in zip(*(a.shape[:-3] for a in self.factors), strict=True)]
        S = math.prod(self.state_sizes)
        return (*lead, math.prod(self.subgoal_sizes), S, S)

    @property
    def ndim(self) -> int:
        """Number of axes of the dense kernel."""
        return self.factors[0].ndim

    def split(self, subgoal: Any) -> list[Any]:
        """Each Actor's own subgoal in a joint one; works under a trace."""
        return unravel(subgoal, self.subgoal_sizes)

    def dense(self) -> Float[Array, "*rows S S2"]:
        """The same kernel as a dense array [..., G, S, S'].

        Raises:
            TooLargeError: it would take more than 2 GiB.
        """
        entries = math.prod(self.shape)
        if 8 * entries > _LARGEST_DENSE:
            raise TooLargeError(
                f"the joint kernel of {len(self.factors)} Actors would have shape {list(self.shape)} and take "
                f"{8 * entries / 1e9:.1f} GB; use what keeps kernels factored (log_evidence, Filter, posterior, "
                'solve_experts(method="histories"), simulate_regret)',
                8 * entries,
            )
        xp = jnp if is_traced(self) else np
        out = self.factors[0]
        for f in self.factors[1:]:
            joint = xp.einsum("...gst,...hvw->...ghsvtw", out, f)
            *lead, g, h, s, v, t, w = joint.shape
            out = joint.reshape(*lead, g * h, s * v, t * w)
        return out


def at_subgoal(kernel: Any, subgoal: Any, take: Callable[[Array, Any], Any]) -> Any:
    """``take(array, subgoal)`` for every array of a kernel of any kind; a factor's subgoal is its Actor's own."""
    if not isinstance(kernel, Factored):
        return jax.tree.map(lambda a: take(a, subgoal), kernel)
    rows = [take(f, g) for f, g in zip(kernel.factors, kernel.split(subgoal), strict=True)]
    return jax.tree.unflatten(jax.tree.structure(kernel), rows)


def unravel(index: Any, sizes: Sequence[int]) -> list[Any]:
    """``numpy.unravel_index`` in plain arithmetic, so that it also works under a trace."""
    parts = []
    for size in reversed(sizes):
        index, part = index // size, index % size
        parts.append(part)
    return parts[::-1]


def _one_factor(name: str, factor: Any) -> Array:
    if hasattr(factor, "compose"):
        factor = factor.compose()
    if hasattr(factor, "next_states"):
        factor = factor.dense(factor.shape[-2])
    array = float_array(name, factor)
    check_finite(name, array)
    return array
