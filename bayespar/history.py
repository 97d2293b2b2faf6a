"""Prompts: what the Planner has seen, as index arrays, as words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jax.core import Tracer
from jaxtyping import Int

from .arrays import Array, is_traced
from .errors import InvalidPromptError
from .literal import LARGEST_SHOWN, call, nested, summary
from .validation import NO_ARRAY, shown
from .world import Family, check_family


class Prompt(eqx.Module):
    """pt = (finished episodes with their instructions, the current instruction, the current history).

    An empty prompt is ``Prompt()``. A prompt holds no expert label and no reward.

    Attributes:
        observations: finished episodes, [N, H].
        subgoals: [N, H-1].
        instructions: [N].
        current_observations: o_1..o_h of the current episode, [h]; h = 0 before its first observation.
        current_subgoals: g_1..g_{h-1}, [h-1].
        current_instruction: index w.

    Source: theory.md, section 1.
    """

    observations: Int[Array, "N H"]
    subgoals: Int[Array, "N Hm1"]
    instructions: Int[Array, " N"]
    current_observations: Int[Array, " h"]
    current_subgoals: Int[Array, " hm1"]
    current_instruction: int | Int[Array, ""]

    def __init__(
        self,
        observations: Any = None,
        subgoals: Any = None,
        instructions: Any = None,
        current_observations: Any = (),
        current_subgoals: Any = (),
        current_instruction: Any = 0,
    ):
        """
        Raises:
            InvalidPromptError: an array is not made of integers, or their shapes do not fit together.
        """
        self.current_observations = as_indices("current_observations", current_observations, 1)
        self.current_subgoals = as_indices("current_subgoals", current_subgoals, 1)
        h = self.current_observations.shape[0]
        if self.current_subgoals.shape[0] != max(h - 1, 0):
            raise InvalidPromptError(
                f"current_observations has {h} entries and current_subgoals {self.current_subgoals.shape[0]}; "
                "h observations go with h-1 subgoals: the next subgoal is the Planner's to choose"
            )
        if observations is None:
            if subgoals is not None or (instructions is not None and as_indices("instructions", instructions, 1).size):
                raise InvalidPromptError("subgoals or instructions are given without observations; give all or none")
            observations, subgoals = np.zeros((0, 0), np.int32), np.zeros((0, 0), np.int32)
        observations = as_indices("observations", observations, 2)
        if subgoals is None:
            if observations.shape[1] > 1:
                raise InvalidPromptError("observations are given without subgoals; give subgoals [N, H-1]")
            subgoals = np.zeros((observations.shape[0], 0), np.int32)
        self.observations = observations
        self.subgoals = as_indices("subgoals", subgoals, 2)
        N, H = self.observations.shape
        if self.subgoals.shape != (N, max(H - 1, 0)):
            raise InvalidPromptError(
                f"observations has shape [{N}, {H}], so subgoals must be [{N}, {max(H - 1, 0)}]; "
                f"it is {list(self.subgoals.shape)}"
            )
        self.instructions = (
            np.zeros(N, np.int32) if instructions is None else as_indices("instructions", instructions, 1)
        )
        if self.instructions.shape != (N,):
            raise InvalidPromptError(f"there are {N} finished episodes but {self.instructions.shape[0]} instructions")
        self.current_instruction = as_indices("current_instruction", current_instruction, 0)
        if not is_traced(self.current_instruction):
            self.current_instruction = int(self.current_instruction)

    def __repr__(self) -> str:
        """The source that builds this prompt, where it is small."""
        arrays = self.observations, self.subgoals, self.instructions, self.current_observations, self.current_subgoals
        if not all(isinstance(a, np.ndarray) for a in arrays) or isinstance(self.current_instruction, Tracer):
            return super().__repr__()
        if sum(a.size for a in arrays) > LARGEST_SHOWN:
            return summary("Prompt", {"episodes": self.num_episodes, "step": self.step})
        past = self.num_episodes > 0
        return call(
            "bp.Prompt",
            observations=nested(self.observations) if past else None,
            subgoals=nested(self.subgoals) if past and self.subgoals.size else None,
            instructions=nested(self.instructions) if self.instructions.any() else None,
            current_observations=nested(self.current_observations) if self.step else None,
            current_subgoals=nested(self.current_subgoals) if self.current_subgoals.size else None,
            current_instruction=str(self.current_instruction) if self.current_instruction else None,
        )

    @property
    def num_episodes(self) -> int:
        """N, finished episodes."""
        return self.observations.shape[0]

    @property
    def step(self) -> int:
        """h, observations seen in the current episode."""
        return self.current_observations.shape[0]

    def check(self, family: Family) -> Prompt:
        """This prompt, if it fits ``family``.

        Raises:
            InvalidPromptError: the horizon differs, the current episode is too long, or an index is out of range.
            InvalidWorldError: ``family`` is no family.
        """
        check_family(family)
        if self.num_episodes:
            check_episodes(family, self.observations, self.subgoals)
        if self.step > family.horizon:
            raise InvalidPromptError(
                f"current_observations has {self.step} entries, but an episode has H = {family.horizon}; "
                "move the finished episode to observations and subgoals"
            )
        _check_range("current_observations", self.current_observations, family.num_observations)
        _check_range("current_subgoals", self.current_subgoals, family.num_subgoals)
        _check_range("instructions", self.instructions, family.num_instructions)
        _check_range("current_instruction", np.asarray(self.current_instruction), family.num_instructions)
        return self

    def to_text(self, family: Family) -> str:
        """The prompt in the family's words; :meth:`from_text` reads it back exactly."""
        self.check(family)
        blocks = [
            _episode_text(family, f"Episode {n + 1}", w, o, g)
            for n, (w, o, g) in enumerate(zip(self.instructions, self.observations, self.subgoals, strict=True))
        ]
        title = f"Episode {self.num_episodes + 1} (now)"
        blocks.append(
            _episode_text(family, title, self.current_instruction, self.current_observations, self.current_subgoals)
        )
        return "\n\n".join(blocks) + "\n"

    @staticmethod
    def from_text(text: str, family: Family) -> Prompt:
        """Read what :meth:`to_text` wrote.

        Raises:
            InvalidPromptError: a line is not of that form, or uses a word that the family does not know.
        """
        check_family(family)
        if not isinstance(text, str):
            raise InvalidPromptError(f"the text of a prompt is a str, not {type(text).__name__}")
        episodes: list[dict[str, Any]] = []
        for number, line in enumerate(text.split("\n"), start=1):
            line = line.strip()
            if not line:
                continue
            key, separator, words = line.partition(": ")
            if line.startswith("Episode ") and not separator:
                episodes.append({"observations": [], "subgoals": []})
            elif not episodes or key not in ("Instruction", "Observation", "Subgoal") or not separator:
                raise InvalidPromptError(
                    f"line {number} is {shown(line)}; expected 'Episode n', then 'Instruction: ', 'Observation: ' "
                    "and 'Subgoal: ' lines"
                )
            elif key == "Instruction":
                if "instruction" in episodes[-1]:
                    raise InvalidPromptError(f"line {number}: this episode has two instructions")
                episodes[-1]["instruction"] = words
            else:
                kind = "observations" if key == "Observation" else "subgoals"
                in_turn = len(episodes[-1]["observations"]) - len(episodes[-1]["subgoals"])
                if in_turn != (0 if kind == "observations" else 1):
                    raise InvalidPromptError(
                        f"line {number}: observations and subgoals take turns, an observation first"
                    )
                episodes[-1][kind].append(words)
        if not episodes:
            raise InvalidPromptError("the text has no 'Episode' line; an empty prompt is 'Episode 1 (now)'")
        for n, episode in enumerate(episodes):
            if "instruction" not in episode:
                raise InvalidPromptError(f"episode {n + 1} has no 'Instruction: ' line")
        return Prompt.from_dict({"episodes": episodes[:-1], "current": episodes[-1]}, family)

    def to_dict(self, family: Family) -> dict[str, Any]:
        """The prompt as plain JSON data, in the family's words: the schema that :meth:`from_dict` reads."""
        self.check(family)

        def episode(w: Any, o: Any, g: Any) -> dict[str, Any]:
            return {
                "instruction": family.instructions[int(w)],
                "observations": [family.observations[int(i)] for i in o],
                "subgoals": [family.subgoals[int(i)] for i in g],
            }

        past = zip(self.instructions, self.observations, self.subgoals, strict=True)
        return {
            "episodes": [episode(*e) for e in past],
            "current": episode(self.current_instruction, self.current_observations, self.current_subgoals),
        }

    @staticmethod
    def from_dict(data: Any, family: Family) -> Prompt:
        """Read ``{"episodes": [{"instruction", "observations", "subgoals"}, ...], "current": {...}}``.

        Entries are the family's words or indices; an instruction may be left out where there is only one.

        Raises:
            InvalidPromptError: the data has another form, or uses a word that the family does not know.
        """
        check_family(family)
        if not isinstance(data, dict) or set(data) - {"episodes", "current"}:
            raise InvalidPromptError('a prompt is an object with the keys "episodes" and "current"')
        episodes = data.get("episodes", [])
        if not isinstance(episodes, list):
            raise InvalidPromptError('"episodes" must be a list')
        rows = [_read_episode(f"episodes[{n}]", e, family) for n, e in enumerate(episodes)]
        for n, (_, o, g) in enumerate(rows):
            if len(o) != family.horizon or len(g) != family.horizon - 1:
                raise InvalidPromptError(
                    f"episodes[{n}] has {len(o)} observations and {len(g)} subgoals; a finished episode has "
                    f"H = {family.horizon} and {family.horizon - 1} (the unfinished one belongs in 'current')"
                )
        w, o, g = _read_episode("current", data.get("current", {}), family)
        H = family.horizon
        return Prompt(
            np.array([r[1] for r in rows], np.int32).reshape(len(rows), H) if rows else None,
            np.array([r[2] for r in rows], np.int32).reshape(len(rows), H - 1) if rows else None,
            [r[0] for r in rows] if rows else None,
            o,
            g,
            w,
        ).check(family)

    def to_json(self, family: Family) -> str:
        """:meth:`to_dict` as JSON text."""
        return json.dumps(self.to_dict(family), ensure_ascii=False, indent=2) + "\n"

    @staticmethod
    def from_json(text: str, family: Family) -> Prompt:
        """Read the JSON text of a prompt; see :meth:`from_dict`.

        Raises:
            InvalidPromptError: not JSON, or not a prompt of this family.
        """
        if not isinstance(text, (str, bytes, bytearray)):
            raise InvalidPromptError(f"the JSON text of a prompt is a str, not {type(text).__name__}")
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidPromptError(f"the prompt is not JSON: {error}") from None
        return Prompt.from_dict(data, family)


