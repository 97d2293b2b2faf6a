"""Monte Carlo tree search in the aggregated world model, by mctx."""

from __future__ import annotations

import importlib
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Float

from ..arrays import Array
from ..validation import check_count, check_fits
from ..world import Family
from .bail import BailState
from .expert import Experts, first_best
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
    """At every step the best subgoal by a tree search.

    Subgoals are decisions and observations are chance, with the predictive law as its probabilities. A new leaf is
    worth what it would be if the task were revealed there, which bounds it from above; so does the tree, and grown to
    the end it is exact.

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
        values = self.search(inner, observed.step, observed.instruction, draw)
        chosen = jnp.where(jnp.arange(self.subgoals) == first_best(values), 1.0, 0.0)
        return SearchState(inner, key), jnp.where(jnp.isnan(values).any(), jnp.nan, chosen)

    def observe(self, state: SearchState, episode: Episode) -> SearchState:
        return SearchState(super().observe(state.inner, episode), state.key)

    def posterior(self, state: SearchState) -> Any:
        return super().posterior(state.inner)

    def search(self, state: BailState, step: Any, instruction: Any, key: Any) -> Float[Array, " G"]:
        """At most so much reward is still to come after each subgoal; NaN where the history is impossible."""
        mctx: Any = importlib.import_module("mctx")  # a tenth of a second to load
        w, H = instruction, self.horizon

        def known(place: Any) -> tuple[Any, Any]:
            """P(z | tau) [Z], and Q*_z [Z, G]; 0 when the episode is over."""
            forward, memory, h = place
            task = jax.nn.softmax(state.log_weights + self.tracker.log_likelihood(forward))
            return task, jnp.where(h < H - 1, self.revealed(forward, memory, h, w), 0)

        def decide(_: Any, __: Any, g: Any, node: Any) -> Any:
            def one(g: Any, node: Node) -> Any:
                forward, _, h = node.place
                task, q = known(node.place)
                law = self.tracker.predict(forward, task, jnp.minimum(h, H - 2), g)
                value = task @ q[:, g]
                return mctx.DecisionRecurrentFnOutput(chance_logits=jnp.log(law), afterstate_value=value), (
                    node,
                    g,
                    law,
                )

            return jax.vmap(one)(g, node)

        def hear(_: Any, __: Any, o: Any, after: Any) -> Any:
            def one(o: Any, after: Any) -> Any:
                before, g, law = after
                forward, memory, h = before.place
                moved = self.tracker.advance(forward, h, g, o), self.experts.advance(memory, h, g, o), h + 1
                # The search may go on past the end of the episode: nothing is paid there, and the place stays.
                live = h < H - 1
                place = jax.tree.map(lambda a, b: jnp.where(live, a, b), moved, before.place)
                task, q = known(place)
                paid = jnp.where(live, jnp.asarray(self.reward)[jnp.minimum(h + 1, H - 1), o, w], 0)
                node = Node(place, law[o], task @ q.max(axis=1), task @ q)
                out = mctx.ChanceRecurrentFnOutput(
                    action_logits=flat, value=node.worth.max(), reward=paid, discount=jnp.ones_like(paid)
                )
                return out, node

            return jax.vmap(one)(o, after)

        start = state.forward, state.memory, jnp.asarray(step, jnp.int32)
        task, q = known(start)
        flat = jnp.zeros(self.subgoals, q.dtype)
        first = Node(start, flat[0], task @ q.max(axis=1), task @ q)
        batch = jax.tree.map(lambda a: jnp.asarray(a)[None], first)
        root = mctx.RootFnOutput(prior_logits=flat[None], value=first.worth.max()[None], embedding=batch)
        found = mctx.stochastic_muzero_policy(
            (), key, root, decide, hear, self.simulations, max_depth=max(2 * (H - 1), 1), dirichlet_fraction=0.0
        )
        return _backed_up(jax.tree.map(lambda a: a[0], found.search_tree))


class Node(eqx.Module):
    """What the tree keeps at a decision.

    Attributes:
        place: forward weights, the experts' memory and the step.
        chance: of the observation that led here.
        revealed: what is still to come if the task is revealed here, sum_z P(z | tau) max_g Q*_z(tau, g).
        worth: the same if it is revealed after the next observation, [G].
    """

    place: Any
    chance: Any
    revealed: Any
    worth: Float[Array, " G"]


def _backed_up(tree: Any) -> Float[Array, " G"]:
    """Bounds at the root: the best of the children of a decision, the mean over the observations after it.

    What was not tried counts as revealed. (The means that guide the search count its detours too: no bound, and further
    from the best plan.)
    """
    nodes: Node = tree.embeddings.state_embedding
    size = len(tree.parents)

    def push(i: Any, carry: Any) -> Any:
        values, fall = carry
        node = size - 1 - i  # children come after their parents
        decides = tree.embeddings.is_decision_node[node]
        value = jnp.where(decides, values[node].max(), tree.raw_values[node] - fall[node])
        parent = jnp.where(tree.parents[node] < 0, size, tree.parents[node])  # the last row is nobody's
        action = jnp.where(decides, values.shape[1], tree.action_from_parent[node])
        values = values.at[parent, action].set(value, mode="drop")
        gone = jnp.where(decides, nodes.chance[node] * (nodes.revealed[node] - value), 0)
        return values, fall.at[parent].add(gone)

    values = jnp.concatenate([nodes.worth, jnp.zeros_like(nodes.worth[:1])])
    values, _ = jax.lax.fori_loop(0, size, push, (values, jnp.zeros(size + 1, values.dtype)))
    return values[0]
