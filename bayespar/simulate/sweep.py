"""A sweep: worlds x planners x explorations x episodes x keys, cell by cell, in a folder that outlives every kill.

A cell is a pure function of the manifest and its number. Any number of processes work on the cells, each at one that no
other is at, and a file is there as a whole or not at all. So a process that is killed loses the cell that it was at;
another one does it instead, and the bytes are the same whoever did.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import json
import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ..distributed import Job, current_job, together
from ..errors import BayesparError, InvalidPlannerError, InvalidWorldError
from ..keys import check_key
from ..planning.expert import Experts, solve_experts
from ..planning.exploration import as_exploration, check_rule
from ..program import as_family, load_model
from ..validation import check_count, shown
from ..world import Family
from .claims import claims
from .folder import MANIFEST, check_manifest, fingerprint, make_folder, replace_json
from .regret import PLANNERS, simulate_regret
from .summary import curve_data, group_data

FORMAT = 1
CELLS, CLAIMS, SUMMARY, WHAT = "cells", "claims", "summary.json", "a sweep"


class Cell(NamedTuple):
    """One combination.

    Attributes:
        world, task, planner, exploration, episodes, key: as :func:`simulate_regret` takes them; the world by its name.
    """

    world: str
    task: int
    planner: str
    exploration: float | str
    episodes: int
    key: int


def sweep(
    worlds: Any,
    folder: str | os.PathLike[str],
    *,
    planners: Any = ("bail",),
    explorations: Any = (0.0,),
    episodes: Any = (100,),
    keys: Any = (0,),
    seeds: int = 64,
    exploration_policy: str = "uniform",
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Simulate the regret of every combination, under every task of positive prior, or go on where others stopped.

    Each result is written as soon as it is there, at once and with a checksum. Any number of calls may work in the same
    folder, at the same time or one after the other; no cell is computed twice, and the bytes of a result don't depend
    on who computed it. Every call returns when all cells are there. The processes of a job (see
    :func:`bayespar.distributed.together`) begin at different places. A combination that :func:`simulate_regret`
    refuses, such as a plan over more histories than fit, is a cell too: it says why.

    Args:
        worlds: a list of what :func:`load_model` takes; or a dict by name, then finite programs and families too.
        folder: is made; holds ``manifest.json``, ``cells/00000.json``, ... and, in the end, ``summary.json``.
        planners: a list of names that :func:`simulate_regret` knows.
        explorations: a list of probabilities and rules by name.
        episodes: a list of values of T.
        keys: a list of integers; a cell of key k and task z is ``simulate_regret(..., key=k + z)``.
        seeds: independent runs of each cell.
        exploration_policy: "uniform", "best" or "cheapest".
        workers: processes; with more than one, worlds are what :func:`load_model` takes.
        progress: called with how many cells there are by now, and of how many.

    Returns:
        The summary: a row for each combination of world, planner, exploration and T; docs/distributed.md has its keys.

    Raises:
        InvalidFolderError: the folder cannot be written to, or it holds a sweep of other settings or versions.
        InvalidPlannerError: no such planner, rule or policy, or an empty axis.
        InvalidWorldError: no such world, or its tasks have a density.
    """
    named = dict(worlds) if isinstance(worlds, Mapping) else {name: name for name in _axis("worlds", worlds)}
    if not all(isinstance(name, str) for name in _axis("worlds", list(named))):
        raise InvalidWorldError("worlds has programs or families without a name; give a dict: name -> world")
    policy = exploration_policy
    axes = {
        "planners": [_check_known("planners", name, PLANNERS) for name in _axis("planners", planners)],
        "explorations": [_check_exploration(rule) for rule in _axis("explorations", explorations)],
        "episodes": [check_count("episodes", T) for T in _axis("episodes", episodes)],
        "keys": [_check_key(key) for key in _axis("keys", keys)],
        "seeds": check_count("seeds", seeds),
        "exploration_policy": _check_known("exploration_policy", policy, ("uniform", "best", "cheapest")),
    }
    check_count("workers", workers)
    if progress is not None and not callable(progress):
        raise InvalidPlannerError(f"progress = {shown(progress)}; give a function of two counts, or None")
    if workers > 1 and not all(isinstance(world, str) for world in named.values()):
        raise InvalidWorldError(f"workers = {workers}, but a program cannot be sent to another process; give its name")
    described = {name: _described(_load(world)) for name, world in named.items()}
    manifest = {
        "format": FORMAT,
        "settings": {"worlds": described, **axes},
        "versions": {name: importlib.metadata.version(name) for name in ("bayespar", "jax", "numpy")},
        "backend": jax.default_backend(),
    }
    place = make_folder(folder, CELLS, WHAT)
    with claims(place / CLAIMS) as claim, claim(0, True):
        if not (place / MANIFEST).exists():
            replace_json(place / MANIFEST, manifest)
        check_manifest(place, manifest, WHAT)
    work = Work(place, named, manifest["settings"])
    job = current_job()
    if workers > 1:
        _in_processes(work, workers, progress)
    with together(Job()):  # a cell is one process's own
        run_cells(work, job.index, job.count, progress)
    summary = summarise(work)
    with claims(place / CLAIMS) as claim, claim(0, True):  # others may be as far
        replace_json(place / SUMMARY, summary)
    return summary


