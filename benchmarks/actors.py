"""What several Actors cost, K = 2..6, with the joint kernel kept factored and with it multiplied out.

Each Actor has three states and two subgoals, so S = 3^K and G = 2^K. Runs of the two kernels alternate; the ratio is
that of the medians. The other columns are the two doors of K Actors: stored numbers, experts, and exact regret of 32
episodes where Actors draw jointly, one after the other, and on their own.

    python benchmarks/actors.py --out actors.png
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from pathlib import Path

import numpy as np

import bayespar as bp
from bayespar.models.two_doors import two_doors

ACTORS = range(2, 7)
LARGEST_DENSE = 2**28  # bytes of a joint kernel that is multiplied out
SCHEMES = ("bail", "sequential", "independent")


def families(actors: int, horizon: int = 8) -> dict[str, bp.Family]:
    """The same random world with a factored kernel and, where it fits, a dense one."""
    rng = np.random.default_rng(actors)
    S, Z, O = 3**actors, 4, 6
    kernel = bp.Factored([rng.dirichlet(np.ones(3), (Z, 1, 2, 3)) for _ in range(actors)])
    rest = rng.dirichlet(np.ones(S)), rng.dirichlet(np.ones(O), (Z, S)), np.zeros((horizon, O))
    made = {"factored": kernel}
    if 8 * np.prod(kernel.shape) <= LARGEST_DENSE:
        made["dense"] = kernel.dense()
    return {name: bp.Family(np.full(Z, 1 / Z), rest[0], k, *rest[1:], horizon=horizon) for name, k in made.items()}


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def evidence(actors: int, episodes: int, repeats: int) -> dict[str, float]:
    """Median seconds of log_evidence, after compilation, new episodes each time, interleaved."""
    rng, made = np.random.default_rng(0), families(actors)
    spent: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(repeats + 1):
        o, g = rng.integers(0, 6, (episodes, 8)), rng.integers(0, 2**actors, (episodes, 7))
        for name, family in made.items():
            spent[name].append(seconds(functools.partial(bp.log_evidence, family, o, g)))
    return {name: statistics.median(times[1:]) for name, times in spent.items()}


def doors(actors: int) -> dict[str, float]:
    """Seconds on the two doors."""
    family = bp.enumerate_program(functools.partial(two_doors, actors))
    found = {"experts": seconds(lambda: bp.solve_experts(family))}
    for scheme in SCHEMES:
        found[scheme] = seconds(functools.partial(bp.expected_regret, family, scheme, 0.0, 32))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, metavar="PNG", help="draw the costs")
    arguments = parser.parse_args()
    rows = []
    for actors in ACTORS:
        cost, door = evidence(actors, arguments.episodes, arguments.repeats), doors(actors)
        rows.append({"K": actors, **{f"evidence, {name}": s for name, s in cost.items()}, **door})
    names = list(dict.fromkeys(name for row in rows for name in row))
    print(f"bayespar on {arguments.episodes} episodes of H = 8; seconds\n")
    print(f"| {' | '.join(names)} | dense / factored |\n|{'---|' * (len(names) + 1)}")
    for row in rows:
        dense = row.get("evidence, dense")
        ratio = f"{dense / row['evidence, factored']:.1f}" if dense else ""
        cells = [str(row[n]) if n == "K" else f"{row[n]:.4f}" if n in row else "does not fit" for n in names]
        print(f"| {' | '.join(cells)} | {ratio} |")
    if arguments.out:
        draw(rows, names[1:], arguments.out)


def draw(rows: list[dict[str, float]], names: list[str], out: Path) -> None:
    """Seconds against the number of Actors."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    for name in names:
        at = [row["K"] for row in rows if name in row]
        axes.plot(at, [row[name] for row in rows if name in row], "o-", label=name)
    axes.set(yscale="log", xlabel="number of Actors K", ylabel="seconds", xticks=list(ACTORS))
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(out, dpi=120, bbox_inches="tight")


if __name__ == "__main__":
    main()