def check_prompt(prompt: Any, family: Family) -> Prompt:
    """``prompt``, if it is one and fits ``family``.

    Raises:
        InvalidPromptError: neither; or as :meth:`Prompt.check`.
    """
    if not isinstance(prompt, Prompt):
        raise InvalidPromptError(
            f"expected a bayespar.Prompt, got {type(prompt).__name__}; Prompt.from_text and Prompt.from_json read one"
        )
    return prompt.check(family)


def check_episodes(family: Family, observations: Any, subgoals: Any) -> tuple[Array, Array]:
    """``observations`` [N, H] and ``subgoals`` [N, H-1] as int32 arrays, if they fit ``family``.

    Raises:
        InvalidPromptError: wrong shapes, not integers, or an index out of range.
    """
    observations = as_indices("observations", observations, 2)
    subgoals = as_indices("subgoals", subgoals, 2)
    H = check_family(family).horizon
    N = observations.shape[0]
    if observations.shape[1] != H:
        raise InvalidPromptError(
            f"observations has {observations.shape[1]} columns, but the horizon is {H}; "
            "an unfinished episode belongs in current_observations"
        )
    if subgoals.shape != (N, H - 1):
        raise InvalidPromptError(
            f"subgoals has shape {list(subgoals.shape)} and observations {list(observations.shape)}; "
            f"it must be [N, H-1] = [{N}, {H - 1}]"
        )
    _check_range("observations", observations, family.num_observations)
    _check_range("subgoals", subgoals, family.num_subgoals)
    return observations, subgoals


