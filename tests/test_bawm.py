"""The aggregated world model: its predictions against the enumerated corpus, its plans against every plan."""

from __future__ import annotations

import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

import bayespar as bp
from bayespar.planning.aggregated import BawmPlanner, GraphPlans, plan_graph
from bayespar.planning.expected_regret import episode_loss
from bayespar.planning.lookahead import LookaheadPlanner
from bayespar.planning.search import SearchPlanner
from bayespar.simulate.regret import PLANNERS
from bayespar.testing.oracle import Oracle, as_prompt, uneven_behaviour
from bayespar.testing.strategies import families, seeds
from bayespar.testing.worlds import Layout, random_family
from bayespar.theory.closed_forms import gamble_bail_regret, gamble_bawm_regret

NEAR, EXACT = 1e-12, 1e-10
TINY = (Layout(3, 2, 2, 2, 3, 2), Layout(2, 2, 3, 2, 2, 1), Layout(2, 2, 2, 2, 4, 1))


def gamble(prior: float = 0.4, horizon: int = 4) -> bp.Family:
    program = functools.partial(bp.load_model("safe_or_risky"), 0.6, prior, horizon)
    return bp.enumerate_program(program)


def extended(prompt, subgoal, observation):
    """The prompt after one more subgoal (None for the first observation) and observation."""
    past, w, o, g = prompt
    return past, w, (*o, observation), (*g, *([] if subgoal is None else [subgoal]))


def conditional(oracle, prompt, subgoal, behaviour):
    """P_D(o' | pt, g), [O], with the probability of every subgoal under the behaviour left in."""
    logs = [oracle.log_joint(extended(prompt, subgoal, o), behaviour) for o in range(oracle.O)]
    top = max(map(max, logs))
    weights = np.array([math.fsum(math.exp(v - top) for v in row) for row in logs])
    return weights / weights.sum()


# --- predictions ------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(families(), seeds)
def test_predictions_are_conditionals_of_the_enumerated_corpus(family, seed):
    oracle, rng = Oracle(family), np.random.default_rng(seed)
    step = int(rng.integers(0, family.horizon))
    past, w, o, g = oracle.draw_prompt(rng, int(rng.choice([0, 2])), max(step, 1))
    prompt = (past, w, o, g) if step else (past, w, (), ())
    model = bp.bawm(family, as_prompt(prompt))
    subgoals = range(oracle.G) if step else [None]
    for subgoal in subgoals:
        law = model.next_observation(subgoal)
        assert np.abs(law - conditional(oracle, prompt, subgoal, uneven_behaviour(oracle.G))).max() <= NEAR
        assert law.sum() == pytest.approx(1, abs=NEAR)
    # The rest of the episode at once, against the same sums over whole histories.
    rest = family.horizon - step
    following = rng.integers(oracle.O, size=rest).tolist()
    chosen = rng.integers(oracle.G, size=rest if step else rest - 1).tolist()
    total = 0.0
    for z, weight in enumerate(oracle.posterior(prompt)):
        if weight > 0:
            after = oracle.likelihood(z, (*prompt[2], *following), (*prompt[3], *chosen))
            total += weight * after / (oracle.likelihood(z, prompt[2], prompt[3]) if step else 1)
    found = model.log_probability(following, chosen)
    assert math.exp(found) == pytest.approx(total, rel=1e-11, abs=0)
    steps = [model]
    logs = 0.0
    for k, heard in enumerate(following):
        subgoal = chosen[k - (0 if step else 1)] if step or k else None
        chance = steps[-1].next_observation(subgoal)[heard]
        if chance == 0:
            assert found == -math.inf
            return
        logs += math.log(chance)
        prompt = extended(prompt, subgoal, heard)
        steps.append(bp.bawm(family, as_prompt(prompt)))
    assert found == pytest.approx(logs, abs=1e-11)  # one step at a time gives the same


