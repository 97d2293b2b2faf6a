"""``bayespar posterior``: P(z | prompt), by any method, and BAIL."""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..errors import BayesparError, InvalidPromptError
from ..history import Prompt
from ..planning.bail import bail
from ..planning.by_draws import bail_by_draws
from ..posterior.choose import posterior
from ..posterior.latents import as_latents
from ..posterior.result import Posterior
from ..posterior.sites import finite_sites
from ..program import as_family, load_model
from ..validation import shown
from ..world import Family
from .common import WORLD, bars, print_json, printable

METHODS = ("exact", "nuts", "smc")
_FILES = {".nc": "h5netcdf", ".zarr": "zarr"}
_MOST_ROWS = 40


def register(add: Any) -> None:
    """Add the command."""
    command = add("posterior", run, "the posterior over tasks, and BAIL, given a prompt")
    command.add_argument("world", help=WORLD)
    command.add_argument(
        "--prompt", type=Path, required=True, help="a prompt as JSON (see docs/prompts.md), or as text"
    )
    command.add_argument("--method", choices=METHODS, help="by default exact for finite tasks, else nuts")
    command.add_argument("--chains", type=int, metavar="N", help="of nuts and smc")
    command.add_argument("--draws", type=int, metavar="N", help="of each chain; particles, with smc")
    command.add_argument("--warmup", type=int, metavar="N", help="draws of nuts that are thrown away before")
    command.add_argument("--out", type=Path, metavar="FILE", help="write everything as a DataTree: .nc or .zarr")
    command.add_argument("--allow-problems", action="store_true", help="exit with 0 even where diagnostics failed")


def run(arguments: argparse.Namespace) -> int:
    """1 where the diagnostics found a problem that is not allowed, else 0."""
    _check_file(arguments.out)
    program = load_model(arguments.world)
    latents = as_latents(program)
    worlds = as_family(program) if latents is None else latents
    family = as_family(program) if latents is None else latents.example
    prompt = _read_prompt(arguments.prompt, family)
    with warnings.catch_warnings(record=True) as caught:  # what is wrong is said below, once
        warnings.simplefilter("always")
        result = posterior(worlds, prompt, arguments.method, **_settings(arguments, finite=latents is None))
        next_subgoal = _bail(worlds, prompt, result) if 1 <= prompt.step < family.horizon else None
    problems = _problems(result, caught)
    if arguments.out is not None:
        _write(result, arguments)
    if arguments.json:
        print_json(_data(result, family, next_subgoal, problems))
    else:
        _print(result, family, next_subgoal, problems)
    return 1 if problems and not arguments.allow_problems else 0


def _settings(arguments: argparse.Namespace, *, finite: bool) -> dict[str, Any]:
    """What was asked for, under the method's own names."""
    method = arguments.method or ("exact" if finite else "nuts")
    draws = "particles" if method == "smc" else "draws"
    given = {"chains": arguments.chains, draws: arguments.draws, "warmup": arguments.warmup}
    settings = {name: value for name, value in given.items() if value is not None}
    return settings if method == "exact" else {"key": arguments.key, **settings}


def _bail(worlds: Any, prompt: Prompt, result: Posterior) -> tuple[np.ndarray, np.ndarray]:
    """BAIL and its Monte Carlo standard errors, [G]; 0 where it is exact, NaN where the error is not known."""
    if isinstance(worlds, Family):
        found = bail(worlds, prompt, posterior=result)
        return found, np.zeros_like(found)
    estimate = bail_by_draws(worlds, prompt, posterior=result)
    return estimate.probabilities, estimate.standard_errors


def _problems(result: Posterior, caught: list[warnings.WarningMessage]) -> list[str]:
    if result.diagnostics is not None:
        return list(result.diagnostics.problems)
    error, tolerance = (result.attributes.get(name) for name in ("error", "tolerance"))
    if error is None or tolerance is None or error <= tolerance:
        return []
    return [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)] or [f"the error is {error:.2g}"]


def _print(result: Posterior, family: Family, next_subgoal: Any, problems: list[str]) -> None:
    console = Console(highlight=False)
    if result.draws:
        console.print(_table(result))
        for site in finite_sites(result.worlds):
            names, probabilities = _marginal(result, site)
            console.print(bars(site, names, probabilities))
    else:
        console.print(bars("task", family.tasks, result.probabilities))
    if next_subgoal is not None:
        chances, errors = next_subgoal
        console.print(bars("BAIL's next subgoal", family.subgoals, chances))
        if np.nanmax(errors, initial=0) > 0:
            console.print(f"Monte Carlo error of BAIL: at most {np.nanmax(errors):.4f} (one s.e.)", style="dim")
    evidence = "" if math.isnan(result.log_evidence) else f"log evidence {result.log_evidence:.4f} nats, "
    console.print(f"{evidence}{result.method}", style="dim")
    for problem in problems:
        console.print(f"[bold red]PROBLEM[/] {escape(printable(problem))}")


