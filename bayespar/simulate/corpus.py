"""Pretraining corpora: prompts, expert labels, next observations, and the true conditionals of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array, precision_of
from ..errors import InvalidPlannerError
from ..keys import check_key
from ..planning.bail import BailPlanner
from ..planning.expert import Experts, check_experts, solve_experts
from ..planning.planner import Episode, Observed, Planner, as_policy, check_shape, is_distribution
from ..program import Program, as_family
from ..validation import check_count, check_fits
from ..world import Family
from .environment import Environment, draw, split_key, uniforms

PROMPT_BLOCK = 32


@dataclass(frozen=True)
class Corpus:
    """B prompts of N episodes each, drawn from P_D.

    Attributes:
        tasks: the latent task of each prompt, [B]; not part of what a network is shown.
        instructions: [B, N].
        observations: [B, N, H].
        subgoals: executed by the behaviour policy, [B, N, H-1].
        labels: g*_h ~ pi*_z(. | tau_h, w), never executed and never in a prompt, [B, N, H-1].
        bail: P_D(g*_h | pt_h), the true conditional of each label, [B, N, H-1, G].
        next_observation: P_D(o_{h+1} | pt_h, g_h), the true conditional of each observation but the first of an
            episode, [B, N, H-1, O].
        posterior: P(z | pt_h) at each decision, [B, N, H-1, Z].
        actions: pi*_z(tau_h, w), the expert subgoal of every task at each decision, [B, N, H-1, Z].
    """

    tasks: Int[np.ndarray, " B"]
    instructions: Int[np.ndarray, "B N"]
    observations: Int[np.ndarray, "B N H"]
    subgoals: Int[np.ndarray, "B N Hm1"]
    labels: Int[np.ndarray, "B N Hm1"]
    bail: Float[np.ndarray, "B N Hm1 G"]
    next_observation: Float[np.ndarray, "B N Hm1 O"]
    posterior: Float[np.ndarray, "B N Hm1 Z"]
    actions: Int[np.ndarray, "B N Hm1 Z"]


def sample_corpus(
    family_or_program: Family | Program,
    prompts: int,
    episodes: int,
    behaviour: Any = "uniform",
    *,
    key: Any = 0,
    experts: Experts | None = None,
) -> Corpus:
    """Draw a corpus: z ~ P_Z; per episode w ~ P_Omega; subgoals from the behaviour policy, labels from the expert of z.

    Args:
        family_or_program: a Family, or a finite program.
        prompts: B.
        episodes: N, episodes in each prompt.
        behaviour: pi_b: "uniform", or anything that :func:`as_planner` takes. It sees neither z nor labels.
        key: a JAX key or an int.
        experts: from :func:`solve_experts`; solved here if not given.

    Raises:
        InvalidPlannerError: no prompts or episodes, no such behaviour, or experts of another family.

    Source: theory.md, section 2.
    """
    check_count("prompts", prompts)
    check_count("episodes", episodes)
    check_key(key)
    family = as_family(family_or_program)
    decision = family.num_subgoals + family.num_observations + 2 * family.num_tasks + 4
    check_fits(f"prompts = {prompts}, episodes = {episodes}", 8 * prompts * episodes * family.horizon * decision)
    experts = solve_experts(family) if experts is None else check_experts(experts, family)
    policy = as_policy(behaviour, family, episodes=episodes)
    blocks = -(-prompts // PROMPT_BLOCK)
    drawn = []
    with precision_of(family):
        check_shape("behaviour", policy, family)
        root, entropy = split_key(key)
        source = Source(Environment(family), BailPlanner(family, experts), policy, family.horizon)
        prior = np.cumsum(family.task_prior)
        keys = jax.random.split(root, blocks * PROMPT_BLOCK).reshape(blocks, PROMPT_BLOCK)
        for block in range(blocks):
            first = uniforms(entropy, block, 0, (PROMPT_BLOCK,), family.dtype)
            rest = uniforms(entropy, block, 1, (episodes, PROMPT_BLOCK, family.horizon + 1, 3), family.dtype)
            out = _sample_block(source, prior, keys[block], first, rest.swapaxes(0, 1))
            drawn.append([np.asarray(a) for a in out])
    *arrays, lawful = (np.concatenate(a)[:prompts] for a in zip(*drawn, strict=True))
    if not lawful.all():
        b, n, h = (int(i) for i in np.argwhere(~lawful)[0])
        raise InvalidPlannerError(
            f"prompt {b}, episode {n}, step {h} (all from 0): the behaviour returned no distribution over subgoals"
        )
    return Corpus(*arrays)


class Source(eqx.Module):
    """What draws a prompt."""

    environment: Environment
    bail: BailPlanner
    policy: Planner
    horizon: int = eqx.field(static=True)


@eqx.filter_jit
def _sample_block(source: Source, prior: Array, keys: Any, first: Any, uniform: Any) -> Any:
    def prompt(key: Any, u: Any, rows: Any) -> Any:
        task = draw(prior, u)
        start = source.policy.init(draw(source.environment.instructions, rows[0, -1, 0]), key)
        state = start, source.bail.init(0, key)
        _, out = jax.lax.scan(lambda s, r: _episode(source, task, s, r), state, rows)
        return (task, *out)

    return jax.vmap(prompt)(keys, first, uniform)


def _episode(source: Source, task: Any, state: Any, uniform: Any) -> Any:
    """One episode; ``uniform`` [H+1, 3] has a row a step (state, observation, subgoal), then (w, unused, unused)."""
    H, environment, bail = source.horizon, source.environment, source.bail
    w = draw(environment.instructions, uniform[H, 0])
    s = environment.start(task, uniform[0, 0])
    o = environment.emit(task, s, uniform[0, 1])

    def step(carry: Any, item: Any) -> Any:
        (policy_state, bail_state), s, o, g = carry
        h, u = item
        observed = Observed(o, g, h, w)
        policy_state, probabilities = source.policy.step(policy_state, observed)
        bail_state, conditional = bail.step(bail_state, observed)
        posterior = bail.probabilities(bail_state)
        actions = bail.actions(bail_state, h, w)
        lawful = is_distribution(probabilities)
        g = draw(jnp.cumsum(probabilities.astype(u.dtype)), u[2])
        predicted = bail.tracker.predict(bail_state.forward, posterior, h, g)
        s = environment.move(task, s, h, g, u[0])
        heard = environment.emit(task, s, u[1])
        out = o, g, actions[task], conditional, predicted, posterior, actions, lawful
        return ((policy_state, bail_state), s, heard, g), out

    carry = state, s, o, jnp.int32(-1)
    carry, out = jax.lax.scan(step, carry, (jnp.arange(H - 1), uniform[1:H]))
    observations, subgoals, labels, conditional, predicted, posterior, actions, lawful = out
    (policy_state, bail_state), _, o, g = carry
    observed, observations = Observed(o, g, jnp.int32(H - 1), w), jnp.append(observations, o)
    episode = Episode(w, observations, subgoals)
    policy_state = source.policy.observe(source.policy.step(policy_state, observed)[0], episode)
    bail_state = bail.observe(bail.step(bail_state, observed)[0], episode)
    out = w, observations, subgoals, labels, conditional, predicted, posterior, actions, lawful
    return (policy_state, bail_state), out
