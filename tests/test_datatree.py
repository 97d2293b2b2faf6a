"""Posteriors as DataTree and for ArviZ: what is in each group, files, and ArviZ's own functions on it.

Runs with ArviZ 0.23 (Python 3.11) and 1.x (3.12 and newer).
"""

import dataclasses
import functools
import itertools
import json
import sys

import jax
import matplotlib as mpl
import matplotlib.pyplot as pyplot
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayespar as bp
from bayespar.posterior.arviz import MissingPackageError, as_arviz
from bayespar.posterior.drawn import draw_leaf, resample
from bayespar.posterior.latents import find_latents
from bayespar.posterior.predictive import one_step_ahead
from bayespar.posterior.result import Posterior
from bayespar.posterior.tree import plain

mpl.use("agg")
PROMPT = bp.Prompt([[0, 1, 1], [0, 0, 1], [0, 1, 1]], [[0, 1], [1, 1], [0, 1]], None, [0, 1], [0])
WORDS = ["nothing", "a bell"]
STAY = [[0.875, 0.125], [0, 1]]


def two_doors_and_a_slip(finite: bool = True) -> bp.World:
    """A finite site beside a vector of sites with a density; the first observation is always the same."""
    door = int(numpyro.sample("door", dist.Categorical(np.array([0.6, 0.4])))) if finite else 0
    slip = numpyro.sample("slip", dist.Uniform(0, 1).expand([2]).to_event(1))
    stay, go = jax.numpy.array(STAY), jax.numpy.array([[slip[0], 1 - slip[0]], [0, 1]])
    kernel = jax.numpy.stack([stay, go] if door else [go, stay])
    emission = jax.numpy.array([[1, 0], [slip[1], 1 - slip[1]]])
    return bp.World(
        np.array([1.0, 0]),
        kernel,
        emission,
        np.zeros((3, 2)),
        horizon=3,
        observations=WORDS,
        subgoals=["left", "right"],
    )


def coin() -> bp.World:
    right = numpyro.sample("right", dist.Bernoulli(0.25))
    kernel = np.stack([STAY, [[0.25, 0.75], [0, 1]]][:: -1 if right else 1])
    return bp.World(
        np.array([1.0, 0]), kernel, np.array([[1, 0], [0.5, 0.5]]), np.zeros((3, 2)), horizon=3, observations=WORDS
    )


@functools.cache
def finite() -> Posterior:
    return bp.posterior(coin, PROMPT)


@functools.cache
def chains(weighted: bool = False) -> Posterior:
    """Points that stand for what a sampler returns: their exact leaf probabilities are computed here, by hand."""
    latents, rng = find_latents(two_doors_and_a_slip), np.random.default_rng(0)
    slip = rng.random((2, 40, 2))
    log_l = np.array([[[by_hand(d, s, PROMPT).sum() for d in (0, 1)] for s in row] for row in slip])
    joint = np.exp(log_l) * [0.6, 0.4]
    log_weights = np.log(joint.sum(-1) / joint.sum())
    return Posterior(
        method="smc" if weighted else "nuts",
        log_evidence=float(np.log(joint.sum(-1).mean())),
        prompt=PROMPT,
        latents=latents,
        draws={"slip": slip},
        leaf_probabilities=joint / joint.sum(-1, keepdims=True),
        log_weights=log_weights if weighted else None,
        sample_stats={} if weighted else {"energy": rng.normal(size=(2, 40)), "diverging": rng.random((2, 40)) < 0.1},
        attributes={"settings": {"chains": 2, "deep": None}, "adapted": True, "key": jax.random.key(3), "pair": (1, 2)},
    )


def kernels(door, slip):
    stay, go = np.array(STAY), np.array([[slip[0], 1 - slip[0]], [0, 1]])
    return np.array([1.0, 0]), [stay, go] if door else [go, stay], np.array([[1, 0], [slip[1], 1 - slip[1]]])


def path_sum(initial, transition, emission, o, g):
    """P(o || g) as a sum over state paths."""
    total = 0.0
    for path in itertools.product(range(len(initial)), repeat=len(o)):
        p = initial[path[0]] * emission[path[0]][o[0]]
        for h in range(1, len(o)):
            p *= transition[g[h - 1]][path[h - 1]][path[h]] * emission[path[h]][o[h]]
        total += p
    return total


