"""Time a sweep on one core, and the same sweep shared by two processes on two.

    python benchmarks/devices.py [--keys 4 --seeds 32 --episodes 100 --repeats 3 --save devices.json]

Each process is pinned to a core of its own, and imports, compiles and computes within the time that is told; the two
runs take turns. Compiled programs are kept on disk, as by the command line, but each run begins with none. On a machine
that others use as well the clock tells of them too, so the table also has processor seconds: those of the one process
over those of the busier of the two are the ratio on quiet cores. The results are compared byte by byte.

Exit status 1 if they differ.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

WORKER = """
import json, os, sys, time
index, count, settings = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[index]})
from bayespar.distributed import Job, together
from bayespar.simulate.sweep import sweep
with together(Job(index, count)):
    sweep(**settings)
print(time.process_time())
"""


def contents(folder: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).rglob("*.json")}


def timed(processes: int, settings: dict[str, Any]) -> tuple[float, float, dict[str, bytes]]:
    """Seconds by the clock, processor seconds of the busiest process, and what they wrote."""
    with tempfile.TemporaryDirectory() as folder:
        told = json.dumps({**settings, "folder": f"{folder}/sweep"})
        cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/compiled", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        start = time.perf_counter()
        running = [
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(i), str(processes), told],
                env={**os.environ, **cache},
                stdout=subprocess.PIPE,
                text=True,
            )
            for i in range(processes)
        ]
        cpu = [float(process.communicate()[0]) for process in running]
        return time.perf_counter() - start, max(cpu), contents(f"{folder}/sweep")


def rows(settings: dict[str, Any], repeats: int) -> tuple[list[common.Row], bool]:
    """A row for each number of processes, by the clock and by processor seconds, and whether all wrote the same."""
    clock: dict[int, list[float]] = {1: [], 2: []}
    cpu: dict[int, list[float]] = {1: [], 2: []}
    written = []
    for _ in range(repeats):
        for count in clock:
            seconds, busiest, found = timed(count, settings)
            clock[count].append(seconds)
            cpu[count].append(busiest)
            written.append(found)
    out = []
    for case, times in (("by the clock", clock), ("processor seconds of the busiest", cpu)):
        named = {f"{count} process{'es' * (count > 1)}": seconds for count, seconds in times.items()}
        out += common.rows_of("devices", case, named, ours="2 processes", dtype="float64")
    return out, all(found == written[0] for found in written)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in {"keys": 4, "seeds": 32, "episodes": 100, "repeats": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the rows")
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        print("this needs two cores", file=sys.stderr)
        return 2
    settings = {
        "worlds": ["kitchen"],
        "planners": ["bail", "thompson"],
        "explorations": [0.1],
        "episodes": [args.episodes],
        "keys": list(range(args.keys)),
        "seeds": args.seeds,
    }
    found, same = rows(settings, args.repeats)
    print(common.machine("jax", "numpy"))
    print(common.table(found))
    by = {(r["case"], r["name"]): r["median_s"] for r in found}
    for case in dict.fromkeys(r["case"] for r in found):
        print(f"{case}: two processes are {by[case, '1 process'] / by[case, '2 processes']:.2f} times as fast as one")
    if args.json is not None:
        common.save(found, args.json)
    if not same:
        print("the results differ", file=sys.stderr)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
