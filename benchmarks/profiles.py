"""Where time goes in verify, regret, nuts and train: reading and tracing Python, compiling, and running.

    python benchmarks/profiles.py [--json FILE]

Each case runs twice in a process of its own that has no cache on disk: the first run compiles, the second finds every
program in memory. JAX itself tells what it traced, lowered and compiled, and for how long; programs that two threads
compile at the same time are both counted. Processor seconds are of all threads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = ("verify", "regret", "nuts", "train")
STAGES = {
    "/jax/core/compile/jaxpr_trace_duration": "trace",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower",
    "/jax/core/compile/backend_compile_duration": "compile",
}


def made(case: str) -> Callable[[], Any]:
    """What a case runs."""
    import bayespar as bp

    if case == "verify":
        from bayespar.theory.runner import verify

        return lambda: verify({"tiger": "tiger"}, shipped=False)
    if case == "regret":
        family = bp.enumerate_program(bp.load_model("kitchen"))
        return lambda: bp.simulate_regret(family, 0, "bail", 0.1, 1000, 256)
    if case == "nuts":
        program = bp.load_model("slippery_kitchen")
        corpus = bp.sample_corpus(program, 1, 50)
        prompt = bp.Prompt(corpus.observations[0], corpus.subgoals[0])
        return lambda: bp.posterior(program, prompt, method="nuts")
    from bayespar.learned.training import TrainingPlan, train
    from bayespar.simulate.stream import CorpusStream

    family = bp.enumerate_program(bp.load_model("workshop"))
    return lambda: train(CorpusStream(family, 1, 32, key=0), TrainingPlan(32, steps=100), key=0)


def profile(case: str) -> dict[str, Any]:
    """Seconds of importing, of the first run by stage, and of the second."""
    start = time.perf_counter()
    import jax

    run = made(case)
    imported = time.perf_counter() - start
    seconds: Counter[str] = Counter()
    programs: Counter[str] = Counter()

    def listen(event: str, duration: float, **_: object) -> None:
        if event in STAGES:
            seconds[STAGES[event]] += duration
            programs[STAGES[event]] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    stages, count = dict(seconds), programs["compile"]
    again, again_cpu = time.perf_counter(), time.process_time()
    run()
    again, again_cpu = time.perf_counter() - again, time.process_time() - again_cpu
    return {
        "case": case,
        "import": imported,
        "first": wall,
        "first_cpu": cpu,
        **stages,
        "programs": count,
        "second": again,
        "second_cpu": again_cpu,
        "compiled_again": programs["compile"] - count,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(profile(arguments.case)))
        return
    found = []
    for case in CASES:
        told = subprocess.run(
            [sys.executable, __file__, "--case", case],
            env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found.append(json.loads(told.stdout.splitlines()[-1]))
    names = [name for name in found[0] if name != "case"]
    print(f"| case | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for one in found:
        cells = [f"{one[n]:.1f}" if isinstance(one[n], float) else str(one[n]) for n in names]
        print(f"| {one['case']} | {' | '.join(cells)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
