"""NUTS and its diagnostics, against conjugate closed forms and against posteriors worked out by hand."""

import os
import sys
import warnings
from functools import partial

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from arviz_stats.base import array_stats

import bayespar as bp
from bayespar.errors import ConvergenceWarning
from bayespar.posterior.diagnostics import diagnose
from bayespar.posterior.latents import find_latents
from bayespar.posterior.nuts import _compiled, nuts_posterior

nuts_module = sys.modules["bayespar.posterior.nuts"]
ARMS = partial(bp.load_model("bernoulli_arms"), arms=2)
ROWS = partial(bp.load_model("dirichlet_world"), states=3, subgoals=1, horizon=4, accuracy=1.0)
QUICK = {"warmup": 300, "draws": 500}


def pulls(arms, outcomes):
    return bp.Prompt(np.stack([np.zeros(len(arms), int), outcomes], axis=1), np.array(arms)[:, None])


def standard_scores(draws, mean, variance):
    """Of the mean and variance of each component of ``draws`` [chain, draw, ...], in Monte Carlo standard errors."""
    x = np.moveaxis(draws.reshape(*draws.shape[:2], -1), -1, 0)
    mean, variance = np.ravel(mean), np.ravel(variance)
    scores = [(x.mean(axis=(1, 2)) - mean) / array_stats.mcse(x, method="mean")]
    squares = (x - mean[:, None, None]) ** 2
    scores.append((squares.mean(axis=(1, 2)) - variance) / array_stats.mcse(squares, method="mean"))
    return np.abs(np.concatenate(scores))


@pytest.fixture(scope="module")
def arms():
    """7 wins and 3 losses of the first arm; 2 wins and 8 losses of the second."""
    prompt = pulls([0] * 10 + [1] * 10, [1] * 7 + [2] * 3 + [1] * 2 + [2] * 8)
    return bp.posterior(ARMS, prompt, key=1, **QUICK)


def beta(a, b):
    a, b = np.array(a, float), np.array(b, float)
    return a / (a + b), a * b / ((a + b) ** 2 * (a + b + 1))


def test_arms_follow_beta_distributions(arms):
    """4 statistics, each beyond 4 standard errors with probability 6e-5: 3e-4 in all, once, as the key is fixed."""
    assert arms.method == "nuts"
    assert arms.diagnostics.ok, arms.diagnostics
    exact = beta([8, 3], [4, 9])
    assert standard_scores(arms.draws["wins"], *exact).max() < 4
    # Twins: the same test with another prior, one win forgotten, and no likelihood at all.
    assert standard_scores(arms.draws["wins"], *beta([9, 4], [5, 10])).max() > 4
    assert standard_scores(arms.draws["wins"], *beta([7, 3], [4, 9])).max() > 4
    assert standard_scores(arms.draws["wins"], *beta([1, 1], [1, 1])).max() > 4


def test_observed_states_give_dirichlet_rows():
    """9 means and 9 variances: 1.2e-3 in all that one is beyond 4 standard errors, once, as the key is fixed."""
    rng = np.random.default_rng(3)
    truth = rng.dirichlet(np.ones(3), 3)
    observations = np.zeros((30, 4), int)
    for episode in observations:
        episode[0] = rng.integers(3)
        for h in range(1, 4):
            episode[h] = rng.choice(3, p=truth[episode[h - 1]])
    result = bp.posterior(ROWS, bp.Prompt(observations, np.zeros((30, 3), int)), key=2, **QUICK)
    counts = np.ones((3, 3))
    np.add.at(counts, (observations[:, :-1].ravel(), observations[:, 1:].ravel()), 1)

    def dirichlet(a):
        total = a.sum(axis=-1, keepdims=True)
        return a / total, a * (total - a) / (total**2 * (total + 1))

    assert result.diagnostics.ok, result.diagnostics
    assert standard_scores(result.draws["rows"], *dirichlet(counts)).max() < 4
    assert standard_scores(result.draws["rows"], *dirichlet(counts + 0.5)).max() > 4
    assert standard_scores(result.draws["rows"], *dirichlet(np.ones((3, 3)))).max() > 4


def doors():
    """The cup is behind one of two doors, and a Reporter who is wrong with a probability of its own says which."""
    door = int(numpyro.sample("door", dist.Bernoulli(0.3)))
    wrong = numpyro.sample("wrong", dist.Beta(2.0, 6.0))

    def emission(state):
        return state if not numpyro.sample("mistaken", dist.Bernoulli(wrong)) else 1 - state

    return bp.World(np.eye(2)[door], np.eye(2)[None], emission, np.zeros((2, 2)), horizon=2, states=2, observations=2)


