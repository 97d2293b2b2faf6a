"""The low level: composed kernels against sums over paths, worlds made of two levels, rollouts frame by frame."""

import functools
import itertools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

import bayespar as bp
from bayespar.report.grid import draw_grid
from bayespar.statistics import MeanConfidence
from bayespar.testing.worlds import random_rows, rows_of

SHAPES = [(1, 1, 2, 1), (2, 2, 3, 2), (2, 3, 2, 3), (3, 2, 4, 1)]  # G, H_a, S, A


@st.composite
def two_levels(draw):
    """A TwoLevel, dense or sparse, its Actors with or without steps."""
    G, H_a, S, A = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    T = random_rows(rng, (A, S, S))
    kernel = T
    if draw(st.booleans()):  # two successors a row, which may be one state twice
        kernel = bp.Sparse(rng.integers(S, size=(A, S, 2)), rows_of(rng.integers(0, 4, (A, S, 2))))
        T = np.zeros((A, S, S))
        for a, s, k in np.ndindex(A, S, 2):
            T[a, s, kernel.next_states[a, s, k]] += kernel.probabilities[a, s, k]
    mu = random_rows(rng, (G, draw(st.sampled_from([1, H_a])), S, A))
    return bp.TwoLevel(bp.LowLevel(kernel, steps=H_a), mu), T


def by_paths(T, actor, steps):
    """P(s' | s) of one subgoal: the sum over every path of states and actions."""
    A, S, _ = T.shape
    out = np.zeros((S, S))
    for path in itertools.product(range(S), repeat=steps + 1):
        for actions in itertools.product(range(A), repeat=steps):
            weight = 1.0
            for k, a in enumerate(actions):
                weight *= actor[min(k, len(actor) - 1), path[k], a] * T[a, path[k], path[k + 1]]
            out[path[0], path[-1]] += weight
    return out


def dense(kernel):
    return kernel.dense(kernel.shape[1]) if isinstance(kernel, bp.Sparse) else kernel


@given(two_levels())
def test_composed_kernel_is_the_sum_over_paths(case):
    two_level, T = case
    found = dense(two_level.compose())
    for g, actor in enumerate(two_level.actors):
        np.testing.assert_allclose(found[g], by_paths(T, actor, two_level.low_level.steps), atol=1e-14)


def random_case(seed=0, G=2, H_a=5, S=40, A=3, K=2):
    """Above the size at which products are sparse."""
    rng = np.random.default_rng(seed)
    kernel = bp.Sparse(rng.integers(S, size=(A, S, K)), rng.dirichlet(np.ones(K), (A, S)))
    return bp.TwoLevel(bp.LowLevel(kernel, steps=H_a), rng.dirichlet(np.ones(A), (G, H_a, S)))


def by_products(two_level, order=1):
    T = two_level.low_level.dense_transition()
    steps = np.einsum("gksa,ast->gkst", two_level.actors, T)[:, ::order]
    return np.stack([functools.reduce(np.matmul, each) for each in steps])


def test_large_state_spaces_and_the_order_of_steps():
    two_level = random_case()
    np.testing.assert_allclose(dense(two_level.compose()), by_products(two_level), atol=1e-14)
    assert np.abs(dense(two_level.compose()) - by_products(two_level, -1)).max() > 0.01  # the reversed order
    power = np.stack([np.linalg.matrix_power(m, 5) for m in by_products(bp.TwoLevel(
        bp.LowLevel(two_level.low_level.transition, steps=1), two_level.actors[:, :1]))])  # fmt: skip
    assert np.abs(dense(two_level.compose()) - power).max() > 0.01
    stationary = bp.TwoLevel(two_level.low_level, two_level.actors[:, :1])
    np.testing.assert_allclose(dense(stationary.compose()), power, atol=1e-14)


def test_few_successors_are_stored_as_such_and_nothing_is_left_out():
    corridor = np.minimum(np.arange(100) + 1, 99)
    kernel = bp.Sparse(np.stack([corridor, np.arange(100)], -1)[None], np.tile([1e-9, 1 - 1e-9], (1, 100, 1)))
    two_level = bp.TwoLevel(bp.LowLevel(kernel, steps=20), np.ones((1, 1, 100, 1)))
    composed = two_level.compose()
    assert isinstance(composed, bp.Sparse)
    assert composed.shape == (1, 100, 21)
    assert composed.dense(100)[0, 0, 20] == pytest.approx(1e-180, rel=1e-9)
    assert isinstance(random_case(H_a=9).compose(), np.ndarray)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_composes_in_its_own_precision_and_under_a_trace(dtype):
    two_level = random_case(S=5)
    T = two_level.low_level.dense_transition().astype(dtype)
    low = bp.LowLevel(T, steps=5)
    composed = bp.TwoLevel(low, two_level.actors.astype(dtype)).compose()
    assert composed.dtype == dtype
    with jax.enable_x64(dtype == np.float64):
        traced = jax.jit(lambda T: bp.TwoLevel(bp.LowLevel(T, steps=5), two_level.actors).compose())(jnp.asarray(T))
    np.testing.assert_allclose(traced, composed, atol=1e-6 if dtype == np.float32 else 1e-14)


