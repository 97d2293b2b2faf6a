"""When to explore: the formulas of the schedules, gates in the loop, and eta by simulation."""

from __future__ import annotations

import functools
import math

import jax.numpy as jnp
import numpy as np
import pytest

import bayespar as bp
from bayespar.planning.exploration import (
    RULES,
    Exploration,
    Odds,
    anytime_epsilon,
    as_exploration,
    by_rule,
    constant_epsilon,
    explore_first,
    gated,
    gated_anytime,
)
from bayespar.planning.hellinger import hellinger
from bayespar.planning.histories import enumerate_histories
from bayespar.statistics import MeanConfidence
from bayespar.testing.oracle import Oracle, eta as listed_eta, hellinger as listed_hellinger
from bayespar.testing.worlds import Layout, random_family, random_rows

ALPHA = 1e-5  # of each statistical test here; keys are fixed, so they either pass or fail for ever


@functools.cache
def family_of(name: str, *arguments, **parameters) -> bp.Family:
    return bp.enumerate_program(functools.partial(bp.load_model(name), *arguments, **parameters))


def tiny_family() -> bp.Family:
    return family_of("random_world", 5, (3, 2, 2, 2, 3, 1))


def doubled(family: bp.Family) -> bp.Family:
    """The family with its first task twice."""
    oracle, order = Oracle(family), [0, *range(family.num_tasks)]
    prior = oracle.prior[order] * np.where(np.arange(len(order)) < 2, 0.5, 1.0)
    return bp.Family(
        prior,
        oracle.initial[order],
        oracle.transition[order],
        oracle.emission[order],
        oracle.reward,
        horizon=oracle.H,
        instruction_prior=oracle.instruction_prior,
    )


def contains(draws: np.ndarray, value: float, low: float, high: float) -> bool:
    """Whether the confidence sequence of ``draws`` keeps ``value``."""
    sequence = MeanConfidence(low, high, ALPHA, plan=len(draws))
    for batch in np.array_split(draws, 32):
        sequence.update(batch)
    return sequence.interval().contains(float(value))


# --- schedules --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [[0.5, 0.5], [0.9, 0.1], [0.2, 0.3, 0.1, 0.4], [0.999, 0.001]])
@pytest.mark.parametrize("eta", [1.0, 0.3, 1e-3])
@pytest.mark.parametrize("T", [1, 2, 50])
def test_schedules_are_their_formulas(prior, eta, T):
    H, Z = 4, len(prior)
    family = bp.Family(prior, [1.0, 0.0], _apart(Z), np.eye(2), np.zeros((H, 2)), horizon=H)
    odds = Odds.of(family)
    C = max(sum(math.sqrt(prior[j] / prior[i]) for j in range(Z) if j != i) for i in range(Z))
    o = max((1 - p) / p for p in prior)
    assert (odds.horizon, odds.roots, odds.against) == (H, pytest.approx(C), pytest.approx(o))
    none = np.full(T, np.inf)
    for t in range(T):
        constant, anytime = (rule(odds, eta, T).coin[t] for rule in (constant_epsilon, anytime_epsilon))
        assert constant == pytest.approx(min(1, math.sqrt(H * math.log(1 + C) / (T * eta))))
        assert anytime == pytest.approx(min(1, math.sqrt(H * math.log(1 + C) / (eta * (t + 1)))))
        assert gated(odds, T).gate[t] == pytest.approx(1 / (T * o))
        assert gated_anytime(odds, T).gate[t] == pytest.approx(1 / (o * (t + 1) * (t + 2)))
    pays = H * C * T / 4 > 1
    n0 = int(pays) if eta == 1 else math.ceil(math.log(H * C * T / 4) / -math.log(1 - eta))
    assert explore_first(odds, eta, T).coin.tolist() == [1.0] * min(n0, T) + [0.0] * max(0, T - n0)
    for name in RULES:
        rule = by_rule(name, odds, eta, T)
        assert rule.gated == name.startswith("gated")
        assert np.array_equal(rule.gate, none) != rule.gated
        assert not (rule.gated and rule.coin.any())


def _apart(Z: int) -> np.ndarray:
    """Tasks that differ in how often the state changes."""
    stay = np.arange(1, Z + 1) / (Z + 1)
    return np.stack([np.stack([[p, 1 - p], [1 - p, p]])[None].repeat(2, 0) for p in stay])