def test_finite_sites_have_exact_probabilities_given_each_draw():
    """The door and the error rate, with hidden states; the posterior is a sum of two Beta functions by hand."""
    says = np.array([1, 0, 1, 1, 0])  # heard twice in each of two episodes, once in the current one
    prompt = bp.Prompt(says[:4].reshape(2, 2), [[0], [0]], current_observations=says[4:])
    result = bp.posterior(doors, prompt, key=3, **QUICK)
    assert result.diagnostics.ok, result.diagnostics
    wrong = result.draws["wrong"]
    ones, zeros = says.sum(), 5 - says.sum()
    weights = np.stack([0.7 * wrong**ones * (1 - wrong) ** zeros, 0.3 * wrong**zeros * (1 - wrong) ** ones], axis=-1)
    np.testing.assert_allclose(result.leaf_probabilities, weights / weights.sum(axis=-1, keepdims=True), rtol=1e-10)

    grid = (np.arange(20000) + 0.5) / 20000  # the midpoint rule: its error is below 1e-8 here
    density = grid * (1 - grid) ** 5
    mass = np.array([0.7, 0.3]) @ np.stack([grid**ones * (1 - grid) ** zeros, grid**zeros * (1 - grid) ** ones])
    mean = (grid * density * mass).sum() / (density * mass).sum()
    second = 0.3 * (density * grid**zeros * (1 - grid) ** ones).sum() / (density * mass).sum()
    assert standard_scores(wrong, mean, wrong.var())[0] < 4
    assert standard_scores(result.leaf_probabilities[..., 1], second, 1.0)[0] < 4
    assert standard_scores(result.leaf_probabilities[..., 1], 0.3, 1.0)[0] > 4  # the prior


def test_same_key_same_draws_on_any_number_of_cores_and_nothing_is_compiled_anew(arms, monkeypatch):
    before = _compiled.cache_info().misses, nuts_module._evaluate._cache_size()
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    again = bp.posterior(ARMS, arms.prompt, key=1, **QUICK)
    other = bp.posterior(ARMS, arms.prompt, key=2, **QUICK)
    longer = bp.posterior(ARMS, pulls([0] * 50, [1] * 25 + [2] * 25), key=1, **QUICK)
    assert (again.draws["wins"] == arms.draws["wins"]).all()
    assert not (other.draws["wins"] == arms.draws["wins"]).any()
    assert longer.draws["wins"][..., 0].std() < arms.draws["wins"][..., 0].std()
    assert (_compiled.cache_info().misses, nuts_module._evaluate._cache_size()) == before


def test_vectorized_chains_agree(arms):
    result = bp.posterior(ARMS, arms.prompt, key=5, chain_method="vectorized", **QUICK)
    assert standard_scores(result.draws["wins"], *beta([8, 3], [4, 9])).max() < 4


def test_what_the_sampler_says(arms):
    stats = arms.sample_stats
    assert {name: a.shape for name, a in stats.items()} == dict.fromkeys(stats, (4, 500))
    wins = arms.draws["wins"]
    # lp is the density of the logits: that of the wins, times the Jacobian w (1 - w).
    lp = (8 * np.log(wins) + np.array([4, 9]) * np.log1p(-wins) + np.array([0, -5]) * np.log(wins)).sum(axis=-1)
    np.testing.assert_allclose(stats["lp"], lp, rtol=1e-9)
    assert (stats["tree_depth"] == np.ceil(np.log2(stats["n_steps"] + 1))).all()
    assert arms.attributes["key"] == 1
    assert {"bayespar", "jax", "numpyro", "target_accept"} <= set(arms.attributes)


def test_too_few_draws_are_refused_loudly(arms, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["bayespar.posterior.diagnostics"], "MIN_ESS_PER_CHAIN", 10_000)
        with pytest.warns(ConvergenceWarning, match="ESS of wins"):
            result = bp.posterior(ARMS, arms.prompt, key=1, **QUICK)
    assert not result.diagnostics.ok
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        bp.posterior(ARMS, arms.prompt, key=1, **QUICK)


def test_impossible_prompts_name_the_first_impossible_observation():
    prompt = bp.Prompt([[0, 1], [0, 0]], [[0], [1]])  # "ready" again after a pull
    with pytest.raises(bp.ImpossibleEvidenceError, match="episode 1, step 1") as caught:
        bp.posterior(ARMS, prompt, **QUICK)
    assert (caught.value.episode, caught.value.step) == (1, 1)


