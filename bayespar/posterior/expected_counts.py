"""log L of weighted episodes with hidden states, and its gradient: expected counts by forward-backward.

The derivative of log L with respect to an entry of a kernel is the expected number of times that the entry was used,
divided by the entry; as L is linear in the use of an entry at any one step, this is also right where the entry is 0.

Products of probabilities are used, several times faster than logarithms, and never trusted blindly. Let p_i, p_t, p_e
be the smallest *positive* entries of the initial, transition and emission kernels, and floor = 2^10 (S / eps) tiny.

* Up to 24 observations, forward vectors are not scaled: nothing on a path of positive probability underflows if
  p_i p_e (p_t p_e)^(H-1) >= floor.
* Beyond, each forward vector is scaled by a power of two, and its smallest positive entry m is watched: if no entry of
  one step was lost, none of the next is, as long as m p_t p_e >= floor. By induction nothing is lost at all.

Kernels are only known when the program runs, so the test is part of it; where it fails, everything is done again with
logarithms. (It is a loop that runs at most once, not a branch: under ``vmap`` both sides of a branch would be worked
out for every point.) ``evidence.py`` derives the bounds.

Source: theory.md, section 1 (causal likelihood); Baum, Petrie, Soules and Weiss (1970) for expected counts.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from ..arrays import Array
from ..forward import _power_of_two as power_of_two, safe_log

UNSCALED_HORIZON = 24  # at most so many observations are worked on without scaling, and step by step without a loop
BLOCK_ENTRIES = 2**17  # entries of forward vectors kept at once: they are to stay in a core's cache
MANY_SUBGOALS = 8  # of more, each episode's own matrix is copied; of fewer, all are multiplied and one is kept
_HUGE = 1e300
_LARGE = 1e290  # caps derivatives with respect to impossible states, which a long future can make larger than any float


def rows_at_once(horizon: int, tasks: int, states: int, subgoals: int) -> int:
    """How many episodes are worked on at once: a power of two."""
    row = max(horizon * tasks * states, states**2 if subgoals > MANY_SUBGOALS else 1)
    return 1 << max(BLOCK_ENTRIES // row, 8).bit_length() - 1


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def log_likelihood(
    wanted: tuple[bool, bool, bool],
    block: int,
    fallback: bool,
    initial: Float[Array, "Zi S"],
    transition: Float[Array, "Zt steps G S S2"],
    emission: Float[Array, "Ze S O"],
    observations: Int[Array, "R H"],
    subgoals: Int[Array, "R Hm1"],
    counts: Float[Array, " R"],
) -> Float[Array, " Z"]:
    """sum over episodes of count times log L, nats; -inf where one that was seen is impossible. Traceable.

    Args:
        wanted: which of the three kernels a gradient may be asked for.
        block: episodes worked on at once; divides R where R is larger.
        fallback: use logarithms where probabilities may underflow; else the result is NaN there. A program without
            them is compiled in half the time.
        initial: rho; the leading axis of each kernel is Z or 1, and so is that of the result if all are 1.
        transition: P.
        emission: E.
        observations: O, one past the last, where nothing was seen, or for padding.
        subgoals: G, one past the last, where the state stays as it is and nothing was seen.
        counts: how often each episode was seen; 0 for padding.
    """
    return _evaluate(block, fallback, None, initial, transition, emission, observations, subgoals, counts)[0]


def _with_counts(wanted: tuple[bool, bool, bool], block: int, fallback: bool, *args: Any) -> tuple[Array, Any]:
    value, gradients = _evaluate(block, fallback, wanted, *args)
    return value, (gradients, [a.shape for a in args[:3]])


def _pull_back(
    wanted: tuple[bool, bool, bool], block: int, fallback: bool, kept: Any, cotangent: Float[Array, " Z"]
) -> Any:
    gradients, shapes = kept
    found = []
    for gradient, shape, want in zip(gradients, shapes, wanted, strict=True):
        if not want:
            found.append(None)
            continue
        weights = cotangent.reshape(-1, *(1,) * (len(shape) - 1))
        total = jnp.where(weights == 0, 0, weights * gradient)
        found.append(total.sum(axis=0, keepdims=True) if shape[0] == 1 else total)
    return (*found, None, None, None)


log_likelihood.defvjp(_with_counts, _pull_back)


def _evaluate(
    block: int,
    fallback: bool,
    wanted: tuple[bool, bool, bool] | None,
    initial: Array,
    transition: Array,
    emission: Array,
    observations: Array,
    subgoals: Array,
    counts: Array,
) -> list[Any]:
    """The value and, if ``wanted``, the derivatives of each task's value, [Z, *kernel]."""
    initial, transition, emission = map(jnp.asarray, (initial, transition, emission))
    R = len(observations)
    smallest = [_log2_smallest(a) for a in (initial, transition, emission)]

    def one(rows: tuple[Array, Array, Array]) -> Any:
        safe, value, gradients = _by_probabilities(wanted, smallest, initial, transition, emission, *rows)
        if not fallback:
            return [jnp.where(safe, value, jnp.nan), gradients]
        return _unless(
            safe, [value, gradients], partial(_by_logarithms, wanted), (initial, transition, emission, *rows)
        )

    rows = (jnp.asarray(observations), jnp.asarray(subgoals), jnp.asarray(counts))
    if block >= R:
        return one(rows)
    blocks = jax.tree.map(lambda a: a.reshape(-1, block, *a.shape[1:]), rows)
    nothing = jax.eval_shape(one, jax.tree.map(lambda a: a[0], blocks))
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), nothing)
    return lax.scan(lambda total, rows: (jax.tree.map(jnp.add, total, one(rows)), None), nothing, blocks)[0]


