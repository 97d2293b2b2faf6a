"""The forward algorithm one observation at a time, for loops that run inside ``jit`` and ``scan``."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .arrays import Array, is_traced
from .evidence import choose_arithmetic
from .factored import Factored, at_subgoal
from .forward import is_small, log_predict, log_sum, safe_log
from .world import Family, Sparse, check_family

_WRITTEN_OUT = 64  # terms of a sum that is written out; more take longer to compile than they save


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
        kernel, emitted = self._kernel(step, subgoal), jnp.asarray(self.emission)[observation]
        if self.log_space:
            by_task = jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), kernel)
            return log_predict(forward.T, by_task).T + emitted
        return _move(forward, kernel) * emitted

    def log_likelihood(self, forward: Any) -> Float[Array, " Z"]:
        """log L_z(tau), nats; -inf where tau is impossible under z."""
        return log_sum(forward, 0) if self.log_space else jnp.log(forward.sum(axis=0))

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

    def _kernel(self, step: Any, subgoal: Any) -> Any:
        return at_subgoal(self.transition, subgoal, lambda a, g: jnp.asarray(a)[jnp.minimum(step, a.shape[0] - 1), g])


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