class Work(NamedTuple):
    """What a worker has to know.

    Attributes:
        folder: of the sweep.
        worlds: by name, what :func:`load_model` takes or a program.
        settings: as in the manifest.
    """

    folder: Path
    worlds: dict[str, Any]
    settings: dict[str, Any]

    def cells(self) -> list[Cell]:
        """All of them, in the order of their numbers: those that share a compiled program lie together."""
        told = self.settings
        axes = told["planners"], told["explorations"], told["episodes"], told["keys"]
        return [
            Cell(world, task, *point)
            for world, about in told["worlds"].items()
            for (*point,) in itertools.product(*axes)
            for task in range(len(about["tasks"]))
            if about["prior"][task] > 0
        ]

    def file(self, number: int) -> Path:
        """Where the result of a cell is."""
        return self.folder / CELLS / f"{number:05d}.json"

    def read(self, number: int) -> dict[str, Any] | None:
        """The result of a cell; None if it is not there, or harmed."""
        try:
            found = json.loads(self.file(number).read_text("utf-8"))
            told = found.pop("sha256")
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        return found if told == _checksum(found) else None


def run_cells(work: Work, index: int, count: int, progress: Callable[[int, int], None] | None = None) -> None:
    """What worker ``index`` of ``count`` does: every cell that nobody else does, and returns when all are there."""
    cells = work.cells()
    start = len(cells) * index // count
    order = [*range(start, len(cells)), *range(start)]
    there: set[int] = set()

    @lru_cache(maxsize=1)
    def solved(world: str) -> tuple[Family, Experts]:
        family = _load(work.worlds[world])
        return family, solve_experts(family)

    def finished(number: int) -> bool:
        if number not in there and work.read(number) is not None:
            there.add(number)
            if progress is not None:
                progress(len(there), len(cells))
        return number in there

    with claims(work.folder / CLAIMS) as claim:
        for patient in (False, True):  # at last, wait for the cells that others are at: until they finish, or die
            for number in order:
                if finished(number):
                    continue
                if _orphaned():
                    return
                with claim(number + 1, patient) as mine:
                    if mine and not finished(number):
                        _run_cell(work, number, cells[number], solved)
                        finished(number)


def _run_cell(work: Work, number: int, cell: Cell, solved: Callable[[str], tuple[Family, Experts]]) -> None:
    settings = work.settings
    try:
        family, experts = solved(cell.world)
        curves = simulate_regret(
            family,
            cell.task,
            cell.planner,
            cell.exploration,
            cell.episodes,
            settings["seeds"],
            settings["exploration_policy"],
            key=cell.key + cell.task,
            experts=experts,
        )
        result = {**curve_data(curves), "runs": curves.regret.sum(axis=1).tolist()}
    except BayesparError as error:
        result = {"refused": f"{type(error).__name__}: {error}"}
    found = {"cell": {**cell._asdict(), "task": settings["worlds"][cell.world]["tasks"][cell.task]}, "result": result}
    replace_json(work.file(number), {**found, "sha256": _checksum(found)})


def summarise(work: Work) -> dict[str, Any]:
    """A row for each world, planner, exploration and T."""
    groups: dict[Cell, list[dict[str, Any]]] = {}
    for number, cell in enumerate(work.cells()):
        result = (work.read(number) or {})["result"]
        groups.setdefault(cell._replace(task=0, key=0), []).append({"task": cell.task, **result})
    rows = []
    for point, cells in groups.items():
        about = work.settings["worlds"][point.world]
        row = {name: value for name, value in point._asdict().items() if name not in ("task", "key")}
        why = [cell["refused"] for cell in cells if "refused" in cell]
        rows.append(row | ({"refused": why[0]} if why else group_data(about["prior"], about["tasks"], cells)))
    return {"format": FORMAT, "cells": sum(map(len, groups.values())), "rows": rows}


def _in_processes(work: Work, workers: int, progress: Callable[[int, int], None] | None) -> None:
    """Work in processes of their own; it may be that some die."""
    context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads in the middle of their work
    running = [context.Process(target=run_cells, args=(work, i, workers), daemon=True) for i in range(workers)]
    for process in running:
        process.start()
    total, alive = len(work.cells()), [process.sentinel for process in running]
    while alive:
        over = wait(alive, timeout=0.5)
        alive = [sentinel for sentinel in alive if sentinel not in over]
        if progress is not None:
            progress(len(list((work.folder / CELLS).glob("*.json"))), total)
    for process in running:
        process.join()


def _orphaned() -> bool:
    """Whether this is a worker whose master was killed."""
    master = multiprocessing.parent_process()
    return master is not None and not master.is_alive()


def _load(world: Any) -> Family:
    return as_family(load_model(world) if isinstance(world, str) else world)


def _described(family: Family) -> dict[str, Any]:
    prior = np.asarray(family.task_prior, np.float64).tolist()
    return {"fingerprint": fingerprint(family), "tasks": list(family.tasks), "prior": prior}


def _checksum(found: Any) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _axis(name: str, values: Any) -> list[Any]:
    """``values`` as a list, if there are some and none twice."""
    if isinstance(values, (str, bytes)) or not isinstance(values, (Sequence, np.ndarray)) or not len(values):
        raise InvalidPlannerError(f"{name} = {shown(values)}; give a list of one at least")
    found = values.tolist() if isinstance(values, np.ndarray) else list(values)
    for i, value in enumerate(found):
        if value in found[:i]:
            raise InvalidPlannerError(f"{name}[{i}] = {shown(value)} is there already; give each once")
    return found


def _check_known(name: str, value: Any, known: Any) -> str:
    if not isinstance(value, str) or value not in known:
        raise InvalidPlannerError(f"{name}: there is no {shown(value)}; give {', '.join(map(repr, known))}")
    return value


def _check_exploration(rule: Any) -> float | str:
    if isinstance(rule, str):
        check_rule(rule)
        return rule
    return float(as_exploration(rule, 1).coin[0])


def _check_key(key: Any) -> int:
    check_key(key)
    if not isinstance(key, (int, np.integer)):
        raise InvalidPlannerError(f"keys: {shown(key)}; give integers")
    return int(key)
