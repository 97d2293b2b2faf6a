"""Simulation-based calibration accepts exact samplers, and rejects false ones by the quantity that must tell."""

import functools
import warnings

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import betaln

import bayespar as bp
from bayespar.posterior.latents import find_latents
from bayespar.posterior.result import Posterior
from bayespar.theory.calibration import LOG_LIKELIHOOD, Calibration, calibrate, power, simulate

FITS, EPISODES = 200, 6
LEVEL = 1e-4  # of each test: an exact sampler fails one of the two that it must pass with probability 2e-4 at most
ARMS = functools.partial(bp.load_model("bernoulli_arms"), arms=2)


def noisy_room():
    """A room, named by a Reporter that errs with an unknown probability: one look an episode."""
    room = int(numpyro.sample("room", dist.Bernoulli(0.4)))
    wrong = numpyro.sample("wrong", dist.Beta(2.0, 6.0))
    right, other = np.eye(2)[room], np.eye(2)[1 - room]
    emission = ((1 - wrong) * right + wrong * other)[None]
    return bp.World(np.ones(1), np.ones((2, 1, 1)), emission, np.zeros((2, 2)), horizon=2)


@functools.cache
def cases(program):
    latents = find_latents(program)
    rng = np.random.default_rng(0)
    return latents, [simulate(latents, rng, EPISODES) for _ in range(FITS)]


def points(latents, draws, leaves):
    return Posterior("test", float("nan"), latents=latents, draws=draws, leaf_probabilities=leaves)


def arms(prompt, key, *, prior=(1.0, 1.0), skip=0, heard=1):
    """Draws by the Beta posterior: of a wrong prior, without the first episodes, or with a share of the evidence."""
    counts = np.tile(np.array(prior), (2, 1))
    for seen, chosen in zip(prompt.observations[skip:], prompt.subgoals[skip:], strict=True):
        counts[chosen[0], seen[1] - 1] += heard
    wins = np.random.default_rng(key).beta(counts[:, 0], counts[:, 1], size=(1, 500, 2))
    return points(find_latents(ARMS), {"wins": wins}, np.ones((1, 500, 1)))


def room(prompt, key, *, prior=(0.6, 0.4), beta=(2.0, 6.0), emission=1.0):
    """Draws by hand for ``noisy_room``; ``emission`` scales how often errors are expected."""
    rng, seen = np.random.default_rng(key), prompt.observations.ravel()
    wrong = np.linspace(0.0005, 0.9995, 1000)
    law = wrong ** (beta[0] - 1) * (1 - wrong) ** (beta[1] - 1) / np.exp(betaln(*beta))
    errs = wrong * emission
    hits = [(seen == r).sum() for r in range(2)]
    joint = np.stack([p * law * errs ** (len(seen) - n) * (1 - errs) ** n for p, n in zip(prior, hits, strict=True)])
    index = rng.choice(1000, size=500, p=joint.sum(0) / joint.sum())
    jitter = rng.uniform(-0.0005, 0.0005, 500)
    leaves = (joint / joint.sum(0)).T[index]
    return points(find_latents(noisy_room), {"wrong": (wrong[index] + jitter)[None]}, leaves[None])


@functools.cache
def calibration(program, **false):
    latents, simulated = cases(program)
    sampler = functools.partial(arms if program is ARMS else room, **false)
    return calibrate(latents, sampler, simulated)


@pytest.mark.parametrize("program", [ARMS, noisy_room])
def test_an_exact_sampler_passes(program):
    found = calibration(program)
    assert found.p_value() > LEVEL
    assert LOG_LIKELIHOOD in found.ranks
    assert all(((r >= 0) & (r <= 63)).all() and len(r) == FITS for r in found.ranks.values())


def rejected(found, *quantities):
    """At the level shared among all quantities, by those named."""
    names = found.p_values()
    return min(names[q] for q in quantities or names) * len(names) < LEVEL


def test_a_missing_likelihood_passes_by_coordinates_and_fails_by_the_log_likelihood():
    found = calibration(ARMS, heard=0)
    assert not rejected(found, "wins[0]", "wins[1]")
    assert rejected(found, LOG_LIKELIHOOD)
    # Stated power: where the law of the ranks is as far from uniform as was seen.
    assert power(found.distance(LOG_LIKELIHOOD), FITS, LEVEL / 3) > 0.99


