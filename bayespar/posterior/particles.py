"""A streaming posterior: particles over the sites with a density, fed whole episodes.

Iterated batch importance sampling. Every particle carries the joint probability of each leaf and of all that was seen,
so finite sites and hidden states are summed out exactly and an episode costs one forward pass a particle. When the
effective sample size of the weights falls below a threshold, particles are resampled and then moved by a Markov kernel
that leaves the posterior so far invariant. Such a move reads the whole past, but is needed at geometrically rarer times
only, and equal episodes are counted once: the cost per episode, averaged over a run, stays bounded.

blackjax gives the systematic resampling, the effective sample size, the bisection and Hamiltonian Monte Carlo; its own
SMC samplers temper a likelihood that is fixed, with weights that start out equal. Ours is what they lack: data that
keep coming, weights kept from one episode to the next, leaves, and schedules shared by several systems.

Several independent systems of particles, the *chains*, run side by side. The first one sets the schedule: when to
resample, how far to temper, the scales of the moves. Given that schedule the others are ordinary particle filters with
fixed kernels, so each of their evidence estimates is unbiased; the first one's own has a bias of order 1/particles.

Source: Chopin (2002); tempering within a batch: Del Moral, Doucet and Jasra (2006); unbiasedness: Del Moral (2004).
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..arrays import Array
from ..errors import ImpossibleEvidenceError, InvalidProgramError, InvalidPromptError
from ..forward import log_sum
from ..history import Prompt, check_prompt
from ..keys import as_key
from ..validation import check_count, check_fraction
from ..world import Family
from .latents import Latents
from .likelihood import Likelihood
from .prior import draw_prior

_LEAPFROGS = 4
_LONGEST_STEP = 0.6  # in standard deviations: four of them turn a Gaussian by 2.4 of the pi that would undo a move
_ACCEPTED = 0.85  # the share of moves that step sizes are steered to
_MOST_STAGES = 500


@dataclass(frozen=True)
class Particles:
    """The state of :class:`SMC`.

    Attributes:
        u: points, as unconstrained vectors, [chain, particle, D].
        log_joint: log of the density of u and each leaf, times the probability of all that was seen, nats,
            [chain, particle, L].
        log_weights: nats, [chain, particle]; exponentials sum to 1 in every chain.
        log_evidence: estimates of log P_D(o || g), nats, [chain].
        seen: everything observed so far.
        key: of all randomness to come, with ``generation``.
        generation: how often the particles were resampled and moved.
        step_size: of the next moves, in standard deviations.
        acceptance: mean acceptance probability of the last moves; NaN before the first.
        decode: whether states are read off observations; not where a particle has a world in which they cannot be.
    """

    u: Float[Array, "chain particle D"]
    log_joint: Float[Array, "chain particle L"]
    log_weights: Float[Array, "chain particle"]
    log_evidence: Float[Array, " chain"]
    seen: Prompt
    key: Any
    generation: int = 0
    step_size: float = _LONGEST_STEP
    acceptance: float = float("nan")
    decode: bool = True

    @property
    def ess(self) -> Float[np.ndarray, " chain"]:
        """Effective sample size of the weights of each chain, in particles."""
        return 1 / np.exp(2 * np.asarray(self.log_weights)).sum(axis=1)

    @property
    def leaf_probabilities(self) -> Float[np.ndarray, "chain particle L"]:
        """P(leaf | point, seen), exact; zeros for a particle that is impossible, and so of weight 0."""
        joint = np.asarray(self.log_joint)
        top = joint.max(axis=-1, keepdims=True)
        mass = np.exp(joint - np.where(np.isfinite(top), top, 0))
        total = mass.sum(axis=-1, keepdims=True)
        return mass / np.where(total > 0, total, 1)


@dataclass(frozen=True)
class SMC:
    """A streaming posterior as pure functions: ``init`` once, then ``observe`` for every episode.

    Attributes:
        latents: from :func:`find_latents`.
        particles: in each chain.
        chains: independent systems.
        threshold: particles are moved when their effective sample size falls below this share of them.
        moves: Hamiltonian moves of each particle after a resampling.
    """

    latents: Latents
    particles: int = 1024
    chains: int = 4
    threshold: float = 0.5
    moves: int = 3

    def __post_init__(self):
        """
        Raises:
            InvalidPlannerError: no number of particles, chains or moves, or a threshold outside (0, 1).
        """
        for name in ("particles", "chains", "moves"):
            check_count(name, getattr(self, name))
        check_fraction("threshold", self.threshold)
        # To import blackjax starts JAX's backends and makes arrays: not when bayespar is imported, nor under a trace.
        importlib.import_module("blackjax")

    def init(self, key: Any) -> Particles:
        """Particles from the prior, all of the same weight.

        Raises:
            InvalidProgramError: the program observes something itself, so its prior cannot be drawn from.
        """
        shape = self.chains, self.particles
        with jax.enable_x64(True):
            start, run = jax.random.split(as_key(key))
            u = jnp.asarray(draw_prior(self.latents, jax.random.split(start, shape)).u)
            log_joint = _log_prior(self.latents, u)
            weights = jnp.full(shape, -np.log(self.particles), jnp.float64)
            return Particles(u, log_joint, weights, jnp.zeros(self.chains), Prompt(), run)

    def observe(self, state: Particles, episodes: Prompt) -> Particles:
        """The particles after more episodes, one or many.

        Where one step would leave too few effective particles, the episodes are tempered: their likelihood enters to a
        power that grows to 1, with moves in between.

        Args:
            state: from :meth:`init` or :meth:`observe`.
            episodes: finished episodes; a current history may be among them, and is then the last that can be seen.

        Raises:
            InvalidPromptError: the episodes do not fit the program, or a current history was seen before.
            ImpossibleEvidenceError: no particle can have produced the episodes; names the episode and step.
            InvalidProgramError: a likelihood is NaN.
        """
        latents, family = self.latents, self.latents.example
        check_prompt(episodes, family)
        if state.seen.step:
            raise InvalidPromptError("a current history was observed before, and nothing can follow it")
        if not episodes.num_episodes and not episodes.step:
            return state
        block, past, share = Likelihood(episodes, family, decode=state.decode), None, np.float64(0)
        base = state.log_joint
        with jax.enable_x64(True):
            heard = _weigh(latents, state.u, block)
            if state.decode and np.isnan(heard).any():
                return self.observe(replace(state, decode=False), episodes)
            for _ in range(_MOST_STAGES):
                share, weights, log_evidence, verdict = _bridge(
                    base, heard, state.log_weights, state.log_evidence, share, self.threshold
                )
                undefined, dead, enough = np.asarray(verdict).tolist()
                if undefined:
                    raise InvalidProgramError(
                        "the likelihood of a particle is NaN: there are values of the sites whose world is none"
                    )
                if dead:
                    raise self._impossible(state, episodes)
                state = replace(state, log_weights=weights, log_evidence=log_evidence)
                if enough:
                    seen = _joined(state.seen, episodes)
                    return replace(state, log_joint=_at(base, heard, 1.0), seen=seen)
                past = roomy(Likelihood(state.seen, family, decode=state.decode), family) if past is None else past
                state, base, heard = self._move(state, past, block, share)
        raise InvalidPromptError(
            f"the evidence is so strong that {_MOST_STAGES} tempered steps of {self.particles} particles do not reach "
            "it; use more particles, or a lower threshold"
        )

    def rejuvenate(self, state: Particles) -> Particles:
        """The particles resampled to equal weights and moved; copies of one particle lie side by side."""
        family = self.latents.example
        with jax.enable_x64(True):
            nothing, seen = (Likelihood(p, family, decode=state.decode) for p in (Prompt(), state.seen))
            state, base, heard = self._move(state, nothing, seen, np.float64(1))
            return replace(state, log_joint=_at(base, heard, 1.0))

    def _move(self, state: Particles, past: Likelihood, block: Likelihood, share: Any) -> tuple[Particles, Any, Any]:
        """Resampled and moved at past times block^share; with log_joint of the past, and the block's likelihood."""
        key = jax.random.fold_in(state.key, state.generation)
        u, base, heard, accepted = _moved(
            self.latents, self.moves, past, block, share, state.u, state.log_weights, key, state.step_size
        )
        rate = float(accepted)
        moved = replace(
            state,
            u=u,
            log_weights=jnp.full(state.log_weights.shape, -np.log(self.particles), jnp.float64),
            generation=state.generation + 1,
            step_size=min(_LONGEST_STEP, state.step_size * float(np.exp(2 * (rate - _ACCEPTED)))),
            acceptance=rate,
        )
        return moved, base, heard

    def _impossible(self, state: Particles, episodes: Prompt) -> ImpossibleEvidenceError:
        """Which observation no particle explains."""
        family, log_joint = self.latents.example, np.asarray(state.log_joint)
        before = state.seen.num_episodes

        def dies(prompt: Prompt) -> bool:
            with jax.enable_x64(True):
                block = Likelihood(prompt, family, decode=state.decode)
                after = log_joint + np.asarray(_weigh(self.latents, state.u, block))
            return bool((after.max(axis=(1, 2)) == -np.inf).any())

        def first(n: int) -> Prompt:
            return Prompt(episodes.observations[:n], episodes.subgoals[:n])

        low, high = 0, episodes.num_episodes  # the first `low` episodes are possible
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (low, middle - 1) if dies(first(middle)) else (middle, high)
        whole = low < episodes.num_episodes
        o = episodes.observations[low] if whole else episodes.current_observations
        g = episodes.subgoals[low] if whole else episodes.current_subgoals
        past = first(low)
        step = next(
            (h for h in range(len(o)) if dies(Prompt(past.observations, past.subgoals, None, o[: h + 1], g[:h]))),
            len(o) - 1,
        )
        return ImpossibleEvidenceError(
            f"episode {before + low}{'' if whole else ' (the current one)'}, step {step} (both from 0): observation "
            f"{family.observations[int(o[step])]!r} has probability 0 under every one of {self.particles} particles, "
            "given what came before; check the order of observations and subgoals, or use more particles",
            before + low,
            step,
        )


