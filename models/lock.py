"""A combination lock with two possible code words: linear regret with only two tasks.

The code is one of two words of L letters that differ in every place. A wrong letter jams the lock without a sound,
and only the last observation says whether it has opened. A Planner that mixes the experts afresh at every step
starts either word, and then chooses each time between the next letter and the ``idle`` of the other expert, which
believes that its own word is dead. So it completes a word with probability 2^-(L-1) only, and an episode that it
does not complete says nothing. Playing one word to its end would settle the matter: one task for a whole
episode (Thompson sampling) has regret 1/2 in total.

``idle`` is in neither word and comes first in the list of subgoals, so that ties fall on it: an expert that
believes its word dead must never help the other one. The kernel depends on the step, for it knows how far the word
has come, and three states are enough.

Source: theory.md, N2.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

STATES = ["on the way", "jammed", "open"]
SUBGOALS = ["idle", "turn left", "turn right"]
ON_THE_WAY, JAMMED, OPEN = range(3)


def lock(length: int = 3) -> bp.World:
    """The program.

    Args:
        length: L, the letters of a code word; an episode has L + 1 observations.

    Raises:
        ValueError: the word has no letter.
    """
    if length < 1:
        raise ValueError(f"lock needs at least one letter, but length = {length}")
    first = int(numpyro.sample("first letter", dist.DiscreteUniform(1, 2)))
    word = [1 + (first - 1 + place) % 2 for place in range(length)]  # left, right, left, ... or right, left, right, ...

    transition = np.zeros((length, 3, 3, 3))
    transition[..., ON_THE_WAY, JAMMED] = 1
    transition[..., JAMMED, JAMMED] = 1
    transition[..., OPEN, OPEN] = 1
    for place, letter in enumerate(word):
        transition[place, letter, ON_THE_WAY] = np.eye(3)[OPEN if place == length - 1 else ON_THE_WAY]

    reward = np.zeros((length + 1, 2))
    reward[length, 1] = 1

    return bp.World(
        [1.0, 0.0, 0.0],
        transition,
        [[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]],
        reward,
        horizon=length + 1,
        task="the code is " + ", ".join(SUBGOALS[letter].removeprefix("turn ") for letter in word),
        states=STATES,
        subgoals=SUBGOALS,
        observations=["silence", "the lock springs open"],
        instructions=["open the lock"],
    )
