"""NUTS on the sites with a density; hidden states and finite sites are summed out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.metadata import version
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from numpyro.infer.hmc import hmc
from numpyro.infer.util import ParamInfo

from ..arrays import Array
from ..distributed import divide, in_blocks
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
_NOWHERE = 1e300  # the potential before the first start, in nats
_UNDEFINED = 1e299  # stands for NaN: no move goes there, but it is better than nowhere


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
        attempt = partial(_attempt, latents, prompt, settings, target_accept, key, chains)
        # First without what is seldom needed and long to compile; where it is needed, the density is NaN, which shows
        # as a divergence.
        likelihood, u, stats = attempt(thorough=False) or attempt(thorough=True)
        if likelihood.episodes is not None and not likelihood.episodes.fallback and stats["diverging"].any():
            likelihood, u, stats = attempt(thorough=True)
        rows = u.reshape(chains * draws, -1)
        log_joint = evaluate(latents, likelihood, rows) if len(latents.leaves) > 1 else None
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
    key: Any,
    chains: int,
    *,
    thorough: bool,
) -> Any:
    """The likelihood, draws and what happened at each; None where the likelihood cannot be worked out at the starts."""
    likelihood = Likelihood(prompt, latents.example, decode=not thorough, fallback=thorough)
    run = partial(_run, latents, settings, likelihood, np.float64(target_accept), key)
    partly = likelihood.episodes is None or not likelihood.episodes.fallback
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    u, stats, undefined = run(rng.uniform(-2, 2, (chains, STARTS, latents.dimension)))
    if partly and undefined.any():
        return None
    if not _started(stats):
        drawn = _prior_draws(latents, key)
        log_joint = evaluate(latents, likelihood, drawn)
        if partly and np.isnan(log_joint).any():
            return None
        possible = drawn[log_joint.max(axis=1) > -np.inf]
        if len(possible):
            rows = possible[np.arange(chains * STARTS) % len(possible)]
            u, stats, _ = run(rows.reshape(chains, STARTS, -1))
        if not len(possible) or not _started(stats):
            sites = constrain(latents, drawn[None, :POINTS])
            family = latents.mixture({name: np.asarray(a)[0] for name, a in sites.items()})[1]
            raise impossible_evidence(family, prompt)
    return likelihood, u, stats


def _started(stats: Mapping[str, np.ndarray]) -> bool:
    """Whether every chain found a point to start from."""
    return bool((stats["lp"] > -_UNDEFINED).all())


def evaluate(latents: Latents, likelihood: Likelihood, u: Float[Array, "M D"]) -> Float[np.ndarray, "M L"]:
    """log of the density of each point and leaf with the prompt, nats.

    One program of a fixed size does it, so that it is compiled once for any number.
    """
    rows = np.asarray(u)[np.minimum(np.arange(len(u) + -len(u) % POINTS), len(u) - 1)]
    parts = [np.asarray(_evaluate(latents, likelihood, part)) for part in np.split(rows, len(rows) // POINTS)]
    return np.concatenate(parts)[: len(u)]


@partial(jax.jit, static_argnums=0)
def _evaluate(latents: Latents, likelihood: Likelihood, u: Float[Array, "M D"]) -> Any:
    return jax.lax.map(lambda u: latents.log_joint(u, likelihood), u)


def _prior_draws(latents: Latents, key: Any) -> Float[np.ndarray, "M D"]:
    if latents.observed:
        raise InvalidProgramError(
            "no point near the origin of the unconstrained coordinates can have produced the prompt, and the program "
            "has an observed site, so its prior cannot be drawn from; move the observation into the prompt"
        )
    return draw_prior(latents, jax.random.split(key, PRIOR_DRAWS)).u


def _run(
    latents: Latents, settings: Settings, likelihood: Likelihood, target_accept: Any, key: Any, points: Any
) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Draws [chain, draw, D], what happened at each, and whether a start of each chain was undefined."""
    program, shared = partial(_compiled, latents, _Shapes(likelihood), settings), (likelihood, target_accept, key)
    chains = np.arange(len(points), dtype=np.int32)
    home = _device()
    if settings.vectorized:
        return jax.tree.map(np.asarray, program(home)(*shared, chains, points))

    def run(device: Any, chain: int) -> Any:
        with jax.enable_x64(True):  # a thread has settings of its own
            given = jax.device_put((*shared, chains[chain], points[chain]), device)
            return jax.tree.map(np.asarray, program(device)(*given))

    if home.platform != "cpu":
        found = in_blocks(lambda chain: run(_device(), chain), len(points))
    else:  # several devices would be the same cores, and each would have the program compiled anew
        program(home)

        def on_cores(mine: Sequence[int]) -> list[Any]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return list(pool.map(partial(run, home), mine))

        found = divide(on_cores, len(points))
    return jax.tree.map(lambda *parts: np.stack(parts), *found)


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

    with jax.enable_x64(True), jax.default_device(device):
        target, key = jax.ShapeDtypeStruct((), np.float64), jax.eval_shape(lambda: jax.random.key(0))
        given = (likelihood.tree, target, key)
        each = [((), np.int32), ((STARTS, latents.dimension), np.float64)]
        chain = partial(_chain, latents, settings)
        if settings.vectorized:
            many = [jax.ShapeDtypeStruct((settings.vectorized, *shape), dtype) for shape, dtype in each]
            return jax.jit(jax.vmap(chain, (None, None, None, 0, 0))).lower(*given, *many).compile()
        # A chain stays on its thread: sums are then the same on any number of cores, and chains don't get in each
        # other's way.
        one = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in each]
        return jax.jit(chain).lower(*given, *one).compile({"xla_cpu_multi_thread_eigen": False})


