"""Claims about the world model: supported where they hold, refuted where their numbers are tampered with."""

import dataclasses
import functools

import numpy as np
import pytest

import bayespar as bp
from bayespar.models.random_world import random_world
from bayespar.models.safe_or_risky import safe_or_risky
from bayespar.planning.aggregated import plan_graph
from bayespar.planning.expected_regret import episode_loss, posterior_recursion
from bayespar.planning.exploration import by_coin
from bayespar.planning.graph_experts import graph_experts
from bayespar.planning.information import graph_table
from bayespar.planning.planner import UniformPolicy
from bayespar.testing.worlds import SMALL_LAYOUTS, random_family
from bayespar.theory.bounds import planning_loss, predictive_planning
from bayespar.theory.claim import Settings, Subject
from bayespar.theory.claims import w1, w2, w3
from bayespar.theory.constants import instance, worst_case
from bayespar.theory.verdict import Verdict

SETTINGS = Settings(full=False, alpha=1e-5)
SLACK = 1e-12  # rounding


@functools.cache
def shared(name):
    programs = {
        "safe_or_risky": safe_or_risky,
        "random": functools.partial(random_world, seed=5, sizes=(3, 3, 2, 2, 3, 2), zeros=0.3),
    }
    return Subject(name, programs[name])


@pytest.mark.parametrize(
    ("claim", "world"),
    [(w1, "random"), (w2, "random"), (w2, "safe_or_risky"), (w3, "random"), (w3, "safe_or_risky")],
    ids=["W1-random", "W2-random", "W2-safe", "W3-random", "W3-safe"],
)
def test_claims_hold_and_twins_fail(claim, world, monkeypatch):
    monkeypatch.setattr(w3, "EPISODES", 32)
    monkeypatch.setattr(w3, "CASES", ((0.3, 2, 32), (0.3, 4, 8), (0.4, 4, 8)))
    outcome = claim.check(shared(world), SETTINGS)
    if claim is w3 and world == "random":
        assert outcome.verdict is Verdict.NOT_APPLICABLE
        return
    assert outcome.verdict is Verdict.SUPPORTED
    twins = claim.twins(shared(world), SETTINGS)
    assert twins
    assert all(t.rejected and t.power == 1 for t in twins)


def test_one_class_of_tasks_says_nothing():
    aliased = Subject("aliased", bp.load_model("aliased"))
    assert [c.check(aliased, SETTINGS).verdict for c in (w1, w2, w3)] == [Verdict.NOT_APPLICABLE] * 3


def test_w1_notices_predictions_of_another_prior(monkeypatch):
    subject, right = Subject("random", shared("random").program), w1.bawm

    def tilted(family, prompt):
        model = right(family, prompt)
        wrong = model.posterior.log_probabilities + np.linspace(0, 1e-6, family.num_tasks)
        episodes = model.posterior.episode_log_evidence + np.linspace(0, 1e-6, family.num_tasks)[:, None]
        off = dataclasses.replace(model.posterior, log_probabilities=wrong, episode_log_evidence=episodes)
        return dataclasses.replace(model, posterior=off)

    monkeypatch.setattr(w1, "bawm", tilted)
    assert w1.check(subject, SETTINGS).verdict is Verdict.REFUTED


@pytest.mark.parametrize("bound", ["planning_loss", "predictive_planning"])
def test_a_bound_that_is_too_small_is_refuted(monkeypatch, bound):
    right = getattr(w2, bound)
    monkeypatch.setattr(w2, bound, lambda *a: 0.8 * right(*a))
    assert w2.check(shared("safe_or_risky"), SETTINGS).verdict is Verdict.REFUTED


def test_w2_is_nearly_attained():
    assert w2.check(shared("safe_or_risky"), SETTINGS).tightness >= 0.99
    for excess, verdict in ((0.999, Verdict.SUPPORTED), (1.05, Verdict.SUPPORTED)):  # beyond it, the risk is taken
        assert w2._on_the_witness(excess).verdict is verdict
    assert w2._on_the_witness(0.999).tightness == pytest.approx(0.999, abs=1e-6)
    assert w2._on_the_witness(1.05, 0.1).verdict is Verdict.REFUTED
    assert w2._on_the_witness(1.05, 0.04).verdict is Verdict.SUPPORTED  # too little to turn the plan


def test_w3_notices_another_closed_form(monkeypatch):
    monkeypatch.setattr(w3, "CASES", ((0.4, 4, 8),))
    assert w3.check(shared("safe_or_risky"), SETTINGS).verdict is Verdict.SUPPORTED
    right = dict(w3.CLOSED)
    for planner in right:
        monkeypatch.setattr(w3, "CLOSED", {**right, planner: lambda *a, f=right[planner]: f(*a) * (1 + 1e-9) + 1e-9})
        assert w3.check(shared("safe_or_risky"), SETTINGS).verdict is Verdict.REFUTED


def test_w2_on_random_worlds():
    """One episode from many posteriors, on 300 worlds, by the constants of the theorem and of the world."""
    rng = np.random.default_rng(12)
    largest = {"instance": [], "worst": []}
    for index in range(300):
        classes, graph = plan_graph(random_family(rng, SMALL_LAYOUTS[index % len(SMALL_LAYOUTS)]))
        C, experts = len(classes.members), graph_experts(graph)
        if C == 1 or not graph.layers:
            continue
        posteriors = w2.some_posteriors(np.asarray(classes.family.task_prior), index)[:60]
        loss = episode_loss(graph, "bawm", posteriors, experts=experts)
        own = instance(graph, graph_table(graph, UniformPolicy(graph.family.num_subgoals)), experts=experts)
        for name, constants in (("instance", own), ("worst", worst_case(own.horizon, own.prior, own.least_eta))):
            bound = planning_loss(constants, posteriors)
            assert (loss <= bound + SLACK).all()
            tight = bound < constants.worst / 2
            largest[name].append(np.where(tight, loss / np.where(bound > 0, bound, 1), 0).max())
    assert max(largest["worst"]) >= 0.25
    assert max(largest["instance"]) >= 0.8  # so a bound four fifths of it would be refuted


def test_w2_over_several_episodes_of_random_worlds():
    rng = np.random.default_rng(13)
    ratios = []
    for index in range(40):
        classes, graph = plan_graph(random_family(rng, SMALL_LAYOUTS[index % 5], skew=3))
        experts = graph_experts(graph)
        if len(classes.members) == 1:
            continue
        explorer = graph_table(graph, UniformPolicy(graph.family.num_subgoals))
        coin = rng.random(3) * [1, 0.5, 0]
        found = posterior_recursion(graph, classes, "bawm", by_coin(coin), explorer, experts=experts, doubt=False)
        own = instance(graph, explorer, experts=experts)
        for constants in (own, worst_case(own.horizon, own.prior, own.least_eta)):
            bound = predictive_planning(constants, coin)
            assert (found.cumulative <= bound + SLACK).all()
            ratios.append((found.cumulative[:, -1] / np.maximum(bound[:, -1], SLACK)).max())
    assert max(ratios) > 0.5  # so half the bound would be refuted
