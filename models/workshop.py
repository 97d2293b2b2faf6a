"""A repair shop whose machines keep their quirks: the world on which networks are pretrained.

Machines come in with one of two complaints, they rattle or they run hot, and three remedies are at hand. Which remedy
cures which complaint is the task: it is the same for all machines of a shop, and never said. A cure is no sure thing:
the right remedy works on four machines of five and a wrong one on three of ten, and the Reporter, who has to shout
over the noise, says the contrary of what happened once in ten times. So every visit tells little, and a Planner must
add up many of them: half way through a context of 32 episodes about two tasks are still possible.

Everything that a Planner decides here it can decide at once, as it always sees the complaint: what is hard is only to
know the task. That makes the expert simple, and the expert's label as telling as it can be.

Source: made for this toolkit, as an example of theory.md, sections 2 and 5.
"""

import functools

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

COMPLAINTS = ["rattles", "runs hot"]
REMEDIES = ["tighten the belt", "change the oil", "clean the filter"]
OUTCOMES = ["the shop opens", "cured", "no better"]
STATES = [(outcome, complaint) for outcome in OUTCOMES for complaint in COMPLAINTS]
OBSERVATIONS = [f"{outcome}; a machine that {complaint} comes in" for outcome, complaint in STATES]


@functools.cache
def emission_of(shouting):
    """What the Reporter says, as a sub-program; cached, so that all tasks share it."""

    def emission(state):
        outcome, complaint = state
        if outcome != "the shop opens" and numpyro.sample("misheard", dist.Bernoulli(shouting)):
            outcome = "cured" if outcome == "no better" else "no better"
        return f"{outcome}; a machine that {complaint} comes in"

    return emission


def draw_complaint():
    """What the next machine suffers from."""
    return COMPLAINTS[numpyro.sample("complaint", dist.DiscreteUniform(0, 1))]


def workshop(machines: int = 2, right: float = 0.8, wrong: float = 0.3, misheard: float = 0.1) -> bp.World:
    """The program.

    Args:
        machines: decisions in an episode, H - 1.
        right: the probability that the right remedy cures.
        wrong: the probability that a wrong one does.
        misheard: the probability that the Reporter says the contrary.
    """
    first = numpyro.sample("for rattling", dist.Categorical(np.array([0.4, 0.35, 0.25])))
    others = [r for r in REMEDIES if r != REMEDIES[first]]
    cures = {"rattles": REMEDIES[first], "runs hot": others[numpyro.sample("for heat", dist.DiscreteUniform(0, 1))]}

    def initial():
        return "the shop opens", draw_complaint()

    def transition(state, subgoal):
        chance = right if subgoal == cures[state[1]] else wrong
        outcome = "cured" if numpyro.sample("works", dist.Bernoulli(chance)) else "no better"
        return outcome, draw_complaint()

    reward = np.zeros((machines + 1, len(OBSERVATIONS)))
    reward[1:, [o.startswith("cured") for o in OBSERVATIONS]] = 1

    return bp.World(
        initial,
        transition,
        emission_of(misheard),
        reward,
        horizon=machines + 1,
        task=", ".join(f"{remedy} if it {complaint}" for complaint, remedy in cures.items()),
        states=STATES,
        subgoals=REMEDIES,
        observations=OBSERVATIONS,
        instructions=["mend the machines"],
    )
