"""Minimum bulk effective sample size per second of NUTS: one hidden-state model, one data set, many samplers.

    python benchmarks/nuts.py [--episodes 200 --repeats 3 --chains 4 --warmup 500 --draws 500 --only bayespar --json F]

The model is ``dirichlet_world(states=4, subgoals=2, horizon=9, accuracy=0.85)``: a Dirichlet row for each of 8 pairs of
subgoal and state. Hidden states are summed out. The contestants run in turn, in one process, on 2 or more devices that
are one CPU's cores; each repeat has a seed of its own.

* ``bayespar``: ``bp.posterior(program, prompt, "nuts")``, everything included: reading the prompt, diagnostics.
* ``numpyro, log space``: NUTS on a textbook forward pass in log space, chains in parallel.
* ``numpyro, probabilities``: the same with a forward pass by products of probabilities, written by hand and unrolled.
* ``numpyro, enumeration``: its own enumeration of the hidden states (contrib.funsor), one plate over episodes. It is so
  slow that it warms up for ``--few`` transitions and keeps as many.
* ``blackjax``: window adaptation and NUTS, chains vectorised, with the hand-written forward pass.
* ``pymc``, ``nutpie``: the hand-written forward pass in PyTensor, compiled to C on 2 cores and by Numba. A package that
  is missing is said to be.

A row is the seconds of one effective draw: with everything that has to be compiled, and of the repeats after it. Bulk
ESS is the smallest of the 32 entries, by arviz-stats for all. Exit status 1 if the posterior means of two samplers
differ by more than 5 Monte Carlo standard errors.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats.base import array_stats
from common import Row, installed, machine, row, save, table

import bayespar as bp
from bayespar.posterior.latents import find_latents

ACCURACY, STATES, SUBGOALS, HORIZON = 0.85, 4, 2, 9
EMISSION = np.full((STATES, STATES), (1 - ACCURACY) / (STATES - 1))
np.fill_diagonal(EMISSION, ACCURACY)
INITIAL = np.full(STATES, 1 / STATES)
CONCENTRATION = np.ones((SUBGOALS, STATES, STATES))

Sampler = Callable[[int], np.ndarray]  # seed -> rows [chain, draw, G, S, S']


def simulate(episodes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Episodes of one fixed world."""
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.ones(STATES), (SUBGOALS, STATES))
    subgoals = rng.integers(0, SUBGOALS, (episodes, HORIZON - 1))
    observations = np.zeros((episodes, HORIZON), int)
    for o, g in zip(observations, subgoals, strict=True):
        state = rng.integers(STATES)
        for h in range(HORIZON):
            if h:
                state = rng.choice(STATES, p=rows[g[h - 1], state])
            o[h] = rng.choice(STATES, p=EMISSION[state])
    return observations, subgoals


def by_logarithms(rows: Any, observations: Any, subgoals: Any) -> Any:
    """log evidence of all episodes: a scan over steps, logarithms throughout, episodes vmapped."""
    log_rows, log_emission = jnp.log(rows), jnp.log(EMISSION)

    def episode(o: Any, g: Any) -> Any:
        def step(forward: Any, row: Any) -> Any:
            o, g = row
            return jax.nn.logsumexp(forward[:, None] + log_rows[g], axis=0) + log_emission[:, o], None

        start = jnp.log(INITIAL) + log_emission[:, o[0]]
        return jax.nn.logsumexp(jax.lax.scan(step, start, (o[1:], g))[0])

    return jax.vmap(episode)(observations, subgoals).sum()


def by_probabilities(rows: Any, observations: Any, subgoals: Any) -> Any:
    """The same by products of probabilities, unrolled; right for horizons as short as this one."""
    both = jnp.moveaxis(rows, 0, 1).reshape(STATES, -1)
    seen = jnp.asarray(EMISSION.T[observations])  # [N, H, S]
    forward = INITIAL * seen[:, 0]
    for h in range(HORIZON - 1):
        ahead = (forward @ both).reshape(-1, SUBGOALS, STATES)
        ahead = jnp.where(subgoals[:, h, None] == 0, ahead[:, 0], ahead[:, 1])
        forward = ahead * seen[:, h + 1]
    return jnp.log(forward.sum(axis=1)).sum()


