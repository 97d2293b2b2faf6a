"""SEQ: Actors who draw one after the other draw jointly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...planning.several import independent, sequential
from ...team import Team
from ..claim import Claim, Settings, Subject
from ..verdict import Outcome, TwinOutcome, identity, not_applicable

TOLERANCE = 1e-12  # a product of K conditionals, each a ratio of sums over tasks

Law = Callable[[Team, np.ndarray, np.ndarray], Any]


def _error(subject: Subject, law: Law) -> float:
    """Largest difference from BAIL over every decision of the corpus."""
    corpus, team = subject.corpus, subject.family.subgoals
    assert isinstance(team, Team)
    return float(np.abs(law(team, corpus.posterior, corpus.actions) - corpus.bail).max())


def check(subject: Subject, settings: Settings) -> Outcome:
    if not isinstance(subject.family.subgoals, Team):
        return not_applicable("one Actor")
    if subject.family.horizon == 1:
        return not_applicable("H = 1: an episode has no decision")
    if len(subject.live) == 1:
        return not_applicable("one task: every draw is certain, and no twin could fail")
    prompts, episodes = subject.corpus.instructions.shape
    return identity(
        _error(subject, sequential),
        TOLERANCE,
        f"largest difference of probabilities from BAIL, at every decision of {prompts} prompts of {episodes} episodes",
    )


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    error = _error(subject, independent)
    effect = f"a probability that is off by {error:.3g}"
    return [TwinOutcome("each Actor draws from its own marginal", effect, error > TOLERANCE, error, 1.0)]


SEQ = Claim(
    id="SEQ",
    title="drawing one after the other is drawing jointly",
    statement=(
        "If Actor k draws from BAIL's conditional law of its own subgoal given those of Actors 1..k-1 (experts whose "
        "joint subgoal begins with these, weighted by the posterior), the joint subgoal has BAIL's law."
    ),
    assumptions=("several Actors", "H >= 2", "two tasks or more"),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
)
