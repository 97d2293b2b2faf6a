"""``bayespar models``: the shipped worlds."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from ..posterior.latents import as_latents
from ..program import available_models, enumerate_program, load_model
from ..world import Family
from .common import print_json


def register(add: Any) -> None:
    """Add the command."""
    add("models", run, "list the shipped worlds")


def run(arguments: argparse.Namespace) -> int:
    """Always 0."""
    rows = []
    for name in available_models():
        program = load_model(name)
        latents = as_latents(program)
        family = enumerate_program(program) if latents is None else latents.example
        module = sys.modules[program.__module__]
        sizes = _sizes(family) | {"D": 0 if latents is None else latents.dimension}
        rows.append({"name": name, **sizes, "about": (module.__doc__ or "").strip().split("\n")[0]})
    if arguments.json:
        print_json(rows)
        return 0
    table = Table()
    for column in ("name", "Z", "S", "G", "O", "H", "W", "D", "about"):
        table.add_column(column, justify="right" if len(column) == 1 else "left")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    Console().print(
        "Z tasks (beside a density: joint values of the finite sites), S states, G subgoals, O observations, "
        "H observations an episode, W instructions, D coordinates with a density",
        style="dim",
    )
    return 0


def _sizes(family: Family) -> dict[str, int]:
    return {
        "Z": family.num_tasks,
        "S": family.num_states,
        "G": family.num_subgoals,
        "O": family.num_observations,
        "H": family.horizon,
        "W": family.num_instructions,
    }
