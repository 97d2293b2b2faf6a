"""The online loop of bayespar against the same loop in numpy, vectorised over seeds.

Both run BAIL on a random, partially observed world in float64, with the same experts (a table over the step and the
last observation, so that the loop itself is measured and not the solver), an exploration coin of bias 0.1, and the
posterior carried exactly. Runs alternate; the ratio is that of the medians.

    python benchmarks/online_loop.py --sizes 16 8 4 8 8 --seeds 256 --episodes 1000
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import bayespar as bp
from bayespar.models.random_world import random_world
from bayespar.planning.expert import Experts


class ReactiveExperts(Experts):
    """Experts that look at the step and the last observation only."""

    value: Any
    table: Any  # [H-1, O, Z]
    gap: float = eqx.field(static=True)

    def start(self, observation):
        return jnp.asarray(observation, jnp.int32)

    def advance(self, memory, step, subgoal, observation):
        return jnp.asarray(observation, jnp.int32)

    def q(self, memory, belief, step, instruction, task):
        raise NotImplementedError("regret is measured by rewards")

    def act(self, memory, belief, step, instruction):
        return jnp.asarray(self.table)[step, memory]


def numpy_loop(family, task, experts, epsilon, episodes, seeds, rng):
    """What a careful numpy user writes: everything vectorised over seeds. Returns (regret, true task), [seeds, T]."""
    S, G, H = family.num_states, family.num_subgoals, family.horizon
    kernel = np.ascontiguousarray(np.moveaxis(family.transition[:, 0], 1, 0))  # [G, Z, S, S']
    emission = np.ascontiguousarray(np.moveaxis(family.emission, 2, 0))  # [O, Z, S]
    initial, reward, table, eye = family.initial, family.reward[..., 0], experts.table, np.eye(G)
    initial_cdf, move_cdf, emit_cdf = (
        np.cumsum(a, -1) for a in (family.initial[task], family.transition[task, 0], family.emission[task])
    )

    def draw(cdf, uniform):
        return np.minimum((cdf <= uniform[:, None] * cdf[..., -1:]).sum(-1), cdf.shape[-1] - 1)

    log_weights = np.tile(np.log(family.task_prior), (seeds, 1))
    regret, true_task = np.empty((seeds, episodes)), np.empty((seeds, episodes))
    uniform_policy = np.full(G, 1 / G)
    for t in range(episodes):
        u = rng.random((H + 1, 3, seeds))
        explore = u[H, 1] < epsilon
        state = draw(np.broadcast_to(initial_cdf, (seeds, S)), u[0, 0])
        heard = draw(emit_cdf[state], u[0, 1])
        forward = initial * emission[heard]
        gained = reward[0, heard]
        shifted = np.exp(log_weights - log_weights.max(1, keepdims=True))
        true_task[:, t] = shifted[:, task] / shifted.sum(1)
        for h in range(H - 1):
            log_posterior = log_weights + np.log(forward.sum(2))
            posterior = np.exp(log_posterior - log_posterior.max(1, keepdims=True))
            posterior /= posterior.sum(1, keepdims=True)
            bail = (posterior[:, :, None] * eye[table[h, heard]]).sum(1)
            chosen = np.where(explore[:, None], uniform_policy, bail)
            subgoal = draw(np.cumsum(chosen, 1), u[h + 1, 2])
            state = draw(move_cdf[subgoal, state], u[h + 1, 0])
            heard = draw(emit_cdf[state], u[h + 1, 1])
            forward = np.matmul(forward[:, :, None, :], kernel[subgoal])[:, :, 0] * emission[heard]
            gained += reward[h + 1, heard]
        log_weights += np.log(forward.sum(2))
        log_weights -= log_weights.max(1, keepdims=True)
        regret[:, t] = experts.value[task, 0] - gained
    return regret, true_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs=5, default=(16, 8, 4, 8, 8), metavar=("Z", "S", "G", "O", "H"))
    parser.add_argument("--seeds", type=int, default=256)
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    family = bp.enumerate_program(functools.partial(random_world, seed=0, sizes=tuple(arguments.sizes)))
    Z, G, H, O = family.num_tasks, family.num_subgoals, family.horizon, family.num_observations
    table = np.random.default_rng(1).integers(0, G, (H - 1, O, Z)).astype(np.int32)
    experts = ReactiveExperts(value=np.ones((Z, 1)), table=table, gap=np.inf)

    def ours():
        result = bp.simulate_regret(family, 0, "bail", 0.1, arguments.episodes, arguments.seeds, key=0, experts=experts)
        return result.regret, result.true_task

    def theirs():
        return numpy_loop(family, 0, experts, 0.1, arguments.episodes, arguments.seeds, np.random.default_rng(0))

    start = time.perf_counter()
    (regret, true_task), (numpy_regret, numpy_true_task) = ours(), theirs()
    print(f"first call of bayespar, compilation included, and one of numpy: {time.perf_counter() - start:.1f} s")
    for name, a, b in (("regret an episode", regret, numpy_regret), ("P(true task)", true_task, numpy_true_task)):
        error = np.hypot(a.mean(1).std(), b.mean(1).std()) / np.sqrt(len(a))
        print(
            f"mean {name}: bayespar {a.mean():.5f}, numpy {b.mean():.5f}, standard error of the difference {error:.5f}"
        )
    times: dict[str, list[float]] = {"bayespar": [], "numpy": []}
    for _ in range(arguments.repeats):
        for name, run in (("bayespar", ours), ("numpy", theirs)):
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(t) for name, t in times.items()}
    steps = arguments.seeds * arguments.episodes * (H - 1)
    print(f"jax {jax.__version__}, numpy {np.__version__}, sizes {tuple(arguments.sizes)}, {family.dtype}")
    for name, t in times.items():
        rate = steps / medians[name] / 1e6
        print(f"{name:9} median {medians[name]:.2f} s (from {min(t):.2f} to {max(t):.2f}), {rate:.2f} M steps/s")
    print(f"ratio of medians: {medians['numpy'] / medians['bayespar']:.1f}")


if __name__ == "__main__":
    main()
