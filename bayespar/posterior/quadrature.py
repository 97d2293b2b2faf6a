"""The posterior by quadrature, where one or two coordinates have a density: the oracle of the samplers.

Source: theory.md, section 8.
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ..errors import BayesparError, InvalidProgramError, TooLargeError
from ..history import Prompt, check_prompt
from ..statistics import log_normalise, log_sum_exp
from ..validation import check_count, shown
from .exact import _impossible
from .latents import Latents
from .lattice import Lattice, integrate
from .likelihood import Likelihood
from .prior import draw_prior
from .result import Posterior

MAX_DIMENSION = 2
_STARTS, _CLIMBERS = 64, 8
_FEW, _BLOCK, _BLOCK_ENTRIES = 64, 1024, 2**23


def quadrature_posterior(
    latents: Latents, prompt: Prompt, *, tolerance: Any = 1e-9, max_nodes: Any = 2**18
) -> Posterior:
    """The posterior on a lattice of nodes; finite sites are summed out exactly at each.

    Args:
        latents: the latent sites of a program; at most two unconstrained coordinates.
        prompt: what was seen.
        tolerance: the error that is aimed at.
        max_nodes: the most nodes of a lattice.

    Returns:
        ``draws`` and ``leaf_probabilities`` are those of the nodes, [1, node, ...], with their ``log_weights``.
        ``attributes["error"]`` bounds the errors of the log evidence (nats), of the probability of each leaf, and of
        the mean of each site (in its posterior standard deviations); where the density is not smooth it may stay above
        the tolerance, and a warning says so. The mean of a function that jumps, such as an expert's subgoal, is less
        accurate: the error is about the mass of the cells that the jump runs through.

    Raises:
        TooLargeError: more than two coordinates have a density, or the first lattice has more than ``max_nodes``.
        ImpossibleEvidenceError: no task of positive prior can have produced the prompt; names the episode and step.
        InvalidPromptError: the prompt does not fit the world.
        InvalidProgramError: the density is NaN or infinite somewhere.

    Source: theory.md, section 8.
    """
    check_count("max_nodes", max_nodes)
    if not (isinstance(tolerance, (int, float)) and 0 < tolerance < 1):
        raise BayesparError(f"tolerance = {shown(tolerance)}; give a number between 0 and 1")
    D = latents.dimension
    if D > MAX_DIMENSION:
        sites = ", ".join(f"{name} {list(shape)}" for name, shape in latents.shapes.items())
        raise TooLargeError(
            f"{D} coordinates have a density ({sites}), and quadrature takes at most {MAX_DIMENSION}: a lattice would "
            'have about 40^D nodes; use method="nuts" or method="smc"',
            8 * 40 ** min(D, 40) * (D + len(latents.leaves)),
        )
    check_prompt(prompt, latents.example)
    lattice = _integrate(latents, prompt, tolerance, max_nodes)
    log_evidence, error = lattice.log_integral, lattice.error
    if latents.observed:  # what the program observes belongs to the prior, not to the prompt
        blank = _integrate(latents, Prompt(), tolerance, max_nodes)
        log_evidence, error = log_evidence - blank.log_integral, error + blank.error
    if error > tolerance:
        warnings.warn(
            f"quadrature with {len(lattice.points)} nodes has an error of about {error:.2g}, more than the tolerance "
            f"{tolerance:g}; raise max_nodes = {max_nodes}, or use another method",
            RuntimeWarning,
            stacklevel=2,
        )
    return Posterior(
        method="exact",
        log_evidence=log_evidence,
        prompt=prompt,
        latents=latents,
        draws={name: value[None] for name, value in _sites(latents, lattice.points).items()},
        leaf_probabilities=lattice.shares[None],
        log_weights=log_normalise(lattice.log_density)[None],
        attributes={
            "error": float(error),
            "tolerance": float(tolerance),
            "nodes": len(lattice.points),
            "spacing": lattice.spacing.tolist(),
            "jax": jax.__version__,
        },
    )


def _integrate(latents: Latents, prompt: Prompt, tolerance: float, max_nodes: int) -> Lattice:
    """The unnormalised posterior of u, in one part a leaf."""
    family = latents.example
    likelihood = Likelihood(prompt, family)
    cost = (prompt.num_episodes + 1) * family.horizon * family.num_states * len(latents.leaves)
    block = int(min(_BLOCK, max(16, 2 ** int(math.log2(max(_BLOCK_ENTRIES / cost, 1))))))

    def density(u: Float[np.ndarray, "n D"]) -> tuple[np.ndarray, np.ndarray]:
        parts = [np.zeros((0, len(latents.leaves)))]
        with jax.enable_x64(True):
            size = block if len(u) > _FEW else min(block, _FEW)
            for start in range(0, len(u), size):
                rows = u[start : start + size]
                padded = np.concatenate([rows, np.repeat(rows[:1], size - len(rows), axis=0)])
                parts.append(np.asarray(_log_joint(latents, likelihood, padded))[: len(rows)])
        logs = np.concatenate(parts)
        bad = (np.isnan(logs) | (logs == np.inf)).any(axis=1)
        if bad.any():
            n = int(np.argmax(bad))
            place = {name: value[0].tolist() for name, value in _sites(latents, u[n : n + 1]).items()}
            raise InvalidProgramError(
                f"the density of the program is {logs[n].tolist()} (log, of each leaf) at {place}; it must be finite"
            )
        return log_sum_exp(logs), logs

    def columns(u: Float[np.ndarray, "n D"]) -> np.ndarray:
        return np.concatenate([a.reshape(len(u), -1) for a in _sites(latents, u).values()], axis=1)

    starts = _starts(latents, prompt, density)
    return integrate(density, starts, columns, tolerance=tolerance, max_nodes=max_nodes)


@partial(jax.jit, static_argnums=0)
def _log_joint(latents: Latents, likelihood: Likelihood, u: Any) -> Any:
    return jax.vmap(lambda u: latents.log_joint(u, likelihood))(u)


@partial(jax.jit, static_argnums=0)
def _constrain(latents: Latents, u: Any) -> Any:
    return jax.vmap(lambda u: latents.constrain(u)[0])(u)


def _sites(latents: Latents, u: Float[np.ndarray, "n D"]) -> dict[str, np.ndarray]:
    """The value of every site at some points; blocks of one size are compiled once."""
    rows = np.pad(u, [(0, -len(u) % _BLOCK), (0, 0)]).reshape(-1, _BLOCK, u.shape[1])
    with jax.enable_x64(True):
        blocks = [_constrain(latents, row) for row in rows]
    return {name: np.concatenate([np.asarray(b[name]) for b in blocks])[: len(u)] for name in latents.shapes}


def _starts(latents: Latents, prompt: Prompt, density: Any) -> Float[np.ndarray, "m D"]:
    """Where to climb from: the best of some draws from the prior, and a few of the others."""
    for count in (_STARTS, 16 * _STARTS):
        points = _points(latents, count)
        values = density(points)[0]
        if (values > -np.inf).any():
            best = np.argsort(-values, kind="stable")[:_CLIMBERS]
            return points[np.union1d(best, np.flatnonzero(values > -np.inf)[:_CLIMBERS])]
    some = {name: value[:_STARTS] for name, value in _sites(latents, points).items()}
    raise _impossible(latents.mixture(some)[1], prompt)


def _points(latents: Latents, count: int) -> Float[np.ndarray, "n D"]:
    """Draws from the prior; where there is no drawing, points spread about the origin."""
    if latents.observed:
        return np.random.default_rng(0).normal(0, 3, (count, latents.dimension))
    return draw_prior(latents, jax.random.split(jax.random.key(0), count)).u
