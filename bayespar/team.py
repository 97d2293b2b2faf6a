"""Teams: the joint subgoals of several Actors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .arrays import Array
from .errors import InvalidWorldError, TooLargeError
from .validation import NO_ARRAY, check_names, shown

_MOST_SUBGOALS = 2**20


class Team(tuple[str, ...]):
    """The joint subgoals of several Actors: every combination of one subgoal each, as names "Ada: left, Ben: right".

    The index of a combination counts the last Actor's subgoals fastest, like ``numpy.ravel_multi_index``. Passed as
    ``subgoals=`` of a World or Family, whose subgoal axis G then is the product of the Actors' own.

    Attributes:
        actors: the subgoals of each Actor, by name.

    Source: theory.md, section 7.
    """

    actors: dict[str, tuple[str, ...]]

    def __new__(cls, actors: Any) -> Team:
        """
        Args:
            actors: name of each Actor -> its subgoals.

        Raises:
            InvalidWorldError: no Actor, an Actor without subgoals, or names that are none or not distinct.
            TooLargeError: more than a million combinations.
        """
        if not isinstance(actors, Mapping) or not actors:
            raise InvalidWorldError(f"actors = {shown(actors)}; give a dict: name of each Actor -> its subgoals")
        who = check_names("actors", list(actors), len(actors))
        own: dict[str, tuple[str, ...]] = {}
        for name, given in zip(who, actors.values(), strict=True):
            try:
                words = () if isinstance(given, str) else tuple(given)
            except NO_ARRAY:
                words = ()
            if not words:
                raise InvalidWorldError(f"actors[{shown(name)}] = {shown(given)}; give a list of subgoals")
            own[name] = check_names(f"actors[{shown(name)}]", words, len(words))
        count = math.prod(map(len, own.values()))
        if count > _MOST_SUBGOALS:
            raise TooLargeError(f"{count} joint subgoals, more than {_MOST_SUBGOALS}; use fewer Actors", 8 * count)
        joint = [
            ", ".join(f"{name}: {g}" for name, g in zip(own, each, strict=True))
            for each in itertools.product(*own.values())
        ]
        team = super().__new__(cls, check_names("joint subgoals", joint, count))
        team.actors = own
        return team

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.actors,)

    def __repr__(self) -> str:
        """The source that builds this team."""
        return f"bp.Team({ {name: list(words) for name, words in self.actors.items()} })"

    @property
    def sizes(self) -> tuple[int, ...]:
        """G_1..G_K, the number of each Actor's own subgoals."""
        return tuple(map(len, self.actors.values()))

    def split(self, subgoals: Any) -> Int[np.ndarray, "*batch K"]:
        """Each Actor's own subgoal in joint ones.

        Raises:
            InvalidWorldError: an index outside 0..G-1.
        """
        joint = np.asarray(subgoals)
        if not np.issubdtype(joint.dtype, np.integer) or ((joint < 0) | (joint >= len(self))).any():
            raise InvalidWorldError(f"subgoals = {shown(subgoals)}; joint subgoals run from 0 to {len(self) - 1}")
        return np.stack(np.unravel_index(joint, self.sizes), axis=-1).astype(np.int32)

    def join(self, own: Any) -> Int[np.ndarray, "*batch"]:
        """The joint subgoals that consist of these, [..., K].

        Raises:
            InvalidWorldError: not one index for every Actor, or one that is none of its subgoals.
        """
        parts = np.asarray(own)
        if parts.ndim == 0 or parts.shape[-1] != len(self.sizes) or not np.issubdtype(parts.dtype, np.integer):
            raise InvalidWorldError(f"own = {shown(own)}; give an index for each of the {len(self.sizes)} Actors")
        if ((parts < 0) | (parts >= np.array(self.sizes))).any():
            raise InvalidWorldError(f"own = {shown(own)}; the Actors have {list(self.sizes)} subgoals")
        return np.asarray(np.ravel_multi_index(tuple(np.moveaxis(parts, -1, 0)), self.sizes), np.int32)

    def marginals(self, probabilities: Float[Array, "*batch G"]) -> list[Float[Array, "*batch _"]]:
        """What each Actor does on its own, from probabilities of joint subgoals."""
        joint = probabilities.reshape(*probabilities.shape[:-1], *self.sizes)
        axes = range(-len(self.sizes), 0)
        return [joint.sum(axis=tuple(a for a in axes if a != k)) for k in axes]

    def product(self, marginals: Sequence[Float[Array, "*batch _"]]) -> Float[Array, "*batch G"]:
        """Probabilities of joint subgoals where every Actor draws on its own."""
        joint = marginals[0]
        for own in marginals[1:]:
            joint = (joint[..., None] * own[..., None, :]).reshape(*joint.shape[:-1], -1)
        return joint
