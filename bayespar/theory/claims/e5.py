"""E5: the cheapest exploration is a linear program too."""

from __future__ import annotations

import numpy as np

from ...planning.information import graph_table
from ...planning.value import table_value
from ..certificate import least_loss
from ..claim import Claim, Settings, Subject
from ..figure import Bars, Figure
from ..policy_tree import policy_tree
from ..verdict import Outcome, TwinOutcome, identity, not_applicable
from .e4 import EFFECT, least, representatives, tried, why_not

TOLERANCE = 1e-9  # relative to the ratio, and to losses of at most H


def _loss(subject: Subject, table: list[np.ndarray]) -> float:
    """max_z [J_z(pi*_z) - J_z(pi)], averaged over instructions, by the tree of histories."""
    chance = np.asarray(subject.family.instruction_prior, np.float64)
    gap = (np.asarray(subject.experts.value) - table_value(subject.histories, table)) @ chance
    return float(gap[representatives(subject)].max())


def _certified(subject: Subject, scale: float = 1.0) -> float:
    """The least loss minus priced information of any policy; if it is not negative, no ratio is below the prices."""
    design = subject.cheapest
    assert design.prices is not None
    assert design.task_weights is not None
    tasks = representatives(subject)
    prices = scale * design.prices
    return least_loss(subject.histories, tasks, prices, design.task_weights, np.asarray(subject.experts.value))


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = why_not(subject) or subject.why_nothing_to_explore()
    if reason:
        return not_applicable(reason)
    design = subject.cheapest
    assert design.ratio is not None
    assert design.ratio_lower is not None
    table = subject.cheapest_table
    attained = _loss(subject, table) / least(subject, table)
    others = {"best": subject.best_table, **tried(subject)}
    values = {}
    for name, other in others.items():
        eta = least(subject, other)
        values[name] = _loss(subject, other) / eta if eta > 0 else np.inf
    error = max(
        abs(attained - design.ratio),
        design.ratio - design.ratio_lower,
        max(0.0, -_certified(subject)),
        max(design.ratio - value for value in values.values()),
    ) / max(1.0, design.ratio)
    said = (
        f"least loss / eta = {design.ratio:.6g} (loss {design.loss:.4g}, eta {design.eta_classes:.4g}; the best eta "
        f"costs {values['best']:.4g}); error of the policy's ratio, of the dual bound over {subject.histories.count} "
        f"histories, and of {len(values)} other policies"
    )
    outcome = identity(error, TOLERANCE, said)
    return Outcome(**{**outcome.__dict__, "figures": _figures(subject, values)})


def _figures(subject: Subject, values: dict[str, float]) -> tuple[Figure, ...]:
    design = subject.cheapest
    assert design.ratio is not None
    names = ["cheapest", "best", "uniform"]
    bars = Bars(
        "Loss per information of policies",
        "max_z loss / eta, units of reward",
        names,
        [design.ratio, values["best"], values["uniform"]],
    )
    rows = graph_table(subject.graph, design.policy)[0]
    words = subject.family.instructions
    note = f"Under the instruction {words[0]!r}." if len(words) > 1 else ""
    return bars, policy_tree(f"The cheapest exploration policy, {design.ratio:.4g}", subject.graph, rows, note)


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    design = subject.cheapest
    assert design.ratio is not None
    found = []
    if design.ratio > TOLERANCE:
        # If a ratio 1 % below were possible, prices 1 % lower would already be beaten by some policy.
        slack = _certified(subject, 1 - EFFECT)
        found.append(
            TwinOutcome(
                "some policy has a ratio 1 % smaller",
                f"{(1 - EFFECT) * design.ratio:.6g}",
                slack >= -TOLERANCE,
                slack,
                1.0,
            )
        )
    table = subject.best_table
    best = _loss(subject, table) / least(subject, table)
    if best > (1 + EFFECT) * design.ratio + TOLERANCE:
        found.append(
            TwinOutcome(
                "the policy of largest eta is the cheapest",
                f"ratio {best:.4g} instead of {design.ratio:.4g}",
                best > design.ratio + TOLERANCE,
                best,
                1.0,
            )
        )
    return found


E5 = Claim(
    id="E5",
    title="the cheapest exploration policy",
    statement=(
        "min over policies of max_z [J_z(pi*_z) - J_z(pi)] / eta(pi) is a linear program after the change of variables "
        "of Charnes and Cooper. Its loss replaces H-1 in the first term of E2."
    ),
    assumptions=("H >= 2", "two tasks or more, after merging equal ones", "the histories fit"),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
)
