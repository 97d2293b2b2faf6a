"""Experts, exact values and size errors against brute force over every deterministic history policy."""

from __future__ import annotations

import functools
import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings

import bayespar as bp
from bayespar.planning.bail import BailPlanner, bail_table, expert_table
from bayespar.planning.expert import AlphaExperts, HistoryExperts, StateExperts
from bayespar.planning.histories import enumerate_histories
from bayespar.planning.planner import PromptPlanner
from bayespar.planning.value import policy_value, table_value
from bayespar.testing.oracle import Oracle, as_prompt
from bayespar.testing.strategies import families, seeds
from bayespar.testing.worlds import LAYOUTS

EXACT = 1e-10


def oracle_values(oracle: Oracle) -> np.ndarray:
    """J_z(pi*_z, w) [Z, W], each the best of all deterministic history policies."""
    return np.array([[oracle.best_policy_value(z, w) for w in range(oracle.W)] for z in range(oracle.Z)])


def fully_observed(family: bp.Family) -> bool:
    return bool(((family.emission > 0).sum(axis=1) <= 1).all())


# --- experts ----------------------------------------------------------------------------------------------------


@settings(max_examples=50)
@given(families())
def test_expert_values_are_the_best_over_all_policies(family):
    oracle = Oracle(family)
    best = oracle_values(oracle)
    methods = ["histories", "alpha", *(["states"] if fully_observed(family) else [])]
    for method in methods:
        experts = bp.solve_experts(family, method=method)
        assert experts.gap == 0
        assert np.abs(np.asarray(experts.value) - best).max() <= EXACT, method
    points = bp.solve_experts(family, method="points")
    short = best - np.asarray(points.value)
    assert (short >= -EXACT).all()
    assert (short <= points.gap + EXACT).all()


@settings(max_examples=4)
@given(families())
def test_experts_are_optimal_at_every_history_and_break_ties_alike(family):
    oracle = Oracle(family)
    histories = enumerate_histories(family)
    methods = ["histories", "alpha", *(["states"] if fully_observed(family) else [])]
    for method in methods:
        experts = bp.solve_experts(family, method=method)
        table = expert_table(histories, experts)
        for h, layer in enumerate(histories.layers[:-1]):
            assert ((table[h] >= 0) & (table[h] < oracle.G)).all()
            for n in range(len(layer.parent)):
                o, g = histories.sequence(h, n)
                for z, w in itertools.product(range(oracle.Z), range(oracle.W)):
                    chance = oracle.likelihood(z, o, g)
                    assert layer.likelihood[n, z] == pytest.approx(chance, abs=1e-14)
                    if chance > 0:
                        # Values of different methods agree to 1e-10, so only a tie nearer than that to 1e-9 may differ.
                        q = oracle.q(z, w, o, g)
                        near = [abs(max(q) - v - 1e-9) < 2 * EXACT for v in q]
                        assert any(near) or table[h][n, w, z] == oracle.expert(z, w, o, g), method


def test_histories_are_all_the_possible_ones():
    family = bp.enumerate_program(functools.partial(bp.load_model("random_world"), 3, (2, 2, 2, 3, 3, 1), 0.5, 0.5))
    oracle, histories = Oracle(family), enumerate_histories(family)
    for h in range(3):
        possible = [t for t in oracle.histories(h + 1) if max(oracle.likelihood(z, *t) for z in range(2)) > 0]
        found = [tuple(map(tuple, histories.sequence(h, n))) for n in range(len(histories.layers[h].parent))]
        assert sorted(found) == sorted(possible)
    assert histories.count == sum(len(layer.parent) for layer in histories.layers)


def test_the_method_is_chosen_by_the_family():
    rows = np.ones((2, 2, 2)) / 2
    seen = bp.Family([1.0], [0.5, 0.5], rows, np.eye(2), np.zeros((2, 2)), horizon=2)
    blurred = bp.Family([1.0], [0.5, 0.5], rows, np.ones((2, 2)) / 2, np.zeros((2, 2)), horizon=2)
    assert isinstance(bp.solve_experts(seen), StateExperts)
    assert isinstance(bp.solve_experts(blurred), HistoryExperts)
    assert isinstance(bp.solve_experts(blurred, method="alpha"), AlphaExperts)
    with pytest.raises(bp.InvalidWorldError, match="does not tell the state"):
        bp.solve_experts(blurred, method="states")
    with pytest.raises(bp.InvalidWorldError, match="method = 'magic'"):
        bp.solve_experts(blurred, method="magic")


