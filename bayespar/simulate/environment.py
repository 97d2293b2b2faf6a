"""The worlds as a simulator: inverse-CDF draws, one uniform number each, usable inside ``jit``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array
from ..factored import Factored, unravel
from ..keys import as_key
from ..world import Family, Sparse


class Environment(eqx.Module):
    """Cumulative kernels of every task, each row ending in exactly 1; an axis of size 1 is shared.

    Attributes:
        initial: [Z or 1, S].
        transition: [Z or 1, steps, G, S, K], or a Factored of such arrays.
        next_states: successor of each slot, like ``transition``, or None where slot k is state k.
        emission: [Z or 1, S, O].
        instructions: [W].
    """

    initial: Float[Array, "Zi S"]
    transition: Float[Array, "Zt steps G S K"] | Factored
    next_states: Int[Array, "Zt steps G S K"] | None
    emission: Float[Array, "Ze S O"]
    instructions: Float[Array, " W"]

    def __init__(self, family: Family):
        kernel = family.transition
        self.initial = _cumulative(family.initial)
        probabilities = kernel.probabilities if isinstance(kernel, Sparse) else kernel
        self.transition = jax.tree.map(_cumulative, probabilities)
        self.next_states = kernel.next_states if isinstance(kernel, Sparse) else None
        self.emission = _cumulative(family.emission)
        self.instructions = _cumulative(family.instruction_prior)

    def instruct(self, uniform: Float[np.ndarray, "*batch"]) -> Int[np.ndarray, "*batch"]:
        """w, from one uniform number each, outside of traced code: what ``draw`` gives."""
        return np.searchsorted(self.instructions, uniform, side="right").astype(np.int32)

    def start(self, task: Any, uniform: Any) -> Any:
        """s_1 of a task, from one uniform number."""
        return _pick(_row(self.initial, task), uniform)

    def move(self, task: Any, state: Any, step: Any, subgoal: Any, uniform: Any) -> Any:
        """The next state."""
        if 0 in jax.tree.leaves(self.transition)[0].shape:  # H = 1, and a kernel without a step
            return state
        if isinstance(self.transition, Factored):
            return _move_each(self.transition, task, state, step, subgoal, uniform)
        step = jnp.minimum(step, self.transition.shape[1] - 1)
        slot = _pick(_row(self.transition, task, step, subgoal, state), uniform)
        return slot if self.next_states is None else _row(self.next_states, task, step, subgoal, state)[slot]

    def emit(self, task: Any, state: Any, uniform: Any) -> Any:
        """What the Reporter says in ``state``."""
        return _pick(_row(self.emission, task, state), uniform)


def _move_each(kernel: Factored, task: Any, state: Any, step: Any, subgoal: Any, uniform: Any) -> Any:
    """One Actor after the other; where a number falls within the interval that it drew is again uniform."""
    own = zip(kernel.factors, kernel.split(subgoal), unravel(state, kernel.state_sizes), strict=True)
    moved = jnp.zeros((), jnp.int32)
    for factor, g, s in own:
        row = jnp.asarray(_row(factor, task, jnp.minimum(step, factor.shape[1] - 1), g, s))
        part = _pick(row, uniform)
        low = jnp.where(part > 0, row[part - 1], 0)
        uniform = jnp.clip((uniform - low) / (row[part] - low), 0, 1)
        moved = moved * row.shape[0] + part
    return moved


def draw(cumulative: Any, uniform: Any) -> Any:
    """The index drawn from cumulative weights [n] by a uniform number in [0, 1); never one of weight zero."""
    cumulative = jnp.asarray(cumulative)
    total = cumulative[-1]
    target = jnp.minimum(uniform * total, jnp.nextafter(total, jnp.zeros_like(total)))
    return (cumulative <= target).sum(dtype=jnp.int32)


def _pick(cumulative: Any, uniform: Any) -> Any:
    """:func:`draw`, from cumulative weights that end in exactly 1."""
    below = jnp.minimum(uniform, 1 - jnp.finfo(cumulative.dtype).epsneg)
    return (cumulative <= below).sum(dtype=jnp.int32)


def _cumulative(kernel: Any) -> Any:
    sums = np.cumsum(kernel, axis=-1)
    return sums / sums[..., -1:]


def uniforms(entropy: list[int], block: int, chunk: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Uniform numbers in [0, 1): the first of stream (block, chunk)."""
    return stream(entropy, block, chunk).random(shape, dtype)


def stream(entropy: list[int], block: int, chunk: int) -> np.random.Generator:
    """Stream (block, chunk) of uniform numbers, drawn in bulk by numpy's counter-based generator.

    It is the same in every version of JAX and on every device; and drawing a few numbers at a time inside the loop
    costs as much as the rest of it.
    """
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy, spawn_key=(block, chunk))))


def block_keys(root: Any, entropy: list[int], blocks: Iterable[int], shape: tuple[int, ...]) -> Any:
    """JAX keys of blocks, [*shape] each and joined along the last axis, of the kind of ``root``.

    They are drawn as in :func:`stream`: splitting a key would be compiled for every shape.
    """
    shape = *shape, jax.random.key_data(root).shape[-1]
    seeds = [np.random.SeedSequence(entropy, spawn_key=(block, 0, 0)) for block in blocks]
    drawn = [np.random.Generator(np.random.Philox(s)).integers(2**32, size=shape, dtype=np.uint32) for s in seeds]
    return jax.random.wrap_key_data(jnp.asarray(np.concatenate(drawn, axis=-2)), impl=jax.random.key_impl(root))


def split_key(key: Any) -> tuple[Any, list[int]]:
    """A JAX key and the entropy of a numpy generator, from a JAX key or an int."""
    root = as_key(key)
    data = jax.random.key_data(root) if jnp.issubdtype(root.dtype, jax.dtypes.prng_key) else root
    return root, [int(i) for i in np.asarray(data).reshape(-1)]


def _row(table: Any, task: Any, *index: Any) -> Any:
    table = jnp.asarray(table)
    return table[(task if table.shape[0] > 1 else 0, *index)]