def by_hand(door, slip, prompt):
    """log L of every episode, the current one last; only such as are possible."""
    world = kernels(door, slip)
    rows = [*zip(prompt.observations, prompt.subgoals, strict=True)]
    rows.append((prompt.current_observations, prompt.current_subgoals))
    with np.errstate(divide="ignore"):
        return np.log([path_sum(*world, o, g) for o, g in rows])


def test_groups_of_an_exact_posterior():
    tree = finite().to_datatree()
    assert set(tree.children) == {
        "posterior", "prior", "sample_stats", "constant_data", "observed_data", "posterior_predictive", "log_likelihood"
    }  # fmt: skip
    assert np.array_equal(tree["posterior/probability"].values, finite().probabilities)
    assert np.array_equal(tree["prior/probability"].values, [0.75, 0.25])
    assert tree["posterior"].coords["task"].values.tolist() == ["right=0", "right=1"]
    assert tree["log_likelihood/log_likelihood"].dims == ("task", "episode")
    # Systematic draws: 2000 P(z) of each task, rounded up or down.
    drawn = tree["posterior/right"]
    assert drawn.dims == ("chain", "draw")
    assert abs(drawn.values.sum() - 2000 * finite().probabilities[1]) < 1
    # Each draw has the log likelihood of its own task.
    picked = tree["log_likelihood/log_likelihood"].values[drawn.values]
    np.testing.assert_allclose(tree["log_likelihood/observations"].values, picked, rtol=1e-12)
    assert not np.allclose(picked, tree["log_likelihood/log_likelihood"].values[1 - drawn.values])
    assert tree["constant_data"].coords["observation"].values.tolist() == WORDS
    assert np.array_equal(tree["constant_data/current_observations"].values, [0, 1])
    assert np.array_equal(tree["observed_data/observations"].values, PROMPT.observations)
    assert {"jax_version", "numpyro_version", "bayespar_version", "arviz_base_version"} <= set(tree.attrs)
    assert tree.attrs["log_evidence"] == finite().log_evidence


def test_groups_beside_sites_with_a_density():
    result = chains()
    tree = result.to_datatree()
    posterior = tree["posterior"].to_dataset()
    assert posterior["slip"].dims == ("chain", "draw", "slip_dim_0")
    assert np.array_equal(posterior["slip"].values, result.draws["slip"])
    assert np.array_equal(posterior["leaf_probability"].values, result.leaf_probabilities)
    assert posterior.coords["leaf"].values.tolist() == ["door=0", "door=1"]
    assert set(np.unique(posterior["door"])) == {0, 1}
    # The drawn door follows its exact probabilities: its sum is within 5 standard deviations of theirs.
    p = result.leaf_probabilities[..., 1]
    assert abs(posterior["door"].values.sum() - p.sum()) < 5 * np.sqrt((p * (1 - p)).sum())
    assert abs((1 - posterior["door"].values).sum() - p.sum()) > 5 * np.sqrt((p * (1 - p)).sum())
    # Each draw has the log likelihood of its own leaf, as summed over paths.
    expected = np.array(
        [
            [by_hand(d, s, PROMPT)[:-1] for d, s in zip(doors, slips, strict=True)]
            for doors, slips in zip(posterior["door"].values, result.draws["slip"], strict=True)
        ]
    )
    np.testing.assert_allclose(tree["log_likelihood/observations"].values, expected, rtol=1e-10)
    assert tree["sample_stats/diverging"].dtype == bool
    # The prior is that of the program: uniform slips, a door with probability 0.4, within 5 standard errors.
    prior = tree["prior"].to_dataset()
    assert abs(prior["slip"].values.mean() - 0.5) < 5 * np.sqrt(1 / 12 / 160)
    assert abs(prior["door"].values.mean() - 0.4) < 5 * np.sqrt(0.24 / 80)
    # Replicates never show what is impossible: the first observation is always "nothing".
    assert (tree["posterior_predictive/observations"].values[..., 0] == 0).all()
    assert tree["posterior_predictive/observations"].values[..., 1:].any()


