"""NUTS on the sites with a density; hidden states and finite sites are summed out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from ..arrays import Array
from ..distributed import in_blocks
from ..errors import ConvergenceWarning, InvalidProgramError, InvalidPromptError
from ..history import Prompt, check_prompt
from ..keys import as_key
from ..validation import check_count, shown
from .diagnostics import diagnose
from .exact import _impossible as impossible_evidence
from .latents import Latents
from .likelihood import Likelihood
from .prior import draw_prior
from .result import Posterior

STARTS = 16  # points of which a chain starts at the first possible one
PRIOR_DRAWS = 1000  # tried where no start was possible
POINTS = 64  # evaluated by one call


class Settings(NamedTuple):
    """What a sampler is compiled for; ``vectorized`` is the number of chains, or 0 for one at a time."""

    warmup: int
    draws: int
    dense_mass: bool
    vectorized: int


def nuts_posterior(
    latents: Latents,
    prompt: Prompt,
    *,
    key: Any = 0,
    chains: int = 4,
    warmup: int = 500,
    draws: int = 500,
    target_accept: float = 0.65,
    dense_mass: bool = False,
    chain_method: str | None = None,
) -> Posterior:
    """Draws from P(z | pt) by the No-U-Turn sampler of numpyro, on unconstrained coordinates.

    Finite sites and hidden states are summed out exactly; the probability of each leaf is then given for every draw,
    exact given the sites with a density. Chains start at points drawn uniformly from [-2, 2]^D, as Stan's do.

    On a CPU, chains run in parallel: each on its own, compiled once, on a pool of threads, which XLA does not lock.
    Vectorised chains move in lockstep, each waiting for the longest trajectory, and gain little from each other's
    company: the gradient for four costs three to four times that for one. Elsewhere chains are vectorised.

    Args:
        latents: the sites of a program.
        prompt: what was seen.
        key: a JAX key, or an int. The same key gives the same draws, however many cores there are.
        chains: at least 2 for R-hat to see what one chain cannot; 4 is usual.
        warmup: transitions of each chain that tune step size and mass matrix, and are thrown away.
        draws: transitions of each chain that are kept.
        target_accept: of the step size's adaptation, in (0, 1); nearer to 1 takes smaller steps, which helps against
            divergences. 0.65, near the optimum of Hoffman and Gelman, gave 1.4 to 2.2 times the effective draws per
            gradient of 0.8 on the shipped worlds.
        dense_mass: learn a full mass matrix [D, D] in place of a diagonal one.
        chain_method: "parallel", "vectorized", or None for what suits the device.

    Returns:
        A Posterior with ``draws``, ``leaf_probabilities``, ``diagnostics`` and ``sample_stats``: acceptance_rate,
        diverging, energy (nats), lp (log density of the unconstrained draw and the prompt, nats), n_steps, step_size,
        tree_depth.

    Raises:
        ImpossibleEvidenceError: none of 1000 draws from the prior can have produced the prompt; names episode and step.
        InvalidPromptError: the prompt does not fit the program, or a setting is out of range.
        InvalidPlannerError: ``key`` is none.

    Warns:
        ConvergenceWarning: the draws should not be believed; ``diagnostics.problems`` says why.

    Source: theory.md, section 8; Hoffman and Gelman (2014), Betancourt (2017).
    """
    for name, count in (("chains", chains), ("warmup", warmup), ("draws", draws)):
        check_count(name, count)
    if draws < 4:
        raise InvalidPromptError(f"draws = {draws}; give at least 4, so that the chains can be diagnosed")
    if isinstance(target_accept, bool) or not isinstance(target_accept, float) or not 0 < target_accept < 1:
        raise InvalidPromptError(f"target_accept = {shown(target_accept)}; give a number between 0 and 1")
    if chain_method not in (None, "parallel", "vectorized"):
        raise InvalidPromptError(f'chain_method = {shown(chain_method)}; give "parallel", "vectorized" or None')
    attributes = {"key": int(key)} if isinstance(key, (int, np.integer)) else {}
    key = as_key(key)
    check_prompt(prompt, latents.example)
    method = chain_method or ("parallel" if jax.default_backend() == "cpu" else "vectorized")
    vectorized = chains if method == "vectorized" else 0
    settings = Settings(warmup, draws, bool(dense_mass), vectorized)
    with jax.enable_x64(True):
        start, *keys = jax.random.split(key, chains + 1)
        attempt = partial(_attempt, latents, prompt, settings, target_accept, start, jnp.stack(keys))
        # First without what is seldom needed and long to compile; where it is needed, the density is NaN, which shows
        # as a divergence.
        likelihood, u, stats = attempt(thorough=False) or attempt(thorough=True)
        if likelihood.episodes is not None and not likelihood.episodes.fallback and stats["diverging"].any():
            likelihood, u, stats = attempt(thorough=True)
        log_joint = evaluate(latents, likelihood, u.reshape(chains * draws, -1))[0] if len(latents.leaves) > 1 else None
        sites = {name: np.asarray(a) for name, a in constrain(latents, u).items()}
    found = diagnose(sites, int(stats["diverging"].sum()), stats["energy"])
    if not found.ok:
        warnings.warn("do not believe these draws: " + "; ".join(found.problems), ConvergenceWarning, stacklevel=2)
    return Posterior(
        method="nuts",
        log_evidence=float("nan"),
        prompt=prompt,
        latents=latents,
        draws=sites,
        leaf_probabilities=leaf_probabilities(log_joint, (chains, draws)),
        sample_stats=stats,
        diagnostics=found,
        attributes={
            **{name: version(name) for name in ("bayespar", "jax", "numpyro")},
            **attributes,
            **{"chains": chains, "warmup": warmup, "draws": draws, "target_accept": target_accept},
            **{"dense_mass": settings.dense_mass, "chain_method": method},
        },
    )


def _attempt(
    latents: Latents,
    prompt: Prompt,
    settings: Settings,
    target_accept: float,
    start: Any,
    keys: Any,
    *,
    thorough: bool,
) -> Any:
    """The likelihood, draws and what happened at each; None where the likelihood cannot be worked out at the starts."""
    likelihood = Likelihood(prompt, latents.example, decode=not thorough, fallback=thorough)
    likelihood = jax.tree.map(jnp.asarray, likelihood)
    pool = ThreadPoolExecutor(max_workers=1)  # two programs are compiled at the same time
    shapes = _Shapes(likelihood)
    chain = pool.submit(_compiled, latents, shapes, settings, _device())
    pool.shutdown(wait=False)
    starts = _starts(latents, likelihood, prompt, start, len(keys))
    if starts is None:
        return None
    chain.result()
    program = partial(_compiled, latents, shapes, settings)
    return likelihood, *_run(program, settings, likelihood, (*starts, keys), target_accept)


def evaluate(
    latents: Latents, likelihood: Likelihood, u: Float[Array, "M D"]
) -> tuple[Float[np.ndarray, "M L"], Float[np.ndarray, " M"], Float[np.ndarray, "M D"]]:
    """log of the density of each point and leaf with the prompt; the potential of each point, and its gradient; nats.

    One program of a fixed size does it, so that it is compiled once for starts and draws of any number.
    """
    found = []
    for i in range(0, len(u), POINTS):
        rows = np.asarray(u[i : i + POINTS])
        spare = POINTS - len(rows)
        padded = np.concatenate([rows, np.broadcast_to(rows[-1:], (spare, rows.shape[1]))])
        found.append([np.asarray(a)[: len(rows)] for a in _evaluate(latents, likelihood, padded)])
    log_joint, potential, gradient = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return log_joint, potential, gradient


@partial(jax.jit, static_argnums=0)
def _evaluate(latents: Latents, likelihood: Likelihood, u: Float[Array, "M D"]) -> Any:
    def point(u: Float[Array, " D"]) -> Any:
        (potential, log_joint), gradient = jax.value_and_grad(_potential, argnums=2, has_aux=True)(
            latents, likelihood, u
        )
        return log_joint, potential, gradient

    return jax.lax.map(point, u)


def _potential(latents: Latents, likelihood: Likelihood, u: Float[Array, " D"]) -> tuple[Array, Array]:
    log_joint = latents.log_joint(u, likelihood)
    return -jax.nn.logsumexp(log_joint), log_joint


def _starts(latents: Latents, likelihood: Likelihood, prompt: Prompt, key: Any, chains: int) -> Any:
    """For each chain a possible point, its potential and gradient; None where a likelihood is NaN and need not be."""
    partly = likelihood.episodes is None or not likelihood.episodes.fallback
    u = np.asarray(jax.random.uniform(key, (chains * STARTS, latents.dimension), minval=-2, maxval=2))
    log_joint, *found = evaluate(latents, likelihood, u)
    if partly and np.isnan(log_joint).any():
        return None
    possible = _possible(*found).reshape(chains, STARTS)
    chosen = possible.argmax(axis=1) + STARTS * np.arange(chains)
    if not possible.any(axis=1).all():
        u = _prior_draws(latents, key)
        log_joint, *found = evaluate(latents, likelihood, u)
        if partly and np.isnan(log_joint).any():
            return None
        some = np.flatnonzero(_possible(*found))
        if not len(some):
            sites = constrain(latents, u[None, :POINTS])
            raise impossible_evidence(latents.mixture({name: np.asarray(a)[0] for name, a in sites.items()})[1], prompt)
        chosen = some[np.arange(chains) % len(some)]
    return jnp.asarray(u[chosen]), *(jnp.asarray(a[chosen]) for a in found)


def _possible(potential: Float[np.ndarray, " M"], gradient: Float[np.ndarray, "M D"]) -> np.ndarray:
    return np.isfinite(potential) & np.isfinite(gradient).all(axis=1)


def _prior_draws(latents: Latents, key: Any) -> Float[np.ndarray, "M D"]:
    if latents.observed:
        raise InvalidProgramError(
            "no point near the origin of the unconstrained coordinates can have produced the prompt, and the program "
            "has an observed site, so its prior cannot be drawn from; move the observation into the prompt"
        )
    return draw_prior(latents, jax.random.split(key, PRIOR_DRAWS)).u


def _run(program: Any, settings: Settings, likelihood: Likelihood, starts: Any, target_accept: float) -> Any:
    """Draws [chain, draw, D], and what happened at each."""
    target = jnp.asarray(target_accept)
    if settings.vectorized:
        return jax.tree.map(np.asarray, program(_device())(likelihood, target, *starts))

    def run(chain: int) -> Any:
        device = _device()
        with jax.enable_x64(True):  # a thread has settings of its own
            given = jax.device_put((likelihood, target, *(a[chain] for a in starts)), device)
            return jax.tree.map(np.asarray, program(device)(*given))

    return jax.tree.map(lambda *parts: np.stack(parts), *in_blocks(run, len(starts[0])))


def _device() -> Any:
    """Where this thread computes."""
    return cast(Any, jax.config).jax_default_device or jax.local_devices()[0]


class _Shapes:
    """The shapes of a tree of arrays, as a key of a cache."""

    def __init__(self, tree: Any):
        self.tree = jax.eval_shape(lambda tree: tree, tree)
        self.key = jax.tree.structure(tree), tuple((a.shape, a.dtype) for a in jax.tree.leaves(self.tree))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Shapes) and self.key == other.key


@lru_cache(maxsize=32)
def _compiled(latents: Latents, likelihood: _Shapes, settings: Settings, device: Any) -> Any:
    """One program for warm-up and draws. Threads that met a function not yet compiled would each compile it."""

    def some(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((settings.vectorized, *shape) if settings.vectorized else shape, np.float64)

    chain = partial(_chain, latents, settings)
    with jax.enable_x64(True), jax.default_device(device):
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), max(settings.vectorized, 1)))
        keys = keys if settings.vectorized else jax.ShapeDtypeStruct((), keys.dtype)
        starts = some(latents.dimension), some(), some(latents.dimension), keys
        target = jax.ShapeDtypeStruct((), np.float64)
        if settings.vectorized:
            return jax.jit(jax.vmap(chain, (None, None, 0, 0, 0, 0))).lower(likelihood.tree, target, *starts).compile()
        # A chain stays on its thread: sums are then the same on any number of cores, and chains don't get in each
        # other's way.
        return jax.jit(chain).lower(likelihood.tree, target, *starts).compile({"xla_cpu_multi_thread_eigen": False})


def _chain(
    latents: Latents,
    settings: Settings,
    likelihood: Likelihood,
    target_accept: Float[Array, ""],
    u: Float[Array, " D"],
    potential: Float[Array, ""],
    gradient: Float[Array, " D"],
    key: Any,
) -> tuple[Array, dict[str, Array]]:
    """One chain: its draws [draw, D], and what happened at each."""
    init, sample = hmc(lambda u: _potential(latents, likelihood, u)[0], algo="NUTS")
    state = init(
        ParamInfo(u, potential, gradient),
        settings.warmup,
        dense_mass=settings.dense_mass,
        target_accept_prob=cast(float, target_accept),
        rng_key=key,
    )

    def step(state: Any, _: None) -> Any:
        state = sample(state)
        kept = {
            "acceptance_rate": state.accept_prob,
            "diverging": state.diverging,
            "energy": state.energy,
            "lp": -state.potential_energy,
            "n_steps": state.num_steps,
            "step_size": state.adapt_state.step_size,
            "tree_depth": jnp.ceil(jnp.log2(state.num_steps + 1)).astype(jnp.int32),
        }
        return state, (state.z, kept)

    _, out = jax.lax.scan(step, state, None, settings.warmup + settings.draws)
    return jax.tree.map(lambda a: a[settings.warmup :], out)


def leaf_probabilities(
    log_joint: Float[np.ndarray, "M L"] | None, shape: tuple[int, int]
) -> Float[np.ndarray, "chain draw L"]:
    """P(leaf | point, pt), from the joint log densities of points and leaves; None stands for a single leaf."""
    if log_joint is None:
        return np.ones((*shape, 1))
    weights = np.exp(log_joint - log_joint.max(axis=1, keepdims=True))
    return (weights / weights.sum(axis=1, keepdims=True)).reshape(*shape, -1)


@partial(jax.jit, static_argnums=0)
def constrain(latents: Latents, u: Float[Array, "chain draw D"]) -> Mapping[str, Array]:
    """The sites with a density at unconstrained vectors."""
    return jax.vmap(jax.vmap(lambda u: latents.constrain(u)[0]))(u)
