"""Claims about exploration: supported where they hold, refuted where their numbers are tampered with."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest

import bayespar as bp
from bayespar.models.lock import lock
from bayespar.models.needle import needle
from bayespar.models.random_world import random_world
from bayespar.planning.bail import bail_table
from bayespar.planning.hellinger import hellinger
from bayespar.planning.information import GraphPolicy
from bayespar.planning.value import table_value
from bayespar.statistics import Interval
from bayespar.theory.certificate import least_loss, most_informative
from bayespar.theory.claim import Settings, Subject
from bayespar.theory.claims import e1, e2, e3, e4, e5, n2, n3
from bayespar.theory.closed_forms import lock_regret
from bayespar.theory.figure import Curves, PolicyTree
from bayespar.theory.policy_tree import policy_tree
from bayespar.theory.verdict import Outcome, Verdict, all_of, below, inequality

SETTINGS = Settings(full=False, alpha=1e-5)


@functools.cache
def shared(name="lock"):
    programs = {"lock": lock, "random": functools.partial(random_world, seed=5, sizes=(3, 3, 2, 2, 3, 2), zeros=0.3)}
    return Subject(name, programs[name])


def fresh(name="lock"):
    """A subject that may be tampered with; what is expensive, and follows from no policy, is shared."""
    subject = Subject(name, shared(name).program)
    subject.__dict__.update({k: v for k, v in shared(name).__dict__.items() if not k.endswith("_table")})
    return subject


@pytest.mark.parametrize("claim", [e1, e2, e3, e4, e5], ids=["E1", "E2", "E3", "E4", "E5"])
@pytest.mark.parametrize("world", ["lock", "random"])
def test_claims_hold_and_twins_fail(claim, world):
    outcome = claim.check(shared(world), SETTINGS)
    assert outcome.verdict in (Verdict.SUPPORTED, Verdict.NOT_APPLICABLE)
    if world == "lock" or claim in (e4, e5):
        assert outcome.verdict is Verdict.SUPPORTED
        twins = claim.twins(shared(world), SETTINGS)
        assert twins
        assert all(t.rejected and t.power == 1 for t in twins)


def test_doubt_on_the_lock_is_as_large_as_its_bound():
    assert e1.check(shared(), SETTINGS).tightness == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize(
    ("claim", "bound"), [(e1, "posterior_decay"), (e2, "epsilon_greedy"), (e3, "gated_regret")], ids=["E1", "E2", "E3"]
)
def test_a_bound_that_is_too_small_is_refuted(monkeypatch, claim, bound):
    right = getattr(claim, bound)
    monkeypatch.setattr(claim, bound, lambda *a: 0.8 * right(*a))
    assert claim.check(shared(), SETTINGS).verdict is Verdict.REFUTED


def test_e4_notices_a_worse_policy_and_prices_that_prove_nothing():
    for change in ("policy", "prices"):
        subject = fresh()
        worse = GraphPolicy(subject.graph, subject.explorers["uniform"].table)
        wrong = {"policy": worse} if change == "policy" else {"eta_classes": 0.9}
        subject.__dict__["design"] = dataclasses.replace(subject.design, **wrong)
        assert e4.check(subject, SETTINGS).verdict is Verdict.REFUTED


def test_e4_on_one_class_checks_that_it_is_one():
    aliased = Subject("aliased", bp.load_model("aliased"))
    outcome = e4.check(aliased, SETTINGS)
    assert outcome.verdict is Verdict.SUPPORTED
    assert "eta* = 0" in outcome.reason
    assert [t.rejected for t in e4.twins(aliased, SETTINGS)] == [True]
    assert "one class" in e2.check(aliased, SETTINGS).reason


def test_e5_notices_a_dearer_policy_and_a_lower_bound_that_is_too_high():
    subject = fresh()
    subject.__dict__["cheapest"] = dataclasses.replace(subject.cheapest, policy=subject.design.policy)
    assert e5.check(subject, SETTINGS).verdict is Verdict.REFUTED
    subject = fresh()
    too_high = dataclasses.replace(subject.cheapest, prices=1.01 * subject.cheapest.prices)
    subject.__dict__["cheapest"] = too_high
    assert e5.check(subject, SETTINGS).verdict is Verdict.REFUTED


def test_n2_and_n3(monkeypatch):
    monkeypatch.setattr(n2, "SIZES", (8, 16))
    monkeypatch.setattr(n2, "SIMULATED", (8,))
    monkeypatch.setattr(n2, "SEEDS", 4096)
    monkeypatch.setattr("bayespar.theory.verdict.LARGEST_HALF_WIDTH", 0.1)
    subject = Subject("lock", lock)
    outcome = n2.check(subject, Settings(full=False, alpha=1e-3))
    assert outcome.verdict is Verdict.SUPPORTED
    assert isinstance(outcome.figures[0], Curves)
    assert all(t.rejected for t in n2.twins(subject, SETTINGS))
    for name, program in (("lock", lock), ("needle", needle)):
        world = Subject(name, program)
        assert n3.check(world, SETTINGS).verdict is Verdict.SUPPORTED
        assert [t.rejected for t in n3.twins(world, SETTINGS)] == [True]
    monkeypatch.setattr(n2, "lock_regret", lambda length, episodes: 1.001 * lock_regret(length, episodes))
    assert n2.check(subject, Settings(full=False, alpha=1e-3)).verdict is Verdict.REFUTED
    assert n2.check(shared("random"), SETTINGS).verdict is Verdict.NOT_APPLICABLE
    assert n3.check(shared("random"), SETTINGS).verdict is Verdict.NOT_APPLICABLE


def test_needle_by_simulation(monkeypatch):
    for module in (e2, e3):
        monkeypatch.setattr(module, "SEEDS", 1500)
    monkeypatch.setattr(e2, "SIZES", (32,))
    monkeypatch.setattr(e3, "SIZE", (8, 48))
    subject = Subject("needle", functools.partial(needle, tasks=8))
    for claim in (e2, e3):
        outcome = claim.check(subject, Settings(full=False, alpha=1e-3))
        assert outcome.verdict is Verdict.SUPPORTED
        assert "needle, K" in outcome.reason
        assert outcome.figures
        assert outcome.alpha > 0


def test_the_needles_sign_has_the_eta_of_its_closed_form():
    policy, closed = e2.reading(16)
    assert bp.eta(bp.load_model("needle"), policy) == pytest.approx(closed, abs=1e-12)


def test_lock_regret_is_its_sum():
    for length, episodes in itertools.product((1, 2, 6), (1, 2, 40)):
        p = 2.0 ** (1 - length)
        assert lock_regret(length, episodes) == pytest.approx((1 - p / 2) * sum((1 - p) ** n for n in range(episodes)))


def every_policy(histories, subgoals):
    """Every deterministic policy, as a table."""
    sizes = [(len(layer.parent), histories.family.num_instructions) for layer in histories.layers[:-1]]
    for flat in itertools.product(range(subgoals), repeat=sum(n * w for n, w in sizes)):
        chosen, table = np.array(flat), []
        for n, w in sizes:
            table.append(np.eye(subgoals)[chosen[: n * w].reshape(n, w)])
            chosen = chosen[n * w :]
        yield table


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_certificates_are_the_best_over_every_deterministic_policy(seed):
    family = bp.enumerate_program(functools.partial(random_world, seed=seed, sizes=(3, 2, 2, 2, 3, 1), zeros=0.3))
    histories, classes = bp.enumerate_histories(family), bp.task_classes(family)
    tasks = np.arange(3)
    rng = np.random.default_rng(seed)
    prices, weights = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3))
    values = np.asarray(bp.solve_experts(family).value)
    informative, loss = [], []
    for table in every_policy(histories, family.num_subgoals):
        told = hellinger(histories, table, classes)[np.triu_indices(3, 1)] @ prices
        informative.append(told)
        loss.append(weights @ (values - table_value(histories, table))[:, 0] - told)
    assert most_informative(histories, tasks, prices) == pytest.approx(max(informative), abs=1e-12)
    assert least_loss(histories, tasks, prices, weights, values) == pytest.approx(min(loss), abs=1e-12)


def test_a_policy_is_drawn_in_the_worlds_words():
    subject = shared()
    tree = policy_tree("best", subject.graph, subject.explorers["best"].table[0])
    assert isinstance(tree, PolicyTree)
    (root,) = tree.branches
    assert root.words == "silence"
    assert root.probability == pytest.approx(1)
    (first,) = root.children
    assert first.words in ("turn left", "turn right")
    assert first.kind == "subgoal"


def test_inequality():
    bound, trivial = np.array([1.0, 2.0, 9.0]), np.array([4.0, 4.0, 4.0])
    outcome = inequality(np.array([0.5, 2.0, 4.0]), bound, trivial, "")
    assert outcome.verdict is Verdict.SUPPORTED
    assert outcome.measured == 1.0
    assert outcome.tightness == 0.5  # only the first bound is below half its trivial value
    assert inequality(np.array([0.5, 2.1, 4.0]), bound, trivial, "").verdict is Verdict.REFUTED
    assert inequality(np.array([0.5, np.nan, 4.0]), bound, trivial, "").verdict is Verdict.REFUTED
    assert inequality(np.array([0.5, 2.1, 4.0]), bound + 9, trivial, "").verdict is Verdict.NOT_APPLICABLE


def test_below():
    interval = Interval(10.0, 9.0, 11.0, 1e-5, 100)
    assert below(interval, 12.0, 50.0, "").verdict is Verdict.SUPPORTED
    assert below(interval, 12.0, 50.0, "").tightness == pytest.approx(10 / 12)
    assert below(interval, 12.0, 20.0, "").tightness is None
    assert below(interval, 10.5, 50.0, "").verdict is Verdict.INCONCLUSIVE
    assert below(interval, 8.0, 50.0, "").verdict is Verdict.REFUTED
    assert below(interval, 60.0, 50.0, "").verdict is Verdict.NOT_APPLICABLE


def test_the_worst_of_several_outcomes_counts():
    good = Outcome(Verdict.SUPPORTED, 1.0, 2.0, "a", tightness=0.5, alpha=1e-5)
    bad = Outcome(Verdict.REFUTED, 3.0, 2.0, "b", alpha=1e-5)
    nothing = Outcome(Verdict.NOT_APPLICABLE, reason="c")
    merged = all_of([good, bad, nothing])
    assert merged.verdict is Verdict.REFUTED
    assert (merged.reason, merged.tightness, merged.alpha) == ("a; b", 0.5, 2e-5)
    assert all_of([nothing, good]).verdict is Verdict.SUPPORTED
    assert all_of([nothing]) is nothing


def test_bail_never_tells_more_than_the_best_policy():
    subject = shared("random")
    table = bail_table(subject.histories, subject.experts, actions=subject.expert_table)
    assert e4.least(subject, table) <= subject.design.eta_classes + 1e-12