def _by_probabilities(
    wanted: tuple[bool, bool, bool] | None,
    smallest: list[Array],
    initial: Array,
    transition: Array,
    emission: Array,
    observations: Array,
    subgoals: Array,
    counts: Array,
) -> tuple[Array, Array, list[Array | None]]:
    """Whether nothing was lost; the value; the derivatives."""
    (R, H), S = observations.shape, initial.shape[1]
    G, O = transition.shape[2], emission.shape[2]
    Z = max(initial.shape[0], transition.shape[0], emission.shape[0])
    dtype = initial.dtype
    info = np.finfo(dtype)
    floor = float(np.log2(info.tiny) + 10 + np.log2(S) - np.log2(info.eps))
    p_i, p_t, p_e = smallest
    scaled = H > UNSCALED_HORIZON
    unroll = True if H <= UNSCALED_HORIZON else 4
    padded = jnp.pad(emission, [(0, 0), (0, 0), (0, 1)], constant_values=1)
    multiply, transposed, count, matrices = _arithmetic(transition, R)
    columns = observations.T, subgoals.T

    def seen(o: Array) -> Array:
        return padded[:, :, o]  # [Ze, S, R]

    def forward(carry: Any, row: Any) -> tuple[Any, Any]:
        x, exponent, low = carry
        o, g, matrix = row
        factor: Any = None
        if scaled:
            factor, power = power_of_two(x.max(axis=1))
            x, exponent = x * factor[:, None], exponent + power
            low = jnp.minimum(low, jnp.where(x > 0, x, jnp.inf).min())
        y = multiply(matrix, x, g)
        return (y * seen(o), exponent, low), (x, y, factor)

    y0 = jnp.broadcast_to(initial[:, :, None], (Z, S, R))
    carry = (y0 * seen(columns[0][0]), jnp.zeros((Z, R), jnp.int32), jnp.asarray(1.0, dtype))
    plan = (columns[0][1:], columns[1], matrices)
    (last, exponent, low), kept = lax.scan(forward, carry, plan, unroll=unroll)
    total = last.sum(axis=1)
    used = counts > 0
    each = safe_log(total) + exponent * float(np.log(2)) if scaled else safe_log(total)
    value = jnp.where(used, counts * each, 0).sum(axis=1)
    start = p_i + p_e
    if scaled:
        safe = (start >= floor) & (jnp.log2(low) + p_t + p_e >= floor) & (H * S * float(info.eps) < 1)
    else:
        safe = start + (H - 1) * (p_t + p_e) >= floor
    if wanted is None:
        return safe, value, [None, None, None]

    want_initial, want_transition, want_emission = wanted

    def observed(y: Array, beta: Array, o: Array) -> Array:
        return jnp.einsum("zsr,ro->zso", y * beta, (o[:, None] == jnp.arange(O)).astype(dtype))

    def backward(carry: Any, row: Any) -> tuple[Any, Any]:
        beta, moves, sights = carry
        (o, g, matrix), (x, y, factor) = row
        ahead = beta * seen(o)
        step = None
        if want_transition:
            step = count(x, ahead, g)
            if transition.shape[1] == 1:
                moves, step = moves + step, None
        if want_emission:
            sights = sights + observed(y, beta, o)
        beta = transposed(matrix, ahead, g)
        if scaled:
            beta = jnp.minimum(beta, _LARGE) * factor[:, None]
        return (beta, moves, sights), step

    share = jnp.where((total > 0) & used, counts / jnp.where(total > 0, total, 1), 0)
    beta = jnp.broadcast_to(share[:, None], (Z, S, R))
    moves: Any = jnp.zeros((Z, G, S, S), dtype) if want_transition and transition.shape[1] == 1 else None
    sights: Any = jnp.zeros((Z, S, O), dtype) if want_emission else None
    (beta, moves, sights), by_step = lax.scan(
        backward, (beta, moves, sights), (plan, kept), reverse=True, unroll=unroll
    )
    if want_transition:
        moves = moves[:, None] if transition.shape[1] == 1 else jnp.moveaxis(by_step, 0, 1)
    if want_emission:
        sights = sights + observed(y0, beta, columns[0][0])
    start = (beta * seen(columns[0][0])).sum(axis=2) if want_initial else None
    return safe, value, [start, moves, sights]


