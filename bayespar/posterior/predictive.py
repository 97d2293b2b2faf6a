"""What drawn worlds say about each observed episode: its likelihood, and a replicate of every observation in it.

A replicate is drawn one step ahead: o_h given what was seen before it in the same episode, and the subgoals executed.
Whoever chose a subgoal saw the past only, so their policy cancels, and replicates of a right model look like the data
however the Planner acted. Replicates of whole episodes under the same subgoals would not: where subgoals answer to
observations, they no longer fit the observations of a replicate.

Source: theory.md, section 1 (causal likelihood) and W1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array
from ..evidence import bucket
from ..filtering import Filter
from ..history import Prompt
from ..world import Family
from .drawn import Drawn
from .latents import Latents

_WORKSPACE = 2**22  # numbers in the predictions of the worlds that are worked on at once


def replicate(
    worlds: Family | Latents, drawn: Drawn, prompt: Prompt, random: np.random.Generator
) -> tuple[Float[np.ndarray, "chain draw N"], Int[np.ndarray, "chain draw N H"]]:
    """The log likelihood of each finished episode under every drawn world, nats, and a replicate of its observations.

    Args:
        worlds: the tasks, or the latent sites of a program.
        drawn: worlds drawn from their posterior.
        prompt: with N >= 1 finished episodes.
        random: where replicates come from.
    """
    N, H = prompt.observations.shape
    rows = np.concatenate([prompt.observations, prompt.subgoals], axis=1)
    rows, which = np.unique(rows, axis=0, return_inverse=True)
    which = which.reshape(-1)
    R = len(rows)
    rows = np.pad(rows, [(0, bucket(R) - R), (0, 0)])  # growing prompts keep their shapes
    o, g = rows[:, :H].astype(np.int32), rows[:, H:].astype(np.int32)
    shape = drawn.world.shape
    log_likelihood = np.empty((drawn.world.size, N))
    replicates = np.empty((drawn.world.size, N, H), np.int16 if _observations(worlds) < 2**15 else np.int32)
    for draws, log_l, law in _passes(worlds, drawn, o, g):
        edges = np.cumsum(law, axis=-1)
        log_likelihood[draws] = log_l[which]
        for draw in draws:
            places = random.random((N, H)) * edges[which, :, -1]
            replicates[draw] = (edges[which] <= places[..., None]).sum(axis=-1)
    return log_likelihood.reshape(*shape, N), replicates.reshape(*shape, N, H)


def _observations(worlds: Family | Latents) -> int:
    family = worlds.example if isinstance(worlds, Latents) else worlds
    return family.num_observations


def _passes(worlds: Family | Latents, drawn: Drawn, o: np.ndarray, g: np.ndarray) -> Iterator[Any]:
    """For each world: the draws that are this world, log L [R], and P(o_h | past) [R, H, O]."""
    flat = drawn.world.ravel()
    batch = max(1, _WORKSPACE // (o.size * _observations(worlds)))
    if isinstance(worlds, Latents):
        index = np.arange(len(flat))
        groups = list(index[:, None])
        sites = {name: values.reshape(-1, *values.shape[2:]) for name, values in drawn.sites.items()}
    else:
        tasks = np.unique(flat)
        groups, sites = [np.flatnonzero(flat == z) for z in tasks], {}
        index = np.array([group[0] for group in groups])
    batch = min(batch, bucket(len(index)))
    for start in range(0, len(index), batch):
        some = index[start : start + batch]
        padded = np.pad(some, (0, batch - len(some)), mode="edge")
        with jax.enable_x64(True):
            found = _forward(worlds, {name: values[padded] for name, values in sites.items()}, flat[padded], o, g)
            log_l, law = (np.asarray(a) for a in found)
        for k in range(len(some)):
            yield groups[start + k], log_l[k], law[k]


def _forward(worlds: Family | Latents, sites: Mapping[str, Any], world: Array, o: Array, g: Array) -> Any:
    if isinstance(worlds, Latents):
        return _forward_points(worlds, sites, world, o, g)
    return _forward_tasks(worlds, world, o, g)


@partial(jax.jit, static_argnums=0)
def _forward_points(latents: Latents, sites: Mapping[str, Array], leaf: Array, o: Array, g: Array) -> Any:
    return jax.vmap(lambda s, k: one_step_ahead(pick(latents.worlds(s)[1], k), o, g))(sites, leaf)


@jax.jit
def _forward_tasks(family: Family, task: Array, o: Array, g: Array) -> Any:
    return jax.vmap(lambda z: one_step_ahead(pick(family, z), o, g))(task)


def pick(family: Family, task: Any) -> Family:
    """One task of a family, as a family of one. Traceable."""

    def one(a: Array) -> Array:
        return jnp.asarray(a)[jnp.minimum(task, a.shape[0] - 1)][None]

    initial, transition, emission = jax.tree.map(one, (family.initial, family.transition, family.emission))
    return Family(
        jnp.ones(1, initial.dtype),
        initial,
        transition,
        emission,
        family.reward,
        horizon=family.horizon,
        instruction_prior=family.instruction_prior,
    )


def one_step_ahead(
    family: Family, observations: Int[Array, "R H"], subgoals: Int[Array, "R Hm1"]
) -> tuple[Float[Array, " R"], Float[Array, "R H O"]]:
    """log L of each row in the one world of a family, nats, and P(o_h | o_<h, g_<h) of every observation. Traceable.

    Where a row is impossible, what follows the impossible observation is predicted as all zeros.
    """
    tracker, alone = Filter(family), jnp.ones(1)
    first = (family.initial[0] @ family.emission[0])[None]

    def row(o: Array, g: Array) -> tuple[Array, Array]:
        start = tracker.start(o[0])

        def step(forward: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            h, subgoal, observation = now
            law = tracker.predict(forward, alone, h, subgoal)
            return tracker.advance(forward, h, subgoal, observation), law

        if not len(g):
            return tracker.log_likelihood(start)[0], first
        end, laws = jax.lax.scan(step, start, (jnp.arange(len(g)), g, o[1:]))
        return tracker.log_likelihood(end)[0], jnp.concatenate([first, laws])

    return jax.vmap(row)(observations, subgoals)