def roomy(likelihood: Likelihood, family: Family) -> Likelihood:
    """The same with room for more episodes, up to the next power of 4: a growing past compiles moves anew but rarely.

    Where states are read off observations there is nothing to do: the size is fixed.
    """
    rows = likelihood.episodes
    if rows is None:
        return likelihood
    size = len(rows.counts)
    more = (1 << 2 * -(-(size - 1).bit_length() // 2)) - size
    if size + more > rows.block:
        more += -(size + more) % rows.block
    fill = family.num_observations, family.num_subgoals, 0
    padded = [
        np.concatenate([a, np.full((more, *a.shape[1:]), value, a.dtype)])
        for a, value in zip((rows.observations, rows.subgoals, rows.counts), fill, strict=True)
    ]
    return eqx.tree_at(lambda x: (x.episodes.observations, x.episodes.subgoals, x.episodes.counts), likelihood, padded)


def _joined(first: Prompt, then: Prompt) -> Prompt:
    if not first.num_episodes:
        return then
    past = first.observations, first.subgoals, first.instructions
    if then.num_episodes:
        more = then.observations, then.subgoals, then.instructions
        past = [np.concatenate(pair) for pair in zip(past, more, strict=True)]
    now = then.current_observations, then.current_subgoals, then.current_instruction
    return Prompt(past[0], past[1], past[2], *now)


def _at(base: Array, heard: Array, share: Any) -> Array:
    """log joint of each leaf where the likelihood ``heard`` counts to a power; 0^0 = 1."""
    return base + jnp.where(share > 0, share, 1) * jnp.where(share > 0, heard, 0)


@partial(jax.jit, static_argnums=0)
def _log_prior(latents: Latents, u: Array) -> Array:
    """log of the prior density of each particle and leaf, nats, [chain, particle, L]."""

    def one(u: Array) -> Array:
        sites, log_jacobian = latents.constrain(u)
        return latents.worlds(sites)[0] + log_jacobian

    return jax.vmap(jax.vmap(one))(u)


@partial(jax.jit, static_argnums=0)
def _weigh(latents: Latents, u: Array, block: Likelihood) -> Array:
    """log L of a block of episodes under each leaf of each particle, nats, [chain, particle, L]."""
    return jax.vmap(jax.vmap(lambda u: block(latents.worlds(latents.constrain(u)[0])[1])))(u)


@jax.jit
def _bridge(
    base: Array, heard: Array, log_weights: Array, log_evidence: Array, share: Any, threshold: Any
) -> tuple[Any, Array, Array, Array]:
    """As far towards the whole of ``heard`` as the first chain's effective sample size allows.

    Returns:
        the power reached, log weights, log evidence, and whether (a likelihood is NaN, a chain is dead, the power is 1
        with enough effective particles).
    """
    from blackjax.smc.ess import log_ess
    from blackjax.smc.solver import dichotomy

    before = log_sum(_at(base, heard, share), 2)
    alive = before > -jnp.inf

    def weigh(power: Any) -> Array:
        after = log_sum(_at(base, heard, power), 2)
        return log_weights + jnp.where(alive, after - jnp.where(alive, before, 0), -jnp.inf)

    def log_effective(power: Any) -> Any:
        return log_ess(weigh(power)[0])

    share = jnp.asarray(share, base.dtype)
    # Particles that cannot have produced what was heard are lost at any power, however small.
    possible = jnp.where(log_sum(heard + jnp.where(base > -jnp.inf, 0, -jnp.inf), 2) > -jnp.inf, log_weights, -jnp.inf)
    most = log_ess(jnp.where(alive, possible, -jnp.inf)[0])
    wanted = jnp.log(threshold * base.shape[1])
    enough = log_effective(1.0) >= wanted
    target = jnp.where(most > wanted + 0.01, wanted, most + jnp.log(threshold))
    lowest = share + 1e-9 * (1 - share)
    found = dichotomy(lambda power: log_effective(power) - target, lowest, jnp.ones_like(share))
    power = jnp.where(enough, 1.0, jnp.where(jnp.isfinite(found), found, lowest))
    weights = weigh(power)
    total = jax.nn.logsumexp(weights, axis=1)
    dead = (total == -jnp.inf).any()
    weights = weights - jnp.where(jnp.isfinite(total), total, 0)[:, None]
    return power, weights, log_evidence + total, jnp.stack([jnp.isnan(heard).any(), dead, enough])


@partial(jax.jit, static_argnums=(0, 1))
def _moved(
    latents: Latents,
    moves: int,
    past: Likelihood,
    block: Likelihood,
    share: Any,
    u: Array,
    log_weights: Array,
    key: Any,
    step_size: Any,
) -> tuple[Array, Array, Array, Any]:
    """Particles resampled and moved, the two parts of their log joint, and how many moves were accepted."""
    from blackjax.mcmc import hmc
    from blackjax.smc.resampling import systematic

    chains, particles, dimension = u.shape
    covariance = _covariance(u[0], jnp.exp(log_weights[0]))
    resample, move = jax.random.split(key)
    weights = jnp.exp(log_weights)
    kept = jax.vmap(lambda k, w: systematic(k, w / w.sum(), particles))(jax.random.split(resample, chains), weights)
    u = jnp.take_along_axis(u, kept[:, :, None], 1)
    kernel: Any = hmc.build_kernel()

    def parts(u: Array) -> tuple[Array, Array]:
        sites, log_jacobian = latents.constrain(u)
        log_prior, family = latents.worlds(sites)
        return log_prior + log_jacobian + past(family), block(family)

    def log_density(u: Array) -> Array:
        return log_sum(_at(*parts(u), share), 0)

    def one(state: hmc.HMCState, key: Any, first: Any) -> tuple[hmc.HMCState, Any]:
        jitter, run = jax.random.split(key)
        step = step_size * jax.random.uniform(jitter, minval=0.3)  # no fixed length of path resonates
        step, leapfrogs = jnp.where(first, 0, step), jnp.where(first, 1, _LEAPFROGS)
        state, info = kernel(run, state, log_density, step, covariance, leapfrogs)
        return state, info.acceptance_rate

    def step(states: hmc.HMCState, item: Any) -> tuple[hmc.HMCState, Any]:
        keys, first = item
        states, rates = jax.vmap(one, in_axes=(0, 0, None))(states, keys, first)
        return states, rates[:particles].mean()

    flat = u.reshape(-1, dimension)
    # The first move has length 0 and is always accepted: it finds the density and its gradient where each particle is,
    # so that they are compiled once, inside the loop.
    start: Any = flat, jnp.full(len(flat), -jnp.inf, flat.dtype), jnp.zeros_like(flat)
    items = jax.random.split(move, (moves + 1, len(flat))), jnp.arange(moves + 1) == 0
    states, rates = jax.lax.scan(step, hmc.HMCState(*start), items)
    u, rates = jnp.asarray(states.position), rates[1:]
    base, heard = jax.vmap(parts)(u)
    shape = chains, particles, -1
    return u.reshape(shape), base.reshape(shape), heard.reshape(shape), rates.mean()


def _covariance(u: Float[Array, "particle D"], weights: Float[Array, " particle"]) -> Float[Array, "D D"]:
    """Of the particles, drawn a little towards its diagonal so that few particles give a regular one."""
    centred = u - weights @ u
    full = (weights[:, None] * centred).T @ centred
    diagonal = jnp.diag(jnp.diag(full))
    effective = 1 / (weights**2).sum()
    toward = u.shape[1] / (u.shape[1] + effective)
    return (1 - toward) * full + toward * diagonal + 1e-12 * jnp.eye(u.shape[1])


@partial(jax.jit, static_argnums=0)
def constrain(latents: Latents, u: Array) -> dict[str, Array]:
    """The sites at unconstrained vectors [chain, particle, D]."""
    return jax.vmap(jax.vmap(lambda u: latents.constrain(u)[0]))(u)
