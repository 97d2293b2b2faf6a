"""A climber between two peaks, where every wrong move is final.

From a saddle, a slope and a wall lead up to a peak in the west, and others to a peak in the east. One side is icy: a
stride there fails half of the time, and half of those who fail slip off for good. Which side is icy is the task: it is
the same in every episode. The Planner says which way to go, and the Reporter, in the mist below, takes the slope for
the wall above it, or the other way round, in one of five reports. Being on a peak in the end pays 1.

An Actor strides twice and then climbs: what it does depends on the step and not on the place, so that the order of
its steps matters. At any time it could also let go, and nothing undoes that: an Actor who does so with probability d at
each of n low-level steps stands on its peak with probability (1-d)^n: no error of that size can do more harm.

Source: made for this toolkit, as an example of theory.md, section 1 (low level); it attains the bound of HIER.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

HORIZON = 3
WEST, EAST = (
    ["saddle", *(f"{side} {place}" for place in ("slope", "wall", "peak"))] for side in ("western", "eastern")
)
STATES = [*WEST, *EAST[1:], "fallen"]
OBSERVATIONS = [f"on the {state}" for state in STATES[:-1]] + ["a cry"]
SUBGOALS = {  # and what its Actor does, step by step
    "stay": ["hold on", "hold on", "hold on"],
    "go west": ["stride west", "stride west", "climb"],
    "go east": ["stride east", "stride east", "climb"],
}
ACTIONS = ["hold on", "stride west", "stride east", "climb", "let go"]
ON_ICE = [0.5, 0.25, 0.25]  # a stride succeeds, fails, ends in a fall
MISTAKEN = 0.2


def toward(state, side):
    """The next place on the way to a peak, on foot; a place from which no stride leads there stays."""
    way = [*reversed((EAST if side is WEST else WEST)[1:3]), *side[:3]]
    return way[way.index(state) + 1] if state in way[:-1] else state


def moves_of(icy):
    """The low-level transition where one side is icy, as a sub-program."""

    def moves(state, action):
        if state == "fallen" or action == "let go":
            return "fallen"
        if action == "climb":
            return state.replace("wall", "peak")
        new = toward(state, EAST if action == "stride east" else WEST) if action != "hold on" else state
        if new == state or icy not in state + new:
            return new
        return [new, state, "fallen"][numpyro.sample("footing", dist.Categorical(np.array(ON_ICE)))]

    return moves


def emission(state):
    """What the Reporter says; the same under both tasks."""
    if state == "fallen":
        return "a cry"
    if state.endswith(("slope", "wall")) and numpyro.sample("mistaken", dist.Bernoulli(MISTAKEN)):
        state = state.replace("slope", "wall") if state.endswith("slope") else state.replace("wall", "slope")
    return f"on the {state}"


def ledge() -> bp.World:
    """The program."""
    icy = ["western", "eastern"][numpyro.sample("icy side", dist.DiscreteUniform(0, 1))]
    plans = np.array([[ACTIONS.index(action) for action in plan] for plan in SUBGOALS.values()])
    actors = np.eye(len(ACTIONS))[np.repeat(plans[:, :, None], len(STATES), axis=2)]

    reward = np.zeros((HORIZON, len(OBSERVATIONS)))
    reward[-1, [OBSERVATIONS.index(f"on the {side[-1]}") for side in (WEST, EAST)]] = 1

    return bp.World(
        np.eye(len(STATES))[0],
        bp.TwoLevel(bp.LowLevel(moves_of(icy), steps=plans.shape[1], states=STATES, actions=ACTIONS), actors),
        emission,
        reward,
        horizon=HORIZON,
        task=f"the {icy} side is icy",
        states=STATES,
        subgoals=list(SUBGOALS),
        observations=OBSERVATIONS,
        instructions=["stand on a peak"],
    )
