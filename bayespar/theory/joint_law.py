"""The joint law of a corpus, computed from its definition.

This is the other side of C1-C3. It multiplies out P_D(z, instructions, observations, subgoals, label) with the
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


def joint_posterior(
    family: Family,
    instructions: np.ndarray,
    observations: np.ndarray,
    subgoals: np.ndarray,
    behaviour: Behaviour,
) -> Float[np.ndarray, "N Hm1 Z"]:
    """P_D(z | pt_h) at every decision of a prompt of N episodes, by Bayes' rule on the joint law.

    Args:
        family: the world.
        instructions: [N].
        observations: [N, H].
        subgoals: [N, H-1].
        behaviour: the policy that chose the subgoals.

    Source: theory.md, C1.
    """
    Z, H = family.num_tasks, family.horizon  # below, z % 1 picks the one row of a shared kernel
    initial = np.asarray(family.initial, np.float64)
    emission = np.asarray(family.emission, np.float64)
    kernel = np.asarray(family.dense_transition(), np.float64)
    mass = np.asarray(family.task_prior, np.float64).copy()
    out = np.zeros((len(observations), H - 1, Z))
    for n, (w, o, g) in enumerate(zip(instructions, observations, subgoals, strict=True)):
        mass = mass * float(family.instruction_prior[w])
        paths = [initial[z % len(initial)] * emission[z % len(emission)][:, o[0]] for z in range(Z)]
        chosen = np.ones(Z)
        for h in range(H - 1):
            joint = mass * chosen * [p.sum() for p in paths]
            out[n, h] = joint / joint.sum()
            for z in range(Z):
                chosen[z] *= behaviour(z, h, int(o[h]), int(g[h]))
                move = kernel[z % len(kernel), h % kernel.shape[1], g[h]]
                paths[z] = (paths[z] @ move) * emission[z % len(emission)][:, o[h + 1]]
        mass = mass * chosen * [p.sum() for p in paths]
        mass = mass / mass.sum()
    return out
