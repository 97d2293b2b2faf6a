"""HIER: the bound, the step-by-step side, and a claim that notices what is tampered with."""

import functools
import itertools
import math

import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayespar as bp
from bayespar.testing.worlds import random_rows
from bayespar.theory.bounds import actor_error
from bayespar.theory.claim import Settings, Subject
from bayespar.theory.claims import hier
from bayespar.theory.two_level_law import composed_world, expert_policy, reading_policy, step_by_step, value_of
from bayespar.theory.verdict import Verdict

SETTINGS = Settings(full=False, alpha=1e-5)


def tiny(seed, step_indexed=True, S=3, O=2, H=3, G=2, A=2, H_a=2):
    """A program of two tasks with random low levels."""

    def program():
        rng = np.random.default_rng([seed, int(numpyro.sample("task", dist.Bernoulli(0.5)))])
        low = bp.LowLevel(random_rows(rng, (A, S, S)), steps=H_a)
        mu = random_rows(np.random.default_rng(seed), (G, H_a if step_indexed else 1, S, A))
        reward = np.random.default_rng(seed).integers(0, 11, (H, O)) / 10
        return bp.World(random_rows(rng, (S,)), bp.TwoLevel(low, mu), random_rows(rng, (S, O)), reward, horizon=H)

    return program


def value_by_paths(world, choose):
    """J of a deterministic policy, over every path of states, actions and observations."""
    T, mu, H_a = world.two_level.low_level.dense_transition(), world.two_level.actors, world.two_level.low_level.steps
    (A, S, _), O, total = T.shape, world.emission.shape[1], 0.0

    def walk(s, weight, observations, subgoals, k):
        nonlocal total
        if k % H_a == 0:
            for o in range(O):
                w = weight * world.emission[s, o]
                total += w * world.reward[len(observations), o, 0]
                if w > 0 and len(observations) + 1 < world.horizon:
                    told = [*observations, o]
                    act(s, w, told, [*subgoals, choose(told, subgoals)], k)
        else:
            act(s, weight, observations, subgoals, k)

    def act(s, weight, observations, subgoals, k):
        for a, t in itertools.product(range(A), range(S)):
            w = weight * mu[subgoals[-1], k % H_a % mu.shape[1], s, a] * T[a, s, t]
            if w > 0:
                walk(t, w, observations, subgoals, k + 1)

    for s in range(S):
        walk(s, world.initial[s], [], [], 0)
    return total


@pytest.mark.parametrize("seed", range(4))
def test_values_step_by_step_are_sums_over_every_path(seed):
    program = tiny(seed)
    family, worlds = bp.enumerate_program(program), bp.program.enumerate_worlds(program)
    experts = bp.solve_experts(family)
    reading = np.array([[0, 1], [1, 0]])
    for z, world in enumerate(worlds):
        push = step_by_step(world.two_level)
        laws = reading_policy(world, np.eye(2)[reading])(push)
        by_paths = value_by_paths(world, lambda o, g: reading[len(g), o[-1]])
        assert value_of(laws, world)[0] == pytest.approx(by_paths, abs=1e-14)
        assert value_of(expert_policy(world, experts, z, 0)(push), world)[0] == pytest.approx(
            experts.value[z, 0], abs=1e-12
        )
        np.testing.assert_allclose(laws, reading_policy(world, np.eye(2)[reading])(composed_world(world)), atol=1e-14)


@pytest.mark.parametrize("method", ["histories", "alpha"])
def test_experts_with_and_without_memory_do_the_same(method):
    program = tiny(2)
    experts = bp.solve_experts(program, method=method)
    for z, world in enumerate(bp.program.enumerate_worlds(program)):
        value = value_of(expert_policy(world, experts, z, 0)(step_by_step(world.two_level)), world)
        assert value[0] == pytest.approx(experts.value[z, 0], abs=1e-9)


def test_the_bound_is_its_sum():
    delta, spread = np.array([0.1, 0.3]), np.array([[1.0], [0.5], [0.25]])
    assert actor_error(delta, spread)[0] == pytest.approx(0.5 * (1 - 0.63) + 0.25 * (1 - 0.63**2))
    constant = actor_error(np.full(3, 0.05), np.ones((4, 2)))
    assert constant == pytest.approx([sum(1 - 0.95 ** (3 * h) for h in (1, 2, 3))] * 2)
    assert (actor_error(np.zeros(3), np.ones((4, 2))) == 0).all()


