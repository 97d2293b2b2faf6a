"""The law of a two-level episode, one low-level step at a time.

This is the other side of HIER. Laws of states are vectors that are carried through every low-level step; no kernels are
multiplied with each other, and no code is shared with ``TwoLevel.compose``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from ..errors import TooLargeError
from ..low_level import TwoLevel
from ..planning.expert import Experts
from ..sparse import Sparse
from ..world import World

_MOST_HISTORIES = 4096


class Push(Protocol):
    """What a subgoal makes of a law of states."""

    def __call__(self, laws: Float[np.ndarray, "n S"], subgoals: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n S"]: ...


def step_by_step(two_level: TwoLevel, actors: Float[np.ndarray, "G steps S A"] | None = None) -> Push:
    """Through H_a low-level steps; ``actors`` in place of those of ``two_level``, whose rows may sum to less than 1."""
    T, H_a = two_level.low_level.transition, two_level.low_level.steps
    dense = np.asarray(T.dense(T.shape[1]) if isinstance(T, Sparse) else T, np.float64)
    A, S, _ = dense.shape
    rows = dense.reshape(A * S, S)
    moves = sparse.csr_array(rows / rows.sum(axis=1, keepdims=True))
    mu = normalised(two_level.actors) if actors is None else actors

    def push(laws: Any, subgoals: Any) -> Any:
        for k in range(H_a):
            chosen = mu[subgoals, min(k, mu.shape[1] - 1)]  # [n, S, A]
            laws = (laws[..., None] * chosen).swapaxes(1, 2).reshape(len(laws), A * S) @ moves
        return laws

    return push


def composed(kernel: Any) -> Push:
    """By a composed kernel, [G, S, S'] or a Sparse [G, S, K]."""
    dense = np.asarray(kernel.dense(kernel.shape[1]) if isinstance(kernel, Sparse) else kernel, np.float64)

    def push(laws: Any, subgoals: Any) -> Any:
        out = np.zeros_like(laws)
        for g in np.unique(subgoals):
            out[subgoals == g] = laws[subgoals == g] @ dense[g]
        return out

    return push


def normalised(actors: Any) -> Float[np.ndarray, "G steps S A"]:
    """Actors whose rows sum to 1 to rounding."""
    actors = np.asarray(actors, np.float64)
    return actors / actors.sum(axis=-1, keepdims=True)


Laws = Float[np.ndarray, "H S"]
Policy = Callable[[Push], Laws]
"""A high-level policy, as a function from what subgoals do to the law of s_h at every h."""


def reading_policy(world: World, table: Float[np.ndarray, "decisions O G"]) -> Policy:
    """The policy that knows the step and the last observation."""

    def laws(push: Push) -> Laws:
        emission, law = np.asarray(world.emission, np.float64), np.asarray(world.initial, np.float64)
        out, G = [law], table.shape[2]
        for rows in table:
            by_subgoal = (emission @ rows).T * out[-1]  # [G, S]: P(s_h, g_h), as o_h depends on s_h only
            out.append(push(by_subgoal, np.arange(G)).sum(axis=0))
        return np.stack(out)

    return laws


def expert_policy(world: World, experts: Experts, task: int, instruction: int) -> Policy:
    """The expert of a task, which remembers the whole history; its beliefs are those of ``world`` itself.

    The laws raise TooLargeError where more than some thousand histories are possible.
    """
    emission = np.asarray(world.emission, np.float64)
    believe = composed(_first_step(world.transition))
    Z = experts.value.shape[0]

    def laws(push: Push) -> Laws:
        H = world.horizon
        law = np.asarray(world.initial, np.float64)[None]
        belief, memory = law, [None]
        out = [law.sum(axis=0)]
        subgoals = np.zeros(1, np.int32)
        for h in range(H - 1):
            node, heard = np.nonzero(law @ emission > 0)
            if len(node) > _MOST_HISTORIES:
                raise TooLargeError(f"{len(node)} histories of {h + 1} observations", 8 * law.shape[1] * len(node))
            law, belief = law[node] * emission[:, heard].T, belief[node] * emission[:, heard].T
            memory = [
                experts.start(o) if h == 0 else experts.advance(memory[n], h - 1, int(subgoals[n]), o)
                for n, o in zip(node, heard, strict=True)
            ]
            beliefs = np.zeros((Z, law.shape[1]))
            chosen = []
            for n in range(len(node)):
                beliefs[task] = belief[n]
                chosen.append(int(experts.act(memory[n], beliefs, h, instruction)[task]))
            subgoals = np.array(chosen)
            law, belief = push(law, subgoals), believe(belief, subgoals)
            out.append(law.sum(axis=0))
        return np.stack(out)

    return laws


def value_of(laws: Laws, world: World) -> Float[np.ndarray, " W"]:
    """J, from the laws of the states: sum over h of E r_h(o_h, w)."""
    reward, emission = np.asarray(world.reward, np.float64), np.asarray(world.emission, np.float64)
    return np.einsum("hs,so,how->w", laws, emission, reward, optimize=True)


def _first_step(kernel: Any) -> Any:
    """A kernel without its axis of steps, which is of size 1 where it was composed."""
    return Sparse(kernel.next_states[0], kernel.probabilities[0]) if isinstance(kernel, Sparse) else kernel[0]
