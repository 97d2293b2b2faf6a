"""Corpora as Parquet files, so that people can pretrain a model of their own on them; docs/corpora.md says how.

A shard is a pure function of the settings and its index, and is renamed into place once it is complete. So a run that
is killed loses at most the shards that its processes were at, and whoever runs it again ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import precision_of
from ..distributed import current_job, divide
from ..errors import InvalidFolderError, InvalidPlannerError
from ..keys import as_key, check_key
from ..planning.expert import Experts, check_experts, solve_experts
from ..planning.planner import as_planner
from ..posterior.arviz import MissingPackageError
from ..posterior.latents import Latents, as_latents
from ..program import Program, as_family
from ..validation import check_count, shown
from ..world import Family
from .behaviours import BEHAVIOURS, check_behaviour
from .corpus import sample_corpus
from .drawn_corpus import check_needs_no_tasks
from .environment import split_key
from .folder import MANIFEST, check_manifest, checksum, fingerprint, make_folder, replace_file, replace_json
from .tokens import corpus_table, vocabulary

FORMAT = 1
DATA, WHAT = "data", "a corpus"


def write_corpus(
    family_or_program: Family | Program | Latents,
    folder: str | os.PathLike[str],
    *,
    prompts: int,
    episodes: int,
    behaviour: Any = "uniform",
    shard: int = 1024,
    key: Any = 0,
    experts: Experts | None = None,
    world: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write a corpus into a folder, or go on where an earlier run stopped.

    The processes of a job (see :func:`bayespar.distributed.together`) share the shards, in a folder that all see.

    Args:
        family_or_program: a Family, or a program, finite or not.
        folder: is made; holds ``data/shard-00000.parquet``, ... and ``manifest.json``.
        prompts: rows in all.
        episodes: N, episodes in each prompt.
        behaviour: as for :func:`sample_corpus`.
        shard: rows of a file; what is held in memory at once.
        key: a JAX key or an int; shard k is the corpus of ``jax.random.fold_in(key, k)``.
        experts: from :func:`solve_experts`; solved here if not given.
        world: what the manifest calls the world; the program's name by default.
        progress: called with the number of rows after every shard, also of those that were there.

    Returns:
        The manifest.

    Raises:
        MissingPackageError: pyarrow is not installed.
        InvalidFolderError: the folder cannot be written, or its manifest is of other settings or versions.
        InvalidPlannerError: as :func:`sample_corpus`.
    """
    try:
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingPackageError('pyarrow is not installed; pip install "bayespar[corpus]"') from None
    prompts, episodes, shard = (
        check_count(name, count) for name, count in (("prompts", prompts), ("episodes", episodes), ("shard", shard))
    )
    check_key(key)
    if world is not None and not _is_text(world):
        raise InvalidPlannerError(f"world = {shown(world)}; give its name, or leave it out")
    if progress is not None and not callable(progress):
        raise InvalidPlannerError(f"progress = {shown(progress)}; give a function of the rows, or None")
    latents = as_latents(family_or_program)
    worlds: Any = latents
    if latents is None:
        assert not isinstance(family_or_program, Latents)
        worlds = as_family(family_or_program)
    family = worlds if latents is None else latents.example
    _check_behaviour(behaviour, family, latents is None, experts, episodes)
    root, entropy = split_key(key)
    settings = {
        "world": world or getattr(family_or_program, "__name__", "family"),
        "fingerprint": fingerprint(family, None if latents is None else dict(latents.shapes)),
        "prompts": prompts,
        "episodes": episodes,
        "horizon": family.horizon,
        "behaviour": _described(behaviour),
        "shard": shard,
        "key": entropy,
    }
    manifest = {
        "format": FORMAT,
        "settings": settings,
        "versions": {name: importlib.metadata.version(name) for name in ("bayespar", "jax", "numpy", "pyarrow")},
        "exact_conditionals": latents is None,
        "vocabulary": vocabulary(family),
        "tasks": list(family.tasks) if latents is None else None,
    }
    job = current_job()
    if any(told != manifest for told in job.exchange(manifest)):
        raise InvalidFolderError("the processes of the job differ in settings or versions; start all of them alike")
    (sums,) = divide(lambda _: [_begin(folder, manifest)], 1)
    if latents is None and experts is None and len(sums) * shard < prompts:
        experts = solve_experts(family)
    folder = Path(folder)
    rows = [min(shard, prompts - start) for start in range(0, prompts, shard)]
    names = [f"{DATA}/shard-{k:05d}.parquet" for k in range(len(rows))]
    missing = [k for k, name in enumerate(names) if name not in sums]

    def write(k: int) -> str:
        shard_key = jax.random.fold_in(as_key(root), k)
        drawn = sample_corpus(worlds, rows[k], episodes, behaviour, key=shard_key, experts=experts)
        table = corpus_table(drawn, family, k * shard)
        replace_file(folder / names[k], lambda path: parquet.write_table(table, path, compression="zstd"))
        return checksum(folder / names[k])

    def report(finished: Sequence[int]) -> None:
        for k in finished:
            if progress is not None:
                progress(rows[k])

    report([k for k, name in enumerate(names) if name in sums])
    # A shard for each process at a time, so that the manifest soon knows of every one that is finished.
    for start in range(0, len(missing), job.count):
        now = missing[start : start + job.count]
        told = divide(lambda mine, now=now: [write(now[i]) for i in mine], len(now))
        sums |= zip((names[k] for k in now), told, strict=True)
        if job.leads:
            replace_json(folder / MANIFEST, {**manifest, "shards": dict(sorted(sums.items()))})
        report(now)
    return json.loads(json.dumps({**manifest, "shards": dict(sorted(sums.items()))}))