@pytest.mark.parametrize("method", ["states", "histories", "alpha"])
@pytest.mark.parametrize(("gain", "choice"), [(0.0, 0), (5e-10, 0), (2e-9, 1)])
def test_ties_within_1e_9_fall_on_the_lowest_index(method, gain, choice):
    # Subgoal g leads to observation g; subgoal 1 pays a little more, subgoal 2 exactly as much as subgoal 0.
    transition = np.zeros((3, 3, 3))
    transition[range(3), :, range(3)] = 1
    reward = np.zeros((2, 3))
    reward[1] = [0.5, 0.5 + gain, 0.5]
    family = bp.Family([1.0], [1.0, 0, 0], transition, np.eye(3), reward, horizon=2)
    experts = bp.solve_experts(family, method=method)
    assert bp.bail(family, bp.Prompt(current_observations=[0]), experts=experts).tolist() == np.eye(3)[choice].tolist()


@pytest.mark.parametrize("method", ["histories", "alpha", "points"])
def test_experts_on_impossible_histories_act_and_are_never_nan(method):
    # Task 0 never shows observation 1, task 1 never observation 0.
    reward = np.array([[0.0, 0.0, 0.0], [0.2, 0.7, 0.1], [0.3, 0.4, 1.0]])
    emission = np.array([[[0.5, 0, 0.5], [1, 0, 0]], [[0, 0.5, 0.5], [0, 1.0, 0]]])
    kernel = np.array([[[0.5, 0.5], [1, 0]], [[0, 1], [0.5, 0.5]]])
    family = bp.Family([0.5, 0.5], [0.5, 0.5], kernel, emission, reward, horizon=3)
    experts = bp.solve_experts(family, method=method)
    for rows in expert_table(enumerate_histories(family), experts):
        assert ((rows >= 0) & (rows < 2)).all()
    for o in range(3):
        prompt = bp.Prompt(current_observations=[0, o], current_subgoals=[0])
        if o == 1:
            with pytest.raises(bp.ImpossibleEvidenceError):
                bp.bail(family, prompt, experts=experts)
            continue
        chosen = bp.bail(family, prompt, experts=experts)
        assert np.isfinite(chosen).all()
        assert sorted(chosen) == [0, 1]
    planner = BailPlanner(family, experts)
    value = policy_value(family, planner)
    assert np.isfinite(value).all()
    assert np.isfinite(np.asarray(experts.value)).all()


@pytest.mark.parametrize("method", ["histories", "alpha", "points"])
@pytest.mark.parametrize(("steps", "value"), [(1, -1.0), (2, -2.0), (3, 2.72)])
def test_tiger_values(method, steps, value):
    program = functools.partial(bp.load_model("tiger"), steps=steps, random_door=True)
    experts = bp.solve_experts(program, method=method)
    assert experts.value.shape == (1, 1)
    error = abs(110 * float(experts.value[0, 0]) - 100 * steps - value)
    # 2.72 is the textbook's rounding of 2.7215.
    assert error <= (0.005 if steps == 3 else 1e-8) + 110 * experts.gap
    assert experts.gap <= 1e-8


def test_tiger_listens_until_it_is_sure():
    family = bp.enumerate_program(functools.partial(bp.load_model("tiger"), steps=3, random_door=True))
    closed, left, right = range(3)
    for heard, choice in [([left], 0), ([left, left], 2), ([right, right], 1), ([left, right], 0)]:
        prompt = bp.Prompt(current_observations=[closed, *heard], current_subgoals=[0] * len(heard))
        assert bp.bail(family, prompt).argmax() == choice


# --- values of policies -----------------------------------------------------------------------------------------


def oracle_bail(oracle: Oracle, weights: np.ndarray):
    """BAIL as a policy of the first history after ``weights`` over tasks; uniform where no task allows the history."""

    def policy(w, observations, subgoals):
        joint = [weights[z] * oracle.likelihood(z, observations, subgoals) for z in range(oracle.Z)]
        rows = np.zeros(oracle.G)
        for z in np.flatnonzero(joint):
            rows[oracle.expert(z, w, observations, subgoals)] += joint[z] / sum(joint)
        return rows if sum(joint) > 0 else np.full(oracle.G, 1 / oracle.G)

    return policy


@settings(max_examples=6)
@given(families(LAYOUTS[1:4]), seeds)
def test_values_of_tabulated_bail(family, seed):
    oracle = Oracle(family)
    histories = enumerate_histories(family)
    alive = oracle.prior > 0  # the histories are those of tasks of positive prior
    weights = np.random.default_rng(seed).dirichlet(np.ones(oracle.Z)) * alive
    experts = bp.solve_experts(family)
    for given_weights in (None, weights / weights.sum()):
        expected = oracle.policy_value(oracle_bail(oracle, oracle.prior if given_weights is None else given_weights))
        table = bail_table(histories, experts, given_weights)
        assert np.abs(table_value(histories, table) - expected)[alive].max() <= EXACT


