"""Regret against a bound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float

from ...planning.expert import Experts, solve_experts
from ...program import Program, as_family
from ...simulate.regret import simulate_regret
from ...world import Family
from ..draws import Simulation


@dataclass(frozen=True)
class Loop:
    """A planner that acts online in the world of one task, and what its regret may be.

    Attributes:
        planner: anything that :func:`bayespar.simulate_regret` takes.
        world: a Family, or a finite program.
        task: the true task.
        episodes: T.
        bound: on Reg_z(T), in units of reward.
        exploration, exploration_policy: as for :func:`bayespar.simulate_regret`.
    """

    planner: Any
    world: Family | Program
    task: int | str
    episodes: int
    bound: float
    exploration: Any = 0.0
    exploration_policy: Any = "uniform"

    @cached_property
    def family(self) -> Family:
        """The world."""
        return as_family(self.world)

    @cached_property
    def experts(self) -> Experts:
        """Its experts."""
        return solve_experts(self.family)


def regret(loop: Loop, world: Simulation | None, rng: np.random.Generator, count: int) -> Float[np.ndarray, "n 1"]:
    """The expected regret of T episodes is at most the bound.

    The statistic of a run is (its regret - bound) / (the largest regret possible); its mean must not be above 0.

    Catches: a planner that does not learn from episode to episode, or explores too little or too much.
    Blind to: whatever costs less than the distance from the regret to the bound.
    Cost: T episodes a draw.
    """
    curves = simulate_regret(
        loop.family,
        loop.task,
        loop.planner,
        loop.exploration,
        loop.episodes,
        count,
        loop.exploration_policy,
        key=int(rng.integers(2**31)),
        experts=loop.experts,
    )
    low, high = curves.total_range(loop.episodes)
    scale = max(high - loop.bound, loop.bound - low)
    return (curves.cumulative[:, -1:] - loop.bound) / scale