def as_indices(name: str, value: Any, ndim: int) -> Any:
    """``value`` as an int32 array of ``ndim`` axes; a tracer stays one.

    Raises:
        InvalidPromptError: it is none; ``name`` says whose.
    """
    if isinstance(value, Tracer):
        array: Any = value
    else:
        try:
            array = np.asarray(value)
        except NO_ARRAY:
            raise InvalidPromptError(f"{name} is ragged; give a rectangular array of indices") from None
        if array.size == 0 and array.dtype.kind == "f":
            array = array.astype(np.int32)
    if array.dtype.kind not in "iu":
        raise InvalidPromptError(f"{name} has dtype {array.dtype}; give integer indices (words go through from_text)")
    if array.ndim != ndim:
        raise InvalidPromptError(f"{name} has {array.ndim} axes; it needs {ndim}")
    if not is_traced(array) and array.size:
        big = np.argwhere((array < 0) | (array > np.iinfo(np.int32).max))
        if len(big):
            index = tuple(int(i) for i in big[0])
            raise InvalidPromptError(f"{name}[{', '.join(map(str, index))}] = {array[index]} is not an index")
    return array.astype(np.int32)


def _check_range(name: str, array: Array, size: int) -> None:
    if is_traced(array):
        return
    bad = np.asarray(array) >= size
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f"{name}[{', '.join(map(str, index))}]" if index else name
        raise InvalidPromptError(f"{place} = {int(np.asarray(array)[index])}, but indices run from 0 to {size - 1}")


