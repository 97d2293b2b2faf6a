"""The likelihood of a prompt that samplers use: its value and gradient, against sums over every state path."""

import itertools
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import bayespar as bp
from bayespar.evidence import prefix_log_evidence
from bayespar.posterior.likelihood import Likelihood, decoder
from bayespar.testing.strategies import families, seeds

counts_module = sys.modules["bayespar.posterior.expected_counts"]
# Sums of products of a dozen factors, of up to a hundred terms: 100 times the rounding of float64, with room.
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


@eqx.filter_jit
def value(likelihood, family):
    return likelihood(family)


@eqx.filter_jit
def derivatives(likelihood, family):
    """Of the sum over tasks, as a family."""
    return jax.grad(lambda family: likelihood(family).sum())(family)


def random_prompt(rng, family, episodes, step):
    H, O, G = family.horizon, family.num_observations, family.num_subgoals
    return bp.Prompt(
        rng.integers(0, O, (episodes, H)),
        rng.integers(0, G, (episodes, H - 1)),
        current_observations=rng.integers(0, O, step),
        current_subgoals=rng.integers(0, G, max(step - 1, 0)),
    )


def by_evidence(family, prompt):
    total = bp.log_evidence(family, prompt.observations, prompt.subgoals).sum(axis=1)
    if prompt.step:
        o, g = np.zeros((1, family.horizon), int), np.zeros((1, family.horizon - 1), int)
        o[0, : prompt.step], g[0, : prompt.step - 1] = prompt.current_observations, prompt.current_subgoals
        total = total + prefix_log_evidence(family, o, g)[:, 0, prompt.step - 1]
    return total


def by_paths(initial, transition, emission, observations, subgoals):
    """P(observations || subgoals) of one task and episode, summed over every path of states."""
    total = 0.0
    for path in itertools.product(range(len(initial)), repeat=len(observations)):
        p = initial[path[0]] * emission[path[0], observations[0]]
        for h in range(1, len(observations)):
            move = transition[min(h - 1, len(transition) - 1), subgoals[h - 1], path[h - 1], path[h]]
            p *= move * emission[path[h], observations[h]]
        total += p
    return total


@given(families(), seeds, st.integers(0, 3), st.booleans())
@settings(max_examples=15)
def test_it_is_the_evidence_of_every_episode_and_of_the_current_one(family, seed, step, decode):
    prompt = random_prompt(np.random.default_rng(seed), family, 3, min(step, family.horizon))
    found = np.asarray(value(Likelihood(prompt, family, decode=decode), family))
    np.testing.assert_allclose(found, by_evidence(family, prompt), **CLOSE)


@given(families(fully_observed=True), seeds)
@settings(max_examples=10)
def test_counts_give_the_evidence_of_decoded_worlds(family, seed):
    prompt = random_prompt(np.random.default_rng(seed), family, 4, 1)
    likelihood = Likelihood(prompt, family)
    decoded = all(np.count_nonzero(column) <= 1 for column in (np.asarray(family.emission) > 0).any(axis=0).T)
    assert (likelihood.decoded is not None) == decoded
    np.testing.assert_allclose(np.asarray(value(likelihood, family)), by_evidence(family, prompt), **CLOSE)


