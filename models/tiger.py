"""The tiger behind one of two doors, as a world for a Planner, an Actor and a Reporter.

A tiger waits behind one door and a treasure behind the other. Listening costs a little and tells the right side
with probability 0.85; opening a door shows what is behind it. Here the side is the task: it is the same in every
episode, so that a Planner can learn it from its prompt. What happened is in the observation, and the classic rewards
r = -1 (listen), 10 (treasure) and -100 (tiger) are scaled to (r + 100) / 110; the first observation is blank and
pays 0. Only the first state depends on the task: both tasks share the transition and the emission.

With ``random_door=True`` it is the classic problem with one task, in which the side is drawn when the episode begins
and again after each opening. Its optimal values for 1, 2 and 3 steps are -1, -2 and 2.72 on the classic scale,
which is 110 J - 100 steps.

Source: L. P. Kaelbling, M. L. Littman, A. R. Cassandra, "Planning and acting in partially observable stochastic
domains", Artificial Intelligence 101 (1998).
"""

import functools

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

SIDES = ["left", "right"]
EVENTS = ["doors closed", "listening", "treasure found", "tiger met"]
STATES = [(f"tiger {side}", event) for side in SIDES for event in EVENTS]
SUBGOALS = ["listen", "open the left door", "open the right door"]
OBSERVATIONS = ["two closed doors", "a growl on the left", "a growl on the right", "the treasure", "the tiger"]
CLASSIC_REWARDS = [-100, -1, -1, 10, -100]  # the first is that of the blank observation, which scales to 0


def draw_side():
    """A side of which each is as likely as the other."""
    return f"tiger {SIDES[numpyro.sample('side', dist.DiscreteUniform(0, 1))]}"


@functools.cache
def transition_of(random_door):
    """The transition, as a sub-program; cached, so that both tasks share it."""

    def transition(state, subgoal):
        tiger, _ = state
        if subgoal == "listen":
            return tiger, "listening"
        event = "tiger met" if tiger.removeprefix("tiger ") in subgoal else "treasure found"
        return (draw_side() if random_door else tiger), event

    return transition


@functools.cache
def emission_of(accuracy):
    """The emission, as a sub-program; cached, so that both tasks share it."""

    def emission(state):
        tiger, event = state
        if event != "listening":
            return {"doors closed": "two closed doors", "tiger met": "the tiger", "treasure found": "the treasure"}[
                event
            ]
        side = tiger.removeprefix("tiger ")
        right = numpyro.sample("heard right", dist.Bernoulli(accuracy))
        return f"a growl on the {side if right else SIDES[1 - SIDES.index(side)]}"

    return emission


def tiger(steps: int = 3, accuracy: float = 0.85, random_door: bool = False) -> bp.World:
    """The program.

    Args:
        steps: decisions in an episode, H - 1.
        accuracy: the probability that listening tells the right side.
        random_door: the classic problem with one task, the side redrawn after each opening.
    """
    side = None if random_door else SIDES[numpyro.sample("tiger", dist.DiscreteUniform(0, 1))]

    def initial():
        return (draw_side() if side is None else f"tiger {side}"), "doors closed"

    reward = np.zeros((steps + 1, len(OBSERVATIONS)))
    reward[1:] = (np.array(CLASSIC_REWARDS) + 100) / 110

    return bp.World(
        initial,
        transition_of(random_door),
        emission_of(accuracy),
        reward,
        horizon=steps + 1,
        task="the tiger moves" if side is None else f"the tiger is on the {side}",
        states=STATES,
        subgoals=SUBGOALS,
        observations=OBSERVATIONS,
        instructions=["find the treasure"],
    )