def test_the_same_key_gives_the_same_tree():
    xr.testing.assert_identical(chains().to_datatree(key=5), chains().to_datatree(key=jax.random.key(5)))
    other = chains().to_datatree(key=6)
    assert not chains().to_datatree(key=5)["posterior/door"].identical(other["posterior/door"])


def test_points_with_weights_are_resampled_and_kept():
    result = chains(weighted=True)
    tree = result.to_datatree(shape=(4, 250))
    assert "resampled" in tree.attrs["sampling"]
    slip = tree["posterior/slip"]
    assert slip.shape == (4, 250, 2)
    weights = np.exp(tree["points/log_weight"].values)
    assert np.array_equal(weights, np.exp(result.log_weights).ravel())
    point = tree["sample_stats/point"].values
    assert np.array_equal(slip.values, tree["points/slip"].values[point])
    counts = np.bincount(point.ravel(), minlength=80)
    assert (np.abs(counts - 1000 * weights) < 1).all()  # systematic: rounded up or down
    # ... and so a mean is off by at most one draw's share of each point; without weights it is not.
    assert abs(slip.values[..., 0].mean() - result.mean("slip")[0]) < 80 / 1000
    np.testing.assert_allclose(tree["sample_stats/log_weight"].values, result.log_weights.ravel()[point])
    twin = dataclasses.replace(result, log_weights=None)
    assert abs(twin.mean("slip") - result.mean("slip")).max() > 80 / 1000


def test_resampling_never_takes_what_weighs_nothing():
    weights = np.array([0, 0.5, 0, 0.25, 0.25, 0])
    for seed in range(20):
        index = resample(weights, (3, 7), np.random.default_rng(seed))
        assert set(index.ravel()) <= {1, 3, 4}
        assert abs((index == 1).sum() - 10.5) < 1
    leaves = draw_leaf(np.array([[[0, 1.0, 0], [0.5, 0, 0.5]]] * 200), np.random.default_rng(0))
    assert set(leaves[:, 0]) == {1}
    assert set(leaves[:, 1]) == {0, 2}


def test_predictions_one_step_ahead_are_ratios_of_path_sums():
    rng = np.random.default_rng(1)
    S, G, O, H = 3, 2, 3, 4
    initial, transition, emission = (rng.dirichlet(np.ones(n), size) for n, size in ((S, ()), (S, (G, S)), (O, S)))
    transition[0, 0], emission[1] = [0, 1, 0], [1, 0, 0]  # zeros
    o, g = rng.integers(0, O, (5, H)), rng.integers(0, G, (5, H - 1))
    family = bp.Family([1.0], initial, transition, emission, np.zeros((H, O)), horizon=H)
    with jax.enable_x64(True):
        log_l, law = (np.asarray(a) for a in one_step_ahead(family, o, g))
    world = initial, transition, emission
    for n in range(5):
        for h in range(H):
            joint = np.array([path_sum(*world, [*o[n, :h], x], g[n]) for x in range(O)])
            np.testing.assert_allclose(law[n, h], joint / joint.sum(), atol=1e-12)
        np.testing.assert_allclose(log_l[n], np.log(path_sum(*world, o[n], g[n])), atol=1e-12)
    # A prediction that ignores what was seen before is another one.
    blind = np.array([path_sum(*world, [x, y], g[0]) for x in range(O) for y in range(O)]).reshape(O, O).sum(0)
    assert np.abs(law[0, 1] - blind).max() > 0.01


def test_replicates_follow_the_predictions():
    tree = finite().to_datatree(shape=(1, 4000))
    right, replicates = tree["posterior/right"].values[0], tree["posterior_predictive/observations"].values[0]
    found = finite().family
    with jax.enable_x64(True):
        law = np.stack([law_of(found, z) for z in (0, 1)])[right]  # [draw, N, H]
    # 9 frequencies, each within 5 standard deviations: a false alarm has probability below 1e-5.
    deviation = np.abs(replicates.mean(0) - law.mean(0)) / np.sqrt((law * (1 - law)).mean(0) / 4000 + 1e-12)
    assert deviation.max() < 5
    twin = np.abs(replicates.mean(0) - np.roll(law, 1, 1).mean(0)) / np.sqrt((law * (1 - law)).mean(0) / 4000 + 1e-12)
    assert twin.max() > 5


