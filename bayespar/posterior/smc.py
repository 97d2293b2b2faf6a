"""Placeholder."""

from __future__ import annotations

from ..history import Prompt
from .latents import Latents
from .result import Posterior


def smc_posterior(latents: Latents, prompt: Prompt) -> Posterior:
    raise NotImplementedError
