"""P1, P2, COUNT and CONTRAST: supported where they hold, refuted where their numbers are tampered with."""

import functools

import numpy as np
import pytest

import bayespar as bp
from bayespar.learned.counts import PromptLaw
from bayespar.models.lock import lock
from bayespar.models.random_world import random_world
from bayespar.planning.misspecified import Certificate
from bayespar.theory.claim import Settings, Subject
from bayespar.theory.claims import contrast, count, p1, p2, rates
from bayespar.theory.verdict import Verdict

SETTINGS = Settings(full=False, alpha=1e-5)


@functools.cache
def shared(name):
    small = functools.partial(random_world, seed=5, sizes=(2, 2, 2, 3, 3))
    return Subject(name, {"lock": lock, "random": small}[name] if name in ("lock", "random") else bp.load_model(name))


@pytest.mark.parametrize("claim", [p1, p2, count, contrast], ids=["P1", "P2", "COUNT", "CONTRAST"])
@pytest.mark.parametrize("world", ["tiger", "random", "safe_or_risky"])
def test_claims_hold_and_twins_fail(claim, world):
    outcome = claim.check(shared(world), SETTINGS)
    silent = world == "safe_or_risky" and claim in (p2, contrast)
    assert outcome.verdict is (Verdict.NOT_APPLICABLE if silent else Verdict.SUPPORTED), outcome.reason
    if silent:
        assert "one thing to say" in outcome.reason
        return
    twins = claim.twins(shared(world), SETTINGS)
    assert len(twins) >= (1 if world == "safe_or_risky" else 2)
    assert all(t.rejected and t.power >= 1 - 1e-5 for t in twins)
    assert claim is p2 or outcome.figures


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_p1_notices_an_error_that_is_counted_too_little(monkeypatch, share):
    right = p1.Practice.weighed
    monkeypatch.setattr(p1.Practice, "weighed", lambda self, error: share * right(self, error))
    monkeypatch.setattr(p1, "PLANNERS", {"BAIL with 40%": p1.floor(0.4)} | p1.PLANNERS)
    subject = Subject("safe_or_risky", bp.load_model("safe_or_risky"))
    assert p1.check(subject, SETTINGS).verdict is Verdict.REFUTED


def test_p1_measures_nothing_but_bails_episodes_where_there_is_no_error():
    runs = shared("tiger").once(p1._runs)
    assert runs["BAIL"][0][1].error.max() == 0
    grown = [runs[name][0][1].regret[:, -1].max() for name in list(p1.PLANNERS)[:4]]
    assert grown == sorted(grown)
    assert grown[-1] > 1.5 * grown[0]


def test_p2_notices_a_certificate_that_promises_too_much(monkeypatch):
    right = Certificate.doubt
    monkeypatch.setattr(Certificate, "doubt", lambda self, coin: 0.6 * right(self, coin))
    assert p2.check(shared("tiger"), SETTINGS).verdict is Verdict.REFUTED


def test_p2_notices_a_phase_change_elsewhere(monkeypatch):
    assert p2._phase_change().verdict is Verdict.SUPPORTED
    monkeypatch.setattr(p2, "BELIEVED_ERROR", 0.2)
    monkeypatch.setattr(Certificate, "rate", lambda self, epsilon: 0.9 + 0 * self.most[:, 0])
    assert p2._phase_change().verdict is Verdict.REFUTED


def test_rates_notice_another_constant_and_another_exponent(monkeypatch):
    law = shared("tiger").once(count._prompts)
    monkeypatch.setattr(PromptLaw, "constant", 1.05 * law.constant)
    assert count.check(Subject("tiger", bp.load_model("tiger")), SETTINGS).verdict is Verdict.REFUTED
    monkeypatch.undo()
    right = contrast.contrast_constant
    monkeypatch.setattr(contrast, "contrast_constant", lambda *a: 0.95 * right(*a))
    assert contrast.check(Subject("tiger", bp.load_model("tiger")), SETTINGS).verdict is Verdict.REFUTED
    monkeypatch.undo()
    for module in (rates, count, contrast):
        monkeypatch.setattr(module, "RATE", -0.52)
    assert count.check(shared("tiger"), SETTINGS).verdict is Verdict.REFUTED
    assert contrast.check(shared("tiger"), SETTINGS).verdict is Verdict.REFUTED


def test_counts_notice_a_wrong_guess_at_unseen_prompts(monkeypatch):
    monkeypatch.setattr(count, "frequencies", lambda c: c / np.maximum(c.sum(axis=-1, keepdims=True), 1))
    subject = Subject("tiger", bp.load_model("tiger"))
    assert count.check(subject, SETTINGS).verdict is Verdict.REFUTED


def test_exponents_of_known_errors():
    rng, sizes = np.random.default_rng(0), np.array([100, 1000, 10_000])
    for exponent in (-1.0, -0.5, 0.0):
        errors = 3.0 * sizes**exponent * rng.gamma(2, 0.5, (5000, 3))
        found = rates.Measured(sizes, errors, 3.0)
        assert found.exponent(1e-5).contains(exponent)
        assert found.exponent(1e-5).half_width < 0.05
        assert found.reached(1e-5).contains(3.0) == (exponent == -0.5)


def test_sizes_are_such_that_all_that_matters_occurs_often():
    shares, chances = np.array([0.5, 0.4999, 0.0001]), np.array([0.5, 0.01, 1e-9])
    smallest = rates.smallest_corpus(shares, chances, 32)
    assert rates.two_decades(smallest).tolist() == [3200, 32_000, 320_000]


def test_worlds_without_a_decision_or_too_large_are_left_alone(monkeypatch):
    blank = Subject("blank", bp.Family([1.0], [1.0], np.ones((1, 1, 1)), [[1.0]], np.zeros((1, 1)), horizon=1))
    for claim in (p1, p2, count, contrast):
        assert claim.check(blank, SETTINGS).verdict is Verdict.NOT_APPLICABLE
    for claim, limit in ((p1, "_LARGEST"), (p2, "LARGEST"), (count, "LARGEST_CELLS"), (contrast, "LARGEST_CELLS")):
        monkeypatch.setattr(claim, limit, 1)
        assert "too large" in claim.check(shared("random"), SETTINGS).reason