def test_behaviour_that_sees_the_task_breaks_the_predictions():
    """Under task z subgoal z wins at the second decision; who plays z more often tells the task by playing."""
    transition = np.zeros((2, 2, 2, 3, 3))
    transition[:, 0] = transition[:, 1, :, 1:, 1:] = 0
    transition[:, 0] = np.eye(3)
    for z in range(2):
        transition[z, 1, z, 0, 1] = transition[z, 1, 1 - z, 0, 2] = 1
    transition[:, 1, :, [1, 2], [1, 2]] = 1
    family = bp.Family([0.5, 0.5], [1.0, 0, 0], transition, np.eye(3), np.zeros((3, 3)), horizon=3)
    oracle, prompt = Oracle(family), ((), 0, (0, 0), (1,))

    def seeing(z, past, w, observations, subgoals):
        return [0.75 if g == z else 0.25 for g in range(2)]

    law = bp.bawm(family, as_prompt(prompt)).next_observation(1)
    assert law == pytest.approx([0, 0.5, 0.5], abs=NEAR)
    assert np.abs(law - conditional(oracle, prompt, 1, uneven_behaviour(2))).max() <= NEAR
    assert conditional(oracle, prompt, 1, seeing) == pytest.approx([0, 0.9, 0.1], abs=NEAR)


def test_long_pasts_and_tasks_of_prior_zero():
    rng = np.random.default_rng(1)
    base = random_family(rng, TINY[0])
    family = bp.Family(
        [0.4, 0.0, 0.6], base.initial, base.transition, np.full((3, 2, 2), 0.5) + 0.1 * np.array([[1, -1]] * 2),
        base.reward, horizon=3, instruction_prior=base.instruction_prior,
    )  # fmt: skip
    oracle = Oracle(family)
    prompt = oracle.draw_prompt(rng, 60, 2)
    model = bp.bawm(family, as_prompt(prompt))
    assert model.posterior.probabilities[1] == 0
    for g in range(2):
        assert np.abs(model.next_observation(g) - oracle.next_observation(prompt, g)).max() <= NEAR
    single = bp.bawm(family.astype("float32"), as_prompt(prompt))
    assert np.abs(single.next_observation(0) - model.next_observation(0)).max() <= 1e-5


# --- plans ------------------------------------------------------------------------------------------------------


def best_values(oracle, prompt):
    """The best expected reward still to come after each first subgoal, over all deterministic history policies."""
    past, w, o, g = prompt
    weights = [
        oracle.prior[z] * math.prod(oracle.likelihood(z, *e[1:]) for e in past) * oracle.likelihood(z, o, g)
        for z in range(oracle.Z)
    ]
    tasks = [z for z in range(oracle.Z) if weights[z] > 0]
    before = {z: oracle.likelihood(z, o, g) for z in tasks}
    left = oracle.H - len(o)
    heard = [s for k in range(left) for s in itertools.product(range(oracle.O), repeat=k)]
    best = np.full(oracle.G, -np.inf)
    for choices in itertools.product(range(oracle.G), repeat=len(heard)):
        policy = dict(zip(heard, choices, strict=True))
        value = 0.0
        for s in itertools.product(range(oracle.O), repeat=left):
            subgoals = tuple(policy[s[:k]] for k in range(left))
            pay = sum(oracle.reward[len(o) + k, v, w] for k, v in enumerate(s))
            value += pay * sum(weights[z] * oracle.likelihood(z, o + s, g + subgoals) / before[z] for z in tasks)
        best[choices[0]] = max(best[choices[0]], value / sum(weights[z] for z in tasks))
    return best


def awkward(rng, size, change):
    """A random family; with two equal tasks, or a task of prior 0, if so wanted."""
    family = random_family(rng, size)
    prior, arrays = np.array(family.task_prior), [np.array(family.initial), np.array(family.transition)]
    arrays.append(np.array(family.emission))
    if change == "double":
        for a in arrays:
            a[-1] = a[0]
    if change == "zero":
        prior[0] = 0
    return bp.Family(
        prior / prior.sum(), *arrays, family.reward, horizon=family.horizon, instruction_prior=family.instruction_prior
    )