def _arithmetic(transition: Array, rows: int) -> tuple[Callable, Callable, Callable, Any]:
    """Prediction, its transpose, and the counts of moves, for episodes that each have a subgoal of their own.

    Vectors are [Z, S, R]: episodes last, so that they fill a processor's vector registers. Subgoal G stays in place.
    """
    Z, steps, G, S, _ = transition.shape
    few = G <= MANY_SUBGOALS
    # [Z, S', G S]: one product with every subgoal's part of the vector, of which all but one are 0.
    matrices = transition.transpose(1, 0, 4, 2, 3).reshape(steps, Z, S, G * S) if few else transition.swapaxes(0, 1)
    here = None if steps == 1 else matrices

    def apart(x: Array, g: Array) -> Array:
        own = g[None, None, None] == jnp.arange(G)[None, :, None, None]
        return jnp.where(own, x[:, None], 0).reshape(len(x), G * S, -1)

    def staying(g: Array, x: Array, moved: Array) -> Array:
        return jnp.where(g == G, x, moved)

    def multiply(matrix: Any, x: Array, g: Array) -> Array:
        matrix = matrices[0] if matrix is None else matrix
        if few:
            return staying(g, x, jnp.matmul(matrix, apart(x, g)))
        return staying(g, x, jnp.einsum("zsr,zrst->ztr", x, matrix[:, jnp.minimum(g, G - 1)]))

    def transposed(matrix: Any, x: Array, g: Array) -> Array:
        matrix = matrices[0] if matrix is None else matrix
        if few:
            y = jnp.matmul(matrix.swapaxes(1, 2), x).reshape(len(x), G, S, -1)
            own = g[None, None, None] == jnp.arange(G)[None, :, None, None]
            return staying(g, x, jnp.where(own, y, 0).sum(axis=1))
        return staying(g, x, jnp.einsum("ztr,zrst->zsr", x, matrix[:, jnp.minimum(g, G - 1)]))

    def count(x: Array, ahead: Array, g: Array) -> Array:
        pairs = jnp.einsum("ztr,zkr->ztk", ahead, apart(x, g))
        return pairs.reshape(len(x), S, G, S).transpose(0, 2, 3, 1)

    return multiply, transposed, count, here


