"""Particles against closed forms and brute force, what they refuse, and what they cost to compile."""

import functools
import itertools
import warnings

import equinox as eqx
import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import betaln

import bayespar as bp
from bayespar.posterior.latents import find_latents
from bayespar.posterior.likelihood import Likelihood
from bayespar.posterior.particles import SMC, _bridge, _moved, _weigh, roomy
from bayespar.posterior.smc import _diagnose, smc_posterior

ARMS = find_latents(functools.partial(bp.load_model("bernoulli_arms"), arms=2))
SIZE = {"particles": 256, "chains": 8}  # the same everywhere, so that little is compiled


def pulls(counts):
    """A prompt of bernoulli_arms with (wins, losses) of each arm, in an order that mixes them."""
    rows = [(k, 1 + lost) for k, pair in enumerate(counts) for lost in (0, 1) for _ in range(pair[lost])]
    rows = np.array(rows)[np.random.default_rng(0).permutation(len(rows))]
    return bp.Prompt(np.stack([np.zeros(len(rows), int), rows[:, 1]], axis=1), rows[:, :1])


COUNTS = np.array([(7, 3), (2, 11)])
MEANS = (1 + COUNTS[:, 0]) / (2 + COUNTS.sum(axis=1))
LOG_EVIDENCE = betaln(1 + COUNTS[:, 0], 1 + COUNTS[:, 1]).sum()  # the prior's normaliser, betaln(1, 1), is 0


def noisy():
    """One of two doors (finite) has a prize; a Reporter of unknown accuracy (a density) tells which, now and then.

    One that would be right less than 3 times in 10 never is: zeros that depend on a site with a density.
    """
    door = int(numpyro.sample("door", dist.Categorical(np.array([0.7, 0.3]))))
    accuracy = numpyro.sample("accuracy", dist.Beta(2.0, 1.0))
    right = jax.numpy.where(accuracy > 0.3, accuracy, 0.0)
    emission = [[right if o == s else 1 - right for o in range(2)] for s in range(2)]
    transition = np.zeros((2, 2, 2))
    transition[0, :, door] = 1  # to ask: the state is the door
    transition[1] = 0.5
    reward = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    emission = jax.numpy.stack([jax.numpy.stack(row) for row in emission])
    return bp.World(np.array([0.5, 0.5]), transition, emission, reward, horizon=3)


NOISY_EPISODES = [([0, 1, 1], [0, 1]), ([1, 1, 0], [0, 0]), ([0, 0, 1], [1, 0])] * 2 + [([1, 1, 1], [0, 0])] * 2


