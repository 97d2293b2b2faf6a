"""A program as an ordinary numpyro model, for inference of your own."""

from __future__ import annotations

from collections.abc import Callable

import numpyro

from ..errors import InvalidProgramError, InvalidPromptError
from ..history import Prompt, check_prompt
from ..program import Program, as_stacked
from ..world import World
from .exact import prompt_log_evidence


def numpyro_model(program: Program, prompt: Prompt) -> Callable[[], World]:
    """The program, conditioned on a prompt, with hidden states summed out exactly.

    The model samples the program's sites and adds one factor, "prompt": the log evidence of the prompt, in nats. It
    works under numpyro's handlers, with ``log_density``, and in your own MCMC, SVI and Predictive. A discrete site is
    traced there like any other, so a program that branches on it in Python needs its value to be given.

    Args:
        program: finite, continuous or mixed.
        prompt: what was seen.

    Returns:
        A numpyro model without arguments; it returns the world.

    Raises:
        InvalidProgramError: the program is none, or (when run) returns no world.
        InvalidPromptError: the prompt is none, or (when run) does not fit the world.

    Source: theory.md, C1 and section 8.
    """

    if not callable(program):
        raise InvalidProgramError(f"expected a program (a function that returns a World), got {type(program).__name__}")
    if not isinstance(prompt, Prompt):
        raise InvalidPromptError(f"expected a bayespar.Prompt, got {type(prompt).__name__}")

    def model() -> World:
        world = program()
        family = as_stacked(world)
        check_prompt(prompt, family)
        numpyro.factor("prompt", prompt_log_evidence(family, prompt)[0])
        return world

    return model