def of_bayespar(args: argparse.Namespace, observations: np.ndarray, subgoals: np.ndarray) -> Sampler:
    world = bp.load_model("dirichlet_world")
    program = partial(world, states=STATES, subgoals=SUBGOALS, horizon=HORIZON, accuracy=ACCURACY)
    prompt = bp.Prompt(observations, subgoals)

    def run(seed: int) -> np.ndarray:
        settings = {"chains": args.chains, "warmup": args.warmup, "draws": args.draws}
        return bp.posterior(program, prompt, "nuts", key=seed, **settings).draws["rows"]

    return run


def of_numpyro(forward: Callable, args: argparse.Namespace, observations: np.ndarray, subgoals: np.ndarray) -> Sampler:
    def model() -> None:
        rows = numpyro.sample("rows", dist.Dirichlet(CONCENTRATION).to_event(2))
        numpyro.factor("episodes", forward(rows, observations, subgoals))

    return numpyro_sampler(model, args, args.warmup, args.draws)


def numpyro_sampler(model: Callable, args: argparse.Namespace, warmup: int, draws: int) -> Sampler:
    """One device for each chain. (``MCMC(chain_method="parallel")`` does the same, but compiles again at every run.)"""

    @jax.pmap
    def chain(key: Any) -> Any:
        kernel = numpyro.infer.NUTS(model)
        state = kernel.init(key, warmup, None, (), {})

        def step(state: Any, _: None) -> Any:
            state = kernel.sample(state, (), {})
            return state, state.z

        _, z = jax.lax.scan(step, state, None, warmup + draws)
        return jax.vmap(kernel.postprocess_fn((), {}))(z)["rows"][warmup:]

    return lambda seed: np.asarray(chain(jax.random.split(jax.random.key(seed), args.chains)))


def of_enumeration(args: argparse.Namespace, observations: np.ndarray, subgoals: np.ndarray) -> Sampler:
    from numpyro.contrib.control_flow import scan

    emission = jnp.asarray(EMISSION)

    def model() -> None:
        rows = numpyro.sample("rows", dist.Dirichlet(CONCENTRATION).to_event(2))

        def step(carry: Any, row: Any) -> Any:
            before, h = carry
            o, g = row
            with numpyro.plate("episodes", len(observations), dim=-1):
                law = jnp.where(h == 0, INITIAL, rows[g, before])
                state = numpyro.sample("state", dist.Categorical(law), infer={"enumerate": "parallel"})
                numpyro.sample("seen", dist.Categorical(emission[state]), obs=o)
            return (state, h + 1), None

        padded = jnp.concatenate([jnp.zeros((1, len(observations)), int), subgoals.T])
        start = jnp.zeros(len(observations), int)
        scan(step, (start, 0), (jnp.asarray(observations.T), padded))

    return numpyro_sampler(model, args, args.few, args.few)


def of_blackjax(args: argparse.Namespace, observations: np.ndarray, subgoals: np.ndarray) -> Sampler:
    import blackjax

    bijection = dist.biject_to(dist.constraints.independent(dist.constraints.simplex, 2))

    def log_density(u: Any) -> Any:
        rows = bijection(u)
        prior = dist.Dirichlet(CONCENTRATION).to_event(2).log_prob(rows)
        return prior + bijection.log_abs_det_jacobian(u, rows).sum() + by_probabilities(rows, observations, subgoals)

    @jax.jit
    @jax.vmap
    def chain(key: Any) -> Any:
        start, tune, key = jax.random.split(key, 3)
        u = jax.random.uniform(start, (SUBGOALS, STATES, STATES - 1), minval=-2, maxval=2)
        adapt = blackjax.window_adaptation(blackjax.nuts, log_density)
        (state, parameters), _ = adapt.run(tune, u, args.warmup)
        kernel = blackjax.nuts(log_density, **parameters)

        def step(state: Any, key: Any) -> Any:
            state, _ = kernel.step(key, state)
            return state, bijection(state.position)

        return jax.lax.scan(step, state, jax.random.split(key, args.draws))[1]

    return lambda seed: np.asarray(chain(jax.random.split(jax.random.key(seed), args.chains)))