def _chain(
    latents: Latents,
    settings: Settings,
    likelihood: Likelihood,
    target_accept: Float[Array, ""],
    key: Any,
    chain: Int[Array, ""],
    points: Float[Array, "starts D"],
) -> tuple[Array, dict[str, Array], Bool[Array, ""]]:
    """One chain: its draws [draw, D], what happened at each, and whether the density is NaN at one of the points.

    Each point is tried by a transition without length, from nowhere; the first where density and gradient are finite
    is the start. So they are compiled once, inside the loop.
    """

    def raw(u: Float[Array, " D"]) -> Float[Array, ""]:
        return -jax.nn.logsumexp(latents.log_joint(u, likelihood))

    @jax.custom_vjp
    def potential(u: Float[Array, " D"]) -> Float[Array, ""]:
        return with_gradient(u)[0]

    def with_gradient(u: Float[Array, " D"]) -> tuple[Array, Array]:
        value, gradient = jax.value_and_grad(raw)(u)
        undefined = jnp.isnan(value)  # its gradient is NaN too, which would hide it
        return jnp.where(undefined, _UNDEFINED, value), jnp.where(undefined, 0, gradient)

    potential.defvjp(with_gradient, lambda gradient, cotangent: (cotangent * gradient,))
    init, sample = hmc(potential, algo="NUTS")
    nowhere = jnp.asarray(_NOWHERE), jnp.zeros_like(points[0])
    state = init(
        ParamInfo(points[0], *nowhere),
        settings.warmup,
        dense_mass=settings.dense_mass,
        target_accept_prob=cast(float, target_accept),
        rng_key=jax.random.fold_in(key, chain),
    )
    tuned = state.adapt_state
    still = tuned._replace(step_size=0 * tuned.step_size, mass_matrix_sqrt=0 * tuned.mass_matrix_sqrt)

    def step(carry: tuple[Any, Array], i: Int[Array, ""]) -> Any:
        state, undefined = carry
        trial = i < STARTS
        there = state._replace(z=points[i], potential_energy=nowhere[0], z_grad=nowhere[1], adapt_state=still)
        after = sample(_where(trial, there, state))
        lost = after.potential_energy == _UNDEFINED
        first = (after.potential_energy < _UNDEFINED) & jnp.isfinite(after.z_grad).all()
        first &= state.potential_energy >= _UNDEFINED
        start = state._replace(z=after.z, potential_energy=after.potential_energy, z_grad=after.z_grad)
        state = _where(trial, _where(first, start, state), after)
        kept = {
            "acceptance_rate": state.accept_prob,
            "diverging": state.diverging,
            "energy": state.energy,
            "lp": -state.potential_energy,
            "n_steps": state.num_steps,
            "step_size": state.adapt_state.step_size,
            "tree_depth": jnp.ceil(jnp.log2(state.num_steps + 1)).astype(jnp.int32),
        }
        return (state, undefined | (trial & lost)), (state.z, kept)

    length = STARTS + settings.warmup + settings.draws
    (_, undefined), out = jax.lax.scan(step, (state, jnp.asarray(False)), jnp.arange(length))
    u, kept = jax.tree.map(lambda a: a[-settings.draws :], out)
    return u, kept, undefined


def _where(condition: Array, yes: Any, no: Any) -> Any:
    return jax.tree.map(partial(jnp.where, condition), yes, no)


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