def noisy_oracle():
    """Mean accuracy, P(door 1) and log evidence: every state path summed, on a fine grid. Plain numpy."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    ends = ((0.0, 0.3), (0.3, 1.0))
    x = np.concatenate([low + (high - low) * (nodes + 1) / 2 for low, high in ends])
    weights = np.concatenate([weights * (high - low) / 2 for low, high in ends])
    right = np.where(x > 0.3, x, 0)
    joint = np.zeros((2, len(x)))
    for door, prior in ((0, 0.7), (1, 0.3)):
        joint[door] = prior * 2 * x
        for o, g in NOISY_EPISODES:
            total = np.zeros_like(x)
            for path in itertools.product(range(2), repeat=3):
                p = 0.5
                for h in range(2):
                    p *= float(path[h + 1] == door) if g[h] == 0 else 0.5
                hits = sum(s == seen for s, seen in zip(path, o, strict=True))
                total += p * right**hits * (1 - right) ** (3 - hits)
            joint[door] *= total
    evidence = (joint * weights).sum()
    return (joint * weights * x).sum() / evidence, (joint[1] * weights).sum() / evidence, np.log(evidence)


@pytest.fixture(scope="module")
def arms():
    return {batch: smc_posterior(ARMS, pulls(COUNTS), key=1, batch=batch, **SIZE) for batch in (None, 1)}


@pytest.mark.parametrize("batch", [None, 1])
def test_means_and_evidence_are_those_of_the_beta_posteriors(arms, batch):
    """4 standard errors: of 6 normal errors one is further off with probability 4e-4, were the key not fixed."""
    result = arms[batch]
    error = result.diagnostics.table.sel(statistic="mcse").values
    off = result.draws["wins"].mean(axis=(0, 1)) - MEANS
    assert result.diagnostics.ok, str(result.diagnostics)
    assert (np.abs(off) < 4 * error).all()
    assert (error < 0.005).all()
    # 7 estimates give the standard error with 6 degrees of freedom: t_6 exceeds 6 with probability 1e-3.
    se = result.attributes["log_evidence_standard_error"]
    assert abs(result.log_evidence - LOG_EVIDENCE) < 6 * se < 0.5
    # Twins: one loss that is taken for a win, and an evidence that forgets one episode.
    wrong = (2 + COUNTS[:, 0]) / (2 + COUNTS.sum(axis=1))
    assert (np.abs(result.draws["wins"].mean(axis=(0, 1)) - wrong) > 4 * error).all()
    assert abs(result.log_evidence - betaln(1 + COUNTS[:, 0], COUNTS[:, 1]).sum()) > 6 * se


def test_the_evidence_is_unbiased_beyond_the_first_chain(arms):
    """E[Z] = Z: 14 independent estimates; the logs of the same have a smaller mean, but within their error."""
    logs = np.concatenate([arms[b].attributes["log_evidence_by_chain"][1:] for b in (None, 1)])
    ratio = np.exp(logs - LOG_EVIDENCE)
    se = ratio.std(ddof=1) / np.sqrt(len(ratio))
    assert abs(ratio.mean() - 1) < 4.2 * se  # t_13 exceeds it with probability 1e-3
    assert abs(1.5 * ratio.mean() - 1) > 4.2 * se  # a twin: half as much again
    assert arms[1].attributes["rejuvenations"] > 2  # it was not one importance sample


def test_hidden_states_and_leaves_are_summed_out_and_zeros_are_kept():
    mean, door, log_evidence = noisy_oracle()
    o, g = zip(*NOISY_EPISODES, strict=True)
    result = smc_posterior(find_latents(noisy), bp.Prompt(o[:-1], g[:-1], None, o[-1], g[-1]), **SIZE)
    accuracy, leaves = result.draws["accuracy"], result.leaf_probabilities
    assert leaves.shape == (8, 256, 2)
    assert accuracy.min() > 0.3
    np.testing.assert_allclose(leaves.sum(axis=2), 1, rtol=1e-12)
    # Twins: the means of the prior.
    for values, truth, twin in ((accuracy, mean, 2 / 3), (leaves[..., 1], door, 0.3)):
        by_chain = values.mean(axis=1)
        error = by_chain.std(ddof=1) / np.sqrt(len(by_chain))
        assert abs(by_chain.mean() - truth) < 5.4 * error  # t_7 exceeds it with probability 1e-3
        assert abs(by_chain.mean() - twin) > 5.4 * error
    assert abs(result.log_evidence - log_evidence) < 6 * result.attributes["log_evidence_standard_error"] < 0.3


def test_many_episodes_at_once_are_tempered_and_without_it_the_evidence_suffers():
    counts = np.array([(300, 120), (40, 160)])
    tempered = smc_posterior(ARMS, pulls(counts), **SIZE)
    assert tempered.diagnostics.ok
    assert tempered.attributes["rejuvenations"] >= 4
    means = (1 + counts[:, 0]) / (2 + counts.sum(axis=1))
    error = tempered.diagnostics.table.sel(statistic="mcse").values
    assert (np.abs(tempered.draws["wins"].mean(axis=(0, 1)) - means) < 4 * error).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.errors.ConvergenceWarning)
        one_step = smc_posterior(ARMS, pulls(counts), threshold=1e-3, **SIZE)
    assert one_step.attributes["rejuvenations"] == 1
    errors = [r.attributes["log_evidence_standard_error"] for r in (tempered, one_step)]
    assert 3 * errors[0] < errors[1], errors


def test_few_particles_warn():
    with pytest.warns(bp.errors.ConvergenceWarning, match="ESS"):
        bp.posterior(ARMS, bp.Prompt(), "smc", particles=16, chains=2)


def test_what_the_diagnostics_refuse():
    random = np.random.default_rng(0)
    good = {"x": random.normal(size=(4, 500))}
    assert not _diagnose(good, np.ones(4), 0.1).problems
    apart = {"x": good["x"] + 0.5 * np.arange(4)[:, None]}
    copies = {"x": np.repeat(good["x"][:, :25], 20, axis=1)}  # side by side, as resampling leaves them
    for sites, unique, error, problem in (
        (apart, 1.0, 0.1, "R-hat of x"),
        (copies, 1.0, 0.1, "bulk ESS of x"),
        (good, 0.2, 0.1, "only 20% of the particles"),
        (good, 1.0, 0.8, "standard error of log_evidence"),
    ):
        assert any(problem in p for p in _diagnose(sites, np.full(4, unique), error).problems), problem


def test_streaming_is_pure_and_reproducible_and_knows_what_it_saw():
    smc, prompt = SMC(ARMS, **SIZE), pulls(COUNTS)
    first, second = (bp.Prompt(prompt.observations[s], prompt.subgoals[s]) for s in (slice(0, 5), slice(5, 9)))
    start = smc.init(3)
    once, again = (smc.observe(smc.observe(start, first), second) for _ in range(2))
    np.testing.assert_array_equal(once.u, again.u)
    np.testing.assert_array_equal(once.log_weights, again.log_weights)
    assert start.seen.num_episodes == 0
    assert once.seen.num_episodes == 9
    np.testing.assert_allclose(np.exp(np.asarray(once.log_weights)).sum(axis=1), 1, rtol=1e-12)
    assert not np.array_equal(smc.init(4).u, start.u)
    # What a particle carries is the joint probability of its leaf and all that was seen: here in closed form.
    u = np.asarray(once.u)
    theta = 1 / (1 + np.exp(-u))
    wins = np.array([((prompt.subgoals[:9, 0] == k) & (prompt.observations[:9, 1] == 1)).sum() for k in range(2)])
    losses = np.array([((prompt.subgoals[:9, 0] == k) & (prompt.observations[:9, 1] == 2)).sum() for k in range(2)])
    joint = ((1 + wins) * np.log(theta) + (1 + losses) * np.log1p(-theta)).sum(axis=2)
    np.testing.assert_allclose(np.asarray(once.log_joint)[..., 0], joint, rtol=1e-9)


def test_growing_prompts_do_not_compile_again():
    smc, prompt = SMC(ARMS, **SIZE), pulls(np.array([(40, 22), (30, 30)]))
    state = smc.init(0)
    sizes = []
    for n in range(prompt.num_episodes):
        state = smc.observe(state, bp.Prompt(prompt.observations[n : n + 1], prompt.subgoals[n : n + 1]))
        sizes.append([f._cache_size() for f in (_weigh, _bridge, _moved)])
    assert state.generation >= 6
    moved = next(n for n in range(len(sizes)) if sizes[n] == sizes[-1])
    assert moved <= 20, sizes  # nothing is compiled after the first move


def test_a_past_with_hidden_states_leaves_room_to_grow():
    """So that moves are compiled anew only when four times as many distinct episodes have been seen."""
    family, random = find_latents(noisy).example, np.random.default_rng(0)
    sizes = set()
    for count in (1, 3, 17, 20, 60, 70):
        prompt = bp.Prompt(random.integers(0, 2, (count, 3)), random.integers(0, 2, (count, 2)))
        small = Likelihood(prompt, family)
        large = roomy(small, family)
        sizes.add(len(large.episodes.counts))
        assert len(large.episodes.counts) >= len(small.episodes.counts)
        if count == 17:
            with jax.enable_x64(True):
                both = [np.asarray(eqx.filter_jit(one)(family)) for one in (small, large)]
            np.testing.assert_allclose(both[1], both[0], rtol=1e-12)
    assert sizes <= {1, 4, 16, 64}


@pytest.mark.parametrize(
    ("prompt", "episode", "step"),
    [
        (bp.Prompt([[0, 1], [0, 0]], [[0], [1]]), 1, 1),  # a pull that shows no result
        (bp.Prompt([[0, 1], [1, 1]], [[0], [1]]), 1, 0),  # an episode that begins with a win
        (bp.Prompt([[0, 1]], [[0]], None, [2]), 1, 0),
    ],
)
def test_impossible_evidence_names_its_place(prompt, episode, step):
    with pytest.raises(bp.ImpossibleEvidenceError, match=f"episode {episode}.*step {step}") as caught:
        smc_posterior(ARMS, prompt, **SIZE)
    assert (caught.value.episode, caught.value.step) == (episode, step)


def test_impossible_evidence_in_a_stream_counts_from_its_start():
    smc = SMC(ARMS, **SIZE)
    state = smc.observe(smc.init(0), bp.Prompt([[0, 1], [0, 2]], [[0], [1]]))
    with pytest.raises(bp.ImpossibleEvidenceError) as caught:
        smc.observe(state, bp.Prompt([[0, 0]], [[1]]))
    assert (caught.value.episode, caught.value.step) == (2, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"particles": 0}, "particles = 0"),
        ({"chains": -1}, "chains = -1"),
        ({"moves": True}, "moves = True"),
        ({"threshold": 1.0}, "threshold = 1.0"),
        ({"batch": 0}, "batch = 0"),
        ({"key": "a"}, "key = 'a'"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(bp.InvalidPlannerError, match=message):
        bp.posterior(ARMS, bp.Prompt(), "smc", **settings)


def test_nothing_follows_a_current_history():
    smc = SMC(ARMS, **SIZE)
    state = smc.observe(smc.init(0), bp.Prompt(None, None, None, [0]))
    with pytest.raises(bp.InvalidPromptError, match="current history was observed before"):
        smc.observe(state, bp.Prompt([[0, 1]], [[0]]))
    with pytest.raises(bp.InvalidPromptError):
        smc.observe(smc.init(0), bp.Prompt([[0, 7]], [[0]]))


def test_a_program_that_observes_has_no_prior_to_draw_from():
    def program():
        p = numpyro.sample("p", dist.Beta(1.0, 1.0))
        numpyro.sample("seen", dist.Bernoulli(p), obs=1)
        return bp.World(np.ones(1), np.ones((1, 1, 1)), np.ones((1, 1)), np.zeros((1, 1)), horizon=1)

    with pytest.raises(bp.InvalidProgramError, match="observed site"):
        smc_posterior(find_latents(program), bp.Prompt([[0]], None))
