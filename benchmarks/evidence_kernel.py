"""Builds ``evidence_kernel.c`` on the fly for one shape and calls it on all cores."""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import bayespar as bp

SOURCE = Path(__file__).with_suffix(".c")


def compiler() -> str | None:
    """The C compiler at hand, or None."""
    return next((found for name in ("gcc", "cc", "clang") if (found := shutil.which(name))), None)


@functools.cache
def build(dtype: str, S: int, G: int, O: int, H: int) -> Any:
    """The function of a shape; S is a power of two."""
    found = compiler()
    if found is None:
        raise RuntimeError("no C compiler")
    real, log = {"float32": ("float", "logf"), "float64": ("double", "log")}[dtype]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "kernel.so"
        sizes = [f"-D{name}={n}" for name, n in (("S", S), ("G", G), ("O", O), ("H", H))]
        options = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC", f"-DREAL={real}", f"-DLOG={log}"]
        subprocess.run([found, *options, *sizes, str(SOURCE), "-o", str(out), "-lm"], check=True)
        return ctypes.CDLL(str(out)).log_evidence


def log_evidence(
    pool: ThreadPoolExecutor, family: bp.Family, observations: np.ndarray, subgoals: np.ndarray
) -> np.ndarray:
    """log L, [Z, N], of a dense family that is the same at every step; tasks split evenly over the cores."""
    Z, S, G, O, H = (
        family.num_tasks,
        family.num_states,
        family.num_subgoals,
        family.num_observations,
        family.horizon,
    )
    function = build(str(family.dtype), S, G, O, H)
    out = np.empty((Z, len(observations)), family.dtype)
    inputs = [
        np.ascontiguousarray(a)
        for a in (
            family.initial,
            family.dense_transition()[:, 0],
            family.emission.swapaxes(1, 2),
            observations.astype(np.int32),
            subgoals.astype(np.int32),
        )
    ]
    pointers = [a.ctypes.data_as(ctypes.c_void_p) for a in (*inputs, out)]
    cores = min(os.cpu_count() or 1, Z)
    edges = [Z * k // cores for k in range(cores + 1)]
    numbers = [(ctypes.c_int64(a), ctypes.c_int64(b)) for a, b in itertools.pairwise(edges)]
    list(pool.map(lambda r: function(*r, ctypes.c_int64(len(observations)), *pointers), numbers))
    return out
