"""``log_evidence`` against dynamax, numpyro, numpy and a C kernel, on the same random dense worlds; and how it grows.

    python benchmarks/evidence.py [--cases sizes skewed long growth memory --repeats 9 --cpu --json rows.json]

All contestants are timed in turn, in one process, on new episodes at each call, so that whatever is planned for a
prompt is paid for. ``evidence_peers.py`` holds the peers; one that is not installed is left out. ``evidence_kernel.c``
is built where there is a compiler; with the rate of large matrix products it says what the machine could do at best.

* sizes: three worlds, in both precisions. numpy looped runs once, and numpyro in float32 on a few tasks, after which
  its time is multiplied (it runs one task after the other).
* skewed: subgoals drawn by Zipf's law. long: H = 1024.
* growth: the time against N, H = T and Z over three decades, with the fitted slope of the logarithms.
* memory: the peak beyond result and episodes, against N, each in a process of its own.

Exit status 1 if two contestants differ by more than rounding can explain.
"""

from __future__ import annotations

import argparse
import ctypes
import itertools
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evidence_kernel
import evidence_peers as peers
import jax
import limits
import numpy as np
from common import Disagreement, Row, growth_rows, installed, interleaved, memory_rows, peak_of, report, rows_of

from bayespar import Family, log_evidence
from bayespar.evidence import choose_arithmetic

Sizes = tuple[int, int, int, int, int, int]  # Z, S, G, O, H, N

SIZES: tuple[Sizes, ...] = ((8, 8, 4, 8, 8, 1000), (64, 16, 8, 16, 16, 1000), (256, 32, 8, 32, 16, 1000))
SKEWED: Sizes = (64, 16, 8, 16, 16, 1000)
LONG: Sizes = (8, 8, 4, 8, 1024, 100)
BASE: Sizes = (8, 8, 4, 8, 8, 1000)  # that growth starts from
PROMPTS = 8  # drawn beforehand, and taken in turn
NUMPYRO_WORK = 2**21  # Z N (H-1) S of what numpyro is given at most
CASES = ("sizes", "skewed", "long", "growth", "memory")
MEMORY = (10**4, 10**5, 10**6)  # episodes
OURS = "bayespar"


def world(sizes: Sizes, dtype: str, zipf: bool = False, prompts: int = PROMPTS) -> tuple[Family, list]:
    """A random dense family, and prompts (observations, subgoals)."""
    Z, S, G, O, H, N = sizes
    rng = np.random.default_rng(0)

    def rows(*shape: int) -> np.ndarray:
        a = rng.random(shape)
        return a / a.sum(-1, keepdims=True)

    family = Family(rows(Z), rows(Z, S), rows(Z, G, S, S), rows(Z, S, O), np.zeros((H, O)), horizon=H).astype(dtype)
    law = 1 / np.arange(1, G + 1) ** (1.5 if zipf else 0)
    subgoals = [rng.choice(G, (N, H - 1), p=law / law.sum()) for _ in range(prompts)]
    return family, [(rng.integers(0, O, (N, H)), g) for g in subgoals]


def tolerance(family: Family, log_likelihood: np.ndarray) -> float:
    """Sums of S positive terms err by S eps relative, at each of H steps; logarithms of that size by their own eps."""
    eps = np.finfo(family.dtype).eps
    return 2 * family.horizon * eps * (family.num_states + 8 + float(np.abs(log_likelihood).max()))


