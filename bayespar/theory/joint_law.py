"""The joint law of a corpus, computed from its definition.

This is the other side of C1-C3 and W1. It multiplies out P_D(z, instructions, observations, subgoals, label) with the
behaviour policy and the instruction prior left in, from the kernels alone, and shares no code with the filter, the
evidence kernel or the histories that it is compared with.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ..world import Family

Behaviour = Callable[[int, int, int, int], float]
"""pi_b as a function of (task, step, last observation, subgoal); a lawful one ignores the task."""


def uneven_behaviour(family: Family, strength: float, key: int) -> Behaviour:
    """A policy that depends on the step and the last observation and, by ``strength``, on the task.

    Args:
        family: the world.
        strength: weight of each task's own taste in subgoals; lawful if 0.
        key: of its random entries.
    """
    G = family.num_subgoals
    rng = np.random.default_rng(key)
    lawful = rng.dirichlet(np.full(G, 2.0), (family.horizon, family.num_observations))
    taste = rng.dirichlet(np.ones(G), family.num_tasks)

    def behaviour(task: int, step: int, observation: int, subgoal: int) -> float:
        return (1 - strength) * float(lawful[step, observation, subgoal]) + strength * float(taste[task, subgoal])

    return behaviour


def joint_conditionals(
    family: Family,
    instructions: np.ndarray,
    observations: np.ndarray,
    subgoals: np.ndarray,
    behaviour: Behaviour,
) -> tuple[Float[np.ndarray, "B N Hm1 Z"], Float[np.ndarray, "B N H O"]]:
    """What B prompts of N episodes say at each of their places, by Bayes' rule on the joint law.

    Args:
        family: the world.
        instructions: [B, N].
        observations: [B, N, H].
        subgoals: [B, N, H-1].
        behaviour: the policy that chose the subgoals.

    Returns:
        P_D(z | pt_h) at every decision, and P_D(o_h | what was before it) of every observation, the subgoal that was
        chosen just before it included.

    Source: theory.md, C1 and W1.
    """
    Z, H = family.num_tasks, family.horizon  # below, z % 1 picks the one row of a shared kernel
    initial = np.asarray(family.initial, np.float64)
    emission = np.asarray(family.emission, np.float64)
    kernel = np.asarray(family.dense_transition(), np.float64)
    posterior = np.zeros((*observations.shape[:2], H - 1, Z))
    heard = np.zeros((*observations.shape[:2], H, family.num_observations))
    mass = prior = np.asarray(family.task_prior, np.float64)
    for b, n in np.ndindex(*observations.shape[:2]):
        w, o, g = instructions[b, n], observations[b, n], subgoals[b, n]
        mass = prior if n == 0 else mass
        mass = mass * float(family.instruction_prior[w])
        states = [initial[z % len(initial)] for z in range(Z)]
        chosen = np.ones(Z)
        for h in range(H):
            joint = [mass[z] * chosen[z] * (states[z] @ emission[z % len(emission)]) for z in range(Z)]
            heard[b, n, h] = sum(joint) / sum(j.sum() for j in joint)
            paths = [states[z] * emission[z % len(emission)][:, o[h]] for z in range(Z)]
            if h == H - 1:
                break
            task = mass * chosen * [p.sum() for p in paths]
            posterior[b, n, h] = task / task.sum()
            for z in range(Z):
                chosen[z] *= behaviour(z, h, int(o[h]), int(g[h]))
                states[z] = paths[z] @ kernel[z % len(kernel), h % kernel.shape[1], g[h]]
        mass = mass * chosen * [p.sum() for p in paths]
        mass = mass / mass.sum()
    return posterior, heard
