"""The planner protocol: how anything that picks subgoals plugs into simulation, audit and exact evaluation.

A planner has three pure functions:

``init(instruction, key) -> state``
    once, before the first episode;
``step(state, observed) -> (state, probabilities [G])``
    at every step h of every episode, also while an exploration policy acts; the probabilities at the last step,
    where nothing is left to decide, are ignored;
``observe(state, episode) -> state``
    after every episode.

A pair ``(init, step)`` suffices where nothing is remembered between episodes: such a planner is initialised anew for
each episode. An exploration policy follows the same protocol.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import as_float_array
from ..errors import InvalidPlannerError
from ..history import Prompt
from ..validation import NO_ARRAY, check_count, shown
from ..world import Family, check_family

# Probabilities may come from a float32 softmax over many subgoals.
_SUM_TOLERANCE = 1e-4


class Observed(NamedTuple):
    """What a planner is told at a step.

    The executed subgoal is part of it: what a planner proposes is only a distribution, and an exploration policy may
    have acted in its place.

    Attributes:
        observation: o_h.
        subgoal: g_{h-1}, the subgoal executed just before; -1 at the first step.
        step: h, from 0.
        instruction: w of this episode.
    """

    observation: Any
    subgoal: Any
    step: Any
    instruction: Any


class Episode(NamedTuple):
    """A finished episode.

    Attributes:
        instruction: w.
        observations: [H].
        subgoals: [H-1].
    """

    instruction: Any
    observations: Any
    subgoals: Any


class Planner(eqx.Module):
    """Base class of planners whose parameters are arrays, so that they can be passed through ``jax.jit``."""

    def init(self, instruction: Any, key: Any) -> Any:
        """State before the first episode."""
        return ()

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        """Next state, and the probabilities of the subgoals [G]."""
        raise NotImplementedError

    def observe(self, state: Any, episode: Episode) -> Any:
        """State after an episode."""
        return state

    def posterior(self, state: Any) -> Any:
        """P(z | past) between episodes, [Z], or None if the planner has none."""
        return None


class FunctionPlanner(Planner):
    """A planner from plain functions; without ``observe`` it starts every episode anew."""

    init_function: Callable[..., Any] = eqx.field(static=True)
    step_function: Callable[..., Any] = eqx.field(static=True)
    observe_function: Callable[..., Any] | None = eqx.field(static=True, default=None)

    def init(self, instruction: Any, key: Any) -> Any:
        started = self.init_function(instruction, key)
        return (key, started) if self.observe_function is None else started

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        if self.observe_function is not None:
            return self.step_function(state, observed)
        key, current = state
        blank = self.init_function(observed.instruction, key)
        current = jax.tree.map(lambda a, b: jnp.where(observed.step == 0, a, b), blank, current)
        current, probabilities = _pair("planner", self.step_function(current, observed))
        return (key, current), probabilities

    def observe(self, state: Any, episode: Episode) -> Any:
        if self.observe_function is not None:
            return self.observe_function(state, episode)
        return jax.random.split(state[0])[0], state[1]


class UniformPolicy(Planner):
    """Every subgoal with equal probability."""

    subgoals: int = eqx.field(static=True)

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        return state, jnp.full(self.subgoals, 1 / self.subgoals)


class PromptPlanner(Planner):
    """Any Python callable from a :class:`Prompt` to probabilities [G], called on the host.

    The prompt so far is carried in arrays of fixed size, so the callable is never traced. Where it returns no
    distribution, the probabilities are NaN, which whoever runs the planner reports.
    """

    function: Callable[[Prompt], Any] = eqx.field(static=True)
    subgoals: int = eqx.field(static=True)
    horizon: int = eqx.field(static=True)
    episodes: int = eqx.field(static=True)

    def init(self, instruction: Any, key: Any) -> Any:
        T, H = self.episodes, self.horizon
        past = Episode(jnp.zeros(T, jnp.int32), jnp.zeros((T, H), jnp.int32), jnp.zeros((T, H - 1), jnp.int32))
        now = jnp.zeros(H, jnp.int32), jnp.zeros(H - 1, jnp.int32)
        return jnp.int32(0), past, now

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        count, past, (observations, subgoals) = state
        h = jnp.asarray(observed.step, jnp.int32)
        observations = observations.at[h].set(jnp.asarray(observed.observation, jnp.int32))
        if self.horizon > 1:
            held = subgoals.at[jnp.maximum(h - 1, 0)].set(jnp.asarray(observed.subgoal, jnp.int32))
            subgoals = jnp.where(h > 0, held, subgoals)
        dtype = jnp.result_type(float)
        # A float64 travels as its two halves: a callback may run on a thread where the local 64-bit scope is off.
        shape = (self.subgoals, 2) if dtype == jnp.float64 else (self.subgoals,)
        result = jax.ShapeDtypeStruct(shape, jnp.uint32 if dtype == jnp.float64 else dtype)
        call = functools.partial(self._call, dtype == jnp.float64)
        arguments = count, past, observations, subgoals, h, jnp.asarray(observed.instruction, jnp.int32)
        probabilities = jax.lax.cond(
            h < self.horizon - 1,
            lambda: _from_halves(jax.pure_callback(call, result, *arguments, vmap_method="sequential")),
            lambda: jnp.full(self.subgoals, 1 / self.subgoals, dtype),
        )
        return (count, past, (observations, subgoals)), probabilities

    def observe(self, state: Any, episode: Episode) -> Any:
        count, past, now = state
        past = jax.tree.map(lambda rows, row: rows.at[count].set(jnp.asarray(row, jnp.int32)), past, episode)
        return count + 1, past, now

    def _call(
        self, double: bool, count: Any, past: Any, observations: Any, subgoals: Any, h: Any, instruction: Any
    ) -> Any:
        n, h = int(count), int(h)
        w, o, g = (np.asarray(a)[:n] for a in past)
        prompt = Prompt(
            o if n else None,
            g if n else None,
            w if n else None,
            np.asarray(observations)[: h + 1],
            np.asarray(subgoals)[:h],
            int(instruction),
        )
        try:
            if n > self.episodes:
                raise InvalidPlannerError("the prompt has no room for so many episodes")
            checked = check_probabilities(self.function(prompt), self.subgoals).reshape(-1)
            if checked.size != self.subgoals:
                raise InvalidPlannerError("one distribution is asked for")
        except InvalidPlannerError:
            checked = np.full(self.subgoals, np.nan)  # an error would lose its type in here; the loop names the episode
        return checked.view(np.uint32).reshape(-1, 2) if double else checked.astype(np.float32)


def _from_halves(result: Any) -> Any:
    return jax.lax.bitcast_convert_type(result, jnp.float64) if result.dtype == jnp.uint32 else result


def as_planner(planner: Any, family: Family, *, episodes: int = 1) -> Planner:
    """Make a planner of what a user has.

    Args:
        planner: a :class:`Planner`; any object with ``init`` and ``step`` (and ``observe``); a pair ``(init, step)`` or
            a triple ``(init, step, observe)``; or a callable from a :class:`Prompt` to probabilities [G].
        family: the family it will act in.
        episodes: the longest run it will see (room for the prompt of a callable).

    Raises:
        InvalidPlannerError: none of these, no episodes, or a planner made here for fewer episodes.
    """
    check_family(family)
    check_count("episodes", episodes)
    if isinstance(planner, PromptPlanner) and planner.episodes < episodes:
        raise InvalidPlannerError(
            f"the planner has room for the prompt of {planner.episodes} episodes, and sees {episodes}; make it with "
            f"as_planner(..., episodes={episodes})"
        )
    if isinstance(planner, Planner):
        return planner
    functions: Any = planner
    if not isinstance(planner, tuple):
        functions = tuple(getattr(planner, name, None) for name in ("init", "step", "observe"))
        functions = functions if functions[2] is not None else functions[:2]
    if len(functions) in (2, 3) and all(callable(f) for f in functions):
        return FunctionPlanner(*functions)
    if callable(planner):
        return PromptPlanner(planner, family.num_subgoals, family.horizon, episodes)
    raise InvalidPlannerError(
        f"{shown(planner)} is no planner: give init and step, or a callable from a prompt to probabilities"
    )


def as_policy(policy: Any, family: Family, *, episodes: int = 1) -> Planner:
    """A policy by name ("uniform"), or whatever :func:`as_planner` takes.

    Raises:
        InvalidPlannerError: no such policy.
    """
    if isinstance(policy, str):
        if policy != "uniform":
            raise InvalidPlannerError(
                f'policy = {shown(policy)}; give "uniform" or a policy of your own '
                '(to explore, also "best" or "cheapest")'
            )
        return UniformPolicy(family.num_subgoals)
    return as_planner(policy, family, episodes=episodes)


def check_shape(role: str, policy: Planner, family: Family) -> None:
    """Check what a policy returns at its first step, before anything is compiled.

    Raises:
        InvalidPlannerError: a state that JAX cannot hold, another state after a step than before it, not one
            probability a subgoal, or a planner made for episodes of another length; ``role`` says whose.
    """
    if isinstance(policy, PromptPlanner) and policy.horizon != family.horizon:
        raise InvalidPlannerError(
            f"the {role} was made for episodes of H = {policy.horizon} steps, and here they have {family.horizon}; "
            "make it of this family with as_planner"
        )

    def first_step() -> Any:
        zero = jnp.zeros((), jnp.int32)
        state = policy.init(zero, jax.random.key(0))
        _check_leaves(role, state)
        stepped = _pair(role, policy.step(state, Observed(zero, zero - 1, zero, zero)))
        _check_leaves(role, stepped)
        return state, *stepped

    try:
        state, after, probabilities = jax.eval_shape(first_step)
    except NotImplementedError:
        raise InvalidPlannerError(f"the {role} is a {type(policy).__name__}, which has no step") from None
    shape = getattr(probabilities, "shape", None)
    if shape != (family.num_subgoals,):
        told = type(probabilities).__name__ if shape is None else f"shape {list(shape)}"
        raise InvalidPlannerError(f"the {role} returns {told}; it must be [{family.num_subgoals}]")
    if not jnp.issubdtype(probabilities.dtype, jnp.floating) and not jnp.issubdtype(probabilities.dtype, jnp.integer):
        raise InvalidPlannerError(f"the {role} returns dtype {probabilities.dtype}; probabilities are real numbers")
    if not _alike(state, after):
        raise InvalidPlannerError(
            f"the state of the {role} is {state} before a step and {after} after it; keep structure, shapes and dtypes"
        )


def _pair(role: str, stepped: Any) -> tuple[Any, Any]:
    """What a step returned, if it is (state, probabilities)."""
    if not isinstance(stepped, tuple) or len(stepped) != 2:
        told = type(stepped).__name__
        raise InvalidPlannerError(f"step of the {role} returned {told}; it must return (state, probabilities)")
    return stepped


def _check_leaves(role: str, tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise InvalidPlannerError(f"the {role} returns {shown(leaf)}; states and probabilities are made of arrays")


def _alike(before: Any, after: Any) -> bool:
    """Whether a loop can carry a state that starts as ``before`` and goes on as ``after``."""
    (leaves, structure), (others, its) = jax.tree.flatten(before), jax.tree.flatten(after)
    return structure == its and all(
        a.shape == b.shape and (a.weak_type or a.dtype == b.dtype) for a, b in zip(leaves, others, strict=True)
    )


def is_distribution(probabilities: Any) -> Any:
    """Whether probabilities [G] are a distribution, inside traced code."""
    return (probabilities >= 0).all() & (jnp.abs(probabilities.sum() - 1) <= _SUM_TOLERANCE)


def check_probabilities(probabilities: Any, subgoals: int) -> np.ndarray:
    """``probabilities`` as a float64 array [..., G], if every row is a distribution.

    Raises:
        InvalidPlannerError: another shape, NaN, a negative entry, or a sum that is not 1.
    """
    try:
        array = np.asarray(as_float_array(probabilities), np.float64)
    except NO_ARRAY as error:
        raise InvalidPlannerError(f"a planner returned {shown(probabilities)}: {error}") from None
    if array.ndim == 0 or array.shape[-1] != subgoals:
        raise InvalidPlannerError(f"a planner returned shape {list(array.shape)}; there are {subgoals} subgoals")
    rows = array.reshape(-1, subgoals)
    bad = ~np.isfinite(rows).all(axis=1) | (rows < 0).any(axis=1) | ~(np.abs(rows.sum(axis=1) - 1) <= _SUM_TOLERANCE)
    if bad.any():
        raise InvalidPlannerError(
            f"a planner returned {rows[bad.argmax()].tolist()}, which is not a distribution over subgoals"
        )
    return array