@pytest.mark.parametrize("seed", range(30))
def test_no_actor_costs_more_than_the_bound(seed):
    rng = np.random.default_rng(seed)
    program = tiny(seed)
    world = bp.program.enumerate_worlds(program)[0]
    mu = world.two_level.actors
    other = random_rows(rng, mu.shape)
    other = mu + rng.choice([0.01, 0.1, 1.0]) * (other - mu)
    apart = np.abs(mu - other).sum(-1).max(axis=(0, 2)) / 2
    spread = world.reward.max(1) - world.reward.min(1)
    values = []
    for actors in (mu, other):
        low = bp.TwoLevel(world.two_level.low_level, actors)
        changed = bp.World(world.initial, low, world.emission, world.reward, horizon=3)
        tables = [np.eye(2)[np.reshape(plan, (2, 2))] for plan in itertools.product(range(2), repeat=4)]
        own = [value_of(reading_policy(changed, t)(composed_world(changed)), changed)[0] for t in tables]
        best = bp.solve_experts(bp.program.as_stacked(changed)).value[0, 0]
        values.append(np.array([*own, best]))
    assert (np.abs(values[0] - values[1]) <= actor_error(apart, spread)[0] + 1e-12).all()


@functools.cache
def subject(name):
    small = {"gridworld_errands": {"size": 9}}
    return Subject(name, functools.partial(bp.load_model(name), **small.get(name, {})))


@pytest.mark.parametrize("name", ["ledge", "gridworld_errands"])
def test_the_claim_holds_and_its_twins_fail(name, monkeypatch):
    monkeypatch.setattr(hier, "PERTURBED", 1)
    outcome = hier.check(subject(name), SETTINGS)
    assert outcome.verdict is Verdict.SUPPORTED
    assert outcome.measured <= 1e-13
    assert outcome.alpha == 1e-5
    assert len(outcome.figures) == 1
    twins = hier.twins(subject(name), SETTINGS)
    assert len(twins) == (3 if name == "ledge" else len(twins))
    assert len(twins) >= 2
    assert all(t.rejected and t.power == 1 for t in twins)
    if name == "ledge":
        assert outcome.tightness == pytest.approx(1, abs=1e-9)


def test_the_ledge_attains_the_bound_by_its_closed_form():
    (level,) = hier.low_levels(subject("ledge"))[:1]
    delta, fatal = 0.01, 4  # to let go
    actors = list(hier.perturb(level, delta))[fatal]
    losses = list(hier.losses(level, actors, lambda _: np.zeros(1)))
    assert losses[-1].value == pytest.approx(1 - (1 - delta) ** 6, abs=1e-12)


def test_stationary_actors_have_no_twins_of_order():
    same = Subject("tiny", tiny(1, step_indexed=False))
    assert hier.check(same, SETTINGS).verdict is Verdict.SUPPORTED
    assert not [t for t in hier.twins(same, SETTINGS) if "composed" in t.name or "power" in t.name]


def test_it_applies_to_two_levels_only():
    assert "no low level" in hier.check(Subject("lock", bp.load_model("lock")), SETTINGS).reason
    family = Subject("ledge", bp.enumerate_program(bp.load_model("ledge")))
    assert hier.check(family, SETTINGS).verdict is Verdict.NOT_APPLICABLE


def test_a_kernel_that_is_slightly_wrong_is_refuted(monkeypatch):
    right = bp.TwoLevel.compose

    def wrong(self):
        kernel = np.array(right(self))
        kernel[1, 0] = (1 - 1e-8) * kernel[1, 0] + 1e-8 / kernel.shape[1]
        return kernel

    monkeypatch.setattr(bp.TwoLevel, "compose", wrong)
    assert (
        hier.check(Subject("ledge, again", functools.partial(bp.load_model("ledge"))), SETTINGS).verdict
        is Verdict.REFUTED
    )


def test_a_bound_that_is_too_small_is_refuted(monkeypatch):
    monkeypatch.setattr(hier, "actor_error", lambda *a: 0.99 * actor_error(*a))
    assert hier.check(subject("ledge"), SETTINGS).verdict is Verdict.REFUTED


def test_a_simulation_with_another_actor_is_refuted(monkeypatch):
    played = hier.rollout_low_level

    def careless(world, *arguments, **named):
        mu = 0.9 * world.two_level.actors + 0.1 * np.eye(5)[4]
        two_level = bp.TwoLevel(world.two_level.low_level, mu)
        other = bp.World(world.initial, two_level, world.emission, world.reward[..., 0], horizon=world.horizon,
                         subgoals=world.subgoals)  # fmt: skip
        return played(other, *arguments, **named)

    monkeypatch.setattr(hier, "rollout_low_level", careless)
    level = hier.low_levels(subject("ledge"))[0]
    assert hier._simulated(level, 0, 1e-5).verdict is Verdict.REFUTED
    assert math.isclose(level.experts.value[0, 0], 1)
