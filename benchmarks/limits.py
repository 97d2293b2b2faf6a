"""What the machine can do at best: the rate of large matrix products and of copies, measured on the spot."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from common import Row, interleaved, row

SIDE = 2048  # of the matrices
BYTES = 2**27  # of each array that a thread copies


def rows(repeats: int = 5) -> list[Row]:
    """Matrix products in numpy's BLAS, in both precisions, and copies by one thread a core."""
    rng = np.random.default_rng(0)
    square = rng.random((SIDE, SIDE))
    arrays = {"float32": square.astype(np.float32), "float64": square}
    threads = os.cpu_count() or 1
    sources, targets = (np.ones((threads, BYTES // 8)) for _ in range(2))
    with ThreadPoolExecutor(threads) as pool:
        runs = {dtype: lambda a=a: a @ a for dtype, a in arrays.items()}
        times = interleaved({**runs, "copy": lambda: list(pool.map(np.copyto, targets, sources))}, repeats)
    rate = 2 * threads * BYTES / min(times["copy"]) / 1e9  # read and written
    return [
        *(
            row("limits", "machine", "matrix product", times[d], dtype=d, work=2 * SIDE**3)
            | {"gflops": 2 * SIDE**3 / min(times[d]) / 1e9}
            for d in arrays
        ),
        row("limits", "machine", f"copy, {rate:.1f} GB/s", times["copy"]) | {"gb_per_s": rate},
    ]
