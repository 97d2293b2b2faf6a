"""``bayespar regret``: run a planner, and see what it loses."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..distributed import together
from ..errors import InvalidPlannerError, TooLargeError
from ..planning.classes import task_classes
from ..planning.design import as_exploration_policy
from ..planning.expert import solve_experts
from ..planning.exploration import RULES, Exploration, Odds, as_exploration, by_rule
from ..planning.hellinger import eta
from ..planning.information import graph_table, information_graph
from ..planning.planner import Planner
from ..program import enumerate_program, load_model
from ..simulate.regret import PLANNERS, RegretCurves, simulate_regret
from ..simulate.summary import curve_data, picked
from ..theory.bounds import epsilon_greedy, gated_regret, predictive_planning
from ..theory.constants import Constants, instance
from ..theory.figure import Curves, Series
from ..world import Family
from . import cluster
from .common import WORLD, make_folder, print_json

THEOREMS: dict[tuple[str, bool], tuple[str, Callable[[Constants, Exploration], np.ndarray]]] = {
    ("bail", False): ("E2", lambda own, rule: epsilon_greedy(own, rule.coin)),
    ("bail", True): ("E3", lambda own, rule: gated_regret(own, rule.gate)),
    ("bawm", False): ("W2", lambda own, rule: predictive_planning(own, rule.coin)),
}
"""The theorem that bounds a planner's regret, and its bound [C, T], by planner and whether a gate explores."""


def register(add: Any) -> None:
    """Add the command."""
    command = add("regret", run, "run a planner for T episodes, many times over, and measure what it loses")
    command.add_argument("world", help=WORLD)
    command.add_argument("--planner", choices=tuple(PLANNERS), default="bail")
    command.add_argument(
        "--explore",
        default="0",
        metavar="RULE",
        help=f"a probability, or {', '.join(RULES)} (default 0: never)",
    )
    command.add_argument(
        "--policy",
        choices=("uniform", "best", "cheapest"),
        default="uniform",
        help="what exploring episodes do (default uniform)",
    )
    command.add_argument("--episodes", type=int, default=100, metavar="T", help="default 100")
    command.add_argument("--seeds", type=int, default=256, metavar="N", help="runs for each task (default 256)")
    command.add_argument("--task", metavar="NAME", help="the true task; by default every task in turn")
    command.add_argument("--out", type=Path, metavar="DIR", help="write regret.json, regret.svg and regret.png there")
    cluster.add_arguments(command)


def run(arguments: argparse.Namespace) -> int:
    """Always 0."""
    job = cluster.job_of(arguments)
    make_folder(arguments.out)
    family = enumerate_program(load_model(arguments.world))
    prior = np.asarray(family.task_prior)
    tasks = np.flatnonzero(prior > 0).tolist() if arguments.task is None else [family.task_index(arguments.task)]
    if arguments.episodes < 1 or arguments.seeds < 1:
        raise InvalidPlannerError(f"--episodes {arguments.episodes} --seeds {arguments.seeds}; both are at least 1")
    policy = as_exploration_policy(arguments.policy, family)
    rule = _rule(arguments.explore, family, policy, arguments.episodes)
    bound, why = _bound(family, arguments.planner, rule, policy)
    experts = solve_experts(family)
    console = Console(stderr=True, quiet=not job.leads)
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console) as progress, together(job):
        bar = progress.add_task("simulating", total=len(tasks) * arguments.seeds * arguments.episodes)
        curves = {
            z: simulate_regret(
                family,
                z,
                arguments.planner,
                rule,
                arguments.episodes,
                arguments.seeds,
                policy,
                key=arguments.key + z,
                experts=experts,
                progress=lambda count: progress.advance(bar, count),
            )
            for z in tasks
        }
        progress.update(bar, completed=len(tasks) * arguments.seeds * arguments.episodes)
    if not job.leads:
        return 0
    data = _data(family, arguments, curves, bound)
    if arguments.out is not None:
        from ..report.plots import write_plot  # matplotlib takes a second to load

        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
        (arguments.out / "regret.json").write_text(text + "\n", "utf-8")
        for suffix in ("svg", "png"):
            write_plot(_figure(family, arguments, curves, bound), arguments.out / f"regret.{suffix}")
        console.print(f"wrote regret.json, regret.svg and regret.png to {arguments.out}")
    if arguments.json:
        print_json(data)
    else:
        _print(family, arguments, curves, bound, why)
    return 0


