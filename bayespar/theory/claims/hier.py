"""HIER: a composed world has the values of its two levels, and an Actor's errors cost at most so much."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ...actors import imitate, sample_demonstrations
from ...errors import TooLargeError
from ...low_level import TwoLevel
from ...planning.expert import Experts
from ...simulate.low_level import rollout_low_level
from ...statistics import MeanConfidence, total_variation
from ...world import World
from ..bounds import actor_error
from ..claim import Claim, Settings, Subject
from ..figure import Curves, Figure, Series
from ..two_level_law import (
    Laws,
    Policy,
    Push,
    composed,
    composed_world,
    dense_kernel,
    expert_choice,
    expert_policy,
    normalised,
    reading_policy,
    step_by_step,
    value_of,
)
from ..verdict import Outcome, TwinOutcome, Verdict, all_of, closed_form, identity, inequality, not_applicable

TOLERANCE = 1e-10  # products of some hundred stochastic matrices, each entry rounded to 1e-16
DELTAS = (0.002, 0.01, 0.05)
PERTURBED = 2  # tasks under which Actors are perturbed, in the quick profile
DEMONSTRATIONS = 200  # of each subgoal
SIMULATED = ("gridworld_errands", "ledge")
EPISODES, BATCHES = 2**15, 8


class Levels:
    """The two-level world of one task, and the policies under which its two sides are compared.

    Attributes:
        name: of the task.
        world: with its low level.
        two_level: the low level.
        spread: of the rewards, [H, W].
        tables: policies that read the last observation, [H-1, O, G].
    """

    def __init__(self, subject: Subject, task: int, world: World, two_level: TwoLevel):
        self.name, self.task, self.world, self.two_level = subject.family.tasks[task], task, world, two_level
        self.experts: Experts = subject.experts
        reward = np.asarray(world.reward, np.float64)
        self.spread = reward.max(axis=1) - reward.min(axis=1)
        H, O, G = world.horizon, len(world.observations), two_level.num_subgoals
        table = np.random.default_rng([subject.key, task]).dirichlet(np.ones(G), (H - 1, O))
        self.tables = {"uniform subgoals": np.full((H - 1, O, G), 1 / G), "a policy that reads the last report": table}
        # Name, policy, and the instruction that it follows if it follows one.
        self.policies: list[tuple[str, Policy, int | None]] = [
            *((name, reading_policy(world, table), None) for name, table in self.tables.items()),
            *(("the expert", expert_policy(world, self.experts, task, w), w) for w in range(len(world.instructions))),
        ]
        self._laws: dict[int, Laws | None] = {}

    def laws(self, policy: Policy) -> Laws | None:
        """Of one of ``policies``, step by step; None where that takes too long."""
        if id(policy) not in self._laws:
            self._laws[id(policy)] = follow(policy, step_by_step(self.two_level))
        return self._laws[id(policy)]


def follow(policy: Policy, push: Push) -> Laws | None:
    """The laws of the states under a policy, or None where it would have to tell too many histories apart."""
    try:
        return policy(push)
    except TooLargeError:
        return None


def low_levels(subject: Subject) -> list[Levels]:
    """The two-level worlds of the live tasks; empty unless every task has a low level."""
    found = []
    for z in subject.live.tolist() if subject.worlds else ():
        world = subject.worlds[z]
        two_level = world.two_level
        if two_level is None:
            return []
        found.append(Levels(subject, z, world, two_level))
    return found


def check(subject: Subject, settings: Settings) -> Outcome:
    levels = low_levels(subject)
    if not levels:
        return not_applicable("the world has no low level")
    if subject.family.horizon == 1:
        return not_applicable("H = 1: no subgoal is ever carried out")
    error, compared = difference(levels, lambda level: composed_world(level.world))
    said = f"law of every state and value, composed against step by step: {compared}, {len(levels)} tasks"
    outcomes = [identity(error, TOLERANCE, said)]
    perturbed = levels if settings.full else levels[:PERTURBED]
    outcomes += [_perturbed(perturbed), _imitated(perturbed, subject.key)]
    if subject.name in SIMULATED:
        outcomes.append(_simulated(levels[0], subject.key, settings.alpha))
    return all_of(outcomes)


def difference(levels: list[Levels], high: Callable[[Levels], Push]) -> tuple[float, str]:
    """Largest difference between the two sides, in a law of states or a value, and what was compared."""
    worst, names, left_out = 0.0, dict[str, None](), False
    for level in levels:
        push = high(level)
        for name, policy, w in level.policies:
            one, other = follow(policy, push), level.laws(policy)
            if one is None or other is None:
                left_out = True
                continue
            names[name] = None
            values = [value_of(laws, level.world) for laws in (one, other)]
            errors = [np.abs(one - other).max(), np.abs(values[0] - values[1]).max()]
            if w is not None and level.experts.gap == 0:  # what the expert was promised
                errors.append(abs(values[1][w] - level.experts.value[level.task, w]))
            worst = max(worst, *map(float, errors))
    return worst, ", ".join(names) + (" (experts with too many histories left out)" if left_out else "")


def perturb(level: Levels, delta: float) -> Iterator[Float[np.ndarray, "G steps S A"]]:
    """The Actors with one action or another done instead with probability ``delta``, whatever the state."""
    mu = normalised(level.two_level.actors)
    for action in np.eye(mu.shape[-1]):
        yield (1 - delta) * mu + delta * action


class Loss(NamedTuple):
    """What other Actors cost under one policy, by instruction.

    Attributes:
        value: |J(pi; mu) - J(pi; mu')|.
        bound: of it.
        trivial: what could be lost at most.
    """

    value: Float[np.ndarray, " W"]
    bound: Float[np.ndarray, " W"]
    trivial: Float[np.ndarray, " W"]


def losses(
    level: Levels, actors: Float[np.ndarray, "G steps S A"], bound: Callable[[Policy], Float[np.ndarray, " W"]]
) -> Iterator[Loss]:
    """Of each policy that can be followed."""
    push = step_by_step(level.two_level, actors)
    for _, policy, _ in level.policies:
        one, other = level.laws(policy), follow(policy, push)
        if one is not None and other is not None:
            loss = np.abs(value_of(one, level.world) - value_of(other, level.world))
            yield Loss(loss, bound(policy), level.spread[1:].sum(axis=0))


def _perturbed(levels: list[Levels]) -> Outcome:
    found: dict[float, list[Loss]] = {}
    for delta in DELTAS:
        found[delta] = [
            loss
            for level in levels
            for actors in perturb(level, delta)
            for loss in losses(level, actors, lambda _, a=actors, at=level: allowed(at, a))
        ]
    said = f"loss / bound, Actors who err with probability {', '.join(map(str, DELTAS))} a step"
    outcome = _compare([loss for of_one in found.values() for loss in of_one], said)
    lost = [max(float(loss.value.max()) for loss in of_one) for of_one in found.values()]
    bounds = [max(float(loss.bound.max()) for loss in of_one) for of_one in found.values()]
    figure: Figure = Curves(
        "What an Actor's errors cost",
        "probability of an error in a low-level step",
        "value lost in an episode",
        [Series("largest found", DELTAS, lost), Series("at most", DELTAS, bounds, kind="bound")],
        log=True,
    )
    return Outcome(**{**outcome.__dict__, "figures": (figure,)})


def _compare(found: list[Loss], said: str) -> Outcome:
    """All losses against their bounds."""
    value, bound, trivial = (np.concatenate(column) for column in zip(*found, strict=True))
    return inequality(value, bound, trivial, said)


def allowed(level: Levels, actors: Float[np.ndarray, "G steps S A"]) -> Float[np.ndarray, " W"]:
    """The bound, from the largest distance at each step."""
    apart = total_variation(normalised(level.two_level.actors), actors).max(axis=(0, 2))
    return actor_error(np.broadcast_to(apart, level.two_level.low_level.steps), level.spread)


def _imitated(levels: list[Levels], key: int) -> Outcome:
    """Actors learned from demonstrations: where nothing was shown they err, but few ever go there."""
    found: list[Loss] = []
    for level in levels:
        two_level, mu = level.two_level, normalised(level.two_level.actors)
        start = np.mean(
            reading_policy(level.world, level.tables["uniform subgoals"])(step_by_step(two_level))[:-1], axis=0
        )
        learned = []
        for g, actor in enumerate(mu):
            shown = sample_demonstrations(two_level.low_level, actor, start, DEMONSTRATIONS, key=key + g)
            learned.append(imitate(two_level.low_level, shown).actor)
        both = step_by_step(two_level, np.minimum(mu, np.stack(learned)))

        def parting(policy: Policy, push: Any = both, at: Levels = level) -> np.ndarray:
            return (1 - policy(push).sum(axis=1)) @ at.spread

        found += losses(level, np.stack(learned), parting)
    said = f"Actors learned from {DEMONSTRATIONS} demonstrations, by the probability that coupled rollouts part"
    return _compare(found, said)


def _simulated(level: Levels, key: int, alpha: float) -> Outcome:
    """The value of the expert, by playing every low-level step."""
    world, reward = level.world, np.asarray(level.world.reward, np.float64)[..., 0]
    choose = expert_choice(world, level.experts, level.task, 0)

    def policy(observations: list[int], subgoals: list[int]) -> Any:
        return np.eye(len(world.subgoals))[choose(observations, subgoals)]

    sequence = MeanConfidence(0.0, float(reward.max(axis=1).sum()), alpha, plan=EPISODES)
    interval = sequence.interval()
    for batch in range(BATCHES):
        played = rollout_low_level(world, policy, episodes=EPISODES // BATCHES, key=key + batch)
        interval = sequence.update(reward[np.arange(world.horizon), played.observations].sum(axis=1))
    predicted = value_of(expert_policy(world, level.experts, level.task, 0)(composed_world(world)), world)[0]
    said = f"the expert of {level.name!r} played step by step, {EPISODES} episodes"
    return closed_form(interval, float(predicted), said)


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    levels = low_levels(subject)
    found = []
    wrong: dict[str, Callable[[TwoLevel], TwoLevel]] = {
        "the steps composed in the reversed order": lambda t: TwoLevel(t.low_level, t.actors[:, ::-1]),
        "the first step's matrix to the power H_a": lambda t: TwoLevel(t.low_level, t.actors[:, :1]),
    }
    for name, make in wrong.items():
        apart = max(_apart(level, make(level.two_level)) for level in levels[:PERTURBED])
        if apart > TOLERANCE:  # else the Actors do the same at every step, and nothing is wrong
            error, _ = difference(levels[:PERTURBED], lambda at, m=make: composed(m(at.two_level).compose()))
            effect = f"rows of the kernel move by up to {apart:.2g} in total variation"
            found.append(TwinOutcome(name, effect, error > TOLERANCE, error, 1.0))
    return found + _counted_once(levels[:PERTURBED])


def _apart(level: Levels, wrong: TwoLevel) -> float:
    """Total variation between the composed kernels of the two, in the states that uniform subgoals can reach."""
    law = reading_policy(level.world, level.tables["uniform subgoals"])(composed_world(level.world))[:-1].sum(axis=0)
    kernels = [dense_kernel(t.compose()) for t in (level.two_level, wrong)]
    return float(total_variation(*kernels)[:, law > 0].max())


def _counted_once(levels: list[Levels]) -> list[TwinOutcome]:
    """delta once a subgoal: 1 - (1-delta)^(h-1); told where some Actor's errors cost more than that."""
    worst: tuple[float, float, float] | None = None
    for level in levels:
        for delta in DELTAS:
            false = actor_error(np.array([delta]), level.spread)
            for actors in perturb(level, delta):
                for loss in losses(level, actors, lambda _, bound=false: bound):
                    w = int(np.argmax(loss.value - false))
                    if worst is None or loss.value[w] - false[w] > worst[0]:
                        worst = float(loss.value[w] - false[w]), float(loss.value[w]), float(false[w])
    if worst is None or worst[0] <= TOLERANCE:
        return []  # nothing here suffers enough from errors to tell
    excess, loss, false = worst
    outcome = inequality(np.array([loss]), np.array([false]), np.array([np.inf]), "")
    name = "delta counted once a subgoal: 1 - (1-delta)^(h-1)"
    effect = f"a loss of {loss:.3g} where {false:.3g} is allowed ({excess:+.2g})"
    return [TwinOutcome(name, effect, outcome.verdict is Verdict.REFUTED, loss, 1.0)]


HIER = Claim(
    id="HIER",
    title="two levels are one, and Actors may err a little",
    statement=(
        "With P_z(. | ., g) = M_1 ... M_{H_a}, M_k = sum_a mu_{g,k}(a | .) T_z(. | ., a), each policy is worth as much "
        "in the composed world as in the two-level one. If Actors mu' are within total variation delta of mu in "
        "every state and low-level step, then for every policy |J_z(pi; mu) - J_z(pi; mu')| is at most "
        "sum_{h>=2} spread(r_h) [1 - (1-delta)^((h-1) H_a)]."
    ),
    assumptions=("the world has a low level under every task", "Actors see the state and the step only", "H >= 2"),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
    checks=len(SIMULATED),
)
