"""Closed forms of the two conjugate worlds: arms with a Beta prior, and transition rows with a Dirichlet prior.

Plain numpy and scipy on the indices in a prompt: the independent other side of every posterior that is sampled or
integrated. The current history counts too. ``bernoulli_arms`` shows 0 (ready), then 1 (won) or 2 (lost);
``dirichlet_world(accuracy=1)`` shows the state itself.

Source: theory.md, section 8; DeGroot (1970), "Optimal Statistical Decisions", chapter 9.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.special import betaln, gammaln
from scipy.stats import beta as beta_law

from ..history import Prompt

_WON, _LOST = 1, 2


def arm_posterior(prompt: Prompt, arms: int) -> Float[np.ndarray, "arms 2"]:
    """The Beta(a, b) posterior of each arm of ``bernoulli_arms``: a = 1 + wins, b = 1 + losses."""
    counts = np.ones((arms, 2))
    for _, arm, after in _transitions(prompt):
        counts[arm, {_WON: 0, _LOST: 1}[after]] += 1
    return counts


def arms_log_evidence(prompt: Prompt, arms: int) -> float:
    """log P_D(o || g) of a prompt of ``bernoulli_arms``, nats."""
    return float(betaln(*arm_posterior(prompt, arms).T).sum())  # the prior's B(1, 1) is 1


def best_arm(posterior: Float[np.ndarray, "arms 2"]) -> Float[np.ndarray, " arms"]:
    """P(arm g is the best) = int f_g prod_{k != g} F_k, for independent Beta posteriors; BAIL of ``bernoulli_arms``."""
    laws: list[Any] = [beta_law(a, b) for a, b in posterior]
    # Panels of a standard deviation, and of more and more beyond twelve; the integrand is a polynomial.
    far = np.append(np.arange(13), 12 * 2.0 ** np.arange(1, 20))
    edges = np.concatenate([law.mean() + law.std() * np.append(far, -far) for law in laws])
    edges = np.unique(np.clip(np.append(edges, [0.0, 1.0]), 0, 1))
    nodes, weights = np.polynomial.legendre.leggauss(32)
    half = np.diff(edges)[:, None] / 2
    x, dx = edges[:-1, None] + half * (1 + nodes), half * weights
    below = [law.cdf(x) for law in laws]
    return np.array(
        [
            (law.pdf(x) * np.prod([other for k, other in enumerate(below) if k != g], axis=0) * dx).sum()
            for g, law in enumerate(laws)
        ]
    )


def arm_predictive(posterior: Float[np.ndarray, "arms 2"]) -> Float[np.ndarray, "arms 3"]:
    """The law of what is seen after each arm is pulled: (ready, won, lost)."""
    wins = posterior[:, 0] / posterior.sum(axis=1)
    return np.stack([np.zeros_like(wins), wins, 1 - wins], axis=1)


def row_posterior(prompt: Prompt, states: int, subgoals: int) -> Float[np.ndarray, "G S S"]:
    """The concentration of each Dirichlet row of ``dirichlet_world(accuracy=1)``: 1 + transitions seen."""
    counts = np.ones((subgoals, states, states))
    for before, subgoal, after in _transitions(prompt):
        counts[subgoal, before, after] += 1
    return counts


def rows_log_evidence(prompt: Prompt, states: int, subgoals: int) -> float:
    """log P_D(o || g) of a prompt of ``dirichlet_world(accuracy=1)``, nats; episodes start anywhere, uniformly."""
    after, before = row_posterior(prompt, states, subgoals), np.ones((subgoals, states, states))
    episodes = prompt.num_episodes + (prompt.step > 0)
    return float(_log_beta(after).sum() - _log_beta(before).sum() - episodes * np.log(states))


def row_predictive(concentration: Float[np.ndarray, "G S S"]) -> Float[np.ndarray, "G S S"]:
    """P(s' | s, g, pt): the posterior mean of each row."""
    return concentration / concentration.sum(axis=-1, keepdims=True)


def _log_beta(concentration: Float[np.ndarray, "*rows S"]) -> Float[np.ndarray, "*rows"]:
    return gammaln(concentration).sum(axis=-1) - gammaln(concentration.sum(axis=-1))


def _transitions(prompt: Prompt) -> list[tuple[int, int, int]]:
    """(observation, subgoal, next observation), one by one."""
    rows = [(*episode,) for episode in zip(prompt.observations.tolist(), prompt.subgoals.tolist(), strict=True)]
    rows.append((prompt.current_observations.tolist(), prompt.current_subgoals.tolist()))
    return [step for seen, chosen in rows for step in zip(seen, chosen, seen[1:], strict=False)]
