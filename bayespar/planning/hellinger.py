"""How fast a policy tells tasks apart: squared Hellinger distances between the histories of an episode."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from ..keys import check_key
from ..program import Program, as_family
from ..world import Family
from .classes import TaskClasses, task_classes
from .histories import Histories, histories_of
from .planner import as_policy
from .value import policy_table, reach_weights


def eta(family_or_program: Family | Program, policy: Any, *, histories: Histories | None = None, key: Any = 0) -> float:
    """eta(pi): the least squared Hellinger distance eta_zz'(pi) over pairs of tasks of positive prior.

    Args:
        family_or_program: a Family, or a finite program.
        policy: "uniform", a planner (in its first episode), or anything that :func:`as_planner` takes.
        histories: from :func:`enumerate_histories`; enumerated here if not given.
        key: handed to the policy's ``init``.

    Returns:
        A number in [0, 1]: 0.0 exactly if two tasks are one class, 1.0 if there is only one task.

    Raises:
        TooLargeError: the histories do not fit; use :func:`estimate_eta`.
        InvalidPlannerError: the policy is none, or returns no distribution; or the key is none.
        InvalidWorldError: the histories are of another family.

    Source: theory.md, section 4.
    """
    family = as_family(family_or_program)
    check_key(key)
    planner = as_policy(policy, family)
    histories = histories_of(family, histories)
    classes = task_classes(family)
    if classes.merged:
        return 0.0
    pairs = hellinger(histories, policy_table(histories, planner, key=key), classes)
    return float(pairs[np.triu_indices(len(pairs), 1)].min(initial=1.0))


def hellinger(
    histories: Histories, table: list[Float[np.ndarray, "_ W G"]], classes: TaskClasses
) -> Float[np.ndarray, "C C"]:
    """eta_zz' of a tabulated policy for every two classes: sum over tau of pi(tau) (sqrt L_z - sqrt L_z')^2 / 2.

    Averaged over instructions. In this form nothing cancels, however close two tasks are.
    """
    chance = np.asarray(histories.family.instruction_prior, np.float64)
    reach = reach_weights(histories, table)[-1] @ chance
    first = [int(np.flatnonzero(classes.label == c)[0]) for c in range(len(classes.members))]
    roots = np.sqrt(histories.layers[-1].likelihood[:, first])[reach > 0]
    reach = reach[reach > 0]
    return np.stack([reach @ (roots - roots[:, c : c + 1]) ** 2 / 2 for c in range(len(first))])