def foggy(edge=0.9):
    """A Reporter who makes mistakes only where ``fog`` is high: most, but not all, points decode."""
    fog = numpyro.sample("fog", dist.Beta(1.0, 1.0))
    mistake = jax.numpy.where(fog > edge, 0.5, 0.0)
    emission = jax.numpy.array([[1.0, 0.0], [0.0, 1.0]]) * (1 - mistake) + mistake / 2
    return bp.World(np.eye(2)[0], np.eye(2)[None], emission, np.zeros((2, 2)), horizon=2)


@pytest.mark.parametrize(("edge", "seen", "lowest"), [(0.9, 1, 0.9), (0.8, 0, 0.0)])
def test_states_that_can_be_read_off_somewhere_only_are_summed_out(edge, seen, lowest):
    """The first state is 0. Where 1 was seen only fog above 0.9 explains that, and the start is far from it; where 0
    was seen all fog does, but states can be read off in a part of it only, and some starts are outside."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a density that jumps is not for NUTS
        result = bp.posterior(partial(foggy, edge), bp.Prompt([[seen, 0]], [[0]]), key=0, chains=2, warmup=50, draws=50)
    fog = result.draws["fog"]
    assert (fog > lowest).all()
    assert (fog > edge).any()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"chains": 0}, "chains"),
        ({"draws": 3}, "draws = 3; give at least 4"),
        ({"target_accept": 1.0}, "target_accept"),
        ({"chain_method": "magic"}, "chain_method"),
        ({"key": "seven"}, "key"),
        ({"thinning": 2}, "thinning"),
    ],
)
def test_settings_are_checked_before_anything_is_compiled(wrong, message, arms):
    with pytest.raises(bp.errors.BayesparError, match=message):
        bp.posterior(find_latents(ARMS), arms.prompt, "nuts", **wrong)
    with pytest.raises(bp.InvalidPromptError):
        nuts_posterior(find_latents(ARMS), bp.Prompt([[0, 9]], [[0]]))


def test_diagnostics_are_those_of_arviz():
    import arviz_stats
    import xarray as xr

    rng = np.random.default_rng(0)
    draws, energy = rng.normal(size=(4, 300, 2)), rng.normal(size=(4, 300))
    found = diagnose({"a": draws}, 0, energy)
    assert found.ok, found
    data = xr.Dataset({"a": (("chain", "draw", "k"), draws)})
    tree = xr.DataTree.from_dict(
        {"posterior": data, "sample_stats": xr.Dataset({"energy": (("chain", "draw"), energy)})}
    )
    summary = arviz_stats.summary(tree, ci_prob=0.9, ci_kind="eti", round_to="none")
    for ours, theirs in (("mean", "mean"), ("sd", "sd"), ("r_hat", "r_hat"), ("mcse", "mcse_mean")):
        np.testing.assert_allclose(found.table.sel(statistic=ours), summary[theirs], rtol=1e-12)
    np.testing.assert_allclose(found.table.sel(statistic="ess_bulk"), summary["ess_bulk"], rtol=1e-12)
    tail = arviz_stats.ess(tree, method="tail", prob=(0.05, 0.95))  # its summary looks at other quantiles
    np.testing.assert_allclose(found.table.sel(statistic="ess_tail"), np.ravel(tail["a"]), rtol=1e-12)
    assert "a[1]" in str(found)
    np.testing.assert_allclose(found.e_bfmi, array_stats.bfmi(energy), rtol=1e-2)  # one of the two divides by n - 1


def test_diagnostics_see_what_is_wrong():
    rng = np.random.default_rng(1)
    good, energy = rng.normal(size=(4, 300)), rng.normal(size=(4, 300))
    walk = np.cumsum(rng.normal(size=(4, 300)), axis=1)

    def problems(draws, divergences=0, energy=energy):
        return diagnose({"a": draws}, divergences, energy).problems

    assert problems(good) == ()
    assert any("R-hat" in p for p in problems(good + np.arange(4)[:, None]))
    assert any("bulk ESS" in p for p in problems(walk))
    assert any("R-hat" in p for p in problems(np.ones((4, 300))))
    assert any("R-hat" in p for p in problems(np.where(good > 2, np.nan, good)))
    assert any("divergent" in p for p in problems(good, divergences=1))
    assert any("E-BFMI" in p for p in problems(good, energy=walk))
    assert any("E-BFMI" in p for p in problems(good, energy=np.zeros((4, 300))))
    rare = np.where(rng.random((4, 300)) < 0.5, good, np.sort(good, axis=1))
    assert problems(rare) != ()
