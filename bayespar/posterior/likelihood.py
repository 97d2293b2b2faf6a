"""The probability of a whole prompt, as a function of the world: what a sampler evaluates again and again.

Equal episodes are kept once, with their number. The current history is one more episode, that stops early. Where each
observation can come from one state at most, an episode is a path of known states, and a prompt is but a table of
counts: of starts, moves and sights. Its cost does then not depend on the number of episodes.

Source: theory.md, section 1 (causal likelihood).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ..arrays import Array, is_traced
from ..evidence import bucket
from ..factored import Factored
from ..forward import is_small, log_kernels, log_space_prefixes, safe_log
from ..history import Prompt
from ..world import Family, Sparse
from .expected_counts import log_likelihood, rows_at_once


class Likelihood(eqx.Module):
    """log L_z of a prompt, of any family of its shape.

    Attributes:
        decoded: the counts, where states can be read off observations; else None.
        episodes: the distinct episodes, where they cannot; else None.
    """

    decoded: Counts | None
    episodes: Episodes | None

    def __init__(self, prompt: Prompt, family: Family, *, decode: bool = True, fallback: bool = True):
        """Reads a prompt.

        Args:
            prompt: what was seen; it has been checked against the family.
            family: concrete; it says the sizes, and by its zeros which states can be read off observations.
            decode: whether to look for such states.
            fallback: use logarithms where probabilities may underflow, at the price of a longer compilation; else the
                result is NaN there.
        """
        rows = Episodes(prompt, family, fallback)
        states = decoder(family) if decode else None
        self.decoded = None if states is None else Counts(rows, states, family)
        self.episodes = rows if states is None else None

    def __call__(self, family: Family) -> Float[Array, " Z"]:
        """log L_z, nats, [Z]; traceable and differentiable.

        -inf where the prompt is impossible. NaN where ``family`` lets an observation come from a state that it could
        not come from in the family given at the start; ``decode=False`` avoids it. Without ``fallback``, NaN also
        where a probability may underflow.
        """
        if self.decoded is not None:
            return self.decoded(family)
        assert self.episodes is not None
        return self.episodes(family)


def decoder(family: Family) -> Int[np.ndarray, " O"] | None:
    """The only state that each observation can come from, under any task; None if one can come from several.

    An observation that comes from no state is given state 0, where its probability is 0.
    """
    if not isinstance(_dense(family), (np.ndarray, jnp.ndarray)):
        return None
    possible = (np.asarray(family.emission) > 0).any(axis=0)
    return possible.argmax(axis=0) if (possible.sum(axis=0) <= 1).all() else None


class Episodes(eqx.Module):
    """Distinct episodes with hidden states.

    Attributes:
        observations: [R, H]; O where nothing was seen.
        subgoals: [R, H-1]; G where nothing was seen.
        counts: how often each row was seen, [R]; 0 for padding, so that growing prompts keep their shapes.
        block: rows worked on at once.
        fallback: as of :class:`Likelihood`.
    """

    observations: Int[np.ndarray | Array, "R H"]
    subgoals: Int[np.ndarray | Array, "R Hm1"]
    counts: Float[np.ndarray | Array, " R"]
    block: int = eqx.field(static=True)
    fallback: bool = eqx.field(static=True)

    def __init__(self, prompt: Prompt, family: Family, fallback: bool = True):
        H, O, G = family.horizon, family.num_observations, family.num_subgoals
        rows = np.concatenate([prompt.observations, prompt.subgoals], axis=1).reshape(-1, 2 * H - 1)
        rows, counts = np.unique(rows, axis=0, return_counts=True)
        if prompt.step:
            now = np.concatenate([np.full((1, H), O), np.full((1, H - 1), G)], axis=1)
            now[0, : prompt.step] = prompt.current_observations
            now[0, H : H + prompt.step - 1] = prompt.current_subgoals
            rows, counts = np.concatenate([rows, now]), np.append(counts, 1)
        self.fallback = fallback
        self.block = rows_at_once(H, family.num_tasks, family.num_states, G)
        size = bucket(max(len(rows), 1))
        size = size if size <= self.block else -(-size // self.block) * self.block
        spare = size - len(rows)
        rows = np.pad(rows, [(0, spare), (0, 0)]).astype(np.int32)
        rows[size - spare :, :H] = O
        rows[size - spare :, H:] = G
        self.observations, self.subgoals = rows[:, :H], rows[:, H:]
        self.counts = np.pad(counts, (0, spare)).astype(np.float64)

    def __call__(self, family: Family) -> Float[Array, " Z"]:
        Z, kernel = family.num_tasks, _dense(family)
        if isinstance(kernel, (Sparse, Factored)):
            log_initial, log_transition, log_emission = log_kernels(family)
            log_emission = jnp.pad(log_emission, [(0, 0), (0, 0), (0, 1)])
            # An unseen observation has probability 1 and predictions sum to 1, whatever the subgoal.
            g = jnp.minimum(self.subgoals, family.num_subgoals - 1)
            prefixes = log_space_prefixes(Z, log_initial, log_transition, log_emission, self.observations, g)
            return jnp.where(self.counts > 0, self.counts * prefixes[:, :, -1], 0).sum(axis=1)
        kernels = family.initial, kernel, family.emission
        wanted = is_traced(kernels[0]), is_traced(kernels[1]), is_traced(kernels[2])
        rows = self.observations, self.subgoals, self.counts
        each: Any = log_likelihood(wanted, self.block, self.fallback, *map(jnp.asarray, kernels), *rows)
        return jnp.broadcast_to(each, (Z,))


class Counts(eqx.Module):
    """How often each entry of each kernel was used by episodes whose states are known.

    Attributes:
        initial: [S].
        transition: [H-1 or 1, G, S, S'].
        emission: [S, O].
        impossible: entries of the emission that were taken to be 0, [S, O].
    """

    initial: Float[np.ndarray | Array, " S"]
    transition: Float[np.ndarray | Array, "steps G S S2"]
    emission: Float[np.ndarray | Array, "S O"]
    impossible: Bool[np.ndarray | Array, "S O"]

    def __init__(self, rows: Episodes, states: Int[np.ndarray, " O"], family: Family):
        S, O, G = family.num_states, family.num_observations, family.num_subgoals
        steps = family.transition.shape[1]
        o, g = np.asarray(rows.observations), np.asarray(rows.subgoals)
        weights = np.broadcast_to(np.asarray(rows.counts)[:, None], o.shape)
        path = np.append(states, 0)[o]
        seen = o < O
        self.initial, self.emission = np.zeros(S), np.zeros((S, O))
        self.transition = np.zeros((steps, G, S, S))
        np.add.at(self.initial, path[:, 0], weights[:, 0] * seen[:, 0])
        np.add.at(self.emission, (path[seen], o[seen]), weights[seen])
        later = seen[:, 1:]
        step = np.broadcast_to(np.minimum(np.arange(g.shape[1]), steps - 1), g.shape)
        where = step[later], g[later], path[:, :-1][later], path[:, 1:][later]
        np.add.at(self.transition, where, weights[:, 1:][later])
        self.impossible = states[None] != np.arange(S)[:, None]

    def __call__(self, family: Family) -> Float[Array, " Z"]:
        pairs = [(self.initial, family.initial), (self.transition, _dense(family)), (self.emission, family.emission)]
        total = sum(_weighted_logs(counts, kernel) for counts, kernel in pairs)
        wrong = (self.impossible & (jnp.asarray(family.emission) != 0)).any(axis=(1, 2))
        return jnp.broadcast_to(jnp.where(wrong, jnp.nan, total), (family.num_tasks,))


def _weighted_logs(counts: Any, kernel: Any) -> Float[Array, " Z"]:
    """sum of count times log p, over all axes but the first of ``kernel``; 0 log 0 is 0."""
    used = counts > 0
    # Entries that are not used are never read, so neither a 0 nor its infinite derivative can enter the sum.
    logs = safe_log(jnp.where(used, jnp.asarray(kernel), 1))
    return jnp.where(used, counts * logs, 0).sum(axis=tuple(range(1, logs.ndim)))


def _dense(family: Family) -> Any:
    """The transition, dense where that is the faster form."""
    if isinstance(family.transition, (Sparse, Factored)) and is_small(family.transition, family.num_states):
        return family.dense_transition()
    return family.transition
