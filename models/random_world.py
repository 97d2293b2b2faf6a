"""Random worlds, made from a seed: the generator that tests and benchmarks use.

Theorems that hold on handmade worlds may hold by accident; here nothing is arranged. Every kernel of every task is
drawn from a Dirichlet distribution, rewards are uniform, and both priors are uneven. There are two knobs. A small
``concentration`` makes rows nearly deterministic, a large one nearly uniform. ``zeros`` makes entries exactly zero,
which is where posteriors eliminate tasks and where code that takes logarithms goes wrong.

All tasks are drawn at once, and a run of the program takes its slice: the world of task 2 does not depend on which
tasks were asked for before. Draws come from numpy's ``default_rng``, so they are the same on every device and
in every precision.

Source: made for this toolkit; the theorems of theory.md were first checked on worlds drawn like this.
"""

import functools

import numpy as np
import numpyro
import numpyro.distributions as dist

import bayespar as bp


def draw_rows(rng, shape, concentration, zeros):
    """Random distributions along the last axis; an entry is 0 with probability ``zeros``, but never all of a row."""
    rows = rng.dirichlet(np.full(shape[-1], concentration), size=shape[:-1])
    kept = np.where(rng.random(shape) < zeros, 0.0, rows)
    largest = np.eye(shape[-1])[rows.argmax(-1)]
    kept = np.where(kept.sum(-1, keepdims=True) > 0, kept, largest)
    return kept / kept.sum(-1, keepdims=True)


@functools.lru_cache(maxsize=8)
def draw_family(seed, sizes, concentration, zeros):
    """The arrays of all tasks: task prior, initial, transition, emission, reward, instruction prior."""
    Z, S, G, O, H, W = sizes
    rng = np.random.default_rng(seed)
    return (
        rng.dirichlet(np.full(Z, 2.0)),
        draw_rows(rng, (Z, S), concentration, zeros),
        draw_rows(rng, (Z, G, S, S), concentration, zeros),
        draw_rows(rng, (Z, S, O), concentration, zeros),
        rng.random((H, O, W)),
        rng.dirichlet(np.full(W, 2.0)),
    )


def random_world(seed: int = 0, sizes=(4, 3, 3, 3, 4, 1), concentration: float = 1.0, zeros: float = 0.0) -> bp.World:
    """The program.

    Args:
        seed: of the draws.
        sizes: (Z, S, G, O, H, W): tasks, states, subgoals, observations, horizon, instructions.
            The last may be left out; it is then 1.
        concentration: of the Dirichlet rows of the kernels.
        zeros: probability that an entry of a kernel is exactly 0; at least one entry of each row is positive.
    """
    sizes = tuple(int(n) for n in sizes)
    sizes = sizes if len(sizes) == 6 else (*sizes, 1)
    prior, initial, transition, emission, reward, instruction_prior = draw_family(seed, sizes, concentration, zeros)
    task = int(numpyro.sample("task", dist.Categorical(prior)))
    return bp.World(
        initial[task],
        transition[task],
        emission[task],
        reward,
        horizon=sizes[4],
        instruction_prior=instruction_prior,
        task=f"task {task}",
    )
