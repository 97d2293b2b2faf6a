"""The probability of a whole prompt, as a function of the world: what a sampler evaluates again and again.

Equal episodes are kept once, with their number. The current history is one more episode whose later observations are
unseen: an unseen observation has probability 1 in every state, and predictions sum to 1, so it changes nothing.

Source: theory.md, section 1 (causal likelihood).
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array
from ..evidence import bucket
from ..forward import log_kernels, log_space_prefixes
from ..history import Prompt
from ..world import Family


class Likelihood(eqx.Module):
    """log L_z of a prompt, of any family of its shape.

    Attributes:
        observations: [R, H]; O where nothing was seen.
        subgoals: [R, H-1].
        counts: how often each row was seen, [R]; 0 for padding, so that growing prompts keep their shapes.
    """

    observations: Int[Array, "R H"]
    subgoals: Int[Array, "R Hm1"]
    counts: Float[Array, " R"]

    def __init__(self, prompt: Prompt, family: Family):
        """``family`` says the sizes; the prompt has been checked against it."""
        H, unseen = family.horizon, family.num_observations
        rows = np.concatenate([prompt.observations, prompt.subgoals], axis=1).reshape(-1, 2 * H - 1)
        rows, counts = np.unique(rows, axis=0, return_counts=True)
        if prompt.step:
            now = np.zeros((1, 2 * H - 1), rows.dtype)
            now[0, :H] = unseen
            now[0, : prompt.step] = prompt.current_observations
            now[0, H : H + max(prompt.step - 1, 0)] = prompt.current_subgoals
            rows, counts = np.concatenate([rows, now]), np.append(counts, 1)
        spare = bucket(max(len(rows), 1)) - len(rows)
        rows = np.pad(rows, [(0, spare), (0, 0)]).astype(np.int32)
        rows[len(rows) - spare :, :H] = unseen
        self.observations, self.subgoals = rows[:, :H], rows[:, H:]
        self.counts = np.pad(counts, (0, spare)).astype(np.float64)

    def __call__(self, family: Family) -> Float[Array, " Z"]:
        """log L_z, nats, [Z]. Traceable and differentiable."""
        log_initial, log_transition, log_emission = log_kernels(family)
        log_emission = jnp.pad(log_emission, [(0, 0), (0, 0), (0, 1)])
        prefixes = log_space_prefixes(
            family.num_tasks, log_initial, log_transition, log_emission, self.observations, self.subgoals
        )
        episodes = prefixes[:, :, -1]
        return jnp.where(self.counts > 0, self.counts * episodes, 0).sum(axis=1)
