"""Two tasks that no observation can ever tell apart, though their hidden kernels differ.

A machine is sound or worn, a lamp on it is meant to be green while it is sound, and a Reporter reads the lamp aloud.
Under one task the lamp flickers (each time it shows the wrong colour with probability 1/4) and the Reporter is exact.
Under the other the lamp is steady and the Reporter is careless: it names the wrong colour with probability 1/4.

The laws agree because in both cases the machine moves by the same rule, and, given how it moves, each report is
wrong with probability 1/4, independently of everything else. Whether the error was made before or after the light
left the lamp is part of the hidden story, not of the reports: summing over the lamp gives the same number for every
history. So the two tasks have one value and one expert, their posterior is the prior for ever, and no way of
exploring separates them. (Every probability is a whole number of eighths, so that floating point agrees to the last
bit.) The world is not idle: oiling mends a worn machine and may upset a sound one, and what is best depends on the
reports so far.

Source: theory.md, section 1 (classes of tasks) and E4 (eta* = 0).
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

HORIZON = 4
COLOUR = {"sound": "green", "worn": "red"}
OTHER = {"green": "red", "red": "green"}
STATES = [(f"machine {machine}", f"lamp {lamp}") for machine in COLOUR for lamp in OTHER]
# The probability that the machine is sound after a subgoal, given what it was before.
SOUND_AFTER = {
    ("let it run", "sound"): 7 / 8,
    ("let it run", "worn"): 0.0,
    ("oil the machine", "sound"): 1 / 2,
    ("oil the machine", "worn"): 3 / 4,
}
ERROR = 1 / 4


def mistaken(site, colour, probability):
    """``colour``, or with that probability the other one."""
    return OTHER[colour] if numpyro.sample(site, dist.Bernoulli(probability)) else colour


def aliased() -> bp.World:
    """The program."""
    flickers = bool(numpyro.sample("the lamp flickers", dist.Bernoulli(0.5)))
    lamp_error, reporter_error = (ERROR, 0.0) if flickers else (0.0, ERROR)

    def lit(sound_probability):
        machine = "sound" if numpyro.sample("sound", dist.Bernoulli(sound_probability)) else "worn"
        return f"machine {machine}", f"lamp {mistaken('lamp', COLOUR[machine], lamp_error)}"

    def initial():
        return lit(3 / 4)

    def transition(state, subgoal):
        return lit(SOUND_AFTER[subgoal, state[0].removeprefix("machine ")])

    def emission(state):
        return f"a {mistaken('report', state[1].removeprefix('lamp '), reporter_error)} light"

    reward = np.zeros((HORIZON, 2))
    reward[1:, 0] = 1  # every green light after the first pays

    return bp.World(
        initial,
        transition,
        emission,
        reward,
        horizon=HORIZON,
        task="a flickering lamp, an exact reporter" if flickers else "a steady lamp, a careless reporter",
        states=STATES,
        subgoals=["let it run", "oil the machine"],
        observations=["a green light", "a red light"],
        instructions=["keep the light green"],
    )
