"""The one result type of every posterior, exact or sampled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from ..errors import InvalidProgramError
from ..history import Prompt
from ..validation import shown
from ..world import Family
from .diagnostics import Diagnostics
from .latents import Latents


@dataclass(frozen=True)
class Posterior:
    """P(z | pt).

    Finite tasks have a probability each. Tasks with a density are represented by points: draws of equal weight from
    chains, or particles and quadrature nodes with ``log_weights``. Finite sites beside a density are not drawn: each
    point has the exact probability of every *leaf*, a joint value of the finite sites.

    Attributes:
        method: how it was computed: "exact", "nuts" or "smc".
        log_evidence: log P_D(o || g, w), nats: of all observations in the prompt, given the subgoals; NaN where the
            method does not estimate it.
        prompt: what was seen.
        family: the tasks, where they are finite; else None.
        log_probabilities: log P(z | pt), nats, [Z], where tasks are finite.
        episode_log_evidence: log L_z of each finished episode, nats, [Z, N], where tasks are finite.
        latents: the sites with a density, where there are any; else None.
        draws: points: the value of each site with a density, by name, [chain, draw, ...].
        leaf_probabilities: P(leaf | point, pt), [chain, draw, L], exact.
        log_weights: of the points, nats, [chain, draw], their exponentials sum to 1; None where all weigh the same.
        sample_stats: what the sampler says about each point, by ArviZ's names, [chain, draw].
        diagnostics: what is wrong with the points; None where the method cannot go wrong in this way.
        attributes: versions, key and settings, as plain values.
    """

    method: str
    log_evidence: float
    prompt: Prompt | None = None
    family: Family | None = None
    log_probabilities: Float[np.ndarray, " Z"] | None = None
    episode_log_evidence: Float[np.ndarray, "Z N"] | None = None
    latents: Latents | None = None
    draws: Mapping[str, np.ndarray] | None = None
    leaf_probabilities: Float[np.ndarray, "chain draw L"] | None = None
    log_weights: Float[np.ndarray, "chain draw"] | None = None
    sample_stats: Mapping[str, np.ndarray] = field(default_factory=dict)
    diagnostics: Diagnostics | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def probabilities(self) -> Float[np.ndarray, " Z"]:
        """P(z | pt), [Z].

        Raises:
            InvalidProgramError: the tasks are not finite.
        """
        return np.exp(self._finite()[1])

    def marginal(self, site: str = "task") -> xr.DataArray:
        """The posterior of one named site of the program, or of the task itself ("task").

        Returns:
            Probabilities over the site's values, with the values as coordinate; where the posterior was sampled, the
            draws [chain, draw, ...].

        Raises:
            InvalidProgramError: there is no such site.
        """
        if not isinstance(site, str):
            raise InvalidProgramError(f"site = {shown(site)}; give the name of a site")
        if self.draws is not None and site in self.draws:
            draws = np.asarray(self.draws[site])
            dims = ["chain", "draw", *(f"{site}_dim_{i}" for i in range(draws.ndim - 2))]
            return xr.DataArray(draws, dims=dims, name=site)
        family, _ = self._finite()
        sites = dict(family.sites)
        if site in sites:
            values = list(dict.fromkeys(sites[site]))
            index = np.array([values.index(v) for v in sites[site]])
            totals = np.bincount(index, weights=self.probabilities, minlength=len(values))
            order = sorted(range(len(values)), key=lambda i: (values[i] is None, str(type(values[i])), values[i] or 0))
            return xr.DataArray(
                totals[order], dims=[site], coords={site: _coordinate([values[i] for i in order])}, name="probability"
            )
        if site == "task":
            return xr.DataArray(
                self.probabilities, dims=["task"], coords={"task": list(family.tasks)}, name="probability"
            )
        raise InvalidProgramError(f"there is no site {shown(site)}; the sites are {', '.join(['task', *sites])}")

    def to_datatree(self) -> xr.DataTree:
        """The posterior, the prior and the log likelihood of each episode as an xarray.DataTree.

        Groups: ``posterior`` and ``prior`` (probability of each task, dim ``task``; draws with dims ``chain`` and
        ``draw`` where sampled), ``log_likelihood`` (nats, dims ``task`` and ``episode``).
        """
        groups: dict[str, xr.Dataset] = {}
        variables: dict[str, Any] = {}
        if self.family is not None:
            coords = {"task": list(self.family.tasks)}
            variables["probability"] = self.marginal("task").variable
            groups["posterior"] = xr.Dataset(variables, coords=coords)
            prior = np.asarray(self.family.task_prior)
            groups["prior"] = xr.Dataset({"probability": (["task"], prior)}, coords=coords)
            if self.episode_log_evidence is not None:
                groups["log_likelihood"] = xr.Dataset(
                    {"episode": (["task", "n"], self.episode_log_evidence)}, coords=coords
                ).rename({"episode": "log_likelihood", "n": "episode"})
        if self.draws is not None:
            draws = {name: self.marginal(name) for name in self.draws}
            groups["posterior"] = groups.get("posterior", xr.Dataset()).assign(draws)
        tree = xr.DataTree.from_dict(dict(groups.items()))
        tree.attrs.update({"method": self.method, "log_evidence": self.log_evidence, **self.attributes})
        return tree

    def _finite(self) -> tuple[Family, np.ndarray]:
        if self.family is None or self.log_probabilities is None:
            raise InvalidProgramError("the tasks are not finite; read .draws or .marginal(site)")
        return self.family, self.log_probabilities


def _coordinate(values: list[Any]) -> Any:
    """Values as a coordinate: numbers and strings as they are, anything else as text."""
    kinds = {type(v) for v in values}
    return values if kinds in ({int}, {float}, {str}, {bool}) else [str(v) for v in values]
