"""The count-based predictor, and the law of all prompts that its rate follows from."""

import functools
import itertools
import math

import numpy as np
import pytest

import bayespar as bp
from bayespar.errors import InvalidPlannerError, InvalidPromptError, TooLargeError
from bayespar.learned.counts import CountPredictor, PromptLaw, frequencies, prompt_law
from bayespar.models.random_world import random_world
from bayespar.simulate.replay import replay

PROGRAM = functools.partial(random_world, seed=3, sizes=(3, 2, 2, 2, 3, 2))


@functools.cache
def corpus():
    return bp.sample_corpus(bp.enumerate_program(PROGRAM), 300, 2, key=1)


@functools.cache
def law(episodes=1):
    return prompt_law(PROGRAM, episodes)


def prompt_at(c, b, n, h):
    past = (c.observations[b, :n], c.subgoals[b, :n], c.instructions[b, :n]) if n else (None, None, None)
    return bp.Prompt(*past, c.observations[b, n, : h + 1], c.subgoals[b, n, :h], c.instructions[b, n])


def same_prompt(c, a, b, n, h):
    return all(
        np.array_equal(x[a], x[b])
        for x in (
            c.instructions[:, : n + 1],
            c.observations[:, :n],
            c.subgoals[:, :n],
            c.observations[:, n, : h + 1],
            c.subgoals[:, n, :h],
        )
    )


def test_it_counts_the_labels_after_each_prompt():
    c = corpus()
    predictor = CountPredictor(c, 2)
    table = predictor.predict(c.instructions, c.observations, c.subgoals)
    for b, n, h in itertools.product((0, 7, 299), range(2), range(2)):
        labels = [c.labels[a, n, h] for a in range(300) if same_prompt(c, a, b, n, h)]
        expected = np.bincount(labels, minlength=2) / len(labels)
        np.testing.assert_allclose(table[b, n, h], expected)
        np.testing.assert_allclose(predictor(prompt_at(c, b, n, h)), expected)


def test_it_is_a_planner():
    c, family = corpus(), bp.enumerate_program(PROGRAM)
    predictor = CountPredictor(c, 2)
    prompts = c.instructions[:40], c.observations[:40], c.subgoals[:40]
    np.testing.assert_array_equal(replay(predictor, family, *prompts), predictor.predict(*prompts))


def test_it_is_uniform_after_a_prompt_that_never_occurred():
    c = corpus()
    few = bp.simulate.corpus.Corpus(*(getattr(c, f)[:1] for f in c.__dataclass_fields__))
    predictor = CountPredictor(few, 2)
    unseen = bp.Prompt(None, None, None, [1 - c.observations[0, 0, 0]])
    assert predictor(unseen).tolist() == [0.5, 0.5]
    assert sorted(predictor(prompt_at(c, 0, 1, 1)).tolist()) == [0, 1]
    np.testing.assert_array_equal(frequencies(np.array([[0.0, 0, 0, 0], [1, 0, 0, 3]]))[:, 0], [0.25, 0.25])


def test_what_is_refused():
    with pytest.raises(InvalidPlannerError, match="label 1, but subgoals = 1"):
        CountPredictor(corpus(), 1)
    with pytest.raises(InvalidPlannerError, match="subgoals = 0"):
        CountPredictor(corpus(), 0)
    with pytest.raises(InvalidPromptError, match="no decision"):
        CountPredictor(corpus(), 2)(bp.Prompt())
    with pytest.raises(InvalidPromptError, match="H = 1"):
        prompt_law(bp.Family([1.0], [1.0], np.ones((1, 1, 1)), [[1.0]], np.zeros((1, 1)), horizon=1))
    with pytest.raises(TooLargeError, match="fewer episodes"):
        prompt_law(bp.load_model("tiger"), 6)
    with pytest.raises(TooLargeError, match="terms"):
        law(2).expected_error(2 * 10**9)


def chance(family, z, o, g):
    """L_z of a history, by a plain forward pass."""
    weight = family.initial[z] * family.emission[z][:, o[0]]
    for subgoal, heard in zip(g, o[1:], strict=True):
        weight = (weight @ family.transition[z, 0, subgoal]) * family.emission[z][:, heard]
    return weight.sum()