def test_rows_that_are_slightly_off_do_not_add_up():
    two_level = random_case(S=5, H_a=1)
    T = two_level.low_level.dense_transition() * (1 + 5e-10)
    composed = bp.TwoLevel(bp.LowLevel(T, steps=50), two_level.actors).compose()
    np.testing.assert_allclose(composed.sum(-1), 1, atol=1e-14)


def test_a_sub_program_is_a_low_level():
    def transition(state, action):
        return "b" if action == "go" and numpyro.sample("arrives", dist.Bernoulli(0.25)) else state

    low = bp.LowLevel(transition, steps=2, states=["a", "b"], actions=["wait", "go"])
    np.testing.assert_array_equal(low.dense_transition(), [[[1, 0], [0, 1]], [[0.75, 0.25], [0, 1]]])
    assert (low.num_states, low.num_actions) == (2, 2)


LOW = bp.LowLevel(np.eye(3)[None], steps=2)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bp.LowLevel(np.eye(3), steps=2), r"transition has shape \[3, 3\]; it must be \[A, S, S'\]"),
        (lambda: bp.LowLevel(np.ones((1, 3, 2)) / 2, steps=2), "axis 2 has size 2, but the number of states is 3"),
        (lambda: bp.LowLevel(2 * np.eye(3)[None], steps=2), r"transition\[0, 0\] sums to 2, not 1"),
        (lambda: bp.LowLevel(bp.Sparse([[[3]]], [[[1.0]]]), steps=2), r"next_states\[0, 0, 0\] = 3"),
        (lambda: bp.LowLevel(np.zeros((0, 3, 3)), steps=2), "at least one action"),
        (lambda: bp.LowLevel(np.eye(3)[None], steps=0), "steps = 0; a subgoal takes"),
        (lambda: bp.LowLevel(np.eye(3)[None], steps=True), "steps = True"),
        (lambda: bp.LowLevel(np.eye(3)[None], steps=1, states=["a", "b"]), "states has 2 names"),
        (lambda: bp.LowLevel(lambda s, a: s, steps=1, states=2), "say its actions"),
        (lambda: bp.TwoLevel("low", np.ones((1, 1, 3, 1))), r"give a bayespar\.LowLevel"),
        (
            lambda: bp.TwoLevel(LOW, np.ones((1, 3, 1))),
            r"actors has shape \[1, 3, 1\]; it must be \[G, H_a or 1, S, A\]",
        ),
        (lambda: bp.TwoLevel(LOW, np.ones((1, 3, 3, 1))), "axis 1 has size 3, but H_a"),
        (lambda: bp.TwoLevel(LOW, np.ones((1, 1, 2, 1))), "the number of states is 3"),
        (lambda: bp.TwoLevel(LOW, np.ones((1, 1, 3, 2)) / 2), "the number of actions is 1"),
        (lambda: bp.TwoLevel(LOW, np.ones((1, 1, 3, 1)) / 2), r"actors\[0, 0, 0\] sums to 0.5, not 1"),
        (lambda: bp.TwoLevel(LOW, np.ones((0, 1, 3, 1))), "no subgoal"),
    ],
)
def test_bad_low_levels_are_refused(build, message):
    with pytest.raises(bp.InvalidWorldError, match=message):
        build()


def world_of(two_level, H=3):
    S = two_level.low_level.num_states
    return bp.World(np.eye(S)[0], two_level, np.eye(S), np.arange(S) / S * np.ones((H, 1)), horizon=H)


def test_a_world_takes_two_levels_and_remembers_them():
    two_level = random_case(S=5)
    world = world_of(two_level)
    np.testing.assert_array_equal(world.transition[0], two_level.compose())
    assert world.two_level is two_level
    assert world.states == two_level.low_level.states
    assert bp.load_model("tiger")(random_door=True).two_level is None
    with pytest.raises(bp.InvalidWorldError, match="the number of states"):
        bp.World(np.eye(4)[0], two_level, np.eye(4), np.zeros((3, 4)), horizon=3)


def test_tasks_with_few_and_with_many_successors_make_one_family():
    def program():
        wide = numpyro.sample("wide", dist.Bernoulli(0.5))
        kernel = np.full((1, 40, 40), 1 / 40) if wide else np.eye(40)[None]
        return world_of(bp.TwoLevel(bp.LowLevel(kernel, steps=2), np.ones((1, 1, 40, 1))))

    family = bp.enumerate_program(program)
    np.testing.assert_array_equal(family.transition[0, 0, 0], np.eye(40))
    np.testing.assert_allclose(family.transition[1, 0, 0], 1 / 40)