@pytest.mark.parametrize("size", TINY, ids=["instructions", "subgoals", "long"])
@pytest.mark.parametrize("change", ["none", "double", "zero"])
def test_a_plan_is_the_best_of_all(size, change):
    rng = np.random.default_rng([size.H, size.G, len(change)])
    for _ in range(8):
        family = awkward(rng, size, change)
        oracle = Oracle(family)
        prompt = oracle.draw_prompt(rng, int(rng.integers(3)), int(rng.integers(1, size.H)))
        plan = bp.bawm(family, as_prompt(prompt)).plan()
        best = best_values(oracle, prompt)
        assert plan.values == pytest.approx(best, abs=EXACT)
        assert plan.subgoal == int(np.argmax(best >= best.max() - 1e-9))
        assert (plan.value, plan.gap, plan.method) == (plan.values[plan.subgoal], 0.0, "exact")


def test_a_plan_counts_what_is_learnt_within_the_episode():
    """A plan that took the posterior to stay as it is would play safe, whatever it is asked."""
    family = gamble(0.45, 3)
    best = best_values(Oracle(family), ((), 0, (0,), ()))
    assert best == pytest.approx([0.6 + 0.6, 0.45 * 2 + 0.55 * 0.6], abs=NEAR)
    plan = bp.bawm(family, bp.Prompt(current_observations=[0])).plan()
    assert plan.values == pytest.approx(best, abs=NEAR)
    assert plan.subgoal == 1 != np.argmax([0.6, 0.45])


def test_the_planner_follows_the_best_plan_at_every_history():
    family = awkward(np.random.default_rng(4), TINY[0], "zero")
    oracle, prior = Oracle(family), np.asarray(family.task_prior)
    earned = prior @ bp.policy_value(family, BawmPlanner(family))
    for w in range(oracle.W):
        best = 0.0
        for o in range(oracle.O):
            chance = sum(oracle.prior[z] * oracle.likelihood(z, (o,), ()) for z in range(oracle.Z))
            if chance > 0:
                best += chance * (oracle.reward[0, o, w] + best_values(oracle, ((), w, (o,), ())).max())
        assert earned[w] == pytest.approx(best, abs=EXACT)
    assert (earned >= prior @ bp.policy_value(family, "uniform") + 1e-3).all()


def test_no_planner_earns_more_within_an_episode():
    rng, gains = np.random.default_rng(5), []
    for index in range(40):
        classes, graph = plan_graph(random_family(rng, TINY[index % 3]))
        posteriors = rng.dirichlet(np.full(len(classes.members), 0.7), 20)
        mean = {p: (posteriors * episode_loss(graph, p, posteriors)).sum(axis=1) for p in ("bawm", "bail", "map")}
        for other in ("bail", "map"):
            gains.append(mean[other] - mean["bawm"])
    assert min(g.min() for g in gains) >= -NEAR
    assert max(g.max() for g in gains) > 0.05  # so the other way round it would be refuted


def test_plans_from_many_posteriors_are_plans_from_each():
    rng = np.random.default_rng(6)
    for size in TINY:
        classes, graph = plan_graph(random_family(rng, size))
        plans = GraphPlans(graph)
        weights = rng.dirichlet(np.ones(len(classes.members)), 5)
        together = plans.q(weights)
        for m, row in enumerate(weights):
            for many, one, traced in zip(together, plans.q(row), plans.q(jnp.asarray(row)), strict=True):
                assert many[m] == pytest.approx(one, abs=NEAR)
                assert np.asarray(traced) == pytest.approx(one, abs=1e-5)


# --- plans that are not exact -----------------------------------------------------------------------------------


def test_lookahead_bounds_what_its_plan_gives_away():
    """On fully observed worlds, whose experts are tables of one shape: little is compiled."""
    rng, gaps = np.random.default_rng(7), {1: [], 2: [], 3: []}
    for _ in range(12):
        base = random_family(rng, TINY[2])
        family = bp.Family(base.task_prior, base.initial, base.transition, np.eye(2), base.reward, horizon=4)
        model = bp.bawm(family, as_prompt(Oracle(family).draw_prompt(rng, 1, 1)))
        experts, exact = bp.solve_experts(family), model.plan()
        for depth, found in gaps.items():
            plan = model.plan("lookahead", depth=depth, experts=experts)
            assert (plan.values >= exact.values - EXACT).all()
            assert exact.value - exact.values[plan.subgoal] <= plan.gap + EXACT
            found.append(plan.gap)
            if depth == 3:
                assert plan.values == pytest.approx(exact.values, abs=EXACT)
    assert np.mean(gaps[1]) > np.mean(gaps[2]) > np.mean(gaps[3]) == pytest.approx(0, abs=EXACT)


