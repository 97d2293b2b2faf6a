"""Bayesian inference for Planner-Actor-Reporter agents."""

from .errors import (
    ImpossibleEvidenceError as ImpossibleEvidenceError,
    InvalidPlannerError as InvalidPlannerError,
    InvalidProgramError as InvalidProgramError,
    InvalidPromptError as InvalidPromptError,
    InvalidWorldError as InvalidWorldError,
    TooLargeError as TooLargeError,
)
from .history import Prompt as Prompt
from .program import (
    available_models as available_models,
    enumerate_program as enumerate_program,
    load_model as load_model,
)
from .world import Family as Family, Sparse as Sparse, World as World
