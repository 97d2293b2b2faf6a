"""The exact posterior over finitely many tasks."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float

from ..arrays import Array, precision_of
from ..errors import ImpossibleEvidenceError
from ..evidence import log_evidence, prefix_log_evidence
from ..filtering import Filter
from ..history import Prompt, check_prompt
from ..program import Program, as_family
from ..statistics import log_normalise, log_sum_exp
from ..world import Family
from .result import Posterior


def exact_posterior(family: Family, prompt: Prompt) -> Posterior:
    """P(z | pt) of every task, proportional to P_Z(z) prod_i L_z(tau^i) L_z(tau_h).

    Raises:
        ImpossibleEvidenceError, InvalidPromptError: as :func:`exact_posterior`.

    Source: theory.md, C1.
    """
    check_prompt(prompt, family)
    episodes = np.asarray(_episodes(family, prompt))
    log_joint = _log_prior(family) + episodes.sum(axis=1, dtype=np.float64) + _current(family, prompt)
    total = log_sum_exp(log_joint)
    if total == -np.inf:
        raise _impossible(family, prompt)
    return Posterior(
        method="exact",
        log_evidence=float(total),
        prompt=prompt,
        family=family,
        log_probabilities=log_joint - total,
        episode_log_evidence=episodes,
        attributes={"jax": jax.__version__, "dtype": str(family.dtype)},
    )


def posterior_path(family_or_program: Family | Program, prompt: Prompt) -> Float[np.ndarray, "P Z"]:
    """P(z | pt) after every observation of a prompt, in one pass.

    Returns:
        Probabilities [1 + N H + h, Z]: the prior first, then one row for each observation in order.

    Raises:
        ImpossibleEvidenceError, InvalidPromptError: as :func:`exact_posterior`.

    Source: theory.md, C1 and C3.
    """
    family = as_family(family_or_program)
    check_prompt(prompt, family)
    log_path = _log_joint_path(family, prompt)
    if (log_sum_exp(log_path) == -np.inf).any():
        raise _impossible(family, prompt)
    return np.exp(log_normalise(log_path))


def state_posterior(family_or_program: Family | Program, prompt: Prompt) -> Float[np.ndarray, "Z S"]:
    """P(z, s | pt), jointly over tasks and the hidden state at the last observation.

    Returns:
        [Z, S], sums to 1. Before the first observation of an episode, the state is the one it will start in.

    Raises:
        ImpossibleEvidenceError, InvalidPromptError: as :func:`exact_posterior`.

    Source: theory.md, section 1.
    """
    family = as_family(family_or_program)
    return exact_posterior(family, prompt).probabilities[:, None] * state_posterior_by_task(family, prompt)


def state_posterior_by_task(family: Family, prompt: Prompt) -> Float[np.ndarray, "Z S"]:
    """P_z(s | tau_h): each task's belief over the hidden state, [Z, S]; zeros where tau is impossible under z."""
    if prompt.step == 0:
        return np.array(np.broadcast_to(family.initial, (family.num_tasks, family.num_states)), np.float64)
    o, g = prompt.current_observations, prompt.current_subgoals
    with precision_of(family):
        tracker = Filter(family)
        forward = tracker.start(o[0])
        for h in range(prompt.step - 1):
            forward = tracker.advance(forward, h, g[h], o[h + 1])
        weights = np.asarray(tracker.weights(forward), np.float64)
    total = weights.sum(axis=1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


def prompt_log_evidence(family: Family, prompt: Prompt) -> Float[Array, " Z"]:
    """log L_z of a whole prompt, nats, [Z]; works under a trace.

    Source: theory.md, section 1.
    """
    total = _episodes(family, prompt).sum(axis=1)
    return total + _current(family, prompt) if prompt.step else total


def _log_prior(family: Family) -> Float[np.ndarray, " Z"]:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(family.task_prior, np.float64))


def _episodes(family: Family, prompt: Prompt) -> Float[Array, "Z N"]:
    if prompt.num_episodes == 0:
        return np.zeros((family.num_tasks, 0))
    return log_evidence(family, prompt.observations, prompt.subgoals)


def _padded_current(family: Family, prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
    """The current episode, padded to a whole one; prefixes do not depend on what follows them."""
    observations, subgoals = np.zeros((1, family.horizon), np.int32), np.zeros((1, family.horizon - 1), np.int32)
    observations[0, : prompt.step] = prompt.current_observations
    subgoals[0, : max(prompt.step - 1, 0)] = prompt.current_subgoals
    return observations, subgoals


def _current(family: Family, prompt: Prompt) -> Float[Array, " Z"]:
    """log L_z of the current episode so far; 0 before its first observation."""
    if prompt.step == 0:
        return np.zeros(family.num_tasks)
    return prefix_log_evidence(family, *_padded_current(family, prompt))[:, 0, prompt.step - 1]


def _log_joint_path(family: Family, prompt: Prompt) -> Float[np.ndarray, "P Z"]:
    """log P_Z(z) + log evidence so far, after every observation."""
    rows = [_log_prior(family)[None]]
    if prompt.num_episodes:
        prefixes = np.asarray(prefix_log_evidence(family, prompt.observations, prompt.subgoals), np.float64)
        before = np.cumsum(prefixes[:, :, -1], axis=1)
        before = rows[0][0][:, None] + np.concatenate([np.zeros((family.num_tasks, 1)), before], axis=1)
        rows.append((before[:, :-1, None] + prefixes).reshape(family.num_tasks, -1).T)
    if prompt.step:
        last = rows[-1][-1]
        prefixes = np.asarray(prefix_log_evidence(family, *_padded_current(family, prompt)), np.float64)
        rows.append(last + prefixes[:, 0, : prompt.step].T)
    return np.concatenate(rows)


def _impossible(family: Family, prompt: Prompt) -> ImpossibleEvidenceError:
    path = log_sum_exp(_log_joint_path(family, prompt))
    first = int(np.argmax(path == -np.inf)) - 1
    episode, step = divmod(first, family.horizon)
    current = episode >= prompt.num_episodes
    observation = prompt.current_observations[step] if current else prompt.observations[episode, step]
    return ImpossibleEvidenceError(
        f"episode {episode}{' (the current one)' if current else ''}, step {step} (both from 0): observation "
        f"{family.observations[int(observation)]!r} has probability 0 under every task of positive prior, given what "
        "came before; check the order of observations and subgoals, or give the world a kernel that allows it",
        episode,
        step,
    )
