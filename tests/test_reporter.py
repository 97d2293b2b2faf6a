"""A Reporter learned by contrast."""

import functools
import itertools

import numpy as np
import pytest

import bayespar as bp
from bayespar.errors import InvalidPlannerError, InvalidWorldError
from bayespar.learned.reporter import (
    Pairs,
    contrast_constant,
    density_ratio,
    draw_pairs,
    embedding_critic,
    learn_reporter,
    reporter_error,
    reporter_of,
    scene_law,
    tabular_critic,
)
from bayespar.models.needle import needle
from bayespar.models.random_world import random_world
from bayespar.planning.information import graph_table
from bayespar.planning.misspecified import certify, practical_setting
from bayespar.planning.practical import bail_policy, practice
from bayespar.planning.reporters import with_reporter
from bayespar.theory.bounds import posterior_decay
from bayespar.theory.claims.e2 import reading
from bayespar.theory.constants import instance


@functools.cache
def world():
    """Scenes of two tasks with four observations, one of them impossible somewhere."""
    program = functools.partial(random_world, seed=2, sizes=(2, 3, 2, 4, 3), concentration=2.0)
    family = bp.enumerate_program(program).astype(np.float64)
    emission = np.array(family.emission)
    emission[0, 1, 2] = 0
    return with_reporter(family, emission / emission.sum(axis=2, keepdims=True))


def exact_pairs(family, total, negatives=1):
    """Pairs as often as expected."""
    law, rows = scene_law(family), np.asarray(family.emission)
    joint = law[..., None] * rows
    return Pairs(total * joint, total * negatives * law[..., None] * joint.sum(axis=(0, 1)), negatives)


def test_scenes_by_every_path():
    family = world()
    expected = np.zeros((2, 3))
    for z, path in itertools.product(range(2), itertools.product(range(3), repeat=3)):
        chance = family.task_prior[z] * family.initial[z, path[0]]
        for here, there in itertools.pairwise(path):
            chance *= family.transition[z, 0, :, here, there].mean()
        for s in path:
            expected[z, s] += chance / 3
    np.testing.assert_allclose(scene_law(family), expected, atol=1e-14)
    shared = bp.enumerate_program(bp.load_model("tiger"))
    assert scene_law(shared).shape == (1, 8)
    assert scene_law(shared).sum() == pytest.approx(1)


@pytest.mark.parametrize("negatives", [1, 5])
def test_the_best_critic_finds_the_emission(negatives):
    family = world()
    pairs = exact_pairs(family, 1e12, negatives)
    odds = tabular_critic(pairs)
    marginal = np.einsum("zs,zso->o", scene_law(family), family.emission)
    np.testing.assert_allclose(odds, family.emission / (negatives * marginal), rtol=1e-9)
    np.testing.assert_allclose(density_ratio(odds, pairs).sum(axis=2), 1, rtol=1e-9)
    np.testing.assert_allclose(reporter_of(odds, pairs), family.emission, atol=1e-9)
    # k cancels where the density is renormalised: only its mass shows that it was forgotten.
    np.testing.assert_allclose(reporter_of(odds / negatives, pairs), family.emission, atol=1e-9)


def test_logistic_loss_is_least_at_the_ratio_of_counts():
    """Among all tables, by the derivative of the loss in every cell."""
    pairs = draw_pairs(scene_law(world()), world().emission, 500, negatives=3)
    odds = tabular_critic(pairs)
    mismatched = pairs.mismatched + 0.5
    slope = mismatched * odds / (1 + odds) - pairs.matched / (1 + odds)
    np.testing.assert_allclose(slope, 0, atol=1e-12)