def compare(
    benchmark: str,
    sizes: Sizes,
    dtype: str,
    repeats: int,
    *,
    zipf: bool = False,
    everyone: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """All contestants on one world."""
    Z, S, _, _, H, N = sizes
    with jax.enable_x64(dtype == "float64"), ThreadPoolExecutor(os.cpu_count()) as pool:
        family, prompts = world(sizes, dtype, zipf)
        run: dict[str, peers.Contestant] = {OURS: lambda o, g: log_evidence(family, o, g)}
        few: dict[str, int] = {}
        scale: dict[str, float] = {}
        if evidence_kernel.compiler():
            run["C kernel"] = lambda o, g: evidence_kernel.log_evidence(pool, family, o, g)
        if installed("dynamax"):
            run |= peers.dynamax(family)
        run["numpy, grouped"] = peers.numpy_grouped(family)
        if everyone:
            run["numpy, looped"] = peers.numpy_looped(family)
            few["numpy, looped"] = 1
            if dtype == "float32" and installed("funsor"):
                tasks = min(Z, max(NUMPYRO_WORK // (N * (H - 1) * S), 1))
                name = f"numpyro, {'all' if tasks == Z else f'{tasks} of {Z}'} tasks"
                run[name] = peers.numpyro_enumeration(family, tasks)
                few[name], scale[name] = min(repeats, 3), Z / tasks
        calls = {name: cycled(f, prompts) for name, f in run.items()}
        for prompt in prompts:  # prompts may need more tiles or fewer, so that two programs are compiled
            log_evidence(family, *prompt)
        times = interleaved(calls, repeats, few, clock)
        agree(family, run, prompts[0])
        arithmetic = choose_arithmetic(family)
    times = {name: [t * scale.get(name, 1) for t in seconds] for name, seconds in times.items()}
    case = f"{'x'.join(map(str, sizes))}{' Zipf' if zipf else ''}"
    found = rows_of(benchmark, case, times, ours=OURS, dtype=dtype, work=2.0 * Z * N * (H - 1) * S * S)
    chosen = "logarithms" if arithmetic is None else f"{arithmetic.dtype}, {'' if arithmetic.scaled else 'not '}scaled"
    return [r | {"arithmetic": chosen} if r["name"] == OURS else r for r in found]


def cycled(run: peers.Contestant, prompts: Sequence) -> Callable[[], np.ndarray]:
    """A call without arguments that takes the next prompt each time."""
    turn = itertools.cycle(prompts)
    return lambda: run(*next(turn))


def agree(family: Family, run: dict[str, peers.Contestant], prompt: tuple[np.ndarray, np.ndarray]) -> None:
    """Raises Disagreement where a contestant's result is not ours. The looped one is asked about a few episodes."""
    ours = run[OURS](*prompt)
    bound = tolerance(family, ours)
    for name, other in run.items():
        episodes = 5 if name == "numpy, looped" else len(prompt[0])
        theirs = other(*(a[:episodes] for a in prompt))
        apart = float(np.abs(theirs - ours[: len(theirs), :episodes]).max())
        if not apart <= bound:
            raise Disagreement(f"{name} differs from {OURS} by {apart:.2g}; rounding explains {bound:.2g}")


def growth(repeats: int) -> list[Row]:
    """Seconds against N, H and Z, one at a time, and the slopes."""
    found: list[Row] = []
    for axis, place, values in (
        ("N", 5, (10**3, 10**4, 10**5, 10**6)),
        ("H", 4, (10, 10**2, 10**3, 10**4)),
        ("Z", 0, (10, 10**2, 10**3, 10**4)),
    ):
        calls = {}
        for value in values:
            sizes = [*BASE]
            sizes[place] = value
            if axis != "N":
                sizes[5] = 100
            family, prompts = world((*sizes,), "float32", prompts=2 if value < 10**5 else 1)
            calls[str(value)] = cycled(lambda o, g, f=family: log_evidence(f, o, g), prompts)
        times = interleaved(calls, repeats)
        found += growth_rows("evidence growth", axis, OURS, times, dtype="float32")
    return found


def peak(episodes: int) -> None:
    """Prints the bytes that ``log_evidence`` takes at its peak beyond its result, and its seconds."""
    family, _ = world((*BASE[:5], 1), "float32", prompts=1)
    rng, few = np.random.default_rng(0), 4096
    o, g = (np.empty((episodes, family.horizon - last), np.int32) for last in (0, 1))
    for start in range(0, episodes, few):  # drawn in pieces, so that drawing leaves no higher mark
        for array, size in ((o, family.num_observations), (g, family.num_subgoals)):
            array[start : start + few] = rng.integers(0, size, array[start : start + few].shape)
    log_evidence(family, o[:few], g[:few])
    ctypes.CDLL(None).malloc_trim(0)  # what compiling took, and the allocator keeps
    found, taken, seconds = peak_of(lambda: log_evidence(family, o, g))
    print(taken - found.nbytes, seconds)


def rows(repeats: int = 9, cases: Sequence[str] = CASES, clock: Callable[[], float] = time.perf_counter) -> list[Row]:
    """All rows; raises :class:`Disagreement`."""
    found = limits.rows()
    for dtype in ("float32", "float64"):
        if "sizes" in cases:
            for sizes in SIZES:
                found += compare("evidence", sizes, dtype, repeats, everyone=True, clock=clock)
        if "skewed" in cases:
            found += compare("evidence skewed", SKEWED, dtype, repeats, zipf=True, clock=clock)
        if "long" in cases:
            found += compare("evidence long", LONG, dtype, repeats, clock=clock)
    if "growth" in cases:
        found += growth(min(repeats, 3))
    if "memory" in cases:
        found += memory_rows("evidence memory", __file__, "N", MEMORY, "result and episodes", "float32")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--cpu", action="store_true", help="CPU seconds of all threads, for a machine that is busy")
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the rows")
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        peak(args.peak)
        return 0
    clock = time.process_time if args.cpu else time.perf_counter
    return report(lambda: rows(args.repeats, args.cases, clock), args.json, "dynamax", "numpyro", "funsor")


if __name__ == "__main__":
    sys.exit(main())
