"""Plots of posteriors: what is drawn is what was computed, read back from the axes."""

import functools
import subprocess
import sys

import jax.numpy as jnp
import matplotlib as mpl
import matplotlib.pyplot as pyplot
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayespar as bp
from bayespar import plots
from bayespar.posterior.latents import find_latents
from bayespar.posterior.result import Posterior
from bayespar.report.path_plots import subgoals_along
from bayespar.report.posterior_plots import episode_evidence, rank_band, rank_differences

mpl.use("agg")


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


@functools.cache
def kitchen():
    family = bp.enumerate_program(bp.load_model("tiger"))
    rng = np.random.default_rng(0)
    listen = family.subgoals.index("listen")
    growls = [family.observations.index(f"a growl on the {side}") for side in ("left", "right")]
    H = family.horizon
    o = np.concatenate([np.zeros((3, 1), int), rng.choice(growls, (3, H - 1))], axis=1)
    return family, bp.Prompt(o, np.full((3, H - 1), listen), None, [0, growls[0]], [listen])


def lines(ax):
    return {line.get_label(): np.asarray(line.get_ydata(), float) for line in ax.lines}


def test_the_path_is_the_posterior_path():
    family, prompt = kitchen()
    path = bp.posterior_path(family, prompt)
    drawn = lines(plots.plot_posterior_path(family, prompt, truth=family.tasks[0]))
    (truth,) = (y for name, y in drawn.items() if name.endswith("(true)"))
    np.testing.assert_allclose(truth, path[:, 0])
    assert not np.allclose(truth, path[:, 1])
    assert sum(len(y) == len(path) for y in drawn.values()) == family.num_tasks


def test_the_path_of_a_site_adds_up_its_tasks():
    family = bp.enumerate_program(bp.load_model("kitchen"))
    prompt = bp.Prompt(current_observations=[family.observations.index("in the hall with empty hands")])
    drawn = lines(plots.plot_posterior_path(family, prompt, site="cup"))
    cup = np.array(dict(family.sites)["cup"])
    np.testing.assert_allclose(drawn["cup = 1"][0], family.task_prior[cup == 1].sum())
    assert drawn["cup = 0"][0] != pytest.approx(drawn["cup = 1"][0])
    with pytest.raises(bp.InvalidProgramError, match="no site 'cellar'"):
        plots.plot_posterior_path(family, prompt, site="cellar")
    with pytest.raises(bp.InvalidProgramError, match="truth = 'attic'"):
        plots.plot_posterior_path(family, prompt, site="cup", truth="attic")


def test_subgoals_are_bail_at_every_prefix():
    family, prompt = kitchen()
    experts = bp.solve_experts(family)
    _, streamed = subgoals_along(family, prompt, experts=experts)
    _, asked = subgoals_along(family, prompt, lambda p: bp.bail(family, p, experts=experts))
    assert len(streamed) == len(asked) == 3 * (family.horizon - 1) + 2
    for one, other in zip(streamed, asked, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-12)
        assert (one.number, one.first, one.executed) == (other.number, other.first, other.executed)
    assert streamed[-1].executed is None
    # A planner that forgets earlier episodes is another one.
    _, forgets = subgoals_along(
        family,
        prompt,
        lambda p: bp.bail(
            family,
            bp.Prompt(current_observations=p.current_observations, current_subgoals=p.current_subgoals),
            experts=experts,
        ),
    )
    assert any(not np.allclose(a.probabilities, b.probabilities) for a, b in zip(streamed, forgets, strict=True))
    ax = plots.plot_subgoal_path(family, prompt, experts=experts, last=2)
    heights = np.array([bar.get_height() for bar in ax.patches]).reshape(-1, 2)
    np.testing.assert_allclose(heights.sum(axis=0), 1)
    with pytest.raises(bp.InvalidPromptError, match="no decision"):
        plots.plot_subgoal_path(family, bp.Prompt(), experts=experts)
    with pytest.raises(bp.InvalidPlannerError):
        plots.plot_subgoal_path(family, prompt, planner=lambda p: np.ones(2))


def test_evidence_given_those_before_adds_up():
    family, prompt = kitchen()
    past = bp.Prompt(prompt.observations, prompt.subgoals)
    result = bp.posterior(family, past)
    found = episode_evidence(result)
    assert found["given those before"].sum() == pytest.approx(result.log_evidence, rel=1e-12)
    assert found["under the prior"].sum() != pytest.approx(result.log_evidence, rel=1e-3)
    # By hand, in probability space.
    L, p = np.exp(result.episode_log_evidence), np.asarray(family.task_prior)
    np.testing.assert_allclose(found["under the prior"], np.log(p @ L), rtol=1e-12)
    np.testing.assert_allclose(found["under the posterior"], np.log(result.probabilities @ L), rtol=1e-12)
    assert set(lines(plots.plot_evidence(result))) >= {"under the prior", "under the posterior"}
    with pytest.raises(bp.InvalidPromptError, match="no finished episode"):
        plots.plot_evidence(bp.posterior(family, bp.Prompt()))


def test_predictive_check_counts_what_was_seen():
    family, prompt = kitchen()
    ax = plots.plot_predictive_check(bp.posterior(family, prompt), step=1)
    (seen,) = (c for c in ax.collections if c.get_label() == "seen")
    words = [t.get_text() for t in ax.get_yticklabels()]
    counts = dict(zip(words, seen.get_offsets()[:, 0], strict=True))
    for o, word in enumerate(family.observations):
        assert counts.get(word, 0) == (prompt.observations[:, 1] == o).sum()
    assert counts != {w: (prompt.observations == family.observations.index(w)).sum() for w in words}
    with pytest.raises(bp.InvalidPromptError, match="step = 9"):
        plots.plot_predictive_check(bp.posterior(family, prompt), step=9)