def law_of(family, z):
    """P(a bell | past) of every observation of the prompt under task z, by sums over paths."""
    world = family.world(z)
    arrays = world.initial, np.asarray(world.transition).reshape(2, 2, 2), world.emission
    out = np.zeros(PROMPT.observations.shape)
    for n, h in np.ndindex(*out.shape):
        joint = [path_sum(*arrays, [*PROMPT.observations[n, :h], x], PROMPT.subgoals[n]) for x in (0, 1)]
        out[n, h] = joint[1] / sum(joint)
    return out


@pytest.mark.parametrize("kind", ["exact", "chains", "weighted"])
def test_files_give_back_the_same_tree(kind, tmp_path):
    result = {"exact": finite, "chains": chains, "weighted": lambda: chains(True)}[kind]()
    tree = result.to_datatree()
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    tree.to_zarr(tmp_path / "tree.zarr", consolidated=False)
    for name, engine in (("tree.nc", "h5netcdf"), ("tree.zarr", "zarr")):
        with xr.open_datatree(
            tmp_path / name, engine=engine, **({"consolidated": False} if engine == "zarr" else {})
        ) as back:
            xr.testing.assert_identical(tree, back.load())
            assert np.array_equal(back["posterior/chain"].values, tree["posterior/chain"].values)
            twin = back.copy(deep=True)
        twin.attrs["method"] = "guess"
        with pytest.raises(AssertionError):
            xr.testing.assert_identical(tree, twin)


def test_attributes_are_plain():
    attrs = chains().to_datatree().attrs
    assert {type(value) for value in attrs.values()} <= {str, int, float}
    assert json.loads(attrs["settings"]) == {"chains": 2, "deep": None}
    assert attrs["adapted"] == "true"
    assert attrs["key"] == "[0, 3]"
    assert attrs["pair"] == "[1, 2]"
    assert plain(None) == "null"
    assert plain(2**70) == str(2**70)


@pytest.mark.parametrize("kind", ["exact", "chains", "weighted"])
def test_arviz_takes_it(kind, tmp_path):
    az = pytest.importorskip("arviz")
    result = {"exact": finite, "chains": chains, "weighted": lambda: chains(True)}[kind]()
    data = result.to_arviz()
    old = az.__version__.startswith("0.")
    assert isinstance(data, az.InferenceData if old else xr.DataTree)
    table = az.summary(data, round_to="none" if not old else None)
    tree = result.to_datatree()
    drawn = {"exact": "right"}.get(kind, "door")
    assert float(table.loc[drawn, "mean"]) == pytest.approx(float(tree[f"posterior/{drawn}"].mean()), abs=0.01)
    if kind != "exact":
        assert float(table.loc["leaf_probability[door=1]", "mean"]) == pytest.approx(
            float(tree["posterior/leaf_probability"][..., 1].mean()), abs=0.01
        )
    with mpl.rc_context():
        az.plot_trace(data)
        az.plot_rank(data)
        az.plot_forest(data)
        (az.plot_ppc if old else az.plot_ppc_dist)(data)
        (az.plot_posterior if old else az.plot_dist)(data)
        pyplot.close("all")
    if kind != "exact":  # ArviZ 1.x fits a tail to the likelihoods, which needs more than two of them
        loo = az.loo(data, var_name="observations")
        assert np.isfinite(loo.elpd_loo if old else loo.elpd)
    # A tree that comes from a file serves as well.
    tree.to_netcdf(tmp_path / "tree.nc", engine="h5netcdf")
    with xr.open_datatree(tmp_path / "tree.nc", engine="h5netcdf") as back:
        assert az.summary(as_arviz(back.load())).shape[0] == table.shape[0]


def test_arviz_takes_a_site_that_is_known_for_sure():
    az = pytest.importorskip("arviz")
    certain = bp.posterior(coin, bp.Prompt([[0, 0, 1]] * 4, [[0, 1]] * 4))
    result = dataclasses.replace(certain, log_probabilities=np.array([0, -np.inf]))
    az.plot_rank(result.to_arviz())
    az.plot_trace(result.to_arviz())
    pyplot.close("all")


