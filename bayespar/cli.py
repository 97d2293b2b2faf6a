"""The ``bayespar`` command."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .errors import BayesparError, InvalidPromptError
from .history import Prompt
from .planning.bail import bail
from .posterior.exact import posterior
from .program import available_models, enumerate_program, load_model
from .report.json_report import report_data, write_report
from .report.table import verdict_table
from .theory.runner import select_claims, verify
from .world import Family


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 all is well, 1 something was not shown, 2 unusable input."""
    arguments = _parser().parse_args(argv)
    console = Console(stderr=True)
    try:
        return arguments.run(arguments)
    except BayesparError as error:
        console.print(f"[bold red]{type(error).__name__}[/]: {error}", markup=True, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bayespar", description="Bayesian inference for Planner-Actor-Reporter agents"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    world_help = "a shipped world's name, or the path of a .py file of your own (it is run: load only what you trust)"

    def add(name: str, run: Callable[[Any], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print JSON on standard output")
        command.add_argument("--key", type=int, default=0, help="key of every random choice (default 0)")
        return command

    command = add("verify", _verify, "check the theorems on worlds and print a table of verdicts")
    command.add_argument("worlds", nargs="*", help=f"{world_help}; all shipped worlds by default")
    command.add_argument("--claims", nargs="+", metavar="ID", help="claims to check (default: all)")
    command.add_argument("--profile", choices=("quick", "full"), default="quick")
    command.add_argument("--out", type=Path, metavar="DIR", help="write report.json and index.html there")

    add("models", _models, "list the shipped worlds")

    command = add("posterior", _posterior, "the posterior over tasks, and BAIL, given a prompt")
    command.add_argument("world", help=world_help)
    command.add_argument(
        "--prompt", type=Path, required=True, help="a prompt as JSON (see docs/prompts.md), or as text"
    )
    return parser


def _verify(arguments: argparse.Namespace) -> int:
    names = arguments.worlds or available_models()
    short = [Path(name).stem if name.endswith(".py") else name for name in names]
    worlds = {s if short.count(s) == 1 else n: load_model(n) for s, n in zip(short, names, strict=True)}
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    ) as progress:
        total = len(worlds) * len(select_claims(arguments.claims))
        bar = progress.add_task("checking", total=total)

        def done(claim: str, world: str) -> None:
            progress.update(bar, advance=1, description=f"{claim} on {world}")

        report = verify(
            worlds,
            arguments.claims,
            profile=arguments.profile,
            key=arguments.key,
            shipped=not arguments.worlds,
            progress=done,
        )
    if arguments.out is not None:
        from .report.html import write_html  # matplotlib takes a second to load

        console.print(f"wrote {write_report(report, arguments.out)} and {write_html(report, arguments.out)}")
    if arguments.json:
        print(json.dumps(report_data(report), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        Console().print(verdict_table(report))
    return 0 if report.passed else 1


def _models(arguments: argparse.Namespace) -> int:
    rows = []
    for name in available_models():
        program = load_model(name)
        family = enumerate_program(program)
        module = sys.modules[program.__module__]
        rows.append({"name": name, **_sizes(family), "about": (module.__doc__ or "").strip().split("\n")[0]})
    if arguments.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return 0
    table = Table()
    for column in ("name", "Z", "S", "G", "O", "H", "W", "about"):
        table.add_column(column, justify="right" if len(column) == 1 else "left")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    Console().print(
        "Z tasks, S states, G subgoals, O observations, H observations an episode, W instructions", style="dim"
    )
    return 0


def _posterior(arguments: argparse.Namespace) -> int:
    family = enumerate_program(load_model(arguments.world))
    prompt = _read_prompt(arguments.prompt, family)
    result = posterior(family, prompt)
    subgoals = bail(family, prompt) if 1 <= prompt.step < family.horizon else None
    if arguments.json:
        data = {
            "method": result.method,
            "log_evidence": result.log_evidence,
            "tasks": dict(zip(family.tasks, result.probabilities.tolist(), strict=True)),
            "sites": {name: _marginal(result, name) for name, _ in family.sites},
            "bail": None if subgoals is None else dict(zip(family.subgoals, subgoals.tolist(), strict=True)),
        }
        print(json.dumps(data, indent=2, ensure_ascii=False))
        return 0
    console = Console()
    console.print(_bars("task", family.tasks, result.probabilities))
    if subgoals is not None:
        console.print(_bars("BAIL's next subgoal", family.subgoals, subgoals))
    console.print(f"log evidence {result.log_evidence:.4f} nats, {result.method}", style="dim")
    return 0


def _read_prompt(path: Path, family: Family) -> Prompt:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidPromptError(f"cannot read {path}: {error}") from None
    return Prompt.from_text(text, family) if text.lstrip().startswith("Episode") else Prompt.from_json(text, family)


def _marginal(result: Any, name: str) -> dict[str, float]:
    marginal = result.marginal(name)
    return {str(v): float(p) for v, p in zip(marginal.coords[name].values, marginal.values, strict=True)}


def _bars(title: str, names: Sequence[str], probabilities: np.ndarray, most: int = 12) -> Table:
    table = Table(box=None, title=title, title_justify="left", show_header=False)
    order = np.argsort(-probabilities, kind="stable")
    for i in order[:most]:
        table.add_row(names[int(i)], f"{probabilities[i]:.4f}", "█" * round(30 * float(probabilities[i])))
    if len(order) > most:
        rest = float(probabilities[order[most:]].sum())
        table.add_row(f"{len(order) - most} more", f"{rest:.4f}", "█" * round(30 * rest), style="dim")
    return table


def _sizes(family: Family) -> dict[str, int]:
    return {
        "Z": family.num_tasks,
        "S": family.num_states,
        "G": family.num_subgoals,
        "O": family.num_observations,
        "H": family.horizon,
        "W": family.num_instructions,
    }


if __name__ == "__main__":
    sys.exit(main())
