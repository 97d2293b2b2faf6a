"""The parser, and what every command does about errors."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from ..compilations import counted, use_cache
from ..errors import BayesparError
from . import audit, corpus, explore, models, posterior, regret, sweep, verify
from .common import printable

COMMANDS = (verify, models, posterior, explore, regret, sweep, corpus, audit)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 all is well, 1 something was not shown, 2 unusable input.

    What is compiled stays in the user's cache folder; see :func:`bayespar.compilations.use_cache`.
    """
    arguments = _parser().parse_args(argv)
    console = Console(stderr=True)
    use_cache()
    try:
        with counted():
            return arguments.run(arguments)
    except BayesparError as error:
        told = escape(printable(str(error)))
        console.print(f"[bold red]{type(error).__name__}[/]: {told}", markup=True, highlight=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        console.print("interrupted")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bayespar", description="Bayesian inference for Planner-Actor-Reporter agents"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, run: Callable[[Any], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        command.add_argument("--json", action="store_true", help="print JSON on standard output")
        command.add_argument("--key", type=int, default=0, help="key of every random choice (default 0)")
        return command

    for command in COMMANDS:
        command.register(add)
    return parser
