"""Tasks with a density under test: prompts, their posteriors by every sampler, and an exact other side.

The exact side is a closed form where the world has one, else quadrature.

Source: theory.md, section 8.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from arviz_stats.base.array import array_stats
from jaxtyping import Float

from ..history import Prompt
from ..planning.bawm import bawm
from ..planning.by_draws import Mixture, bail_by_draws, mixture_of
from ..posterior.choose import posterior
from ..posterior.exact import state_posterior_by_task
from ..posterior.latents import Latents
from ..posterior.quadrature import MAX_DIMENSION
from ..posterior.result import Posterior
from ..statistics import log_normalise
from ..world import Family
from . import conjugate
from .calibration import simulate

CHAINS, DRAWS = 4, 6_000
"""So many draws put BAIL within 2 %, wherever it lies, if 19,000 of them are effective. Beside L leaves, whose
probabilities are exact at each draw, a share of 1/L of them does."""
EPISODES, PROMPTS, TRIES = 3, 2, 12
MOST_CERTAIN = 0.9  # BAIL's largest entry at a prompt on which false answers can be told from it
_FINE, _COARSE = 1e-5, 1e-1  # errors that quadrature aims at
_LIGHT = 1e-7


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


@dataclass(frozen=True)
class Arms:
    """The exact side of ``bernoulli_arms``: closed forms."""

    arms: int

    def bail(self, prompt: Prompt) -> Answer:
        """BAIL(g | pt), [G]."""
        return _exact(conjugate.best_arm(conjugate.arm_posterior(prompt, self.arms)))

    def certainty(self, prompt: Prompt) -> float:
        """BAIL's largest entry."""
        return float(self.bail(prompt).values.max())

    def predictive(self, prompt: Prompt) -> Answer:
        """P(o' | pt, g), [G O]."""
        return _exact(conjugate.arm_predictive(conjugate.arm_posterior(prompt, self.arms)).ravel())

    def moments(self, prompt: Prompt) -> Answer:
        """As :func:`moments_of`."""
        return _exact(
            conjugate.arm_posterior(prompt, self.arms)[:, 0] / conjugate.arm_posterior(prompt, self.arms).sum(1)
        )


@dataclass(frozen=True)
class Nodes:
    """The exact side of a program with one or two coordinates: quadrature."""

    latents: Latents
    found: dict[Any, Posterior] = field(default_factory=dict)

    def points(self, prompt: Prompt, tolerance: float = _FINE) -> Posterior:
        """The nodes of a lattice; remembered."""
        place = identify(prompt), tolerance
        if place not in self.found:
            self.found[place] = _heaviest(posterior(self.latents, prompt, "exact", tolerance=tolerance))
        return self.found[place]

    def bail(self, prompt: Prompt) -> Answer:
        """BAIL(g | pt), [G]; an expert's subgoal jumps between nodes, so two lattices say how much that matters."""
        fine, coarse = (bail_of(self.points(prompt, t)).values for t in (_FINE, _COARSE))
        return dataclasses.replace(_exact(fine), slack=float(np.abs(fine - coarse).max()))

    def certainty(self, prompt: Prompt) -> float:
        """BAIL's largest entry, about."""
        return float(bail_of(self.points(prompt, _COARSE)).values.max())

    def predictive(self, prompt: Prompt) -> Answer:
        """P(o' | pt, g), [G O]."""
        return dataclasses.replace(_exact(predictive_of(self.points(prompt)).values), slack=_FINE)

    def moments(self, prompt: Prompt) -> Answer:
        """As :func:`moments_of`."""
        return dataclasses.replace(_exact(moments_of(self.points(prompt)).values), slack=_FINE)


def exact_side(latents: Latents) -> Arms | Nodes | None:
    """The exact side of a program, if there is one."""
    family = latents.example
    if list(latents.shapes) == ["wins"] and list(family.observations) == ["ready", "won", "lost"]:
        return Arms(family.num_subgoals)
    return Nodes(latents) if latents.dimension <= MAX_DIMENSION else None


class Continuous:
    """A program with a density under test.

    Attributes:
        latents: its sites.
        exact: its exact side, or None.
        prompts: some prompts of the corpus, by uniform behaviour, at the first decision of an episode, on which experts
            disagree; none where they never do.
        draws: of each chain.
    """

    def __init__(self, latents: Latents, key: int):
        self.latents, self.key = latents, key
        self.exact = exact_side(latents)
        self.draws = DRAWS // len(latents.leaves)
        self.prompts: list[Prompt] = []
        self._found: dict[Any, Posterior] = {}
        rng = np.random.default_rng([key, 8])
        for _ in range(TRIES if self.exact is not None and latents.example.horizon > 1 else 0):
            prompt = simulate(latents, rng, EPISODES, step=1).prompt
            if self.exact is not None and self.exact.certainty(prompt) <= MOST_CERTAIN:
                self.prompts.append(prompt)
            if len(self.prompts) == PROMPTS:
                break

    def posterior(self, method: str, prompt: Prompt) -> Posterior:
        """The posterior by a sampler; remembered."""
        place = method, identify(prompt)
        if place not in self._found:
            sizes = {"nuts": {"draws": self.draws}, "smc": {"particles": self.draws}}[method]
            key = self.key + 1000 * len(self._found)
            self._found[place] = posterior(self.latents, prompt, method, key=key, chains=CHAINS, **sizes)
        return self._found[place]


def shorter(prompt: Prompt, episodes: int) -> Prompt:
    """The prompt with its first ``episodes`` finished episodes only."""
    past = prompt.observations[:episodes], prompt.subgoals[:episodes], prompt.instructions[:episodes]
    now = prompt.current_observations, prompt.current_subgoals, prompt.current_instruction
    return Prompt(*(past if episodes else (None, None, None)), *now)


def identify(prompt: Prompt) -> Any:
    """What tells prompts apart."""
    return tuple((a.shape, a.tobytes()) for a in map(np.asarray, jax.tree.leaves(prompt)))


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
        return _exact(values)
    return Answer(x.mean(axis=(0, 1)), _errors(x, False))


def _heaviest(points: Posterior) -> Posterior:
    """The points without the lightest, whose share is 1e-7 in all: each point left is a world to be solved."""
    assert points.draws is not None
    assert points.log_weights is not None
    assert points.leaf_probabilities is not None
    order = np.argsort(points.log_weights[0])
    kept = np.sort(order[np.cumsum(np.exp(points.log_weights[0][order])) > _LIGHT])
    left = points.log_weights[:, kept]
    return dataclasses.replace(
        points,
        draws={name: a[:, kept] for name, a in points.draws.items()},
        leaf_probabilities=points.leaf_probabilities[:, kept],
        log_weights=log_normalise(left),
    )


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


def _exact(values: Float[np.ndarray, " K"]) -> Answer:
    return Answer(values, np.zeros(len(values)))


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
