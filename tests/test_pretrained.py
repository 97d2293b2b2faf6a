"""What networks are held against in the claims, and that a network which has not learned fails them."""

from dataclasses import replace

import numpy as np
import pytest

import bayespar as bp
from bayespar.learned.training import TrainingPlan
from bayespar.planning.bail import BailPlanner
from bayespar.simulate.replay import replay
from bayespar.theory import pretrained
from bayespar.theory.claim import Settings, Subject
from bayespar.theory.claims import icl
from bayespar.theory.verdict import Verdict


@pytest.fixture(scope="module")
def subject():
    return Subject("workshop", bp.load_model("workshop"))


@pytest.fixture(scope="module")
def corpus(subject):
    return bp.sample_corpus(subject.family, 40, 5, key=2, experts=subject.experts)


def test_the_exact_conditionals_are_those_of_the_corpus(subject, corpus):
    found = pretrained.exact(subject, corpus)
    assert np.abs(found.label - corpus.bail).max() < 1e-12
    assert np.abs(found.observation - corpus.next_observation).max() < 1e-12


def test_another_prior_moves_the_posterior_by_their_ratio(subject, corpus):
    prior = pretrained.tilted_prior(subject)
    found = pretrained.exact(subject, corpus, prior=prior)
    weights = corpus.posterior * prior / np.asarray(subject.family.task_prior)
    weights /= weights.sum(axis=-1, keepdims=True)
    expected = np.stack([np.where(corpus.actions == g, weights, 0).sum(-1) for g in range(3)], axis=-1)
    assert np.abs(found.label - expected).max() < 1e-12
    assert np.abs(found.label - corpus.bail).max() > 0.1


def test_who_forgets_says_in_every_episode_what_is_said_in_the_first(subject, corpus):
    found = pretrained.exact(subject, corpus, forget=True)
    single = [a.reshape(-1, 1, *a.shape[2:]) for a in (corpus.instructions, corpus.observations, corpus.subgoals)]
    alone = replay(BailPlanner(subject.family, subject.experts), subject.family, *single)
    assert np.abs(alone.reshape(found.label.shape) - found.label).max() < 1e-12
    assert np.abs(found.label[:, -1] - corpus.bail[:, -1]).max() > 0.1


def test_a_lapse_bounds_the_divergence():
    sure = pretrained.Conditionals(np.eye(2)[:1].reshape(1, 1, 1, 2), np.eye(3)[1].reshape(1, 1, 1, 3))
    lapsed = sure.with_lapse(0.1)
    assert np.allclose(lapsed.label, [0.95, 0.05])
    assert np.allclose(lapsed.observation, [1 / 30, 1 - 2 / 30, 1 / 30])


def test_networks_are_trained_where_they_are_asked_for(subject):
    other = Subject("tiger", bp.load_model("tiger"))
    assert "by name" in icl.ICL_BAIL.check(other, Settings(full=False, alpha=1e-6)).reason
    named = icl.ICL_BAIL.check(other, Settings(full=False, alpha=1e-6, named=True))
    assert named.verdict is Verdict.NOT_APPLICABLE
    assert "gives itself away" in named.reason


@pytest.mark.slow
def test_a_network_that_has_learned_too_little_is_refuted(subject, monkeypatch):
    monkeypatch.setattr(pretrained, "QUICK", replace(TrainingPlan(), steps=40))
    monkeypatch.setattr(pretrained, "PROMPTS", 2048)
    fresh = Subject("workshop", subject.program)
    settings = Settings(full=False, alpha=1e-6)
    for claim in (icl.ICL_BAIL, icl.ICL_BAWM):
        outcome = claim.check(fresh, settings)
        assert outcome.verdict is Verdict.REFUTED, outcome
