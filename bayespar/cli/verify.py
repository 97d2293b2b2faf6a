"""``bayespar verify``: check the theorems."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..distributed import together
from ..program import available_models, load_model
from ..report.json_report import report_data, write_report
from ..report.table import verdict_table
from ..theory.runner import select_claims, verify
from . import cluster
from .common import WORLD, make_folder, print_json


def register(add: Any) -> None:
    """Add the command."""
    command = add("verify", run, "check the theorems on worlds and print a table of verdicts")
    command.add_argument("worlds", nargs="*", help=f"{WORLD}; all shipped worlds by default")
    command.add_argument("--claims", nargs="+", metavar="ID", help="claims to check (default: all)")
    command.add_argument("--profile", choices=("quick", "full"), default="quick")
    command.add_argument("--out", type=Path, metavar="DIR", help="write report.json and index.html there")
    cluster.add_arguments(command)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 iff everything holds."""
    job = cluster.job_of(arguments)
    make_folder(arguments.out)
    names = arguments.worlds or available_models()
    short = [Path(name).stem if name.endswith(".py") else name for name in names]
    for name in names:
        load_model(name)  # a world that is not there is told before any work
    worlds = {s if short.count(s) == 1 else n: n for s, n in zip(short, names, strict=True)}
    console = Console(stderr=True, quiet=not job.leads)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        total = len(worlds) * len(select_claims(arguments.claims))
        bar = progress.add_task("checking", total=total)

        def done(claim: str, world: str) -> None:
            progress.update(bar, advance=1, description=f"{claim} on {world}")

        with together(job):
            report = verify(
                worlds,
                arguments.claims,
                profile=arguments.profile,
                key=arguments.key,
                shipped=not arguments.worlds,
                progress=done,
            )
    status = 0 if report.passed else 1
    if not job.leads:
        return status
    if arguments.out is not None:
        from ..report.html import write_html  # matplotlib takes a second to load

        console.print(f"wrote {write_report(report, arguments.out)} and {write_html(report, arguments.out)}")
    if arguments.json:
        print_json(report_data(report))
    else:
        Console().print(verdict_table(report))
    return status