def test_without_arviz_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(sys.modules["bayespar.posterior.arviz"], "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"bayespar\[arviz\]"):
        finite().to_arviz()


def test_large_variables_are_left_out_and_named():
    tree = chains().to_datatree(max_bytes=8 * 80 * 3 - 1)
    assert "log_likelihood/observations" in tree.attrs["left_out"]
    assert "posterior_predictive" not in tree.children
    assert "left_out" not in chains().to_datatree(max_bytes=8 * 80 * 3).attrs


def test_no_episode_no_group_of_episodes():
    tree = bp.posterior(coin, bp.Prompt(current_observations=[0])).to_datatree()
    assert not {"log_likelihood", "observed_data", "posterior_predictive"} & set(tree.children)
    assert "posterior" in tree.children


def test_no_draws_from_the_prior_of_a_program_that_observes():
    def watched():
        numpyro.sample("seen", dist.Normal(0, 1), obs=0.3)
        return two_doors_and_a_slip(finite=False)

    latents = find_latents(watched)
    result = Posterior("nuts", 0.0, bp.Prompt(), latents=latents, draws={"slip": np.full((1, 3, 2), 0.5)})
    tree = result.to_datatree()
    assert "prior" not in tree.children
    assert "leaf_probability" not in tree["posterior"]


def test_sites_whose_names_are_taken_get_an_underscore():
    family = bp.Family(
        [0.5, 0.5], [1.0], np.ones((1, 1, 1)), [[1.0]], np.zeros((1, 1)), horizon=1, sites={"task": ["a", "b"]}
    )
    tree = bp.posterior(family, bp.Prompt()).to_datatree()
    assert json.loads(tree["posterior/task_"].attrs["values"]) == ["a", "b"]
    assert tree["posterior/probability"].dims == ("task",)


def test_marginals_and_means():
    for weighted in (False, True):
        result = chains(weighted)
        w = np.exp(result.log_weights) if weighted else np.full((2, 40), 1 / 80)
        door = result.marginal("door")
        expected = sum(w[c, d] * result.leaf_probabilities[c, d] for c in range(2) for d in range(40))
        np.testing.assert_allclose(door.values, expected, rtol=1e-12)
        assert door.coords["door"].values.tolist() == [0, 1]
        np.testing.assert_allclose(result.marginal("leaf").values, expected, rtol=1e-12)
        assert result.mean("door") == pytest.approx(expected[1], rel=1e-12)
        slip = result.draws["slip"]
        np.testing.assert_allclose(result.mean("slip"), (w[..., None] * slip).sum((0, 1)), rtol=1e-12)
        assert ("weight" in result.marginal("slip").coords) == weighted
        table = result.summary()
        assert table.coordinate.values.tolist() == ["slip[0]", "slip[1]"]
        for k in range(2):
            x, p = slip[..., k].ravel(), w.ravel()
            sd = np.sqrt((p * (x - (p * x).sum()) ** 2).sum())
            assert float(table[k].sel(statistic="sd")) == pytest.approx(sd, rel=1e-12)
            q = float(table[k].sel(statistic="q05"))
            assert p[x < q].sum() < 0.05 <= p[x <= q].sum() + 1e-12
    assert finite().mean("right") == pytest.approx(finite().probabilities[1])
    assert abs(chains().mean("door") - chains(True).mean("door")) > 1e-3  # the weights matter


def test_what_is_not_there_is_named():
    with pytest.raises(bp.InvalidProgramError, match="no site 'cellar'; the sites are leaf, door, slip"):
        chains().marginal("cellar")
    with pytest.raises(bp.InvalidProgramError, match="not finite"):
        _ = chains().probabilities
    with pytest.raises(bp.InvalidProgramError, match="no points"):
        finite().summary()
    with pytest.raises(bp.InvalidProgramError, match="no numbers"):
        finite().mean("task")
    with pytest.raises(bp.InvalidPlannerError, match="shape"):
        finite().to_datatree(shape=(0, 5))
    with pytest.raises(bp.InvalidPlannerError, match="key"):
        finite().to_datatree(key="seed")
