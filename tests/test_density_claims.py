"""C1, C3 and W1 where tasks have a density: what they accept, what they refuse, and why others do not apply.

Samplers are replaced by draws from the closed form, so nothing is compiled for long; `bayespar verify` runs the same
claims with NUTS and SMC themselves.
"""

import functools

import numpy as np
import pytest
from scipy.stats import norm

import bayespar as bp
from bayespar.posterior.result import Posterior
from bayespar.theory import conjugate
from bayespar.theory.agreement import Compared, agreement, twin
from bayespar.theory.claim import Settings, Subject
from bayespar.theory.claims import CLAIMS
from bayespar.theory.claims.continuous import METHODS
from bayespar.theory.continuous import CHAINS, Continuous, only
from bayespar.theory.runner import verify
from bayespar.theory.verdict import Verdict

SETTINGS = Settings(full=False, alpha=1e-6)
ARMS = functools.partial(bp.load_model("bernoulli_arms"), arms=2)


def ideal(case, method, prompt, *, prior=0.0, stuck=False):
    """Independent draws from the Beta posterior in place of a sampler's; or of one that is wrong, or never moves."""
    law = conjugate.arm_posterior(prompt, 2) + np.array([[prior, 0.0], [0.0, 0.0]])
    rng = np.random.default_rng([METHODS.index(method), prompt.num_episodes, prompt.step, int(law.sum())])
    wins = rng.beta(law[:, 0], law[:, 1], size=(CHAINS, case.draws, 2))
    if stuck:
        wins[:] = np.repeat(wins[:, ::50], 50, axis=1)
    leaves = np.ones((*wins.shape[:2], 1))
    return Posterior(method, np.nan, prompt, latents=case.latents, draws={"wins": wins}, leaf_probabilities=leaves)


def check(monkeypatch, subject, claim, **wrong):
    monkeypatch.setattr(Continuous, "posterior", functools.partialmethod(ideal, **wrong))
    return CLAIMS[claim].on(subject)[0](subject, SETTINGS)


@pytest.fixture(scope="module")
def subject():
    return Subject("arms", ARMS)


@pytest.mark.parametrize("claim", ["C1", "C3", "W1"])
def test_right_draws_are_supported_and_every_twin_rejected(monkeypatch, subject, claim):
    outcome = check(monkeypatch, subject, claim)
    assert outcome.verdict is Verdict.SUPPORTED, outcome
    assert 0 < outcome.half_width <= 0.02
    assert outcome.alpha == pytest.approx(2 * SETTINGS.alpha)
    assert "closed forms" in outcome.reason
    twins = CLAIMS[claim].on(subject)[1](subject, SETTINGS)
    assert len(twins) == {"C1": 8, "C3": 4, "W1": 6}[claim]
    assert [t.name for t in twins if not t.rejected] == []
    assert min(t.power for t in twins) >= 0.99
    # BAIL gives the subgoal of the mean world's expert at most 0.9, so that expert is a witness.
    assert all(t.measured >= 0.1 - 1e-9 for t in twins if "posterior-mean world" in t.name)


@pytest.mark.parametrize("claim", ["C1", "C3", "W1"])
def test_draws_from_another_prior_are_refuted(monkeypatch, subject, claim):
    assert check(monkeypatch, subject, claim, prior=1.0).verdict is Verdict.REFUTED


def test_chains_that_hardly_move_are_inconclusive(monkeypatch, subject):
    # Fifty copies of each draw: the standard errors know, and 640 independent draws do not reach 2 %.
    outcome = check(monkeypatch, subject, "C1", stuck=True)
    assert outcome.verdict is Verdict.INCONCLUSIVE
    assert outcome.half_width > 0.02


class TestAgreement:
    def test_false_alarms_come_at_the_level(self):
        rng, level, runs = np.random.default_rng(0), 0.05, 2000
        n, exact = 5000, np.array([0.5, 0.2, 0.9])
        estimates = rng.binomial(n, exact, size=(runs, 3)) / n
        alarms = [
            agreement([Compared(e, exact, np.sqrt(e * (1 - e) / n), n)], level, "").verdict is Verdict.REFUTED
            for e in estimates
        ]
        # Binomial(2000, 0.05) exceeds 160 with probability below 1e-7.
        assert sum(alarms) <= 160

    def test_an_event_too_rare_to_be_seen_is_no_refutation(self):
        # 24,000 draws miss an event of probability 3e-4 with probability 7e-4: above any level in use.
        none = Compared(np.zeros(1), np.array([3e-4]), np.zeros(1), 24_000)
        assert agreement([none], 1e-6, "").verdict is Verdict.SUPPORTED
        half = Compared(np.zeros(1), np.array([3e-2]), np.zeros(1), 24_000)
        assert agreement([half], 1e-6, "").verdict is Verdict.REFUTED

    def test_nan_is_refuted(self):
        broken = Compared(np.array([np.nan]), np.array([0.5]), np.array([0.01]), 10**6)
        assert agreement([broken], 1e-6, "").verdict is Verdict.REFUTED

    def test_power_of_a_twin(self):
        # The gap is 2.3264 standard errors beyond the bound: rejected again with probability 0.99.
        error, n, alpha = 0.001, 10**9, 1e-6
        gap = (norm.isf(alpha / 2) + norm.isf(0.01)) * error
        found = twin("", "", Compared(np.array([0.5 + gap]), np.array([0.5]), np.array([error]), n), alpha)
        assert found.rejected
        assert found.power == pytest.approx(0.99, abs=1e-3)
        assert not twin("", "", Compared(np.array([0.5]), np.array([0.5]), np.array([error]), n), alpha).rejected


def test_claims_about_finite_tasks_do_not_apply():
    report = verify({"dirichlet_world": bp.load_model("dirichlet_world")}, shipped=False)
    assert report.passed
    reasons = {f.claim: f.outcome.reason for f in report.findings}
    assert all(f.outcome.verdict is Verdict.NOT_APPLICABLE and not f.twins for f in report.findings)
    assert "eta = 0" in reasons["E1"]
    assert "24 coordinates have a density" in reasons["C1"]
    assert "24 coordinates have a density" in reasons["W1"]


def test_a_shorter_prompt_keeps_its_current_history():
    prompt = bp.Prompt([[0, 1], [0, 2]], [[0], [1]], None, [0])
    less = only(prompt, [0])
    assert less.num_episodes == 1
    assert less.observations.tolist() == [[0, 1]]
    assert less.current_observations.tolist() == [0]
    assert only(prompt, []).num_episodes == 0
