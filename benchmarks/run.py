"""All comparisons, one after the other: a table of medians, and plots of how cost grows.

    python benchmarks/run.py [--only evidence online_loop --out bench]

Each benchmark interleaves its contestants in a process of its own, where results are also compared; its rows are saved
beside the others. A benchmark that fails, or whose results disagree, is told at the end, with exit status 1.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from common import Row, machine, save, table

HERE = Path(__file__).parent
BENCHMARKS = ("evidence", "online_loop", "training", "nuts", "growth", "devices")
POINT = re.compile(r"(\w+) = (\d+)$")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--out", type=Path, default=Path("bench"), metavar="DIR")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    failed = []
    for name in arguments.only:
        print(f"{name} ...", file=sys.stderr)
        saved = arguments.out / f"{name}.json"
        saved.unlink(missing_ok=True)
        done = subprocess.run([sys.executable, HERE / f"{name}.py", "--json", saved], stdout=subprocess.DEVNULL)
        if done.returncode or not saved.exists():
            failed.append(name)
        if saved.exists():
            rows += json.loads(saved.read_text())["rows"]
    print(machine("jax", "jaxlib", "numpy", "numpyro", "dynamax", "inferactively-pymdp", "numba", "torch"))
    for benchmark in dict.fromkeys(row["benchmark"] for row in rows):
        print(f"\n{benchmark}\n{table([row for row in rows if row['benchmark'] == benchmark])}")
    save(rows, arguments.out / "table.json", failed=failed)
    draw(rows, arguments.out / "growth.png")
    for name in failed:
        print(f"{name} failed, or its results disagree; run benchmarks/{name}.py", file=sys.stderr)
    return 1 if failed else 0


def draw(rows: list[Row], out: Path) -> None:
    """A panel for each size that grows."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    panels: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        point = POINT.match(row["case"])
        if point and "growth" in row["benchmark"]:
            place = panels.setdefault((row["benchmark"].partition(" growth")[0], point[1]), [])
            place.append((int(point[2]), row["median_s"]))
    if not panels:
        return
    across = min(4, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(down, across, figsize=(3 * across, 2.6 * down), squeeze=False, layout="constrained")
    for place in axes.flat[len(panels) :]:
        place.set_visible(False)
    for place, ((title, axis), points) in zip(axes.flat, panels.items(), strict=False):
        x, y = zip(*points, strict=True)
        place.loglog(x, y, "o-", color="#1f5fa8")
        place.loglog(x, [y[-1] * n / x[-1] for n in x], "--", color="#999999", linewidth=1)
        place.set(title=title.replace("growth in ", "cost against "), xlabel=axis, ylabel="seconds")
    figure.suptitle("Seconds (solid), and what is proportional to the size (dashed, through the last point)")
    figure.savefig(out, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