def dense(rng, tasks=2, states=3, steps=1, horizon=3, subgoals=2, observations=3, zeros=True):
    """A family in which no prompt is impossible, with exact zeros in every kernel."""
    rho = rng.dirichlet(np.ones(states), tasks)
    P = rng.dirichlet(np.ones(states), (tasks, steps, subgoals, states))
    E = rng.dirichlet(np.ones(observations), (1, states))
    if zeros:
        rho[:, -1], P[:, :, 0, 0, -1], E[:, 0, 0] = 0, 0, 0
    rho, P, E = (a / a.sum(axis=-1, keepdims=True) for a in (rho, P, E))
    return bp.Family(np.full(tasks, 1 / tasks), rho, P, E, np.zeros((horizon, observations)), horizon=horizon)


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("logarithms", [False, True])
def test_derivatives_are_right_also_where_a_probability_is_zero(steps, logarithms, monkeypatch):
    """L is linear in any one entry at any one step, so central differences of log L are right to delta^2."""
    rng = np.random.default_rng(steps)
    family = dense(rng, steps=steps)
    prompt = random_prompt(rng, family, 4, 2)
    if logarithms:  # the fallback, which else is not used here
        monkeypatch.setattr(counts_module, "_log2_smallest", lambda kernel: jnp.asarray(-1e9))
    found = jax.jit(jax.grad(lambda f: Likelihood(prompt, family, decode=False)(f).sum()))(family)
    episodes = [(*row, 1.0) for row in zip(prompt.observations, prompt.subgoals, strict=True)]
    episodes.append((prompt.current_observations, prompt.current_subgoals, 1.0))
    kernels = {name: np.array(getattr(family, name)) for name in ("initial", "transition", "emission")}

    def log_likelihood():
        return sum(
            count * np.log(by_paths(kernels["initial"][z], kernels["transition"][z], kernels["emission"][0], o, g))
            for z in range(family.num_tasks)
            for o, g, count in episodes
        )

    delta = 1e-6  # second differences of log L are at most about 1e3 here: an error of 1e-9, and 1e-10 from rounding
    for name, kernel in kernels.items():
        places = [tuple(rng.integers(0, kernel.shape)) for _ in range(6)]
        for place in places + [tuple(zero) for zero in np.argwhere(kernel == 0)[:3]]:
            kept = kernel[place]
            ends = []
            for moved in (kept + delta, kept - delta):
                kernel[place] = moved
                ends.append(log_likelihood())
            kernel[place] = kept
            slope = (ends[0] - ends[1]) / (2 * delta)
            assert float(np.asarray(getattr(found, name))[place]) == pytest.approx(slope, rel=1e-6, abs=1e-6), (
                name,
                place,
            )


