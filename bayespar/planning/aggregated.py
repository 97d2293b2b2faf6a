"""The best plan in the aggregated world model, by dynamic programming over an information graph.

The graph does not depend on how probable the tasks are, so it is laid out once as padded arrays; a plan is then a few
array products, for one posterior inside ``jit`` or for thousands of them on the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array
from ..errors import TooLargeError
from ..filtering import Filter
from ..world import Family
from .beliefs import DEFAULT_MAX_BYTES
from .classes import TaskClasses, task_classes
from .expert import first_best
from .information import InformationGraph, InformationLayer, information_graph, places
from .planner import Episode, Observed, Planner


class GraphPlans(eqx.Module):
    """What the best plans from all posteriors have in common, layer by layer of the graph.

    Attributes:
        paid: expected reward of the observation that follows, times L_z(tau) / m(tau), [W, n, G, C] a layer.
        likelihood: L_z(tau) / m(tau), [n, C] a layer.
        child: the next nodes, padded, [n, G, K]; one layer fewer.
        weight: m(tau, g, o) / m(tau) of each, 0 where padded, [n, G, K].
    """

    paid: Sequence[Float[Array, "W _ G C"]]
    likelihood: Sequence[Float[Array, "_ C"]]
    child: Sequence[Int[Array, "_ G K"]]
    weight: Sequence[Float[Array, "_ G K"]]

    def __init__(self, graph: InformationGraph):
        G, W = graph.family.num_subgoals, graph.family.num_instructions
        rewards = [graph.rewards(w) for w in range(W)]
        self.paid = [np.stack(by_instruction) for by_instruction in zip(*rewards, strict=True)]
        self.likelihood = graph.likelihoods()[: len(graph.layers)]
        padded = [_padded(layer, G) for layer in graph.layers[:-1]]
        self.child, self.weight = [c for c, _ in padded], [w for _, w in padded]

    @property
    def width(self) -> int:
        """Entries of the largest temporary array for one posterior and one instruction."""
        return max([c.size for c in self.child] + [p[0].size // p.shape[-1] for p in self.paid], default=1)

    def q(self, weights: Float[Array, "*m C"], instruction: int | None = None) -> list[Float[Array, "*m W _ G"]]:
        """Expected reward still to come after every node and subgoal, if the best plan is followed from then on.

        Args:
            weights: P(z | past) of the classes; a vector or a batch.
            instruction: one alone; all by default.

        Returns:
            Q given tau, layer by layer; 0 where tau is impossible under every task of positive weight.
        """
        rows = slice(None) if instruction is None else slice(instruction, instruction + 1)
        xp: Any = np if isinstance(weights, np.ndarray) else jnp
        out: list[Any] = []
        later: Any = None
        for h in reversed(range(len(self.paid))):
            # Times P(tau) / m(tau), so that nothing is divided on the way; normalised only to be compared.
            joint = xp.tensordot(weights, self.paid[h][rows], axes=([-1], [-1]))
            if later is not None:
                joint = joint + (later[..., self.child[h]] * self.weight[h]).sum(axis=-1)
            later = joint.max(axis=-1)
            total = self.total(weights, h)
            out.append(joint / xp.where(total > 0, total, 1)[..., None, :, None])
        return out[::-1]

    def total(self, weights: Float[Array, "*m C"], h: int) -> Float[Array, "*m _"]:
        """P(tau) / m(tau) at every node of layer h."""
        return weights @ self.likelihood[h].T


def _padded(layer: InformationLayer, subgoals: int) -> tuple[np.ndarray, np.ndarray]:
    """The children of every node and subgoal, and their weights, side by side."""
    group = layer.node.astype(np.int64) * subgoals + layer.subgoal  # edges are sorted by it
    starts = np.searchsorted(group, np.arange(layer.size * subgoals))
    slot = np.arange(len(group)) - starts[group]
    shape = (layer.size * subgoals, int(slot.max()) + 1)
    child, weight = np.zeros(shape, np.int32), np.zeros(shape)
    child[group, slot] = layer.child
    weight[group, slot] = layer.joint.mean(axis=1)
    return child.reshape(layer.size, subgoals, -1), weight.reshape(layer.size, subgoals, -1)


def plan_graph(family: Family, *, max_bytes: float = DEFAULT_MAX_BYTES) -> tuple[TaskClasses, InformationGraph]:
    """The classes of a family, and the graph of their histories.

    Raises:
        TooLargeError: it does not fit; the message names what plans without it.
    """
    classes = task_classes(family)
    try:
        return classes, information_graph(classes.family, max_bytes=max_bytes)  # pyright: ignore[reportArgumentType]
    except TooLargeError as error:
        raise TooLargeError(
            f'{error}; or plan by method "lookahead" or "search" (planners "bawm-lookahead" and "bawm-search")',
            error.predicted_bytes,
        ) from None


class BawmState(eqx.Module):
    """What the planner remembers.

    Attributes:
        log_weights: log P(z | past), nats, [Z].
        forward: forward weights of the current episode (see :class:`Filter`).
        node: place in the graph.
        actions: the plan of this episode, [W, N + 1]; -1 where the past makes a node impossible.
    """

    log_weights: Float[Array, " Z"]
    forward: Float[Array, "S Z"]
    node: Any
    actions: Int[Array, "W N"]


class BawmPlanner(Planner):
    """Follows the best plan in the aggregated world model, made anew before every episode.

    Source: theory.md, W2.
    """

    log_prior: Float[Array, " Z"]
    tracker: Filter
    plans: GraphPlans
    member: Float[Array, "C Z"]
    root: Int[Array, " O"]
    child: Int[Array, "N G O"]
    subgoals: int = eqx.field(static=True)
    instructions: int = eqx.field(static=True)

    def __init__(self, family: Family, *, max_bytes: int = DEFAULT_MAX_BYTES):
        """
        Raises:
            TooLargeError: the graph of histories does not fit.
        """
        classes, graph = plan_graph(family, max_bytes=max_bytes)
        with np.errstate(divide="ignore"):
            self.log_prior = np.log(family.task_prior)
        self.tracker = Filter(family)
        plans = GraphPlans(graph)
        self.plans = jax.tree.map(lambda a: a.astype(family.dtype) if a.dtype == np.float64 else a, plans)
        self.member = (classes.label == np.arange(len(classes.members))[:, None]).astype(family.dtype)
        self.root, self.child = places(graph)
        self.subgoals, self.instructions = family.num_subgoals, family.num_instructions

    def init(self, instruction: Any, key: Any) -> BawmState:
        return self._planned(jnp.asarray(self.log_prior), self.tracker.start(0), jnp.int32(0))

    def step(self, state: BawmState, observed: Observed) -> tuple[BawmState, Any]:
        o, g, h, w = observed
        first, before = h == 0, jnp.maximum(h - 1, 0)
        forward = jnp.where(first, self.tracker.start(o), self.tracker.advance(state.forward, before, g, o))
        node = jnp.where(first, jnp.asarray(self.root)[o], jnp.asarray(self.child)[state.node, g, o])
        action = state.actions[w, node]
        chosen = jnp.where(jnp.arange(self.subgoals) == action, 1.0, 0.0)
        return BawmState(state.log_weights, forward, node, state.actions), jnp.where(action < 0, jnp.nan, chosen)

    def observe(self, state: BawmState, episode: Episode) -> BawmState:
        log_weights = jax.nn.log_softmax(state.log_weights + self.tracker.log_likelihood(state.forward))
        return self._planned(log_weights, state.forward, state.node)

    def posterior(self, state: BawmState) -> Float[Array, " Z"]:
        """P(z | past), between episodes."""
        return jax.nn.softmax(state.log_weights)

    def _planned(self, log_weights: Any, forward: Any, node: Any) -> BawmState:
        weights = jnp.asarray(self.member) @ jax.nn.softmax(log_weights)
        actions = [
            jnp.where(self.plans.total(weights, h) > 0, first_best(q), -1) for h, q in enumerate(self.plans.q(weights))
        ]
        nowhere = jnp.full((self.instructions, 1), -1, jnp.int32)
        return BawmState(log_weights, forward, node, jnp.concatenate([*actions, nowhere], axis=1))
