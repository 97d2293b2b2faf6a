"""What any planner would have said at each decision of given prompts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from ..arrays import precision_of
from ..errors import InvalidPlannerError, InvalidPromptError
from ..history import Prompt, as_indices, check_prompt
from ..keys import check_key
from ..planning.by_draws import check_decision
from ..planning.planner import (
    Episode,
    Observed,
    Planner,
    PromptPlanner,
    as_planner,
    check_probabilities,
    check_shape,
    is_distribution,
)
from ..world import Family, check_family
from .corpus import PROMPT_BLOCK
from .environment import block_keys, split_key


def replay(
    planner: Any, family: Family, instructions: Any, observations: Any, subgoals: Any, *, key: Any = 0
) -> Float[np.ndarray, "B N Hm1 G"]:
    """The probabilities of a planner at each decision of B prompts of N episodes; what was done is as in the prompts.

    With the key of :func:`sample_corpus`, and that corpus's behaviour as the planner, these are the probabilities that
    the subgoals of the corpus were drawn from, also where the planner draws at random itself.

    Args:
        planner: anything that :func:`as_planner` takes. A callable from a :class:`Prompt` is called here and now, so
            that its errors are its own; if it has an attribute ``batch``, that is called instead, with all prompts at
            once, and returns as many rows.
        family: the family of the prompts.
        instructions: [B, N], indices.
        observations: [B, N, H], indices.
        subgoals: [B, N, H-1], indices.
        key: a JAX key or an int.

    Raises:
        InvalidPromptError: the arrays do not fit together, or not the family.
        InvalidPlannerError: no planner or key, or what it returns is no distribution.
    """
    w, o, g = check_prompts(family, instructions, observations, subgoals)
    check_key(key)
    B, N, H = o.shape
    chosen = as_planner(planner, family, episodes=N)
    if H == 1:
        return np.zeros((B, N, 0, family.num_subgoals))
    if isinstance(chosen, PromptPlanner):
        places = [(b, n, h) for b in range(B) for n in range(N) for h in range(H - 1)]
        prompts = [_prompt_at(w[b], o[b], g[b], n, h) for b, n, h in places]
        return _asked(chosen, prompts, places).reshape(B, N, H - 1, -1)
    with precision_of(family):
        check_shape("planner", chosen, family)
    probabilities, lawful = _replayed(chosen, family, w, o, g, key)
    if not lawful.all():
        b, n, h = (int(i) for i in np.argwhere(~lawful)[0])
        raise InvalidPlannerError(
            f"prompt {b}, episode {n}, step {h} (all from 0): the planner returned no distribution over subgoals"
        )
    return probabilities


def as_function(planner: Any, family: Family, *, key: Any = 0) -> Callable[[Prompt], Float[np.ndarray, " G"]]:
    """A planner as a callable from a :class:`Prompt` to probabilities [G]: the converse of :func:`as_planner`.

    Each call replays its prompt from the start, with the same key.

    Raises:
        InvalidPlannerError: no planner or key; or, when called, what it returns is no distribution.
        InvalidPromptError: when called, the prompt has no decision to make.
    """
    check_key(key)
    chosen = as_planner(planner, family)
    if isinstance(chosen, PromptPlanner):
        return chosen.function
    with precision_of(family):
        check_shape("planner", chosen, family)

    def answer(prompt: Prompt) -> Float[np.ndarray, " G"]:
        check_prompt(prompt, family)
        check_decision(prompt, family)
        n, h, H = prompt.num_episodes, prompt.step, family.horizon
        rows = 1 << n.bit_length()  # more than n, and few different numbers: each is compiled anew
        w, o, g = np.zeros((1, rows), np.int32), np.zeros((1, rows, H), np.int32), np.zeros((1, rows, H - 1), np.int32)
        if n:
            w[0, :n], o[0, :n], g[0, :n] = prompt.instructions, prompt.observations, prompt.subgoals
        w[0, n], o[0, n, :h], g[0, n, : h - 1] = (
            prompt.current_instruction,
            prompt.current_observations,
            prompt.current_subgoals,
        )
        probabilities, _ = _replayed(chosen, family, w, o, g, key)
        return check_probabilities(probabilities[0, n, h - 1], family.num_subgoals)

    return answer


def check_prompts(
    family: Family, instructions: Any, observations: Any, subgoals: Any
) -> tuple[Int[np.ndarray, "B N"], Int[np.ndarray, "B N H"], Int[np.ndarray, "B N Hm1"]]:
    """The arrays of B prompts of N finished episodes, if they fit together and the family.

    Raises:
        InvalidPromptError: they do not.
    """
    check_family(family)
    w, o, g = (
        np.asarray(as_indices(name, value, ndim))
        for name, value, ndim in (
            ("instructions", instructions, 2),
            ("observations", observations, 3),
            ("subgoals", subgoals, 3),
        )
    )
    B, N, H = o.shape
    if not (B and N):
        raise InvalidPromptError(f"observations has shape {list(o.shape)}; give at least one prompt of one episode")
    if w.shape != (B, N) or g.shape != (B, N, max(H - 1, 0)):
        raise InvalidPromptError(
            f"observations has shape {list(o.shape)}, so instructions must be {[B, N]} and subgoals {[B, N, H - 1]}; "
            f"they are {list(w.shape)} and {list(g.shape)}"
        )
    Prompt(o.reshape(B * N, H), g.reshape(B * N, max(H - 1, 0)), w.reshape(B * N)).check(family)
    return w, o, g


def _replayed(
    planner: Planner, family: Family, w: np.ndarray, o: np.ndarray, g: np.ndarray, key: Any
) -> tuple[Float[np.ndarray, "B N Hm1 G"], Bool[np.ndarray, "B N Hm1"]]:
    """The probabilities, and whether they are distributions."""
    B = len(o)
    size = min(PROMPT_BLOCK, 1 << (B - 1).bit_length())
    out = []
    with precision_of(family):
        root, entropy = split_key(key)
        keys = block_keys(root, entropy, range(-(-B // PROMPT_BLOCK)), (PROMPT_BLOCK,))
        for start in range(0, B, size):
            rows = np.minimum(np.arange(start, start + size), B - 1)
            found, lawful = _replay_block(planner, keys[rows], w[rows], o[rows], g[rows])
            out.append((np.asarray(found, np.float64), np.asarray(lawful)))
    probabilities, lawful = (np.concatenate(a)[:B] for a in zip(*out, strict=True))
    return probabilities, lawful


@eqx.filter_jit
def _replay_block(planner: Planner, keys: Any, w: Any, o: Any, g: Any) -> Any:
    return jax.vmap(lambda *prompt: _replay_one(planner, *prompt))(keys, w, o, g)


def _replay_one(planner: Planner, key: Any, instructions: Any, observations: Any, subgoals: Any) -> Any:
    H = observations.shape[1]

    def episode(state: Any, item: Any) -> Any:
        w, o, g = item

        def step(state: Any, item: Any) -> Any:
            h, heard, before = item
            state, probabilities = planner.step(state, Observed(heard, before, h, w))
            return state, (probabilities, is_distribution(probabilities))

        before = jnp.append(jnp.int32(-1), g)
        state, (probabilities, lawful) = jax.lax.scan(step, state, (jnp.arange(H), o, before))
        return planner.observe(state, Episode(w, o, g)), (probabilities[:-1], lawful[:-1])

    return jax.lax.scan(episode, planner.init(instructions[0], key), (instructions, observations, subgoals))[1]


def _prompt_at(w: np.ndarray, o: np.ndarray, g: np.ndarray, n: int, h: int) -> Prompt:
    past = (o[:n], g[:n], w[:n]) if n else (None, None, None)
    return Prompt(*past, o[n, : h + 1], g[n, :h], int(w[n]))


def _asked(planner: PromptPlanner, prompts: list[Prompt], places: list[tuple[int, int, int]]) -> np.ndarray:
    batch = getattr(planner.function, "batch", None)
    if batch is not None:
        answers = list(batch(prompts))
        if len(answers) != len(prompts):
            raise InvalidPlannerError(f"batch returned {len(answers)} answers to {len(prompts)} prompts; give as many")
    else:
        answers = map(planner.function, prompts)
    rows = []
    for (b, n, h), answer in zip(places, answers, strict=True):
        try:
            row = check_probabilities(answer, planner.subgoals)
            if row.size != planner.subgoals:
                raise InvalidPlannerError(f"a planner returned shape {list(row.shape)}; one distribution is asked for")
            rows.append(row.reshape(planner.subgoals))
        except InvalidPlannerError as error:
            raise InvalidPlannerError(f"prompt {b}, episode {n}, step {h} (all from 0): {error}") from None
    return np.array(rows)