def test_the_law_lists_every_prompt_of_two_episodes():
    """Each prompt's probability by plain forward passes over hidden states, its label by :func:`bayespar.bail`."""
    family = bp.enumerate_program(PROGRAM).astype(np.float64)
    G, O, W, H = 2, 2, 2, 3
    found = law(2)
    assert found.positions == 4
    np.testing.assert_allclose(np.bincount(found.position, found.mass), 1)

    whole = [(o, g) for o in itertools.product(range(O), repeat=H) for g in itertools.product(range(G), repeat=H - 1)]
    experts = bp.solve_experts(family)
    expected = []
    # A third of them is enough: every past of the last position with its first history.
    for (o, g), w, v, (a, b), c in itertools.product(
        whole[::7], range(W), range(W), [(0, 0), (1, 0)], itertools.product(range(G), repeat=1)
    ):
        now, done = [a, b], list(c)
        both = sum(p * chance(family, z, o, g) * chance(family, z, now, done) for z, p in enumerate(family.task_prior))
        mass = both * family.instruction_prior[w] * family.instruction_prior[v] * 0.5 ** (H - 1 + 1)
        label = bp.bail(family, bp.Prompt([o], [g], [w], now, done, v), experts=experts)
        expected.append((mass, *label))
    rows = np.column_stack([found.mass, found.bail])[found.position == 3]
    for row in expected:
        assert np.abs(rows - row).max(axis=1).min() < 1e-12


def test_expected_error_by_listing_every_corpus():
    small = PromptLaw(np.array([0, 0]), np.array([0.3, 0.7]), np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]]))
    cells = (small.mass[:, None] * small.bail).reshape(-1)
    for n in (1, 2, 5):
        total = 0.0
        for drawn in itertools.product(range(n + 1), repeat=4):
            counts = np.array([*drawn, 0.0, 0.0])
            if counts.sum() == n:
                ways = math.factorial(n) / math.prod(math.factorial(k) for k in drawn)
                total += ways * np.prod(cells**counts) * small.error(frequencies(counts.reshape(2, 3)))
        assert small.expected_error(n) == pytest.approx(total, abs=1e-13)


def test_what_is_unseen_is_guessed():
    found = law()
    nothing = found.error(frequencies(np.zeros_like(found.bail)))
    assert found.unseen(0) == pytest.approx(float(nothing))
    assert found.unseen(50) < found.expected_error(50)
    assert found.expected_error(1) > found.unseen(1) > found.unseen(2)


def test_the_constant_is_where_the_expectation_goes():
    constants = [law().expected_error(n) * np.sqrt(n) / law().constant for n in (10**4, 10**5, 10**6)]
    errors = np.abs(np.array(constants) - 1)
    assert errors[-1] < 2e-3
    assert (errors[1:] < errors[:-1]).all()
    assert law().cells.sum() == law().constant
    certain = PromptLaw(np.array([0]), np.array([1.0]), np.array([[1.0, 0.0]]))
    assert certain.constant == 0
    assert certain.expected_error(1) == 0  # a certain label is learned the first time


def test_corpora_err_as_expected():
    """Those that are drawn cell by cell, and a real one: its prompts count at every position at once."""
    rng = np.random.default_rng(0)
    errors = law(2).error(frequencies(law(2).draw(300, 400, rng)))
    assert errors.mean() == pytest.approx(law(2).expected_error(300), abs=5 * errors.std() / 20)
    c, family = corpus(), bp.enumerate_program(PROGRAM).astype(np.float64)
    predictor, experts = CountPredictor(c, 2), bp.solve_experts(family)
    total = 0.0
    for h, w, a, g, b in itertools.product(range(2), range(2), range(2), range(2), range(2)):
        if h == 0 and (g or b):
            continue
        o, done = ([a], []) if h == 0 else ([a, b], [g])
        mass = sum(p * chance(family, z, o, done) for z, p in enumerate(family.task_prior))
        prompt = bp.Prompt(None, None, None, o, done, w)
        distance = np.abs(predictor(prompt) - bp.bail(family, prompt, experts=experts)).sum() / 2
        total += mass * family.instruction_prior[w] * 0.5**h * distance / 2
    single = law().error(frequencies(law().draw(300, 400, rng)))
    assert single.min() < total < single.max()


def test_shuffled_labels_stay_at_a_floor():
    shuffled, rng = law().shuffled(), np.random.default_rng(1)
    floor = law().error(shuffled.bail)
    assert floor > 0.05
    np.testing.assert_allclose(shuffled.error(shuffled.bail), 0)
    errors = [law().error(frequencies(shuffled.draw(n, 50, rng))).mean() for n in (10**4, 10**6)]
    np.testing.assert_allclose(errors, floor, rtol=0.05)
    for h in range(2):
        rows = law().position == h
        average = law().mass[rows] @ law().bail[rows]
        np.testing.assert_allclose(shuffled.bail[rows], np.tile(average, (rows.sum(), 1)))
