"""Tasks with a density under test: prompts, their posteriors by every sampler, and an exact other side.

The exact side is a closed form where the world has one, else quadrature.

Source: theory.md, section 8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ..history import Prompt
from ..posterior.choose import posterior
from ..posterior.latents import Latents
from ..posterior.quadrature import MAX_DIMENSION
from ..posterior.result import Posterior
from ..statistics import log_normalise
from . import conjugate
from .calibration import simulate
from .estimates import Answer, bail_of, exactly, moments_of, predictive_of

CHAINS, DRAWS = 4, 8_000
"""So many draws put BAIL within 2 %, wherever it lies, if 19,000 of them are effective. Beside L leaves, whose
probabilities are exact at each draw, a share of 1/L of them does."""
EPISODES, PROMPTS, TRIES = 3, 1, 12
MOST_CERTAIN = 0.9  # BAIL's largest entry at a prompt on which false answers can be told from it
_FINE, _COARSE = 1e-5, 1e-1  # errors that quadrature aims at
_LIGHT = 1e-7


@dataclass(frozen=True)
class Arms:
    """The exact side of ``bernoulli_arms``: closed forms."""

    arms: int

    def bail(self, prompt: Prompt) -> Answer:
        """BAIL(g | pt), [G]."""
        return exactly(conjugate.best_arm(conjugate.arm_posterior(prompt, self.arms)))

    def certainty(self, prompt: Prompt) -> float:
        """BAIL's largest entry."""
        return float(self.bail(prompt).values.max())

    def predictive(self, prompt: Prompt) -> Answer:
        """P(o' | pt, g), [G O]."""
        return exactly(conjugate.arm_predictive(conjugate.arm_posterior(prompt, self.arms)).ravel())

    def moments(self, prompt: Prompt) -> Answer:
        """As :func:`moments_of`."""
        return exactly(
            conjugate.arm_posterior(prompt, self.arms)[:, 0] / conjugate.arm_posterior(prompt, self.arms).sum(1)
        )


@dataclass(frozen=True)
class Nodes:
    """The exact side of a program with one or two coordinates: quadrature."""

    latents: Latents
    found: dict[Any, Any] = field(default_factory=dict)

    def points(self, prompt: Prompt, tolerance: float = _FINE) -> Posterior:
        """The nodes of a lattice; remembered."""
        place = identify(prompt), tolerance
        if place not in self.found:
            self.found[place] = _heaviest(posterior(self.latents, prompt, "exact", tolerance=tolerance))
        return self.found[place]

    def bail(self, prompt: Prompt) -> Answer:
        """BAIL(g | pt), [G]; an expert's subgoal jumps between nodes, so two lattices say how much that matters."""
        place = identify(prompt), "BAIL"
        if place not in self.found:
            fine, coarse = (bail_of(self.points(prompt, t)).values for t in (_FINE, _COARSE))
            self.found[place] = exactly(fine, float(np.abs(fine - coarse).max()))
        return self.found[place]

    def certainty(self, prompt: Prompt) -> float:
        """BAIL's largest entry, about."""
        return float(bail_of(self.points(prompt, _COARSE)).values.max())

    def predictive(self, prompt: Prompt) -> Answer:
        """P(o' | pt, g), [G O]."""
        return exactly(predictive_of(self.points(prompt)).values, _FINE)

    def moments(self, prompt: Prompt) -> Answer:
        """As :func:`moments_of`."""
        return exactly(moments_of(self.points(prompt)).values, _FINE)


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


def only(prompt: Prompt, episodes: Sequence[int]) -> Prompt:
    """The prompt with some of its finished episodes only."""
    kept = list(episodes)
    past = prompt.observations[kept], prompt.subgoals[kept], prompt.instructions[kept]
    now = prompt.current_observations, prompt.current_subgoals, prompt.current_instruction
    return Prompt(*(past if kept else (None, None, None)), *now)


def identify(prompt: Prompt) -> Any:
    """What tells prompts apart."""
    return tuple((a.shape, a.tobytes()) for a in map(np.asarray, jax.tree.leaves(prompt)))


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
