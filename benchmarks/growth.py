"""Cost against states, subgoals, draws, Actors and devices, one at a time (tasks, horizon and episodes: evidence.py).

python benchmarks/growth.py [--repeats 3 --json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import actors
import numpy as np
from common import Row, growth_rows, interleaved, report, row

import bayespar as bp

DEVICES = (1, 2, 4, 8)
ON_DEVICES = """
import json, statistics, sys
import numpy as np
from common import interleaved
from bayespar.learned.training import TrainingPlan, train
from bayespar.simulate.stream import CorpusStream
import bayespar as bp
plan = TrainingPlan(8, width=32, steps=20, positions=768)
family = bp.enumerate_program(bp.load_model("workshop"))
run = lambda: train(CorpusStream(family, 1, 8, key=0), plan, key=0)
print(json.dumps(interleaved({"": run}, int(sys.argv[1]))[""]))
"""


def evidence(states: int = 8, subgoals: int = 4) -> Callable[[], Any]:
    """log_evidence of 1000 episodes in a random dense world."""
    rng = np.random.default_rng(0)
    Z, O, H, N = 8, 8, 8, 1000
    kernels = (rng.dirichlet(np.ones(n), shape) for n, shape in ((states, Z), (states, (Z, subgoals, states))))
    family = bp.Family(np.full(Z, 1 / Z), *kernels, rng.dirichlet(np.ones(O), (Z, states)), np.zeros((H, O)), horizon=H)
    o, g = rng.integers(0, O, (N, H)), rng.integers(0, subgoals, (N, H - 1))
    return lambda: bp.log_evidence(family, o, g)


def chains(draws: int) -> Callable[[], Any]:
    """NUTS of four chains on a prompt of bernoulli_arms."""
    program = bp.load_model("bernoulli_arms")
    prompt = bp.Prompt(np.array([[0, 1]] * 16), np.zeros((16, 1), int))
    return lambda: bp.posterior(program, prompt, method="nuts", draws=draws, warmup=100)


def several(count: int) -> Callable[[], Any]:
    """log_evidence of 256 episodes of so many Actors, their kernels kept apart."""
    family = actors.families(count)["factored"]
    rng = np.random.default_rng(0)
    o, g = rng.integers(0, 6, (256, 8)), rng.integers(0, 2**count, (256, 7))
    return lambda: bp.log_evidence(family, o, g)


AXES: Mapping[str, tuple[Callable[[int], Callable[[], Any]], tuple[int, ...]]] = {
    "S": (lambda n: evidence(states=n), (4, 16, 64, 256)),
    "G": (lambda n: evidence(subgoals=n), (2, 8, 32, 128)),
    "draws": (chains, (100, 400, 1600)),
    "Actors": (several, tuple(actors.ACTORS)),
}


def rows(repeats: int = 3) -> list[Row]:
    """All rows."""
    found = []
    for axis, (make, values) in AXES.items():
        times = interleaved({str(n): make(n) for n in values}, repeats)
        found += growth_rows(f"growth in {axis}", axis, "bayespar", times)
    for count in DEVICES:
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
        told = subprocess.run(
            [sys.executable, "-c", ON_DEVICES, str(repeats)],
            env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(Path(__file__).parent)},
            capture_output=True,
            text=True,
            check=True,
        )
        name = "bayespar, training, on virtual devices"
        found.append(row("growth in devices", f"devices = {count}", name, json.loads(told.stdout.splitlines()[-1])))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="save the rows")
    arguments = parser.parse_args()
    return report(lambda: rows(arguments.repeats), arguments.json, "numpyro")


if __name__ == "__main__":
    sys.exit(main())
