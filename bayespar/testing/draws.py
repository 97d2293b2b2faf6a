"""Tasks and prompts drawn from a family: simulation that shares no code with :mod:`bayespar.simulate`."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from ..history import Prompt
from ..planning.bail import expert_actions
from ..planning.expert import Experts, solve_experts
from ..posterior.exact import prompt_log_evidence
from ..world import Family


class Draws(NamedTuple):
    """Independent draws of a task and a prompt.

    Attributes:
        tasks: z ~ P_Z, [n].
        prompts: n prompts under those tasks, subgoals drawn uniformly.
    """

    tasks: Int[np.ndarray, " n"]
    prompts: list[Prompt]


class Simulation:
    """A world to draw from.

    Attributes:
        family: the world.
    """

    def __init__(self, family: Family):
        self.family = family
        self._labels: dict[Any, int] = {}

    @cached_property
    def _experts(self) -> Experts:
        return solve_experts(self.family)

    def label(self, task: Any, prompt: Prompt) -> int:
        """What the expert of ``task`` does at the end of ``prompt``."""
        key = task, prompt.current_instruction, tuple(prompt.current_observations), tuple(prompt.current_subgoals)
        if key not in self._labels:
            now = Prompt(None, None, None, prompt.current_observations, prompt.current_subgoals, key[1])
            self._labels[key] = int(expert_actions(self.family, self._experts, now)[task])
        return self._labels[key]

    def log_evidence(self, prompt: Prompt) -> np.ndarray:
        """log L_z(pt) of every task, nats, [Z]."""
        return np.asarray(prompt_log_evidence(self.family, prompt), np.float64)

    def prompts(self, rng: np.random.Generator, count: int, *, episodes: int, decision: bool = False) -> Draws:
        """Draw ``count`` tasks and prompts with 0..``episodes`` finished episodes and 0..H current observations.

        Args:
            rng: source of randomness.
            count: n.
            episodes: the most finished episodes.
            decision: end every prompt where a subgoal is to be chosen, after 1..H-1 observations.
        """
        family = self.family
        tasks = _pick(np.broadcast_to(family.task_prior, (count, family.num_tasks)), rng)
        lengths = rng.integers(0, episodes + 1, count)
        steps = rng.integers(1, family.horizon, count) if decision else rng.integers(0, family.horizon + 1, count)
        played = [draw_episodes(family, rng, tasks) for _ in range(episodes + 1)]
        instructions, observations, subgoals = (np.stack(a, axis=1) for a in zip(*played, strict=True))
        prompts = [
            Prompt(
                observations[i, :n] if n else None,
                subgoals[i, :n] if n else None,
                instructions[i, :n] if n else None,
                observations[i, n, :h],
                subgoals[i, n, : max(h - 1, 0)],
                int(instructions[i, n]),
            )
            for i, (n, h) in enumerate(zip(lengths, steps, strict=True))
        ]
        return Draws(tasks, prompts)


def draw_episodes(
    family: Family, rng: np.random.Generator, tasks: Int[np.ndarray, " n"]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One episode under each of ``tasks``: instructions [n], observations [n, H], subgoals [n, H-1], these uniform."""
    n, H = len(tasks), family.horizon
    kernel = family.dense_transition()
    rows = [np.minimum(tasks, len(a) - 1) for a in (family.initial, kernel, family.emission)]
    instructions = _pick(np.broadcast_to(family.instruction_prior, (n, family.num_instructions)), rng)
    subgoals = rng.integers(0, family.num_subgoals, (n, H - 1))
    observations = np.zeros((n, H), np.int32)
    states = _pick(family.initial[rows[0]], rng)
    for h in range(H):
        if h:
            states = _pick(kernel[rows[1], min(h - 1, kernel.shape[1] - 1), subgoals[:, h - 1], states], rng)
        observations[:, h] = _pick(family.emission[rows[2], states], rng)
    return instructions, observations, subgoals.astype(np.int32)


def _pick(rows: Any, rng: np.random.Generator) -> np.ndarray:
    """One outcome from each row of probabilities, by inversion; never one of probability 0."""
    ends = np.cumsum(np.asarray(rows, np.float64), axis=1)
    return (rng.random((len(rows), 1)) * ends[:, -1:] >= ends).sum(axis=1).astype(np.int32)
