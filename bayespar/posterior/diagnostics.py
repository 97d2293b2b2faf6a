"""Whether draws from Markov chains may be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from jaxtyping import Float

MAX_R_HAT = 1.01
MIN_ESS_PER_CHAIN = 100
MIN_E_BFMI = 0.3


@dataclass(frozen=True)
class Diagnostics:
    """What can be seen to be wrong with Markov chains.

    Attributes:
        table: of each coordinate of each site: mean, sd, mcse (of the mean), r_hat (split, rank-normalised),
            ess_bulk and ess_tail. Dims ``coordinate`` and ``statistic``.
        divergences: transitions after warm-up whose energy went astray.
        e_bfmi: energy Bayesian fraction of missing information of each chain, [chain].
        problems: what is wrong, in words; empty where nothing is.

    Source: Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021); Betancourt (2016) for E-BFMI.
    """

    table: xr.DataArray
    divergences: int
    e_bfmi: Float[np.ndarray, " chain"]
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        head = ["mean", "sd", "mcse", "R-hat", "ESS bulk", "ESS tail"]
        names = [str(name) for name in self.table.coordinate.values]
        width = max([len(name) for name in names] + [4])
        lines = [" ".join([" " * width, *[f"{word:>9}" for word in head]])]
        for name, row in zip(names, self.table.values, strict=True):
            shown = [f"{v:9.4g}" for v in row[:3]] + [f"{row[3]:9.3f}"] + [f"{v:9.0f}" for v in row[4:]]
            lines.append(" ".join([f"{name:<{width}}", *shown]))
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        return "\n".join(lines)


def diagnose(draws: Mapping[str, np.ndarray], divergences: int, energy: Float[np.ndarray, "chain draw"]) -> Diagnostics:
    """Diagnose Markov chains.

    Args:
        draws: of every site, [chain, draw, ...].
        divergences: transitions after warm-up that diverged.
        energy: of the transitions, nats.

    Returns:
        The diagnostics. A coordinate that never moves, or is not a number, has no R-hat: that is a problem too.
    """
    names, columns = [], []
    for name, values in draws.items():
        flat = np.asarray(values, np.float64).reshape(*values.shape[:2], -1)
        for place in np.ndindex(*values.shape[2:]):
            names.append(f"{name}[{', '.join(map(str, place))}]" if place else name)
        columns += list(np.moveaxis(flat, -1, 0))
    table = _statistics(np.stack(columns))
    chains = energy.shape[0]
    with np.errstate(invalid="ignore", divide="ignore"):  # energies that never change, or are not numbers, give NaN
        e_bfmi = (np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)

    problems = []
    if divergences:
        problems.append(f"{divergences} divergent transitions: the chains avoid a part of the posterior")
    worst = int(np.argmax(np.where(np.isnan(table[:, 3]), np.inf, table[:, 3])))
    if np.isnan(table[worst, 3]):
        problems.append(f"{names[worst]} has no R-hat: it never moves, is not a number, or there is but one chain")
    elif not table[worst, 3] < MAX_R_HAT:
        problems.append(f"R-hat of {names[worst]} is {table[worst, 3]:.3f} (must be below {MAX_R_HAT}): run longer")
    for k, what in ((4, "bulk"), (5, "tail")):
        worst = int(np.argmin(np.where(np.isnan(table[:, k]), -1, table[:, k])))
        if not table[worst, k] >= MIN_ESS_PER_CHAIN * chains:
            problems.append(
                f"{what} ESS of {names[worst]} is {table[worst, k]:.0f} (must be at least {MIN_ESS_PER_CHAIN} a chain)"
                ": run longer"
            )
    if not (e_bfmi >= MIN_E_BFMI).all():
        worst = float(e_bfmi[np.argmin(np.where(np.isnan(e_bfmi), -1, e_bfmi))])
        problems.append(f"E-BFMI is {worst:.2f} (must be at least {MIN_E_BFMI}): reparametrise the program")
    dims = ["coordinate", "statistic"]
    statistics = ["mean", "sd", "mcse", "r_hat", "ess_bulk", "ess_tail"]
    return Diagnostics(
        xr.DataArray(table, dims=dims, coords={"coordinate": names, "statistic": statistics}),
        divergences,
        e_bfmi,
        tuple(problems),
    )


def _statistics(x: Float[np.ndarray, "coordinate chain draw"]) -> Float[np.ndarray, "coordinate 6"]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return _columns(x)


def _columns(x: Float[np.ndarray, "coordinate chain draw"]) -> Float[np.ndarray, "coordinate 6"]:
    columns = [x.mean(axis=(1, 2)), x.std(axis=(1, 2))]
    columns += [array_stats.mcse(x, method="mean"), array_stats.rhat(x, method="rank")]
    columns += [array_stats.ess(x, method="bulk"), array_stats.ess(x, method="tail", prob=(0.05, 0.95))]
    return np.stack(columns, axis=1)
