"""``bayespar corpus``: a pretraining corpus as Parquet files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..distributed import together
from ..errors import InvalidPlannerError
from ..planning.expert import solve_experts
from ..planning.planner import UniformPolicy
from ..posterior.latents import as_latents
from ..program import as_family, load_model
from ..simulate.behaviours import BEHAVIOURS, Exploring, as_behaviour
from ..simulate.folder import MANIFEST
from ..simulate.shards import write_corpus
from ..world import Family
from . import cluster
from .common import WORLD, make_folder, print_json, printable


def register(add: Any) -> None:
    """Add the command."""
    command = add("corpus", run, "write a pretraining corpus: prompts, labels and exact conditionals, as Parquet files")
    command.add_argument("world", help=WORLD)
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a folder; one begun before is gone on")
    command.add_argument("--prompts", type=int, default=10_000, metavar="B", help="rows in all (default 10000)")
    command.add_argument("--episodes", type=int, default=32, metavar="N", help="of each prompt (default 32)")
    command.add_argument("--behaviour", choices=BEHAVIOURS, default="uniform", help="who acts (default uniform)")
    command.add_argument(
        "--epsilon", type=float, default=0.0, metavar="P", help="chance of an episode that explores (default 0)"
    )
    command.add_argument("--shard", type=int, default=1024, metavar="N", help="rows of a file (default 1024)")
    cluster.add_arguments(command)


def run(arguments: argparse.Namespace) -> int:
    """Always 0."""
    job = cluster.job_of(arguments)
    make_folder(arguments.out)
    program = load_model(arguments.world)
    behaviour: Any = arguments.behaviour
    latents, experts = as_latents(program), None
    worlds = as_family(program) if latents is None else latents
    if isinstance(worlds, Family):
        experts = solve_experts(worlds)
    if arguments.epsilon != 0:
        if not isinstance(worlds, Family) or experts is None:
            raise InvalidPlannerError("--epsilon is for finite tasks, but these have a density; leave it out")
        inner = as_behaviour(behaviour, worlds, experts)
        behaviour = Exploring(inner, arguments.epsilon, UniformPolicy(worlds.num_subgoals))
    console = Console(stderr=True, quiet=not job.leads)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress, together(job):
        bar = progress.add_task("writing", total=arguments.prompts)
        manifest = write_corpus(
            worlds,
            arguments.out,
            prompts=arguments.prompts,
            episodes=arguments.episodes,
            behaviour=behaviour,
            shard=arguments.shard,
            key=arguments.key,
            experts=experts,
            world=arguments.world,
            progress=lambda count: progress.advance(bar, count),
        )
    told = f"wrote {arguments.prompts} prompts as {len(manifest['shards'])} shards and {MANIFEST} to {arguments.out}"
    console.print(printable(told), soft_wrap=True, highlight=False, markup=False)
    if arguments.json and job.leads:
        print_json(manifest)
    return 0
