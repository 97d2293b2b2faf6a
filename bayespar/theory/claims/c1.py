"""C1: what pretraining teaches is BAIL."""

from __future__ import annotations

import equinox as eqx
import numpy as np

from ...simulate.corpus import Corpus, sample_corpus
from ..claim import Claim, Settings, Subject
from ..verdict import Outcome, TwinOutcome, identity, not_applicable
from . import continuous

TOLERANCE = 1e-12  # prompts of at most five episodes: a few hundred roundings of 1e-16 each
TWIN_STRENGTH = 0.1


def _error(subject: Subject, strength: float, answers: Corpus | None = None) -> float:
    """Largest difference between BAIL, or the posterior, and the conditionals of the joint law.

    Args:
        subject: the world.
        strength: how much the behaviour depends on the task.
        answers: a corpus of the same prompts, whose BAIL is judged instead.
    """
    family, corpus = subject.family, subject.corpus
    bail = corpus.bail if answers is None else answers.bail
    task, _ = subject.once(Subject.corpus_law, strength)
    votes = corpus.actions[..., None] == np.arange(family.num_subgoals)
    label = np.where(votes, task[..., None], 0).sum(axis=3)
    return float(max(np.abs(label - bail).max(), np.abs(task - corpus.posterior).max()))


def check(subject: Subject, settings: Settings) -> Outcome:
    family = subject.family
    if family.horizon == 1:
        return not_applicable("H = 1: an episode has no decision, so there is no label")
    if len(subject.live) == 1 or family.num_subgoals == 1:
        return not_applicable("one task or one subgoal: every label is certain, and no twin could fail")
    prompts, episodes = corpus_size(subject)
    return identity(
        _error(subject, 0.0),
        TOLERANCE,
        f"largest error of BAIL and of P(z | pt) against the joint law, at every decision of {prompts} prompts of "
        f"{episodes} episodes, behaviour not uniform",
    )


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    error = _error(subject, TWIN_STRENGTH)
    name = "behaviour depends on the task: each task has its own taste in subgoals"
    found = [TwinOutcome(name, f"mixture weight {TWIN_STRENGTH}", error > TOLERANCE, error, 1.0)]
    misread = _misread(subject)
    if misread is not None and (misread.actions != subject.corpus.actions).any():
        error = _error(subject, 0.0, misread)
        effect = f"a probability that is off by {error:.3g}"
        found.append(TwinOutcome("BAIL that takes one instruction for another", effect, error > TOLERANCE, error, 1.0))
    return found


def _misread(subject: Subject) -> Corpus | None:
    """The same prompts with the experts of another instruction, if there is one."""
    family = subject.family
    if family.num_instructions == 1:
        return None
    other = eqx.tree_at(lambda f: f.reward, family, np.roll(family.reward, 1, axis=2))
    return sample_corpus(other, *corpus_size(subject), key=subject.key)


def corpus_size(subject: Subject) -> tuple[int, int]:
    """Prompts, and episodes in each."""
    return subject.corpus.instructions.shape


C1 = Claim(
    id="C1",
    title="in-context learning computes BAIL",
    statement=(
        "For every possible prompt P_D(g*_h | pt_h) = sum_z pi*_z(g*_h | tau_h, w) P(z | pt_h), with P(z | pt_h) "
        "proportional to P_Z(z) times the causal likelihood of the prompt."
    ),
    assumptions=("the corpus's behaviour policy sees neither the task nor the labels", "H >= 2"),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
    checks=continuous.checks(twins=4 + 3),
    continuous=(continuous.check_c1, continuous.twins_c1),
)
