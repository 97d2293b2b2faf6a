"""Layouts of tiny worlds, and random worlds without hypothesis, for long loops."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ..world import Family


class Layout(NamedTuple):
    """The sizes of a family, and what of it is shared or stored how.

    Attributes:
        Z, S, G, O, H, W: tasks, states, subgoals, observations, horizon, instructions.
        sparse: the transition is a Sparse of two successors a row.
        shared: the kernels that all tasks share: "initial", "transition", "emission".
        steps: the transition depends on the step.
    """

    Z: int
    S: int
    G: int
    O: int
    H: int
    W: int
    sparse: bool = False
    shared: tuple[str, ...] = ()
    steps: bool = False


LAYOUTS = (
    Layout(2, 2, 2, 2, 2, 1),
    Layout(3, 2, 2, 2, 2, 2, sparse=True),
    Layout(2, 2, 3, 2, 2, 1, shared=("initial", "emission")),
    Layout(3, 2, 2, 2, 3, 1, steps=True),
    Layout(2, 3, 2, 2, 3, 2, sparse=True, steps=True, shared=("transition",)),
)
"""The shapes that strategies draw by default: few, so that compiled code is reused."""

SMALL_LAYOUTS = (
    *LAYOUTS,
    Layout(2, 2, 2, 2, 1, 2),
    Layout(1, 2, 2, 2, 3, 1),
    Layout(3, 2, 1, 2, 3, 1),
    Layout(2, 2, 2, 2, 3, 2),
    Layout(4, 2, 3, 2, 2, 1),
)
"""Also one observation, one task, one subgoal, and two instructions that matter twice."""


def rows_of(counts: Any) -> Float[np.ndarray, "*rows S"]:
    """Rows of small integers as distributions; a row of zeros is one-hot at its first entry."""
    counts = np.array(counts, np.float64)
    counts[..., 0] += counts.sum(axis=-1) == 0
    return counts / counts.sum(axis=-1, keepdims=True)


def random_rows(rng: np.random.Generator, shape: tuple[int, ...]) -> Float[np.ndarray, "*rows S"]:
    """Random distributions of small integers; some arrays are one-hot throughout, some have no zeros."""
    style = rng.choice(["mixed", "mixed", "one-hot", "positive"])
    if style == "one-hot":
        return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
    counts = rng.choice([1, 2, 3, 5] if style == "positive" else [0, 0, 1, 2, 5], size=shape)
    empty = counts.sum(axis=-1) == 0
    counts[empty, rng.integers(shape[-1], size=int(empty.sum()))] = 1
    return rows_of(counts)


def random_family(rng: np.random.Generator, size: Layout, *, skew: float = 1.0) -> Family:
    """A family of layout ``size``, with a prior to the power ``skew`` that is never 0."""
    prior = rng.choice([1, 2, 3, 5], size=size.Z) ** skew
    steps = size.H - 1 if size.steps else 1
    return Family(
        prior / prior.sum(),
        random_rows(rng, (size.Z, size.S)),
        random_rows(rng, (size.Z, steps, size.G, size.S, size.S)),
        random_rows(rng, (size.Z, size.S, size.O)),
        rng.integers(0, 11, (size.H, size.O, size.W)) / 10,
        horizon=size.H,
        instruction_prior=random_rows(rng, (size.W,)),
    )


def large_family() -> Family:
    """A world that is too large for enumeration, with a skewed prior, zeros and two instructions: Z = 12, H = 5.

    Tasks are told apart slowly, so that posteriors stay between 0 and 1 for some episodes.
    """
    rng = np.random.default_rng(7)
    Z, S, G, O, H, W = 12, 5, 3, 4, 5, 2
    base = rng.dirichlet(np.ones(S), (1, 1, G, S)) + 0.6 * rng.dirichlet(np.ones(S), (Z, 1, G, S))
    base[..., 0] *= rng.random(base.shape[:-1]) > 0.3  # zeros
    heard = rng.dirichlet(np.full(O, 0.5), (1, S)) + 0.4 * rng.dirichlet(np.ones(O), (Z, S))
    prior = np.arange(1, Z + 1) ** -0.7
    return Family(
        prior / prior.sum(),
        rng.dirichlet(np.ones(S)),
        base / base.sum(axis=-1, keepdims=True),
        heard / heard.sum(axis=-1, keepdims=True),
        rng.integers(0, 11, (H, O, W)) / 10,
        horizon=H,
    )