def _episode_text(family: Family, title: str, w: Any, observations: Any, subgoals: Any) -> str:
    lines = [title, f"Instruction: {family.instructions[int(w)]}"]
    for h, o in enumerate(observations):
        lines.append(f"Observation: {family.observations[int(o)]}")
        if h < len(subgoals):
            lines.append(f"Subgoal: {family.subgoals[int(subgoals[h])]}")
    return "\n".join(lines)


def _read_episode(place: str, episode: Any, family: Family) -> tuple[int, list[int], list[int]]:
    if not isinstance(episode, dict) or set(episode) - {"instruction", "observations", "subgoals"}:
        raise InvalidPromptError(f'{place} must be an object with "instruction", "observations" and "subgoals"')
    if "instruction" not in episode and family.num_instructions > 1:
        raise InvalidPromptError(f"{place} has no instruction; the family has {family.num_instructions}")
    w = _read_words(f"{place}.instruction", [episode.get("instruction", 0)], family.instructions)[0]
    o = _read_words(f"{place}.observations", episode.get("observations", []), family.observations)
    g = _read_words(f"{place}.subgoals", episode.get("subgoals", []), family.subgoals)
    return w, o, g


def _read_words(place: str, words: Any, names: Sequence[str]) -> list[int]:
    if not isinstance(words, list):
        raise InvalidPromptError(f"{place} must be a list")
    indices = []
    for i, word in enumerate(words):
        if isinstance(word, str) and word in names:
            indices.append(names.index(word))
        elif isinstance(word, int) and not isinstance(word, bool) and 0 <= word < len(names):
            indices.append(word)
        else:
            known = ", ".join(shown(n) for n in names[:6])
            raise InvalidPromptError(
                f"{place}[{i}] is {shown(word)}, which the world does not know; "
                f"say one of {known}{', ...' if len(names) > 6 else ''}, or an index below {len(names)}"
            )
    return indices