def pymc_model(observations: np.ndarray, subgoals: np.ndarray) -> Any:
    import pymc as pm
    import pytensor.tensor as pt

    with pm.Model() as model:
        rows = pm.Dirichlet("rows", CONCENTRATION)
        both = rows.transpose(1, 0, 2).reshape((STATES, SUBGOALS * STATES))
        seen = EMISSION.T[observations]
        forward = pt.as_tensor(INITIAL * seen[:, 0])
        for h in range(HORIZON - 1):
            ahead = (forward @ both).reshape((len(observations), SUBGOALS, STATES))
            ahead = pt.where(pt.as_tensor(subgoals[:, h, None] == 0), ahead[:, 0], ahead[:, 1])
            forward = ahead * seen[:, h + 1]
        pm.Potential("episodes", pt.log(forward.sum(axis=1)).sum())
    return model


def of_pymc(args: argparse.Namespace, observations: np.ndarray, subgoals: np.ndarray) -> Sampler:
    import pymc as pm

    model = pymc_model(observations, subgoals)

    def run(seed: int) -> np.ndarray:
        trace = pm.sample(
            args.draws,
            tune=args.warmup,
            chains=args.chains,
            cores=2,
            random_seed=seed,
            progressbar=False,
            compute_convergence_checks=False,
            model=model,
        )
        return trace.posterior["rows"].values

    return run


def of_nutpie(args: argparse.Namespace, observations: np.ndarray, subgoals: np.ndarray) -> Sampler:
    import nutpie

    made: list[Any] = []

    def run(seed: int) -> np.ndarray:
        if not made:
            made.append(nutpie.compile_pymc_model(pymc_model(observations, subgoals)))
        trace = nutpie.sample(
            made[0], draws=args.draws, tune=args.warmup, chains=args.chains, seed=seed, progress_bar=False
        )
        return trace.posterior["rows"].values

    return run


CONTESTANTS: dict[str, tuple[Callable, tuple[str, ...]]] = {
    "bayespar": (of_bayespar, ()),
    "numpyro, log space": (partial(of_numpyro, by_logarithms), ()),
    "numpyro, probabilities": (partial(of_numpyro, by_probabilities), ()),
    "numpyro, enumeration": (of_enumeration, ("funsor",)),
    "blackjax": (of_blackjax, ("blackjax",)),
    "pymc": (of_pymc, ("pymc",)),
    "nutpie": (of_nutpie, ("pymc", "nutpie")),
}


def bulk_ess(rows: np.ndarray) -> float:
    return float(array_stats.ess(np.moveaxis(rows.reshape(*rows.shape[:2], -1), -1, 0), method="bulk").min())


def compare(args: argparse.Namespace) -> tuple[list[Row], bool]:
    """The rows of the table, and whether all samplers have the same posterior means."""
    observations, subgoals = simulate(args.episodes, args.seed)
    samplers: dict[str, Sampler] = {}
    for name, (make, needs) in CONTESTANTS.items():
        if args.only and not any(name.startswith(only) for only in args.only):
            continue
        missing = [package for package in needs if installed(package) is None]
        if missing:
            print(f"{name:24} not run: {', '.join(missing)} not installed")
            continue
        samplers[name] = make(args, observations, subgoals)
    seconds: dict[str, list[float]] = {name: [] for name in samplers}
    ess: dict[str, list[float]] = {name: [] for name in samplers}
    draws: dict[str, np.ndarray] = {}
    for repeat in range(1 + args.repeats):
        for name in list(samplers)[:: -1 if repeat % 2 else 1]:
            if repeat > 1 and "enumeration" in name:
                continue
            start = time.perf_counter()
            draws[name] = samplers[name](repeat)
            seconds[name].append(time.perf_counter() - start)
            print(f"{name}, run {repeat}: {seconds[name][-1]:.1f} s", file=sys.stderr, flush=True)
            ess[name].append(bulk_ess(draws[name]))
    size = f"{args.episodes} episodes, {args.chains} x ({args.warmup} + {args.draws})"
    rows: list[Row] = []
    for case, which in ((f"{size}, compiling included", slice(1)), (f"{size}, compiled", slice(1, None))):
        each = {name: [t / e for t, e in zip(seconds[name][which], ess[name][which], strict=True)] for name in samplers}
        ours = statistics.median(each["bayespar"]) if "bayespar" in each else 0.0
        for name, times in each.items():
            if times:
                found = row("nuts", case, name, times, dtype="float64", ours=ours)
                total = {"fit_s": statistics.median(seconds[name][which]), "ess": statistics.median(ess[name][which])}
                rows.append(found | total | {"ess_per_s": 1 / found["median_s"]})
    return rows, agree(draws)


