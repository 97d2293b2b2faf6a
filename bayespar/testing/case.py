"""What is tested: the roles that a function may have, and the cases that it is called on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..history import Prompt
from ..world import Family
from .oracle import Oracle, as_tuple

ROLES = ("posterior", "state_posterior", "next_observation", "planner", "log_evidence")
"""Functions that are checked one prompt at a time:

========================  ======================================================  =============================
role                      call                                                    returns
========================  ======================================================  =============================
``posterior``             ``f(family, prompt)``                                   P(z | pt), [Z]
``state_posterior``       ``f(family, prompt)``                                   P(z, s | pt), [Z, S]
``next_observation``      ``f(family, prompt, subgoal)``                          P(o' | pt, g), [O]
``planner``               ``f(family, prompt)``                                   BAIL(g | pt), [G]
``log_evidence``          ``f(family, observations [N, H], subgoals [N, H-1])``   log L_z of each, nats, [Z, N]
========================  ======================================================  =============================

A function says that a prompt is impossible under every task by raising an error or returning NaN.
"""


@dataclass(frozen=True)
class Case:
    """One call: a world, a prompt, and a number from which a check takes whatever else it has to choose.

    Attributes:
        family: the world.
        prompt: what was seen.
        choice: 0, 1, 2, ...; a check says what it makes of it.
    """

    family: Family
    prompt: Prompt
    choice: int = 0

    @property
    def subgoal(self) -> int:
        """The subgoal whose next observation is asked for."""
        return self.choice % self.family.num_subgoals

    def __repr__(self) -> str:
        return f"family = {self.family!r}\nprompt = {self.prompt!r}\nchoice = {self.choice}"


@dataclass(frozen=True)
class Estimator:
    """A user's function in one of the :data:`ROLES`.

    Attributes:
        role: its role.
        function: what the user gave.
    """

    role: str
    function: Callable[..., Any]

    def __call__(self, case: Case) -> np.ndarray:
        """The function's answer, as float64.

        Raises:
            AnswerError: the function raised an error, or its answer has another shape than the role asks for.
        """
        family, prompt = case.family, case.prompt
        arguments: tuple[Any, ...] = (prompt,)
        if self.role == "log_evidence":
            arguments = prompt.observations, prompt.subgoals
        elif self.role == "next_observation":
            arguments = prompt, case.subgoal
        try:
            array = np.asarray(self.function(family, *arguments), np.float64)
        except Exception as error:  # whatever it is, it is the function's answer to this case
            raise AnswerError(f"the function raised {type(error).__name__}: {error}") from error
        Z = family.num_tasks
        shape = {
            "posterior": (Z,),
            "state_posterior": (Z, family.num_states),
            "next_observation": (family.num_observations,),
            "planner": (family.num_subgoals,),
            "log_evidence": (Z, prompt.num_episodes),
        }[self.role]
        if array.shape != shape:
            raise AnswerError(f"the function returned shape {list(array.shape)}; a {self.role} is {list(shape)} here")
        return array


class AnswerError(Exception):
    """A function under test raised an error, or returned no array of the shape that its role asks for."""


def truth(role: str, case: Case, oracle: type[Oracle] = Oracle) -> np.ndarray:
    """What a function in ``role`` must return, by enumeration.

    Raises:
        ZeroDivisionError: the prompt is impossible under every task.
    """
    exact, prompt = oracle(case.family), as_tuple(case.prompt)
    if role == "log_evidence":
        rows = [[exact.log(exact.likelihood(z, o, g)) for _, o, g in prompt[0]] for z in range(case.family.num_tasks)]
        return np.array(rows)
    if role == "next_observation":
        answer = exact.next_observation(prompt, case.subgoal)
    else:
        answer = {
            "posterior": exact.posterior,
            "state_posterior": exact.state_posterior,
            "planner": exact.bail,
        }[role](prompt)
    return np.asarray(answer, np.float64)


def with_episodes(prompt: Prompt, kept: slice) -> Prompt:
    """``prompt`` with some of its finished episodes only."""
    o, g, w = (a[kept] for a in (prompt.observations, prompt.subgoals, prompt.instructions))
    some = len(o) > 0
    return Prompt(
        o if some else None,
        g if some else None,
        w if some else None,
        prompt.current_observations,
        prompt.current_subgoals,
        prompt.current_instruction,
    )


def without_current(prompt: Prompt) -> Prompt:
    """``prompt`` without its current episode."""
    some = prompt.num_episodes > 0
    past = (prompt.observations, prompt.subgoals, prompt.instructions) if some else (None, None, None)
    return Prompt(*past, current_instruction=prompt.current_instruction)


def rebuilt(family: Family, **changes: Any) -> Family:
    """``family`` with some arrays replaced; names are the default ones."""
    arrays = {
        name: changes.get(name, getattr(family, name))
        for name in ("task_prior", "initial", "transition", "emission", "reward")
    }
    return Family(
        *arrays.values(),
        horizon=changes.get("horizon", family.horizon),
        instruction_prior=changes.get("instruction_prior", family.instruction_prior),
    )
