"""A safe prize or a gamble: the world on which planning greedily never learns.

The Planner decides once. ``play safe`` shows a prize of s under both tasks; ``take the risk`` pays 1 under task 1 and
nothing under task 0. As long as the gamble is believed to be good with a probability below s, the best plan in the
aggregated world model is to play safe. Playing safe teaches nothing, so a planner that executes that plan plays
safe for ever, and where the gamble is good it loses 1 - s in every episode, on a world that does not grow.
Imitation does better here: BAIL samples its experts, so it takes the risk now and then, and one try settles it.

Source: theory.md, W3.
"""

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

STATES = ["before the choice", "safe prize", "jackpot", "blank ticket"]
START, SAFE, JACKPOT, BLANK = range(4)


def safe_or_risky(safe: float = 0.6, prior: float = 0.3) -> bp.World:
    """The program.

    Args:
        safe: s, what the safe prize is worth.
        prior: P_Z(1), the prior probability that the gamble is good.

    Raises:
        ValueError: unless 0 < prior < safe < 1; outside that range greedy planning does learn, or has nothing to learn.
    """
    if not 0 < prior < safe < 1:
        raise ValueError(f"safe_or_risky needs 0 < prior < safe < 1, but prior = {prior} and safe = {safe}")
    good = bool(numpyro.sample("good gamble", dist.Bernoulli(prior)))

    transition = np.stack([np.eye(4), np.eye(4)])  # [G, S, S']: after the one decision, nothing moves
    transition[0, START] = np.eye(4)[SAFE]
    transition[1, START] = np.eye(4)[JACKPOT if good else BLANK]

    return bp.World(
        [1.0, 0.0, 0.0, 0.0],
        transition,
        np.eye(4),
        [[0.0, 0.0, 0.0, 0.0], [0.0, safe, 1.0, 0.0]],
        horizon=2,
        task="the gamble is good" if good else "the gamble is bad",
        states=STATES,
        subgoals=["play safe", "take the risk"],
        observations=["two tickets on the table", "a modest prize", "the jackpot", "no prize"],
        instructions=["win what you can"],
    )
