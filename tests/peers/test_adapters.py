"""The adapters to other libraries against the enumeration oracle, one runnable example each: ``make peers``."""

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.funsor import config_enumerate, enum, log_density

import bayespar as bp
from bayespar.testing.adapters.blackjax import from_blackjax
from bayespar.testing.adapters.dynamax import from_dynamax
from bayespar.testing.adapters.numpyro import from_numpyro
from bayespar.testing.adapters.pymdp import from_pymdp
from bayespar.testing.oracle import Oracle, as_prompt

H = 3


def family(seed, *, zeros, steps=1, tasks=3):
    """Three tasks, two states, two subgoals, three observations; kernels are shared by no one, or by two."""
    rng = np.random.default_rng(seed)

    def rows(*shape):
        weights = rng.integers(0 if zeros else 1, 4, shape).astype(float)
        weights[..., 0] += weights.sum(axis=-1) == 0
        return weights / weights.sum(axis=-1, keepdims=True)

    return bp.Family(
        rows(tasks), rows(tasks, 2), rows(tasks, steps, 2, 2, 2), rows(tasks, 2, 3), np.zeros((H, 3)), horizon=H
    )


FAMILIES = [family(0, zeros=False), family(1, zeros=False, steps=2), family(2, zeros=True), family(3, zeros=True)]


def prompts(of, seed=0):
    """Possible prompts of every length: as the oracle has them, and as bayespar does."""
    oracle, rng = Oracle(of), np.random.default_rng(seed)
    for episodes in (0, 1, 2):
        for step in range(H + 1):
            drawn = oracle.draw_prompt(rng, episodes, step) if step else ((), 0, (), ())
            yield oracle, drawn, as_prompt(drawn)


def joint(oracle, drawn):
    """P(task, state | prompt), [Z, S], by the oracle; before the first observation, of the state it starts in."""
    _, _, observations, subgoals = drawn
    weights = [
        oracle.state_weights(z, observations, subgoals) if observations else oracle.initial[z] for z in range(oracle.Z)
    ]
    states = np.array(weights)
    total = states.sum(axis=1, keepdims=True)
    return oracle.posterior(drawn)[:, None] * states / np.where(total > 0, total, 1)


@pytest.mark.parametrize("of", FAMILIES, ids=["positive", "steps differ", "zeros", "more zeros"])
def test_dynamax_filter(of):
    log_evidence, posterior, state_posterior = from_dynamax()
    for oracle, drawn, prompt in prompts(of):
        likelihoods = [oracle.likelihood(z, *e[-2:]) for z in range(oracle.Z) for e in [*drawn[0], drawn]]
        if min(likelihoods) > 0:  # else its evidence, and so its posterior, is wrong: D3 and D5 of docs/real-bugs.md
            np.testing.assert_allclose(posterior(of, prompt), oracle.posterior(drawn), atol=1e-12)
            np.testing.assert_allclose(state_posterior(of, prompt), joint(oracle, drawn), atol=1e-12)
        evidence = log_evidence(of, prompt.observations, prompt.subgoals)
        assert evidence.shape == (oracle.Z, prompt.num_episodes)
        for (z, n), value in np.ndenumerate(evidence):
            likelihood = oracle.likelihood(z, *drawn[0][n][1:])
            if likelihood > 0:
                assert value == pytest.approx(np.log(likelihood), abs=1e-12)


def test_dynamax_adapter_takes_another_filter():
    """A filter with the same arguments, written out here, and right about what is impossible."""

    def plain_filter(initial, transition, log_likelihoods):
        weights, rows = initial * jnp.exp(log_likelihoods[0]), []
        for matrix, row in zip(transition[:-1], log_likelihoods[1:], strict=True):
            rows.append(weights)
            weights = (weights @ matrix) * jnp.exp(row)
        rows.append(weights)
        filtered = jnp.stack(rows) / jnp.maximum(jnp.stack(rows).sum(axis=1, keepdims=True), 1e-300)
        return type("Filtered", (), {"marginal_loglik": jnp.log(weights.sum()), "filtered_probs": filtered})

    of = FAMILIES[3]
    log_evidence, posterior, _ = from_dynamax(plain_filter)
    for oracle, drawn, prompt in prompts(of):
        np.testing.assert_allclose(posterior(of, prompt), oracle.posterior(drawn), atol=1e-12)
        with np.errstate(divide="ignore"):
            want = [[np.log(oracle.likelihood(z, o, g)) for _, o, g in drawn[0]] for z in range(oracle.Z)]
        np.testing.assert_allclose(log_evidence(of, prompt.observations, prompt.subgoals), np.array(want), atol=1e-12)


@pytest.mark.parametrize("of", FAMILIES[:3], ids=["positive", "steps differ", "zeros"])
def test_pymdp_agent_of_one_factor(of):
    """pymdp clips at 2e-16, so that its errors stay near that, over the few steps here, where nothing is rare."""
    posterior, state_posterior, _ = from_pymdp()
    for oracle, drawn, prompt in prompts(of):
        np.testing.assert_allclose(posterior(of, prompt), oracle.posterior(drawn), atol=1e-11)
        np.testing.assert_allclose(state_posterior(of, prompt), joint(oracle, drawn), atol=1e-11)


