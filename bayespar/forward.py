"""The two arithmetics of the forward algorithm: logarithms, always exact; probabilities, fast where they are safe.

Everything here is pure and traceable. Which arithmetic may be used is decided in ``evidence.py``.

Source: theory.md, section 1 (causal likelihood).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from .arrays import Array, is_traced
from .factored import Factored, at_subgoal
from .world import Family, Sparse

DENSE_STATES = 32  # a Sparse kernel of at most this many states per successor is faster when made dense
FACTORED_STATES = 32  # likewise a Factored kernel of at most this many joint states
LOG_WORKSPACE = 2**22  # entries of the largest temporary of the log-space path


def is_small(kernel: Any, states: int) -> bool:
    """Whether a Sparse or Factored kernel is faster when made dense."""
    if isinstance(kernel, Factored):
        return states <= FACTORED_STATES
    return isinstance(kernel, Sparse) and states <= DENSE_STATES * kernel.shape[-1]


def safe_log(p: Array) -> Array:
    """log p with log 0 = -inf; its derivative at 0 is taken as 0 instead of infinity.

    Concrete input is done by numpy: XLA on a CPU flushes denormal numbers, so that their logarithm would be -inf.
    """
    if not is_traced(p) and isinstance(p, np.ndarray):
        with np.errstate(divide="ignore"):
            return np.log(p)
    positive = p > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, p, 1)), -jnp.inf)


def log_sum(x: Array, axis: int) -> Array:
    """log sum exp over ``axis``; -inf, with derivative 0, where every entry is -inf."""
    top = _finite_or_zero(lax.stop_gradient(x.max(axis)))
    return safe_log(jnp.exp(x - jnp.expand_dims(top, axis)).sum(axis)) + top


def log_predict(log_forward: Float[Array, "Z S"], log_kernel: Any) -> Float[Array, "Z S"]:
    """log of sum_s alpha(s) P(s' | s), for a log kernel [Z or 1, S, S'], a Sparse one [Z or 1, S, K], or a Factored."""
    if isinstance(log_kernel, Factored):
        x = log_forward.reshape(-1, *log_kernel.state_sizes)
        others = (1,) * (len(log_kernel.factors) - 1)
        for k, factor in enumerate(log_kernel.factors, 1):
            ahead = jnp.moveaxis(x, k, 1)[:, :, None] + factor.reshape(*factor.shape, *others)
            x = jnp.moveaxis(log_sum(ahead, 1), 1, k)
        return x.reshape(log_forward.shape)
    if not isinstance(log_kernel, Sparse):
        return log_sum(log_forward[:, :, None] + log_kernel, 1)
    x = log_forward[:, :, None] + log_kernel.probabilities
    return jax.vmap(_log_scatter)(x, jnp.broadcast_to(log_kernel.next_states, x.shape))


def _log_scatter(x: Float[Array, "S K"], next_states: Int[Array, "S K"]) -> Float[Array, " S"]:
    """log of the sum of exp(x) over all slots that lead to a state."""
    top = jnp.full(x.shape[:1], -jnp.inf, x.dtype).at[next_states].max(lax.stop_gradient(x))
    top = _finite_or_zero(top)
    total = jnp.zeros(x.shape[:1], x.dtype).at[next_states].add(jnp.exp(x - top[next_states]))
    return safe_log(total) + top


def _finite_or_zero(x: Array) -> Array:
    return jnp.where(jnp.isfinite(x), x, 0)


def log_kernels(family: Family) -> tuple[Array, Any, Array]:
    """The logarithms of a family's initial, transition and emission kernels."""
    transition = family.transition
    if isinstance(transition, Sparse):
        # Unflattened, because the constructor would refuse logarithms as probabilities.
        leaves = [jnp.asarray(transition.next_states), jnp.asarray(safe_log(transition.probabilities))]
        log_transition: Any = jax.tree.unflatten(jax.tree.structure(transition), leaves)
    else:
        log_transition = jax.tree.map(lambda a: jnp.asarray(safe_log(a)), transition)
    return jnp.asarray(safe_log(family.initial)), log_transition, jnp.asarray(safe_log(family.emission))