def _rule(text: str, family: Family, policy: Planner, episodes: int) -> Exploration:
    """Epsilon, or a rule by name."""
    if text in RULES:
        needs_eta = not text.startswith("gated")
        return by_rule(text, Odds.of(family), eta(task_classes(family).family, policy) if needs_eta else 1.0, episodes)
    try:
        return as_exploration(float(text), episodes)
    except ValueError as error:
        if isinstance(error, InvalidPlannerError):
            raise
        raise InvalidPlannerError(f"--explore {text}: give a probability, or one of {', '.join(RULES)}") from None


def _bound(family: Family, planner: str, rule: Exploration, policy: Planner) -> tuple[np.ndarray | None, str]:
    """What a theorem guarantees to every task [Z, T], by the constants of this world, and its name; or None and why."""
    theorem, bound = THEOREMS.get((planner, rule.gated), ("", None))
    if bound is None:
        return None, f"no theorem bounds the regret of {planner}" + (" with a gate" if rule.gated else "")
    if not rule.gated and not rule.coin.any():
        return None, f"no theorem bounds {planner.upper()} without exploration"
    classes = task_classes(family)
    try:
        graph = information_graph(classes.family)
    except TooLargeError as error:
        return None, f"no bound: {error}"
    own = instance(graph, graph_table(graph, policy))
    episodes = len(rule.coin)
    values = bound(own, rule)
    most = own.worst if theorem == "W2" else own.trivial
    if (values[:, -1] >= most * episodes).all():
        return None, "the bound lies above what can be lost anyway"
    return values[classes.label], theorem


def _data(
    family: Family, arguments: argparse.Namespace, curves: dict[int, RegretCurves], bound: np.ndarray | None
) -> dict[str, Any]:
    at = picked(arguments.episodes)
    tasks = [
        {"task": family.tasks[z], "bound": None if bound is None else float(bound[z, -1]), **curve_data(found)}
        for z, found in curves.items()
    ]
    return {
        "world": arguments.world,
        "planner": arguments.planner,
        "explore": arguments.explore,
        "policy": arguments.policy,
        "episodes": arguments.episodes,
        "seeds": arguments.seeds,
        "key": arguments.key,
        "at": (at + 1).tolist(),
        "tasks": tasks,
    }


def _figure(
    family: Family, arguments: argparse.Namespace, curves: dict[int, RegretCurves], bound: np.ndarray | None
) -> Curves:
    """The tasks of largest and of smallest regret, and what is guaranteed to all."""
    at = picked(arguments.episodes)
    times = (at + 1).tolist()
    order = sorted(curves, key=lambda z: -float(curves[z].cumulative[:, -1].mean()))
    shown = order if len(order) <= 2 else [order[0], order[-1]]
    series = []
    for z in shown:
        runs = curves[z].cumulative[:, at]
        low, high = np.quantile(runs, [0.1, 0.9], axis=0)
        series.append(Series(family.tasks[z], times, runs.mean(axis=0).tolist(), low.tolist(), high.tolist()))
    if bound is not None:
        highest = bound[list(curves)].max(axis=0)
        series.append(Series("guaranteed to every task", times, highest[at].tolist(), kind="bound"))
    left = f"; the tasks of largest and smallest regret of {len(order)}" if len(order) > 2 else ""
    return Curves(
        f"{arguments.planner} on {Path(arguments.world).stem}, exploring: {arguments.explore}, {arguments.policy}",
        "episodes",
        "regret",
        series,
        log=True,
        note=f"Means of {arguments.seeds} runs and the middle 80 %{left}.",
    )


def _print(
    family: Family,
    arguments: argparse.Namespace,
    curves: dict[int, RegretCurves],
    bound: np.ndarray | None,
    why: str,
) -> None:
    T = arguments.episodes
    title = f"Regret of {arguments.planner} after {T} episodes, exploring: {arguments.explore} ({arguments.policy})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("regret", "s.e.", "bound", "explored", "P(task)"):
        table.add_column(name, justify="right")
    table.add_column("task")
    for z, found in curves.items():
        totals, known = found.cumulative[:, -1], found.true_task[:, -1]
        table.add_row(
            f"{totals.mean():.4g}",
            f"{totals.std() / math.sqrt(len(totals)):.2g}",
            "" if bound is None else f"{bound[z, -1]:.4g}",
            f"{found.explored.sum(axis=1).mean():.3g}",
            "" if np.isnan(known).any() else f"{known.mean():.4f}",
            family.tasks[z],
        )
    console = Console(highlight=False)
    console.print(table)
    told = f"bound: {why}, with the constants of this world" if bound is not None else why
    console.print(
        f"{arguments.seeds} runs a task; explored: episodes; P(task): of the true one before the last episode; {told}.",
        style="dim",
    )
