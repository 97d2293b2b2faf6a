"""A cup in one of three rooms, a floor that is slippery to an unknown degree, and a Reporter of unknown reliability.

A mixed task: which room is a finite site, how often a step slips and how often a report is wrong have a density. A
robot that slips is back in the hall, or drops the cup where it was. What the Reporter says about the cup is wrong with
the same probability in every room, so a Planner can only tell a wrong report from a misplaced cup by looking again or
by reaching for it.

Source: made for this toolkit, as an example of theory.md, section 8.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

HORIZON = 5
ROOMS = ["kitchen", "pantry", "garden"]
STATES = ["hall", *ROOMS, "carrying the cup", "Ada has the cup"]
SUBGOALS = [*[f"look in the {room}" for room in ROOMS], "take the cup", "bring it to Ada"]
SIGHTS = ["a cup, it seems", "nothing"]
OBSERVATIONS = ["in the hall", *[f"in the {room}: {sight}" for room in ROOMS for sight in SIGHTS]]
OBSERVATIONS += ["carrying the cup", "Ada says thank you"]


def slippery_kitchen() -> bp.World:
    """The program."""
    room = ROOMS[numpyro.sample("room", dist.Categorical(np.array([0.5, 0.3, 0.2])))]
    slip = numpyro.sample("slip", dist.Beta(2.0, 8.0))
    wrong = numpyro.sample("wrong", dist.Beta(1.5, 6.0))

    def transition(state, subgoal):
        if state == "Ada has the cup":
            return state
        slipped = numpyro.sample("slipped", dist.Bernoulli(slip))
        if subgoal == "bring it to Ada":
            return "Ada has the cup" if state == "carrying the cup" and not slipped else state
        if subgoal == "take the cup":
            return "carrying the cup" if state == room and not slipped else state
        if state == "carrying the cup":
            return state
        return "hall" if slipped else subgoal.split()[-1]

    def emission(state):
        if state == "hall":
            return "in the hall"
        if state not in ROOMS:
            return "Ada says thank you" if state == "Ada has the cup" else state
        mistaken = bool(numpyro.sample("mistaken", dist.Bernoulli(wrong)))
        return f"in the {state}: {SIGHTS[int((state == room) == mistaken)]}"

    reward = np.zeros((HORIZON, len(OBSERVATIONS)))
    reward[:, OBSERVATIONS.index("Ada says thank you")] = 1
    reward[-1] *= 0.8  # thanks that come late
    return bp.World(
        lambda: "hall",
        transition,
        emission,
        reward,
        horizon=HORIZON,
        states=STATES,
        subgoals=SUBGOALS,
        observations=OBSERVATIONS,
        instructions=["bring Ada the cup"],
    )
