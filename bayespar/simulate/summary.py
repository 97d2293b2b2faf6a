"""Regret curves as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .regret import RegretCurves

POINTS = 400  # of a curve, in JSON and plots


def picked(episodes: int) -> np.ndarray:
    """The episodes at which curves are written down, from 0."""
    if episodes <= POINTS:
        return np.arange(episodes)
    return np.unique(np.geomspace(1, episodes, POINTS).astype(int)) - 1


def curve_data(curves: RegretCurves) -> dict[str, Any]:
    """Curves as JSON data."""
    interval, known = curves.interval(), curves.true_task[:, -1]
    return {
        "regret": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "alpha": interval.alpha,
        "explored": float(curves.explored.sum(axis=1).mean()),
        "true_task": None if np.isnan(known).any() else float(known.mean()),
        "cumulative": curves.cumulative.mean(axis=0)[picked(curves.regret.shape[1])].tolist(),
    }


def group_data(prior: Sequence[float], tasks: Sequence[str], cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Cells of all tasks, some of each, as a row of a table: means over the runs, and over tasks by their prior.

    Args:
        prior: [Z].
        tasks: names, [Z].
        cells: the index of its task, the regret of its ``runs``, ``explored`` and ``true_task`` of each.
    """
    runs: dict[int, list[float]] = {}
    for cell in cells:
        runs.setdefault(cell["task"], []).extend(cell["runs"])
    total = sum(prior[z] for z in runs)
    share = {z: prior[z] / total for z in runs}
    mean = {z: float(np.mean(runs[z])) for z in runs}
    worst = max(runs, key=lambda z: mean[z])

    def over_runs(name: str) -> float:
        return float(sum(share[c["task"]] * c[name] * len(c["runs"]) / len(runs[c["task"]]) for c in cells))

    return {
        "regret": float(sum(share[z] * mean[z] for z in runs)),
        "error": float(np.sqrt(sum(share[z] ** 2 * np.var(runs[z]) / len(runs[z]) for z in runs))),
        "worst": mean[worst],
        "worst_task": tasks[worst],
        "explored": over_runs("explored"),
        "true_task": None if any(c["true_task"] is None for c in cells) else over_runs("true_task"),
        "runs": sum(map(len, runs.values())),
    }