def test_one_class_or_hardly_a_second_one_is_never_explored():
    for odds in (Odds.of(family_of("aliased")), Odds(5, 0.0, 0.0)):
        for name in RULES:
            rule = by_rule(name, odds, 1.0, 10)
            assert not rule.coin.any()
            assert not rule.gated
    # One episode in which H C T / 4 <= 1: nothing that is learnt would pay.
    assert not explore_first(Odds(2, 1.0, 1.0), 0.1, 2).coin.any()
    assert explore_first(Odds(2, 1.0, 1.0), 0.1, 3).coin.sum() == 3
    assert explore_first(Odds(2, 1.0, 1.0), 0.5, 300).coin.sum() == math.ceil(math.log2(150))
    assert explore_first(Odds(2, 1.0, 1.0), 1.0, 300).coin.sum() == 1


def test_schedules_that_make_no_sense_are_refused():
    odds = Odds(3, 1.0, 1.0)
    with pytest.raises(bp.InvalidPlannerError, match="gated-anytime"):
        by_rule("Gated", odds, 0.5, 4)
    for name in ("constant", "anytime", "explore-first"):
        with pytest.raises(bp.InvalidPlannerError, match="eta = 0"):
            by_rule(name, odds, 0.0, 4)
    assert by_rule("gated", odds, 0.0, 4).gated
    assert as_exploration(0.25, 3).coin.tolist() == [0.25] * 3
    assert as_exploration([0, 1, 0.5], 3).coin.tolist() == [0, 1, 0.5]
    rule = gated(odds, 3)
    assert as_exploration(rule, 3) is rule
    none = np.full(3, np.inf)
    for bad, match in [
        ([0.5, 0.5], "shape"),
        ([0.5, 0.5, 1.5], "outside"),
        (math.nan, "outside"),
        (gated(odds, 4), "both"),
        (Exploration(np.full(3, -0.1), none), "outside"),
        (Exploration(np.zeros(3), np.array([0.1, np.nan, 0.1])), "NaN"),
    ]:
        with pytest.raises(bp.InvalidPlannerError, match=match):
            as_exploration(bad, 3)
    reads = (lambda w, key: (), lambda state, observed: (state, jnp.eye(3)[2]))
    with pytest.raises(bp.InvalidPlannerError, match="eta = 0"):
        bp.simulate_regret(family_of("needle", tasks=2, accuracy=0.0), 0, "bail", "constant", 4, 2, reads)


# --- gates in the loop ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("planner", "rule"),
    [("bail", "gated"), ("map", "gated"), ("thompson", "gated"), ("bail", [0.9, 0.0, 0.4, 0.2, 0.0])],
)
def test_simulated_regret_is_the_expected_one(planner, rule):
    family, T, seeds = tiny_family(), 5, 2048
    exact = bp.expected_regret(family, planner, rule, T, "best")
    for task in range(family.num_tasks):
        curves = bp.simulate_regret(family, task, planner, rule, T, seeds, "best", key=task)
        for t in (1, T):
            interval = curves.interval(t, alpha=ALPHA)
            assert interval.contains(exact.cumulative[task, t - 1])
        for t in range(T):
            assert contains(curves.explored[:, t].astype(float), min(1.0, exact.explored[task, t]), 0.0, 1.0)
        assert interval.half_width <= 0.25 * exact.cumulative[task, -1] + 0.05
    if rule == "gated":  # the gate opens for some and not for others
        assert ((exact.explored[:, 1:] > 0.01) & (exact.explored[:, 1:] < 0.99)).any()


def test_the_gate_reads_the_posterior_before_the_episode():
    family = family_of("needle", tasks=2)
    curves = bp.simulate_regret(family, 0, "bail", "gated", episodes=20, seeds=200, key=3)
    unsure = np.minimum(curves.true_task, 1 - curves.true_task)
    assert np.array_equal(curves.explored, unsure > 1 / 20)
    assert curves.explored[:, 0].all()
    assert not curves.explored[:, -1].all()