def _by_logarithms(
    wanted: tuple[bool, bool, bool] | None,
    initial: Array,
    transition: Array,
    emission: Array,
    observations: Array,
    subgoals: Array,
    counts: Array,
) -> list[Any]:
    """The value and the derivatives, where probabilities may underflow. Vectors are [Z, R, S].

    The logarithm of 0 is -1e300 here, and what lies below -1e299 is the logarithm of 0: no infinities, so no NaN.
    """
    (R, H), (_, steps, G, S, _), O = observations.shape, transition.shape, emission.shape[2]
    Z = max(initial.shape[0], transition.shape[0], emission.shape[0])
    stay = jnp.broadcast_to(jnp.eye(S, dtype=transition.dtype), transition[:, :, :1].shape)
    log_moves = _log(jnp.concatenate([transition, stay], axis=2)).swapaxes(0, 1)
    log_sights = _log(jnp.pad(emission, [(0, 0), (0, 0), (0, 1)], constant_values=1)).swapaxes(1, 2)
    o, g = observations.T, subgoals.T
    plan = (o[1:], g, jnp.arange(H - 1) if steps > 1 else jnp.zeros(H - 1, int))

    def forward(x: Array, row: Any) -> tuple[Array, Any]:
        o, g, h = row
        y = _log_sum(x[..., None] + log_moves[h][:, g], 2)
        return y + log_sights[:, o], (x, y)

    y0 = jnp.broadcast_to(_log(initial)[:, None], (Z, R, S))
    last, kept = lax.scan(forward, y0 + log_sights[:, o[0]], plan)
    each = _log_sum(last, 2)
    possible = each > -_HUGE / 10
    value = jnp.where(counts > 0, counts * jnp.where(possible, each, -jnp.inf), 0).sum(axis=1)
    if wanted is None:
        return [value, [None, None, None]]
    want_initial, want_transition, want_emission = wanted
    share = jnp.where(possible, _log(counts) - each, -_HUGE)

    def observed(y: Array, beta: Array, o: Array) -> Array:
        return jnp.einsum("zrs,ro->zso", _exp(y + beta), (o[:, None] == jnp.arange(O)).astype(y.dtype))

    def backward(carry: Any, row: Any) -> tuple[Any, Any]:
        beta, moves, sights = carry
        (o, g, h), (x, y) = row
        ahead = (beta + log_sights[:, o])[:, :, None]
        if want_transition:
            own = (g[:, None] == jnp.arange(G)).astype(x.dtype)
            moves = moves.at[:, h].add(jnp.einsum("rg,zrst->zgst", own, _exp(x[..., None] + ahead)))
        if want_emission:
            sights = sights + observed(y, beta, o)
        return (_log_sum(log_moves[h][:, g] + ahead, 3), moves, sights), None

    beta = jnp.broadcast_to(share[..., None], (Z, R, S))
    moves: Any = jnp.zeros((Z, steps, G, S, S), value.dtype) if want_transition else None
    sights: Any = jnp.zeros((Z, S, O), value.dtype) if want_emission else None
    (beta, moves, sights), _ = lax.scan(backward, (beta, moves, sights), (plan, kept), reverse=True)
    if want_emission:
        sights = sights + observed(y0, beta, o[0])
    start = _exp(beta + log_sights[:, o[0]]).sum(axis=1) if want_initial else None
    return [value, [start, moves, sights]]


def _log(p: Array) -> Array:
    return jnp.where(p == 0, -_HUGE, jnp.log(p))


def _log_sum(x: Array, axis: int) -> Array:
    top = x.max(axis)
    return jnp.log(jnp.exp(x - jnp.expand_dims(top, axis)).sum(axis)) + top


def _exp(x: Array) -> Array:
    return jnp.exp(jnp.minimum(x, np.log(_LARGE)))


def _unless(safe: Array, value: list[Any], again: Callable[..., list[Any]], args: tuple[Array, ...]) -> list[Any]:
    """``value`` where ``safe``, else ``again(*args)``, which is only worked out if some point needs it."""

    def body(state: tuple[Array, list[Any]]) -> tuple[Array, list[Any]]:
        # The barrier ties the work to the loop: a compiler would otherwise move it out, and do it always.
        here, _ = lax.optimization_barrier((args, state[0]))
        return jnp.asarray(True), again(*here)

    return lax.while_loop(lambda state: ~state[0], body, (safe, value))[1]


def _log2_smallest(kernel: Array) -> Array:
    """log2 of the smallest positive entry; 0 if there is none; NaN if there is a NaN."""
    return jnp.log2(jnp.where(kernel == 0, 1, kernel).min())