@pytest.fixture(scope="module")
def at_the_gamble():
    family = gamble()
    return bp.bawm(family, bp.Prompt(current_observations=[0])), bp.solve_experts(family)


def test_short_sight_is_stuck_where_the_best_plan_is_not(at_the_gamble):
    model, experts = at_the_gamble
    exact = model.plan()
    for depth, stuck in ((1, True), (2, True), (3, False)):
        plan = model.plan("lookahead", depth=depth, experts=experts)
        assert plan.subgoal == (0 if stuck else 1)
        lost = exact.value - exact.values[plan.subgoal]
        assert lost == pytest.approx(0.12 if stuck else 0.0, abs=NEAR)
        assert lost <= plan.gap + NEAR  # and a bound that is a tenth of it would be violated:
        assert stuck == (lost > plan.gap / 10 + NEAR)


def test_search_finds_the_best_plan(at_the_gamble):
    model, experts = at_the_gamble
    exact, short = model.plan(), model.plan("lookahead", depth=1, experts=experts)
    for key in range(3):
        plan = model.plan("search", simulations=64, experts=experts, key=key)
        assert plan.method == "search"
        assert plan.subgoal == exact.subgoal
        assert (plan.values >= exact.values - NEAR).all()
        assert plan.values == pytest.approx(exact.values, abs=0.01)
        assert exact.value - exact.values[plan.subgoal] <= plan.gap + NEAR
    assert np.abs(short.values - exact.values).max() > 0.1  # what the tree starts from


def test_where_the_graph_does_not_fit(at_the_gamble):
    model, experts = at_the_gamble
    for call in (lambda: model.plan("exact", max_bytes=10), lambda: BawmPlanner(gamble(), max_bytes=10)):
        with pytest.raises(bp.TooLargeError, match=r"lookahead.*search"):
            call()
    assert model.plan(max_bytes=10, experts=experts).method == "lookahead"
    program = functools.partial(bp.load_model("needle"), tasks=64)
    wide = bp.enumerate_program(program)
    with pytest.raises(bp.TooLargeError, match="simulations"):
        SearchPlanner(wide, bp.solve_experts(wide), 10**9)
    long = bp.enumerate_program(functools.partial(bp.load_model("lock"), length=20))
    with pytest.raises(bp.TooLargeError, match="depth"):
        LookaheadPlanner(long, bp.solve_experts(long), 18)


def test_experts_with_a_gap_prove_nothing():
    family = bp.enumerate_program(bp.load_model("tiger"))
    experts = bp.solve_experts(family, method="points")
    object.__setattr__(experts, "gap", 0.1)
    plan = bp.bawm(family, bp.Prompt(current_observations=[0])).plan("lookahead", depth=1, experts=experts)
    assert math.isnan(plan.gap)


# --- in the loop ------------------------------------------------------------------------------------------------


@functools.cache
def world():
    """Two instructions, and tasks that take some episodes to tell apart."""
    for seed in range(100):
        family = random_family(np.random.default_rng(seed), TINY[0])
        planned, imitated = (bp.expected_regret(family, p, "gated", 4).cumulative for p in ("bawm", "bail"))
        if np.abs(planned - imitated).max() > 0.02:
            return family
    raise AssertionError("no world on which planning differs from imitation")


@pytest.mark.parametrize("rule", ["gated", 0.3])
def test_simulated_regret_is_the_expected_one(rule):
    T, exact = 4, bp.expected_regret(world(), "bawm", rule, 4)
    for task in range(3):
        curves = bp.simulate_regret(world(), task, "bawm", rule, T, 1024, key=task)
        for t in (1, T):
            assert curves.interval(t, alpha=1e-6).contains(exact.cumulative[task, t - 1])
        assert curves.explored.mean(axis=0) == pytest.approx(exact.explored[task], abs=0.1)


