"""How well each draw explains each episode."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ..errors import InvalidProgramError
from ..evidence import bucket, log_evidence
from ..statistics import log_sum_exp
from .latents import Latents
from .result import Posterior

_WORKSPACE = 2**22  # log likelihoods that are worked on at once


def episode_log_likelihood(latents: Latents, posterior: Posterior) -> Float[np.ndarray, "chain draw N"]:
    """log of sum over leaves of P(leaf | theta, pt) P(episode n | theta, leaf), nats, at every draw theta.

    Finite sites are averaged over, not drawn: the probabilities are those of all leaves given the whole prompt.

    Args:
        latents: the sites of the program.
        posterior: with draws and leaf probabilities.

    Returns:
        [chain, draw, N], one for each finished episode; -inf where an episode is impossible.

    Raises:
        InvalidProgramError: the posterior has no draws, or no prompt.

    Source: theory.md, sections 1 and 8.
    """
    prompt, draws, leaves = posterior.prompt, posterior.draws, posterior.leaf_probabilities
    if prompt is None or draws is None or leaves is None:
        raise InvalidProgramError("the posterior has no draws; use the methods of programs with a density")
    chains, count, L = leaves.shape
    N, H = prompt.observations.shape
    if N == 0:
        return np.zeros((chains, count, 0))
    rows, which = np.unique(np.concatenate([prompt.observations, prompt.subgoals], axis=1), axis=0, return_inverse=True)
    points = {name: np.asarray(values).reshape(-1, *values.shape[2:]) for name, values in draws.items()}
    with np.errstate(divide="ignore"):
        log_leaves = np.log(np.asarray(leaves)).reshape(-1, L)
    out = np.empty((chains * count, N))
    block = min(max(1, _WORKSPACE // (L * len(rows))), bucket(chains * count))
    for start in range(0, len(out), block):
        # The last block is filled up with its last draw, so that one shape is compiled.
        some = np.minimum(np.arange(start, start + block), len(out) - 1)
        _, worlds = latents.mixture({name: values[some] for name, values in points.items()})
        each = np.asarray(log_evidence(worlds, rows[:, :H], rows[:, H:])).reshape(block, L, -1)
        total = log_sum_exp(np.moveaxis(each + log_leaves[some][..., None], 1, -1))
        out[start : start + block] = total[: len(out) - start, which.reshape(-1)]
    return out.reshape(chains, count, N)
