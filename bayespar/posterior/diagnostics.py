"""Whether draws from Markov chains may be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float

from .sites import coordinate_names

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
    table = statistics_table(draws)
    with np.errstate(invalid="ignore", divide="ignore"):  # energies that never change, or are not numbers, give NaN
        e_bfmi = (np.diff(energy, axis=1) ** 2).mean(axis=1) / energy.var(axis=1)
    problems = []
    if divergences:
        problems.append(f"{divergences} divergent transitions: the chains avoid a part of the posterior")
    problems += disagreements(table, energy.shape[0], "run longer")
    if not (e_bfmi >= MIN_E_BFMI).all():
        worst = float(e_bfmi[np.argmin(np.where(np.isnan(e_bfmi), -1, e_bfmi))])
        problems.append(f"E-BFMI is {worst:.2f} (must be at least {MIN_E_BFMI}): reparametrise the program")
    return Diagnostics(table, divergences, e_bfmi, tuple(problems))


def statistics_table(draws: Mapping[str, np.ndarray]) -> xr.DataArray:
    """The table of :class:`Diagnostics`, of the draws of every site, [chain, draw, ...]."""
    from arviz_stats.base.array import array_stats  # it takes a second to load

    columns = [np.asarray(a, np.float64).reshape(*a.shape[:2], -1) for a in draws.values()]
    x = np.moveaxis(np.concatenate(columns, axis=2), 2, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = {
            "mean": x.mean(axis=(1, 2)),
            "sd": x.std(axis=(1, 2)),
            "mcse": array_stats.mcse(x, method="mean"),
            "r_hat": array_stats.rhat(x, method="rank"),
            "ess_bulk": array_stats.ess(x, method="bulk"),
            "ess_tail": array_stats.ess(x, method="tail", prob=(0.05, 0.95)),
        }
    names = coordinate_names({name: a.shape[2:] for name, a in draws.items()})
    coords = {"coordinate": names, "statistic": list(found)}
    return xr.DataArray(np.stack(list(found.values()), axis=1), dims=["coordinate", "statistic"], coords=coords)


def disagreements(table: xr.DataArray, chains: int, cure: str) -> list[str]:
    """What R-hat and the effective sample sizes of a table say against the draws of so many chains."""
    names, problems = table.coordinate.values, []
    r_hat = table.sel(statistic="r_hat").values
    worst = int(np.argmax(np.where(np.isnan(r_hat), np.inf, r_hat)))
    if np.isnan(r_hat[worst]):
        problems.append(f"{names[worst]} has no R-hat: it never moves, is not a number, or there is but one chain")
    elif not r_hat[worst] < MAX_R_HAT:
        problems.append(f"R-hat of {names[worst]} is {r_hat[worst]:.3f} (must be below {MAX_R_HAT}): {cure}")
    for what in ("bulk", "tail"):
        ess = table.sel(statistic=f"ess_{what}").values
        worst = int(np.argmin(np.where(np.isnan(ess), -1, ess)))
        if not ess[worst] >= MIN_ESS_PER_CHAIN * chains:
            least = f"must be at least {MIN_ESS_PER_CHAIN} a chain"
            problems.append(f"{what} ESS of {names[worst]} is {ess[worst]:.0f} ({least}): {cure}")
    return problems
