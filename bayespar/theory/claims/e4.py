"""E4: the best exploration policy is a linear program, and it separates all tasks that differ."""

from __future__ import annotations

import numpy as np

from ...errors import TooLargeError
from ...planning.bail import bail_table
from ...planning.classes import task_classes
from ...planning.hellinger import hellinger
from ...planning.value import policy_table
from ...world import Family
from ..certificate import most_informative
from ..claim import Claim, Settings, Subject
from ..figure import Bars, Figure
from ..policy_tree import policy_tree
from ..verdict import Outcome, TwinOutcome, identity, not_applicable

TOLERANCE = 1e-9
EFFECT = 0.01
FAINT = 1e-6
_EXPERTS = 4


def representatives(subject: Subject) -> np.ndarray:
    """One task of each class."""
    label = subject.classes.label
    return np.array([int(np.flatnonzero(label == c)[0]) for c in range(len(subject.classes.members))])


def least(subject: Subject, table: list[np.ndarray]) -> float:
    """eta of a tabulated policy over classes, by the tree of histories."""
    pairs = hellinger(subject.histories, table, subject.classes)
    return float(pairs[np.triu_indices(len(pairs), 1)].min(initial=1.0))


def tried(subject: Subject) -> dict[str, list[np.ndarray]]:
    """Policies to compare with: uniform subgoals, BAIL, and the experts of the first classes."""
    family, histories = subject.family, subject.histories
    G = family.num_subgoals
    tables = {
        "uniform": policy_table(histories, "uniform"),
        "BAIL": bail_table(histories, subject.experts, actions=subject.expert_table),
    }
    for z in representatives(subject)[:_EXPERTS]:
        tables[f"expert: {family.tasks[z]}"] = [np.eye(G)[actions[..., z]] for actions in subject.expert_table]
    return tables


def why_not(subject: Subject) -> str | None:
    """Why E4 and E5 cannot be checked, if they cannot."""
    if subject.family.horizon == 1:
        return "H = 1: an episode has no decision"
    try:
        _ = subject.histories, subject.graph
    except TooLargeError as error:
        return f"too large for the exact side: {error}"
    if len(subject.live) == 1:
        return "one task: there is nothing to learn"
    return None


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = why_not(subject)
    if reason:
        return not_applicable(reason)
    error, said = _merged_error(subject)
    design = subject.design
    if len(subject.classes.members) == 1:
        return identity(error, TOLERANCE, said)
    values = {name: least(subject, table) for name, table in tried(subject).items()}
    attained = least(subject, subject.best_table)
    assert design.prices is not None
    certified = most_informative(subject.histories, representatives(subject), design.prices / design.prices.sum())
    error = max(
        error,
        abs(attained - design.eta_classes),
        abs(certified - design.eta_classes),
        max(values.values()) - design.eta_classes,
        0.0 if design.eta_classes > 0 else np.inf,
    )
    said = (
        f"eta* = {design.eta_classes:.6g}, hardest pair {' / '.join(design.hardest_pair or ())}; error of the policy's "
        f"eta, of the dual bound over all {subject.histories.count} histories, of {len(values)} other policies{said}"
    )
    outcome = identity(error, TOLERANCE, said)
    return Outcome(**{**outcome.__dict__, "figures": _figures(subject, values)})


def _merged_error(subject: Subject) -> tuple[float, str]:
    """How far merged tasks are from equal: on every history, and by the policies' etas, which must be 0."""
    merged, label = subject.classes.merged, subject.classes.label
    if not merged:
        return 0.0, ""
    worst = 0.0
    for layer in subject.histories.layers:
        for c in range(len(subject.classes.members)):
            rows = layer.likelihood[:, label == c]
            worst = max(worst, float(np.ptp(rows, axis=1).max()))
    names = "; ".join(" = ".join(names) for names in merged)
    return worst, f" eta* = 0 before merging {names}: equal on all {subject.histories.count} histories"


def _figures(subject: Subject, values: dict[str, float]) -> tuple[Figure, ...]:
    design = subject.design
    shown = {"best": design.eta_classes, "cheapest": subject.cheapest.eta_classes, **values}
    shown = {name: value if value > 1e-15 else 0.0 for name, value in shown.items()}
    left = len(representatives(subject)) - _EXPERTS
    bars = Bars(
        "eta of policies",
        "least squared Hellinger distance between tasks, per episode",
        list(shown),
        list(shown.values()),
        note=f"{left} more experts are not shown." if left > 0 else "",
    )
    table = next(iter(subject.explorers["best"].table))
    return bars, policy_tree(f"The best exploration policy, eta* = {design.eta_classes:.4g}", subject.graph, table)


def _fainter(family: Family) -> Family:
    """The same family, but under its last task the Reporter says anything at all a little more often."""
    Z = family.num_tasks
    emission = np.array(np.broadcast_to(family.emission, (Z, *family.emission.shape[1:])))
    emission[-1] = (1 - FAINT) * emission[-1] + FAINT / emission.shape[-1]
    return Family(
        family.task_prior,
        family.initial,
        family.transition,
        emission,
        family.reward,
        horizon=family.horizon,
        instruction_prior=family.instruction_prior,
    )


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    found = []
    if subject.classes.merged:
        apart = len(task_classes(_fainter(subject.family)).members) > len(subject.classes.members)
        name = "merged tasks are still one class when a Reporter errs a little more under one of them"
        found.append(TwinOutcome(name, f"probability {FAINT}", apart, None, 1.0))
    if len(subject.classes.members) == 1:
        return found
    design = subject.design
    claimed = (1 + EFFECT) * design.eta_classes
    assert design.prices is not None
    reach = most_informative(subject.histories, representatives(subject), design.prices / design.prices.sum())
    if claimed <= 1:
        rejected = reach < claimed - TOLERANCE
        found.append(TwinOutcome("some policy has an eta 1 % larger", f"{claimed:.6g}", rejected, reach, 1.0))
    uniform = least(subject, policy_table(subject.histories, "uniform"))
    if uniform < (1 - EFFECT) * design.eta_classes:
        found.append(
            TwinOutcome(
                "uniform subgoals reach eta*",
                f"{uniform / design.eta_classes - 1:.1%}",
                uniform < design.eta_classes - TOLERANCE,
                uniform,
                1.0,
            )
        )
    return found


E4 = Claim(
    id="E4",
    title="the best exploration policy",
    statement=(
        "eta* = max over policies of min over pairs of eta_zz'(pi) is a linear program over realisation weights, "
        "attained by a behavioural policy. eta* = 0 iff two tasks have equal likelihoods on all histories; after "
        "merging such tasks eta* > 0."
    ),
    assumptions=("H >= 2", "two tasks of positive prior or more", "the histories fit"),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
)
