"""Actors: optimal ones against every plan, learned ones against counts, distances against laws added up by hand."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

import bayespar as bp
from bayespar.testing.worlds import random_rows

SHAPES = [(1, 2, 2), (2, 3, 2), (2, 2, 3)]  # H_a, S, A


@st.composite
def low_levels(draw):
    """T as an array, and the low level that holds it densely or as successors."""
    H_a, S, A = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    T = random_rows(rng, (A, S, S))
    sparse = bp.Sparse(np.broadcast_to(np.arange(S), T.shape), T)
    return rng, T, bp.LowLevel(sparse if draw(st.booleans()) else T, steps=H_a)


def laws(T, actor, initial, steps):
    """The law of the state before every step, and after the last, by plain loops."""
    out = [np.asarray(initial, float)]
    for k in range(steps):
        law = np.zeros(len(initial))
        for s, a, t in np.ndindex(T.shape[1], T.shape[0], T.shape[1]):
            law[t] += out[-1][s] * actor[min(k, len(actor) - 1), s, a] * T[a, s, t]
        out.append(law)
    return np.stack(out)


def collected(T, actor, s, reward):
    gains = np.broadcast_to(reward, (len(actor), T.shape[1]))
    return (laws(T, actor, np.eye(T.shape[1])[s], len(actor))[1:] * gains).sum()


@given(low_levels(), st.booleans())
def test_no_plan_collects_more_than_the_optimal_actor(case, by_step):
    rng, T, low = case
    (A, S, _), H_a = T.shape, low.steps
    reward = rng.integers(-3, 4, (H_a, S) if by_step else S) / 2
    actor = bp.optimal_actor(low, reward)
    assert actor.shape == (H_a, S, A)
    assert set(np.unique(actor)) <= {0.0, 1.0}
    for s in range(S):
        best = max(
            collected(T, np.eye(A)[np.reshape(plan, (H_a, S))], s, reward)
            for plan in itertools.product(range(A), repeat=H_a * S)
        )
        assert collected(T, actor, s, reward) == pytest.approx(best, abs=1e-12)


def test_the_optimal_actor_depends_on_the_step_and_breaks_ties_to_the_lowest_index():
    # Action 1 leads on, action 0 stays; the goal is worth a visit at the end only.
    T = np.stack([np.eye(3), np.eye(3)[[1, 2, 2]]])
    low = bp.LowLevel(T, steps=3)
    late = np.zeros((3, 3))
    late[2, 1] = 1
    actor = bp.optimal_actor(low, late)
    assert actor[:, 0].argmax(-1).tolist() == [0, 0, 1]  # waits as long as it can
    assert (bp.optimal_actor(low, np.zeros(3))[..., 0] == 1).all()
    nearly = np.array([0, 5e-10, 0])
    assert (bp.optimal_actor(bp.LowLevel(T, steps=1), nearly)[:, 0, 0] == 1).all()
    assert (bp.optimal_actor(bp.LowLevel(T, steps=1), 10 * nearly)[:, 0, 1] == 1).all()


@given(low_levels())
def test_distances_between_actors(case):
    rng, T, low = case
    A, S, _ = T.shape
    actor, other = random_rows(rng, (low.steps, S, A)), random_rows(rng, (1, S, A))
    initial = random_rows(rng, (S,))
    found = bp.compare_actors(low, actor, other, initial)
    distance = np.abs(actor - other).sum(-1) / 2
    visited = laws(T, actor, initial, low.steps)[:-1]
    np.testing.assert_allclose(found.distance, distance, atol=1e-15)
    np.testing.assert_allclose(found.visited, visited, atol=1e-14)
    assert found.largest == pytest.approx(distance.max())
    assert found.on_visit == pytest.approx((visited * distance).sum() / low.steps)
    assert found.on_visit <= found.largest_visited + 1e-12 <= found.largest + 2e-12


def small():
    rng = np.random.default_rng(3)
    low = bp.LowLevel(rng.dirichlet(np.ones(4), (2, 4)), steps=3)
    return low, rng.dirichlet(np.ones(2), (3, 4)), rng.dirichlet(np.ones(4))


def test_imitation_counts_and_its_error_falls_with_demonstrations():
    low, actor, initial = small()
    errors = []
    for count in (100, 6400):
        shown = bp.sample_demonstrations(low, actor, initial, count, key=1)
        assert (shown.states.shape, shown.actions.shape) == ((count, 4), (count, 3))
        learned = bp.imitate(low, shown)
        for k, s in np.ndindex(3, 4):
            here = shown.states[:, k] == s
            assert learned.visits[k, s] == here.sum()
            np.testing.assert_allclose(learned.actor[k, s, 1], shown.actions[here, k].mean())
        errors.append(bp.compare_actors(low, actor, learned.actor, initial).on_visit)
    assert errors[1] < errors[0] / 4  # 64 times as many: an eighth on average
    other = bp.compare_actors(low, actor, learned.actor[::-1], initial)
    assert other.on_visit > 5 * errors[1]  # steps confused


def test_pooling_steps():
    low, actor, initial = small()
    shown = bp.sample_demonstrations(low, actor[:1], initial, 3000, key=1)
    pooled, apart = bp.imitate(low, shown, stationary=True), bp.imitate(low, shown)
    assert pooled.actor.shape == (1, 4, 2)
    assert pooled.visits.sum() == 9000
    distances = [bp.compare_actors(low, actor[:1], found.actor, initial).on_visit for found in (pooled, apart)]
    assert distances[0] < distances[1]


def test_rows_that_were_never_visited_are_uniform_and_reported():
    low = bp.LowLevel(np.eye(3)[None].repeat(4, 0), steps=2)
    shown = bp.Demonstrations(np.zeros((5, 3), np.int32), np.ones((5, 2), np.int32))
    learned = bp.imitate(low, shown)
    assert (learned.actor[:, 0] == np.eye(4)[1]).all()
    assert (learned.actor[:, 1:] == 0.25).all()
    assert learned.unvisited == pytest.approx(2 / 3)


def test_demonstrations_depend_on_their_key_only():
    low, actor, initial = small()
    one, two, three = (bp.sample_demonstrations(low, actor, initial, 50, key=key) for key in (0, 0, 1))
    np.testing.assert_array_equal(one.states, two.states)
    assert (one.states != three.states).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda low, mu, rho: bp.optimal_actor("low", np.zeros(4)), bp.InvalidWorldError, r"give a bayespar\.LowLevel"),
        (lambda low, mu, rho: bp.optimal_actor(low, np.zeros(3)), bp.InvalidWorldError, "the number of states is 4"),
        (lambda low, mu, rho: bp.optimal_actor(low, np.zeros((2, 4))), bp.InvalidWorldError, "H_a"),
        (lambda low, mu, rho: bp.optimal_actor(low, [0, 0, np.nan, 0]), bp.InvalidWorldError, r"reward\[2\] is nan"),
        (lambda low, mu, rho: bp.sample_demonstrations(low, mu[0], rho, 5), bp.InvalidWorldError, "actor has shape"),
        (lambda low, mu, rho: bp.sample_demonstrations(low, mu, rho[:2], 5), bp.InvalidWorldError, "initial has shape"),
        (lambda low, mu, rho: bp.sample_demonstrations(low, mu, 2 * rho, 5), bp.InvalidWorldError, "initial sums to 2"),
        (lambda low, mu, rho: bp.sample_demonstrations(low, mu, rho, 0), bp.InvalidPlannerError, "count = 0"),
        (
            lambda low, mu, rho: bp.imitate(low, "demonstrations"),
            bp.InvalidWorldError,
            r"give bayespar\.Demonstrations",
        ),
        (
            lambda low, mu, rho: bp.imitate(low, bp.Demonstrations(np.zeros((2, 3), int), np.zeros((2, 2), int))),
            bp.InvalidWorldError,
            "H_a = 3",
        ),
        (
            lambda low, mu, rho: bp.imitate(low, bp.Demonstrations(np.full((2, 4), 9), np.zeros((2, 3), int))),
            bp.InvalidWorldError,
            r"demonstrations\.states\[0, 0\] = 9, but states run from 0 to 3",
        ),
        (
            lambda low, mu, rho: bp.compare_actors(low, mu, 2 * mu, rho),
            bp.InvalidWorldError,
            r"other\[0, 0\] sums to 2",
        ),
    ],
)
def test_bad_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(*small())
