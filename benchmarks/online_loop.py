"""The online loop against the same loop as others write it (see ``online_peers.py``): seconds for the same work.

All run BAIL on a random, partially observed world in float64, with the same experts (a table over the step and the last
observation, so that the loop itself is measured and not the solver), an exploration coin of bias 0.1, and the posterior
carried exactly. Slow ones run fewer episodes or seeds, and their seconds are scaled up to the same number of steps in
the environment; their names say so. Libraries without a loop only update their beliefs, which is less work.

    python benchmarks/online_loop.py [--repeats 5] [--json FILE]

Exit status 1 if the means over seeds differ by more than chance explains, or beliefs by more than rounding does.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from common import Disagreement, Row, growth_rows, interleaved, memory_rows, peak_of, report, rows_of
from online_peers import (
    Problem,
    jax_vmapped,
    numba_parallel,
    numpy_looped,
    numpy_vectorised,
    pomdp_py_beliefs,
    pymdp_beliefs,
)

import bayespar as bp
from bayespar.models.random_world import random_world
from bayespar.planning.expert import Experts

OURS = "bayespar"
SIZES, SEEDS, EPISODES = (16, 8, 4, 8, 8), 256, 1000
CASES = ("peers", "growth", "memory")
MEMORY = (1000, 10_000, 100_000)  # episodes
DEVIATIONS = 5.0  # of the difference of two means, that chance is allowed
BELIEF_TOLERANCE = 1e-4  # pymdp works in float32


class ReactiveExperts(Experts):
    """Experts that look at the step and the last observation only."""

    value: Any
    table: Any  # [H-1, O, Z]
    gap: float = eqx.field(static=True)

    def fits(self, family):
        return True

    def start(self, observation):
        return jnp.asarray(observation, jnp.int32)

    def advance(self, memory, step, subgoal, observation):
        return jnp.asarray(observation, jnp.int32)

    def q(self, memory, belief, step, instruction, task):
        raise NotImplementedError("regret is measured by rewards")

    def act(self, memory, belief, step, instruction):
        return jnp.asarray(self.table)[step, memory]


@functools.cache
def problem() -> Problem:
    family = bp.enumerate_program(functools.partial(random_world, seed=0, sizes=SIZES))
    Z, G, H, O = family.num_tasks, family.num_subgoals, family.horizon, family.num_observations
    table = np.random.default_rng(1).integers(0, G, (H - 1, O, Z)).astype(np.int32)
    return Problem(family, table, task=0, epsilon=0.1)


def curves(episodes: int, seeds: int, key: int, dtype: str = "float64") -> bp.RegretCurves:
    family, table, task, epsilon = problem()
    experts = ReactiveExperts(value=np.ones((len(family.task_prior), 1), dtype), table=table, gap=np.inf)
    return bp.simulate_regret(family.astype(dtype), task, "bail", epsilon, episodes, seeds, key=key, experts=experts)


def ours(episodes: int, seeds: int, key: int, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    found = curves(episodes, seeds, key, dtype)
    return found.regret, found.true_task


def same_law(one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether the means of regret and of P(true task) over all runs are equal, as far as can be told."""
    for a, b in zip(one, other, strict=True):
        error = np.hypot(*(c.mean(1).std(ddof=1) / np.sqrt(len(c)) for c in (a, b)))
        if not abs(a.mean() - b.mean()) <= DEVIATIONS * error:
            return False
    return True


def check_law(name: str, found: tuple[np.ndarray, np.ndarray]) -> None:
    episodes = found[0].shape[1]
    mine = ours(episodes, SEEDS, 1)
    if not same_law(found, mine):
        means = [(float(a.mean()), float(b.mean())) for a, b in zip(found, mine, strict=True)]
        raise Disagreement(f"{name}: mean regret and P(true task), theirs and ours, are {means}")


