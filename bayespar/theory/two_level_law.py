"""The law of a two-level episode, one low-level step at a time.

This is the other side of HIER. Laws of states are vectors that are carried through every low-level step; no kernels are
multiplied with each other, and no code is shared with ``TwoLevel.compose``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from scipy import sparse

from ..errors import TooLargeError
from ..low_level import TwoLevel
from ..planning.expert import Experts
from ..sparse import Sparse
from ..world import World

_MOST_HISTORIES = 4096


Push = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""What subgoals [n] make of laws of states [n, S]."""


def step_by_step(two_level: TwoLevel, actors: Float[np.ndarray, "G steps S A"] | None = None) -> Push:
    """Through H_a low-level steps; ``actors`` in place of those of ``two_level``, whose rows may sum to less than 1."""
    T, H_a = two_level.low_level.transition, two_level.low_level.steps
    dense = dense_kernel(T)
    A, S, _ = dense.shape
    rows = dense.reshape(A * S, S)
    moves = sparse.csr_array((rows / rows.sum(axis=1, keepdims=True)).T)  # [S', A S]
    mu = normalised(two_level.actors) if actors is None else actors

    def push(laws: Any, subgoals: Any) -> Any:
        columns = laws.T  # [S, n]
        for k in range(H_a):
            chosen = mu[subgoals, min(k, mu.shape[1] - 1)].transpose(2, 1, 0)  # [A, S, n]
            columns = moves @ (chosen * columns).reshape(A * S, -1)
        return columns.T

    return push


def composed(kernel: Any) -> Push:
    """By a composed kernel, [G, S, S'] or a Sparse [G, S, K]."""
    dense = dense_kernel(kernel)

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


def composed_world(world: World) -> Push:
    """By the kernel of a World, the same at every step."""
    return composed(first_step(world))


def first_step(world: World) -> Any:
    """The kernel of a World without its axis of steps."""
    return jax.tree.map(lambda a: a[0], world.transition)


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


def expert_choice(world: World, experts: Experts, task: int, instruction: int) -> Callable[[list[int], list[int]], int]:
    """The subgoal of a task's expert, as a function of the observations and subgoals so far.

    ``world`` is that of the task: where an expert reads beliefs, they are those of its composed kernel.
    """
    kernel = dense_kernel(first_step(world))
    chosen: dict[Any, int] = {}
    initial, emission = (np.asarray(a, np.float64) for a in (world.initial, world.emission))

    def choose(observations: list[int], subgoals: list[int]) -> int:
        history = (*observations, *subgoals)
        if history not in chosen:
            chosen[history] = compute(observations, subgoals)
        return chosen[history]

    def compute(observations: list[int], subgoals: list[int]) -> int:
        memory = experts.start(observations[0])
        for h, (g, o) in enumerate(zip(subgoals, observations[1:], strict=True)):
            memory = experts.advance(memory, h, g, o)
        beliefs = np.zeros((experts.value.shape[0], len(initial)))
        if isinstance(memory, tuple):  # no memory: it acts on beliefs
            beliefs[task] = initial * emission[:, observations[0]]
            for g, o in zip(subgoals, observations[1:], strict=True):
                beliefs[task] = beliefs[task] @ kernel[g] * emission[:, o]
        return int(experts.act(memory, beliefs, len(subgoals), instruction)[task])

    return choose


def expert_policy(world: World, experts: Experts, task: int, instruction: int) -> Policy:
    """The expert of a task, which remembers the whole history.

    Asked for its laws, it raises TooLargeError where some thousand histories are possible.
    """
    choose = expert_choice(world, experts, task, instruction)
    emission = np.asarray(world.emission, np.float64)

    def laws(push: Push) -> Laws:
        law = np.asarray(world.initial, np.float64)[None]
        out, histories = [law[0]], [([], [])]
        for h in range(world.horizon - 1):
            node, heard = np.nonzero(law @ emission > 0)
            if len(node) > _MOST_HISTORIES:
                raise TooLargeError(f"{len(node)} histories of {h + 1} observations", 8 * law.shape[1] * len(node))
            told = [([*histories[n][0], o], histories[n][1]) for n, o in zip(node, heard.tolist(), strict=True)]
            subgoals = [choose(*history) for history in told]
            law = push(law[node] * emission[:, heard].T, np.array(subgoals))
            histories = [(o, [*before, g]) for (o, before), g in zip(told, subgoals, strict=True)]
            out.append(law.sum(axis=0))
        return np.stack(out)

    return laws


def value_of(laws: Laws, world: World) -> Float[np.ndarray, " W"]:
    """J, from the laws of the states: sum over h of E r_h(o_h, w)."""
    reward, emission = np.asarray(world.reward, np.float64), np.asarray(world.emission, np.float64)
    return np.einsum("hs,so,how->w", laws, emission, reward, optimize=True)


def dense_kernel(kernel: Any) -> Float[np.ndarray, "n S S2"]:
    """A kernel [n, S, S'], or a Sparse [n, S, K], as an array."""
    return np.asarray(kernel.dense(kernel.shape[1]) if isinstance(kernel, Sparse) else kernel, np.float64)
