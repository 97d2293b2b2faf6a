"""How fast a policy tells tasks apart, by simulation: for worlds whose histories are too many to enumerate."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import precision_of
from ..errors import InvalidPlannerError
from ..evidence import log_evidence
from ..keys import check_key
from ..planning.classes import task_classes
from ..planning.planner import Observed, Planner, as_policy, check_shape, is_distribution
from ..program import Program, as_family
from ..statistics import Interval, MeanConfidence
from ..validation import check_count, check_fits, check_fraction
from ..world import Family
from .environment import Environment, draw, split_key, uniforms

_BATCHES = 16


def estimate_eta(
    family_or_program: Family | Program,
    policy: Any = "uniform",
    *,
    draws: int = 4096,
    alpha: float = 1e-3,
    key: Any = 0,
) -> Interval:
    """A confidence interval for eta(pi), the least squared Hellinger distance over pairs of tasks.

    With m the equal mixture of two tasks, eta_zz' = E_m[1 - 2 sqrt(L_z L_z') / (L_z + L_z')]: a mean of numbers in
    [0, 1], whereas the ratio in BC = E_z sqrt(L_z' / L_z) has no bound. Tasks of one class are merged first; the
    interval covers all pairs at once.

    Args:
        family_or_program: a Family, or a finite program.
        policy: "uniform", or anything that :func:`as_planner` takes (in its first episode).
        draws: episodes simulated under each class of tasks.
        alpha: probability that the interval misses eta, at most.
        key: a JAX key or an int.

    Raises:
        InvalidPlannerError: the policy is none, returns no distribution, ``draws`` is no positive integer, or
            ``alpha`` or the key is none.

    Source: theory.md, section 4. The identity is sum_tau (sqrt L_z - sqrt L_z')^2 / 2 divided and multiplied by m.
    """
    check_count("draws", draws)
    check_fraction("alpha", alpha)
    check_key(key)
    family = task_classes(as_family(family_or_program)).family
    chosen, C = as_policy(policy, family), family.num_tasks
    if C == 1:
        return Interval(1.0, 1.0, 1.0, alpha, int(draws))
    check_fits(f"draws = {draws}", 8 * C * draws * (C + 3 * (family.horizon + 1)))
    with precision_of(family):
        check_shape("exploration policy", chosen, family)
        root, entropy = split_key(key)
        logs = np.zeros((C, draws, C))
        source = Rollout(Environment(family), chosen, family.horizon)
        keys = jax.random.split(root, draws)
        for z in range(C):
            uniform = uniforms(entropy, z, 0, (draws, family.horizon + 1, 3), family.dtype)
            observations, subgoals, lawful = (np.asarray(a) for a in _play(source, np.int32(z), keys, uniform))
            if not lawful.all():
                raise InvalidPlannerError("the exploration policy returned no distribution over subgoals")
            logs[z] = np.asarray(log_evidence(family, observations, subgoals)).T
    pairs = [(i, j) for i in range(C) for j in range(i + 1, C)]
    lows, highs, means = [], [], []
    for i, j in pairs:
        with np.errstate(over="ignore"):
            apart = [1 - 1 / np.cosh((logs[z, :, i] - logs[z, :, j]) / 2) for z in (i, j)]
        sequence = MeanConfidence(0.0, 1.0, alpha / len(pairs), plan=int(draws))
        for batch in np.array_split((apart[0] + apart[1]) / 2, min(_BATCHES, int(draws))):
            sequence.update(batch)
        interval = sequence.interval()
        lows.append(interval.low)
        highs.append(interval.high)
        means.append(interval.mean)
    return Interval(min(means), min(lows), min(highs), alpha, int(draws))


class Rollout(eqx.Module):
    """What plays an episode."""

    environment: Environment
    policy: Planner
    horizon: int = eqx.field(static=True)


@eqx.filter_jit
def _play(source: Rollout, task: Any, keys: Any, uniform: Any) -> Any:
    """Observations [n, H], subgoals [n, H-1], and whether every choice was a distribution [n]."""
    environment, policy, H = source.environment, source.policy, source.horizon

    def episode(key: Any, rows: Any) -> Any:
        w = draw(environment.instructions, rows[H, 0])
        s = environment.start(task, rows[0, 0])
        first = environment.emit(task, s, rows[0, 1])

        def step(carry: Any, item: Any) -> Any:
            state, s, o, g, lawful = carry
            h, u = item
            state, probabilities = policy.step(state, Observed(o, g, h, w))
            lawful = lawful & is_distribution(probabilities)
            g = draw(jnp.cumsum(probabilities.astype(u.dtype)), u[2])
            s = environment.move(task, s, h, g, u[0])
            heard = environment.emit(task, s, u[1])
            return (state, s, heard, g, lawful), (heard, g)

        carry = policy.init(w, key), s, first, jnp.int32(-1), jnp.bool_(True)
        (*_, lawful), (later, subgoals) = jax.lax.scan(step, carry, (jnp.arange(H - 1), rows[1:H]))
        return jnp.append(first, later), subgoals, lawful

    return jax.vmap(episode)(keys, uniform)
