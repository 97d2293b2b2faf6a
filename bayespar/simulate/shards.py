"""Corpora as Parquet files, so that people can pretrain a model of their own on them; docs/corpora.md says how.

A shard is a pure function of the settings and its index, and is renamed into place once it is complete. So a run that
is killed loses at most the shard that it was at, and whoever runs it again ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import precision_of
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
from .tokens import corpus_table, vocabulary

FORMAT = 1
MANIFEST, DATA = "manifest.json", "data"


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
    folder = _opened(folder, manifest)
    sums = _finished(folder)
    if latents is None and experts is None and len(sums) * shard < prompts:
        experts = solve_experts(family)
    for k in range(-(-prompts // shard)):
        rows = min(shard, prompts - k * shard)
        name = f"{DATA}/shard-{k:05d}.parquet"
        if name not in sums:
            drawn = sample_corpus(
                worlds, rows, episodes, behaviour, key=jax.random.fold_in(as_key(root), k), experts=experts
            )
            table = corpus_table(drawn, family, k * shard)
            _replace(folder / name, lambda path, table=table: parquet.write_table(table, path, compression="zstd"))
            sums[name] = _sha256(folder / name)
            _write_manifest(folder, manifest, sums)
        if progress is not None:
            progress(rows)
    return json.loads((folder / MANIFEST).read_text("utf-8"))


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


def fingerprint(family: Family, sites: Any = None) -> str:
    """A checksum of the arrays and the words of a family."""
    leaves, structure = jax.tree.flatten(family)
    digest = hashlib.sha256(f"{structure} {sites}".encode())
    for leaf in map(np.ascontiguousarray, leaves):
        digest.update(f"{leaf.shape} {leaf.dtype}".encode() + leaf.tobytes())
    return digest.hexdigest()


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


def _opened(where: Any, manifest: dict[str, Any]) -> Path:
    """The folder, with a manifest of these settings in it."""
    try:
        folder = Path(where)
        (folder / DATA).mkdir(parents=True, exist_ok=True)
        for left in folder.rglob("*.partial"):
            left.unlink()
    except (OSError, TypeError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise InvalidFolderError(
            f"the corpus cannot be written to {shown(where)}: {told}; give another folder"
        ) from None
    if not (folder / MANIFEST).exists():
        _write_manifest(folder, manifest, {})
        return folder
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
        for part in manifest:
            _check_same(part, found[part], json.loads(json.dumps(manifest[part])), folder)
        if not all(isinstance(told, str) for told in found["shards"].values()):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InvalidFolderError):
            raise
        raise InvalidFolderError(f"{folder / MANIFEST} is no manifest of a corpus; give another folder") from None
    return folder


def _check_same(name: str, found: Any, wanted: Any, folder: Path) -> None:
    if found == wanted:
        return
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        for part in wanted:
            _check_same(part, found[part], wanted[part], folder)
    raise InvalidFolderError(
        f"{folder} holds a corpus with {name} = {shown(found)}, and {shown(wanted)} is asked for; "
        "go on with the same settings and versions, or give another folder"
    )


def _finished(folder: Path) -> dict[str, str]:
    """The checksums of the shards that are complete and unharmed."""
    listed = json.loads((folder / MANIFEST).read_text("utf-8"))["shards"]
    return {name: told for name, told in listed.items() if (folder / name).is_file() and _sha256(folder / name) == told}


def _write_manifest(folder: Path, manifest: dict[str, Any], sums: dict[str, str]) -> None:
    whole = {**manifest, "shards": dict(sorted(sums.items()))}
    text = json.dumps(whole, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _replace(folder / MANIFEST, lambda path: path.write_text(text, "utf-8"))


def _replace(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file that is there as a whole or not at all, whenever the machine stops."""
    partial = file.with_name(f"{file.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(file)
        if hasattr(os, "O_DIRECTORY"):  # the name is safe once its folder is
            handle = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise InvalidFolderError(f"the corpus cannot be written to {file}: {error.strerror or error}") from None


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
