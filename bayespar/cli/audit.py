"""``bayespar audit``: how Bayesian is a planner?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from ..errors import InvalidPlannerError
from ..learned.audit import audit
from ..planning.expert import solve_experts
from ..program import enumerate_program, load_model
from ..simulate.regret import PLANNERS
from .common import WORLD, make_folder, print_json


def register(add: Any) -> None:
    """Add the command."""
    command = add("audit", run, "measure how far a planner is from BAIL, what it behaves like, and what that costs")
    names = ", ".join(name for name in PLANNERS if name != "oracle")
    command.add_argument("world", help=WORLD)
    command.add_argument(
        "planner",
        nargs="?",
        help=f"{names}; or module:function or path.py:function, which is loaded, and so run: load only what you trust. "
        "A function of one argument `family` is called to make the planner",
    )
    command.add_argument("--endpoint", metavar="URL", help="audit a model behind an OpenAI-compatible endpoint instead")
    command.add_argument("--model", metavar="NAME", help="the model's name there")
    command.add_argument(
        "--key-variable",
        default="OPENAI_API_KEY",
        metavar="NAME",
        help="environment variable that holds the endpoint's key (default OPENAI_API_KEY)",
    )
    command.add_argument("--cache", type=Path, metavar="FILE", help="keep the endpoint's answers there, and reuse them")
    command.add_argument("--budget", type=int, metavar="N", help="the most decisions to ask for, or endpoint calls")
    command.add_argument("--text", action="store_true", help="the planner is a function of the prompt's words")
    command.add_argument(
        "--prompts", type=int, metavar="B", help="default: what takes a few seconds; 64 for a callable"
    )
    command.add_argument("--episodes", type=int, default=16, metavar="N", help="of each prompt (default 16)")
    command.add_argument("--seeds", type=int, metavar="N", help="runs for each task to measure regret; 0 for none")
    command.add_argument("--resolution", type=float, default=0.01, help="nats a decision that matter (default 0.01)")
    command.add_argument("--out", type=Path, metavar="DIR", help="write audit.json and audit.html there")


def run(arguments: argparse.Namespace) -> int:
    """Exit status 1 iff the planner is found to differ from BAIL."""
    if (arguments.planner is None) == (arguments.endpoint is None and arguments.model is None):
        raise InvalidPlannerError("give a planner, or --model (and --endpoint), and not both")
    make_folder(arguments.out)
    family = enumerate_program(load_model(arguments.world)).astype(np.float64)
    experts = solve_experts(family)
    planner, name = arguments.planner, arguments.planner
    if planner is None:
        from ..learned.endpoint import Endpoint  # openai is optional

        if arguments.model is None:
            raise InvalidPlannerError("--endpoint needs --model, the model's name there")
        name = arguments.model
        planner = Endpoint(
            family,
            arguments.model,
            url=arguments.endpoint,
            key_variable=arguments.key_variable,
            budget=arguments.budget,
            cache=arguments.cache,
        )
    found = audit(
        planner,
        family,
        prompts=arguments.prompts,
        episodes=arguments.episodes,
        key=arguments.key,
        budget=arguments.budget,
        seeds=arguments.seeds,
        experts=experts,
        text=arguments.text,
        resolution=arguments.resolution,
        names=(name, arguments.world),
    )
    if arguments.out is not None:
        from ..report.audit_page import write_audit  # matplotlib takes a second to load

        data, page = write_audit(found, arguments.out)
        Console(stderr=True).print(f"wrote {data} and {page}")
    if arguments.json:
        print_json(found.to_dict())
    else:
        print(found)
    return 1 if found.found else 0
