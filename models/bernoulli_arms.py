"""Arms to pull: each wins with a probability of its own, which stays the same for good.

The smallest world with a continuous task, and one where everything is known in closed form. An episode is one pull.
The arms are independent and each starts from a uniform prior, so after w wins and l losses an arm's probability
follows Beta(1 + w, 1 + l). The expert pulls the best arm; BAIL pulls each arm with the probability that it is the best.

Source: the Bernoulli bandit with a conjugate prior (Thompson, 1933), as a world of theory.md, section 8.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

STATES = ["ready", "won", "lost"]


def bernoulli_arms(arms: int = 3) -> bp.World:
    """The program.

    Args:
        arms: how many.
    """
    if arms < 1:
        raise ValueError(f"arms = {arms}; there must be at least one arm")
    wins = numpyro.sample("wins", dist.Beta(1.0, 1.0).expand([arms]).to_event(1))

    def transition(state, subgoal):
        if state != "ready":
            return state
        return "won" if numpyro.sample("pull", dist.Bernoulli(wins[int(subgoal.split()[-1]) - 1])) else "lost"

    reward = np.zeros((2, 3))
    reward[1, STATES.index("won")] = 1
    return bp.World(
        lambda: "ready",
        transition,
        lambda state: state,
        reward,
        horizon=2,
        states=STATES,
        subgoals=[f"pull arm {k + 1}" for k in range(arms)],
        observations=STATES,
    )