def agree(draws: dict[str, np.ndarray]) -> bool:
    """Whether every two samplers have the same posterior means; enumeration is too short to ask."""
    fine = True
    known = {name: rows for name, rows in draws.items() if "enumeration" not in name}
    first = next(iter(known), "")
    for name in list(known)[1:]:
        x, y = (np.moveaxis(known[n].reshape(*known[n].shape[:2], -1), -1, 0) for n in (first, name))
        error = np.hypot(*(array_stats.mcse(a, method="mean") for a in (x, y)))
        worst = float((np.abs(x.mean(axis=(1, 2)) - y.mean(axis=(1, 2))) / error).max())
        if worst > 5:
            print(f"{first} and {name} disagree: {worst:.1f} standard errors", file=sys.stderr)
            fine = False
    return fine


def kitchen(episodes: int) -> Row:
    """A long prompt of a decoded world: wall seconds, everything included, and the peak memory of the process."""
    rng = np.random.default_rng(0)
    program = bp.load_model("slippery_kitchen")
    start = time.perf_counter()
    one = np.array([[0.2, 0.1]])
    latents = find_latents(program)
    family = latents.mixture({"slip": one[:, 0], "wrong": one[:, 1]})[1]
    P, E = family.dense_transition()[1, 0], family.emission[1]
    observations, subgoals = np.zeros((episodes, 5), int), rng.integers(0, family.num_subgoals, (episodes, 4))
    state = np.zeros(episodes, int)
    for h in range(5):
        if h:
            state = (rng.random((episodes, 1)) > P[subgoals[:, h - 1], state].cumsum(axis=1)).sum(axis=1)
        observations[:, h] = (rng.random((episodes, 1)) > E[state].cumsum(axis=1)).sum(axis=1)
    before = time.perf_counter()
    result = bp.posterior(program, bp.Prompt(observations, subgoals), "nuts")
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"slippery_kitchen, {episodes} episodes, 4 x (500 + 500): {done - before:.1f} s and {before - start:.1f} s to "
        f"read the program and simulate; peak memory {peak:.0f} MB; slip {result.draws['slip'].mean():.4f} (0.2), "
        f"wrong {result.draws['wrong'].mean():.4f} (0.1); problems: {'; '.join(result.diagnostics.problems) or 'none'}"
    )
    found = row("nuts", f"slippery_kitchen, {episodes} episodes", "bayespar", [done - before], dtype="float64")
    return found | {"peak_mb": peak}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = {"episodes": 200, "chains": 4, "warmup": 500, "draws": 500, "few": 20, "repeats": 3, "seed": 0}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--only", nargs="*", help="contestants whose names begin so")
    parser.add_argument("--kitchen", type=int, default=10_000, help="episodes of the long prompt; 0 leaves it out")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(machine("jax", "numpyro", "blackjax", "pymc", "nutpie", "funsor"))
    long = [kitchen(args.kitchen)] if args.kitchen else []
    jax.config.update("jax_enable_x64", True)
    rows, fine = compare(args)
    rows += long
    print(table(rows))
    for r in rows:
        if "ess" in r:
            rate = f"{r['ess_per_s']:.1f} effective draws/s ({r['ess']:.0f} in {r['fit_s']:.2f} s)"
            print(f"{r['case']}, {r['name']}: {rate}")
    if args.json:
        save(rows, args.json)
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
