"""Draws from the prior of tasks with a density."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Int

from .latents import Latents

BLOCK = 256  # drawn at once


class PriorDraws(NamedTuple):
    """Draws from P(z).

    Attributes:
        sites: the value of each site with a density, by name, [..., *shape of the site].
        leaf: the finite sites, as the index of their leaf, [...].
        u: the same points in unconstrained coordinates, [..., D].
    """

    sites: dict[str, np.ndarray]
    leaf: Int[np.ndarray, ...]
    u: Float[np.ndarray, "... D"]


def draw_prior(latents: Latents, keys: Any) -> PriorDraws:
    """One draw for each key of an array of any shape, each by its own key alone.

    Samplers of gamma variates take seconds to compile, so one program of a fixed size draws for everyone.

    Raises:
        InvalidProgramError: the program observes something, so its prior is not that of its sites.
    """
    with jax.enable_x64(True):
        data = np.asarray(jax.random.key_data(keys))
        flat = data.reshape(-1, data.shape[-1])
        rows = flat[np.minimum(np.arange(len(flat) + -len(flat) % BLOCK), len(flat) - 1)]
        blocks = [
            jax.tree.map(np.asarray, _block(latents, jax.random.key_impl(keys), row))
            for row in np.split(rows, len(rows) // BLOCK)
        ]

    def joined(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts)[: len(flat)].reshape(keys.shape + parts[0].shape[1:])

    return PriorDraws(*jax.tree.map(joined, *blocks))


@partial(jax.jit, static_argnums=(0, 1))
def _block(latents: Latents, impl: Any, data: Any) -> Any:
    def one(key: Any) -> Any:
        sites, leaf = latents.draw(key)
        return sites, leaf, latents.unconstrain(sites)

    return jax.vmap(one)(jax.random.wrap_key_data(data, impl=impl))