def test_pairs_that_never_came_up():
    matched = np.array([[[3.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    mismatched = np.array([[[2.0, 1.0, 0.0], [0.0, 2.0, 1.0]]])
    pairs = Pairs(matched, mismatched, 1)
    odds = tabular_critic(pairs)
    np.testing.assert_allclose(odds, [[[3 / 2.5, 0, 2], [0, 0, 0]]])
    spoken = reporter_of(odds, pairs)
    np.testing.assert_allclose(spoken[0, 0], np.array([0.9, 0, 0.5]) / 1.4)
    np.testing.assert_allclose(spoken[0, 1], [0.75, 0, 0.25])  # nothing is known of the scene: the marginal


def test_mismatched_pairs_are_independent():
    family = world()
    pairs = draw_pairs(scene_law(family), family.emission, 10**6, negatives=2, key=3)
    assert pairs.matched.sum() == 10**6
    assert pairs.mismatched.sum() == 2 * 10**6
    for counts, expected in zip(
        (pairs.matched, pairs.mismatched), vars(exact_pairs(family, 1e6, 2)).values(), strict=False
    ):
        assert (np.abs(counts - expected) <= 6 * np.sqrt(expected)).all()
    many = draw_pairs(scene_law(family), family.emission, 50, size=7, key=3)
    assert many.matched.shape == (7, 2, 3, 4)
    assert reporter_of(tabular_critic(many), many).shape == (7, 2, 3, 4)


@pytest.mark.parametrize("negatives", [1, 6])
def test_the_error_falls_with_the_derived_constant(negatives):
    family = world()
    law, n = scene_law(family), 10**6
    pairs = draw_pairs(law, family.emission, n, negatives=negatives, size=2000, key=1)
    spoken = reporter_of(tabular_critic(pairs), pairs)
    cells = contrast_constant(law, family.emission, negatives)
    distance = np.abs(spoken - family.emission) * law[..., None] / 2 * np.sqrt(n)
    spread = 5 * distance.std(axis=0) / np.sqrt(2000)
    assert (np.abs(distance.mean(axis=0) - cells) <= spread + 5e-3 * cells).all()
    errors = reporter_error(law, family.emission, spoken)
    assert errors.mean() * np.sqrt(n) == pytest.approx(cells.sum(), rel=0.03)
    assert cells[0, 1, 2] == 0


def test_more_negatives_never_hurt():
    totals = [contrast_constant(scene_law(world()), world().emission, k).sum() for k in (1, 4, 64)]
    assert totals == sorted(totals, reverse=True)


def test_an_embedding_of_full_dimension_is_as_good_as_a_table_and_a_low_one_is_not():
    family = world()
    law = scene_law(family)
    pairs = draw_pairs(law, family.emission, 10**6, key=2)
    table = tabular_critic(pairs)
    best = reporter_error(law, family.emission, reporter_of(table, pairs))
    errors = [
        float(reporter_error(law, family.emission, reporter_of(embedding_critic(pairs, r, steps=800), pairs)))
        for r in (1, 4)
    ]
    assert errors[1] == pytest.approx(float(best), rel=0.05)
    assert errors[0] > 10 * best
    again = draw_pairs(law, family.emission, 10**8, key=2)  # and it stays there
    low = reporter_error(law, family.emission, reporter_of(embedding_critic(again, 1, steps=800), again))
    assert low == pytest.approx(errors[0], rel=0.05)


def test_learning_says_what_came_of_it():
    family = world()
    rough, fine = (learn_reporter(family, n, negatives=4, key=5) for n in (200, 200_000))
    for found in (rough, fine):
        law = scene_law(family)
        assert found.error == pytest.approx(
            np.abs(found.emission - family.emission).sum(axis=2).ravel() @ law.ravel() / 2
        )
    assert fine.error < rough.error / 5
    assert fine.mass == pytest.approx(1, abs=0.02)
    embedded = learn_reporter(family, 200_000, critic="embedding", negatives=4, key=5)
    assert embedded.error == pytest.approx(fine.error, rel=0.3)
    same = learn_reporter(family, 200, negatives=4, key=5)
    assert np.array_equal(same.emission, rough.emission)


def test_a_learned_reporter_is_believed_if_it_knows_what_is_impossible():
    """A table that never heard a word in a scene never says it there; an embedding does, now and then."""
    family = bp.enumerate_program(bp.load_model("tiger"))
    assert len(practical_setting(family, learn_reporter(family, 2000).emission).true) == 2
    embedded = learn_reporter(family, 2000, critic="embedding", dimension=2)
    few = learn_reporter(family, 3)  # most scenes never came up, and the marginal is a bad guess there
    for spoken in (embedded, few):
        with pytest.raises(InvalidWorldError, match="holds impossible"):
            practical_setting(family, spoken.emission)


def test_with_more_pairs_rates_and_doubts_come_to_those_of_the_believed_reporter():
    """On the needle, whose sign is read in every other episode."""
    family = bp.enumerate_program(functools.partial(needle, tasks=3))
    reads, coin = reading(3)[0], np.full(5, 0.5)

    def rate_and_doubt(emission):
        setting = practical_setting(family, emission)
        explorer = graph_table(setting.graph, reads)
        doubt = practice(setting, bail_policy, coin, explorer).doubt
        return certify(setting, explorer).rate(0.5).max(), doubt[:, -1, -1]

    rate, doubt = rate_and_doubt(None)
    few, many = ([learn_reporter(family, n, key=k).emission for k in range(4)] for n in (300, 10**6))
    off = [[np.abs(d - doubt).max() for _, d in map(rate_and_doubt, spoken)] for spoken in (few, many)]
    assert max(off[1]) < min(off[0])
    assert max(off[1]) < 1e-3
    missed = [[abs(rate_and_doubt(emission)[0] - rate) for emission in spoken] for spoken in (few, many)]
    assert max(missed[1]) < min(missed[0])
    assert max(missed[1]) < 0.02


def test_what_is_refused():
    family = world()
    law, rows = scene_law(family), family.emission
    for call, error, message in (
        (lambda: learn_reporter(family, 0), InvalidPlannerError, "count = 0"),
        (lambda: learn_reporter(family, 10, negatives=0), InvalidPlannerError, "negatives = 0"),
        (lambda: learn_reporter(family, 10, critic="clip"), InvalidPlannerError, "critic = 'clip'"),
        (lambda: learn_reporter(family, 10, dimension=2), InvalidPlannerError, "tabular critic has none"),
        (lambda: learn_reporter(family, 10, critic="embedding", dimension=0), InvalidPlannerError, "dimension = 0"),
        (lambda: learn_reporter(family, 10, key="a"), InvalidPlannerError, "key"),
        (lambda: draw_pairs(2 * law, rows, 10), InvalidWorldError, "sums to 2"),
        (lambda: draw_pairs(law[:, :2], rows, 10), InvalidWorldError, "number of states"),
        (lambda: draw_pairs(law, rows[0], 10), InvalidWorldError, r"\[Z or 1, S, O\]"),
        (lambda: draw_pairs(law, -rows, 10), InvalidWorldError, "negative"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_who_knows_the_learned_reporter_is_well_specified():
    family = bp.enumerate_program(functools.partial(needle, tasks=3))
    spoken = learn_reporter(family, 300, key=4).emission
    reads, coin = reading(3)[0], np.full(4, 0.7)
    setting = practical_setting(with_reporter(family, spoken))
    explorer = graph_table(setting.graph, reads)
    bound = posterior_decay(instance(setting.graph, explorer), coin)[..., None]
    found = practice(setting, bail_policy, coin, explorer)
    assert (found.doubt <= bound + 1e-12).all()
    assert bound[:, -1].max() < 0.9