def test_pymdp_agent_of_two_factors_is_right_where_factors_are_independent():
    """With one state the mean field is no approximation; with a state that differs by task it needs joint=True."""
    one = bp.Family([0.25, 0.75], [1.0], np.ones((2, 1, 1)), [[[0.5, 0.5]], [[0.1, 0.9]]], np.zeros((H, 2)), horizon=H)
    posterior, state_posterior, _ = from_pymdp(joint=False)
    for oracle, drawn, prompt in prompts(one):
        np.testing.assert_allclose(posterior(one, prompt), oracle.posterior(drawn), atol=1e-12)
        assert state_posterior(one, prompt).shape == (2, 1)
    with pytest.raises(ValueError, match="that all tasks share"):
        posterior(FAMILIES[1], bp.Prompt(current_observations=[0]))


def test_pymdp_planner_is_a_softmax_of_open_loop_values():
    rng = np.random.default_rng(5)
    shared = FAMILIES[0]
    reward = rng.uniform(size=(H, 3, 2)).round(2)
    of = bp.Family(shared.task_prior, shared.initial, shared.transition, shared.emission, reward, horizon=H)
    planner = from_pymdp(use_states_info_gain=False, gamma=2.0).planner
    oracle = Oracle(of)
    for step in (1, 2):
        _, w, *_ = drawn = oracle.draw_prompt(rng, 1, step)
        belief = joint(oracle, drawn)
        weights = np.zeros(2)
        for plan in np.ndindex(*[2] * (H - step)):
            law, value = belief, 0.0
            for h, g in enumerate(plan, start=step):
                law = np.einsum("zs,zst->zt", law, oracle.transition[:, h - 1, g])
                value += np.einsum("zs,zso,o->", law, oracle.emission, reward[h, :, w])
            weights[plan[0]] += np.exp(2.0 * value)
        got = planner(of, as_prompt(drawn))
        np.testing.assert_allclose(got, weights / weights.sum(), atol=1e-9)
    with pytest.raises(ValueError, match="no subgoal to choose"):
        planner(of, bp.Prompt())
    with pytest.raises(ValueError, match="differ between steps"):
        planner(FAMILIES[1], bp.Prompt(current_observations=[0]))


def enumerated(of, prompt):
    """The numpyro model of any family, its hidden states left to numpyro's enumeration."""
    task = numpyro.sample("task", dist.Categorical(jnp.asarray(of.task_prior)), infer={"enumerate": None})
    initial, kernel, emission = (jnp.asarray(a)[task] for a in (of.initial, of.transition, of.emission))
    past = zip(prompt.observations, prompt.subgoals, strict=True)
    for n, (o, g) in enumerate([*past, (prompt.current_observations, prompt.current_subgoals)]):
        for h in range(len(o)):
            law = kernel[min(h - 1, len(kernel) - 1), g[h - 1], state] if h else initial  # noqa: F821
            state = numpyro.sample(f"state {n}.{h}", dist.Categorical(law), infer={"enumerate": "parallel"})
            numpyro.sample(f"heard {n}.{h}", dist.Categorical(emission[state]), obs=o[h])


def test_numpyro_enumeration_of_hidden_states():
    posterior = from_numpyro(enum(config_enumerate(enumerated), -1), log_density=log_density)
    of = FAMILIES[2]
    oracle = Oracle(of)
    drawn = oracle.draw_prompt(np.random.default_rng(7), 0, 3)
    np.testing.assert_allclose(posterior(of, as_prompt(drawn)), oracle.posterior(drawn), atol=1e-12)


def log_odds(theta, heads):
    """Standard normal log odds theta [1]; heads [N], 0 or 1."""
    return (-(theta**2) / 2 + (heads * theta - jnp.logaddexp(0.0, theta)).sum())[0]


KERNELS = {
    "nuts": lambda f: blackjax.nuts(f, step_size=0.5, inverse_mass_matrix=jnp.ones(1)),
    "hmc": lambda f: blackjax.hmc(f, step_size=0.5, inverse_mass_matrix=jnp.ones(1), num_integration_steps=3),
    "random walk": lambda f: blackjax.normal_random_walk(f, jnp.array([0.7])),
}


def drift(kernel, draws=1500):
    """How far a kernel moves the second moment of prior draws, given data drawn at them, in standard errors."""
    rng = np.random.default_rng(0)
    moves = []
    for key in range(draws):
        theta = rng.normal(size=1)
        heads = (rng.random(5) < 1 / (1 + np.exp(-theta))).astype(float)
        after = kernel(key, theta, heads)
        moves.append(float(after[0] ** 2 - theta[0] ** 2))
    return abs(np.mean(moves)) / (np.std(moves) / np.sqrt(draws))


@pytest.mark.parametrize("name", KERNELS)
def test_blackjax_kernels_leave_the_posterior_as_it_is(name):
    """Geweke's test; 4 standard errors are exceeded by chance once in 16000 runs, and the keys are fixed."""
    assert drift(from_blackjax(KERNELS[name], log_odds, steps=2)) < 4


def test_a_kernel_for_another_posterior_is_seen():
    wrong = from_blackjax(KERNELS["nuts"], lambda theta, heads: log_odds(theta, heads) / 2, steps=2)
    assert drift(wrong) > 4


def test_a_kernel_is_a_function_of_its_key():
    kernel = from_blackjax(KERNELS["nuts"], log_odds)
    start, heads = np.zeros(1), np.ones(5)
    first = kernel(1, start, heads)
    assert first.dtype == np.float64
    assert first == kernel(1, start, heads) != kernel(2, start, heads)
    assert not jax.config.jax_enable_x64
