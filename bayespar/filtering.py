"""The forward algorithm one observation at a time, for loops that run inside ``jit`` and ``scan``."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .arrays import Array, is_traced
from .world import Family, Sparse


class Filter(eqx.Module):
    """Forward weights alpha[s, z] = P_z(o_{1:h}, s_h = s || g_{1:h-1}), streamed.

    A step costs the same however long the history is. Weights are kept unnormalised in probability space where the
    family's smallest path probability shows that nothing can underflow within an episode, else in log space; either
    way no positive weight is ever lost, so a step agrees with :func:`bayespar.log_evidence`.

    Kernels are laid out with the subgoal first and the task last, so that a step reads one contiguous block and its
    sums run over tasks side by side.

    Source: theory.md, section 1 (causal likelihood).
    """

    initial: Float[Array, "S Z"]
    transition: Float[Array, "steps G S S2 Zt"]
    emission: Float[Array, "O S Z"]
    log_space: bool = eqx.field(static=True)

    def __init__(self, family: Family):
        Z = family.num_tasks
        xp: Any = jnp if is_traced(family) else np
        self.log_space = not path_probability_fits(family)
        initial, emission = family.initial.T, xp.transpose(family.emission, (2, 1, 0))
        initial = xp.broadcast_to(initial, (family.num_states, Z))
        transition = xp.moveaxis(family.dense_transition(), 0, -1)
        if self.log_space:
            with np.errstate(divide="ignore"):
                initial, transition, emission = xp.log(initial), xp.log(transition), xp.log(emission)
        self.initial, self.emission = initial, emission
        self.transition = xp.ascontiguousarray(transition) if xp is np else transition

    def start(self, observation: Any) -> Float[Array, "S Z"]:
        """Weights after the first observation."""
        emitted = jnp.asarray(self.emission)[observation]
        return self.initial + emitted if self.log_space else self.initial * emitted

    def advance(self, forward: Any, step: Any, subgoal: Any, observation: Any) -> Float[Array, "S Z"]:
        """Weights after ``subgoal`` at step ``step`` (from 0) and the ``observation`` that followed."""
        steps, S = self.transition.shape[0], self.initial.shape[0]
        if steps == 0:
            return forward
        kernels = jnp.asarray(self.transition)
        kernel = kernels[0, subgoal] if steps == 1 else kernels[step, subgoal]
        emitted = jnp.asarray(self.emission)[observation]
        if self.log_space:
            return _log_sum_exp(forward[:, None] + kernel) + emitted
        # Written out: a sum over S contiguous blocks vectorises over tasks, a batched product does not.
        return sum(forward[s] * kernel[s] for s in range(S)) * emitted

    def log_likelihood(self, forward: Any) -> Float[Array, " Z"]:
        """log L_z(tau), nats; -inf where tau is impossible under z."""
        return _log_sum_exp(forward) if self.log_space else jnp.log(forward.sum(axis=0))

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
        belief = weights / jnp.where(total > 0, total, 1) * posterior[:, None]
        kernel = jnp.asarray(self.transition)[jnp.minimum(step, self.transition.shape[0] - 1), subgoal]
        emission = jnp.asarray(self.emission)
        if self.log_space:
            kernel, emission = jnp.exp(kernel), jnp.exp(emission)
        moved = (belief.T[:, None] * kernel).sum(axis=0)
        return (moved * emission).sum(axis=(1, 2))


def path_probability_fits(family: Family) -> bool:
    """Whether the least probable possible path of an episode, H emissions included, is a normal number."""
    if is_traced(family):
        return False
    kernel = family.transition
    transition = kernel.probabilities if isinstance(kernel, Sparse) else kernel

    def least(a: Array) -> float:
        a = np.asarray(a, np.float64)
        return float(np.log(a[a > 0].min())) if a.size else 0.0

    H = family.horizon
    path = least(family.initial) + H * least(family.emission) + (H - 1) * least(transition)
    return path > float(np.log(np.finfo(family.dtype).tiny)) + 1


def _log_sum_exp(logs: Any) -> Any:
    """log sum exp over the first axis; -inf where every entry is."""
    top = logs.max(axis=0)
    top = jnp.where(jnp.isfinite(top), top, 0)
    return jnp.log(jnp.exp(logs - jax.lax.stop_gradient(top)).sum(axis=0)) + top