def _check_behaviour(behaviour: Any, family: Family, finite: bool, experts: Any, episodes: int) -> None:
    """Raise for what :func:`sample_corpus` would refuse, before a manifest says that it is what the folder holds."""
    if experts is not None and not finite:
        raise InvalidPlannerError("experts are of finite tasks, but these have a density; leave them out")
    if experts is not None:
        check_experts(experts, family)
    if not finite:
        check_needs_no_tasks(behaviour)
    if isinstance(behaviour, str):
        if behaviour not in BEHAVIOURS:
            names = ", ".join(map(repr, BEHAVIOURS))
            raise InvalidPlannerError(f"behaviour = {shown(behaviour)}; give {names}, or a planner of your own")
        return
    with precision_of(family):
        check_behaviour(as_planner(behaviour, family, episodes=episodes), family)


def _is_text(value: Any) -> bool:
    """Whether it can be written to a file."""
    try:
        return isinstance(value, str) and bool(value.encode())
    except UnicodeEncodeError:
        return False


def _described(behaviour: Any) -> str:
    """A behaviour as the manifest knows it: by its name and its arrays. Code is known by its name only."""
    if isinstance(behaviour, str):
        return behaviour
    arrays = [a for a in jax.tree.leaves(behaviour) if isinstance(a, (np.ndarray, jax.Array))]
    keys = [jnp.issubdtype(a.dtype, jax.dtypes.prng_key) for a in arrays]
    leaves = [np.ascontiguousarray(jax.random.key_data(a) if k else a) for a, k in zip(arrays, keys, strict=True)]
    digest = hashlib.sha256()
    for leaf in leaves:
        digest.update(f"{leaf.shape} {leaf.dtype}".encode() + leaf.tobytes())
    name = getattr(behaviour, "__qualname__", type(behaviour).__qualname__)
    return f"{name} {digest.hexdigest()}" if leaves else name


def _begin(where: Any, manifest: dict[str, Any]) -> dict[str, str]:
    """Make the folder, with a manifest of these settings in it; the checksums of the shards that are unharmed."""
    folder = make_folder(where, DATA, WHAT)
    for left in folder.rglob("*.partial"):
        left.unlink(missing_ok=True)
    if not (folder / MANIFEST).exists():
        replace_json(folder / MANIFEST, {**manifest, "shards": {}})
    listed = check_manifest(folder, manifest, WHAT).get("shards")
    if not isinstance(listed, dict) or not all(isinstance(told, str) for told in listed.values()):
        raise InvalidFolderError(f"{folder / MANIFEST} is no manifest of {WHAT}; give another folder")
    return {
        name: told for name, told in listed.items() if (folder / name).is_file() and checksum(folder / name) == told
    }
