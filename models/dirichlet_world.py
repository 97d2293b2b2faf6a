"""A world of which nothing is known but its size: every row of the transition has a Dirichlet prior of its own.

The Reporter names the state, and is right with a known probability. Where it always is (``accuracy=1``), the posterior
of each row is Dirichlet again, with the transitions that were seen added to its concentration; where it is not, hidden
states have to be summed out, and nothing is conjugate. Staying in the last state pays.

Source: the Bayes-adaptive model of unknown dynamics (Duff, 2002), as a world of theory.md, section 8.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp


def dirichlet_world(states: int = 4, subgoals: int = 2, horizon: int = 4, accuracy: float = 0.85) -> bp.World:
    """The program.

    Args:
        states, subgoals: how many.
        horizon: observations in an episode.
        accuracy: how often the Reporter names the right state; otherwise it names any other one.
    """
    if states < 2 or horizon < 2 or not 0 <= accuracy <= 1:
        raise ValueError(
            f"states = {states}, horizon = {horizon}, accuracy = {accuracy}; give at least two states and steps, and a "
            "probability"
        )
    rows = numpyro.sample("rows", dist.Dirichlet(np.ones((subgoals, states, states))).to_event(2))
    emission = np.full((states, states), (1 - accuracy) / (states - 1))
    np.fill_diagonal(emission, accuracy)
    reward = np.zeros((horizon, states))
    reward[1:, -1] = 1 / (horizon - 1)
    return bp.World(
        np.full(states, 1 / states),
        rows,
        emission,
        reward,
        horizon=horizon,
        states=[f"place {s + 1}" for s in range(states)],
        subgoals=[f"way {g + 1}" for g in range(subgoals)],
        observations=[f"place {s + 1}, it seems" for s in range(states)],
    )
