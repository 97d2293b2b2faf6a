"""One prompt, simulated: a behaviour acts in the world of a task, and a teacher says what it knows at every decision.

A teacher never acts. It is either the task's expert alone (:class:`Labels`), or also keeps the exact posterior and with
it the conditionals of the corpus (:class:`Conditionals`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import Array
from ..errors import InvalidPlannerError
from ..filtering import Filter
from ..planning.bail import BailPlanner
from ..planning.expert import Experts, HistoryExperts, StateExperts
from ..planning.planner import Episode, Observed, Planner, UniformPolicy, is_distribution
from ..world import Family
from .behaviours import tell
from .environment import Environment, draw


class Labels(eqx.Module):
    """The expert of one task.

    Attributes:
        experts: of all tasks, or of this one alone.
        tracker: the filter that experts without a memory read; None where they have one.
        task: whose expert it is.
    """

    experts: Experts
    tracker: Filter | None
    task: Any

    def __init__(self, family: Family, experts: Experts):
        self.experts, self.task = experts, 0
        self.tracker = Filter(family) if isinstance(experts.start(0), tuple) else None

    def about(self, task: Any) -> Labels:
        """The teacher of ``task``. Traceable."""
        return eqx.tree_at(lambda t: (t.experts, t.task), self, (_alone(self.experts, task), task))

    def init(self) -> Any:
        """State before the first episode."""
        return self.experts.start(0), None if self.tracker is None else self.tracker.start(0)

    def step(self, state: Any, observed: Observed, subgoal: Any) -> tuple[Any, tuple[Any, ...]]:
        """Next state, and the label at the decision after ``observed``."""
        memory, forward = state
        o, g, h, w = observed
        first, before = h == 0, jnp.maximum(h - 1, 0)
        memory = jax.tree.map(
            lambda a, b: jnp.where(first, a, b), self.experts.start(o), self.experts.advance(memory, before, g, o)
        )
        belief = None
        if self.tracker is not None:
            forward = jnp.where(first, self.tracker.start(o), self.tracker.advance(forward, before, g, o))
            belief = self.tracker.weights(forward)
        actions = self.experts.act(memory, belief, h, w)
        return (memory, forward), (actions[self.task if actions.shape[0] > 1 else 0],)

    def observe(self, state: Any, observed: Observed, episode: Episode) -> Any:
        """State after an episode that ended in ``observed``."""
        return state


class Conditionals(eqx.Module):
    """The expert of one task, and what is exactly known of every label and observation from the prompt alone."""

    bail: BailPlanner
    task: Any = 0

    def about(self, task: Any) -> Conditionals:
        """The teacher of ``task``. Traceable."""
        return replace(self, task=task)

    def init(self) -> Any:
        """State before the first episode."""
        return self.bail.init(0, None)

    def step(self, state: Any, observed: Observed, subgoal: Any) -> tuple[Any, tuple[Any, ...]]:
        """Next state; then the label, BAIL, the law of the observation after ``subgoal``, the posterior over tasks, and
        the subgoal of every task's expert."""
        state, conditional = self.bail.step(state, observed)
        posterior = self.bail.probabilities(state)
        actions = self.bail.actions(state, observed.step, observed.instruction)
        predicted = self.bail.tracker.predict(state.forward, posterior, observed.step, subgoal)
        return state, (actions[self.task], conditional, predicted, posterior, actions)

    def observe(self, state: Any, observed: Observed, episode: Episode) -> Any:
        """State after an episode that ended in ``observed``."""
        return self.bail.observe(self.bail.step(state, observed)[0], episode)


class Source(eqx.Module):
    """What draws a prompt."""

    environment: Environment
    policy: Planner
    teacher: Labels | Conditionals
    horizon: int = eqx.field(static=True)


def draw_prompt(source: Source, task: Any, labelled_as: Any, key: Any, uniform: Any) -> tuple[Any, ...]:
    """A prompt of ``task``, whose labels are those of another task if ``labelled_as`` is one. Traceable.

    Args:
        source: whose policy is told the task if it is a :class:`TaskDependent`, and no other.
        task: in whose world the behaviour acts.
        labelled_as: whose expert labels.
        key: of the policy.
        uniform: numbers in [0, 1), [N, H+1, 3]: a row a step (state, observation, subgoal), then (w, unused, unused).

    Returns:
        Instructions [N], observations [N, H], subgoals [N, H-1], whether the policy gave a distribution [N, H-1], and
        what the teacher said [N, H-1, ...].
    """
    policy, teacher = tell(source.policy, task), source.teacher.about(labelled_as)
    episode = partial(_episode, source.environment, policy, teacher, task)
    if isinstance(policy, UniformPolicy) and isinstance(teacher, Labels):  # nothing is carried between episodes
        return jax.vmap(lambda rows: episode(((), teacher.init()), rows)[1])(uniform)
    start = policy.init(draw(source.environment.instructions, uniform[0, -1, 0]), key)
    return jax.lax.scan(episode, (start, teacher.init()), uniform)[1]


def _episode(environment: Environment, policy: Planner, teacher: Any, task: Any, state: Any, uniform: Any) -> Any:
    H = uniform.shape[0] - 1
    w = draw(environment.instructions, uniform[H, 0])
    s = environment.start(task, uniform[0, 0])
    o = environment.emit(task, s, uniform[0, 1])

    def step(carry: Any, item: Any) -> Any:
        (acting, teaching), s, o, g = carry
        h, u = item
        observed = Observed(o, g, h, w)
        acting, probabilities = policy.step(acting, observed)
        lawful = is_distribution(probabilities)
        g = draw(jnp.cumsum(probabilities.astype(u.dtype)), u[2])
        teaching, told = teacher.step(teaching, observed, g)
        s = environment.move(task, s, h, g, u[0])
        heard = environment.emit(task, s, u[1])
        return ((acting, teaching), s, heard, g), (o, g, lawful, *told)

    carry = state, s, o, jnp.int32(-1)
    carry, (observations, subgoals, *rest) = jax.lax.scan(step, carry, (jnp.arange(H - 1), uniform[1:H]))
    (acting, teaching), _, o, g = carry
    observed, observations = Observed(o, g, jnp.int32(H - 1), w), jnp.append(observations, o)
    episode = Episode(w, observations, subgoals)
    acting = policy.observe(policy.step(acting, observed)[0], episode)
    teaching = teacher.observe(teaching, observed, episode)
    return (acting, teaching), (w, observations, subgoals, *rest)


def check_lawful(lawful: Array) -> None:
    """Raise unless the behaviour gave a distribution at every decision [B, N, H-1]."""
    if not lawful.all():
        b, n, h = (int(i) for i in np.argwhere(~lawful)[0])
        raise InvalidPlannerError(
            f"prompt {b}, episode {n}, step {h} (all from 0): the behaviour returned no distribution over subgoals"
        )


def _alone(experts: Experts, task: Any) -> Experts:
    """The experts of one task, where their tables can be told apart; else all of them."""

    def row(table: Any) -> Any:
        table = jnp.asarray(table)
        return table[task][None] if table.shape[0] > 1 else table

    if isinstance(experts, HistoryExperts):
        return eqx.tree_at(lambda e: (e.value, e.root), experts, replace_fn=row)
    if isinstance(experts, StateExperts):
        return eqx.tree_at(lambda e: (e.value, e.state_of, e.table, e.actions), experts, replace_fn=row)
    return experts
