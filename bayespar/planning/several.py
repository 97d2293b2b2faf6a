"""BAIL for several Actors: who draws what, given each task's joint expert subgoal."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array, is_traced
from ..errors import InvalidPlannerError
from ..factored import unravel
from ..team import Team
from ..world import Family
from .bail import BailPlanner
from .expert import Experts


def independent(
    team: Team, posterior: Float[Array, "*batch Z"], actions: Int[Array, "*#batch Z"]
) -> Float[Array, "*batch G"]:
    """The law of the joint subgoal where every Actor draws from its own marginal of BAIL.

    Args:
        team: the Actors.
        posterior: P(z | pt).
        actions: the joint expert subgoal of every task.

    Source: theory.md, M1.
    """
    xp: Any = jnp if is_traced(posterior, actions) else np
    marginals = []
    for own, size in zip(unravel(actions, team.sizes), team.sizes, strict=True):
        votes = own[..., None, :] == xp.arange(size)[:, None]
        marginals.append(xp.where(votes, posterior[..., None, :], 0).sum(axis=-1))
    return team.product(marginals)


def sequential(
    team: Team, posterior: Float[Array, "*batch Z"], actions: Int[Array, "*#batch Z"]
) -> Float[Array, "*batch G"]:
    """The law of the joint subgoal where Actor k draws given the subgoals of Actors 1..k-1.

    Actor k keeps the tasks whose experts would have given those before it the subgoals that they have, and draws its
    own subgoal from what is left of the posterior. Arguments as for :func:`independent`.

    Source: theory.md, SEQ.
    """
    xp: Any = jnp if is_traced(posterior, actions) else np
    law, left = xp.ones_like(posterior[..., :1]), posterior[..., None, :]  # [..., choices so far], and with Z
    for own, size in zip(unravel(actions, team.sizes), team.sizes, strict=True):
        votes = own[..., None, None, :] == xp.arange(size)[:, None]
        kept = xp.where(votes, left[..., None, :], 0)  # [..., choices so far, G_k, Z]
        mass = kept.sum(axis=-1)
        total = mass.sum(axis=-1, keepdims=True)
        conditional = mass / xp.where(total > 0, total, 1)
        batch = conditional.shape[:-2]
        law = (law[..., None] * conditional).reshape(*batch, -1)
        left = kept.reshape(*batch, -1, kept.shape[-1])
    return law


class _TeamPlanner(BailPlanner):
    """BAIL for a family with several Actors."""

    team: Team = eqx.field(static=True)

    def __init__(self, family: Family, experts: Experts):
        """
        Raises:
            InvalidPlannerError: the family has one Actor.
        """
        super().__init__(family, experts)
        self.team = team_of(family)


class IndependentPlanner(_TeamPlanner):
    """Every Actor draws its own subgoal from its marginal of BAIL: coordination is lost."""

    def choose(self, posterior: Any, actions: Any) -> Any:
        return independent(self.team, posterior, actions)


class SequentialPlanner(_TeamPlanner):
    """Actors draw one after the other, each given the subgoals before it: equal in law to joint sampling."""

    def choose(self, posterior: Any, actions: Any) -> Any:
        return sequential(self.team, posterior, actions)


def team_of(family: Family) -> Team:
    """The Actors of a family.

    Raises:
        InvalidPlannerError: it has only one.
    """
    if not isinstance(family.subgoals, Team):
        raise InvalidPlannerError(
            "the family does not say which Actor does what; give its World or Family subgoals=bp.Team({actor: [...]})"
        )
    return family.subgoals
