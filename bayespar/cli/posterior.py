"""``bayespar posterior``: P(z | prompt), and BAIL."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import InvalidPromptError
from ..history import Prompt
from ..planning.bail import bail
from ..posterior.choose import posterior
from ..program import enumerate_program, load_model
from ..world import Family
from .common import WORLD, bars, print_json


def register(add: Any) -> None:
    """Add the command."""
    command = add("posterior", run, "the posterior over tasks, and BAIL, given a prompt")
    command.add_argument("world", help=WORLD)
    command.add_argument(
        "--prompt", type=Path, required=True, help="a prompt as JSON (see docs/prompts.md), or as text"
    )


def run(arguments: argparse.Namespace) -> int:
    """Always 0."""
    family = enumerate_program(load_model(arguments.world))
    prompt = _read_prompt(arguments.prompt, family)
    result = posterior(family, prompt)
    subgoals = bail(family, prompt) if 1 <= prompt.step < family.horizon else None
    if arguments.json:
        print_json(
            {
                "method": result.method,
                "log_evidence": result.log_evidence,
                "tasks": dict(zip(family.tasks, result.probabilities.tolist(), strict=True)),
                "sites": {name: _marginal(result, name) for name, _ in family.sites},
                "bail": None if subgoals is None else dict(zip(family.subgoals, subgoals.tolist(), strict=True)),
            }
        )
        return 0
    console = Console()
    console.print(bars("task", family.tasks, result.probabilities))
    if subgoals is not None:
        console.print(bars("BAIL's next subgoal", family.subgoals, subgoals))
    console.print(f"log evidence {result.log_evidence:.4f} nats, {result.method}", style="dim")
    return 0


def _read_prompt(path: Path, family: Family) -> Prompt:
    try:
        text = path.read_text("utf-8")
    except (OSError, ValueError) as error:  # no such file, not UTF-8, or a name that no file can have
        raise InvalidPromptError(f"cannot read {path}: {error}") from None
    return Prompt.from_text(text, family) if text.lstrip().startswith("Episode") else Prompt.from_json(text, family)


def _marginal(result: Any, name: str) -> dict[str, float]:
    marginal = result.marginal(name)
    return {str(v): float(p) for v, p in zip(marginal.coords[name].values, marginal.values, strict=True)}
