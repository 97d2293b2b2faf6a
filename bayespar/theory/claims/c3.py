"""C3: under the corpus law the posterior is a martingale."""

from __future__ import annotations

import numpy as np

from ...errors import TooLargeError
from ...statistics import log_normalise
from ..claim import Claim, Settings, Subject
from ..verdict import Outcome, TwinOutcome, identity, not_applicable
from . import continuous, drift

TOLERANCE = 1e-10
TILT = 0.1


def _posteriors(subject: Subject, tilt: float) -> list[np.ndarray]:
    """P(z | tau) at every history, from a prior whose log odds are moved by up to ``tilt``."""
    with np.errstate(divide="ignore"):
        log_prior = np.log(np.asarray(subject.family.task_prior, np.float64))
    log_prior = log_prior + np.linspace(0, tilt, len(log_prior))
    return [np.exp(log_normalise(log_prior + evidence)) for evidence in subject.evidence]


def _error(subject: Subject, tilt: float, under: int | None = None) -> float:
    """Largest violation of E[P(z | next prompt) | prompt] = P(z | prompt), and of E[P(z | pt)] = P_Z(z).

    Args:
        subject: the world.
        tilt: how far the posterior's prior is from the corpus's, in log odds; 0 is Bayes.
        under: take the expectation under this one task instead of under the corpus.
    """
    family, histories = subject.family, subject.histories
    prior = np.asarray(family.task_prior, np.float64)
    law = prior if under is None else np.eye(len(prior))[under]
    posteriors = _posteriors(subject, tilt)
    reached = [layer.likelihood @ law for layer in histories.layers]
    worst = np.abs(reached[0] @ posteriors[0] - prior).max()
    for h, layer in enumerate(histories.layers[1:]):
        group = layer.parent.astype(np.int64) * family.num_subgoals + layer.subgoal
        size = len(reached[h]) * family.num_subgoals
        expected = np.zeros((size, len(prior)))
        np.add.at(expected, group, reached[h + 1][:, None] * posteriors[h + 1])
        before = np.repeat(reached[h][:, None] * posteriors[h], family.num_subgoals, axis=0)
        possible = np.repeat(reached[h], family.num_subgoals) > 0
        gap = np.abs(expected - before)[possible] / np.repeat(reached[h], family.num_subgoals)[possible, None]
        worst = max(worst, gap.max())
    return float(worst)


def _why_not(subject: Subject) -> str | None:
    try:
        layers = subject.histories.layers
    except TooLargeError as error:
        return f"too large for the exact side: {error}"
    for layer in layers:
        live = layer.likelihood[:, subject.live]
        if np.ptp(live, axis=1).max() > 1e-9:
            return None
    return "no history tells any two tasks apart, so the posterior never moves"


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = _why_not(subject)
    if reason:
        return not_applicable(reason)
    return identity(
        _error(subject, 0.0),
        TOLERANCE,
        f"largest drift of E[P(z | pt)], by one step at each of {subject.histories.count} histories and subgoals, and "
        "from the prior",
    )


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    tilted, single = _error(subject, TILT), _error(subject, 0.0, under=int(subject.live[0]))
    return [
        TwinOutcome(
            "a posterior from another prior", f"log odds moved by at most {TILT}", tilted > TOLERANCE, tilted, 1.0
        ),
        TwinOutcome("the expectation under one task", "one task", single > TOLERANCE, single, 1.0),
    ]


C3 = Claim(
    id="C3",
    title="the posterior is a martingale",
    statement=(
        "Under the corpus law P_D (not under one task) and whatever the subgoals, E[P(z | next prompt) | prompt] = "
        "P(z | prompt), and E[P(z | pt)] = P_Z(z)."
    ),
    assumptions=("some history tells two tasks apart",),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
    checks=continuous.checks(twins=2),
    continuous=(drift.check_c3, drift.twins_c3),
)
