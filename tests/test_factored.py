"""Kernels kept as one factor an Actor: everything computed with them is what the dense kernel gives."""

import copy
import pickle

import numpy as np
import pytest

import bayespar as bp
from bayespar import evidence, filtering, forward, testing
from bayespar.arrays import precision_of
from bayespar.kernels import HostKernel
from bayespar.testing.mutants import CORRECT
from bayespar.testing.worlds import random_rows

SHAPES = [((2, 2), (2, 3), (1, 2)), ((2, 1), (1, 1), (3, 3)), ((2, 3, 2), (2, 1, 2), (1, 3, 1))]


def factors(sizes, subgoals, leads, seed, steps=1):
    """A kernel for each Actor, [Z or 1, steps, G_k, S_k, S_k'], with zeros and deterministic rows."""
    rng = np.random.default_rng(seed)
    return [random_rows(rng, (z, steps, g, s, s)) for s, g, z in zip(sizes, subgoals, leads, strict=True)]


def two_families(seed, sizes=(2, 3), subgoals=(2, 2), leads=(3, 1), H=4, steps=1):
    """The same family with a factored and with a dense transition."""
    rng = np.random.default_rng(seed)
    kernel = bp.Factored(factors(sizes, subgoals, leads, seed, steps))
    S = int(np.prod(sizes))
    rest = rng.dirichlet(np.ones(S)), random_rows(rng, (3, S, 3)), rng.random((H, 3))
    return [bp.Family([0.5, 0.3, 0.2], rest[0], k, *rest[1:], horizon=H) for k in (kernel, kernel.dense())]


@pytest.mark.parametrize(("sizes", "subgoals", "leads"), SHAPES)
def test_dense_is_the_product_over_actors(sizes, subgoals, leads):
    kernel = bp.Factored(factors(sizes, subgoals, leads, 0, steps=2))
    dense = kernel.dense()
    assert dense.shape == kernel.shape
    rng = np.random.default_rng(1)
    for _ in range(200):
        place = tuple(int(rng.integers(n)) for n in dense.shape)
        z, h, g, s, t = place
        own = [np.unravel_index(i, n) for i, n in ((g, subgoals), (s, sizes), (t, sizes))]
        product = 1.0
        for k, f in enumerate(kernel.factors):
            product *= f[min(z, len(f) - 1), h, own[0][k], own[1][k], own[2][k]]
        assert dense[place] == pytest.approx(product, abs=1e-15)


@pytest.mark.parametrize(("sizes", "subgoals", "leads"), SHAPES)
def test_beliefs_forward_and_values_back(sizes, subgoals, leads):
    S, Z = int(np.prod(sizes)), max(leads)
    rng = np.random.default_rng(2)
    rest = np.eye(S)[0], np.eye(S), np.zeros((3, S))
    kernel = bp.Factored(factors(sizes, subgoals, leads, 3, steps=2))
    family = bp.Family(np.full(Z, 1 / Z), rest[0], kernel, *rest[1:], horizon=3)
    host, dense = HostKernel(family), kernel.dense()
    belief, values = rng.random((5, S)), rng.random((S, 2))
    for z in range(Z):
        for h in range(2):
            move = dense[z % len(dense), h]
            np.testing.assert_allclose(host.push(z, h, belief), np.einsum("ms,gst->mgt", belief, move), atol=1e-14)
            np.testing.assert_allclose(host.pull(z, h, values), np.einsum("gst,tw->sgw", move, values), atol=1e-14)


@pytest.mark.parametrize("small", [True, False], ids=["made dense", "kept factored"])
@pytest.mark.parametrize("log_space", [False, True], ids=["probabilities", "logarithms"])
def test_evidence_and_filter_agree_with_the_dense_kernel(monkeypatch, small, log_space):
    monkeypatch.setattr(forward, "FACTORED_STATES", 10**6 if small else 0)
    if log_space:
        monkeypatch.setattr(evidence, "choose_arithmetic", lambda family: None)
        monkeypatch.setattr(filtering, "choose_arithmetic", lambda family: None)
    rng = np.random.default_rng(4)
    o, g = rng.integers(0, 3, (40, 4)), rng.integers(0, 4, (40, 3))
    one, other = two_families(5)
    found, expected = bp.prefix_log_evidence(one, o, g), bp.prefix_log_evidence(other, o, g)
    assert np.isneginf(expected).any()
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    with precision_of(one):
        trackers = [bp.Filter(f) for f in (one, other)]
        weights = [t.start(o[0, 0]) for t in trackers]
        for h in range(3):
            weights = [t.advance(w, h, g[0, h], o[0, h + 1]) for t, w in zip(trackers, weights, strict=True)]
            np.testing.assert_allclose(
                *(np.asarray(t.log_likelihood(w)) for t, w in zip(trackers, weights, strict=True))
            )
        ahead = [t.predict(w, one.task_prior, 1, 3) for t, w in zip(trackers, weights, strict=True)]
        np.testing.assert_allclose(*map(np.asarray, ahead), atol=1e-14)


