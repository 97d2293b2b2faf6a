"""Planners that read and write words: the question they are asked, and what their answers mean."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..errors import InvalidPlannerError, InvalidPromptError
from ..history import Prompt
from ..validation import shown
from ..world import Family

LETTERS = string.ascii_uppercase
_TASK = (
    "You plan for someone whose way of working you can only learn from what happened before. "
    "In each episode you are told what is seen, and you name the next subgoal."
)
_CHOICES = "Which subgoal comes next?"
_ANSWER = "Answer with one letter."


def of_text(function: Callable[[str], Any], family: Family) -> Callable[[Prompt], Float[np.ndarray, " G"]]:
    """A callable from the words of a prompt as one from a :class:`Prompt`.

    Args:
        function: from :meth:`Prompt.to_text` to probabilities [G], or to a mapping from a subgoal's name to its
            probability (0 for those left out). Its attribute ``batch``, if there is one, takes many texts at once.
        family: whose words they are.
    """

    def read(answer: Any) -> Any:
        return _by_name(answer, family) if isinstance(answer, Mapping) else answer

    def ask(prompt: Prompt) -> Any:
        return read(function(prompt.to_text(family)))

    many = getattr(function, "batch", None)
    more: Any = ask
    if many is not None:
        more.batch = lambda prompts: [read(a) for a in many([p.to_text(family) for p in prompts])]
    return ask


def question(prompt: Prompt, family: Family) -> str:
    """A prompt as a question with lettered answers; :func:`read_question` reads it back.

    Raises:
        InvalidPlannerError: more subgoals than letters.
    """
    check_letters(family)
    choices = [f"{letter}) {name}" for letter, name in zip(LETTERS, family.subgoals, strict=False)]
    return "\n".join([_TASK, "", prompt.to_text(family), _CHOICES, *choices, "", _ANSWER])


def read_question(text: str, family: Family) -> Prompt:
    """The prompt of a :func:`question`.

    Raises:
        InvalidPromptError: it is none, or its choices are not the family's subgoals in their order.
    """
    start, end = text.find("\nEpisode "), text.rfind(f"\n{_CHOICES}\n")
    if start < 0 or end < start:
        raise InvalidPromptError(f"the question has no episode, or no line {_CHOICES!r} after it")
    prompt = Prompt.from_text(text[start:end], family)
    if question(prompt, family).strip() != text.strip():
        raise InvalidPromptError("the question or its lettered choices are not as learned.text.question writes them")
    return prompt


def check_letters(family: Family) -> Sequence[str]:
    """A letter for each subgoal.

    Raises:
        InvalidPlannerError: there are not so many.
    """
    if family.num_subgoals > len(LETTERS):
        raise InvalidPlannerError(f"{family.num_subgoals} subgoals cannot be lettered; at most {len(LETTERS)} can")
    return LETTERS[: family.num_subgoals]


def _by_name(answer: Mapping[Any, Any], family: Family) -> Float[np.ndarray, " G"]:
    unknown = [name for name in answer if name not in family.subgoals]
    if unknown:
        raise InvalidPlannerError(f"a planner named the subgoal {shown(unknown[0])}, which the world does not know")
    return np.array([float(answer.get(name, 0.0)) for name in family.subgoals])
