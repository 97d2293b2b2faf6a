"""Claims and verdicts: what is supported, what is refuted, and what a run as a whole says."""

import functools
import json

import numpy as np
import pytest

import bayespar as bp
from bayespar.models.needle import needle
from bayespar.models.random_world import random_world
from bayespar.report.json_report import report_data
from bayespar.statistics import Interval
from bayespar.theory import runner
from bayespar.theory.claim import Settings, Subject
from bayespar.theory.claims import CLAIMS, c1, c2, c3, n1
from bayespar.theory.closed_forms import forgetful_needle_regret, needle_regret
from bayespar.theory.verdict import Outcome, TwinOutcome, Verdict, closed_form, identity

SETTINGS = Settings(full=False, alpha=1e-5)


@functools.cache
def subject(zeros=0.3, sizes=(3, 3, 2, 3, 3, 2)):
    return Subject("random", functools.partial(random_world, seed=5, sizes=sizes, zeros=zeros))


@pytest.mark.parametrize("claim", [c1, c2, c3], ids=["C1", "C2", "C3"])
def test_identities_hold_and_twins_fail_on_a_random_world(claim):
    outcome = claim.check(subject(), SETTINGS)
    assert outcome.verdict is Verdict.SUPPORTED
    assert outcome.measured <= 1e-12
    twins = claim.twins(subject(), SETTINGS)
    assert twins
    assert all(t.rejected and t.measured > 1e-4 for t in twins)


def test_c1_check_notices_a_wrong_bail():
    wrong = Subject("random", subject().program)
    corpus = wrong.corpus
    corpus.bail[3, 2, 1] = corpus.bail[3, 2, 1][::-1]
    if np.array_equal(corpus.bail[3, 2, 1], corpus.bail[3, 2, 1][::-1]):
        corpus.bail[3, 2, 1] = [0.9, 0.1]
    assert c1.check(wrong, SETTINGS).verdict is Verdict.REFUTED


def test_c3_check_notices_wrong_evidence():
    wrong = Subject("random", subject().program)
    wrong.evidence[1][:, 0] += 1e-6
    assert c3.check(wrong, SETTINGS).verdict is Verdict.REFUTED


def test_where_a_claim_does_not_apply_it_says_why():
    aliased = Subject("aliased", bp.load_model("aliased"))
    assert "experts agree" in c2.check(aliased, SETTINGS).reason
    assert "never moves" in c3.check(aliased, SETTINGS).reason
    one_task = Subject("one", functools.partial(random_world, sizes=(1, 3, 2, 3, 3, 1)))
    assert c1.check(one_task, SETTINGS).verdict is Verdict.NOT_APPLICABLE
    one_step = Subject("one", functools.partial(random_world, sizes=(3, 3, 2, 3, 1, 1)))
    for claim in (c1, c2):
        assert "H = 1" in claim.check(one_step, SETTINGS).reason
    assert n1.check(one_step, SETTINGS).verdict is Verdict.NOT_APPLICABLE


@pytest.mark.parametrize("tasks", [1, 2, 5, 16])
def test_needle_closed_forms_agree_with_first_principles(tasks):
    """A BAIL that remembers everything fails in episode t unless the task is among its first t of a random order."""
    for episodes in (1, tasks, 3 * tasks):
        by_hand = sum(max(0, tasks - t) / tasks for t in range(1, episodes + 1))
        assert needle_regret(tasks, episodes) == pytest.approx(by_hand, abs=1e-12)
        assert forgetful_needle_regret(tasks, episodes, [True] * episodes) == pytest.approx(by_hand, abs=1e-12)
    nothing = forgetful_needle_regret(tasks, 10, [False] * 10)
    assert nothing == pytest.approx(10 * (1 - 1 / tasks))


def test_n1_on_a_small_needle(monkeypatch):
    monkeypatch.setattr(n1, "SIZES", ((4, 4, 4096),))
    monkeypatch.setattr("bayespar.theory.verdict.LARGEST_HALF_WIDTH", 0.1)
    world = Subject("needle", needle)
    outcome = n1.check(world, Settings(full=False, alpha=1e-3))
    assert outcome.verdict is Verdict.SUPPORTED
    assert outcome.predicted == 1.5
    monkeypatch.setattr(n1, "needle_regret", lambda tasks, episodes: 1.3)
    assert n1.check(world, Settings(full=False, alpha=1e-3)).verdict is Verdict.REFUTED


def test_scores():
    assert identity(1e-13, 1e-12, "").verdict is Verdict.SUPPORTED
    assert identity(2e-12, 1e-12, "").verdict is Verdict.REFUTED
    assert identity(float("nan"), 1e-12, "").verdict is Verdict.REFUTED
    narrow, wide = Interval(10.0, 9.9, 10.1, 1e-5, 100), Interval(10.0, 9.0, 11.0, 1e-5, 100)
    assert closed_form(narrow, 10.05, "").verdict is Verdict.SUPPORTED
    assert closed_form(narrow, 10.2, "").verdict is Verdict.REFUTED
    assert closed_form(wide, 10.2, "").verdict is Verdict.INCONCLUSIVE


def fake_claim(verdict, rejected=True, worlds=1):
    return runner.Claim(
        id="C1",
        title="",
        statement="",
        assumptions=(),
        status="derived",
        worlds=worlds,
        check=lambda s, t: Outcome(verdict, 0.0, 1.0, "because"),
        twins=lambda s, t: [TwinOutcome("twin", "", rejected, float("inf"), 1.0)],
    )


@pytest.mark.parametrize(
    ("claim", "shipped", "passed"),
    [
        (fake_claim(Verdict.SUPPORTED), True, True),
        (fake_claim(Verdict.SUPPORTED, worlds=2), True, False),
        (fake_claim(Verdict.SUPPORTED, worlds=2), False, True),
        (fake_claim(Verdict.SUPPORTED, rejected=False), True, False),
        (fake_claim(Verdict.REFUTED), False, False),
        (fake_claim(Verdict.INCONCLUSIVE), False, False),
        (fake_claim(Verdict.NOT_APPLICABLE), False, True),
        (fake_claim(Verdict.NOT_APPLICABLE), True, False),
    ],
)
def test_what_makes_a_run_pass(monkeypatch, claim, shipped, passed):
    monkeypatch.setitem(CLAIMS, "C1", claim)
    report = runner.verify({"lock": bp.load_model("lock")}, ["C1"], shipped=shipped)
    assert report.passed is passed
    data = json.loads(json.dumps(report_data(report), allow_nan=False))
    assert data["passed"] is passed
    assert data["findings"][0]["reason"] == "because"
    if data["findings"][0]["twins"]:
        assert data["findings"][0]["twins"][0]["measured"] == "inf"


def test_unknown_claims_are_refused():
    with pytest.raises(bp.InvalidWorldError, match="no claim 'C9'"):
        runner.verify({"lock": bp.load_model("lock")}, ["C9"])