def test_the_exact_checks_pass_on_a_factored_world(monkeypatch):
    monkeypatch.setattr(forward, "FACTORED_STATES", 0)
    rng = np.random.default_rng(6)
    kernel = bp.Factored(factors((2, 2), (2, 1), (2, 1), 7))
    family = bp.Family([0.6, 0.4], random_rows(rng, (2, 4)), kernel, random_rows(rng, (4, 2)), [[0, 1]] * 2, horizon=2)
    for role in ("state_posterior", "next_observation", "planner", "log_evidence"):
        report = testing.run_checks(**{role: CORRECT[role]()}, family=family, checks=["agreement"], examples=5)
        assert not report.failures, str(report)
        assert [r.check for r in report.results] == ["agreement"]


def test_experts_regret_and_simulation_agree_with_the_dense_kernel(monkeypatch):
    monkeypatch.setattr(forward, "FACTORED_STATES", 0)
    one, other = two_families(8, H=3, steps=2)
    values = [bp.solve_experts(f, method="histories").value for f in (one, other)]
    np.testing.assert_allclose(*values, atol=1e-13)
    exact = [bp.expected_regret(f, "bail", 0.2, 3).regret for f in (one, other)]
    np.testing.assert_allclose(*exact, atol=1e-12)
    curves = bp.simulate_regret(one, 0, "bail", 0.2, 3, 4096)
    interval = curves.interval(alpha=1e-6)
    assert interval.contains(exact[1][0].sum())
    assert interval.half_width < 0.1
    assert bp.task_classes(one).members == bp.task_classes(other).members


def test_simulated_moves_follow_the_kernel():
    from bayespar.simulate.environment import Environment

    kernel = bp.Factored(factors((2, 3), (2, 2), (1, 1), 9))
    family = bp.Family([1.0], np.eye(6)[0], kernel, np.eye(6), np.zeros((2, 6)), horizon=2)
    environment, dense = Environment(family), kernel.dense()[0, 0]
    uniform = (np.arange(20_000) + 0.5) / 20_000
    import jax

    moves = jax.jit(jax.vmap(lambda u, s, g: environment.move(0, s, 0, g, u), in_axes=(0, None, None)))
    for g in range(4):
        for s in range(6):
            found = np.bincount(np.asarray(moves(uniform.astype(np.float32), s, g)), minlength=6) / len(uniform)
            np.testing.assert_allclose(found, dense[g, s], atol=2e-4)


def test_pasted_back():
    small = {"sizes": (2, 2), "subgoals": (2, 1), "leads": (3, 1)}
    for family in two_families(10, **small):
        again = eval(repr(family), {"bp": bp})  # a small world prints as its source
        np.testing.assert_array_equal(again.dense_transition(), family.dense_transition())
    assert "bp.Factored(" in repr(two_families(10, **small)[0])
    float32 = two_families(10)[0].astype("float32")
    assert {f.dtype for f in float32.transition.factors} == {np.dtype(np.float32)}
    world = two_families(11, steps=3)[0].world(1)
    assert world.transition.shape == (3, 4, 6, 6)


