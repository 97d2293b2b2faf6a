"""Two doors, one of them locked: the world on which Actors who draw on their own do not come together.

Several Actors stand at a fork. One of two doors opens, the task says which, and it opens only for all of them at once.
A Planner that knows nothing and draws one joint subgoal from BAIL sends everybody to the same door: right with
probability 1/2, and either way one episode tells the door. Actors who each draw their own part of it are all right
with probability 2^-K only, and whenever they part, which becomes the rule as K grows, they learn nothing at all.

Each Actor walks on its own, so the joint kernel is a product of small ones, and is never multiplied out.

Source: theory.md, M1.
"""

import itertools

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

ACTORS = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn"]
DOORS = ["red door", "blue door"]
PLACES = ["red door", "fork", "blue door"]
SEEN = ["together at the fork", "through the door together", "together at a locked door", "not together"]
LIGHT = [f"not together, light under the {door}" for door in DOORS]


def two_doors(actors: int = 2, light: float = 0.0) -> bp.World:
    """The program.

    Args:
        actors: K, from 1 to 6.
        light: probability that Actors who part see light under the door that opens; 0 in the theorem.

    Raises:
        ValueError: too few or too many Actors, or ``light`` is no probability.
    """
    if not 1 <= actors <= len(ACTORS) or not 0 <= light <= 1:
        raise ValueError(f"two_doors has 1 to {len(ACTORS)} Actors and light in [0, 1]; got {actors} and {light}")
    opens = int(numpyro.sample("door", dist.DiscreteUniform(0, 1)))

    # A corridor of three places; an action is a step towards a door, and doors are where it ends.
    corridor = bp.LowLevel(np.eye(3)[[[0, 0, 1], [1, 2, 2]]], steps=2, states=PLACES, actions=["to red", "to blue"])
    walk = bp.TwoLevel(corridor, np.eye(2)[[[0, 0, 0], [1, 1, 1]]][:, None])

    states = list(itertools.product(PLACES, repeat=actors))
    emission = np.zeros((len(states), len(SEEN) + len(LIGHT)))
    for row, places in zip(emission, states, strict=True):
        together = set(places) if len(set(places)) == 1 else None
        if together is None:
            row[3], row[4 + opens] = 1 - light, light
        else:
            row[0 if together == {"fork"} else 1 if together == {DOORS[opens]} else 2] = 1

    reward = np.zeros((2, len(SEEN) + len(LIGHT)))
    reward[1, 1] = 1

    return bp.World(
        [float(set(places) == {"fork"}) for places in states],
        bp.Factored([walk] * actors),
        emission,
        reward,
        horizon=2,
        task=f"the {DOORS[opens]} opens",
        states=states,
        subgoals=bp.Team(dict.fromkeys(ACTORS[:actors], DOORS)),
        observations=SEEN + LIGHT,
        instructions=["go through the door"],
    )