def test_values_and_derivatives_are_the_same_under_vmap_and_in_blocks(monkeypatch):
    rng = np.random.default_rng(5)
    family = dense(rng)
    prompt = random_prompt(rng, family, 40, 1)
    whole = Likelihood(prompt, family, decode=False)
    parts = eqx.tree_at(
        lambda l: (l.episodes.observations, l.episodes.subgoals, l.episodes.counts),
        whole,
        (whole.episodes.observations, whole.episodes.subgoals, whole.episodes.counts),
    )
    rows = len(whole.episodes.counts)
    object.__setattr__(parts.episodes, "block", rows // 4)
    assert rows % 4 == 0
    kernels = jax.tree.map(jnp.asarray, family)
    both = [(np.asarray(value(l, kernels)), jax.tree.map(np.asarray, derivatives(l, kernels))) for l in (whole, parts)]
    stacked = jax.tree.map(lambda a: jnp.stack([a, a]), (family.initial, family.transition, family.emission))

    def at(initial, transition, emission):
        there = eqx.tree_at(lambda f: (f.initial, f.transition, f.emission), kernels, (initial, transition, emission))
        return whole(there).sum()

    batched = jax.jit(jax.vmap(jax.value_and_grad(at, argnums=(0, 1, 2))))(*stacked)
    np.testing.assert_allclose(both[1][0], both[0][0], **CLOSE)
    np.testing.assert_allclose(np.asarray(batched[0]), both[0][0].sum(), **CLOSE)
    for name, found in zip(("initial", "transition", "emission"), batched[1], strict=True):
        expected = getattr(both[0][1], name)
        np.testing.assert_allclose(getattr(both[1][1], name), expected, **CLOSE)
        np.testing.assert_allclose(np.asarray(found), np.stack([expected] * 2), **CLOSE)


def late_exclusion(horizon):
    """Two states that never mix: one explains all observations but the last far better, and excludes the last."""
    kernel = np.eye(2)[None]
    emission = np.array([[0.9, 0.1, 0.0], [1e-6, 0.5, 0.499999]])
    return bp.Family([1.0], [0.5, 0.5], kernel, emission, np.zeros((horizon, 3)), horizon=horizon)


def test_a_path_that_only_the_last_observation_singles_out_is_not_lost():
    """The likely path dies at the end; what is left has probability 1e-6^(H-1) of the start: 1e-1794 at H = 300."""
    H = 300
    family = late_exclusion(H)
    prompt = bp.Prompt([[0] * (H - 1) + [2]], [[0] * (H - 1)])
    likelihood = Likelihood(prompt, family)
    assert likelihood.decoded is None
    exact = np.log(0.5) + (H - 1) * np.log(1e-6) + np.log(0.499999)
    found = float(value(likelihood, family)[0])
    assert found == pytest.approx(exact, rel=1e-12)
    slopes = derivatives(likelihood, family)
    assert float(slopes.emission[0, 1, 0]) == pytest.approx((H - 1) / 1e-6, rel=1e-9)
    assert float(slopes.emission[0, 0, 0]) == 0
    # Without logarithms to fall back on, what cannot be trusted is said to be unknown.
    assert np.isnan(float(value(Likelihood(prompt, family, fallback=False), family)[0]))
    # The twin: a filter that normalises at every step, as most do, loses the path.
    forward = np.array([0.5, 0.5])
    for o in prompt.observations[0]:
        forward = forward * family.emission[0][:, o]
        forward = forward / forward.sum() if forward.sum() else forward
    assert forward.sum() == 0


def test_long_horizons_do_not_underflow():
    rng = np.random.default_rng(2)
    family = dense(rng, tasks=1, states=3, horizon=300, observations=4)
    prompt = random_prompt(rng, family, 3, 120)
    likelihood = Likelihood(prompt, family)
    exact = by_evidence(family, prompt)
    assert exact[0] < np.log(np.finfo(float).tiny)  # the product itself is no float
    # 300 steps, each rounded a few times relative to its own size.
    np.testing.assert_allclose(np.asarray(value(likelihood, family)), exact, rtol=1e-11)
    slopes = np.asarray(derivatives(likelihood, family).transition)
    # Each used step is one transition: weighted by the probabilities, the derivatives sum to their number.
    assert (slopes * np.asarray(family.transition)).sum() == pytest.approx(3 * 299 + 119, rel=1e-9)


@pytest.mark.parametrize("decode", [True, False])
def test_impossible_prompts_have_no_likelihood_and_no_nan(decode):
    P = np.array([[[1.0, 0.0], [0.5, 0.5]]])
    family = bp.Family([1.0], [1.0, 0.0], P, np.eye(2), np.zeros((3, 2)), horizon=3)
    likelihood = Likelihood(bp.Prompt([[0, 1, 1]], [[0, 0]]), family, decode=decode)
    assert (likelihood.decoded is not None) == decode
    assert float(value(likelihood, family)[0]) == -np.inf
    slopes = derivatives(likelihood, family)
    assert all(np.isfinite(np.asarray(a)).all() for a in (slopes.initial, slopes.transition, slopes.emission))
    # The twin: the same with the possible observations has a likelihood.
    fine = Likelihood(bp.Prompt([[0, 0, 0]], [[0, 0]]), family, decode=decode)
    assert float(value(fine, family)[0]) == 0


def test_a_decoder_that_does_not_hold_is_told():
    sure = bp.Family([1.0], [0.5, 0.5], np.full((1, 2, 2), 0.5), np.eye(2), np.zeros((2, 2)), horizon=2)
    noisy = bp.Family([1.0], [0.5, 0.5], np.full((1, 2, 2), 0.5), np.full((2, 2), 0.5), np.zeros((2, 2)), horizon=2)
    prompt = bp.Prompt([[0, 1]], [[0]])
    assert decoder(noisy) is None
    assert decoder(sure) is not None
    assert np.isnan(np.asarray(value(Likelihood(prompt, sure), noisy))).all()
    found = np.asarray(value(Likelihood(prompt, sure, decode=False), noisy))
    np.testing.assert_allclose(found, 2 * np.log(0.5), **CLOSE)


def test_cost_of_decoded_worlds_does_not_grow_with_episodes():
    family = bp.Family([1.0], [0.5, 0.5], np.full((1, 2, 2), 0.5), np.eye(2), np.zeros((4, 2)), horizon=4)
    rng = np.random.default_rng(0)
    few, many = (Likelihood(random_prompt(rng, family, n, 0), family) for n in (1, 1000))
    assert sum(a.size for a in jax.tree.leaves(few)) == sum(a.size for a in jax.tree.leaves(many))
    assert many.decoded.emission.sum() == 4000