def test_a_lookahead_to_the_end_is_the_exact_planner():
    deep = LookaheadPlanner(world(), bp.solve_experts(world()), depth=9)
    exact, same = (bp.simulate_regret(world(), 0, p, 0.3, 4, 32, key=5) for p in ("bawm", deep))
    assert np.array_equal(exact.explored, same.explored)
    assert same.regret == pytest.approx(exact.regret, abs=1e-9)
    assert same.true_task == pytest.approx(exact.true_task, abs=1e-9)


@pytest.mark.slow
def test_search_in_the_loop():
    family = gamble()
    experts = bp.solve_experts(family)
    exact = bp.expected_regret(family, "bawm", 0.0, 2).cumulative
    assert exact == pytest.approx(np.array([[0.6] * 2, [0.0] * 2]), abs=NEAR)
    found = bp.simulate_regret(family, 0, SearchPlanner(family, experts, 32), 0.0, 2, 2, experts=experts)
    assert found.cumulative == pytest.approx(np.full((2, 2), 0.6), abs=1e-9)
    assert isinstance(PLANNERS["bawm-lookahead"](family, experts, 0), LookaheadPlanner)
    assert isinstance(PLANNERS["bawm-search"](family, experts, 0), SearchPlanner)


def test_greedy_planning_in_the_loop_is_its_closed_form():
    family, T = gamble(0.3, 2), 12
    for good in (False, True):
        curves = bp.simulate_regret(family, int(good), "bawm", 0.0, T, 2)
        predicted = [gamble_bawm_regret(0.6, 0.3, good, 1, t) for t in range(1, T + 1)]
        assert curves.cumulative == pytest.approx(np.tile(predicted, (2, 1)), abs=1e-9)
        curves = bp.simulate_regret(family, int(good), "bail", 0.0, T, 2048, key=int(good))
        assert curves.interval(alpha=1e-6).contains(gamble_bail_regret(0.6, 0.3, good, 1, T))


# --- what is refused --------------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused():
    family = gamble()
    start, middle = bp.bawm(family, bp.Prompt()), bp.bawm(family, bp.Prompt(current_observations=[0]))
    over = bp.bawm(family, bp.Prompt(None, None, None, [0, 1, 1, 1], [0, 0, 0]))
    for call, match in [
        (lambda: start.next_observation(0), "before any subgoal"),
        (lambda: middle.next_observation(), "give an index"),
        (lambda: middle.next_observation("no such"), "play safe"),
        (lambda: middle.next_observation(2), "from 0 to 1"),
        (lambda: middle.next_observation(True), "True"),
        (lambda: over.next_observation(0), "the episode is over"),
        (lambda: start.plan(), "a decision is made after 1 to H-1 = 3"),
        (lambda: over.plan(), "has 4 entries"),
        (lambda: middle.log_probability([1], []), "h observations go with h-1 subgoals"),
        (lambda: middle.log_probability([9], [0]), r"current_observations\[1\] = 9"),
        (lambda: middle.log_probability([1] * 4, [0] * 4), "the horizon is 4|H = 4"),
        (lambda: middle.log_probability([0.5], [0]), "observations has dtype"),
    ]:
        with pytest.raises(bp.InvalidPromptError, match=match):
            call()
    crossing = random_family(np.random.default_rng(0), TINY[0])
    for arguments, match in [
        ({"method": "guess"}, "'exact', 'lookahead', 'search'"),
        ({"method": "lookahead", "depth": 0}, "depth"),
        ({"method": "search", "simulations": 0}, "simulations"),
        ({"method": "search", "key": "key"}, "key"),
        ({"method": "exact", "max_bytes": -1}, "max_bytes"),
        ({"method": "search", "experts": bp.solve_experts(crossing)}, "experts"),
    ]:
        with pytest.raises(bp.InvalidPlannerError, match=match):
            middle.plan(**arguments)
    with pytest.raises(bp.ImpossibleEvidenceError, match="step 0"):
        bp.bawm(family, bp.Prompt(current_observations=[1]))
    assert middle.next_observation("play safe") == pytest.approx([0, 1, 0, 0])
    assert middle.next_observation("take the risk") == pytest.approx([0, 0, 0.4, 0.6])
    assert start.log_probability([0, 3, 2], [1, 1]) == -math.inf
    with pytest.raises(bp.InvalidPlannerError, match="bawm-lookahead"):
        bp.simulate_regret(family, 0, "bawm-guess")
