"""Quadrature against closed forms and scipy, the closed forms against scipy, and what is refused."""

import functools
import warnings

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy.special import betaln, logsumexp, roots_sh_jacobi
from scipy.stats import norm

import bayespar as bp
from bayespar.posterior.latents import find_latents
from bayespar.posterior.lattice import integrate
from bayespar.testing.oracle import conjugate

ARMS = functools.partial(bp.load_model("bernoulli_arms"), arms=2)
KITCHEN = bp.load_model("slippery_kitchen")


def pulls(counts):
    """A prompt of bernoulli_arms with so many (wins, losses) of each arm."""
    rows = [(k, 1 + lost) for k, pair in enumerate(counts) for lost in (0, 1) for _ in range(pair[lost])]
    if not rows:
        return bp.Prompt()
    arms, seen = np.array(rows).T
    return bp.Prompt(np.stack([np.zeros_like(seen), seen], axis=1), arms[:, None])


def mean(posterior, site):
    weights = np.exp(posterior.log_weights)[0]
    return np.tensordot(weights, posterior.draws[site][0], 1)


class TestLattice:
    """The integrator alone, on densities of known integral."""

    @staticmethod
    def run(log_density, starts, columns=lambda x: x, **settings):
        def density(x):
            logs = log_density(x)
            return logs, logs[:, None]

        return integrate(
            density, np.asarray(starts, float), columns, **{"tolerance": 1e-9, "max_nodes": 10**6} | settings
        )

    @pytest.mark.parametrize("correlation", [0.0, -0.9])
    def test_a_correlated_gaussian_far_from_the_start(self, correlation):
        precision = np.linalg.inv([[1, correlation], [correlation, 1]]) / 1e-4
        centre = np.array([5.0, -3.0])
        found = self.run(lambda x: -0.5 * np.einsum("ni,ij,nj->n", x - centre, precision, x - centre), [[0.0, 0.0]])
        truth = np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(precision)[1]
        assert abs(found.log_integral - truth) <= found.error <= 1e-9

    def test_two_modes_of_different_width_far_apart(self):
        def log_density(x):
            return np.logaddexp(norm.logpdf(x[:, 0], -50, 1), np.log(3) + norm.logpdf(x[:, 0], 50, 0.02))

        found = self.run(log_density, [[-40.0], [49.9]])
        assert abs(found.log_integral - np.log(4)) <= found.error <= 1e-9
        one = self.run(log_density, [[-40.0]])  # the negative control: the mode that nobody climbs is not there
        assert abs(one.log_integral) < 1e-6

    def test_a_jump_converges_slowly_and_says_so(self):
        # The integral is Phi(1/3); a rule that assumed smoothness would stop too early.
        found = self.run(
            lambda x: np.where(x[:, 0] < 1 / 3, norm.logpdf(x[:, 0]), -np.inf), [[0.0]], max_nodes=5000, tolerance=1e-9
        )
        assert 1e-9 < abs(found.log_integral - norm.logcdf(1 / 3)) <= found.error


@pytest.mark.parametrize("counts", [[(0, 0), (0, 0)], [(3, 0), (1, 2)], [(40, 1), (700, 300)]])
def test_beta_posterior_of_two_arms(counts):
    found = bp.posterior(ARMS, pulls(counts), method="exact")
    a, b = 1 + np.array(counts, float).T
    # The evidence is prod B(1 + w, 1 + l) (DeGroot), the mean (1 + w) / (2 + w + l); both to what is reported.
    assert found.attributes["error"] <= 1e-8
    assert abs(found.log_evidence - betaln(a, b).sum()) <= found.attributes["error"]
    sd = np.sqrt(a * b / (a + b) ** 2 / (a + b + 1))
    assert (np.abs(mean(found, "wins") - a / (a + b)) <= found.attributes["error"] * sd).all()
    assert np.exp(found.log_weights).sum() == pytest.approx(1, abs=1e-12)
    # One more win, wrongly counted, is seen.
    assert abs(found.log_evidence - betaln(a + np.eye(2)[0], b).sum()) > 1e-3


def test_which_arm_is_best_up_to_the_cells_that_the_tie_runs_through():
    posterior = bp.posterior(ARMS, pulls([(3, 4), (5, 3)]), method="exact")
    wins, weights = posterior.draws["wins"][0], np.exp(posterior.log_weights[0])
    odds = np.diff(np.log(wins) - np.log1p(-wins), axis=1)[:, 0]
    cells = weights[np.abs(odds) <= sum(posterior.attributes["spacing"]) / 2 + 1e-9].sum()
    expected = conjugate.best_arm(np.array([[4.0, 5.0], [6.0, 4.0]]))[1]
    assert abs(weights @ (odds > 0) - expected) <= cells <= 0.1