def log_space_prefixes(
    tasks: int,
    log_initial: Float[Array, "Zi S"],
    log_transition: Any,
    log_emission: Float[Array, "Ze S O"],
    observations: Int[Array, "N H"],
    subgoals: Int[Array, "N Hm1"],
) -> Float[Array, "Z N H"]:
    """log L_z of every prefix, in nats, in log space. Differentiable; workspace bounded in N."""
    S = log_initial.shape[1]

    def episode(rows: tuple[Array, Array]) -> Array:
        o, g = rows
        start = jnp.broadcast_to(log_initial, (tasks, S)) + log_emission[:, :, o[0]]
        if not len(g):
            return log_sum(start, 1)[:, None]

        def step(log_forward: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            h, subgoal, observation = row
            kernel = at_subgoal(log_transition, subgoal, lambda a, g: a[:, jnp.minimum(h, a.shape[1] - 1), g])
            log_forward = log_predict(log_forward, kernel) + log_emission[:, :, observation]
            return log_forward, log_sum(log_forward, 1)

        _, rest = lax.scan(step, start, (jnp.arange(len(g)), g, o[1:]))
        return jnp.concatenate([log_sum(start, 1)[None], rest]).T

    row = tasks * S * log_transition.shape[-1]
    batch = 1 << max(LOG_WORKSPACE // row, 1).bit_length() - 1
    return jnp.moveaxis(lax.map(episode, (observations, subgoals), batch_size=batch), 0, 1)


log_space_block = jax.jit(log_space_prefixes, static_argnums=0)


# At its default level 3, LLVM unrolls the loop over the entries of a gathered row in full where S < 64, and then does
# not vectorise it: at S = 32 gathers take three times as long, and all of this a quarter longer.
@partial(
    jax.jit,
    static_argnames=("tasks", "block", "dense", "prefix", "scaled"),
    compiler_options={"xla_backend_optimization_level": 2},
)
def probability_block(
    initial: Float[Array, "Zi S"],
    transition: Any,
    likelihood: Float[Array, "Ze O S"],
    source: Int[Array, "H slots"],
    observations: Int[Array, "H slots"],
    tile_subgoal: Int[Array, "Hm1 tiles"],
    *,
    tasks: int,
    block: int,
    dense: bool,
    prefix: bool,
    scaled: bool,
) -> Float[Array, "Z steps slots"]:
    """log L_z in nats, by products of probabilities, for episodes laid out in tiles that share a subgoal.

    Args:
        initial, transition: the kernels of a family.
        likelihood: its emission, transposed, so that a gather over episodes copies rows of S numbers.
        source: where the episode in each slot of step h was at step h-1.
        observations: what each slot observes at step h.
        tile_subgoal: the subgoal of each tile; a tile is ``slots / tiles`` neighbouring slots.
        tasks: Z.
        block: tasks that are worked on at once.
        dense: expand a Sparse transition, one block of tasks at a time.
        prefix: log L of every prefix, in the layout of its step; else only of the whole episode (steps = 1).
        scaled: before every observation, scale the forward vector so that its first entry, unless 0, lies in [1, 2), by
            a power of two: scaling rounds nothing, and exponents are added as integers. One entry is cheaper to read
            than a sum.
    """
    S = initial.shape[1]
    steps, slots = source.shape
    tiles = tile_subgoal.shape[1]

    def one_block(start: Array) -> Array:
        rho, kernel, emission = jax.tree.map(
            lambda a: a if a.shape[0] == 1 else lax.dynamic_slice_in_dim(a, start, block),
            (initial, transition, likelihood),
        )
        if dense and isinstance(kernel, Sparse):
            kernel = _dense(kernel, S)

        def observe(carry: tuple[Array, Array], origin: Array, seen: Array) -> tuple[Array, Array]:
            y, exponent = carry
            y = _rows(y, origin)
            if scaled:
                # Apart from the product with the row: worked out anew for each entry, it would cost as much again.
                first = _rows(carry[0][..., 0], origin)
                factor, power = lax.optimization_barrier(_power_of_two(jnp.where(first > 0, first, 1)))
                y, exponent = y * factor[..., None], _rows(exponent, origin) + power
            return y * _rows(emission, seen), exponent

        def step(carry: tuple[Array, Array], plan: tuple[Array, ...]) -> tuple[Any, Any]:
            h, origin, seen, subgoals = plan
            x, exponent = observe(carry, origin, seen)
            total = _log_total(x, exponent) if prefix else None
            here = at_subgoal(kernel, subgoals, lambda a, g: a[:, jnp.minimum(h, a.shape[1] - 1), g])
            y = _product(x.reshape(block, tiles, -1, S), here)
            return (y.reshape(block, slots, S), exponent), total

        y = jnp.broadcast_to(rho[:, None], (block, slots, S))
        carry = (y, jnp.zeros((block, slots), jnp.int32))
        before = []
        if steps > 1:
            plan = (jnp.arange(steps - 1), source[:-1], observations[:-1], tile_subgoal)
            carry, prefixes = lax.scan(step, carry, plan)
            before = [jnp.moveaxis(prefixes, 0, 1)] if prefix else []
        last = _log_total(*observe(carry, source[-1], observations[-1]))
        return jnp.concatenate([*before, last[:, None]], 1)

    blocks = -(-tasks // block)
    # The last block starts early enough to be whole; what it repeats is cut off.
    out = lax.map(one_block, jnp.minimum(jnp.arange(blocks) * block, tasks - block))
    whole = out[:-1].reshape(-1, *out.shape[2:])
    return jnp.concatenate([whole, out[-1, blocks * block - tasks :]])


def _rows(array: Any, index: Int[Array, " slots"]) -> Array:
    """``array[:, index]``; the plan keeps indices in bounds, so the hottest loop need not clamp them."""
    return array.at[:, index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def _product(x: Float[Array, "z tiles n S"], kernel: Any) -> Float[Array, "z tiles n S"]:
    """sum_s x(s) P(s' | s) of each slot, for the kernel of each tile."""
    if isinstance(kernel, Sparse):
        return _sparse_product(x, kernel)
    if not isinstance(kernel, Factored):
        return jnp.einsum("ztns,ztsk->ztnk", x, kernel)
    y = x[..., None, :]  # states of the Actors done, and of those to come
    for size, factor in zip(kernel.state_sizes, kernel.factors, strict=True):
        y = y.reshape(*x.shape[:3], -1, size, y.shape[-1] // size)
        y = jnp.einsum("ztndsr,ztsk->ztndkr", y, factor).reshape(*x.shape[:3], -1, y.shape[-1])
    return y.reshape(x.shape)


def _sparse_product(x: Float[Array, "z tiles n S"], kernel: Sparse) -> Float[Array, "z tiles n S"]:
    """sum_s x(s) P(s' | s) of each slot, without a dense [S, S']."""

    def one(x: Array, next_states: Array, probabilities: Array) -> Array:
        return jnp.zeros_like(x).at[next_states].add(x[:, None] * probabilities)

    over_tiles = jax.vmap(jax.vmap(one, in_axes=(0, None, None)))
    shared = kernel.shape[0] == 1
    states, probabilities = (a[0] if shared else a for a in (kernel.next_states, kernel.probabilities))
    return jax.vmap(over_tiles, in_axes=(0, None, None) if shared else 0)(x, states, probabilities)


def _dense(kernel: Sparse, states: int) -> Array:
    rows = kernel.probabilities.reshape(-1, kernel.shape[-1])
    index = jnp.arange(len(rows))[:, None]
    flat = jnp.zeros((len(rows), states), rows.dtype).at[index, kernel.next_states.reshape(rows.shape)].add(rows)
    return flat.reshape(*kernel.shape[:-1], states)


def _power_of_two(x: Float[Array, "z slots"]) -> tuple[Float[Array, "z slots"], Int[Array, "z slots"]]:
    """2^-k and k, for the k that brings x 2^-k into [1, 2); read from the bits, so x must be 0 or normal."""
    info = jnp.finfo(x.dtype)
    integer, bias = (jnp.int32, 127) if info.bits == 32 else (jnp.int64, 1023)
    power = lax.bitcast_convert_type(x, integer) >> info.nmant
    factor = lax.bitcast_convert_type((2 * bias - power) << info.nmant, x.dtype)
    return factor, (power - bias).astype(jnp.int32)


def _log_total(x: Float[Array, "z slots S"], exponent: Int[Array, "z slots"]) -> Float[Array, "z slots"]:
    return jnp.log(x.sum(-1)) + exponent * jnp.asarray(np.log(2.0), x.dtype)