def leaky() -> bp.World:
    side = int(numpyro.sample("side", dist.Bernoulli(0.25)))
    leak = numpyro.sample("leak", dist.Uniform(0, 1))
    emission = np.eye(2) if side else np.array([[1.0, 0], [0.5, 0.5]])
    kernel = kernel_of(leak)
    return bp.World(np.array([1.0, 0]), kernel, emission, np.zeros((2, 2)), horizon=2)


def kernel_of(leak):
    return jnp.array([[[1 - leak, leak], [0, 1]]])


@functools.cache
def chains():
    rng = np.random.default_rng(0)
    leak = rng.beta(3, 2, (4, 100))
    side = np.clip(leak, 0.1, 0.9)
    return Posterior(
        "nuts",
        float("nan"),
        bp.Prompt([[0, 1]] * 3, [[0]] * 3),
        latents=find_latents(leaky),
        draws={"leak": leak},
        leaf_probabilities=np.stack([1 - side, side], axis=-1),
    )


def test_marginals_show_exact_bars_and_densities():
    figure = plots.plot_marginals(chains())
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["side", "leak"]
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    np.testing.assert_allclose(widths[:2], chains().marginal("side").values)
    assert widths[3] == pytest.approx(0.25, abs=5 * np.sqrt(0.25 * 0.75 / 400))  # drawn from the prior
    prior, posterior = figure.axes[1].lines
    x, y = posterior.get_data()
    assert np.trapezoid(x * y, x) / np.trapezoid(y, x) == pytest.approx(float(chains().mean("leak")), abs=0.02)
    x, y = prior.get_data()
    assert np.trapezoid(x * y, x) / np.trapezoid(y, x) == pytest.approx(0.5, abs=5 / np.sqrt(12 * 400))
    with pytest.raises(bp.InvalidProgramError, match="no site 'cellar'"):
        plots.plot_marginals(chains(), sites=["cellar"])
    family, prompt = kitchen()
    (ax,) = plots.plot_marginals(bp.posterior(family, prompt)).axes
    drawn = [bar.get_width() for bar in ax.patches][: family.num_tasks]
    np.testing.assert_allclose(drawn, bp.posterior(family, prompt).probabilities)


def test_evidence_and_checks_of_draws():
    found = episode_evidence(chains())
    # P(o_2 = 1) = leak (1 if side else 1/2): its mean under the prior is 1/2 (1/4 + 3/8).
    se = np.sqrt(1 / 12 / 400) / 0.3125
    np.testing.assert_allclose(found["under the prior"], np.log(0.3125), atol=5 * se)
    assert found["under the posterior"].min() > np.log(0.3125)
    plots.plot_predictive_check(chains())


def test_ranks_find_a_chain_that_is_elsewhere():
    rng = np.random.default_rng(1)
    agree = rng.normal(size=(4, 200))
    apart = agree + np.array([0, 0, 0.8, 0])[:, None]
    places, band = rank_band(4, 200)
    assert (np.abs(rank_differences(agree, places)) <= band + 1e-12).all()
    outside = (np.abs(rank_differences(apart, places)) > band).any(axis=1)
    assert outside[2]
    figure = plots.plot_ranks(Posterior("nuts", 0.0, draws={"x": np.stack([agree, apart], axis=-1)}))
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["x[0]", "x[1]"]
    np.testing.assert_allclose(figure.axes[1].lines[2].get_ydata(), rank_differences(apart, places)[2])
    family, prompt = kitchen()
    with pytest.raises(bp.InvalidProgramError, match="no"):
        plots.plot_ranks(bp.posterior(family, prompt))
    with pytest.raises(bp.InvalidProgramError, match="no site 'y'"):
        plots.plot_ranks(chains(), sites=["y"])


def test_the_band_holds_with_the_probability_it_says():
    # 300 replications of a band of coverage 0.99: more than 12 outside has probability below 1e-4 (binomial).
    places, band = rank_band(3, 50)
    rng = np.random.default_rng(2)

    def outside(width):
        draws = (rng.normal(size=(3, 50)) for _ in range(300))
        return sum(bool((np.abs(rank_differences(x, places)) > width + 1e-12).any()) for x in draws)

    assert outside(band) <= 12
    assert outside(band / 2) > 12  # a band of half that width is no such band


def test_settings_of_the_user_are_left_alone():
    family, prompt = kitchen()
    with mpl.rc_context({"font.size": 17, "axes.facecolor": "pink"}):
        before = dict(mpl.rcParams)
        _, ax = pyplot.subplots()
        assert plots.plot_posterior_path(family, prompt, ax=ax) is ax
        assert dict(mpl.rcParams) == before


def test_a_program_with_a_density_needs_a_planner():
    with pytest.raises(bp.InvalidProgramError, match="planner"):
        plots.plot_subgoal_path(leaky, bp.Prompt(current_observations=[0]))
    ax = plots.plot_subgoal_path(leaky, bp.Prompt(current_observations=[0]), planner=lambda p: [1.0])
    assert len(ax.patches) == 1


def test_plots_are_loaded_only_when_asked_for():
    code = "import sys, bayespar; print(any(m.startswith('bayespar.report') for m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
