"""W1: what pretraining on the next observation teaches is the Bayesian aggregated world model."""

from __future__ import annotations

import numpy as np

from ...history import Prompt
from ...planning.bawm import bawm
from ..claim import Claim, Settings, Subject
from ..verdict import Outcome, TwinOutcome, identity, not_applicable
from . import continuous
from .c1 import corpus_size

TOLERANCE = 1e-12  # prompts of at most five episodes: a few hundred roundings of 1e-16 each
TWIN_STRENGTH = 0.1
PROMPTS = 4  # on whose last episode the world model itself is asked, step by step


def _error(subject: Subject, strength: float) -> float:
    """Largest difference between the aggregated model and the conditionals of the joint law.

    Of one-step laws, absolute; of the probability of a whole last episode, relative.
    """
    corpus, (_, heard) = subject.corpus, subject.once(Subject.corpus_law, strength)
    worst = np.abs(heard[:, :, 1:] - corpus.next_observation).max()
    laws, whole = subject.once(_answers)
    last, steps = heard[:PROMPTS, -1], np.arange(subject.family.horizon)
    product = np.log(last[np.arange(len(last))[:, None], steps, corpus.observations[:PROMPTS, -1]]).sum(axis=1)
    return float(max(worst, np.abs(laws - last).max(), np.abs(np.expm1(whole - product)).max()))


def _answers(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    """What the world model says of the last episode of a few prompts: step by step [B, H, O], and in all [B], nats."""
    family, corpus = subject.family, subject.corpus
    laws, whole = [], []
    for b in range(PROMPTS):
        w, o, g = corpus.instructions[b], corpus.observations[b], corpus.subgoals[b]
        for h in range(family.horizon):
            prompt = Prompt(o[:-1], g[:-1], w[:-1], o[-1, :h], g[-1, : max(h - 1, 0)], w[-1])
            model = bawm(family, prompt)
            laws.append(model.next_observation(int(g[-1, h - 1]) if h else None))
            if h == 0:
                whole.append(model.log_probability(o[-1], g[-1]))
    return np.reshape(laws, (-1, family.horizon, family.num_observations)), np.array(whole)


def check(subject: Subject, settings: Settings) -> Outcome:
    family = subject.family
    if family.horizon == 1:
        return not_applicable("H = 1: no observation follows a subgoal")
    if len(subject.classes.members) == 1 or family.num_subgoals == 1:
        return not_applicable("one class of tasks or one subgoal: behaviour tells nothing, and no twin could fail")
    prompts, episodes = corpus_size(subject)
    return identity(
        _error(subject, 0.0),
        TOLERANCE,
        f"largest error of predictions against the joint law: one step at every decision of {prompts} prompts of "
        f"{episodes} episodes, whole last episodes, behaviour not uniform",
    )


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    error = _error(subject, TWIN_STRENGTH)
    name = "behaviour depends on the task: each task has its own taste in subgoals"
    return [TwinOutcome(name, f"mixture weight {TWIN_STRENGTH}", error > TOLERANCE, error, 1.0)]


W1 = Claim(
    id="W1",
    title="predicting the next observation teaches the aggregated world model",
    statement=(
        "P_D(o_{1:H} || g_{1:H-1} | past) = sum_z P(z | past) L_z(o_{1:H} || g_{1:H-1}), and within an episode "
        "P_D(o' | pt_h, g) = sum_z P(z | pt_h) P_z(o' | tau_h, g), for subgoals that the behaviour can choose."
    ),
    assumptions=("the corpus's behaviour policy sees neither the task nor the labels", "two tasks or more that differ"),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
    checks=continuous.checks(twins=3),
    continuous=(continuous.check_w1, continuous.twins_w1),
)
