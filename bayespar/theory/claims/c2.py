"""C2: the excess log-loss of a predictor is its average KL divergence from BAIL."""

from __future__ import annotations

import numpy as np

from ...errors import TooLargeError
from ...planning.bail import bail_table
from ...planning.value import reach_weights
from ...statistics import kl_divergence, total_variation
from ..claim import Claim, Settings, Subject
from ..verdict import Outcome, TwinOutcome, Verdict, not_applicable

TOLERANCE = 1e-10
SHUFFLED = 0.05
TILT = 0.2

Table = list[np.ndarray]


def _predictors(subject: Subject, bail: Table, weights: np.ndarray) -> dict[str, Table]:
    """Given predictors q of the label, at every history: none of them ever says 0."""
    G = subject.family.num_subgoals
    wrong = bail_table(subject.histories, subject.experts, _tilted(weights, 1.0), actions=subject.expert_table)

    def floor(table: Table) -> Table:
        return [0.95 * t + 0.05 / G for t in table]

    cooled = [np.sqrt(0.99 * t + 0.01 / G) for t in bail]
    return {
        "uniform": [np.full_like(t, 1 / G) for t in bail],
        "a wrong prior": floor(wrong),
        "temperature 2": [t / t.sum(-1, keepdims=True) for t in cooled],
        "the likeliest task's expert": floor([np.eye(G)[a[..., weights.argmax()]] for a in subject.expert_table]),
    }


def _pasts(subject: Subject) -> list[np.ndarray]:
    """P(z | past) of no past at all, and of the most telling past of four episodes in the corpus."""
    prior = np.asarray(subject.family.task_prior, np.float64)
    sampled = subject.corpus.posterior[:, -1, 0]
    return [prior, sampled[total_variation(sampled, prior).argmax()]]


def _tilted(prior: np.ndarray, strength: float) -> np.ndarray:
    """Another prior on the same tasks."""
    weights = prior * np.exp(strength * np.arange(len(prior)) / max(1, len(prior) - 1))
    return weights / weights.sum()


def _losses(subject: Subject, q: Table, bail: Table, corpus: np.ndarray, shuffled: float) -> tuple[float, float, float]:
    """Excess log-loss of q over BAIL, E KL(BAIL || q) and E TV, nats a label, over the prompts of one more episode.

    The corpus has uniform behaviour, tasks from ``corpus`` [Z], and a fraction ``shuffled`` of its labels belong to
    other prompts, whose tasks follow the prior.
    """
    family, histories = subject.family, subject.histories
    G, W = family.num_subgoals, np.asarray(family.instruction_prior, np.float64)
    prior = np.asarray(family.task_prior, np.float64)
    reach = reach_weights(histories, [np.full_like(t, 1 / G) for t in bail])
    excess = divergence = variation = 0.0
    for h in range(family.horizon - 1):
        mass = histories.layers[h].likelihood * corpus  # P(z, tau) without behaviour
        own = np.eye(G)[subject.expert_table[h]]  # [n, W, Z, G]
        label = (1 - shuffled) * np.einsum("nz,nwzg->nwg", mass, own, optimize=True)
        if shuffled:
            label += shuffled * mass.sum(1)[:, None, None] * np.einsum("nwzg,z->nwg", own, prior)
        label *= (reach[h] * W)[..., None]
        with np.errstate(divide="ignore"):
            gain = np.log(bail[h]) - np.log(q[h])
        excess += float((label * np.where(label > 0, gain, 0.0)).sum())
        weight = mass.sum(1)[:, None] * reach[h] * W
        divergence += float((weight * kl_divergence(bail[h], q[h])).sum())
        variation += float((weight * total_variation(bail[h], q[h])).sum())
    decisions = family.horizon - 1
    return excess / decisions, divergence / decisions, variation / decisions


def _error(subject: Subject, tilt: float, shuffled: float) -> tuple[float, float, float]:
    """Largest violation over pasts and predictors; the largest Pinsker tightness; the largest divergence, nats."""
    worst, tightness, size = 0.0, 0.0, 0.0
    for weights in _pasts(subject):
        bail = bail_table(subject.histories, subject.experts, weights, actions=subject.expert_table)
        for q in _predictors(subject, bail, weights).values():
            excess, divergence, variation = _losses(subject, q, bail, _tilted(weights, tilt), shuffled)
            error = abs(excess - divergence) / max(1.0, divergence)
            pinsker = np.sqrt(divergence / 2)
            worst = max(worst, error if np.isfinite(error) else np.inf, variation - pinsker)
            if 0 < pinsker < 0.5:
                tightness = max(tightness, variation / pinsker)
            size = max(size, divergence)
    return worst, tightness, size


def _why_not(subject: Subject) -> str | None:
    family = subject.family
    if family.horizon == 1:
        return "H = 1: an episode has no decision, so there is no label"
    try:
        layers = subject.histories.layers
    except TooLargeError as error:
        return f"too large for the exact side: {error}"
    for layer, actions in zip(layers, subject.expert_table, strict=False):
        possible = (layer.likelihood > 0) & (np.asarray(family.task_prior) > 0)
        low = np.where(possible[:, None], actions, np.iinfo(np.int32).max).min(axis=2)
        high = np.where(possible[:, None], actions, -1).max(axis=2)
        if (low < high).any():
            return None
    return "all experts agree on every history, so a label says nothing that shuffling could break"


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = _why_not(subject)
    if reason:
        return not_applicable(reason)
    error, tightness, size = _error(subject, 0.0, 0.0)
    verdict = Verdict.SUPPORTED if error <= TOLERANCE else Verdict.REFUTED
    return Outcome(
        verdict,
        error,
        TOLERANCE,
        f"|excess log-loss - E KL|, and Pinsker, for 4 given predictors with E KL up to {size:.2g} nats a label, "
        f"over all {subject.histories.count} histories, without a past and after four episodes",
        tightness=tightness or None,
    )


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    shuffled, other = _error(subject, 0.0, SHUFFLED)[0], _error(subject, TILT, 0.0)[0]
    return [
        TwinOutcome(
            "labels shuffled across tasks",
            f"{SHUFFLED:.0%} of the labels",
            shuffled > TOLERANCE,
            shuffled,
            1.0,
        ),
        TwinOutcome(
            "a corpus from another prior",
            f"log odds moved by at most {TILT}",
            other > TOLERANCE,
            other,
            1.0,
        ),
    ]


C2 = Claim(
    id="C2",
    title="excess log-loss is KL from BAIL",
    statement=(
        "For any predictor q of the expert label, E_D[-log q(g*)] - E_D[-log BAIL(g*)] = E_D KL(BAIL || q) >= 0, and "
        "E_D TV(BAIL, q) <= sqrt(excess / 2)."
    ),
    assumptions=("H >= 2", "some two experts disagree on a possible history"),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
)
