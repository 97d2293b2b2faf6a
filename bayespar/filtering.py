"""The forward algorithm one observation at a time, for loops that run inside ``jit`` and ``scan``."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .arrays import Array, is_traced
from .evidence import choose_arithmetic
from .factored import Factored, at_subgoal
from .forward import is_small, log_predict, log_sum, safe_log
from .world import Family, Sparse, check_family

_LOG_2 = float(np.log(2.0))
_WRITTEN_OUT = 16  # terms of a sum that is written out; more take longer to compile than they save


class Weights(eqx.Module):
    """Weights of tasks, fraction * 2^power: their products neither underflow nor need a logarithm.

    Attributes:
        fraction: normal numbers, or 0.
        power: integers as wide as ``fraction``.
    """

    fraction: Float[Array, " Z"]
    power: Int[Array, " Z"]

    @classmethod
    def from_log(cls, log_weights: Any) -> Weights:
        """Weights whose logarithms are these, nats; 0 for -inf."""
        log_weights = jnp.asarray(log_weights)
        possible = log_weights > -jnp.inf
        log_weights = jnp.where(possible, log_weights, 0)
        power = jnp.floor(log_weights / _LOG_2)
        fraction = jnp.where(possible, jnp.exp(log_weights - power * _LOG_2), 0)
        return cls(fraction, power.astype(_integer(fraction.dtype)))

    def log(self) -> Float[Array, " Z"]:
        """Their logarithms, nats; -inf for 0."""
        return safe_log(self.fraction) + self.power * jnp.asarray(_LOG_2, self.fraction.dtype)

    def __mul__(self, other: Weights) -> Weights:
        """Products. One of the two has fractions in [1, 4), or 0: see :meth:`reduced`."""
        return Weights(self.fraction * other.fraction, self.power + other.power)

    def reduced(self) -> Weights:
        """The same numbers with fractions in [1, 2), or 0; nothing is rounded."""
        exponent = _exponent(self.fraction)
        return Weights(self.fraction * _power_of_two(-exponent, self.fraction.dtype), self.power + exponent)

    def normalised(self) -> Float[Array, " Z"]:
        """Weights as probabilities; NaN if all are 0."""
        exponent = self.power + _exponent(self.fraction)
        top = jnp.where(self.fraction > 0, exponent, jnp.iinfo(exponent.dtype).min // 2).max()
        scaled = self.fraction * _power_of_two(self.power - top, self.fraction.dtype)
        norm = total(scaled)
        return jnp.where((scaled == norm) & (norm > 0), 1, scaled / norm)  # XLA may multiply by 1 / norm: not quite 1


class Filter(eqx.Module):
    """Forward weights alpha[s, z] = P_z(o_{1:h}, s_h = s || g_{1:h-1}), streamed; logarithms of them in log space.

    A step costs the same however long the history is. Weights are kept unnormalised in probability space where the
    family's smallest path probability shows that nothing can underflow within an episode (the rule is in
    ``evidence.py``), else in log space; either way no positive weight is ever lost, so that a step agrees with
    :func:`bayespar.prefix_log_evidence`.

    Kernels are laid out with the subgoal first and the task last, so that a step reads one contiguous block and its
    sums run over tasks side by side. Sparse ones with many states stay sparse.

    Source: theory.md, section 1 (causal likelihood).
    """

    initial: Float[Array, "S Z"]
    transition: Any  # [steps, G, S, S', Z or 1], a Sparse [steps, G, S, K, Z or 1], or a Factored of the former
    emission: Float[Array, "O S Ze"]
    log_space: bool = eqx.field(static=True)

    def __init__(self, family: Family):
        """
        Raises:
            InvalidWorldError: ``family`` is no family.
        """
        check_family(family)
        xp: Any = jnp if is_traced(family) else np
        arithmetic = None if is_traced(family) else choose_arithmetic(family)
        self.log_space = arithmetic is None or arithmetic.scaled or arithmetic.dtype != family.dtype
        log = safe_log if self.log_space else lambda a: a

        def last(a: Array) -> Array:
            a = xp.moveaxis(a, 0, -1)
            return xp.ascontiguousarray(a) if xp is np else a

        kernel = family.transition
        if is_small(kernel, family.num_states):
            kernel = family.dense_transition()
        self.initial = log(xp.broadcast_to(family.initial.T, (family.num_states, family.num_tasks)))
        self.emission = log(xp.transpose(family.emission, (2, 1, 0)))
        if isinstance(kernel, Sparse):
            leaves = [last(kernel.next_states), log(last(kernel.probabilities))]
            self.transition = jax.tree.unflatten(jax.tree.structure(kernel), leaves)
        else:
            self.transition = jax.tree.map(lambda a: log(last(a)), kernel)

    def start(self, observation: Any) -> Float[Array, "S Z"]:
        """Weights after the first observation."""
        emitted = jnp.asarray(self.emission)[observation]
        return self.initial + emitted if self.log_space else self.initial * emitted

    def advance(self, forward: Any, step: Any, subgoal: Any, observation: Any) -> Float[Array, "S Z"]:
        """Weights after ``subgoal`` at step ``step`` (from 0) and the ``observation`` that followed."""
        if jax.tree.leaves(self.transition)[0].shape[0] == 0:
            return forward
        emitted = jnp.asarray(self.emission)[observation]
        if self.log_space:
            by_task = jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), self._kernel(step, subgoal))
            return log_predict(forward.T, by_task).T + emitted
        return self._moved(forward, step, subgoal) * emitted

    def log_likelihood(self, forward: Any) -> Float[Array, " Z"]:
        """log L_z(tau), nats; -inf where tau is impossible under z."""
        return log_sum(forward, 0) if self.log_space else jnp.log(total(forward))

    def likelihood(self, forward: Any) -> Weights:
        """L_z(tau), without a logarithm where forward weights are probabilities."""
        if self.log_space:
            return Weights.from_log(log_sum(forward, 0))
        values = total(forward)
        return Weights(values, jnp.zeros(values.shape, _integer(values.dtype)))

    def weights(self, forward: Any) -> Float[Array, "Z S"]:
        """Weights proportional to P_z(s | tau) for each task; zeros where tau is impossible under z."""
        if self.log_space:
            top = forward.max(axis=0, keepdims=True)
            forward = jnp.exp(forward - jnp.where(jnp.isfinite(top), top, 0))
        return forward.T

    def predict(self, forward: Any, posterior: Any, step: Any, subgoal: Any) -> Float[Array, " O"]:
        """sum_z P(z | pt) P_z(o' | tau, g): the next observation, given the posterior [Z] over tasks."""
        weights = self.weights(forward)
        total = weights.sum(axis=-1, keepdims=True)
        belief = (weights / jnp.where(total > 0, total, 1) * posterior[:, None]).T
        kernel, emission = self._kernel(step, subgoal), jnp.asarray(self.emission)
        if self.log_space:
            emission = jnp.exp(emission)
            if isinstance(kernel, Sparse):
                kernel = eqx.tree_at(lambda k: k.probabilities, kernel, jnp.exp(kernel.probabilities))
            else:
                kernel = jax.tree.map(jnp.exp, kernel)
        return (_move(belief, kernel) * emission).sum(axis=(1, 2))

    def _moved(self, forward: Any, step: Any, subgoal: Any) -> Float[Array, "S2 Z"]:
        """sum_s alpha(s, z) P_z(s' | s, g), in probability space."""
        kernel = self.transition
        if isinstance(kernel, (Sparse, Factored)) or len(forward) > _WRITTEN_OUT:
            return _move(forward, self._kernel(step, subgoal))
        # Row by row: where subgoals differ from run to run, a look-up of whole matrices takes half as long again.
        steps, G, S = kernel.shape[:3]
        rows = jnp.asarray(kernel).reshape(steps * G * S, *kernel.shape[3:])
        first = (jnp.minimum(step, steps - 1) * G + subgoal) * S
        moved = forward[0] * rows[first]
        for s in range(1, S):
            moved = moved + forward[s] * rows[first + s]
        return moved

    def _kernel(self, step: Any, subgoal: Any) -> Any:
        return at_subgoal(self.transition, subgoal, lambda a, g: jnp.asarray(a)[jnp.minimum(step, a.shape[0] - 1), g])


def total(x: Any) -> Any:
    """The sum over the first axis of an array; in halves where it is short, which vectorises over the other axes."""
    if len(x) > _WRITTEN_OUT:
        return x.sum(axis=0)
    return _in_halves([x[i] for i in range(len(x))])


def _in_halves(rows: list[Any]) -> Any:
    half = len(rows) // 2
    return _in_halves(rows[:half]) + _in_halves(rows[half:]) if half else rows[0]


def _integer(dtype: Any) -> Any:
    return jnp.int32 if dtype == jnp.float32 else jnp.int64


def _exponent(x: Any) -> Any:
    """k with x in [2^k, 2^(k+1)), read from the bits of a normal number; below every other where x is 0."""
    info = jnp.finfo(x.dtype)
    return (jax.lax.bitcast_convert_type(x, _integer(x.dtype)) >> info.nmant) - (info.maxexp - 1)


def _power_of_two(k: Any, dtype: Any) -> Any:
    """2^k: 0 where that is too small for a normal number, and the largest one where it is too large."""
    info = jnp.finfo(dtype)
    bits = jnp.clip(k + (info.maxexp - 1), 0, 2 * info.maxexp - 2)
    return jax.lax.bitcast_convert_type(bits << info.nmant, dtype)


def _move_each(forward: Any, kernel: Factored) -> Float[Array, "S2 Z"]:
    """One Actor after the other."""
    x = forward.reshape(*kernel.state_sizes, -1)
    others = (1,) * (len(kernel.factors) - 1)
    for k, factor in enumerate(kernel.factors):
        ahead = jnp.moveaxis(x, k, 0)
        x = jnp.moveaxis(_move(ahead, factor.reshape(*factor.shape[:2], *others, -1)), 0, k)
    return x.reshape(forward.shape)


def _move(forward: Any, kernel: Any) -> Float[Array, "S2 *others Z"]:
    """sum_s alpha(s, z) P_z(s' | s) for each task, in probability space."""
    if isinstance(kernel, Sparse):
        tasks = jnp.arange(forward.shape[1])
        weights = forward[:, None] * kernel.probabilities
        states = jnp.broadcast_to(kernel.next_states, weights.shape)
        return jnp.zeros_like(forward).at[states, tasks].add(weights)
    if isinstance(kernel, Factored):
        return _move_each(forward, kernel)
    if forward.shape[0] > _WRITTEN_OUT:
        return (forward[:, None] * kernel).sum(axis=0)
    # Written out: a sum of S contiguous blocks vectorises over tasks, a batched product does not.
    total = forward[0] * kernel[0]
    for s in range(1, forward.shape[0]):
        total = total + forward[s] * kernel[s]
    return total
