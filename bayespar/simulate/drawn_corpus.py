"""Corpora of programs whose tasks have a density: every prompt has a world of its own, drawn from the prior.

A block of worlds is a finite family, so its experts are solved and its prompts simulated as those of any other. Only
its posterior means nothing, so there are labels and no conditionals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ..arrays import precision_of
from ..errors import InvalidPlannerError
from ..keys import as_key
from ..planning.by_draws import subfamily
from ..planning.expert import Experts, HistoryExperts, solve_experts
from ..planning.planner import Planner
from ..posterior.latents import Latents
from ..posterior.prior import draw_prior
from ..validation import check_fits
from ..world import Family
from .behaviours import TaskDependent, as_behaviour, check_behaviour
from .environment import Environment, split_key, uniforms
from .rollout import Labels, Source, check_lawful, draw_prompt

WORLD_BLOCK = 64
POOL = 64
"""Worlds that the behaviour "experts" mixes."""


@dataclass(frozen=True)
class DrawnCorpus:
    """B prompts of N episodes each, of a program whose tasks have a density: every prompt has a world of its own.

    There are no exact conditionals here; :func:`bayespar.bail_by_draws` estimates that of one prompt.

    Attributes:
        sites: the value of every site of the program in each prompt, by name, [B, ...]; not part of what a network is
            shown.
        instructions: [B, N].
        observations: [B, N, H].
        subgoals: executed by the behaviour policy, [B, N, H-1].
        labels: of the expert of the prompt's own world, [B, N, H-1].
    """

    sites: Mapping[str, np.ndarray]
    instructions: Int[np.ndarray, "B N"]
    observations: Int[np.ndarray, "B N H"]
    subgoals: Int[np.ndarray, "B N Hm1"]
    labels: Int[np.ndarray, "B N Hm1"]

    def task(self, prompt: int) -> dict[str, Any]:
        """The value of every site in one prompt, as :func:`bayespar.simulate_regret` takes a task."""
        return {name: values[prompt] for name, values in self.sites.items()}


def draw_corpus(latents: Latents, prompts: int, episodes: int, behaviour: Any, *, key: Any) -> DrawnCorpus:
    """:func:`bayespar.sample_corpus` where tasks have a density.

    Raises:
        InvalidPlannerError: no such behaviour, or one that needs finite tasks.
        InvalidProgramError: the program observes something, so its prior is not that of its sites.
    """
    H = latents.example.horizon
    check_fits(f"prompts = {prompts}, episodes = {episodes}", 16 * prompts * episodes * H)
    root, entropy = split_key(key)
    policy = density_behaviour(behaviour, latents, root, episodes)
    sites, drawn = [], []
    for block in range(-(-prompts // WORLD_BLOCK)):
        world_key, policy_key = jax.random.split(jax.random.fold_in(as_key(root), block))
        values, family, experts = draw_worlds(latents, world_key, WORLD_BLOCK)
        with precision_of(family):
            source = Source(Environment(family), policy, Labels(family, experts), H)
            rows = uniforms(entropy, block, 1, (episodes, WORLD_BLOCK, H + 1, 3), family.dtype).swapaxes(0, 1)
            out = _sample_block(source, jax.random.split(policy_key, WORLD_BLOCK), rows)
        sites.append(values)
        drawn.append([np.asarray(a) for a in out])
    w, o, g, lawful, labels = (np.concatenate(a)[:prompts] for a in zip(*drawn, strict=True))
    check_lawful(lawful)
    return DrawnCorpus({name: np.concatenate([s[name] for s in sites])[:prompts] for name in sites[0]}, w, o, g, labels)


@eqx.filter_jit
def _sample_block(source: Source, keys: Any, uniform: Any) -> Any:
    return jax.vmap(lambda z, key, rows: draw_prompt(source, z, z, key, rows))(jnp.arange(len(keys)), keys, uniform)


def draw_worlds(latents: Latents, key: Any, count: int) -> tuple[dict[str, np.ndarray], Family, Experts]:
    """Worlds drawn from the prior: the values of their sites [count, ...], themselves as tasks, and their experts.

    A finite site that exists in some worlds only is None in the others.
    """
    values, leaf, _ = draw_prior(latents, jax.random.split(key, count))
    _, family = latents.mixture(values)
    family = subfamily(family, np.arange(count) * len(latents.leaves) + leaf)
    names = dict.fromkeys(name for one in latents.leaves for name in one)
    finite = {name: np.array([latents.leaves[k].get(name) for k in leaf]) for name in names}
    return {**values, **finite}, family, _padded(solve_experts(family))


def density_behaviour(behaviour: Any, latents: Latents, key: Any, episodes: int) -> Planner:
    """A behaviour for prompts of drawn worlds; "experts" mixes those of worlds that are drawn once, for all prompts.

    Raises:
        InvalidPlannerError: no such behaviour, or one that needs finite tasks.
    """
    check_needs_no_tasks(behaviour)
    pool = latents.example
    if isinstance(behaviour, str) and behaviour == "experts":
        _, pool, experts = draw_worlds(latents, jax.random.fold_in(key, 2**31 - 1), POOL)
    else:
        experts = solve_experts(pool)
    with precision_of(pool):
        policy = as_behaviour(behaviour, pool, experts, episodes=episodes)
        check_behaviour(policy, pool)
    return policy


def check_needs_no_tasks(behaviour: Any) -> None:
    """Raise for a behaviour that is of finite tasks only."""
    if isinstance(behaviour, TaskDependent) or (isinstance(behaviour, str) and behaviour == "bail"):
        told = "TaskDependent" if isinstance(behaviour, TaskDependent) else "bail"
        raise InvalidPlannerError(
            f'behaviour {told} needs finite tasks, but these have a density; give "uniform", "experts" or a planner of '
            "your own, such as the BailPlanner of a family of draws"
        )


def _padded(experts: Experts) -> Experts:
    """Experts with as many nodes as the next power of two, so that few sizes are compiled.

    The last node stands for impossible histories, before and after.
    """
    if not isinstance(experts, HistoryExperts):
        return experts
    nodes = experts.table.shape[0]

    def grown(table: Any, with_what: int) -> Any:
        more = -len(table) % (1 << max(len(table) - 1, 0).bit_length())
        return np.pad(table, [(0, more)] + [(0, 0)] * (table.ndim - 1), constant_values=with_what)

    return HistoryExperts(
        value=experts.value,
        gap=experts.gap,
        root=experts.root,
        child=grown(experts.child, nodes - 1),
        table=grown(experts.table, 0),
        actions=grown(experts.actions, 0),
    )
