"""BAIL, BAWM and the online loop where tasks have a density, against quadrature, conjugacy and finite families."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import beta

import bayespar as bp
from bayespar.planning.by_draws import bail_by_draws, mixture_of
from bayespar.planning.expert import solve_experts
from bayespar.posterior.latents import find_latents
from bayespar.posterior.result import Posterior
from bayespar.simulate.by_particles import _padded, true_world

THREE = find_latents(bp.load_model("bernoulli_arms"))
TWO = find_latents(functools.partial(bp.load_model("bernoulli_arms"), arms=2))
KITCHEN = find_latents(bp.load_model("slippery_kitchen"))
COUNTS = np.array([(3, 4), (5, 3), (2, 1)])


def pulls(counts, now=(0,)):
    rows = np.array([(k, 1 + lost) for k, pair in enumerate(counts) for lost in (0, 1) for _ in range(pair[lost])])
    return bp.Prompt(np.stack([np.zeros(len(rows), int), rows[:, 1]], axis=1), rows[:, :1], None, now)


def best_arm(counts):
    """P(each arm is the best), by quadrature of Beta densities."""
    a, b = 1 + np.asarray(counts).T

    def density(x, k):
        return beta.pdf(x, a[k], b[k]) * np.prod([beta.cdf(x, a[j], b[j]) for j in range(len(a)) if j != k])

    return np.array([quad(density, 0, 1, args=(k,))[0] for k in range(len(a))])


def conjugate_draws(latents, counts, key, chains=4, length=100, prompt=None):
    """Independent draws from the exact posterior, as if from chains."""
    a, b = 1 + np.asarray(counts).T
    wins = np.random.default_rng(key).beta(a, b, (chains, length, len(a)))
    return Posterior(
        method="nuts",
        log_evidence=float("nan"),
        prompt=pulls(counts) if prompt is None else prompt,
        latents=latents,
        draws={"wins": wins},
        leaf_probabilities=np.ones((chains, length, 1)),
    )


class TestBail:
    def test_pulls_each_arm_with_the_probability_that_it_is_the_best(self):
        """4 standard errors; draws are independent, so they are known: sqrt(p (1-p) / 400)."""
        truth = best_arm(COUNTS)
        found = bail_by_draws(THREE, pulls(COUNTS), posterior=conjugate_draws(THREE, COUNTS, 0))
        error = np.sqrt(truth * (1 - truth) / 400)
        assert (np.abs(found.probabilities - truth) < 4 * error).all()
        np.testing.assert_allclose(found.standard_errors, error, rtol=0.3)
        assert found.draws == 400
        assert found.probabilities.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_array_equal(
            bp.bail(THREE, pulls(COUNTS), posterior=conjugate_draws(THREE, COUNTS, 0)), found.probabilities
        )
        # A twin: draws that have not seen the prompt.
        prior = conjugate_draws(THREE, np.zeros((3, 2), int), 0, prompt=pulls(COUNTS))
        wrong = bail_by_draws(THREE, pulls(COUNTS), posterior=prior)
        assert (np.abs(wrong.probabilities - truth) > 4 * error).any()

    def test_the_reported_distance_is_the_mean_distance(self):
        """Over 60 replicates; a distance varies by half its mean, so their mean by 7 %, and the bound is 4 times it."""
        truth = best_arm(COUNTS)
        runs = [bail_by_draws(THREE, pulls(COUNTS), posterior=conjugate_draws(THREE, COUNTS, k)) for k in range(60)]
        actual = np.mean([np.abs(r.probabilities - truth).sum() / 2 for r in runs])
        reported = np.mean([r.total_variation for r in runs])
        assert 0.72 < actual / reported < 1.28
        # A twin: the same with a quarter of the draws is twice as far off.
        few = [bail_by_draws(THREE, pulls(COUNTS), posterior=r.posterior, draws=100) for r in runs]
        far = np.mean([np.abs(r.probabilities - truth).sum() / 2 for r in few])
        assert not 0.72 < far / reported < 1.28
        assert few[0].draws == 100

    def test_the_expert_of_the_posterior_mean_world_is_not_bail(self):
        """theory.md, section 8: it gives an arm probability 0 where BAIL gives it 0.44."""
        counts = np.array([(0, 0), (4, 3)])  # means 0.5 and 5/9
        truth = best_arm(counts)
        assert truth[0] == pytest.approx(4 / 9, abs=1e-9)  # P(uniform beats Beta(5, 4)) is one less the mean of that
        draws = conjugate_draws(TWO, counts, 0)
        found = bail_by_draws(TWO, pulls(counts), posterior=draws)
        mean = {name: values.mean(axis=(0, 1))[None] for name, values in draws.draws.items()}
        _, family = TWO.mixture(mean)
        of_mean = bp.bail(family, pulls(counts))
        np.testing.assert_array_equal(of_mean, [0, 1])
        np.testing.assert_allclose(found.probabilities, truth, atol=4 * found.standard_errors.max())
        assert np.abs(of_mean - truth).max() > 4 * found.standard_errors.max()

    def test_points_with_weights_and_leaves_give_the_bail_of_their_finite_family(self):
        """Late in an episode too, where only what follows is solved."""
        posterior, family, prompts = kitchen_points()
        for prompt in prompts:
            exact = finite(family, posterior, prompt)
            found = bail_by_draws(KITCHEN, prompt, posterior=weighed(posterior, family, prompt))
            np.testing.assert_allclose(found.probabilities, bp.bail(exact, prompt), atol=1e-12)
            assert np.isnan(found.standard_errors).all()
            assert found.draws == 12
        # Twin: the last prompt's weights for the first prompt.
        first, last = prompts[0], prompts[-1]
        other = replace(weighed(posterior, family, last), prompt=first)
        wrong = bail_by_draws(KITCHEN, first, posterior=other).probabilities
        assert np.abs(wrong - bp.bail(finite(family, posterior, first), first)).max() > 0.05

    def test_what_is_refused(self):
        draws, prompt = conjugate_draws(TWO, COUNTS[:2], 0), pulls(COUNTS[:2])
        finite_program = bp.load_model("tiger")
        for call, error, message in (
            (lambda: bail_by_draws(finite_program, prompt), bp.InvalidProgramError, "finite"),
            (lambda: bail_by_draws(TWO, prompt, posterior=draws, draws=0), bp.InvalidPlannerError, "draws = 0"),
            (lambda: bail_by_draws(TWO, pulls(COUNTS[:2], ()), posterior=draws), bp.InvalidPromptError, "0 entries"),
            (lambda: bail_by_draws(TWO, pulls(COUNTS[1:]), posterior=draws), bp.InvalidPromptError, "another prompt"),
            (lambda: bail_by_draws(THREE, prompt, posterior=draws), bp.InvalidProgramError, "another program"),
            (lambda: bp.bail(TWO, prompt, experts=solve_experts(TWO.example)), bp.InvalidPlannerError, "each draw"),
            (lambda: bp.bawm(TWO, pulls(COUNTS[1:]), posterior=draws), bp.InvalidPromptError, "another prompt"),
            (lambda: bp.bail(TWO.example, prompt, posterior=draws), bp.InvalidProgramError, "another family"),
        ):
            with pytest.raises(error, match=message):
                call()

    def test_a_finite_posterior_can_be_given(self):
        family = bp.enumerate_program(bp.load_model("tiger"))
        prompt = bp.Prompt(current_observations=[0])
        given = bp.posterior(family, prompt)
        np.testing.assert_array_equal(bp.bail(family, prompt, posterior=given), bp.bail(family, prompt))
        with pytest.raises(bp.InvalidPromptError, match="another prompt"):
            bp.bail(family, bp.Prompt(current_observations=[1]), posterior=given)


@functools.cache
def kitchen_points():
    """12 points, their worlds, and prompts of growing length."""
    random = np.random.default_rng(0)
    draws = {name: random.uniform(0.05, 0.6, (1, 12)) for name in ("slip", "wrong")}
    posterior = Posterior(method="exact", log_evidence=0.0, latents=KITCHEN, draws=draws)
    _, family = KITCHEN.mixture({name: values[0] for name, values in draws.items()})
    seen = family.observations.index
    nothing, cup = seen("in the kitchen: nothing"), seen("in the pantry: a cup, it seems")
    past = [[0, nothing, nothing, 0, cup]], [[0, 0, 1, 1]], None
    now, chosen = [0, cup, cup], [1, 1]
    return posterior, family, [bp.Prompt(*past, now[:h], chosen[: h - 1]) for h in (1, 2, 3)]


def prior(posterior):
    log_prior, _ = KITCHEN.mixture({name: values[0] for name, values in posterior.draws.items()})
    return np.exp(log_prior - logsumexp(log_prior))


def finite(family, posterior, prompt):
    """The points and leaves as ordinary tasks with their prior."""
    return bp.Family(
        prior(posterior).ravel(),
        family.initial,
        family.transition,
        family.emission,
        family.reward,
        horizon=family.horizon,
    )


def weighed(posterior, family, prompt):
    """The same as points with weights, by the exact posterior of the finite family."""
    joint = bp.posterior(finite(family, posterior, prompt), prompt).probabilities.reshape(12, 3)
    weights = joint.sum(axis=1)
    return replace(
        posterior,
        prompt=prompt,
        log_weights=np.log(weights)[None],
        leaf_probabilities=(joint / weights[:, None])[None],
    )


class TestBawm:
    def test_predicts_by_laplace_and_pulls_the_best_mean(self):
        """A predictive is a mean of 400 draws of a Beta: 4 of its standard errors."""
        mean = (1 + COUNTS[:, 0]) / (2 + COUNTS.sum(axis=1))
        model = bp.bawm(THREE, pulls(COUNTS), posterior=conjugate_draws(THREE, COUNTS, 0))
        for k in range(3):
            law = model.next_observation(k)
            error = beta.std(1 + COUNTS[k, 0], 1 + COUNTS[k, 1]) / 20
            assert law[0] == 0
            assert abs(law[1] - mean[k]) < 4 * error
            assert abs(law[1] - (COUNTS[k, 0] / COUNTS[k].sum())) > 1e-3  # a twin: without the prior
            assert model.log_probability([1], [k]) == pytest.approx(np.log(law[1]), abs=1e-12)
        few = np.array([(1, 5), (9, 2), (2, 3)])
        plan = bp.bawm(THREE, pulls(few), posterior=conjugate_draws(THREE, few, 0)).plan()
        assert plan.subgoal == 1
        assert plan.method == "exact"

    def test_points_with_weights_give_the_world_model_of_their_finite_family(self):
        posterior, family, prompts = kitchen_points()
        for prompt in prompts[::2]:
            exact = bp.bawm(finite(family, posterior, prompt), prompt)
            model = bp.bawm(KITCHEN, prompt, posterior=weighed(posterior, family, prompt))
            for g in range(5):
                np.testing.assert_allclose(model.next_observation(g), exact.next_observation(g), atol=1e-12)
            o = int(np.argmax(exact.next_observation(3)))
            assert model.log_probability([o], [3]) == pytest.approx(exact.log_probability([o], [3]), abs=1e-10)
            np.testing.assert_allclose(model.plan("exact").values, exact.plan("exact").values, atol=1e-10)
            ahead = model.plan("lookahead", depth=4)
            np.testing.assert_allclose(ahead.values, exact.plan("exact").values, atol=1e-10)


class TestMixture:
    def test_draws_are_thinned_evenly_and_weights_kept(self):
        draws = conjugate_draws(THREE, COUNTS, 0, chains=3, length=50)
        mixture = mixture_of(draws, 30)
        assert mixture.shape == (3, 10)
        assert mixture.family.num_tasks == 30
        np.testing.assert_allclose(mixture.weights, 1 / 30)
        kept = draws.draws["wins"][:, 2::5]
        won = mixture.family.dense_transition()[:, 0, :, 0, 1]
        np.testing.assert_allclose(won, kept.reshape(30, 3))

    def test_points_with_many_weights_are_taken_evenly_along_them(self):
        random = np.random.default_rng(0)
        draws = conjugate_draws(THREE, COUNTS, 0, chains=1, length=300)
        weights = random.dirichlet(np.full(300, 0.2))
        weighted = replace(draws, log_weights=np.log(weights)[None])
        mixture = mixture_of(weighted, 100)
        assert mixture.weighted
        assert mixture.family.num_tasks <= 100
        # Each point comes within one of its share of 100; so the mean of a number in [0, 1] is off by little.
        means = np.array([mixture.weights @ mixture.family.dense_transition()[:, 0, k, 0, 1] for k in range(3)])
        np.testing.assert_allclose(means, np.exp(weighted.log_weights[0]) @ draws.draws["wins"][0], atol=0.05)


TASK = {"wins": [0.3, 0.8]}


class TestOnline:
    @staticmethod
    def thompson(wins, episodes, runs):
        """Regret of Thompson sampling, which is BAIL on these worlds, with conjugate posteriors: plain numpy."""
        random, wins = np.random.default_rng(0), np.asarray(wins)
        a = np.ones((2, runs, len(wins)))
        total = np.zeros(runs)
        for _ in range(episodes):
            arm = random.beta(a[0], a[1]).argmax(axis=1)
            total += wins.max() - wins[arm]
            won = random.random(runs) < wins[arm]
            a[np.where(won, 0, 1), np.arange(runs), arm] += 1
        return total

    @pytest.mark.slow
    def test_bail_has_the_regret_of_thompson_sampling(self):
        """4 standard errors of the difference; 256 particles err in P(best) by 0.03, which shifts it by far less."""
        curves = bp.simulate_regret(TWO, TASK, "bail", episodes=20, seeds=32, key=0)
        expected = self.thompson(TASK["wins"], 20, 4000)
        total = curves.cumulative[:, -1]
        error = np.hypot(total.std(ddof=1) / np.sqrt(32), expected.std() / np.sqrt(4000))
        assert abs(total.mean() - expected.mean()) < 4 * error
        assert abs(total.mean() - 20 * 0.25) > 4 * error  # a twin: an arm at random, for ever
        np.testing.assert_allclose(curves.regret[:, 0], 0.25, atol=4 * 0.5 * 0.5 / np.sqrt(256))
        assert np.isnan(curves.true_task).all()
        assert curves.bound == 1
        assert curves.estimator == "advantage"
        # The same key gives the same curves; a shorter and narrower run is the beginning of a longer one.
        part = bp.simulate_regret(TWO, TASK, "bail", episodes=5, seeds=3, key=0)
        np.testing.assert_array_equal(part.regret, curves.regret[:3, :5])
        other = bp.simulate_regret(TWO, TASK, "bail", episodes=5, seeds=3, key=1)
        assert not np.array_equal(part.regret, other.regret)

    def test_thompson_the_oracle_and_planners_of_your_own(self):
        curves = bp.simulate_regret(TWO, TASK, "thompson", episodes=20, seeds=32, key=0)
        expected = self.thompson(TASK["wins"], 20, 4000)
        total = curves.cumulative[:, -1]
        error = np.hypot(total.std(ddof=1) / np.sqrt(32), expected.std() / np.sqrt(4000))
        assert abs(total.mean() - expected.mean()) < 4 * error
        assert set(np.unique(curves.regret.round(9))) <= {0.0, 0.5}  # it follows one draw's expert
        oracle = bp.simulate_regret(TWO, TASK, "oracle", episodes=8, seeds=2)
        assert not oracle.regret.any()
        assert np.isnan(oracle.true_task).all()
        mine = bp.simulate_regret(TWO, TASK, lambda prompt: [1.0, 0.0], episodes=8, seeds=2)
        np.testing.assert_allclose(mine.regret, 0.5)
        explored = bp.simulate_regret(TWO, TASK, "oracle", exploration=1.0, episodes=8, seeds=2)
        np.testing.assert_allclose(explored.regret, 0.25)

    @pytest.mark.parametrize(
        ("settings", "error", "message"),
        [
            ({"planner": "map"}, bp.InvalidPlannerError, "planner = 'map'"),
            ({"exploration": "gated"}, bp.InvalidPlannerError, "eta is 0"),
            ({"exploration": bp.Exploration(np.zeros(100), np.ones(100))}, bp.InvalidPlannerError, "gate"),
            ({"exploration_policy": "best"}, bp.InvalidPlannerError, "exploration_policy"),
            ({"particles": 0}, bp.InvalidPlannerError, "particles = 0"),
            ({"seeds": 0}, bp.InvalidPlannerError, "seeds = 0"),
            ({"experts": "mine"}, bp.InvalidPlannerError, "each particle"),
            ({"task": 0}, bp.InvalidWorldError, "value of every site"),
            ({"task": {"wins": [0.3]}}, bp.InvalidWorldError, "shape"),
            ({"task": {"wins": [0.3, 1.2]}}, bp.InvalidWorldError, "outside the support"),
            ({"task": {"wins": [0.3, 0.2], "luck": 1}}, bp.InvalidWorldError, "luck"),
            ({"task": {}}, bp.InvalidWorldError, "no value for site 'wins'"),
        ],
    )
    def test_what_is_refused(self, settings, error, message):
        if "experts" in settings:
            settings = {"experts": solve_experts(TWO.example)}
        with pytest.raises(error, match=message):
            bp.simulate_regret(TWO, **{"task": TASK, **settings})

    def test_a_true_world_is_the_one_of_its_sites(self):
        family = true_world(KITCHEN, {"room": 1, "slip": 0.2, "wrong": 0.1})
        assert family.num_tasks == 1
        assert family.tasks == ("room=1",)
        assert family.dense_transition()[0, 0, 1, 0, 2] == pytest.approx(0.8)  # to the pantry unless it slips
        with pytest.raises(bp.InvalidWorldError, match="none of the joint values"):
            true_world(KITCHEN, {"room": 5, "slip": 0.2, "wrong": 0.1})
        with pytest.raises(bp.InvalidWorldError, match="none of the joint values"):
            true_world(KITCHEN, {"slip": 0.2, "wrong": 0.1})
        with pytest.raises(bp.InvalidWorldError, match="finite"):
            bp.simulate_regret(bp.load_model("tiger"), {"room": 1})

    def test_padded_experts_act_the_same(self):
        """On every history of three observations that some task can produce."""
        family = bp.enumerate_program(bp.load_model("tiger"))
        experts = solve_experts(family, method="histories")
        padded = _padded(experts)
        assert padded.table.shape[0] > experts.table.shape[0]
        histories = bp.enumerate_histories(family)
        for h, layer in enumerate(histories.layers[: min(3, family.horizon - 1)]):
            if h == 0:
                memories = [(experts.start(int(o)), padded.start(int(o))) for o in layer.observation]
            else:
                rows = zip(layer.parent, layer.subgoal, layer.observation, strict=True)
                memories = [
                    (experts.advance(memories[p][0], h - 1, g, o), padded.advance(memories[p][1], h - 1, g, o))
                    for p, g, o in rows
                ]
            for n, (one, other) in enumerate(memories):
                alive = layer.likelihood[n] > 0
                np.testing.assert_array_equal(experts.act(one, None, h, 0)[alive], padded.act(other, None, h, 0)[alive])


def test_a_posterior_that_is_given_is_the_one_that_is_used():
    """Of a finite family, too: with all mass on one task BAIL is its expert, whatever the prompt says."""
    family = bp.enumerate_program(bp.load_model("needle"))
    prompt = bp.Prompt(current_observations=[0])
    one = np.full(family.num_tasks, -np.inf)
    one[3] = 0.0
    given = replace(bp.posterior(family, prompt), log_probabilities=one)
    subgoals = bp.bail(family, prompt, posterior=given)
    assert subgoals.max() == 1
    assert subgoals.argmax() == 3
    assert bp.bail(family, prompt).max() < 1
    with pytest.raises(bp.InvalidPromptError, match="another prompt"):
        bp.bail(
            family,
            bp.Prompt(current_observations=[0], current_instruction=0, observations=[[0, 0]], subgoals=[[0]]),
            posterior=given,
        )
