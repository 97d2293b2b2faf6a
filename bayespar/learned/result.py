"""What an audit found, as an object, as JSON data and as text."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .compare import Comparison
from .cost import Cost, Mean
from .labels import Martingale
from .ranking import Ranking
from .weights import Weight
from .words import number

_MOST_ROWS = 5


@dataclass(frozen=True)
class Audit:
    """What was found out about a planner.

    Attributes:
        finding: in one line.
        found: whether its excess is certainly above ``resolution``; or that on the prompts asked is, and the planner is
            certainly not BAIL, not even a BAIL that sometimes picks at random.
        name: of the rival that it behaves like: "bail" if it is not found to differ; None if it is none of them. A
            rival gives its name if it is not ruled out and leaves no more than the resolution unexplained, or a tenth
            of the excess.
        excess_in_words: how far it is from BAIL, in one line.
        comparison: excess nats against BAIL with a confidence sequence, and TV by context length.
        ranking: which rivals it may be.
        weights: what it makes of the parts of the evidence.
        knobs: of the rival that it behaves like, fitted, with 95 % intervals.
        labels: whether its probabilities come true.
        cost: its regret and the part due to not being Bayesian; None if it was not run.
        resolution: nats a decision.
        alpha: the probability that ``found`` is true of BAIL itself, or of a BAIL that picks at random so seldom that
            its excess is within the resolution, at most; and that anything else here misses. Each has its share.
        prompts, episodes, decisions: what it was asked.
        behaviour: what the prompts' subgoals came from.
        notes: what the planner itself has to say, such as how an endpoint's answers were read.
        planner, world: as named by the caller.
        seconds: how long it took.
    """

    finding: str
    found: bool
    name: str | None
    excess_in_words: str
    comparison: Comparison
    ranking: Ranking
    weights: tuple[Weight, ...]
    knobs: tuple[Weight, ...]
    labels: Martingale
    cost: Cost | None
    resolution: float
    alpha: float
    prompts: int
    episodes: int
    decisions: int
    behaviour: str
    notes: tuple[str, ...]
    planner: str
    world: str
    seconds: float

    def __str__(self) -> str:
        return "\n".join(_lines(self))

    def to_dict(self) -> dict[str, Any]:
        """The same as plain JSON data; infinity and NaN are the strings "inf", "-inf" and "nan"."""
        return _plain(dataclasses.asdict(self))


def _lines(found: Audit) -> list[str]:
    """What a terminal shows."""
    tv, cost = found.comparison, found.cost
    lines = [
        f"Audit of {found.planner} on {found.world}: {found.prompts} prompts of {found.episodes} episodes, "
        f"{found.decisions} decisions, subgoals by {found.behaviour} ({found.seconds:.1f} s)",
        "",
        f"  {found.finding}",
        f"  {found.excess_in_words}",
        "",
        f"{'TV from BAIL after':22}" + "".join(f"{n:>8}" for n in _contexts(found.episodes)) + "  episodes",
        f"{'':22}" + "".join(f"{tv.by_context.mean[n]:8.3f}" for n in _contexts(found.episodes)),
        "",
        f"{'what it behaves like':22}{'unexplained':>12}{'log e against':>15}",
    ]
    for row in found.ranking.rows[:_MOST_ROWS]:
        told = "" if row.left else "  ruled out"
        lines.append(f"  {row.name:20}{number(row.nats):>12}{row.log_e:15.1f}{told}")
    lines += ["", f"{'what it makes of':22}{'weight':>12}{'95 %':>18}   (1 and 1 and 1, kept 1, lapse 0: Bayes)"]
    for w in found.weights:
        known = not math.isnan(w.value)
        numbers = f"{w.value:12.3f}{f'{w.low:.3f} to {w.high:.3f}':>18}" if known else f"{'unknown':>12}{'':18}"
        lines.append(f"  {w.name:20}{numbers}   {w.means}")
    labels = found.labels
    told = "do not come true" if labels.rejected else "may come true"
    power = ", ".join(f"{name} {p:.2f}" for name, p in labels.power.items() if name != "the planner itself")
    lines += [
        "",
        f"its probabilities {told}: log e = {labels.log_e:.1f} on the labels of {labels.prompts} prompts "
        f"({math.log(1 / labels.alpha):.1f} rejects; power: {power})",
    ]
    if cost is not None:
        lines.append(
            f"regret of {cost.episodes} episodes: {_mean(cost.regret)}, BAIL {_mean(cost.bail)}; "
            f"for not being Bayesian {_mean(cost.difference)}; P1's error term {_mean(cost.error_term)}"
        )
    return [*lines, *found.notes]


def _contexts(episodes: int) -> list[int]:
    """0, 1, 2, 4, ... finished episodes, and the most."""
    powers = [0, *(1 << k for k in range(episodes.bit_length()))]
    return sorted({n for n in powers if n < episodes} | {episodes - 1})


def _mean(mean: Mean) -> str:
    return f"{mean.mean:.3g} ± {mean.error:.1g}"


def _plain(value: Any) -> Any:
    """JSON data of nested dicts, tuples, arrays and numbers."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    return value.item() if isinstance(value, np.generic) else value
