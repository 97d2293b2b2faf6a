"""HIER: the composed world has the values of the two-level one, and an Actor's error costs a bounded amount."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float

from ...actors import imitate, sample_demonstrations
from ...errors import TooLargeError
from ...low_level import TwoLevel
from ...program import enumerate_worlds
from ...simulate.low_level import rollout_low_level
from ...sparse import Sparse
from ...statistics import MeanConfidence
from ...world import Family, World
from ..bounds import actor_error
from ..claim import Claim, Settings, Subject
from ..figure import Curves, Figure, Series
from ..two_level_law import (
    Policy,
    composed,
    expert_policy,
    normalised,
    reading_policy,
    step_by_step,
    value_of,
)
from ..verdict import Outcome, TwinOutcome, all_of, closed_form, identity, inequality, not_applicable

TOLERANCE = 1e-10
DELTAS = (0.001, 0.01, 0.05)
PERTURBED_TASKS = 2  # in the quick profile
RUNS = 64  # demonstrations of each subgoal
SIMULATED = ("gridworld_errands", "ledge")
EPISODES, BATCHES = 2**17, 16


def low_levels(subject: Subject) -> list[World] | None:
    """The two-level worlds of the live tasks, or None if a task has no low level."""
    if isinstance(subject.program, Family):
        return None
    if "two_levels" not in subject.__dict__:
        subject.__dict__["two_levels"] = enumerate_worlds(subject.program)
    worlds = subject.__dict__["two_levels"]
    return None if any(world.two_level is None for world in worlds) else worlds
