"""Evidence: the causal likelihood of what was observed, under every task, by the forward algorithm.

How probabilities are kept from underflowing
--------------------------------------------

A forward vector alpha_h(s) = P_z(o_1..h, s_h = s || g) holds probabilities that differ by any factor. A filter that
normalises them loses the small ones, and with them tasks that later evidence would have singled out; logarithms
lose nothing but cost ten times more. So products of probabilities are used only where no positive entry can
underflow. Let p_i, p_t, p_e be the smallest *positive* entries of the initial, transition and emission kernels,
c = p_t p_e, and floor = 2^10 (S / eps) tiny of the dtype at hand.

1. *Unscaled.* A positive alpha_h(s) is at least the probability of one path, so at least p_i p_e c^(H-1), and so is
   every partial product on that path. If this is at least floor, nothing on that path underflows; terms of other
   paths that do are below tiny each, together less than eps of the entry.
2. *Scaled*, if every transition probability is positive: each prediction y(s') = sum_s alpha(s) P(s' | s, g) is
   multiplied by the power of two that brings y(0) into [1, 2). Every y(s') is at least p_t times the sum of all y,
   which is the sum of alpha; so after scaling the sum lies between 1 and 2/p_t, which cannot overflow, and each y(s')
   is at least p_t. The next alpha is then 0 or at least c wherever the observation is possible, and the next
   prediction 0 everywhere or at least p_t c everywhere. The initial probabilities are scaled likewise, by at least 1
   and at most 1/p_i, or not at all if the first is 0. So the first alpha is at least p_i p_e and its prediction
   p_t p_i p_e, and p_t min(c, p_i p_e) >= floor suffices, for any horizon.
3. The same two in float64, if the family is float32; the result is rounded to float32 at the end.
4. Otherwise, or if rounding could matter to these bounds (H S eps > 1), log space in float64.

The factor 2^10 in floor covers rounding and rows that sum to 1 only within the tolerance of a Family.

Source: theory.md, section 1.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .arrays import Array, is_traced, precision_of
from .distributed import divide, on_devices
from .factored import Factored
from .forward import is_small, log_kernels, log_space_block, log_space_prefixes, probability_block
from .history import check_episodes
from .world import Family, Sparse

_FEW_STATES = 64  # of so many, a kernel is made dense in no time
BLOCK_EPISODES = 1024  # episodes worked on at once: workspace does not grow with N
TASK_GROUP = 16  # tasks that one thread works on, at most; fixed, so that results do not depend on the machine
SMALL_STEP = 2**20  # products in a step that take less time than to compile a program for fewer
BLOCK_ENTRIES = 2**16  # entries of a block's forward vectors that are to stay in a core's cache
SAMPLE = 512  # episodes looked at to see whether many are alike
_ODD = np.uint64(0x9E3779B97F4A7C15)  # its powers spread small integers over all 64 bits
SPARSE_ENTRIES = 2**22  # entries of the largest temporary of a sparse product


def log_evidence(family: Family, observations: Any, subgoals: Any) -> Float[Array, "Z N"]:
    """log L_z of each finished episode under each task, in nats.

    Args:
        family: the worlds.
        observations: [N, H], indices.
        subgoals: [N, H-1], indices.

    Returns:
        [Z, N]; -inf where an episode is impossible under a task. Concrete input gives a numpy array of the family's
        precision; where anything is traced, the result is a jax array, differentiable in the kernels, computed in
        log space (the derivative with respect to a probability that is exactly 0 is reported as 0).

    Raises:
        InvalidPromptError: wrong shapes, not integers, or an index out of range.
    """
    return _evidence(family, observations, subgoals, prefix=False)


def prefix_log_evidence(family: Family, observations: Any, subgoals: Any) -> Float[Array, "Z N H"]:
    """log L_z(tau_h) of every prefix tau_h = (o_1, g_1, ..., o_h), h = 1..H, in nats.

    Args, result and errors are those of :func:`log_evidence`, with one more axis H at the end.
    """
    return _evidence(family, observations, subgoals, prefix=True)


def _evidence(family: Family, observations: Any, subgoals: Any, prefix: bool) -> Array:
    observations, subgoals = check_episodes(family, observations, subgoals)
    if is_traced(family, observations, subgoals):
        out = log_space_prefixes(
            family.num_tasks, *log_kernels(family), jnp.asarray(observations), jnp.asarray(subgoals)
        )
        return out if prefix else out[:, :, -1]
    # Concrete arrays inside someone's jit: work here and now, rather than in their program.
    with jax.ensure_compile_time_eval():
        distinct = distinct_episodes(observations, subgoals)
        if distinct is not None:
            first, which = distinct
            observations, subgoals = observations[first], subgoals[first]
        arithmetic = choose_arithmetic(family)
        if arithmetic is None:
            out = _by_logarithms(family, observations, subgoals, prefix)
        else:
            out = _by_probabilities(family, observations, subgoals, prefix, arithmetic)
        return out if distinct is None else out[:, which]


def distinct_episodes(observations: np.ndarray, subgoals: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The first of each kind of episode, and which of them each episode is; None where few episodes are alike.

    Long prompts of small worlds repeat themselves. A sample that holds no episode twice says at once that this is not
    such a prompt; otherwise equal episodes are found by a hash of each, and then compared in full.
    """
    N, H = observations.shape

    def hashes(step: int) -> np.ndarray:
        o, g = (a[::step].astype(np.uint64) @ odd[: a.shape[1]] for a in (observations, subgoals))
        return o + odd[-1] * g

    odd = np.multiply.accumulate(np.full(H + 1, _ODD))
    sample = hashes(max(N // SAMPLE, 1))
    if N < 2 or len(set(sample.tolist())) == len(sample):
        return None
    _, first, which = np.unique(hashes(1), return_index=True, return_inverse=True)
    if len(first) > N // 2 or any((a[first][which] != a).any() for a in (observations, subgoals)):
        return None
    return first, which


class Arithmetic(NamedTuple):
    """How the product of probabilities is computed: the module's docstring derives it.

    Attributes:
        dtype: float32 or float64.
        scaled: whether the forward vector is scaled after each step.
    """

    dtype: np.dtype
    scaled: bool


def choose_arithmetic(family: Family) -> Arithmetic | None:
    """The fastest arithmetic proved not to lose a positive probability; None means log space."""
    kernel = family.transition
    factors: tuple[Any, ...] = kernel.factors if isinstance(kernel, Factored) else (kernel,)
    if isinstance(kernel, Sparse):
        factors = (kernel.probabilities,)
    p_i, p_e = _smallest_positive(family.initial), _smallest_positive(family.emission)
    p_t = sum(map(_smallest_positive, factors))
    start, c = p_i + p_e, p_t + p_e
    all_positive = not isinstance(kernel, Sparse) and all(bool((np.asarray(f) > 0).all()) for f in factors)
    S, H = family.num_states, family.horizon
    for dtype in dict.fromkeys((family.dtype, np.dtype(np.float64))):
        info = np.finfo(dtype)
        floor = float(np.log2(info.tiny) + 10 + np.log2(S) - np.log2(info.eps))
        if H * S * info.eps > 1:
            continue
        if start + (H - 1) * c >= floor:
            return Arithmetic(dtype, scaled=False)
        if all_positive and p_t + min(c, start) >= floor:
            return Arithmetic(dtype, scaled=True)
    return None


def _smallest_positive(array: Array) -> float:
    """log2 of it; 0 for an empty array."""
    array = np.asarray(array)
    if not array.size:
        return 0.0
    least = array.min()
    if not least > 0:
        least = array.min(where=array > 0, initial=np.inf)
    return float(np.log2(least.astype(np.float64))) if np.isfinite(least) else 0.0


def _by_logarithms(family: Family, observations: np.ndarray, subgoals: np.ndarray, prefix: bool) -> np.ndarray:
    exact = family.astype(np.float64)
    out = _result(family, len(observations), prefix)
    with precision_of(exact):
        kernels = log_kernels(exact)
        for rows in _blocks(len(observations), BLOCK_EPISODES):
            o, g = observations[rows], subgoals[rows]
            padding = ((0, (1 << (len(o) - 1).bit_length()) - len(o)), (0, 0))
            block = log_space_block(family.num_tasks, *kernels, np.pad(o, padding), np.pad(g, padding))
            block = np.asarray(block)[:, : len(o)]
            out[:, rows] = block if prefix else block[:, :, -1]
    return out


def _by_probabilities(
    family: Family, observations: np.ndarray, subgoals: np.ndarray, prefix: bool, arithmetic: Arithmetic
) -> np.ndarray:
    Z, S, G, H = family.num_tasks, family.num_states, family.num_subgoals, family.horizon
    cast = family if family.dtype == arithmetic.dtype else family.astype(arithmetic.dtype)
    transition = cast.transition
    if isinstance(transition, Factored) and is_small(transition, S):
        transition = cast.dense_transition()
    K = transition.shape[-1]
    dense = not isinstance(transition, Sparse) or is_small(transition, S)
    if isinstance(transition, Sparse) and S > _FEW_STATES and len(observations) * (H - 1) * K < G * S:
        dense = False  # making it dense would cost more than the few episodes
    # Each tile reads a kernel of S^2 numbers: where that is out of the cache, it has to be worth it.
    large = _power_below(S)
    episodes = min(max(BLOCK_EPISODES, 16 * large), _power_below(SPARSE_ENTRIES // (S if dense else S * K)))
    # Few episodes would leave most of a large tile empty.
    fitting = max(8, _power_below(len(observations) // (2 * G)))
    tile = min(max(32, large), _power_below(episodes // (2 * G)), fitting)
    # A few episodes are worked out by one program, however many they are, and with all their prefixes.
    least = min(8, _power_below(SMALL_STEP // (Z * S * (S if dense else K) * tile)))
    every = prefix or len(observations) <= least * tile
    out = _result(family, len(observations), prefix)
    kernels = cast.initial, transition, cast.emission.swapaxes(1, 2)
    groups, blocks = _groups(Z), _blocks(len(observations), episodes)

    def plan(rows: slice) -> tuple[np.ndarray, ...]:
        return plan_tiles(observations[rows], subgoals[rows], G, tile, least)

    def work(item: tuple[slice, tuple[slice, tuple[np.ndarray, ...]]]) -> None:
        tasks, (rows, (slot, source, seen, tile_subgoal)) = item
        count = tasks.stop - tasks.start
        with precision_of(cast):
            block = probability_block(
                *jax.tree.map(lambda a: a if len(a) == 1 else a[tasks], kernels),
                source,
                seen,
                tile_subgoal,
                tasks=count,
                block=min(count, _power_below(BLOCK_ENTRIES // (S * source.shape[1]))),
                dense=dense,
                prefix=every,
                scaled=arithmetic.scaled,
            )
        found = np.asarray(block)
        if not prefix:  # at the last step the episodes lie in order
            out[tasks, rows] = found[:, -1, : slot.shape[1]]
            return
        for h in range(H):
            out[tasks, rows, h] = found[:, h][:, slot[h]]

    def of_groups(mine: Sequence[int]) -> list[np.ndarray]:
        own = [groups[i] for i in mine]
        if len(own) * len(blocks) == 1:
            work((own[0], (blocks[0], plan(blocks[0]))))
            return [out[own[0]]]
        # XLA gains nothing from a second core on products this small; whole groups side by side do. Few blocks are
        # planned ahead, so that plans take as much memory for a million episodes as for a few thousand.
        threads = os.cpu_count() or 1
        ahead = -(-threads // len(own))
        with ThreadPoolExecutor(max_workers=threads) as pool:
            for first in range(0, len(blocks), ahead):
                wave = blocks[first : first + ahead]
                plans = list(zip(wave, pool.map(plan, wave), strict=True))
                list(pool.map(on_devices(work), itertools.product(own, plans)))
        return [out[tasks] for tasks in own]

    for tasks, found in zip(groups, divide(of_groups, len(groups)), strict=True):
        out[tasks] = found  # which another process may have found
    return out


def plan_tiles(
    observations: np.ndarray, subgoals: np.ndarray, num_subgoals: int, tile: int, least: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Where each episode lies at each step, so that each tile of ``tile`` slots shares one subgoal.

    Returns:
        slot of each episode at each step [H, N] (0..N-1 in order at the last), and the three plans that
        ``probability_block`` takes: source [H, slots], observations [H, slots], tile subgoals [H-1, tiles].
        The number of tiles is a :func:`bucket`, and at least ``least``. Slots without an episode follow slot 0.
    """
    N, H = observations.shape
    step = np.arange(H)[:, None]
    # numpy sorts small integers by radix, several times faster.
    columns = np.ascontiguousarray(subgoals.T, np.min_scalar_type(num_subgoals))
    order = np.argsort(columns, axis=1, kind="stable")
    counts = np.bincount((columns + num_subgoals * step[:-1]).ravel(), minlength=(H - 1) * num_subgoals)
    counts = counts.reshape(H - 1, num_subgoals)
    tiles_of = -(-counts // tile)
    tiles = bucket(max(int(tiles_of.sum(1).max(initial=0)), -(-N // tile), least))
    # From an episode's rank among all episodes, sorted, to its slot: groups start at whole tiles.
    shift = (np.cumsum(tiles_of, 1) - tiles_of) * tile - (np.cumsum(counts, 1) - counts)
    slot = np.empty((H, N), np.int32)
    slot[-1] = np.arange(N)
    ranked = slot[-1] + np.repeat(shift.ravel(), counts.ravel()).reshape(H - 1, N)
    slot.reshape(-1)[order + N * step[:-1]] = ranked

    source, seen = np.zeros((2, H, tiles * tile), np.int32)
    place = slot + tiles * tile * step
    seen.reshape(-1)[place] = observations.T
    source.reshape(-1)[place[1:]] = slot[:-1]
    spare = tiles - tiles_of.sum(1, keepdims=True)  # these follow subgoal 0
    each = np.tile(np.append(np.arange(num_subgoals), 0).astype(np.int32), H - 1)
    tile_subgoal = np.repeat(each, np.concatenate([tiles_of, spare], 1).ravel()).reshape(H - 1, tiles)
    return slot, source, seen, tile_subgoal


def bucket(count: int) -> int:
    """``count`` rounded up to a ladder: powers of two up to 8, then eighths of the next one, from 64 on sixteenths."""
    power = 1 << max(count - 1, 0).bit_length()
    step = power if power <= 8 else power // (8 if power < 64 else 16)
    return -(-count // step) * step


def _power_below(number: int) -> int:
    """The largest power of two that is at most ``number``, and at least 1."""
    return 1 << max(number, 1).bit_length() - 1


def _blocks(count: int, size: int) -> list[slice]:
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


def _groups(tasks: int) -> list[slice]:
    """Tasks in groups of one size, for which one program is compiled; the last two overlap where it does not divide."""
    size = -(-tasks // -(-tasks // TASK_GROUP))
    return [slice(min(i, tasks - size), min(i, tasks - size) + size) for i in range(0, tasks, size)]


def _result(family: Family, episodes: int, prefix: bool) -> np.ndarray:
    shape = (family.num_tasks, episodes, family.horizon) if prefix else (family.num_tasks, episodes)
    return np.empty(shape, family.dtype)
