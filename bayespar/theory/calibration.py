"""Simulation-based calibration of samplers of the posterior.

Draw a task from the prior and a prompt under it; given the prompt, the task is one more draw from the posterior. So
its rank among M independent posterior draws is uniform over 0..M, for every quantity that is ranked: each coordinate
of the sites with a density, and the log-likelihood of the prompt, which sees what coordinates cannot (a sampler that
returns the prior passes by coordinates alone). Which leaf is the true one is a draw by the leaf probabilities.

Levels are exact for any number of simulations: ranks by the inequality of Dvoretzky, Kiefer, Wolfowitz and Massart,
leaves by Bernstein's. Source: Talts et al. (2018); Modrak et al. (2023); Massart (1990).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..forward import safe_log
from ..history import Prompt
from ..planning.by_draws import subfamily
from ..posterior.drawn import generator
from ..posterior.latents import Latents
from ..posterior.likelihood import Likelihood
from ..posterior.prior import draw_prior
from ..posterior.result import Posterior
from ..validation import check_count

Sampler = Callable[[Prompt, int], Posterior]
"""A prompt and a key, to draws from its posterior."""

LOG_LIKELIHOOD = "log-likelihood"


@dataclass(frozen=True)
class Simulated:
    """A task, and a prompt under it.

    Attributes:
        sites: the value of each site with a density.
        leaf: index of the joint value of the finite sites.
        prompt: by uniform behaviour.
    """

    sites: dict[str, np.ndarray]
    leaf: int
    prompt: Prompt


@dataclass(frozen=True)
class Calibration:
    """How a sampler did.

    Attributes:
        ranks: of the true value among the draws, by quantity, [n].
        draws: M; a rank is one of 0..M.
        leaves: P(leaf | pt) by the sampler, [n, L].
        truth: the true leaf, [n].
    """

    ranks: dict[str, Int[np.ndarray, " n"]]
    draws: int
    leaves: Float[np.ndarray, "n L"]
    truth: Int[np.ndarray, " n"]

    def distance(self, quantity: str) -> float:
        """The largest distance of the distribution function of the ranks from the uniform one."""
        counts = np.bincount(self.ranks[quantity], minlength=self.draws + 1)
        uniform = np.arange(1, self.draws + 2) / (self.draws + 1)
        return float(np.abs(np.cumsum(counts) / counts.sum() - uniform).max())

    def brier(self) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
        """Sums over simulations that have mean 0 where the leaf probabilities are right, and their variances then.

        The first is that of p(z) - sum p^2 at the true leaf z, the slope of the Brier score; the others, one a leaf, of
        1{z = leaf} - p(leaf). Source: Spiegelhalter (1986), "Probabilistic prediction in patient management".
        """
        p, n = self.leaves, np.arange(len(self.truth))
        slope = p[n, self.truth] - (p**2).sum(axis=1)
        share = np.eye(p.shape[1])[self.truth] - p
        spread = (p**3).sum(axis=1) - (p**2).sum(axis=1) ** 2
        sums = np.append(slope.sum(), share.sum(axis=0))
        return sums, np.append(spread.sum(), (p * (1 - p)).sum(axis=0))

    def p_values(self) -> dict[str, float]:
        """For each quantity, a bound on the probability of looking as wrong as this for a sampler that is right."""
        n = len(self.truth)
        found = {name: min(1.0, 2 * math.exp(-2 * n * self.distance(name) ** 2)) for name in self.ranks}
        if self.leaves.shape[1] > 1:
            sums, variances = self.brier()
            bounds = [
                min(1.0, 2 * math.exp(-(s**2) / (2 * (v + abs(s) / 3)))) if s else 1.0
                for s, v in zip(np.abs(sums), variances, strict=True)
            ]
            found["leaf: Brier slope"] = bounds[0]
            found["leaf: shares"] = min(1.0, min(bounds[1:]) * len(bounds[1:]))
        return found

    def p_value(self, *quantities: str) -> float:
        """That of all quantities together, or of those named (Bonferroni)."""
        found = self.p_values()
        names = quantities or tuple(found)
        return min(1.0, len(names) * min(found[name] for name in names))


def power(distance: float, simulations: int, level: float) -> float:
    """The least probability of rejecting ranks whose distribution function is ``distance`` from uniform, at ``level``.

    Rejected is what is further off than sqrt(log(2/level) / 2n); by the same inequality the ranks seen are that close
    to their own law.
    """
    spare = distance - math.sqrt(math.log(2 / level) / (2 * simulations))
    return max(0.0, 1 - 2 * math.exp(-2 * simulations * spare**2)) if spare > 0 else 0.0


def calibrate(
    latents: Latents, sampler: Sampler, cases: Sequence[Simulated], *, draws: int = 63, key: int = 0
) -> Calibration:
    """Run a sampler on simulated prompts.

    Args:
        latents: of the program; what the sampler is measured against.
        sampler: gives draws from the posterior of a prompt, or what it takes for it.
        cases: from :func:`simulate`; their prompts are best of one size, so that everything is compiled once.
        draws: M, to rank among; thinned evenly from chains, drawn by weight from weighted points.
        key: of ties, thinning, and what the sampler is given.

    Raises:
        InvalidPlannerError: no number of draws.
    """
    check_count("draws", draws)
    rng = generator(key, 7)
    ranks: dict[str, list[int]] = {}
    leaves = []
    for case in cases:
        found = sampler(case.prompt, int(rng.integers(2**31)))
        sites, shares = _thinned(found, draws, rng)
        leaves.append(shares)
        both = {name: np.concatenate([case.sites[name][None], sites[name]]) for name in latents.shapes}
        quantities = {LOG_LIKELIHOOD: log_likelihood(latents, both, case.prompt)}
        for name, values in both.items():
            for place in np.ndindex(*values.shape[1:]):
                label = f"{name}[{', '.join(map(str, place))}]" if place else name
                quantities[label] = values[(slice(None), *place)]
        for name, values in quantities.items():
            below, equal = int((values[1:] < values[0]).sum()), int((values[1:] == values[0]).sum())
            ranks.setdefault(name, []).append(below + int(rng.integers(equal + 1)))
    truth = np.array([case.leaf for case in cases])
    return Calibration({name: np.array(r) for name, r in ranks.items()}, draws, np.array(leaves), truth)


def log_likelihood(latents: Latents, sites: dict[str, np.ndarray], prompt: Prompt) -> Float[np.ndarray, " M"]:
    """log P(prompt | theta), finite sites summed out, at many points [M, ...], nats."""
    with jax.enable_x64(True):
        return np.asarray(_log_likelihood(latents, sites, Likelihood(prompt, latents.example)))


@partial(jax.jit, static_argnums=0)
def _log_likelihood(latents: Latents, sites: Any, likelihood: Likelihood) -> Any:
    def one(point: Any) -> Any:
        log_prior, family = latents.worlds(point)
        heard = likelihood(family)
        shares = jax.nn.softmax(log_prior)
        return jax.nn.logsumexp(safe_log(shares) + heard)

    return jax.vmap(one)({name: jnp.asarray(a) for name, a in sites.items()})


def simulate(latents: Latents, rng: np.random.Generator, episodes: int, *, step: int = 0) -> Simulated:
    """A task from the prior, and a prompt under it: so many episodes and a current history of ``step`` observations.

    Behaviour is uniform; the instruction is drawn from its prior.

    Raises:
        InvalidProgramError: the program observes something, so its prior cannot be drawn from.
    """
    sites, leaf, _ = draw_prior(latents, jax.random.key(int(rng.integers(2**31))))
    family = subfamily(latents.mixture({name: a[None] for name, a in sites.items()})[1], np.array([int(leaf)]))
    kernel, H, G = family.dense_transition()[0], family.horizon, family.num_subgoals
    initial, emission = np.asarray(family.initial)[0], np.asarray(family.emission)[0]
    observations, subgoals = np.zeros((episodes + 1, H), np.int32), rng.integers(G, size=(episodes + 1, H - 1))
    for n in range(episodes + 1):
        s = pick(rng, initial)
        for h in range(H):
            observations[n, h] = pick(rng, emission[s])
            if h < H - 1:
                s = pick(rng, kernel[min(h, len(kernel) - 1), subgoals[n, h], s])
    words = np.array([pick(rng, np.asarray(family.instruction_prior)) for _ in range(episodes + 1)], np.int32)
    past = (observations[:-1], subgoals[:-1], words[:-1]) if episodes else (None, None, None)
    prompt = Prompt(*past, observations[-1, :step], subgoals[-1, : max(step - 1, 0)], words[-1])
    return Simulated(sites, int(leaf), prompt)


def pick(rng: np.random.Generator, law: Any) -> int:
    """An index drawn from a law that sums to 1 up to rounding; never one of probability 0."""
    edges = np.cumsum(np.asarray(law, np.float64))
    return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))


def _thinned(found: Posterior, count: int, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws of equal weight, [M, ...], and P(leaf | pt), [L]."""
    leaves = np.asarray(found.leaf_probabilities)
    flat = leaves.reshape(-1, leaves.shape[-1])
    if found.log_weights is None:
        index = ((np.arange(count) + rng.random()) * len(flat) / count).astype(int)
        shares = flat.mean(axis=0)
    else:
        weights = np.exp(found.log_weights).ravel()
        index = rng.choice(len(flat), size=count, p=weights / weights.sum())
        shares = weights @ flat
    assert found.draws is not None
    return {name: np.asarray(a).reshape(-1, *a.shape[2:])[index] for name, a in found.draws.items()}, shares
