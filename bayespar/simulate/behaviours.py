"""Behaviour policies: who executes the subgoals of a corpus.

A behaviour is a planner, and like any planner it sees the prompt and nothing else: neither the task nor a label. Then
its subgoals are no evidence of the task, and the conditionals of the corpus are BAIL and BAWM whatever it does
(theory.md, C1). :class:`TaskDependent` is the one way around that, and says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import InvalidPlannerError
from ..filtering import Filter
from ..planning.bail import BailPlanner
from ..planning.expert import Experts, check_experts
from ..planning.exploration import check_coin
from ..planning.planner import Episode, Observed, Planner, UniformPolicy, as_planner, check_shape
from ..validation import float_array, shown
from ..world import Family, check_family

BEHAVIOURS = ("uniform", "experts", "bail")
"""The behaviours that have a name."""


def as_behaviour(behaviour: Any, family: Family, experts: Experts, *, episodes: int = 1) -> Planner:
    """A behaviour by name, or whatever :func:`as_planner` takes.

    Args:
        behaviour: "uniform"; "experts", a :class:`MixtureOfExperts`; "bail", the planner itself (on-policy; wrap it in
            :class:`Exploring` for coins of exploration); or a planner of your own.
        family: the family whose prior "experts" and "bail" believe in.
        experts: of this family.
        episodes: the longest prompt.

    Raises:
        InvalidPlannerError: no such behaviour.
    """
    if not isinstance(behaviour, str):
        return as_planner(behaviour, family, episodes=episodes)
    if behaviour == "uniform":
        return UniformPolicy(family.num_subgoals)
    if behaviour == "experts":
        return MixtureOfExperts(family, experts)
    if behaviour == "bail":
        return BailPlanner(family, experts)
    known = ", ".join(map(repr, BEHAVIOURS))
    raise InvalidPlannerError(f"behaviour = {shown(behaviour)}; give {known}, or a planner of your own")


class MixtureOfExperts(Planner):
    """The expert of a task that is drawn anew for every episode, whatever the true task is.

    Written as the policy that is equal to it in law (Kuhn, 1953), so that it has no secret: an expert weighs what its
    task weighs in the prior, as long as it would have chosen every subgoal of the episode. Where none would have,
    because another policy acted, all do again.

    Attributes:
        prior: of the drawn task, [Z].
    """

    prior: Float[np.ndarray, " Z"]
    experts: Experts
    tracker: Filter
    subgoals: int = eqx.field(static=True)

    def __init__(self, family: Family, experts: Experts):
        """
        Raises:
            InvalidWorldError: no family.
            InvalidPlannerError: no experts, or those of another family.
        """
        check_experts(experts, check_family(family))
        self.prior = np.asarray(family.task_prior)
        self.experts, self.tracker, self.subgoals = experts, Filter(family), family.num_subgoals

    def init(self, instruction: Any, key: Any) -> Any:
        prior = jnp.asarray(self.prior)
        return self.tracker.start(0), self.experts.start(0), prior, jnp.zeros(prior.shape, jnp.int32)

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        forward, memory, weights, actions = state
        o, g, h, w = observed
        first, before = h == 0, jnp.maximum(h - 1, 0)
        agreeing = jnp.where(actions == g, weights, 0)
        weights = jnp.where(first | (agreeing.sum() == 0), jnp.asarray(self.prior), agreeing)
        forward = jnp.where(first, self.tracker.start(o), self.tracker.advance(forward, before, g, o))
        memory = jax.tree.map(
            lambda a, b: jnp.where(first, a, b), self.experts.start(o), self.experts.advance(memory, before, g, o)
        )
        actions = self.experts.act(memory, self.tracker.weights(forward), h, w)
        votes = jnp.where(actions[:, None] == jnp.arange(self.subgoals), weights[:, None], 0).sum(axis=0)
        return (forward, memory, weights, actions), votes / votes.sum()


class Exploring(Planner):
    """A planner in whose place, if a coin says so, another policy acts for a whole episode.

    The coin is tossed before every episode and is a secret; written as the policy that is equal to it in law, it is a
    weight that is updated by what was executed. Around BAIL this is the epsilon-BAIL of E2, and its corpus is the one
    that P1 asks for: the prompts that BAIL meets online.

    Attributes:
        planner: acts where the coin does not show up.
        policy: acts where it does.
        epsilon: its probability in episode t, [T]; the last entry from then on.
    """

    planner: Planner
    policy: Planner
    epsilon: Float[np.ndarray, " T"]

    def __init__(self, planner: Any, epsilon: Any, policy: Any):
        """
        Args:
            planner: a :class:`Planner`, such as ``BailPlanner(family, experts)``.
            epsilon: a probability, or a schedule [T].
            policy: what exploring episodes do, such as ``UniformPolicy(family.num_subgoals)``.

        Raises:
            InvalidPlannerError: epsilon is no probability, or one of the two is no planner.
        """
        coin = np.atleast_1d(np.asarray(float_array("epsilon", epsilon, InvalidPlannerError)))
        check_coin(coin)
        if coin.ndim != 1 or coin.size == 0:
            raise InvalidPlannerError(f"epsilon has shape {list(coin.shape)}; give a probability or a schedule [T]")
        for role, given in (("planner", planner), ("policy", policy)):
            if not isinstance(given, Planner):
                raise InvalidPlannerError(f"{role} = {shown(given)}; give a Planner (as_planner makes one)")
        self.planner, self.policy, self.epsilon = planner, policy, coin

    def init(self, instruction: Any, key: Any) -> Any:
        one, other = jax.random.split(key)
        inner = self.planner.init(instruction, one), self.policy.init(instruction, other)
        observed = Observed(jnp.int32(0), jnp.int32(-1), jnp.int32(0), instruction)
        shapes = [p.step(s, observed)[1] for p, s in zip((self.planner, self.policy), inner, strict=True)]
        return inner, [jnp.zeros_like(jnp.asarray(p, self._dtype)) for p in shapes], self._coin(0), jnp.int32(0)

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        inner, chances, weight, episode = state
        exploring = weight * chances[1][observed.subgoal]
        total = exploring + (1 - weight) * chances[0][observed.subgoal]
        updated = jnp.where(total > 0, exploring / jnp.where(total > 0, total, 1), weight)
        weight = jnp.where(observed.step == 0, self._coin(episode), updated)
        planner, acting = self.planner.step(inner[0], observed)
        policy, explored = self.policy.step(inner[1], observed)
        chances = [jnp.asarray(p, self._dtype) for p in (acting, explored)]
        mixed = (1 - weight) * chances[0] + weight * chances[1]
        return ((planner, policy), chances, weight, episode), mixed

    def observe(self, state: Any, episode: Episode) -> Any:
        inner, chances, weight, count = state
        inner = self.planner.observe(inner[0], episode), self.policy.observe(inner[1], episode)
        return inner, chances, weight, count + 1

    def posterior(self, state: Any) -> Any:
        return self.planner.posterior(state[0][0])

    @property
    def _dtype(self) -> Any:
        return jnp.result_type(float)

    def _coin(self, episode: Any) -> Any:
        epsilon = jnp.asarray(self.epsilon, self._dtype)
        return epsilon[jnp.minimum(episode, epsilon.shape[0] - 1)]


class TaskDependent(Planner):
    """The false twin of a behaviour: a planner that is told the true task.

    Its subgoals are evidence of the task, which online they are not, because there the Planner itself chooses them. So
    the conditionals of such a corpus are not BAIL and BAWM, and a network pretrained on it is misled when it acts.
    Demonstrations by people who knew the task are such a corpus: ``TaskDependent(OraclePlanner(family, experts, 0))``.

    Attributes:
        planner: a :class:`Planner` that holds the index of a task.
        where: the place of that index, given the planner.

    Source: theory.md, C1 (false twin).
    """

    planner: Planner
    where: Callable[[Any], Any] = eqx.field(static=True, default=lambda planner: planner.task)

    def __check_init__(self):
        if not isinstance(self.planner, Planner):
            raise InvalidPlannerError(f"planner = {shown(self.planner)}; give a Planner that holds a task")
        if not callable(self.where):
            raise InvalidPlannerError(f"where = {shown(self.where)}; give a function from the planner to its task")

    def told(self, task: Any) -> Planner:
        """The planner that knows the task. Traceable.

        Raises:
            InvalidPlannerError: ``where`` finds no task in the planner.
        """
        try:
            told = eqx.tree_at(self.where, self.planner, task)
        except Exception:
            told = None
        if not isinstance(told, Planner):
            raise InvalidPlannerError(
                f"where finds no task in the planner, a {type(self.planner).__name__}; "
                "give a function from the planner to the index that it holds"
            )
        return told

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        raise InvalidPlannerError("a TaskDependent behaviour is told the task by a corpus; it acts nowhere else")


def tell(behaviour: Planner, task: Any) -> Planner:
    """The planner that acts in a prompt of ``task``: the behaviour itself, unless it is :class:`TaskDependent`."""
    return behaviour.told(task) if isinstance(behaviour, TaskDependent) else behaviour


def check_behaviour(behaviour: Planner, family: Family) -> None:
    """Check what a behaviour, and whatever it is made of, returns at its first step; nothing is compiled.

    Raises:
        InvalidPlannerError: as :func:`check_shape`.
    """

    def check(role: str, planner: Planner) -> None:
        planner = tell(planner, 0)
        if isinstance(planner, Exploring):
            check("planner", planner.planner)
            check("policy", planner.policy)
        check_shape(role, planner, family)

    check("behaviour", behaviour)