def _table(result: Posterior) -> Table:
    """The diagnostics of every coordinate; means and quantiles where the method has no chains."""
    if result.diagnostics is None:
        data, head = result.summary(), ["mean", "sd", "5 %", "median", "95 %"]
        formats = ["{:.4g}"] * 5
    else:
        data, head = result.diagnostics.table, ["mean", "sd", "mcse", "R-hat", "ESS bulk", "ESS tail"]
        formats = ["{:.4g}", "{:.4g}", "{:.2g}", "{:.3f}", "{:.0f}", "{:.0f}"]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("site")
    for name in head:
        table.add_column(name, justify="right")
    for name, row in list(zip(data.coordinate.values, data.values, strict=True))[:_MOST_ROWS]:
        table.add_row(printable(escape(str(name))), *(f.format(v) for f, v in zip(formats, row, strict=True)))
    if len(data) > _MOST_ROWS:
        table.add_row(f"{len(data) - _MOST_ROWS} more", *[""] * len(head), style="dim")
    return table


def _data(result: Posterior, family: Family, next_subgoal: Any, problems: list[str]) -> dict[str, Any]:
    """Plain data; what is not a number is null."""
    data: dict[str, Any] = {"method": result.method, "log_evidence": _number(result.log_evidence)}
    if result.draws:
        table = result.summary() if result.diagnostics is None else result.diagnostics.table
        statistics = [str(s) for s in table.statistic.values]
        data["coordinates"] = {
            str(name): {s: _number(v) for s, v in zip(statistics, row, strict=True)}
            for name, row in zip(table.coordinate.values, table.values, strict=True)
        }
    else:
        data["tasks"] = dict(zip(family.tasks, result.probabilities.tolist(), strict=True))
    data["sites"] = {
        name: dict(zip(names, map(float, p), strict=True))
        for name, (names, p) in ((name, _marginal(result, name)) for name in finite_sites(result.worlds))
    }
    data["bail"] = None
    if next_subgoal is not None:
        data["bail"] = dict(zip(family.subgoals, next_subgoal[0].tolist(), strict=True))
        if result.draws:
            errors = map(_number, next_subgoal[1])
            data["bail_standard_errors"] = dict(zip(family.subgoals, errors, strict=True))
    if result.draws:
        data["problems"] = problems
    return data


def _number(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _marginal(result: Posterior, name: str) -> tuple[list[str], np.ndarray]:
    marginal = result.marginal(name)
    return [str(v) for v in marginal.coords[name].values], marginal.values


def _read_prompt(path: Path, family: Family) -> Prompt:
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:  # no such file, not UTF-8, or a name that no file can have
        raise InvalidPromptError(f"cannot read {path}: {error}") from None
    return Prompt.from_text(text, family) if text.lstrip().startswith("Episode") else Prompt.from_json(text, family)


def _check_file(path: Path | None) -> None:
    """Before the work, so that nothing is lost where the file cannot be written."""
    if path is None:
        return
    if path.suffix not in _FILES:
        raise BayesparError(f"--out {shown(str(path))}: a posterior is written as .nc (NetCDF) or .zarr")
    try:
        __import__(_FILES[path.suffix])
    except ImportError:
        told = f'{_FILES[path.suffix]} is not installed; pip install "bayespar[arviz]"'
        raise BayesparError(f"--out {shown(str(path))}: {told}") from None
    if not path.parent.is_dir():
        raise BayesparError(f"--out {shown(str(path))}: there is no folder {path.parent}")


def _write(result: Posterior, arguments: argparse.Namespace) -> None:
    tree, path = result.to_datatree(key=arguments.key), arguments.out
    try:
        if path.suffix == ".nc":
            tree.to_netcdf(path, engine="h5netcdf")
        else:
            tree.to_zarr(path, mode="w", consolidated=False)
    except (OSError, ValueError) as error:
        raise BayesparError(f"--out {shown(str(path))}: {error}") from None
    Console(stderr=True).print(f"wrote {printable(str(path))}", soft_wrap=True, highlight=False)
