"""What points of a posterior say, with their Monte Carlo errors: BAIL, the next observation, and moments.

Source: theory.md, section 8.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from arviz_stats.base.array import array_stats
from jaxtyping import Float

from ..history import Prompt
from ..planning.bawm import bawm
from ..planning.by_draws import Mixture, bail_by_draws, mixture_of
from ..posterior.exact import state_posterior_by_task
from ..posterior.latents import Latents
from ..posterior.result import Posterior
from ..world import Family


@dataclass(frozen=True)
class Answer:
    """Numbers, and how far off they may be.

    Attributes:
        values: [K].
        errors: standard errors of an estimate, [K]; 0 for what is exact.
        slack: by how much numerics may be off, the same for all.
    """

    values: Float[np.ndarray, " K"]
    errors: Float[np.ndarray, " K"]
    slack: float = 0.0


def bail_of(points: Posterior) -> Answer:
    """BAIL by the points of a posterior, [G]."""
    found = bail_by_draws(_latents(points), points.prompt or Prompt(), posterior=points, draws=_count(points))
    return Answer(found.probabilities, np.nan_to_num(found.standard_errors))


def predictive_of(points: Posterior) -> Answer:
    """P(o' | pt, g) by the points of a posterior, [G O]: the law under each leaf of each point, averaged."""
    mixture = mixture_of(points, _count(points))
    laws = _laws(mixture.family, points.prompt or Prompt())
    return Answer(mixture.weights @ laws, _errors(_by_point(mixture, laws), mixture.weighted))


def world_model_gap(points: Posterior, draws: int) -> float:
    """The largest difference between the world model of some points and the laws of the same, averaged."""
    latents, prompt = _latents(points), points.prompt or Prompt()
    model, mixture = bawm(latents, prompt, posterior=points, draws=draws), mixture_of(points, draws)
    said = np.concatenate([model.next_observation(g) for g in range(latents.example.num_subgoals)])
    return float(np.abs(said - mixture.weights @ _laws(mixture.family, prompt)).max())


def _laws(family: Family, prompt: Prompt) -> Float[np.ndarray, "Z K"]:
    """The law of the next observation of each task after each subgoal, one after the other, [Z, G O]."""
    kernel, emission = family.dense_transition(), np.asarray(family.emission)
    kernel = kernel[:, min(prompt.step - 1, kernel.shape[1] - 1)]
    Z, S = family.num_tasks, family.num_states
    belief = state_posterior_by_task(family, prompt)
    after = np.einsum("zs,zgst->zgt", belief, np.broadcast_to(kernel, (Z, *kernel.shape[1:])))
    return (after @ np.broadcast_to(emission, (Z, S, emission.shape[2]))).reshape(Z, -1)


def moments_of(points: Posterior) -> Answer:
    """P(leaf | pt) of every leaf, where there are several, and the mean of every coordinate of every site, [K]."""
    leaves = np.asarray(points.leaf_probabilities)
    columns = [np.asarray(a).reshape(*leaves.shape[:2], -1) for a in (points.draws or {}).values()]
    x = np.concatenate([*([leaves] if leaves.shape[2] > 1 else []), *columns], axis=2)
    if points.log_weights is not None:
        values = np.tensordot(np.exp(points.log_weights), x, 2)
        return exactly(values)
    return Answer(x.mean(axis=(0, 1)), _errors(x, False))


def _by_point(mixture: Mixture, values: Float[np.ndarray, "Z K"]) -> Float[np.ndarray, "chain draw K"]:
    """The mean under each point, of what is known of each of its leaves."""
    out = np.zeros((*mixture.shape, values.shape[1]))
    share = mixture.weights[:, None] * (mixture.shape[0] * mixture.shape[1])
    np.add.at(out, (mixture.chain, mixture.draw), share * values)
    return out


def _errors(x: Float[np.ndarray, "chain draw K"], weighted: bool) -> Float[np.ndarray, " K"]:
    """Monte Carlo standard errors of the means; 0 where all points agree."""
    constant = np.ptp(x, axis=(0, 1)) <= 1e-12
    if weighted:
        return np.zeros(x.shape[2])
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(constant, 0.0, array_stats.mcse(np.moveaxis(x, -1, 0), method="mean"))


def exactly(values: Float[np.ndarray, " K"], slack: float = 0.0) -> Answer:
    """An answer without Monte Carlo error."""
    return Answer(values, np.zeros(len(values)), slack)


def tilted(points: Posterior, log_weights: Float[np.ndarray, "chain draw L"]) -> tuple[Posterior, float]:
    """A posterior as it would be with more evidence, and by how much its standard errors grow.

    Args:
        points: draws of equal weight.
        log_weights: log-likelihood of that evidence under each leaf of each draw, nats.
    """
    joint = np.asarray(points.leaf_probabilities) * np.exp(log_weights)
    weights = joint.sum(axis=2)
    share = weights / weights.sum()
    leaves = joint / weights[..., None]
    more = dataclasses.replace(points, leaf_probabilities=leaves, log_weights=np.log(share))
    return more, float(np.sqrt(share.size * (share**2).sum()))


def _latents(points: Posterior) -> Latents:
    assert points.latents is not None
    return points.latents


def _count(points: Posterior) -> int:
    assert points.leaf_probabilities is not None
    return int(np.prod(points.leaf_probabilities.shape[:2]))
