"""``bayespar explore``: how fast tasks can be told apart, and which way of exploring to use."""

from __future__ import annotations

import argparse
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ..errors import TooLargeError
from ..planning.classes import TaskClasses
from ..planning.design import Design, cheapest_exploration, design_exploration
from ..planning.information import graph_table, information_graph
from ..planning.planner import UniformPolicy
from ..program import enumerate_program, load_model
from ..report.tree import terminal_tree
from ..simulate.separation import estimate_eta
from ..theory.constants import Constants, instance
from ..theory.policy_tree import policy_tree
from ..theory.recommend import Recommendation, Recommendations, recommend
from ..world import Family
from .common import WORLD, print_json


def register(add: Any) -> None:
    """Add the command."""
    command = add("explore", run, "how fast exploration tells tasks apart, and what to use for T episodes")
    command.add_argument("world", help=WORLD)
    command.add_argument("--episodes", type=int, default=100, metavar="T", help="episodes to plan for (default 100)")


def run(arguments: argparse.Namespace) -> int:
    """Always 0."""
    family = enumerate_program(load_model(arguments.world))
    try:
        best, cheapest = design_exploration(family), cheapest_exploration(family)
        recommended = recommend(family, episodes=arguments.episodes)
        graph = information_graph(best.classes.family)
    except TooLargeError as error:
        return _by_simulation(family, error, arguments)
    policies = {"uniform": UniformPolicy(family.num_subgoals), "best": best.policy, "cheapest": cheapest.policy}
    tables = {name: graph_table(graph, policy) for name, policy in policies.items()}
    constants = {name: instance(graph, table) for name, table in tables.items()}
    if arguments.json:
        print_json(_data(best, constants, recommended))
        return 0
    console = Console(highlight=False)
    _print_classes(console, best.classes)
    if len(best.classes.members) > 1:
        console.print(_etas(constants))
        if best.hardest_pair is not None and not best.classes.merged:
            console.print(f"Hardest to tell apart: {best.hardest_pair[0]} / {best.hardest_pair[1]}\n", style="dim")
        title = f"The best exploration policy, eta* = {best.eta_classes:.4g}"
        console.print(terminal_tree(policy_tree(title, graph, tables["best"][0])))
        console.print()
    _print_ranking(console, recommended)
    return 0


def _data(best: Design, constants: dict[str, Constants], recommended: Recommendations) -> dict[str, Any]:
    return {
        "eta": best.eta,
        "eta_classes": best.eta_classes,
        "eta_upper": best.upper,
        "hardest_pair": best.hardest_pair,
        "merged": [list(names) for names in best.classes.merged],
        "merged_distance": best.classes.distance,
        "policies": {n: {"eta": c.least_eta, "loss": float(c.loss.max())} for n, c in constants.items()},
        "episodes": recommended.episodes,
        "recommended": [_row(r) for r in recommended.ranked],
    }


def _row(r: Recommendation) -> dict[str, Any]:
    return {
        "rule": r.rule,
        "policy": r.policy_name,
        "eta": r.eta,
        "epsilon": r.epsilon,
        "guaranteed": r.guaranteed,
        "worst_case": r.worst_case,
        "trivial": r.trivial,
    }


def _print_classes(console: Console, classes: TaskClasses) -> None:
    for names in classes.merged:
        told = " and ".join(f"[bold]{name}[/]" for name in names)
        console.print(
            f"eta* = 0: {told} are one class. Their likelihoods agree on every history (relative distance "
            f"{classes.distance:.0e}), so no policy ever tells them apart. Nothing is lost by that: they have the same "
            "values and the same expert. Below they count as one task.\n"
        )


def _etas(constants: dict[str, Constants]) -> Table:
    table = Table(title="Exploration policies", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("policy")
    for name in ("eta", "loss an episode", "loss / eta"):
        table.add_column(name, justify="right")
    for name, c in constants.items():
        loss = float(c.loss.max())
        table.add_row(name, f"{c.least_eta:.4g}", f"{loss:.4g}", f"{loss / c.least_eta:.4g}" if c.least_eta else "inf")
    return table


def _print_ranking(console: Console, recommended: Recommendations) -> None:
    T = recommended.episodes
    if len(recommended.classes.members) == 1:
        console.print("There is nothing to learn: do not explore. BAIL acts as the expert from the first episode on.")
        return
    title = f"Regret guaranteed to BAIL after {T} episodes, best first"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("rule", "policy", "explores", "here", "any such world"):
        table.add_column(name, justify="left" if name in ("rule", "policy", "explores") else "right")
    for r in recommended.ranked:
        style = None if r.informative else "dim"
        numbers = f"{r.guaranteed:.4g}", f"{r.worst_case:.4g}"
        table.add_row(r.rule, r.policy_name, str(r.exploration), *numbers, style=style)
    console.print(table)
    console.print(
        f"Acting badly in every episode loses {recommended.best.trivial:.4g}: a guarantee above that says nothing. "
        "Policies: uniform subgoals; best, of largest eta; cheapest, of least loss / eta.",
        style="dim",
    )


def _by_simulation(family: Family, error: TooLargeError, arguments: argparse.Namespace) -> int:
    """What can be said of a world whose histories do not fit."""
    interval = estimate_eta(family, "uniform", key=arguments.key)
    if arguments.json:
        print_json({"too_large": str(error), "uniform_eta": {"low": interval.low, "high": interval.high}})
        return 0
    console = Console(highlight=False)
    console.print(f"The best policy cannot be computed: {error}.\n")
    console.print(
        f"By simulation, uniform subgoals have an eta between {interval.low:.4g} and {interval.high:.4g} (error "
        f"{interval.alpha:g} at most). A gate needs no eta: bayespar regret {arguments.world} --explore gated"
    )
    return 0
