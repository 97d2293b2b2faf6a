"""Monte Carlo tree search in the aggregated world model, by mctx."""

from __future__ import annotations

import importlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from ..arrays import Array
from ..validation import check_count, check_fits
from ..world import Family
from .bail import BailState
from .expert import Experts
from .lookahead import LookaheadPlanner
from .planner import Episode, Observed

SIMULATIONS = 256


class SearchState(eqx.Module):
    """What the planner remembers.

    Attributes:
        inner: as for BAIL.
        key: of the draws to come: they only break ties.
    """

    inner: BailState
    key: Any


class SearchPlanner(LookaheadPlanner):
    """At every step the subgoal most visited by a tree search; ties fall on the lowest index.

    Subgoals are decision nodes and observations are chance nodes, with the predictive law as their probabilities. A new
    leaf is worth what it would be if the task were revealed there. Two simulations go one observation deeper.

    Attributes:
        simulations: nodes added to the tree at every step.

    Source: Antonoglou et al. (2022), Stochastic MuZero, with the exact model in place of a learned one.
    """

    simulations: int = eqx.field(static=True)

    def __init__(self, family: Family, experts: Experts, simulations: int = SIMULATIONS):
        """
        Raises:
            InvalidPlannerError: ``simulations`` is no number of them.
            TooLargeError: so large a tree does not fit.
        """
        super().__init__(family, experts, depth=1)
        self.simulations = check_count("simulations", simulations)
        node = family.num_tasks * (2 * family.num_states + 4) + 8 * (family.num_subgoals + family.num_observations)
        check_fits(f"simulations = {simulations}", 8 * int(simulations) * node)

    def init(self, instruction: Any, key: Any) -> SearchState:
        return SearchState(super().init(instruction, key), key)

    def step(self, state: SearchState, observed: Observed) -> tuple[SearchState, Any]:
        key, draw = jax.random.split(state.key)
        inner = self.track(state.inner, observed)
        visits, values = self.search(inner, observed.step, observed.instruction, draw)
        chosen = jnp.where(jnp.arange(self.subgoals) == visits.argmax(), 1.0, 0.0)
        return SearchState(inner, key), jnp.where(jnp.isnan(values).any(), jnp.nan, chosen)

    def observe(self, state: SearchState, episode: Episode) -> SearchState:
        return SearchState(super().observe(state.inner, episode), state.key)

    def posterior(self, state: SearchState) -> Any:
        return super().posterior(state.inner)

    def search(
        self, state: BailState, step: Any, instruction: Any, key: Any
    ) -> tuple[Int[Array, " G"], Float[Array, " G"]]:
        """How often each subgoal was tried, and its mean reward still to come; if never, what it is worth revealed."""
        mctx: Any = importlib.import_module("mctx")  # a tenth of a second to load

        w, H = instruction, self.horizon

        def known(place: Any) -> tuple[Any, Any]:
            """P(z | tau) [Z], and Q*_z [Z, G]."""
            forward, memory, h = place
            task = jax.nn.softmax(state.log_weights + self.tracker.log_likelihood(forward))
            return task, self.revealed(forward, memory, h, w)

        def decide(_: Any, __: Any, g: Any, place: Any) -> Any:
            def one(g: Any, place: Any) -> Any:
                forward, _, h = place
                task, q = known(place)
                law = self.tracker.predict(forward, task, jnp.minimum(h, H - 2), g)
                value = jnp.where(h < H - 1, task @ q[:, g], 0)
                return mctx.DecisionRecurrentFnOutput(chance_logits=jnp.log(law), afterstate_value=value), (place, g)

            return jax.vmap(one)(g, place)

        def hear(_: Any, __: Any, o: Any, after: Any) -> Any:
            def one(o: Any, after: Any) -> Any:
                (forward, memory, h), g = after
                moved = self.tracker.advance(forward, h, g, o), self.experts.advance(memory, h, g, o)
                # The search may go on past the end of the episode: nothing is paid there, and the place stays.
                live = h < H - 1
                later = jax.tree.map(lambda a, b: jnp.where(live, a, b), (*moved, h + 1), (forward, memory, h))
                task, q = known(later)
                value = jnp.where(h + 1 < H - 1, (task @ q).max(), 0)
                paid = jnp.where(live, jnp.asarray(self.reward)[jnp.minimum(h + 1, H - 1), o, w], 0)
                flat = jnp.zeros(self.subgoals, paid.dtype)
                out = mctx.ChanceRecurrentFnOutput(
                    action_logits=flat, value=value, reward=paid, discount=jnp.ones_like(paid)
                )
                return out, later

            return jax.vmap(one)(o, after)

        start = state.forward, state.memory, jnp.asarray(step, jnp.int32)
        task, q = known(start)
        worth = task @ q
        batch = jax.tree.map(lambda a: jnp.asarray(a)[None], start)
        flat = jnp.zeros((1, self.subgoals), worth.dtype)
        root = mctx.RootFnOutput(prior_logits=flat, value=worth.max()[None], embedding=batch)
        found = mctx.stochastic_muzero_policy(
            (), key, root, decide, hear, self.simulations, max_depth=max(2 * (H - 1), 1), dirichlet_fraction=0.0
        )
        summary = found.search_tree.summary()
        visits = summary.visit_counts[0]
        return visits.astype(jnp.int32), jnp.where(visits > 0, summary.qvalues[0], worth)