def test_a_current_history_counts():
    prompt = bp.Prompt([[0, 1]], [[1]], current_observations=[0, 2], current_subgoals=[1])
    found = bp.posterior(ARMS, prompt, method="exact")
    assert mean(found, "wins") == pytest.approx([0.5, 0.5], abs=1e-9)
    assert found.log_evidence == pytest.approx(conjugate.arms_log_evidence(prompt, 2), abs=1e-9)


# slippery_kitchen: hall 0; kitchen 1, 2; pantry 3, 4; garden 5, 6 (cup seen, nothing); carrying 7; thanks 8.
UNSURE = (([0, 1, 1, 0, 3], [0, 3, 0, 1]), ([0, 2, 0, 0, 3], [0, 2, 0, 1])), ([0, 4, 4], [1, 3])
FOUND = (([0, 1, 7, 7, 8], [0, 3, 4, 4]),), ([0, 0, 1], [0, 0])


def kitchen_likelihood(episodes, room, slip, wrong):
    """By hand: a product along the states that the observations name."""
    total = 1.0
    for seen, chosen in episodes:
        states = ["hall" if o == 0 else "CT"[o - 7] if o > 6 else (o - 1) // 2 for o in seen]
        for o, s in zip(seen, states, strict=True):
            if isinstance(s, int):
                total = total * ((1 - wrong) if (s == room) == (o % 2 == 1) else wrong)
        for s, g, t in zip(states, chosen, states[1:], strict=False):
            if s == "T":
                total = total * (t == "T")
            elif g == 4:
                total = total * ((1 - slip if t == "T" else slip * (t == "C")) if s == "C" else t == s)
            elif g == 3:
                total = total * ((1 - slip if t == "C" else slip * (t == s)) if s == room else t == s)
            elif s == "C":
                total = total * (t == "C")
            else:
                total = total * ((1 - slip) if t == g else slip * (t == "hall"))
    return total


@pytest.mark.parametrize(("past", "now"), [UNSURE, FOUND])
def test_kitchen_against_gauss_jacobi(past, now):
    # The likelihood is a polynomial in (slip, wrong) of degree below 20, which these nodes integrate exactly.
    slip, p = roots_sh_jacobi(20, 2 + 8 - 1, 2)
    wrong, q = roots_sh_jacobi(20, 1.5 + 6 - 1, 1.5)
    weights = np.outer(p / p.sum(), q / q.sum())
    grids = [kitchen_likelihood((*past, now), room, slip[:, None], wrong) * weights for room in range(3)]
    mass = np.array([0.5, 0.3, 0.2]) * [np.sum(g) for g in grids]
    mean_slip = sum(share * (slip @ g).sum() for share, g in zip([0.5, 0.3, 0.2], grids, strict=True)) / mass.sum()

    seen, chosen = map(np.array, zip(*past, strict=True))
    prompt = bp.Prompt(seen, chosen, current_observations=now[0], current_subgoals=now[1])
    found = bp.posterior(KITCHEN, prompt, method="exact", tolerance=1e-5)
    error = found.attributes["error"]
    assert error <= 1e-5
    rooms = np.exp(found.log_weights[0]) @ found.leaf_probabilities[0]
    assert abs(found.log_evidence - np.log(mass.sum())) <= error
    assert np.abs(rooms - mass / mass.sum()).max() <= error
    assert abs(mean(found, "slip") - mean_slip) <= error
    # Without the current history it is another posterior.
    less = bp.posterior(KITCHEN, bp.Prompt(seen, chosen), method="exact", tolerance=1e-4)
    assert abs(mean(less, "slip") - mean_slip) > 1e-3


def tiny(prior):
    """One coin, tossed once an episode; its log odds have a prior of one's own."""

    def program():
        x = prior()
        heads = 1 / (1 + np.e ** (-x))
        kernel = numpyro.distributions.util.clamp_probs(heads) * np.array([0.0, 1.0]) + (1 - heads) * np.array(
            [1.0, 0.0]
        )
        return bp.World(kernel, np.eye(2)[None], np.eye(2), np.zeros((1, 2)), horizon=1)

    return program


def test_an_observed_site_belongs_to_the_prior():
    def prior():
        x = numpyro.sample("x", dist.Normal(0.0, 2.0))
        numpyro.sample("seen", dist.Normal(x, 1.0), obs=1.0)
        return x

    grid = np.linspace(-20, 20, 200001)
    law = norm.logpdf(grid, 0, 2) + norm.logpdf(1.0, grid, 1)
    expected = logsumexp(law - 2 * np.log1p(np.exp(-grid))) - logsumexp(law)
    found = bp.posterior(tiny(prior), bp.Prompt([[1], [1]]), method="exact")
    assert found.log_evidence == pytest.approx(expected, abs=1e-8)


def test_impossible_evidence_is_named():
    with pytest.raises(bp.ImpossibleEvidenceError, match="episode 1") as error:
        bp.posterior(ARMS, bp.Prompt([[0, 1], [1, 1]], [[0], [0]]), method="exact")
    assert (error.value.episode, error.value.step) == (1, 0)


def test_more_than_two_coordinates_are_refused_before_any_work():
    with pytest.raises(bp.TooLargeError, match=r"24 coordinates have a density.*nuts.*smc"):
        bp.posterior(bp.load_model("dirichlet_world"), bp.Prompt(), method="exact")


def test_too_few_nodes_are_refused_or_reported():
    prompt = pulls([(1, 0), (0, 1)])
    with pytest.raises(bp.TooLargeError, match="max_nodes = 10"):
        bp.posterior(ARMS, prompt, method="exact", max_nodes=10)
    with pytest.warns(RuntimeWarning, match="error of about"):
        found = bp.posterior(ARMS, prompt, method="exact", max_nodes=3000)
    assert found.attributes["error"] > 1e-9
    assert abs(found.log_evidence - 2 * np.log(0.5)) <= found.attributes["error"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bp.posterior(ARMS, prompt, method="exact", max_nodes=3000, tolerance=0.9)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0}, "tolerance = 0"),
        ({"tolerance": "small"}, "tolerance = 'small'"),
        ({"max_nodes": 1.5}, "max_nodes = 1.5"),
        ({"nodes": 3}, "no such setting"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(bp.BayesparError, match=message):
        bp.posterior(ARMS, bp.Prompt(), method="exact", **settings)


class TestConjugate:
    """The closed forms against identities of their own."""

    def test_best_arm_of_two_is_a_finite_sum(self):
        # Evan Miller's sum: P(X > Y) for X ~ Beta(a, b), Y ~ Beta(c, d), a whole.
        a, b, c, d = 8, 3, 5, 6
        logs = [betaln(c + i, b + d) - np.log(b + i) - betaln(1 + i, b) - betaln(c, d) for i in range(a)]
        assert conjugate.best_arm(np.array([[a, b], [c, d]], float))[0] == pytest.approx(np.exp(logs).sum(), abs=1e-11)

    @pytest.mark.parametrize("laws", [[[1, 1], [1, 1], [1, 1]], [[3, 2], [900, 500], [1, 4]], [[4000, 1], [1, 1]]])
    def test_some_arm_is_best(self, laws):
        assert conjugate.best_arm(np.array(laws, float)).sum() == pytest.approx(1, abs=1e-10)

    def test_evidence_is_the_product_of_predictions(self):
        rng = np.random.default_rng(0)
        seen, arms, total = np.zeros((20, 2), int), rng.integers(3, size=(20, 1)), 0.0
        for n in range(20):
            past = bp.Prompt(seen[:n], arms[:n])
            law = conjugate.arm_predictive(conjugate.arm_posterior(past, 3))[arms[n, 0]]
            seen[n, 1] = rng.integers(1, 3)
            total += np.log(law[seen[n, 1]])
        assert conjugate.arms_log_evidence(bp.Prompt(seen, arms), 3) == pytest.approx(total, abs=1e-12)

    def test_rows_likewise_with_a_current_history(self):
        rng = np.random.default_rng(1)
        seen, ways, total = rng.integers(3, size=(6, 4)), rng.integers(2, size=(6, 3)), 0.0
        for n in range(6):
            for h in range(1, 4):
                past = bp.Prompt(seen[:n], ways[:n], None, seen[n, :h], ways[n, : h - 1])
                law = conjugate.row_predictive(conjugate.row_posterior(past, 3, 2))
                total += np.log(law[ways[n, h - 1], seen[n, h - 1], seen[n, h]])
        assert conjugate.rows_log_evidence(bp.Prompt(seen, ways), 3, 2) == pytest.approx(
            total - 6 * np.log(3), abs=1e-12
        )


def test_latents_of_the_worlds_are_what_the_models_say():
    assert find_latents(ARMS).shapes == {"wins": (2,)}
    assert find_latents(KITCHEN).dimension == 2
