"""Time ``log_evidence`` against dynamax's ``hmm_filter`` on the same random dense world.

    python benchmarks/evidence.py [--tasks 64 --states 16 --subgoals 8 --observations 16 --horizon 16 --episodes 1000]

dynamax (pip install "bayespar[peers]") has no subgoals, so it is given one transition matrix per step of each
episode, in every form we found to be fast; all of them and ours are timed in turn, in one process:

* ``matrices``: an array [H-1, S, S] gathered from the kernel; tasks one after the other, episodes vmapped
  (vmapping both at once needs Z N (H-1) S^2 numbers at a time and is much slower; ``--all`` times it too);
* ``function``: ``transition_fn``, which gathers each matrix when it is needed; episodes in blocks, tasks vmapped.

Exit status 1 if the two disagree.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from dynamax.hidden_markov_model import hmm_filter
from jax import lax

import bayespar as bp
from bayespar.evidence import log_evidence

TOLERANCE = {"float32": 1e-3, "float64": 1e-9}


def random_world(args: argparse.Namespace, dtype: str) -> tuple[bp.Family, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(args.seed)
    Z, S, G, O, H, N = args.tasks, args.states, args.subgoals, args.observations, args.horizon, args.episodes

    def rows(*shape: int) -> np.ndarray:
        a = rng.random(shape)
        return a / a.sum(-1, keepdims=True)

    family = bp.Family(rows(Z), rows(Z, S), rows(Z, G, S, S), rows(Z, S, O), np.zeros((H, O)), horizon=H)
    return family.astype(dtype), rng.integers(0, O, (N, H)), rng.integers(0, G, (N, H - 1))


def dynamax_forms(family: bp.Family, observations: np.ndarray, subgoals: np.ndarray, everything: bool) -> dict:
    kernels = jax.device_put((family.initial, family.transition[:, 0], family.emission))
    episodes = jax.device_put((observations, subgoals))

    def matrices(rho: Any, kernel: Any, emission: Any, o: Any, g: Any) -> Any:
        return hmm_filter(rho, kernel[g], jnp.log(emission)[:, o].T).marginal_loglik

    def function(rho: Any, kernel: Any, emission: Any, o: Any, g: Any) -> Any:
        likelihoods = jnp.log(emission)[:, o].T
        return hmm_filter(rho, None, likelihoods, transition_fn=lambda h: kernel[g[h]]).marginal_loglik

    def by_task(one: Callable) -> Callable:
        return lambda kernels, episodes: lax.map(
            lambda task: jax.vmap(lambda o, g: one(*task, o, g))(*episodes), kernels
        )

    def by_episode(one: Callable) -> Callable:
        return lambda kernels, episodes: (
            lax.map(lambda e: jax.vmap(lambda *task: one(*task, *e))(*kernels), episodes, batch_size=64).T
        )

    def at_once(one: Callable) -> Callable:
        return lambda kernels, episodes: jax.vmap(lambda *task: jax.vmap(lambda o, g: one(*task, o, g))(*episodes))(
            *kernels
        )

    forms = {"dynamax, matrices": by_task(matrices), "dynamax, function": by_episode(function)}
    if everything:
        forms |= {
            "dynamax, matrices, all vmapped": at_once(matrices),
            "dynamax, function, all vmapped": at_once(function),
        }
    jitted = {name: jax.jit(form) for name, form in forms.items()}
    return {name: lambda f=f: np.asarray(f(kernels, episodes)) for name, f in jitted.items()}


def measure(args: argparse.Namespace, dtype: str) -> bool:
    with jax.enable_x64(dtype == "float64"):
        family, observations, subgoals = random_world(args, dtype)
        runs = {"bayespar": lambda: log_evidence(family, observations, subgoals)}
        runs |= dynamax_forms(family, observations, subgoals, args.all)
        results = {name: run() for name, run in runs.items()}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(args.repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    ours = statistics.median(times["bayespar"])
    worst = 0.0
    for name, seconds in times.items():
        median = statistics.median(seconds)
        apart = float(np.abs(results[name] - results["bayespar"]).max())
        worst = max(worst, apart)
        print(f"{dtype}  {name:32} {median * 1e3:9.1f} {median / ours:9.1f} {apart:12.1e}")
    return worst <= TOLERANCE[dtype]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = {"tasks": 64, "states": 16, "subgoals": 8, "observations": 16, "horizon": 16, "episodes": 1000}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--all", action="store_true", help="also time the slow forms of dynamax")
    args = parser.parse_args()
    names = ("jax", "dynamax", "numpy", "equinox")
    print(f"python {platform.python_version()}, " + ", ".join(f"{n} {version(n)}" for n in names))
    print(", ".join(f"{name} {getattr(args, name)}" for name in sizes) + f", median of {args.repeats}")
    print(f"{'dtype':8} {'':32} {'ms':>9} {'ratio':>9} {'max |diff|':>12}")
    agree = [measure(args, dtype) for dtype in ("float32", "float64")]
    if not all(agree):
        print("the results disagree", file=sys.stderr)
    return 0 if all(agree) else 1


if __name__ == "__main__":
    sys.exit(main())
