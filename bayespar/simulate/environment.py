"""One task's world as a simulator: inverse-CDF draws, one uniform number each, usable inside ``jit``."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array
from ..world import Family, Sparse


class Environment(eqx.Module):
    """Cumulative kernels of one task.

    Attributes:
        initial: [S].
        transition: [steps, G, S, K].
        next_states: successor of each slot, [steps, G, S, K], or None where slot k is state k.
        emission: [S, O].
        instructions: [W].
    """

    initial: Float[Array, " S"]
    transition: Float[Array, "steps G S K"]
    next_states: Int[Array, "steps G S K"] | None
    emission: Float[Array, "S O"]
    instructions: Float[Array, " W"]

    def __init__(self, family: Family, task: int):
        def pick(a: Array) -> Array:
            return a[min(task, a.shape[0] - 1)]

        sparse = isinstance(family.transition, Sparse)
        self.initial = np.cumsum(pick(family.initial), axis=-1)
        kernel = family.transition.probabilities if sparse else family.transition
        self.transition = np.cumsum(pick(kernel), axis=-1)
        self.next_states = pick(family.transition.next_states) if sparse else None
        self.emission = np.cumsum(pick(family.emission), axis=-1)
        self.instructions = np.cumsum(family.instruction_prior)

    def start(self, uniform: Any) -> Any:
        """s_1, from one uniform number."""
        return draw(self.initial, uniform)

    def move(self, state: Any, step: Any, subgoal: Any, uniform: Any) -> Any:
        """The next state."""
        step = jnp.minimum(step, self.transition.shape[0] - 1)
        slot = draw(jnp.asarray(self.transition)[step, subgoal, state], uniform)
        return slot if self.next_states is None else jnp.asarray(self.next_states)[step, subgoal, state, slot]

    def emit(self, state: Any, uniform: Any) -> Any:
        """What the Reporter says in ``state``."""
        return draw(jnp.asarray(self.emission)[state], uniform)


def draw(cumulative: Any, uniform: Any) -> Any:
    """The index drawn from cumulative weights [n] by a uniform number in [0, 1); never one of weight zero."""
    cumulative = jnp.asarray(cumulative)
    total = cumulative[-1]
    target = jnp.minimum(uniform * total, jnp.nextafter(total, jnp.zeros_like(total)))
    return (cumulative <= target).sum().astype(jnp.int32)
