"""Planning a few steps ahead in the aggregated world model, where the graph of all histories does not fit.

Beyond the horizon of the plan the task is taken to be revealed: that is worth sum_z P(z | tau) Q*_z(tau, g), which no
policy can exceed. Following one task's expert from there on is worth at least what that task pays and, under the
others, the least reward there is. So every plan comes with a proven bound on what its first subgoal gives away.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..arrays import Array
from ..validation import check_count, check_fits
from ..world import Family
from .bail import BailPlanner, BailState
from .expert import Experts, first_best
from .planner import Observed

DEPTH = 2


class LookaheadPlanner(BailPlanner):
    """Receding horizon: at every step the best of the next ``depth`` decisions, by the filter, inside ``jit``.

    Attributes:
        reward: r_h(o, w), [H, O, W].
        least: the least that can still be paid after the decision at each step, [H, W].
        horizon: H.
        depth: decisions ahead; from H-1 on the plan is exact.

    Source: theory.md, W2. Revealing the task is the QMDP bound of Littman, Cassandra and Kaelbling (1995).
    """

    reward: Float[Array, "H O W"]
    least: Float[Array, "H W"]
    horizon: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(self, family: Family, experts: Experts, depth: int = DEPTH):
        """
        Raises:
            InvalidPlannerError: ``depth`` is no number of decisions.
            TooLargeError: so many branches do not fit.
        """
        super().__init__(family, experts)
        self.depth = min(check_count("depth", depth), max(family.horizon - 1, 1))
        branches = (family.num_subgoals * family.num_observations) ** (self.depth - 1)
        check_fits(f"depth = {depth}", 8 * branches * family.num_tasks * (family.num_states + family.num_subgoals))
        self.reward, self.horizon = family.reward, family.horizon
        floor = np.asarray(family.reward, np.float64).min(axis=1)  # [H, W]
        after = np.cumsum(floor[::-1], axis=0)[::-1] - floor
        self.least = after.astype(family.dtype)

    def step(self, state: BailState, observed: Observed) -> tuple[BailState, Any]:
        state = self.track(state, observed)
        upper, _ = self.bounds(state, observed.step, observed.instruction)
        chosen = jnp.where(jnp.arange(self.subgoals) == first_best(upper), 1.0, 0.0)
        return state, jnp.where(jnp.isnan(upper).any(), jnp.nan, chosen)

    def start(self, log_weights: Any) -> BailState:
        """The state before an episode, from log P(z | past) up to a constant."""
        return BailState(log_weights, self.tracker.start(0), self.experts.start(0))

    def track(self, state: BailState, observed: Observed) -> BailState:
        """What is remembered after an observation, without a plan."""
        return super().step(state, observed)[0]

    def bounds(self, state: BailState, step: Any, instruction: Any) -> tuple[Any, Any]:
        """Expected reward still to come after each subgoal, [G]: at most, and at least.

        NaN where the history is impossible under every task.
        """
        joint = state.log_weights + self.tracker.log_likelihood(state.forward)
        scale = jax.nn.logsumexp(joint)
        return self._bounds(self.depth, state.log_weights - scale, state.forward, state.memory, step, instruction)

    def revealed(self, forward: Any, memory: Any, step: Any, instruction: Any) -> Float[Array, "Z G"]:
        """Q*_z(tau, g): what each subgoal is worth if the task is z and is known."""
        belief = self.tracker.weights(forward)
        step = jnp.clip(step, 0, max(self.horizon - 2, 0))

        def q(task: Any) -> Any:
            return self.experts.q(memory, belief, step, instruction, task)

        return jax.vmap(q)(jnp.arange(self.log_prior.shape[0]))

    def _bounds(self, depth: int, log_weights: Any, forward: Any, memory: Any, h: Any, w: Any) -> tuple[Any, Any]:
        """:meth:`bounds` times the probability of getting there, with P(z, tau) = exp(log_weights + log L_z(tau))."""
        mass = jnp.exp(log_weights + self.tracker.log_likelihood(forward))
        q = self.revealed(forward, memory, h, w)
        last = h >= self.horizon - 2
        upper = mass @ q
        others = jnp.maximum(mass.sum() - mass, 0) * jnp.asarray(self.least)[h, w]
        lower = jnp.where(last, upper, (mass[:, None] * q + others[:, None]).max(axis=0))
        if depth == 1:
            return upper, lower

        def after(g: Any, o: Any) -> tuple[Any, Any]:
            later = self.tracker.advance(forward, h, g, o)
            child = self.experts.advance(memory, h, g, o)
            up, low = self._bounds(depth - 1, log_weights, later, child, h + 1, w)
            heard = jnp.exp(log_weights + self.tracker.log_likelihood(later)).sum()
            paid = heard * jnp.asarray(self.reward)[jnp.minimum(h + 1, self.horizon - 1), o, w]
            return paid + up.max(), paid + low.max()

        subgoals, observations = jnp.arange(self.subgoals), jnp.arange(self.reward.shape[1])
        up, low = jax.vmap(lambda g: jax.vmap(lambda o: after(g, o))(observations))(subgoals)
        return jnp.where(last, upper, up.sum(axis=1)), jnp.where(last, upper, low.sum(axis=1))
