"""A function of words as a planner or a posterior: what wraps an LLM."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ...history import Prompt
from ...world import Family

Answer = Mapping[str, float] | Sequence[float] | np.ndarray | str


def from_words(answer: Callable[[str], Answer], about: str = "subgoals") -> Callable[[Family, Prompt], np.ndarray]:
    """The role of a planner, or of a posterior, from a function that reads the prompt as text.

    Args:
        answer: takes the text of the prompt (that of ``Prompt.to_text``: episodes of ``Instruction: ``,
            ``Observation: `` and ``Subgoal: `` lines) and returns one of

            * a mapping from words to probabilities; a word that is left out has probability 0;
            * a sequence of probabilities in the order of the family's words, [G] or [Z];
            * one word, which gets probability 1.
        about: what the answer is about: "subgoals" makes a planner, "tasks" a posterior.

    Returns:
        ``planner(family, prompt) -> [G]`` or ``posterior(family, prompt) -> [Z]``, float64. Nothing is normalised or
        repaired: whether the probabilities sum to 1 is for the checks to see.

    Raises:
        ValueError: ``about`` is neither; or, when called, the answer has a word that the family does not know, or
            another number of entries than the family has words.

    Example::

        def model(text):
            return {"look in the kitchen": 0.7, "look in the pantry": 0.3}

        planner = from_words(model)
    """
    if about not in ("subgoals", "tasks"):
        raise ValueError(f'about = {about!r}; say "subgoals" (a planner) or "tasks" (a posterior)')

    def role(family: Family, prompt: Prompt) -> np.ndarray:
        names = family.subgoals if about == "subgoals" else family.tasks
        said: Any = answer(prompt.to_text(family))
        if isinstance(said, str):
            said = {said: 1.0}
        if not isinstance(said, Mapping):
            values = np.asarray(said, np.float64)
            if values.shape != (len(names),):
                raise ValueError(f"the answer has shape {list(values.shape)}, but there are {len(names)} {about}")
            return values
        for word in said:
            if word not in names:
                raise ValueError(f"the answer has {word!r}, but the {about} are {', '.join(map(repr, names[:8]))}")
        return np.array([said.get(name, 0.0) for name in names], np.float64)

    return role
