"""Composing and solving ``gridworld_errands`` as the grid grows.

    python benchmarks/low_level.py [--sizes 9 15 21 31 41 --slip 0.2 --solve-up-to 31]

Times are of one run each. ``compose`` is for all 16 tasks and 6 subgoals, and leaves out the Actors (``actors``: value
iteration for 6 landmarks). ``gap`` bounds what the experts lose; it is 0 for the exact methods. Experts are solved with
dense kernels, which take 2 GB at size 31; larger grids are composed only.
"""

from __future__ import annotations

import argparse
import functools
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

import bayespar as bp
from bayespar.models.gridworld_errands import built, gridworld_errands
from bayespar.program import enumerate_worlds


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def measure(size: int, slip: float, solve_up_to: int) -> None:
    steps = round(1.6 * size)
    actors, _ = timed(lambda: built(size, slip, steps))
    program = functools.partial(gridworld_errands, size=size, slip=slip)
    worlds = enumerate_worlds(program)
    compose, kernels = timed(lambda: [w.two_level.compose() for w in worlds if w.two_level is not None])
    nonzero = [int(np.count_nonzero(k.probabilities if isinstance(k, bp.Sparse) else k)) for k in kernels]
    widest = max(k.shape[-1] for k in kernels)
    states = len(worlds[0].states)
    solve, method, gap = "", "not solved", ""
    if size <= solve_up_to:
        family = bp.enumerate_program(program)
        seconds, experts = timed(lambda: bp.solve_experts(family))
        solve, method, gap = (
            f"{seconds:.2f}",
            type(experts).__name__.removesuffix("Experts").lower(),
            f"{experts.gap:g}",
        )
    print(
        f"{size:5} {states:6} {steps:5} {actors:8.2f} {compose:9.2f} {max(nonzero):10} {widest:8} "
        f"{solve:>8} {method:>10} {gap:>5}",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[9, 15, 21, 31, 41])
    parser.add_argument("--slip", type=float, default=0.2)
    parser.add_argument("--solve-up-to", type=int, default=31, help="larger grids are composed only")
    args = parser.parse_args()
    names = ("numpy", "scipy", "jax")
    print(f"python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in names))
    print("16 tasks, 6 subgoals; seconds; nonzero: of the task that has most, all subgoals")
    header = f"{'size':>5} {'S':>6} {'H_a':>5} {'actors':>8} {'compose':>9} {'nonzero':>10} {'widest':>8} "
    print(header + f"{'solve':>8} {'experts':>10} {'gap':>5}")
    for size in args.sizes:
        measure(size, args.slip, args.solve_up_to)
    return 0


if __name__ == "__main__":
    sys.exit(main())
