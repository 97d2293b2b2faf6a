"""Alpha vectors against brute-force expectimax over all sequences of subgoals and observations."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from bayespar.errors import InvalidWorldError, TooLargeError
from bayespar.planning import alpha_vectors
from bayespar.planning.alpha_vectors import AlphaVectors, solve_alpha_vectors

TOLERANCE = 1e-10
TIE = 1e-9


class Problem(NamedTuple):
    """transition [H-1, G, S, S], emission [S, O], reward [H, O], beliefs after the first observation [n, S]."""

    transition: np.ndarray
    emission: np.ndarray
    reward: np.ndarray
    start: np.ndarray

    def solve(self, **options) -> AlphaVectors:
        return solve_alpha_vectors(
            self.transition, self.emission, self.reward, len(self.reward), start_beliefs=self.start, **options
        )


# --- oracles: nothing here is shared with the code under test ---------------------------------------------------


def expectimax(problem: Problem, h: int, weights: np.ndarray) -> np.ndarray:
    """Optimal Q_h [n, G] at rows of unnormalised beliefs (the values scale with the rows)."""
    transition, emission, reward, _ = problem
    q = np.zeros((len(weights), transition.shape[1]))
    for g, o in itertools.product(range(q.shape[1]), range(emission.shape[1])):
        heard = (weights @ transition[h, g]) * emission[:, o]
        q[:, g] += reward[h + 1, o] * heard.sum(axis=1)
        if h + 2 < len(reward):
            q[:, g] += expectimax(problem, h + 1, heard).max(axis=1)
    return q


def followed(problem: Problem, vectors: np.ndarray, h: int, belief: np.ndarray) -> np.ndarray:
    """Q_h [G] at one belief when each later subgoal is the first within TIE of the best by ``vectors``."""
    transition, emission, reward, _ = problem
    q = np.zeros(transition.shape[1])
    for g, o in itertools.product(range(len(q)), range(emission.shape[1])):
        heard = (belief @ transition[h, g]) * emission[:, o]
        chance = heard.sum()
        if chance > 0:
            later = 0.0
            if h + 2 < len(reward):
                seen = (vectors[h + 1] @ (heard / chance)).max(axis=1)
                choice = int(np.flatnonzero(seen >= seen.max() - TIE)[0])
                later = followed(problem, vectors, h + 1, heard / chance)[choice]
            q[g] += chance * (reward[h + 1, o] + later)
    return q


def probes(states: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    inside, edges = rng.dirichlet(np.ones(states), 20), rng.dirichlet(np.full(states, 0.1), 10)
    return np.concatenate([np.eye(states), np.full((1, states), 1 / states), inside, edges])


def q_error(problem: Problem, vectors: np.ndarray) -> float:
    """The largest error of max_v b . vectors[h, g, v] over steps, subgoals, vertices and random beliefs."""
    beliefs = probes(problem.emission.shape[0])
    errors = [0.0]
    for h in range(len(problem.reward) - 1):
        q = np.stack([(vectors[h, g] @ beliefs.T).max(axis=0) for g in range(vectors.shape[1])], axis=1)
        errors.append(np.abs(q - expectimax(problem, h, beliefs)).max())
    return float(max(errors))


# --- problems ---------------------------------------------------------------------------------------------------


def random_problem(seed: int, S: int = 3, G: int = 3, O: int = 3, H: int = 4, concentration: float = 0.5) -> Problem:
    rng = np.random.default_rng(seed)
    return Problem(
        rng.dirichlet(np.full(S, concentration), (H - 1, G, S)),
        rng.dirichlet(np.full(O, concentration), S),
        rng.random((H, O)),
        rng.dirichlet(np.ones(S), 3),
    )


@st.composite
def problems(draw) -> Problem:
    """Rows from small integers, so that exact zeros, one-hot rows and exact ties are common."""
    S, G, O, H = draw(
        st.sampled_from(
            [(1, 2, 2, 3), (2, 2, 2, 4), (3, 2, 2, 4), (2, 3, 3, 3), (4, 2, 3, 3), (3, 3, 2, 2), (2, 2, 2, 1)]
        )
    )

    def rows(count: int, width: int) -> np.ndarray:
        row = st.lists(st.sampled_from([0, 0, 0, 1, 2, 5]), min_size=width, max_size=width).filter(any)
        counts = np.array(draw(st.lists(row, min_size=count, max_size=count)), float)
        return counts / counts.sum(axis=1, keepdims=True)

    steps = draw(st.sampled_from([max(H - 1, 1), 1]))
    kernel = rows(steps * G * S, S).reshape(steps, G, S, S)
    tenths = draw(st.lists(st.integers(0, 10), min_size=H * O, max_size=H * O))
    return Problem(
        np.broadcast_to(kernel[: H - 1], (H - 1, G, S, S)), rows(S, O), np.reshape(tenths, (H, O)) / 10, rows(2, S)
    )


SIDES, EVENTS = 2, 4  # tiger behind left or right; begun, listened, gold, eaten
BLANK, LEFT, RIGHT, GOLD, EATEN = range(5)


def tiger(decisions: int) -> Problem:
    """Tiger; the state holds the last event too, because rewards are functions of observations."""
    kernel = np.zeros((1, 3, SIDES, EVENTS, SIDES, EVENTS))
    for side in range(SIDES):
        kernel[0, 0, side, :, side, 1] = 1
        for door in range(2):
            kernel[0, 1 + door, side, :, :, 3 if door == side else 2] = 0.5
    emission = np.zeros((SIDES, EVENTS, 5))
    emission[:, 0, BLANK] = emission[:, 2, GOLD] = emission[:, 3, EATEN] = 1
    emission[0, 1, [LEFT, RIGHT]] = emission[1, 1, [RIGHT, LEFT]] = 0.85, 0.15
    reward = (np.array([0.0, -1, -1, 10, -100]) + 100) / 110
    states = SIDES * EVENTS
    start = np.zeros((1, SIDES, EVENTS))
    start[0, :, 0] = 0.5
    return Problem(
        np.broadcast_to(kernel.reshape(1, 3, states, states), (decisions, 3, states, states)),
        emission.reshape(states, 5),
        np.tile(reward, (decisions + 1, 1)),
        start.reshape(1, states),
    )


# --- exact ------------------------------------------------------------------------------------------------------


@given(problems())
@settings(deadline=None, max_examples=60)
def test_exact_q_is_right_at_every_step_subgoal_and_belief(problem):
    solution = problem.solve()
    assert q_error(problem, solution.vectors) <= TOLERANCE
    assert np.isfinite(solution.vectors).all()
    assert solution.gap == 0.0
    if len(problem.reward) > 1:
        best = expectimax(problem, 0, problem.start).max(axis=1)
        np.testing.assert_allclose(solution.lower, best, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(solution.upper, best, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("concentration", [0.2, 1.0])
def test_exact_q_is_right_where_linear_programs_decide(seed, concentration, monkeypatch):
    calls = []
    inner = alpha_vectors._dominance
    monkeypatch.setattr(alpha_vectors, "_dominance", lambda *a: calls.append(1) or inner(*a))
    problem = random_problem(seed, S=5, O=3, concentration=concentration)
    assert q_error(problem, problem.solve().vectors) <= TOLERANCE
    assert calls


def test_a_failing_solver_costs_vectors_but_no_accuracy(monkeypatch):
    problem = random_problem(0, S=3, H=3)
    expected = problem.solve().vectors.shape[2]
    solver = alpha_vectors.linprog

    def fail(*args, **kwargs):
        result = solver(*args, **kwargs)
        result.status = 4
        return result

    monkeypatch.setattr(alpha_vectors, "linprog", fail)
    solution = problem.solve()
    assert q_error(problem, solution.vectors) <= TOLERANCE
    assert solution.vectors.shape[2] >= expected


@pytest.mark.parametrize(("decisions", "value"), [(1, -1.0), (2, -2.0), (3, 2.72)])
@pytest.mark.parametrize("method", ["exact", "points"])
def test_tiger(decisions, value, method):
    problem = tiger(decisions)
    solution = problem.solve(method=method)
    brute = expectimax(problem, 0, problem.start).max()
    for bound in (solution.lower, solution.upper):
        np.testing.assert_allclose(bound, brute, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(bound * 110 - 100 * decisions, value, rtol=0, atol=1e-9)


def test_tiger_q_is_right_for_every_subgoal():
    problem = tiger(3)
    assert q_error(problem, problem.solve().vectors) <= TOLERANCE


def test_duplicate_subgoals_keep_equal_q():
    problem = random_problem(1, G=2)
    twice = problem._replace(transition=np.repeat(problem.transition, 2, axis=1))
    q = twice.solve().q(0, probes(3))
    np.testing.assert_allclose(q[:, ::2], q[:, 1::2], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(q, expectimax(twice, 0, probes(3)), rtol=0, atol=TOLERANCE)


def test_control_a_loose_tolerance_is_caught(monkeypatch):
    monkeypatch.setattr(alpha_vectors, "EXACT_TOLERANCE", 1e-1)
    problem = random_problem(2)
    assert q_error(problem, problem.solve().vectors) > 100 * TOLERANCE


def test_control_a_dropped_vector_is_caught(monkeypatch):
    inner = alpha_vectors._prune

    def drop_last(vectors, tolerance):
        kept = inner(vectors, tolerance)
        return kept[: max(1, len(kept) - 1)]

    monkeypatch.setattr(alpha_vectors, "_prune", drop_last)
    for problem in (tiger(3), random_problem(3)):
        assert q_error(problem, problem.solve().vectors) > 100 * TOLERANCE


def test_control_rewards_a_step_early_are_caught():
    problem = random_problem(4)
    early = problem._replace(reward=np.roll(problem.reward, -1, axis=0))
    assert q_error(problem, early.solve().vectors) > 100 * TOLERANCE


# --- points -----------------------------------------------------------------------------------------------------


@given(problems(), st.integers(0, 3))
@settings(deadline=None, max_examples=40)
def test_points_bracket_the_optimum_and_the_gap_is_honest(problem, max_beliefs):
    check_points(problem, problem.solve(method="points", max_beliefs=max_beliefs))


@pytest.mark.parametrize("seed", range(4))
def test_points_with_few_beliefs_are_honest_about_a_real_gap(seed):
    problem = random_problem(seed, S=4, O=3)
    rough = problem.solve(method="points", max_beliefs=1)
    given_beliefs = problem.solve(method="points", beliefs=probes(4, seed)[:6])
    check_points(problem, rough)
    check_points(problem, given_beliefs)
    assert rough.gap > 1e-4
    assert given_beliefs.gap > 1e-4


def test_points_at_the_vertices_alone_lose_value_and_say_so():
    problem = random_problem(3, S=3, G=4, O=2, concentration=0.3)
    solution = problem.solve(method="points", max_beliefs=0)
    check_points(problem, solution)
    best = expectimax(problem, 0, problem.start).max(axis=1)
    assert 5e-3 < (best - solution.lower).max() <= solution.gap + TOLERANCE


def check_points(problem: Problem, solution: AlphaVectors) -> None:
    decisions = len(problem.reward) - 1
    slack = TOLERANCE + decisions * TIE
    assert solution.gap == (solution.upper - solution.lower).max() >= 0
    for h in range(decisions):
        beliefs = probes(problem.emission.shape[0])[:8]
        q = solution.q(h, beliefs)
        assert (q <= expectimax(problem, h, beliefs) + TOLERANCE).all()
        for belief, below in zip(beliefs[-3:], q[-3:], strict=True):
            assert (below <= followed(problem, solution.vectors, h, belief) + slack).all()
    if decisions:
        best = expectimax(problem, 0, problem.start).max(axis=1)
        assert (solution.lower <= best + TOLERANCE).all()
        assert (solution.upper >= best - TOLERANCE).all()
        for belief, optimum in zip(problem.start, best, strict=True):
            seen = (solution.vectors[0] @ belief).max(axis=1)
            choice = int(np.flatnonzero(seen >= seen.max() - TIE)[0])
            assert optimum - followed(problem, solution.vectors, 0, belief)[choice] <= solution.gap + slack


def test_points_are_exact_when_every_reachable_belief_is_kept():
    problem = random_problem(5, O=2)
    solution = problem.solve(method="points", max_beliefs=10_000)
    assert solution.gap <= TOLERANCE
    np.testing.assert_allclose(solution.lower, problem.solve().lower, rtol=0, atol=TOLERANCE)


def test_more_beliefs_narrow_the_gap_and_runs_repeat():
    problem = random_problem(6, S=6, G=3, O=4, H=5)
    few, many, again = (problem.solve(method="points", max_beliefs=n) for n in (2, 60, 60))
    assert many.gap < 0.5 * few.gap
    np.testing.assert_array_equal(many.vectors, again.vectors)
    np.testing.assert_array_equal(many.upper, again.upper)


def test_blocks_do_not_change_the_result(monkeypatch):
    problem = random_problem(7)
    whole = problem.solve(method="points")
    monkeypatch.setattr(alpha_vectors, "_BLOCK", 64)
    pieces = problem.solve(method="points")
    np.testing.assert_allclose(whole.lower, pieces.lower, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(whole.upper, pieces.upper, rtol=0, atol=TOLERANCE)


def test_control_an_upper_bound_that_is_too_low_is_caught():
    problem = random_problem(0, S=4, O=3)
    solution = problem.solve(method="points", max_beliefs=1)
    low = (solution.upper + 3 * solution.lower) / 4 - 0.1
    wrong = AlphaVectors(solution.vectors, solution.lower, low, float((low - solution.lower).max()))
    with pytest.raises(AssertionError):
        check_points(problem, wrong)


def test_control_vectors_that_promise_too_much_are_caught():
    problem = random_problem(0, S=4, O=3)
    solution = problem.solve(method="points", max_beliefs=1)
    wrong = AlphaVectors(solution.vectors + 1e-6, solution.lower, solution.upper, solution.gap)
    with pytest.raises(AssertionError):
        check_points(problem, wrong)


# --- sizes and bad input ----------------------------------------------------------------------------------------


def guess_the_state(size: int) -> Problem:
    """Two decisions: hear nothing of use, then guess the state; every guess is best somewhere."""
    states = size + 2
    kernel = np.zeros((2, size, states, states))
    kernel[0] = np.eye(states)
    kernel[1, :, :, -1] = 1
    kernel[1, range(size), range(size), -1] = 0
    kernel[1, range(size), range(size), -2] = 1
    emission = np.zeros((states, 4))
    emission[:size, :2] = 0.5
    emission[-2, 2] = emission[-1, 3] = 1
    reward = np.tile([0.0, 0, 1, 0], (3, 1))
    return Problem(kernel, emission, reward, np.append(np.full(size, 1 / size), [0.0, 0.0])[None])


def test_too_large_is_refused_before_allocating():
    problem = guess_the_state(160)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="max_vectors = 20000") as caught:
            problem.solve()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.predicted_bytes == 160**2 * 162 * 8
    kernels = 2 * problem.transition.nbytes
    assert peak - kernels < caught.value.predicted_bytes / 2


def test_the_limit_is_inclusive():
    problem = guess_the_state(4)
    assert q_error(problem, problem.solve(max_vectors=16).vectors) <= TOLERANCE
    with pytest.raises(TooLargeError):
        problem.solve(max_vectors=15)


def test_points_refuse_too_many_vectors():
    with pytest.raises(TooLargeError) as caught:
        random_problem(0).solve(method="points", max_vectors=10)
    assert caught.value.predicted_bytes > 0


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"transition": np.ones((3, 3, 3, 3))}, "transition"),
        ({"transition": np.full((2, 3, 3, 3), 1 / 3)}, "transition"),
        ({"emission": np.full((3, 3), 0.5)}, "emission"),
        ({"reward": np.zeros((4, 2))}, "reward"),
        ({"reward": np.full((4, 3), np.nan)}, "reward"),
        ({"start": np.full((1, 2), 0.5)}, "start_beliefs"),
        ({"start": np.full((1, 3), 0.5)}, "start_beliefs"),
    ],
)
def test_bad_input_is_named(change, name):
    with pytest.raises(InvalidWorldError, match=name):
        random_problem(0)._replace(**change).solve()


def test_an_empty_episode_is_refused():
    with pytest.raises(InvalidWorldError, match="horizon"):
        random_problem(0)._replace(transition=np.ones((1, 1, 3, 3)), reward=np.zeros((0, 3))).solve()


def test_single_precision_is_solved_in_double():
    problem = Problem(*(each.astype(np.float32) for each in random_problem(0)))
    double = Problem(*(each.astype(np.float64) for each in problem))
    solution = problem.solve()
    assert solution.vectors.dtype == np.float64
    assert q_error(double, solution.vectors) <= TOLERANCE


def test_an_unknown_method_is_refused():
    with pytest.raises(Exception, match="method"):
        random_problem(0).solve(method="guess")
