"""Equal-weight draws of any posterior: what tools made for Markov chains can read.

Draws of chains are taken as they are. Points with weights, and tasks with probabilities, are resampled systematically:
a point of weight w comes floor(n w) or ceil(n w) times among n draws. The draws are then shuffled, so that none
of them says where in the list its point stood. A leaf is drawn for each draw from its exact probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from ..errors import InvalidProgramError
from ..keys import as_key
from ..world import Family
from .latents import Latents
from .prior import draw_prior


@dataclass(frozen=True)
class Drawn:
    """Draws of equal weight.

    Attributes:
        sites: the value of each site with a density, [chain, draw, ...]; none where tasks are finite.
        world: which world: the task where tasks are finite, else the leaf, [chain, draw].
        point: where each draw was resampled from, an index into the points in order; None where nothing was resampled.
    """

    sites: dict[str, np.ndarray]
    world: Int[np.ndarray, "chain draw"]
    point: Int[np.ndarray, "chain draw"] | None = None


def generator(key: Any, purpose: int) -> np.random.Generator:
    """A stream of numbers that is fixed by a key and a purpose, on every machine.

    Raises:
        InvalidPlannerError: ``key`` is neither a JAX key nor an int.
    """
    words = np.asarray(jax.random.key_data(as_key(key)), np.uint32).ravel()
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([*map(int, words), purpose])))


def resample(
    weights: Float[np.ndarray, " M"], shape: tuple[int, int], random: np.random.Generator
) -> Int[np.ndarray, "chain draw"]:
    """Indices of points, drawn systematically by weights [M] that sum to 1, in random order.

    Source: Douc, Cappe and Moulines (2005), systematic resampling.
    """
    count = shape[0] * shape[1]
    edges = np.cumsum(weights)
    places = (random.random() + np.arange(count)) / count * edges[-1]
    # The first edge beyond each place; a point of weight 0 has no room between its edges.
    index = np.searchsorted(edges, places, side="right")
    last = int(np.flatnonzero(weights)[-1])  # rounding may put the last place on the last edge
    return random.permutation(np.minimum(index, last)).reshape(shape)


def draw_leaf(
    probabilities: Float[np.ndarray, "chain draw L"], random: np.random.Generator
) -> Int[np.ndarray, "chain draw"]:
    """A leaf for every draw, by its probabilities; one of probability 0 never comes."""
    edges = np.cumsum(probabilities, axis=-1)
    places = random.random(edges.shape[:-1]) * edges[..., -1]
    return (edges <= places[..., None]).sum(axis=-1)


def drawn_tasks(probabilities: Float[np.ndarray, " Z"], shape: tuple[int, int], random: np.random.Generator) -> Drawn:
    """Draws of finite tasks."""
    return Drawn({}, resample(probabilities, shape, random))


def drawn_points(
    draws: dict[str, np.ndarray],
    leaf_probabilities: Float[np.ndarray, "chain draw L"],
    log_weights: Float[np.ndarray, "chain draw"] | None,
    shape: tuple[int, int],
    random: np.random.Generator,
) -> Drawn:
    """Draws of tasks with a density: the points themselves, or resampled ones where they have weights."""
    if log_weights is None:
        return Drawn(draws, draw_leaf(leaf_probabilities, random))
    point = resample(np.exp(log_weights).ravel(), shape, random)
    taken = {name: values.reshape(-1, *values.shape[2:])[point] for name, values in draws.items()}
    leaves = leaf_probabilities.reshape(-1, leaf_probabilities.shape[-1])[point]
    return Drawn(taken, draw_leaf(leaves, random), point)


def prior_draws(latents: Latents, shape: tuple[int, int], key: Any) -> Drawn | None:
    """Draws from the prior of a program, or None where it observes something, so that there is no drawing from it."""
    try:
        drawn = draw_prior(latents, jax.random.split(jax.random.fold_in(as_key(key), 1), shape))
    except InvalidProgramError:
        return None
    return Drawn(drawn.sites, drawn.leaf)


def prior_tasks(family: Family, shape: tuple[int, int], random: np.random.Generator) -> Drawn:
    """Draws from the prior over finite tasks."""
    prior = np.asarray(family.task_prior, np.float64)
    return drawn_tasks(prior / prior.sum(), shape, random)