def test_bad_factors_are_refused():
    square = np.eye(2)[None]
    for bad, said in [
        ([], r"factors = \[\]"),
        (square, "give a list"),
        ([square, np.ones((2, 3))], r"transition.factors\[1\] has shape \[2, 3\]"),
        ([square, square[None]], "as many axes|has 4 axes"),
        ([np.ones((1, 2, 3))], r"shape \[1, 2, 3\]"),
        ([[["x"]]], "real numbers"),
    ]:
        with pytest.raises(bp.InvalidWorldError, match=said):
            bp.Factored(bad)
    broken = np.array([[[1.0, 0.0], [0.25, 0.25]]])
    with pytest.raises(bp.InvalidWorldError, match=r"transition.factors\[1\]\[0, 0, 0, 1\] sums to 0.5"):
        bp.Family([1.0], np.eye(4)[0], bp.Factored([square, broken]), np.eye(4), np.zeros((2, 4)), horizon=2)
    large = bp.Factored([np.tile(np.eye(50), (4, 1, 1))] * 4)
    with pytest.raises(bp.TooLargeError, match="use what keeps kernels factored"):
        large.dense()


def test_a_team_counts_like_numpy():
    team = bp.Team({"Ada": ["left", "right"], "Ben": ["up", "down", "stay"]})
    assert team[4] == "Ada: right, Ben: down"
    assert team.sizes == (2, 3)
    np.testing.assert_array_equal(team.split(np.arange(6)), [[i // 3, i % 3] for i in range(6)])
    np.testing.assert_array_equal(team.join(team.split(np.arange(6))), np.arange(6))
    assert eval(repr(team), {"bp": bp}) == team
    for again in (copy.deepcopy(team), pickle.loads(pickle.dumps(team))):
        assert isinstance(again, bp.Team)
        assert again.actors == team.actors
    p = np.random.default_rng(0).dirichlet(np.ones(6), 4)
    ada, ben = team.marginals(p)
    np.testing.assert_allclose(ada, p.reshape(4, 2, 3).sum(2))
    np.testing.assert_allclose(ben, p.reshape(4, 2, 3).sum(1))
    np.testing.assert_allclose(team.product([ada, ben]), np.einsum("ni,nj->nij", ada, ben).reshape(4, 6))


def test_bad_teams_are_refused():
    for bad, said in [
        ({}, "give a dict"),
        ([["a"]], "give a dict"),
        ({"Ada": []}, "give a list of subgoals"),
        ({"Ada": "left"}, "give a list of subgoals"),
        ({"Ada": 3}, "give a list of subgoals"),
        ({"Ada": ["left", "left"]}, "more than once"),
        ({" ": ["left"]}, "cannot be written"),
        ({"A": ["x", "x, B: y"], "B": ["y", "y, B: y"]}, "more than once"),
    ]:
        with pytest.raises(bp.InvalidWorldError, match=said):
            bp.Team(bad)
    with pytest.raises(bp.TooLargeError):
        bp.Team({f"actor {k}": range(8) for k in range(7)})
    team = bp.Team({"Ada": ["left", "right"]})
    for bad in (2, -1, [0.5]):
        with pytest.raises(bp.InvalidWorldError):
            team.split(bad)
    for bad in ([2], [0, 0], 0, [0.5]):
        with pytest.raises(bp.InvalidWorldError):
            team.join(bad)
    with pytest.raises(bp.InvalidWorldError, match="subgoals has 2 names"):
        bp.Family([1.0], [1.0], np.ones((3, 1, 1)), [[1.0]], [[0.0]] * 2, horizon=2, subgoals=team)


def test_each_actor_composed_alone_is_all_of_them_composed_at_once():
    """The joint low level is written out: pairs of states, pairs of actions, every pair of Actors side by side."""
    rng = np.random.default_rng(12)
    steps, sizes, actions, subgoals = 3, (2, 3), (2, 2), (2, 2)
    moves = [random_rows(rng, (a, s, s)) for a, s in zip(actions, sizes, strict=True)]
    actors = [random_rows(rng, (g, steps, s, a)) for g, s, a in zip(subgoals, sizes, actions, strict=True)]
    alone = [bp.TwoLevel(bp.LowLevel(T, steps=steps), mu) for T, mu in zip(moves, actors, strict=True)]
    T = np.einsum("ast,bvw->absvtw", *moves).reshape(4, 6, 6)
    mu = np.einsum("gksa,hkvb->ghksvab", *actors).reshape(4, steps, 6, 4)
    together = bp.TwoLevel(bp.LowLevel(T, steps=steps), mu).compose()
    np.testing.assert_allclose(bp.Factored(alone).dense(), together, atol=1e-14)
    assert np.abs(bp.Factored(alone[::-1]).dense() - together).max() > 0.01
