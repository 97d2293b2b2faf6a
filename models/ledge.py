"""A climber on a ledge: every wrong move is final.

A ledge runs east and west from where the climber stands, and at each end is a hut. On one side the ledge is sound; on
the other it is icy, and whoever sets a foot on ice slips off with probability 1/4. Which side is icy is the task: it is
the same in every episode. The Planner says which way to go, and the Reporter calls from below, through the mist, where
it believes the climber to be; one call in five is one place off. A climber who has reached a hut pays 1 at the end.

The Actor takes two strides and then holds on for the rest of the subgoal: what it does depends on the step and not on
the place. It could always let go instead. Nothing undoes that, so an Actor who errs with probability d at each of n
low-level steps arrives with probability (1-d)^n, which is what the theorem about Actor errors allows in the worst case.

Source: made for this toolkit, as an example of theory.md, section 1 (low level); it attains the bound of HIER.
"""

import functools

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp

HORIZON, STEPS, STRIDES = 3, 3, 2
PLACES = ["west hut", "far west", "near west", "western snow", "start", "eastern snow", "near east", "far east", "east hut"]
FALLEN = "fallen"
STATES = [*PLACES, FALLEN]
ACTIONS = ["hold on", "stride west", "stride east", "let go"]
SUBGOALS = {"stay": "hold on", "go west": "stride west", "go east": "stride east"}
SLIPPERY, MISHEARD = 0.25, 0.2