def test_a_planner_without_a_posterior_is_watched():
    family = family_of("needle", tasks=2)
    uniform = (lambda w, key: jnp.zeros(()), lambda state, observed: (state + 1, jnp.full(3, 1 / 3)))
    watched = bp.simulate_regret(family, 1, uniform, "gated", episodes=20, seeds=100, key=3)
    assert not np.isnan(watched.true_task).any()
    unsure = np.minimum(watched.true_task, 1 - watched.true_task)
    assert np.array_equal(watched.explored, unsure > 1 / 20)
    assert watched.explored.any(axis=1).all()
    assert not watched.explored[:, -1].any()
    alone = bp.simulate_regret(family, 1, uniform, 0.0, episodes=20, seeds=100, key=3)
    assert np.isnan(alone.true_task).all()
    assert np.array_equal(alone.regret, watched.regret)  # it acts as the exploration policy does


def test_classes_are_merged_in_the_gate():
    family = doubled(family_of("needle", tasks=2))
    gate = bp.simulate_regret(family, 2, "bail", "gated", episodes=20, seeds=100, key=3)
    single = bp.simulate_regret(family_of("needle", tasks=2), 1, "bail", "gated", episodes=20, seeds=100, key=3)
    assert np.array_equal(gate.explored, single.explored)
    # Under a task that has a double, its own posterior never passes 1/2, and yet exploration ends.
    gate = bp.simulate_regret(family, 0, "bail", "gated", episodes=20, seeds=100, key=3)
    assert gate.true_task.max() <= 0.5 + 1e-12
    assert not gate.explored[:, -1].any()


def test_a_double_does_not_change_the_schedules():
    family = family_of("needle", tasks=2)
    rule = explore_first(Odds.of(family), bp.eta(family, "uniform"), 20)
    curves = bp.simulate_regret(doubled(family), 2, "bail", "explore-first", episodes=20, seeds=100, key=1)
    assert np.array_equal(curves.explored, np.tile(rule.coin == 1, (100, 1)))
    assert 0 < rule.coin.sum() < 20


def test_rules_and_policies_by_name_are_those_of_the_library():
    family = tiny_family()
    design = bp.design_exploration(family)
    rule = explore_first(Odds.of(family), design.eta, 12)
    assert 0 < rule.coin.sum() < 13
    by_name = bp.simulate_regret(family, 0, "bail", "explore-first", 12, 16, "best")
    given = bp.simulate_regret(family, 0, "bail", rule, 12, 16, design.policy)
    assert np.array_equal(by_name.regret, given.regret)
    assert np.array_equal(by_name.explored, np.tile(rule.coin == 1, (16, 1)))


def test_certain_runs_end_early_without_a_trace():
    """A coin in the last episode keeps every run alive, but nothing else differs; and neither does a shorter run."""
    family, T = family_of("needle", tasks=3), 250
    schedule = (np.arange(T) < 50).astype(float)
    late = schedule.copy()
    late[-1] = 1e-12
    progress: list[int] = []
    ending = bp.simulate_regret(family, 1, "bail", schedule, T, 16, progress=progress.append)
    lasting = bp.simulate_regret(family, 1, "bail", late, T, 16)
    shorter = bp.simulate_regret(family, 1, "bail", schedule[:100], 100, 16)
    for name in ("true_task", "explored", "regret"):
        assert getattr(ending, name).shape == (16, T)
        assert np.array_equal(getattr(ending, name)[:, :100], getattr(shorter, name)), name
        assert np.array_equal(getattr(ending, name), getattr(lasting, name)), name
    assert (ending.true_task[:, -1] == 1).all()
    assert len(progress) < 4  # of four chunks
    assert sum(progress) >= 16 * T


def test_a_run_that_may_end_early_begins_with_one_that_may_not():
    """Here nobody is certain after 64 episodes, where the longer run first asks whether it is over."""
    family = tiny_family()
    short, long = (bp.simulate_regret(family, 0, "bail", (np.arange(T) < 50).astype(float), T, 4) for T in (100, 200))
    assert (short.true_task[:, 64] < 1).any()
    for name in ("true_task", "explored", "regret"):
        assert np.array_equal(getattr(short, name), getattr(long, name)[:, :100]), name


# --- eta by simulation ------------------------------------------------------------------------------------------


