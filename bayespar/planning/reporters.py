"""Reporters that speak otherwise than the family has it: put in its place, checked, and made worse on purpose."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..errors import InvalidWorldError
from ..kernels import HostKernel
from ..program import Program, as_family
from ..validation import check_axis, check_ndim, check_rows, float_array, shown
from ..world import Family


def with_reporter(family_or_program: Family | Program, emission: Any) -> Family:
    """The family whose Reporter speaks ``emission``, [Z or 1, S, O] or [S, O]; all else is as it was.

    Raises:
        InvalidWorldError: the emission does not fit the family, or its rows are no distributions.
    """
    family = as_family(family_or_program)
    array = float_array("emission", emission)
    check_ndim("emission", array, (2, 3), "[S, O] (shared by all tasks) or [Z, S, O]")
    array = array[None] if array.ndim == 2 else array
    check_axis("emission", array, 0, (family.num_tasks, 1), "the number of tasks (or 1, if shared)")
    check_axis("emission", array, 1, family.num_states, "the number of states")
    check_axis("emission", array, 2, family.num_observations, "the number of observations")
    check_rows("emission", array)
    return eqx.tree_at(lambda f: f.emission, family, np.ascontiguousarray(array, family.dtype))


def check_support(family: Family, spoken: Family) -> None:
    """Raise unless all that ``spoken`` may say in a state that can be reached is possible under ``family``.

    Raises:
        InvalidWorldError: it is not: the posterior would be lost at once, and no certificate exists.
    """
    kernel = HostKernel(family)
    believed, said = (np.asarray(f.emission) > 0 for f in (family, spoken))
    initial = np.asarray(family.initial, np.float64)
    for z in np.flatnonzero(family.task_prior > 0).tolist():
        reached = initial[min(z, len(initial) - 1)] > 0
        for h in range(family.horizon - 1):
            moved = kernel.push(z, h, reached[None].astype(np.float64))[0] > 0
            reached = reached | moved.any(axis=0)  # what was possible before is kept: the check covers every step
        wrong = reached[:, None] & said[min(z, len(said) - 1)] & ~believed[min(z, len(believed) - 1)]
        if wrong.any():
            s, o = (int(i) for i in np.argwhere(wrong)[0])
            raise InvalidWorldError(
                f"emission[{z}, {s}, {o}]: the Reporter may say {shown(family.observations[o])} in "
                f"{shown(family.states[s])}, which the Planner holds impossible there under {shown(family.tasks[z])}; "
                "set it to 0 and renormalise the row, or give the Planner a family that allows for it"
            )


def confused(emission: Float[np.ndarray, "*batch O"], noise: float) -> Float[np.ndarray, "*batch O"]:
    """A worse Reporter: with probability ``noise`` it says the contrary of what ``emission`` would say.

    The contrary of a row gives the likeliest observation the least probability of the row and so on, among those that
    are possible. What has one outcome stays as it is.

    Raises:
        InvalidWorldError: the noise is no probability.
    """
    if not 0 <= noise <= 1:
        raise InvalidWorldError(f"noise = {shown(noise)}; give a probability")
    rows = np.array(emission, np.float64).reshape(-1, np.shape(emission)[-1])
    out = np.zeros_like(rows)
    for row, new in zip(rows, out, strict=True):
        order = np.argsort(row, kind="stable")[(row == 0).sum() :]
        new[order] = (1 - noise) * row[order] + noise * row[order[::-1]]
    return out.reshape(np.shape(emission))
