"""How many programs were compiled, and a cache on disk of those that were."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import platformdirs

CACHE_BYTES = 2**30
_ASKED = "/jax/core/compile/backend_compile_duration"
_FOUND = "/jax/compilation_cache/cache_hits"


@dataclass
class Compilations:
    """What was asked of XLA.

    Attributes:
        programs: that JAX asked for.
        from_cache: those of them that were read from the cache on disk, and not compiled.
    """

    programs: int = 0
    from_cache: int = 0


_counting: list[Compilations] = []


@contextmanager
def counted() -> Iterator[Compilations]:
    """Counts the programs that are asked for while it lasts, in this process and in those that are included."""
    count = Compilations()

    def asked(event: str, duration_secs: float, **_: Any) -> None:
        count.programs += event == _ASKED

    def found(event: str, **_: Any) -> None:
        count.from_cache += event == _FOUND

    jax.monitoring.register_event_duration_secs_listener(asked)
    jax.monitoring.register_event_listener(found)
    _counting.append(count)
    try:
        yield count
    finally:
        _counting.remove(count)
        jax.monitoring.unregister_event_duration_listener(asked)
        jax.monitoring.unregister_event_listener(found)


def so_far() -> Compilations:
    """What the innermost :func:`counted` has counted; nothing where there is none."""
    return _counting[-1] if _counting else Compilations()


def include(other: Compilations) -> None:
    """Add what another process counted to every count that is going on."""
    for count in _counting:
        count.programs += other.programs
        count.from_cache += other.from_cache


def use_cache() -> Path | None:
    """Keep compiled programs on disk, in this process and those that it starts, unless JAX was told what to do.

    JAX names a program's file after its code, the versions, the flags and the kind of machine, so what is found there
    is what would have been compiled. The oldest go where the folder exceeds ``CACHE_BYTES``.

    Returns:
        The folder; None where JAX_ENABLE_COMPILATION_CACHE=false or JAX_COMPILATION_CACHE_DIR is set, or where the
        user's cache folder cannot be written.
    """
    given: Any = jax.config
    if given.jax_compilation_cache_dir is not None or not given.jax_enable_compilation_cache:
        return None
    folder = Path(platformdirs.user_cache_dir("bayespar", appauthor=False)) / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_compilation_cache_max_size": CACHE_BYTES,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    return folder
