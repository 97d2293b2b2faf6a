"""Programs as ordinary numpyro models: against exact posteriors and conjugate closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC, NUTS, Predictive
from numpyro.infer.util import log_density

import bayespar as bp
from bayespar.statistics import log_normalise

RNG = np.random.default_rng(0)
PRIOR = np.array([0.2, 0.3, 0.5])
KERNELS = RNG.dirichlet(np.ones(3), (3, 2, 3))
EMISSIONS = RNG.dirichlet(np.ones(2), (3, 3))
REWARD = np.zeros((3, 2))


def arrays():
    """A finite program that only indexes arrays, so that its site may be traced."""
    z = numpyro.sample("z", dist.Categorical(PRIOR))
    kernels, emissions = jnp.asarray(KERNELS), jnp.asarray(EMISSIONS)
    return bp.World(np.eye(3)[0], kernels[z], emissions[z], REWARD, horizon=3)


def slips():
    """A continuous program with a sub-program: subgoal 0 lands in state 1 with probability p, subgoal 1 flips."""
    p = numpyro.sample("p", dist.Beta(2.0, 2.0))

    def transition(state, subgoal):
        return numpyro.sample("landed", dist.Bernoulli(p)) if subgoal == 0 else 1 - state

    return bp.World(lambda: 0, transition, np.eye(2), REWARD, horizon=3, states=2, subgoals=2, observations=2)


PROMPT = bp.Prompt([[0, 1, 1], [0, 0, 1]], [[0, 0], [0, 0]], current_observations=[0, 1], current_subgoals=[0])
# Under `slips`, the prompt holds four landings in state 1 and one in state 0.


def test_vmapped_log_density_is_the_exact_posterior():
    model = bp.numpyro_model(arrays, PROMPT)
    with jax.enable_x64(True):
        joint = jax.jit(jax.vmap(lambda z: log_density(model, (), {}, {"z": z})[0]))(jnp.arange(3))
    exact = bp.posterior(arrays, PROMPT)
    np.testing.assert_allclose(np.exp(log_normalise(np.asarray(joint))), exact.probabilities, rtol=1e-12)
    np.testing.assert_allclose(np.log(np.exp(joint).sum()), exact.log_evidence, rtol=1e-12)


def test_a_program_that_branches_in_python_takes_given_values():
    tiger = bp.load_model("tiger")
    family = bp.enumerate_program(tiger)
    heard = family.observations.index("a growl on the left")
    prompt = bp.Prompt(current_observations=[0, heard], current_subgoals=[0])
    (site, values), *_ = family.sites
    model = bp.numpyro_model(tiger, prompt)
    with jax.enable_x64(True):
        joint = np.array([log_density(model, (), {}, {site: value})[0] for value in values])
    np.testing.assert_allclose(np.exp(log_normalise(joint)), bp.posterior(family, prompt).probabilities, rtol=1e-12)


def test_density_and_gradient_of_a_continuous_program():
    model = bp.numpyro_model(slips, PROMPT)

    def density(p):
        return log_density(model, (), {}, {"p": p})[0]

    with jax.enable_x64(True):
        for p in (0.1, 0.3, 0.9):
            expected = np.log(6 * p * (1 - p)) + 4 * np.log(p) + np.log(1 - p)
            assert float(density(p)) == pytest.approx(expected, abs=1e-12)
            assert float(jax.grad(density)(p)) == pytest.approx(5 / p - 2 / (1 - p), abs=1e-9)


@pytest.mark.slow
def test_nuts_finds_the_conjugate_posterior():
    """Beta(6, 3). NUTS draws are at worst this correlated: 4 standard errors at an effective size of a quarter."""
    chain = MCMC(NUTS(bp.numpyro_model(slips, PROMPT)), num_warmup=300, num_samples=2000, progress_bar=False)
    chain.run(jax.random.key(0))
    draws = np.asarray(chain.get_samples()["p"])
    mean, variance = 6 / 9, 6 * 3 / (81 * 10)
    assert abs(draws.mean() - mean) <= 4 * np.sqrt(variance / 500)
    assert abs(draws.mean() - 0.5) > 4 * np.sqrt(variance / 500)  # and not the prior


def test_predictive_draws_the_prior():
    draws = Predictive(bp.numpyro_model(arrays, bp.Prompt()), num_samples=500)(jax.random.key(0))["z"]
    frequency = np.bincount(np.asarray(draws), minlength=3) / 500
    assert np.abs(frequency - PRIOR).max() <= 5 * np.sqrt(0.25 / 500)


def test_a_prompt_that_does_not_fit_is_refused():
    model = bp.numpyro_model(slips, bp.Prompt(current_observations=[7]))
    with pytest.raises(bp.InvalidPromptError, match="indices run from 0 to 1"):
        log_density(model, (), {}, {"p": 0.5})
