"""A safe prize or a gamble: the world on which planning greedily never learns.

The Planner decides once. ``play safe`` shows a prize of s under both tasks; ``take the risk`` pays 1 under task 1 and
nothing under task 0. As long as the gamble is believed to be good with a probability below s, the best plan in the
aggregated world model is to play safe. Playing safe teaches nothing, so a planner that executes that plan plays
safe for ever, and where the gamble is good it loses 1 - s in every episode, on a world that does not grow.
Imitation does better here: BAIL samples its experts, so it takes the risk now and then, and one try settles it.

With a longer horizon the same choice is offered again at each of H-1 = n decisions, and what is learnt pays within the
episode. The best plan then tries the gamble at once if its prior exceeds s / (n - (n-1) s), which is below s for n > 1.

Source: theory.md, W3.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

STATES = ["before the choice", "safe prize", "jackpot", "blank ticket"]
START, SAFE, JACKPOT, BLANK = range(4)


def safe_or_risky(safe: float = 0.6, prior: float = 0.3, horizon: int = 2) -> bp.World:
    """The program.

    Args:
        safe: s, what the safe prize is worth.
        prior: P_Z(1), the prior probability that the gamble is good.
        horizon: H; the Planner chooses H-1 times.

    Raises:
        ValueError: unless 0 < prior < safe < 1; outside that range one greedy choice does learn, or has nothing to
            learn. Or unless there is a choice: horizon is at least 2.
    """
    if not 0 < prior < safe < 1:
        raise ValueError(f"safe_or_risky needs 0 < prior < safe < 1, but prior = {prior} and safe = {safe}")
    if horizon < 2:
        raise ValueError(f"safe_or_risky needs a choice, so horizon >= 2, but horizon = {horizon}")
    good = bool(numpyro.sample("good gamble", dist.Bernoulli(prior)))

    transition = np.zeros((2, 4, 4))  # [G, S, S']: what is chosen decides, wherever it is chosen
    transition[0, :, SAFE] = 1
    transition[1, :, JACKPOT if good else BLANK] = 1

    return bp.World(
        [1.0, 0.0, 0.0, 0.0],
        transition,
        np.eye(4),
        [[0.0, 0.0, 0.0, 0.0], *[[0.0, safe, 1.0, 0.0]] * (horizon - 1)],
        horizon=horizon,
        task="the gamble is good" if good else "the gamble is bad",
        states=STATES,
        subgoals=["play safe", "take the risk"],
        observations=["two tickets on the table", "a modest prize", "the jackpot", "no prize"],
        instructions=["win what you can"],
    )