def peers(repeats: int) -> list[Row]:
    """Everyone at the reference size."""
    given = problem()
    H, available = given.family.horizon, importlib.util.find_spec
    loops = {
        OURS: (ours, EPISODES, SEEDS),
        f"{OURS}, float32": (functools.partial(ours, dtype="float32"), EPISODES // 4, SEEDS),
        "numpy, vectorised over seeds": (numpy_vectorised(given), EPISODES // 4, SEEDS),
        "jax, vmap of scan": (jax_vmapped(given), EPISODES // 10, SEEDS),
        "numpy, a seed at a time": (numpy_looped(given), EPISODES // 50, SEEDS // 16),
    }
    if available("numba"):
        loops["numba, 2 threads"] = (numba_parallel(given), EPISODES, SEEDS)
    if same_law(ours(100, SEEDS, 0), ours(50, SEEDS, 1)):  # means over time, so it seems to learn half as fast
        raise Disagreement("half the episodes were not told apart, so agreement shows nothing")
    calls, work = {}, {}
    for name, (loop, episodes, seeds) in loops.items():
        check_law(name, loop(episodes, seeds, 0))
        less = "" if (episodes, seeds) == (EPISODES, SEEDS) else f" ({seeds} seeds, {episodes} episodes, scaled)"
        calls[name + less] = functools.partial(loop, episodes, seeds, 0)
        work[name + less] = seeds * episodes * (H - 1)
    rng = np.random.default_rng(0)
    o = rng.integers(0, given.family.num_observations, (SEEDS, H))
    g = rng.integers(0, given.family.num_subgoals, (SEEDS, H - 1))
    for package, make, seeds in (
        ("pymdp", lambda: pymdp_beliefs(given, SEEDS), SEEDS),
        ("pomdp_py", lambda: pomdp_py_beliefs(given), 1),
    ):
        if not available(package):
            print(f"{package} is not installed", file=sys.stderr)
            continue
        beliefs, name = make(), f"{package}, beliefs alone (an episode, {seeds} seeds, scaled)"
        check_beliefs(package, beliefs(o[:seeds], g[:seeds]), o[:seeds], g[:seeds])
        calls[name] = functools.partial(beliefs, o[:seeds], g[:seeds])
        work[name] = seeds * (H - 1)
    times = interleaved(calls, repeats, {name: min(repeats, 3) for name in calls if "scaled" in name})
    full = SEEDS * EPISODES * (H - 1)
    scaled = {name: [s * full / work[name] for s in seconds] for name, seconds in times.items()}
    found = rows_of("online loop", "reference size", scaled, ours=OURS, dtype="float64")
    for each in found:
        each["steps_per_s"] = full / each["median_s"]
        each["name"] += f", {each['steps_per_s']:.3g} steps/s"
    return found


def check_beliefs(name: str, found: np.ndarray, o: np.ndarray, g: np.ndarray) -> None:
    family = problem().family
    joint = np.log(family.task_prior)[:, None] + bp.log_evidence(family, o, g)
    exact = np.exp(joint - joint.max(0)) / np.exp(joint - joint.max(0)).sum(0)
    if not np.abs(found - exact.T).max() <= BELIEF_TOLERANCE:
        raise Disagreement(f"{name}: beliefs differ by {np.abs(found - exact.T).max():.1e}")


def growth(repeats: int) -> list[Row]:
    """Seconds against T and against seeds, over three decades."""
    found = []
    for axis, values in (("T", (100, 1000, 10_000, 100_000)), ("seeds", (32, 320, 3200, 32_000))):
        calls = {str(n): functools.partial(ours, n if axis == "T" else 64, 32 if axis == "T" else n, 0) for n in values}
        times = interleaved(calls, repeats)
        found += growth_rows("online loop growth", axis, OURS, times, dtype="float64")
    return found


def peak(episodes: int) -> None:
    """Prints the bytes that 32 runs take at their peak beyond the result, and their seconds."""
    curves(1000, 32, 0)
    found, taken, seconds = peak_of(lambda: curves(episodes, 32, 0))
    held = sum(getattr(found, name).nbytes for name in ("regret", "true_task", "explored", "instructions"))
    print(taken - held, seconds)


def rows(repeats: int = 5, cases: Sequence[str] = CASES) -> list[Row]:
    """All rows; raises :class:`Disagreement`."""
    found = []
    if "peers" in cases:
        found += peers(repeats)
    if "growth" in cases:
        found += growth(min(max(repeats, 2), 3))  # one would be timed with its compilation
    if "memory" in cases:
        found += memory_rows("online loop memory", __file__, "T", MEMORY, "the result", "float64")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the rows")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return 0
    packages = ("numba", "inferactively-pymdp", "pomdp-py")
    return report(lambda: rows(args.repeats, args.cases), args.json, *packages)


if __name__ == "__main__":
    sys.exit(main())