@pytest.mark.parametrize(
    ("program", "false", "at_least"),
    [
        (ARMS, {"prior": (4.0, 1.0)}, 0.99),  # a wrong prior
        (ARMS, {"skip": EPISODES - 1}, 0.99),  # a filter that forgets all but the last episode
        (noisy_room, {"beta": (6.0, 6.0)}, 0.99),  # a wrong prior of the noise
        (noisy_room, {"emission": 0.3}, 0.99),  # a wrong emission: errors expected less than a third as often
    ],
)
def test_false_twins_are_rejected(program, false, at_least):
    found = calibration(program, **false)
    assert rejected(found)
    furthest = max(found.distance(name) for name in found.ranks)
    assert power(furthest, FITS, LEVEL / len(found.p_values())) > at_least


def test_wrong_probabilities_of_the_leaf_are_told_by_the_brier_statistics():
    right, wrong = calibration(noisy_room), calibration(noisy_room, prior=(0.05, 0.95))
    assert not rejected(right, "leaf: Brier slope", "leaf: shares")
    assert rejected(wrong, "leaf: Brier slope", "leaf: shares")


def test_levels_are_what_they_say():
    # Uniform ranks and honest leaf probabilities: p-values below a level come no more often than the level.
    rng, level, runs = np.random.default_rng(1), 0.1, 400
    low = 0
    for _ in range(runs):
        p = rng.dirichlet([1.0, 1.0, 1.0], size=50)
        truth = (p.cumsum(axis=1) < rng.random(50)[:, None]).sum(axis=1)
        low += Calibration({"x": rng.integers(64, size=50)}, 63, p, truth).p_value() < level
    # Binomial(400, 0.1) exceeds 70 with probability below 1e-6.
    assert low <= 70


def test_power_is_a_lower_bound():
    # Ranks that are uniform on the lower 60 %: their distribution function is 0.4 from the uniform one.
    rng, runs = np.random.default_rng(2), 300
    leaves, truth = np.ones((100, 1)), np.zeros(100, int)
    found = [Calibration({"x": rng.integers(60, size=100)}, 99, leaves, truth).p_value() < 1e-3 for _ in range(runs)]
    # power() promises 0.95 and more; Binomial(300, 0.95) falls below 0.85 with probability below 1e-9.
    assert power(0.4, 100, 1e-3) > 0.9
    assert np.mean(found) >= 0.85
    assert power(0.1, 100, 1e-3) == 0


def test_simulated_prompts_follow_the_prior():
    # Wins of arm 1 are Bernoulli(1/2) draws that share a Beta(1, 1) an episode set; the mean over 200 prompts.
    _, simulated = cases(ARMS)
    wins = np.array([case.sites["wins"] for case in simulated])
    # The mean of 200 uniform draws is within 5.3 sd / sqrt(200) but for 2e-7 by the normal law.
    assert np.abs(wins.mean(axis=0) - 0.5).max() < 5.3 / np.sqrt(12 * FITS)
    shares = [np.mean(case.prompt.observations[:, 1] == 1) for case in simulated]
    assert np.corrcoef(shares, wins.mean(axis=1))[0, 1] > 0.3
    leaves = np.array([case.leaf for case in cases(noisy_room)[1]])
    assert abs(leaves.mean() - 0.4) < 5.3 * np.sqrt(0.24 / FITS)


def test_nuts_in_a_few_fits():
    latents, simulated = cases(noisy_room)

    def sample(prompt, key):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # so few draws do not satisfy the diagnostics
            return bp.posterior(latents, prompt, "nuts", key=key, chains=2, warmup=100, draws=100)

    found = calibrate(latents, sample, simulated[:8])
    assert found.p_value() > LEVEL
    # The leaf probabilities are those of the closed form, within the error of 200 draws.
    exact = calibrate(latents, room, simulated[:8])
    assert np.abs(found.leaves - exact.leaves).max() < 0.15
