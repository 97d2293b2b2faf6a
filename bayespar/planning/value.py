"""Exact values of any history-dependent policy, by summing over every reachable history."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..arrays import precision_of
from ..keys import as_key, check_key
from ..program import Program, as_family
from ..world import Family
from .histories import Histories, histories_of
from .planner import Observed, Planner, UniformPolicy, as_policy, check_probabilities, check_shape

_STEP_BLOCK = 64


def policy_value(
    family_or_program: Family | Program, policy: Any, *, histories: Histories | None = None, key: Any = 0
) -> Float[np.ndarray, "Z W"]:
    """J_z(pi, w) = E sum_h r_h(o_h, w), for every task and instruction.

    Args:
        family_or_program: a Family, or a finite program.
        policy: "uniform", a planner (in its first episode), or anything that :func:`as_planner` takes.
        histories: from :func:`enumerate_histories`; enumerated here if not given.
        key: handed to the policy's ``init``.

    Returns:
        Expected reward of an episode, [Z, W].

    Raises:
        TooLargeError: the histories do not fit.
        InvalidPlannerError: the policy is none, or returns no distribution; or the key is none.
        InvalidWorldError: the histories are of another family.

    Source: theory.md, section 1.
    """
    family = as_family(family_or_program)
    histories = histories_of(family, histories)
    return table_value(histories, policy_table(histories, policy, key=key))


def policy_table(histories: Histories, policy: Any, *, key: Any = 0) -> list[Float[np.ndarray, "_ W G"]]:
    """The subgoal probabilities of a policy at every history that has a decision, layer by layer.

    Raises:
        InvalidPlannerError: the policy returns no distribution at some history.
    """
    family = histories.family
    check_key(key)
    planner = as_policy(policy, family)
    if isinstance(planner, UniformPolicy):
        W, G = family.num_instructions, family.num_subgoals
        return [np.full((len(layer.parent), W, G), 1 / G) for layer in histories.layers[: family.horizon - 1]]
    check_shape("policy", planner, family)
    root = as_key(key)
    layers = histories.layers[: family.horizon - 1]
    table = [np.zeros((len(layer.parent), family.num_instructions, family.num_subgoals)) for layer in layers]
    with precision_of(family):
        for w in range(family.num_instructions):
            state: Any = None
            for h, layer in enumerate(layers):
                if h == 0:
                    count = len(layer.parent)
                    blank = planner.init(w, root)
                    state = jax.tree.map(lambda a, n=count: jnp.repeat(jnp.asarray(a)[None], n, 0), blank)
                else:
                    state = jax.tree.map(lambda a, parent=layer.parent: a[parent], state)
                observed = layer.observation, layer.subgoal
                state, table[h][:, w] = step_all(planner, state, *observed, np.int32(h), np.int32(w))
    for rows in table:
        check_probabilities(rows, family.num_subgoals)
    return table


@eqx.filter_jit
def step_all(planner: Planner, state: Any, observation: Any, subgoal: Any, h: Any, w: Any) -> Any:
    """One step of a planner at every history of a layer, a bounded number of them at a time."""

    def step(item: Any) -> Any:
        state, o, g = item
        return planner.step(state, Observed(o, g, h, w))

    return jax.lax.map(step, (state, observation, subgoal), batch_size=_STEP_BLOCK)


def table_value(histories: Histories, table: list[Float[np.ndarray, "_ W G"]]) -> Float[np.ndarray, "Z W"]:
    """J_z of a tabulated policy, [Z, W]."""
    family = histories.family
    reward = np.asarray(family.reward, np.float64)
    value = np.zeros((family.num_tasks, family.num_instructions))
    for h, (layer, reach) in enumerate(zip(histories.layers, reach_weights(histories, table), strict=True)):
        value += np.einsum("nz,nw,nw->zw", layer.likelihood, reach, reward[h, layer.observation])
    return value


def reach_weights(histories: Histories, table: list[Float[np.ndarray, "_ W G"]]) -> list[Float[np.ndarray, "_ W"]]:
    """The realisation weights of a tabulated policy: the product of its probabilities along every history."""
    reach = [np.ones((len(histories.layers[0].parent), histories.family.num_instructions))]
    for h, layer in enumerate(histories.layers[1:]):
        reach.append(reach[h][layer.parent] * table[h][layer.parent, :, layer.subgoal])
    return reach