@settings(max_examples=4)
@given(families(LAYOUTS[3:4], zeros=False))
def test_values_of_bail_and_uniform_as_planners(family):
    oracle = Oracle(family)
    histories = enumerate_histories(family)
    uniform = oracle.policy_value(lambda w, o, g: np.full(oracle.G, 1 / oracle.G))
    assert np.abs(policy_value(family, "uniform", histories=histories) - uniform).max() <= 1e-12
    planner = policy_value(family, BailPlanner(family, bp.solve_experts(family)))
    assert np.abs(planner - oracle.policy_value(oracle_bail(oracle, oracle.prior))).max() <= EXACT


def test_a_planner_made_of_a_callable_refuses_longer_prompts_and_other_episodes():
    family = bp.enumerate_program(bp.load_model("needle"))

    def by_prompt(prompt):
        return np.full(family.num_subgoals, 1 / family.num_subgoals)

    planner = bp.as_planner(by_prompt, family, episodes=2)
    assert bp.as_planner(planner, family, episodes=2) is planner
    with pytest.raises(bp.InvalidPlannerError, match="room for the prompt of 2 episodes, and sees 3"):
        bp.simulate_regret(family, 0, planner, episodes=3, seeds=1)
    H = family.horizon
    other = PromptPlanner(by_prompt, family.num_subgoals, H + 1, episodes=2)
    with pytest.raises(bp.InvalidPlannerError, match=f"episodes of H = {H + 1} steps, and here they have {H}"):
        bp.simulate_regret(family, 0, other, episodes=2, seeds=1)


def test_no_policy_beats_the_experts_and_bail_is_the_expert_of_one_task():
    family = bp.enumerate_program(functools.partial(bp.load_model("random_world"), 1, (1, 3, 2, 3, 3, 2)))
    experts = bp.solve_experts(family)
    value = policy_value(family, BailPlanner(family, experts))
    assert np.abs(value - np.asarray(experts.value)).max() <= EXACT
    assert (policy_value(family, "uniform") < value - 1e-3).all()


def test_a_policy_of_the_prompt_has_the_value_of_the_same_policy_stepwise():
    family = bp.enumerate_program(functools.partial(bp.load_model("random_world"), 5, (2, 2, 2, 2, 3, 1)))
    oracle = Oracle(family)

    def chances(w, observations, subgoals):
        a = (1 + sum(observations) + 2 * sum(subgoals) + w) / 8
        return np.array([a, 1 - a])

    def of_prompt(prompt):
        return chances(prompt.current_instruction, prompt.current_observations, prompt.current_subgoals)

    assert np.abs(policy_value(family, of_prompt) - oracle.policy_value(chances)).max() <= 1e-12
    with pytest.raises(bp.InvalidPlannerError, match="not a distribution"):
        policy_value(family, (lambda w, key: (), lambda state, observed: (state, np.array([0.5, 0.6]))))


# --- size -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solve", [functools.partial(bp.solve_experts, method="histories"), enumerate_histories])
@pytest.mark.parametrize("limit", [10_000_000, 100_000_000])
def test_too_large_is_refused_before_it_is_allocated(solve, limit):
    rng = np.random.default_rng(0)
    family = bp.Family(
        [1.0],
        rng.dirichlet(np.ones(4)),
        rng.dirichlet(np.ones(4), (4, 4)),
        rng.dirichlet(np.ones(12), 4),
        np.zeros((9, 12)),
        horizon=9,
    )
    tracemalloc.start()
    try:
        with pytest.raises(bp.TooLargeError, match=r"\d\.\d\d GB") as raised:
            solve(family, max_bytes=limit)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert raised.value.predicted_bytes > limit
    assert f"{raised.value.predicted_bytes / 1e9:.2f} GB" in str(raised.value)
    assert peak < 4 * limit


def test_the_automatic_choice_falls_back_when_histories_do_not_fit():
    # Three histories a step, but one alpha vector a subgoal: the observation says nothing, the reward is what counts.
    family = bp.Family(
        [1.0], [0.5, 0.5], np.full((2, 2, 2), 0.5), np.array([[0.3, 0.7], [0.6, 0.4]]), np.full((4, 2), 0.5), horizon=4
    )
    assert isinstance(bp.solve_experts(family, max_bytes=10), AlphaExperts)
    with pytest.raises(bp.TooLargeError):
        bp.solve_experts(family, method="histories", max_bytes=10)


def test_prompts_reach_the_expert_of_their_own_history():
    family = bp.enumerate_program(functools.partial(bp.load_model("random_world"), 8, (1, 3, 3, 3, 3, 2)))
    oracle = Oracle(family)
    rng = np.random.default_rng(0)
    experts = bp.solve_experts(family, method="histories")
    for _ in range(10):
        prompt = oracle.draw_prompt(rng, 0, int(rng.integers(1, 3)))
        _, w, o, g = prompt
        expected = np.eye(3)[oracle.expert(0, w, o, g)]
        assert bp.bail(family, as_prompt(prompt), experts=experts).tolist() == expected.tolist()
