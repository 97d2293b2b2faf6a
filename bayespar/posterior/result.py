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
from .arviz import as_arviz
from .diagnostics import Diagnostics
from .latents import Latents
from .sites import coordinate_names, finite_sites, totals


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
        """The posterior of one named site of the program, of the task ("task"), or of the leaf ("leaf").

        Returns:
            For a finite site: probabilities over its values, with the values as coordinate. They are exact where
            tasks are finite; beside sites with a density, they are averages of the exact probabilities given each
            point. For a site with a density: its points [chain, draw, ...], with their weights as the coordinate
            ``weight`` where they have any.

        Raises:
            InvalidProgramError: there is no such site.

        Source: theory.md, C1 and section 8; Rao (1945) and Blackwell (1947) for the averages.
        """
        if not isinstance(site, str):
            raise InvalidProgramError(f"site = {shown(site)}; give the name of a site")
        if self.draws is not None and site in self.draws:
            draws = np.asarray(self.draws[site])
            dims = ["chain", "draw", *(f"{site}_dim_{i}" for i in range(draws.ndim - 2))]
            coords = {} if self.log_weights is None else {"weight": (dims[:2], np.exp(self.log_weights))}
            return xr.DataArray(draws, dims=dims, coords=coords, name=site)
        worlds = self.worlds
        whole = "task" if isinstance(worlds, Family) else "leaf"
        sites = finite_sites(worlds)
        if site in sites:
            return totals(site, sites[site], self.world_probabilities)
        if site == whole:
            names = worlds.tasks if isinstance(worlds, Family) else worlds.leaf_names
            return xr.DataArray(self.world_probabilities, dims=[whole], coords={whole: list(names)}, name="probability")
        known = ", ".join([whole, *sites, *(self.draws or {})])
        raise InvalidProgramError(f"there is no site {shown(site)}; the sites are {known}")

    @property
    def worlds(self) -> Family | Latents:
        """The tasks where they are finite, else the latent sites.

        Raises:
            InvalidProgramError: the posterior was built without either.
        """
        worlds = self.latents if self.family is None else self.family
        if worlds is None:
            raise InvalidProgramError("the posterior has neither family nor latents")
        return worlds

    @property
    def world_probabilities(self) -> Float[np.ndarray, " L"]:
        """P(z | pt) where tasks are finite, [Z]; else P(leaf | pt), averaged over the points, [L]."""
        if self.log_probabilities is not None:
            return self.probabilities
        if self.leaf_probabilities is None:
            raise InvalidProgramError("the posterior has neither log_probabilities nor leaf_probabilities")
        return np.einsum("cd,cdl->l", self.weights, np.asarray(self.leaf_probabilities))

    @property
    def weights(self) -> Float[np.ndarray, "chain draw"]:
        """The weight of each point, [chain, draw]; they sum to 1.

        Raises:
            InvalidProgramError: the tasks are finite, so there are no points.
        """
        if self.log_weights is not None:
            weights = np.exp(self.log_weights)
            return weights / weights.sum()
        if not self.draws:
            raise InvalidProgramError("the tasks are finite, so there are no points; read .probabilities")
        shape = next(iter(self.draws.values())).shape[:2]
        return np.full(shape, 1 / (shape[0] * shape[1]))

    def mean(self, site: str) -> Float[np.ndarray, "*shape"]:
        """The posterior mean of a site with a density, or of a finite one whose values are numbers.

        Raises:
            InvalidProgramError: there is no such site, or its values are no numbers.
        """
        marginal = self.marginal(site)
        if self.draws is not None and site in self.draws:
            return np.tensordot(self.weights, marginal.values, 2)
        values = marginal.coords[site].values
        if values.dtype.kind not in "iufb":
            raise InvalidProgramError(f"the values of site {shown(site)} are no numbers, so they have no mean")
        return np.asarray(values.astype(float) @ marginal.values)

    def summary(self) -> xr.DataArray:
        """Mean, standard deviation and quantiles of every coordinate of the sites with a density.

        Returns:
            Dims ``coordinate`` and ``statistic`` (mean, sd, q05, median, q95). Points count by their weights; a
            quantile is the least value that is reached with its probability.

        Raises:
            InvalidProgramError: the tasks are finite.
        """
        weights = self.weights.ravel()
        rows = []
        for values in (self.draws or {}).values():
            for column in np.asarray(values, np.float64).reshape(weights.size, -1).T:
                mean = weights @ column
                order = np.argsort(column, kind="stable")
                reached = np.searchsorted(np.cumsum(weights[order]), np.array([0.05, 0.5, 0.95]) - 1e-12)
                quantiles = column[order][np.minimum(reached, weights.size - 1)]
                rows.append([mean, np.sqrt(weights @ (column - mean) ** 2), *quantiles])
        names = coordinate_names({name: np.shape(a)[2:] for name, a in (self.draws or {}).items()})
        coords = {"coordinate": names, "statistic": ["mean", "sd", "q05", "median", "q95"]}
        return xr.DataArray(np.array(rows), dims=["coordinate", "statistic"], coords=coords)

    def to_datatree(self, *, key: Any = 0, shape: tuple[int, int] = (4, 500), max_bytes: float = 2**26) -> xr.DataTree:
        """Everything that is known, as an xarray.DataTree: it can be saved as NetCDF and Zarr by its own methods.

        Groups, with ArviZ's names: ``posterior`` and ``prior`` (draws, dims ``chain`` and ``draw``; the exact
        ``probability`` of every ``task`` where tasks are finite; the exact ``leaf_probability`` of each draw beside
        sites with a density), ``log_likelihood`` (nats, of each ``episode``), ``posterior_predictive`` (a replicate of
        every observation, one step ahead), ``observed_data``, ``constant_data`` (subgoals, instructions, the current
        history, and the words for all indices), ``sample_stats``, and ``points`` where points with weights were
        resampled. The groups of episodes are left out where there is no finished episode.

        Args:
            key: of the draws that are made here: of leaves, of tasks, from the prior, replicates, resampling.
            shape: how many chains and draws, where the posterior has none of its own.
            max_bytes: a variable that has one entry for each draw and episode is left out where it would be larger;
                the attribute ``left_out`` then names it.

        Raises:
            InvalidPlannerError: ``key`` is neither a JAX key nor an int, or ``shape`` no pair of counts.

        Source: theory.md, C1 and section 8.
        """
        from .tree import build_tree  # it reads this class

        return build_tree(self, key=key, shape=shape, max_bytes=max_bytes)

    def to_arviz(self, *, key: Any = 0, shape: tuple[int, int] = (4, 500), max_bytes: float = 2**26) -> Any:
        """What the functions of the installed ``arviz`` take: see :func:`bayespar.posterior.arviz.as_arviz`.

        Arguments and errors are those of :meth:`to_datatree`.

        Raises:
            MissingPackageError: ``arviz`` is not installed.
        """
        return as_arviz(self.to_datatree(key=key, shape=shape, max_bytes=max_bytes))

    def _finite(self) -> tuple[Family, np.ndarray]:
        if self.family is None or self.log_probabilities is None:
            raise InvalidProgramError("the tasks are not finite; read .draws or .marginal(site)")
        return self.family, self.log_probabilities
