"""Posteriors and BAIL against the joint law of the corpus, enumerated by the oracle (theory.md, section 2)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import bayespar as bp
from bayespar.testing.oracle import Oracle, as_prompt, corpus_law, uneven_behaviour
from bayespar.testing.strategies import families, seeds
from bayespar.testing.worlds import LAYOUTS

NEAR, FAR = 1e-12, 1e-10  # up to 5 episodes, and beyond


def prompt_of(prompt) -> bp.Prompt:
    return as_prompt(prompt)


def draw_prompts(oracle: Oracle, seed: int, episodes, count: int = 1) -> list:
    """Possible prompts that end in a decision, with one of ``episodes`` finished episodes each."""
    rng = np.random.default_rng(seed)
    return [oracle.draw_prompt(rng, int(rng.choice(episodes)), int(rng.integers(1, oracle.H))) for _ in range(count)]


# --- C1 ---------------------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(families(), seeds)
def test_bail_and_posterior_are_conditionals_of_the_enumerated_corpus(family, seed):
    oracle = Oracle(family)
    law, whole = corpus_law(oracle, 2 if family.horizon == 2 else 1, uneven_behaviour(oracle.G))
    assert whole == pytest.approx(1, abs=1e-12)
    experts = bp.solve_experts(family)
    prompts = sorted(law)
    for i in np.random.default_rng(seed).choice(len(prompts), size=2):
        joint = law[prompts[i]]
        prompt = prompt_of(prompts[i])
        assert np.abs(bp.posterior(family, prompt).probabilities - joint.sum(axis=1) / joint.sum()).max() <= NEAR
        assert np.abs(bp.bail(family, prompt, experts=experts) - joint.sum(axis=0) / joint.sum()).max() <= NEAR


@settings(max_examples=25)
@given(families(), seeds)
def test_bail_and_posterior_after_up_to_five_episodes(family, seed):
    oracle = Oracle(family)
    behaviour = uneven_behaviour(oracle.G)
    for prompt in draw_prompts(oracle, seed, [3, 5]):
        found = bp.posterior(family, prompt_of(prompt)).probabilities
        assert np.abs(found - oracle.posterior(prompt, behaviour)).max() <= NEAR
        assert np.abs(bp.bail(family, prompt_of(prompt)) - oracle.bail(prompt, behaviour)).max() <= NEAR


@settings(max_examples=15)
@given(families(), seeds)
def test_bail_and_posterior_after_fifty_episodes(family, seed):
    oracle = Oracle(family)
    (prompt,) = draw_prompts(oracle, seed, [50])
    found = bp.posterior(family, prompt_of(prompt))
    assert np.abs(found.probabilities - oracle.posterior(prompt, uneven_behaviour(oracle.G))).max() <= FAR
    assert np.abs(bp.bail(family, prompt_of(prompt)) - oracle.bail(prompt)).max() <= FAR
    # The evidence is that of the observations: neither the behaviour nor the instructions' prior is in it.
    instructions = math.fsum(math.log(oracle.instruction_prior[w]) for w in [prompt[1], *(e[0] for e in prompt[0])])
    logs = oracle.log_joint(prompt)
    top = max(logs)
    assert found.log_evidence == pytest.approx(
        top + math.log(math.fsum(math.exp(v - top) for v in logs)) - instructions, rel=FAR, abs=FAR
    )


def crossroads(play: float) -> tuple[bp.Family, object]:
    """Two tasks with equal priors that only the reward at the end tells apart, and a behaviour that sees the task.

    The first subgoal changes nothing; under task z, subgoal z at the second decision wins. A behaviour that plays z
    at first with probability ``play`` tells the task, so that P_D(label z | pt) is ``play`` where BAIL says 1/2.
    """
    start, won, lost = range(3)
    transition = np.zeros((2, 2, 2, 3, 3))
    transition[:, 0] = np.eye(3)
    for z in range(2):
        transition[z, 1, z, start, won] = transition[z, 1, 1 - z, start, lost] = 1
        transition[z, 1, :, won, won] = transition[z, 1, :, lost, lost] = 1
    reward = np.zeros((3, 3))
    reward[2, won] = 1
    family = bp.Family([0.5, 0.5], [1.0, 0, 0], transition, np.eye(3), reward, horizon=3)

    def behaviour(z, past, w, observations, subgoals):
        return [play if g == z else 1 - play for g in range(2)]

    return family, behaviour


@pytest.mark.parametrize("episodes", [1, 2])
def test_behaviour_that_sees_the_task_breaks_the_identity(episodes):
    def error(family, law):
        differences = [
            np.abs(bp.bail(family, prompt_of(pt)) - joint.sum(axis=0) / joint.sum()).max() for pt, joint in law.items()
        ]
        return max(differences)

    family, behaviour = crossroads(0.75)
    oracle = Oracle(family)
    blind, _ = corpus_law(oracle, 1, uneven_behaviour(2))
    assert error(family, blind) <= NEAR
    seeing, whole = corpus_law(oracle, 1, behaviour)
    assert whole == pytest.approx(1, abs=1e-12)
    assert error(family, seeing) == pytest.approx(0.25, abs=NEAR)
    # What breaks is the posterior that lets the behaviour cancel; with the behaviour kept in it, the identity holds.
    rng = np.random.default_rng(episodes)
    for _ in range(5):
        prompt = oracle.draw_prompt(rng, episodes - 1, 2)
        joint = corpus_law(oracle, episodes, behaviour)[0][prompt]
        assert np.abs(oracle.bail(prompt, behaviour) - joint.sum(axis=0) / joint.sum()).max() <= NEAR


def test_a_task_of_prior_zero_never_counts():
    # Task 1 alone explains the prompt well, but its prior is 0; the one possible task decides.
    family = bp.Family(
        [1.0, 0.0],
        [1.0],
        np.ones((2, 1, 1)),
        [[[0.001, 0.999]], [[0.999, 0.001]]],
        [[0, 0], [0.0, 1.0]],
        horizon=2,
    )
    prompt = bp.Prompt(np.zeros((20, 2), int), np.zeros((20, 1), int), None, [0])
    assert bp.posterior(family, prompt).probabilities.tolist() == [1.0, 0.0]
    assert bp.posterior(family, prompt).log_probabilities.tolist() == [0.0, -np.inf]


def test_bail_needs_a_decision():
    family, _ = crossroads(0.75)
    for observations, subgoals in [([], []), ([0, 0, 1], [0, 0])]:
        with pytest.raises(bp.InvalidPromptError, match=r"decision is made after 1 to H-1 = 2"):
            bp.bail(family, bp.Prompt(current_observations=observations, current_subgoals=subgoals))


# --- posteriors -------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(families(), seeds)
def test_posterior_path_and_state_posterior(family, seed):
    oracle = Oracle(family)
    rng = np.random.default_rng(seed)
    past, w, observations, subgoals = oracle.draw_prompt(rng, int(rng.choice([0, 2])), int(rng.integers(0, oracle.H)))
    prompt = (past, w, observations, subgoals)
    if not observations:  # before the first observation of an episode
        prompt = (past, w, (), ())
    expected = [oracle.posterior(((), w, (), ()))]
    for n, (v, o, g) in enumerate(past):
        expected += [oracle.posterior((past[:n], v, o[: h + 1], g[:h])) for h in range(oracle.H)]
    expected += [oracle.posterior((past, w, observations[: h + 1], subgoals[:h])) for h in range(len(observations))]
    path = bp.posterior_path(family, prompt_of(prompt))
    assert path.shape == (1 + oracle.H * len(past) + len(observations), oracle.Z)
    assert np.abs(path - np.array(expected)).max() <= NEAR

    task = oracle.posterior(prompt)
    states = np.zeros((oracle.Z, oracle.S))
    for z in np.flatnonzero(task):
        weights = oracle.state_weights(z, observations, subgoals) if observations else oracle.initial[z]
        states[z] = task[z] * np.array(weights) / math.fsum(weights)
    assert np.abs(bp.state_posterior(family, prompt_of(prompt)) - states).max() <= NEAR


def test_empty_prompt_gives_the_prior():
    family, _ = crossroads(0.5)
    found = bp.posterior(family, bp.Prompt())
    assert found.probabilities.tolist() == [0.5, 0.5]
    assert found.log_evidence == 0
    assert bp.posterior_path(family, bp.Prompt()).tolist() == [[0.5, 0.5]]
    assert bp.state_posterior(family, bp.Prompt()).tolist() == [[0.5, 0, 0], [0.5, 0, 0]]


@pytest.mark.parametrize(
    ("prompt", "episode", "step"),
    [
        (bp.Prompt([[0, 1], [1, 1]], [[0], [0]]), 1, 0),  # o_1 = 1 is impossible
        (bp.Prompt([[0, 1], [0, 0], [1, 1]], [[0], [1], [0]], None, [1]), 1, 1),  # the first impossible one counts
        (bp.Prompt([[0, 1]] * 3, [[0]] * 3, None, [1]), 3, 0),
        (bp.Prompt(None, None, None, [0, 0], [1]), 0, 1),
        # Each episode is possible under one task, both together under none: task 0 has to be left at g = 2.
        (bp.Prompt([[0, 1], [0, 0]], [[2], [2]]), 1, 1),
    ],
)
def test_impossible_evidence_names_episode_and_step(prompt, episode, step):
    # Subgoals 0 and 1 lead to observation 1 under both tasks; subgoal 2 only under task 0.
    transition = np.zeros((2, 3, 2, 2))
    transition[:, :, :, 1] = 1
    transition[1, 2] = [[1, 0], [1, 0]]
    family = bp.Family(
        [0.5, 0.5],
        [1.0, 0.0],
        transition,
        np.eye(2),
        np.zeros((2, 2)),
        horizon=2,
        observations=["a door", "a window"],
    )
    for call in (bp.posterior, bp.posterior_path, bp.state_posterior):
        with pytest.raises(bp.ImpossibleEvidenceError) as raised:
            call(family, prompt)
        assert (raised.value.episode, raised.value.step) == (episode, step)
        assert f"episode {episode}" in str(raised.value)
        assert f"step {step}" in str(raised.value)
        assert "a door" in str(raised.value) or "a window" in str(raised.value)


# --- precision and length ---------------------------------------------------------------------------------------


def log_odds(posterior) -> np.ndarray:
    logs = np.asarray(posterior.log_probabilities, np.float64)
    return logs - logs[np.argmax(logs)]


@settings(max_examples=20)
@given(families(LAYOUTS[:2]), seeds, st.sampled_from([0, 1, 50]))
def test_float32_log_odds(family, seed, episodes):
    (prompt,) = draw_prompts(Oracle(family), seed, [episodes])
    exact = log_odds(bp.posterior(family, prompt_of(prompt)))
    single = bp.posterior(family.astype("float32"), prompt_of(prompt))
    assert single.attributes["dtype"] == "float32"
    rough = single.log_probabilities - single.log_probabilities[np.argmax(exact)]
    assert np.array_equal(np.isfinite(exact), np.isfinite(rough))
    possible = np.isfinite(exact)
    exact, rough = exact[possible], rough[possible]
    assert (np.abs(exact - rough) <= 1e-3 * np.maximum(1, np.abs(exact))).all()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_a_prompt_of_100_000_episodes(dtype):
    rng = np.random.default_rng(7)
    kernel = rng.dirichlet([2.0, 2.0], (3, 2, 2, 2))
    family = bp.Family(
        [0.2, 0.3, 0.5],
        rng.dirichlet([2.0, 2.0], 3),
        kernel,
        rng.dirichlet([2.0, 2.0], (3, 2)),
        rng.random((3, 2)),
        horizon=3,
    )
    oracle = Oracle(family)
    N = 100_000
    observations, subgoals = rng.integers(2, size=(N, 3)), rng.integers(2, size=(N, 2))
    found = bp.posterior(family.astype(dtype), bp.Prompt(observations, subgoals, None, [1]))

    episodes, counts = np.unique(np.concatenate([observations, subgoals], axis=1), axis=0, return_counts=True)
    expected = []
    for z in range(3):
        terms = [
            c * math.log(oracle.likelihood(z, tuple(e[:3]), tuple(e[3:])))
            for e, c in zip(episodes, counts, strict=True)
        ]
        expected.append(math.fsum([*terms, math.log(oracle.prior[z]), math.log(oracle.likelihood(z, (1,), ()))]))
    odds = np.array(expected) - max(expected)
    assert np.isfinite(found.log_probabilities).all()
    tolerance = 1e-9 if dtype == "float64" else 1e-3
    assert (np.abs(log_odds(found) - odds) <= tolerance * np.maximum(1, np.abs(odds))).all()
    assert found.log_evidence == pytest.approx(max(expected), rel=1e-12 if dtype == "float64" else 1e-5)
    assert found.probabilities[np.argmax(expected)] == pytest.approx(1, abs=1e-12)