def ledge():
    with numpyro.handlers.substitute(data={"icy side": np.array(0)}):
        return bp.load_model("ledge")()


def test_rollouts_follow_the_low_level_frame_by_frame():
    world = ledge()
    low, n = world.two_level.low_level, 2000
    played = bp.rollout_low_level(world, "uniform", episodes=n, key=3)
    assert played.states.shape == (n, 7)
    assert (played.actions.shape, played.observations.shape, played.subgoals.shape) == ((n, 6), (n, 3), (n, 2))
    T, mu, E = low.dense_transition(), world.two_level.actors, world.emission
    g = np.repeat(played.subgoals, played.steps, axis=1)
    k = np.tile(np.arange(3), 2)
    assert (mu[g, k, played.states[:, :-1], played.actions] > 0).all()
    assert (T[played.actions, played.states[:, :-1], played.states[:, 1:]] > 0).all()
    assert (E[played.states[:, ::3], played.observations] > 0).all()
    again = bp.rollout_low_level(world, "uniform", episodes=n, key=3)
    np.testing.assert_array_equal(again.states, played.states)
    assert (bp.rollout_low_level(world, "uniform", episodes=n, key=4).states != played.states).any()


def test_rollouts_have_the_law_of_the_composed_kernel():
    world = ledge()
    played = bp.rollout_low_level(world, ["go west", "go east"], episodes=2**14, key=1)
    law = world.initial @ world.transition[0, 1] @ world.transition[0, 2]
    reversed_law = world.initial @ world.transition[0, 2] @ world.transition[0, 1]
    refuted = 0
    for s, p in enumerate(law):
        sequence = MeanConfidence(0, 1, 1e-5, plan=2**14)
        interval = [sequence.update(b) for b in np.array_split((played.states[:, -1] == s).astype(float), 8)][-1]
        assert interval.contains(p)
        refuted += not interval.contains(reversed_law[s])
    assert refuted


def test_rollouts_ask_a_policy_once_a_history():
    asked = []

    def policy(observations, subgoals):
        asked.append((tuple(observations), tuple(subgoals)))
        return np.eye(3)[1 if not subgoals else 0]

    played = bp.rollout_low_level(ledge(), policy, episodes=300)
    assert len(asked) == len(set(asked))
    assert (played.subgoals == [1, 0]).all()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"policy": "always"}, bp.InvalidPlannerError, "give 'uniform', 2 subgoals"),
        ({"policy": [0]}, bp.InvalidPlannerError, "give 'uniform', 2 subgoals"),
        ({"policy": [0, 3]}, bp.InvalidPlannerError, "give 'uniform'"),
        ({"policy": ["go up", "stay"]}, bp.InvalidPlannerError, "give 'uniform'"),
        ({"policy": lambda o, g: np.ones(2) / 2}, bp.InvalidPlannerError, "no array of 3 probabilities"),
        ({"policy": lambda o, g: np.ones(3)}, bp.InvalidPlannerError, "distribution"),
        ({"episodes": 0}, bp.InvalidPlannerError, "episodes = 0"),
        ({"key": "no key"}, bp.InvalidPlannerError, "key"),
    ],
)
def test_bad_rollouts_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        bp.rollout_low_level(ledge(), **arguments)


def test_a_world_without_a_low_level_has_no_frames():
    with pytest.raises(bp.InvalidWorldError, match="no low level"):
        bp.rollout_low_level(bp.load_model("tiger")(random_door=True))
    with pytest.raises(bp.InvalidWorldError, match=r"a bayespar\.World"):
        bp.rollout_low_level(bp.load_model("tiger"))


def test_a_grid_is_drawn_with_its_walls_doors_and_ways():
    cells = [(1, 1), (1, 2), (2, 1)]
    axes = Figure().add_subplot()
    arrows = {(1, 1): (0, 1), (1, 2): (0, -1), (2, 1): (0, 0)}
    draw_grid(axes, 4, cells, landmarks={"A": (1, 2)}, closed=[(2, 1)], arrows=arrows, path=[(1, 1), (1, 2)])
    picture = axes.images[0].get_array()
    assert (picture[0] == picture[3]).all()  # walls
    assert (picture[1, 1] != picture[0, 0]).any()
    assert len({tuple(picture[place]) for place in [(0, 0), *cells]}) == 4  # wall, free, landmark, closed door
    assert [t.get_text() for t in axes.texts] == ["A"]
    (quiver,) = (c for c in axes.collections if isinstance(c, Quiver))
    assert quiver.N == 1  # neither on the landmark nor in the door
    assert axes.lines[-1].get_xydata().tolist() == [[2, 1]]