def eta_worlds():
    rng = np.random.default_rng(3)
    return [
        (family_of("needle", tasks=3), "uniform"),
        (tiny_family(), "uniform"),
        (tiny_family(), bp.design_exploration(tiny_family()).policy),
        (family_of("lock", length=2), "uniform"),
        (doubled(tiny_family()), "uniform"),
        (random_family(rng, Layout(3, 2, 2, 2, 3, 2)), "uniform"),
        (random_family(rng, Layout(3, 2, 2, 3, 2, 1)), (lambda w, key: (), lambda s, seen: (s, jnp.array([0.7, 0.3])))),
    ]


@pytest.mark.parametrize("index", range(7))
def test_the_interval_covers_eta(index):
    family, policy = eta_worlds()[index]
    interval = bp.estimate_eta(family, policy, draws=4096, key=index)
    exact = bp.eta(bp.task_classes(family).family, policy)
    assert interval.contains(exact)
    assert interval.half_width <= 0.08
    assert interval.mean == pytest.approx(exact, abs=0.03)
    assert interval.count == 4096


def test_policies_that_depend_on_the_instruction_count_by_its_prior():
    family = random_family(np.random.default_rng(5), Layout(2, 2, 2, 2, 3, 2))
    oracle = Oracle(family)
    rows = np.array([[0.9, 0.1], [0.05, 0.95]])
    policy = (lambda w, key: (), lambda s, observed: (s, jnp.asarray(rows)[observed.instruction]))
    exact = listed_eta(oracle, lambda w, o, g: rows[w])
    assert bp.eta(family, policy) == pytest.approx(exact, abs=1e-12)
    assert bp.estimate_eta(family, policy, draws=2048, key=1).contains(exact)


def test_eta_is_a_mean_under_the_mixture_of_two_tasks():
    """eta_zz' = E_m[1 - 2 sqrt(L_z L_z') / (L_z + L_z')], summed over every history of a random policy."""
    family = random_family(np.random.default_rng(7), Layout(3, 2, 2, 2, 3, 1))
    oracle, rng, table = Oracle(family), np.random.default_rng(1), {}

    def policy(w, observations, subgoals):
        return table.setdefault((observations, subgoals), random_rows(rng, (1, 2))[0])

    exact = listed_hellinger(oracle, policy)
    mean = np.zeros((3, 3))
    for o, g in oracle.histories(3):
        chance = policy(0, o[:1], ())[g[0]] * policy(0, o[:2], g[:1])[g[1]]
        law = [oracle.likelihood(z, o, g) for z in range(3)]
        for i in range(3):
            for j in range(3):
                total = law[i] + law[j]
                if total > 0:
                    mean[i, j] += chance * total / 2 * (1 - 2 * math.sqrt(law[i] * law[j]) / total)
    assert mean == pytest.approx(exact, abs=1e-12)
    histories = enumerate_histories(family)
    rows = [
        np.stack([policy(0, *map(tuple, histories.sequence(h, n))) for n in range(len(layer.parent))])[:, None]
        for h, layer in enumerate(histories.layers[:-1])
    ]
    assert hellinger(histories, rows, bp.task_classes(family)) == pytest.approx(exact, abs=1e-12)


def test_estimates_refuse_what_makes_no_sense():
    family = family_of("needle", tasks=2)
    for draws in (0, -3, True):
        with pytest.raises(bp.InvalidPlannerError, match="draws"):
            bp.estimate_eta(family, draws=draws)
    with pytest.raises(bp.InvalidPlannerError, match="no distribution"):
        bp.estimate_eta(family, (lambda w, key: (), lambda s, observed: (s, jnp.array([0.7, 0.7, 0.0]))), draws=8)
    with pytest.raises(bp.InvalidPlannerError, match="shape"):
        bp.estimate_eta(family, (lambda w, key: (), lambda s, observed: (s, jnp.array([0.5, 0.5]))), draws=8)
    with pytest.raises(bp.InvalidPlannerError, match="policy"):
        bp.estimate_eta(family, "boldest", draws=8)
    one = bp.estimate_eta(family_of("aliased"), draws=8)
    assert (one.mean, one.low, one.high) == (1.0, 1.0, 1.0)
    again = [bp.estimate_eta(family, draws=64, key=k) for k in (1, 1, 2)]
    assert again[0] == again[1] != again[2]
