"""What all benchmarks share: runs timed in turn in one process, the rows of the table, and what they ran on.

A row is a dictionary with the keys of :data:`KEYS`; ``make bench`` collects the rows of all benchmarks. A benchmark has
a function ``rows(...)`` that returns them and a ``main`` that prints them with :func:`table` and saves them with
:func:`save`.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

KEYS = ("benchmark", "case", "name", "dtype", "median_s", "min_s", "spread", "ratio", "gflops")

Row = dict[str, Any]


class Disagreement(Exception):
    """Two contestants found different things."""


def interleaved(
    runs: Mapping[str, Callable[[], Any]],
    repeats: int,
    few: Mapping[str, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every call: A B C, C B A, A B C, ... so that what slows the machine slows all alike.

    Each run is called once before, untimed, to compile. A run must not return before its work is done.

    Args:
        runs: the contestants.
        repeats: how often each is timed.
        few: for the slow ones, a smaller number of repeats. One of 1 or fewer is not called untimed before.
        clock: ``time.process_time`` counts the seconds of all threads instead, which others on the machine change less.
    """
    few = few or {}
    for name, run in runs.items():
        if few.get(name, repeats) > 1:
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats):
        order = list(runs)[:: -1 if repeat % 2 else 1]
        for name in order:
            if repeat < few.get(name, repeats):
                start = clock()
                runs[name]()
                times[name].append(clock() - start)
    return times


def spread(seconds: Sequence[float]) -> float:
    """The interquartile range over the median; 0 of fewer than two."""
    if len(seconds) < 2:
        return 0.0
    low, _, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return (high - low) / statistics.median(seconds)


def row(
    benchmark: str,
    case: str,
    name: str,
    seconds: Sequence[float],
    *,
    dtype: str = "",
    ours: float = 0.0,
    work: float = 0.0,
) -> Row:
    """One row.

    Args:
        seconds: of each call.
        ours: our median in seconds, for the ratio; 0 where there is nothing to compare with.
        work: floating point operations of a call, for the rate; 0 where they are not counted.
    """
    median = statistics.median(seconds)
    return {
        "benchmark": benchmark,
        "case": case,
        "name": name,
        "dtype": dtype,
        "median_s": median,
        "min_s": min(seconds),
        "spread": spread(seconds),
        "ratio": median / ours if ours else None,
        "gflops": work / median / 1e9 if work else None,
    }


def rows_of(
    benchmark: str, case: str, times: Mapping[str, Sequence[float]], *, ours: str, dtype: str = "", work: float = 0.0
) -> list[Row]:
    """A row for each contestant of :func:`interleaved`; ratios are over the median of the one named ``ours``."""
    first = statistics.median(times[ours])
    return [row(benchmark, case, name, s, dtype=dtype, ours=first, work=work) for name, s in times.items()]


def growth_rows(
    benchmark: str, axis: str, name: str, times: Mapping[str, Sequence[float]], *, dtype: str = ""
) -> list[Row]:
    """A row for each size that ``times`` names, and one with the slopes of its logarithms: of all, of the last step."""
    found = [row(benchmark, f"{axis} = {n}", name, seconds, dtype=dtype) for n, seconds in times.items()]
    sizes, medians = [*map(int, times)], [each["median_s"] for each in found]
    over_all = statistics.linear_regression([math.log(n) for n in sizes], [math.log(m) for m in medians]).slope
    last = math.log(medians[-1] / medians[-2]) / math.log(sizes[-1] / sizes[-2])
    said = f"slope {over_all:.2f}, of the last step {last:.2f}"
    found.append(row(benchmark, axis, said, [*times.values()][-1]) | {"slope": over_all, "slope_last": last})
    return found


def memory_rows(benchmark: str, script: str, axis: str, sizes: Sequence[int], beyond: str, dtype: str) -> list[Row]:
    """What ``script --peak SIZE`` prints (bytes and seconds) for each size, in processes of their own; Linux only."""
    found: list[Row] = []
    if not Path("/proc/self/clear_refs").exists():
        return found
    for size in sizes:
        command = [sys.executable, script, "--peak", str(size)]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken, seconds = map(float, out.split())
        name = f"{taken / 2**20:.0f} MB beyond {beyond}"
        found.append(row(benchmark, f"{axis} = {size}", name, [seconds], dtype=dtype) | {"bytes": taken})
    return found


def peak_of(run: Callable[[], Any]) -> tuple[Any, int, float]:
    """What ``run`` returns, the bytes that it took at its peak, and its seconds; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew, or it would be that of compilation
    before, start = _proc_status("VmRSS"), time.perf_counter()
    result = run()
    seconds = time.perf_counter() - start
    return result, _proc_status("VmHWM") - before, seconds


def _proc_status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text."""
    head = ("case", "name", "dtype", "median ms", "min ms", "spread", "ratio", "GFLOP/s")
    cells = [
        (
            r["case"],
            r["name"],
            r["dtype"],
            f"{1e3 * r['median_s']:.3f}",
            f"{1e3 * r['min_s']:.3f}",
            f"{r['spread']:.0%}",
            "" if r.get("ratio") is None else f"{r['ratio']:.2f}",
            "" if r.get("gflops") is None else f"{r['gflops']:.2f}",
        )
        for r in rows
    ]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    return "\n".join(
        "  ".join(
            c.ljust(w) if i < 3 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (head, *cells)
    )


def machine(*packages: str) -> str:
    """One line: processor, cores, Python, and the versions of those packages that are installed."""
    names = [f"{p} {v}" for p in packages if (v := installed(p))]
    return ", ".join([processor(), f"{os.cpu_count()} cores", f"python {platform.python_version()}", *names])


def processor() -> str:
    """The processor's name where the system tells it, else its architecture."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def installed(package: str) -> str | None:
    """Its version, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def save(rows: Sequence[Row], path: Path, **more: Any) -> None:
    """The rows as JSON, with whatever else is to be kept beside them; replaces the file at once."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps({"machine": machine("jax", "numpy"), "rows": list(rows), **more}, indent=1))
    os.replace(part, path)


def report(rows: Callable[[], list[Row]], json: Path | None, *packages: str) -> int:
    """Print the machine and the rows, and save them; the exit status, which is 1 if contestants disagree."""
    print(machine("jax", "numpy", *packages))
    try:
        found = rows()
    except Disagreement as error:
        print(error, file=sys.stderr)
        return 1
    print(table(found))
    if json:
        save(found, json)
    return 0
