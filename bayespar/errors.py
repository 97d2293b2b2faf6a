"""The errors that bayespar raises on purpose, and nothing else."""

from __future__ import annotations


class BayesparError(ValueError):
    """Base of every error that bayespar raises on purpose."""


class InvalidWorldError(BayesparError):
    """A world, family or kernel breaks its contract; the message names the array, the index and the cure."""


class InvalidProgramError(BayesparError):
    """A program or sub-program cannot be enumerated; the message names the site or the return value."""


class InvalidPromptError(BayesparError):
    """A prompt, or an array of observations or subgoals, does not fit the family it is used with."""


class InvalidPlannerError(BayesparError):
    """A planner, policy or exploration schedule does not follow the planner protocol, or its run is set up wrongly.

    The message names the argument: who acts, the key, or how many episodes, seeds, prompts or draws.
    """


class InvalidFolderError(BayesparError):
    """A folder cannot be written to, or holds what other settings wrote; the message names the setting that differs."""


class TooLargeError(BayesparError):
    """An exact computation would not fit.

    Attributes:
        predicted_bytes: the size, in bytes, of the allocation that was refused.
    """

    def __init__(self, message: str, predicted_bytes: int):
        super().__init__(message)
        self.predicted_bytes = int(predicted_bytes)


class ImpossibleEvidenceError(BayesparError):
    """The evidence has probability zero under every task of positive prior.

    Attributes:
        episode: index of the first impossible episode; the number of finished episodes means the current one.
        step: index (from 0) of the first impossible observation within that episode.
    """

    def __init__(self, message: str, episode: int, step: int):
        super().__init__(message)
        self.episode = int(episode)
        self.step = int(step)


class ConvergenceWarning(UserWarning):
    """Draws that should not be believed as they are; the message says what is wrong with them."""
