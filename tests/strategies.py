"""Hypothesis strategies for tiny families. Probabilities come from small integers, so that exact zeros, one-hot rows
and exact ties are common; shapes and layouts come from a short list, so that JAX compiles a handful of times."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

import bayespar as bp


class Layout(NamedTuple):
    """Sizes, and what is shared or stored how."""

    Z: int
    S: int
    G: int
    O: int
    H: int
    W: int
    sparse: bool = False
    shared: tuple[str, ...] = ()
    steps: bool = False  # the transition depends on the step


LAYOUTS = [
    Layout(2, 2, 2, 2, 2, 1),
    Layout(3, 2, 2, 2, 2, 2, sparse=True),
    Layout(2, 2, 3, 2, 2, 1, shared=("initial", "emission")),
    Layout(3, 2, 2, 2, 3, 1, steps=True),
    Layout(2, 3, 2, 2, 3, 2, sparse=True, steps=True, shared=("transition",)),
]


def counts_to_rows(counts):
    """Rows of small integers as distributions."""
    counts = np.asarray(counts, np.float64)
    return counts / counts.sum(axis=-1, keepdims=True)


@st.composite
def simplex_rows(draw, shape, zeros=True):
    """An array [*shape] whose last axis is a distribution; one draw of an integer makes all of it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    style = draw(st.sampled_from(["mixed", "mixed", "one-hot", "positive"])) if zeros else "positive"
    if style == "one-hot":
        return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
    counts = rng.choice([1, 2, 3, 5] if style == "positive" else [0, 0, 1, 2, 5], size=shape)
    empty = counts.sum(axis=-1) == 0
    counts[empty, rng.integers(shape[-1], size=int(empty.sum()))] = 1
    return counts_to_rows(counts)


@st.composite
def families(draw, layouts=LAYOUTS, zeros=True):
    """A tiny family of one of ``layouts``; rewards are tenths."""
    size = draw(st.sampled_from(layouts))

    def lead(name):
        return 1 if name in size.shared else size.Z

    rows = (lead("transition"), size.H - 1 if size.steps else 1, size.G, size.S)
    if size.sparse:
        count = 2 * math.prod(rows)
        slots = draw(st.lists(st.integers(0, size.S - 1), min_size=count, max_size=count))
        transition = bp.Sparse(np.reshape(slots, (*rows, 2)), draw(simplex_rows((*rows, 2), zeros)))
    else:
        transition = draw(simplex_rows((*rows, size.S), zeros))
    tenths = draw(st.lists(st.integers(0, 10), min_size=size.H * size.O * size.W, max_size=size.H * size.O * size.W))
    return bp.Family(
        draw(simplex_rows((size.Z,), zeros)),
        draw(simplex_rows((lead("initial"), size.S), zeros)),
        transition,
        draw(simplex_rows((lead("emission"), size.S, size.O), zeros)),
        np.reshape(tenths, (size.H, size.O, size.W)) / 10,
        horizon=size.H,
        instruction_prior=draw(simplex_rows((size.W,), zeros)),
    )


SMALL_LAYOUTS = [
    *LAYOUTS,
    Layout(2, 2, 2, 2, 1, 2),
    Layout(1, 2, 2, 2, 3, 1),
    Layout(3, 2, 1, 2, 3, 1),
    Layout(2, 2, 2, 2, 3, 2),
    Layout(4, 2, 3, 2, 2, 1),
]
"""Also one observation, one task, one subgoal, and two instructions that matter twice."""


def random_rows(rng, shape):
    """Random distributions of small integers; some arrays are one-hot throughout, some have no zeros."""
    style = rng.choice(["mixed", "mixed", "one-hot", "positive"])
    if style == "one-hot":
        return np.eye(shape[-1])[rng.integers(shape[-1], size=shape[:-1])]
    counts = rng.choice([1, 2, 3, 5] if style == "positive" else [0, 0, 1, 2, 5], size=shape)
    empty = counts.sum(axis=-1) == 0
    counts[empty, rng.integers(shape[-1], size=int(empty.sum()))] = 1
    return counts_to_rows(counts)


def random_family(rng, size, *, skew=1.0):
    """A family of layout ``size`` without hypothesis, for long loops; a prior to the power ``skew``, never 0."""
    prior = rng.choice([1, 2, 3, 5], size=size.Z) ** skew
    steps = size.H - 1 if size.steps else 1
    return bp.Family(
        prior / prior.sum(),
        random_rows(rng, (size.Z, size.S)),
        random_rows(rng, (size.Z, steps, size.G, size.S, size.S)),
        random_rows(rng, (size.Z, size.S, size.O)),
        rng.integers(0, 11, (size.H, size.O, size.W)) / 10,
        horizon=size.H,
        instruction_prior=random_rows(rng, (size.W,)),
    )


seeds = st.integers(0, 2**32 - 1)
