"""``bayespar sweep``: many worlds, planners and rules side by side."""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..distributed import together
from ..errors import BayesparError
from ..simulate.sweep import SUMMARY, sweep
from ..validation import shown
from . import cluster
from .common import print_json, printable

_AXES = ("worlds", "planners", "explorations", "episodes", "keys")
_SETTINGS = (*_AXES, "seeds", "exploration_policy")


def register(add: Any) -> None:
    """Add the command."""
    command = add("sweep", run, "measure what planners lose: every world, planner, rule, T and key of a file")
    command.add_argument("spec", type=Path, help=f"a TOML file: lists {', '.join(_AXES)}; seeds, exploration_policy")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder; one begun before is gone on")
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes on this machine (default 1)")
    cluster.add_arguments(command)


def run(arguments: argparse.Namespace) -> int:
    """Always 0."""
    job = cluster.job_of(arguments)
    settings = {"keys": [arguments.key], **_read(arguments.spec)}
    console = Console(stderr=True, quiet=not job.leads)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress, together(job):
        bar = progress.add_task("cells", total=None)
        summary = sweep(
            folder=arguments.out,
            workers=arguments.workers,
            progress=lambda there, total: progress.update(bar, completed=there, total=total),
            **settings,
        )
    if not job.leads:
        return 0
    told = f"{summary['cells']} cells and {SUMMARY} are in {arguments.out}"
    console.print(printable(told), soft_wrap=True, highlight=False, markup=False)
    if arguments.json:
        print_json(summary)
    else:
        _print(summary)
    return 0


def _read(path: Path) -> dict[str, Any]:
    """The settings in a file, by name; what they are is for :func:`sweep` to check."""
    try:
        found = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BayesparError(f"cannot read {shown(str(path))}: {error}") from None
    for name in found:
        if name not in _SETTINGS:
            raise BayesparError(f"{path}: there is no setting {shown(name)}; the settings are {', '.join(_SETTINGS)}")
    if "worlds" not in found:
        raise BayesparError(f'{path}: give worlds, such as worlds = ["lock", "tiger"]')
    return found


def _print(summary: dict[str, Any]) -> None:
    table = Table(title="Regret after T episodes", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("world", "planner", "exploring"):
        table.add_column(name)
    for name in ("T", "regret", "s.e.", "worst", "explored", "P(task)"):
        table.add_column(name, justify="right", no_wrap=True)
    refused: dict[str, list[str]] = {}
    for row in summary["rows"]:
        point = row["world"], row["planner"], str(row["exploration"]), str(row["episodes"])
        if "refused" in row:
            table.add_row(*point, "refused", style="dim")
            refused.setdefault(row["refused"], []).append(" ".join(point))
            continue
        table.add_row(
            *point,
            f"{row['regret']:.4g}",
            f"{row['error']:.2g}",
            f"{row['worst']:.4g}",
            f"{row['explored']:.3g}",
            "" if row["true_task"] is None else f"{row['true_task']:.4f}",
        )
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(
        "regret: mean over runs, and over tasks by their prior; worst: of the task that loses most; explored: "
        "episodes; P(task): of the true one before the last episode.",
        style="dim",
    )
    for why, points in refused.items():
        console.print(printable(f"refused ({', '.join(points)}): {why}"), style="dim")
