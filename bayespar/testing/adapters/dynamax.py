"""dynamax's filter of a hidden Markov model as evidence and posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ...history import Prompt
from ...world import Family


class DynamaxRoles(NamedTuple):
    """``log_evidence(family, observations, subgoals) -> [Z, N]``, ``posterior(family, prompt) -> [Z]`` and
    ``state_posterior(family, prompt) -> [Z, S]``, all float64."""

    log_evidence: Callable[[Family, Any, Any], np.ndarray]
    posterior: Callable[[Family, Prompt], np.ndarray]
    state_posterior: Callable[[Family, Prompt], np.ndarray]


def from_dynamax(hmm_filter: Callable[..., Any] | None = None) -> DynamaxRoles:
    """Three roles from ``dynamax.hidden_markov_model.hmm_filter``, run once for each task and episode, in float64.

    Each episode is a hidden Markov model: the transition matrix of step h is that of the subgoal g_h, and the log
    likelihoods [H, S] are the logarithms of the emission probabilities of what was heard (-inf where 0). The role
    ``log_evidence`` is the filter's ``marginal_loglik``, passed on as it is. ``posterior`` adds the logarithms of the
    prior and of the evidence of all episodes and normalises over tasks. ``state_posterior`` multiplies it by the
    filter's last ``filtered_probs`` of the current episode (by the initial law before its first observation).

    Args:
        hmm_filter: a filter to take in place of dynamax's, with its first three arguments (initial law [S],
            transition matrices [h, S, S'], of which the last is unused, log likelihoods [h, S]) and the fields
            ``marginal_loglik`` and ``filtered_probs`` [h, S] in what it returns.

    Returns:
        The three roles. Where the evidence is impossible they return what the filter returns: see docs/real-bugs.md.

    Raises:
        ImportError: dynamax is missing.

    Example::

        log_evidence, posterior, state_posterior = from_dynamax()
        posterior(family, bp.Prompt(current_observations=[0, 1], current_subgoals=[1]))
    """
    if hmm_filter is None:
        try:
            from dynamax.hidden_markov_model import hmm_filter  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError("from_dynamax needs dynamax: pip install dynamax") from error
    function: Any = hmm_filter

    @jax.jit
    def run(initial: Any, transition: Any, emission: Any, observations: Any, subgoals: Any) -> tuple[Any, Any]:
        """Evidence [Z, N] and last filtered law [Z, N, S] of kernels [Z, ...] and episodes [N, h], [N, h-1]."""
        h, S = observations.shape[1], initial.shape[1]

        def one(initial: Any, kernel: Any, emission: Any, o: Any, g: Any) -> tuple[Any, Any]:
            # The filter also looks up a matrix after the last observation, and throws the prediction away.
            steps = jnp.minimum(jnp.arange(h - 1), kernel.shape[0] - 1)
            matrices = jnp.concatenate([kernel[steps, g], jnp.eye(S)[None]])
            result = function(initial, matrices, jnp.log(emission)[:, o].T)
            return result.marginal_loglik, result.filtered_probs[-1]

        episodes = jax.vmap(one, (None, None, None, 0, 0))
        return jax.vmap(episodes, (0, 0, 0, None, None))(initial, transition, emission, observations, subgoals)

    def episodes(family: Family, observations: Any, subgoals: Any) -> tuple[np.ndarray, np.ndarray]:
        Z, S = family.num_tasks, family.num_states
        observations, subgoals = np.asarray(observations), np.asarray(subgoals)
        if observations.size == 0:
            return np.zeros((Z, len(observations))), np.zeros((Z, len(observations), S))
        arrays = (np.asarray(a, np.float64) for a in (family.initial, family.dense_transition(), family.emission))
        kernels = [np.broadcast_to(a, (Z, *a.shape[1:])) for a in arrays]
        with jax.enable_x64(True):
            evidence, last = run(*kernels, observations, subgoals)
        return np.asarray(evidence), np.asarray(last)

    def log_evidence(family: Family, observations: Any, subgoals: Any) -> np.ndarray:
        return episodes(family, observations, subgoals)[0]

    def current(family: Family, prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
        if prompt.step == 0:
            shape = family.num_tasks, family.num_states
            return np.zeros(shape[0]), np.broadcast_to(np.asarray(family.initial, np.float64), shape)
        evidence, last = episodes(family, prompt.current_observations[None], prompt.current_subgoals[None])
        return evidence[:, 0], last[:, 0]

    def posterior(family: Family, prompt: Prompt) -> np.ndarray:
        past = log_evidence(family, prompt.observations, prompt.subgoals).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(np.asarray(family.task_prior, np.float64)) + past + current(family, prompt)[0]
            weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    def state_posterior(family: Family, prompt: Prompt) -> np.ndarray:
        return posterior(family, prompt)[:, None] * current(family, prompt)[1]

    return DynamaxRoles(log_evidence, posterior, state_posterior)
