"""The checks find by themselves, given nothing but an adapter, some of what docs/real-bugs.md lists."""

import numpy as np
import pytest

import bayespar.testing as testing
from bayespar.testing.adapters.dynamax import from_dynamax
from bayespar.testing.adapters.pymdp import from_pymdp


@pytest.mark.parametrize(
    ("adapter", "role", "check"),
    [
        (from_dynamax, "log_evidence", "agreement"),  # D3
        (from_dynamax, "log_evidence", "normalised"),  # D13
        (from_dynamax, "posterior", "ratio"),  # D5
        (from_dynamax, "posterior", "refusal"),  # D5
        (from_dynamax, "log_evidence", "extremes"),  # D1
        (from_pymdp, "posterior", "extremes"),  # P3
        (from_pymdp, "posterior", "refusal"),  # P1
    ],
)
def test_what_the_checks_find(adapter, role, check):
    report = testing.run_checks(**{role: getattr(adapter(), role)}, checks=[check], examples=20)
    assert [r.check for r in report.failures] == [check]


def test_what_the_checks_do_not_find():
    """pymdp's agent of one factor is exact Bayes to 1e-10 on small possible worlds."""
    testing.assert_correct(posterior=from_pymdp().posterior, checks=["ratio", "task order"], examples=10)


def test_a_filter_that_says_when_evidence_is_impossible_passes():
    """dynamax's filter with the cure of D3: what is refuted above is the library, not its adapter."""
    import jax.numpy as jnp
    from dynamax.hidden_markov_model import hmm_filter

    def cured(initial, transition, log_likelihoods):
        result = hmm_filter(initial, transition, log_likelihoods)
        alive = (result.filtered_probs.sum(axis=1) > 0).all()
        return result._replace(marginal_loglik=jnp.where(alive, result.marginal_loglik, -np.inf))

    roles = from_dynamax(cured)
    testing.assert_correct(log_evidence=roles.log_evidence, checks=["agreement", "normalised"], examples=20)
    testing.assert_correct(posterior=roles.posterior, checks=["agreement", "ratio", "refusal"], examples=20)
