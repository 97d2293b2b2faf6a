"""Several Actors: who draws what, what it costs, and the worlds that show it."""

import dataclasses
import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import bayespar as bp
from bayespar.models.two_doors import two_doors
from bayespar.models.warehouse import warehouse
from bayespar.planning.expected_regret import PLANNERS
from bayespar.planning.several import IndependentPlanner, SequentialPlanner, independent, sequential
from bayespar.theory.claim import Settings, Subject
from bayespar.theory.claims import m1, seq
from bayespar.theory.closed_forms import two_doors_regret
from bayespar.theory.verdict import Verdict

SETTINGS = Settings(full=False, alpha=1e-5)
SIZES = [(2, 3), (2, 2, 2), (3, 1, 2), (4,)]


def team_of_sizes(sizes):
    return bp.Team({f"actor {k}": [f"{k}.{g}" for g in range(n)] for k, n in enumerate(sizes)})


@functools.cache
def world(program, actors):
    family = bp.enumerate_program(functools.partial(program, actors))
    return family, bp.solve_experts(family)


@st.composite
def votes(draw):
    """A team, a posterior with zeros over five tasks, and each task's joint expert subgoal."""
    team = team_of_sizes(draw(st.sampled_from(SIZES)))
    weights = draw(st.lists(st.integers(0, 5), min_size=5, max_size=5).filter(any))
    actions = draw(st.lists(st.integers(0, len(team) - 1), min_size=5, max_size=5))
    return team, np.array(weights) / sum(weights), np.array(actions)


def bail_of(team, posterior, actions):
    return np.bincount(actions, posterior, len(team))


def drawn_in_turn(team, posterior, actions, looks_back):
    """The law of the joint subgoal if Actor k conditions on the ``looks_back`` Actors before it, by plain loops."""
    joint = bail_of(team, posterior, actions).reshape(team.sizes)
    law = np.zeros(team.sizes)
    for choice in np.ndindex(*team.sizes):
        law[choice] = 1
        for k in range(len(choice)):
            seen = range(max(0, k - looks_back), k)
            possible = [c for c in np.ndindex(*team.sizes) if all(c[j] == choice[j] for j in seen)]
            before = sum(joint[c] for c in possible)
            law[choice] *= sum(joint[c] for c in possible if c[k] == choice[k]) / before if before else 0
    return law.ravel()


@given(votes())
@settings(max_examples=150, deadline=None)
def test_drawing_in_turn_is_drawing_jointly(drawn):
    team, posterior, actions = drawn
    law = sequential(team, posterior, actions)
    np.testing.assert_allclose(law, bail_of(team, posterior, actions), atol=1e-14)
    np.testing.assert_allclose(law, drawn_in_turn(team, posterior, actions, len(team.sizes)), atol=1e-14)


@given(votes())
@settings(max_examples=150, deadline=None)
def test_independent_draws_have_the_product_of_the_marginals(drawn):
    team, posterior, actions = drawn
    law = independent(team, posterior, actions)
    np.testing.assert_allclose(law, drawn_in_turn(team, posterior, actions, 0), atol=1e-14)
    joint = bail_of(team, posterior, actions)
    for one, other in zip(team.marginals(law), team.marginals(joint), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-14)


def test_looking_back_at_one_actor_only_is_not_enough():
    """Three Actors of whom the first and the last must agree, whatever the second does."""
    team = team_of_sizes((2, 2, 2))
    actions = team.join([[0, 0, 0], [0, 1, 0], [1, 0, 1], [1, 1, 1]])
    posterior = np.full(4, 0.25)
    right = bail_of(team, posterior, actions)
    np.testing.assert_allclose(sequential(team, posterior, actions), right, atol=1e-15)
    assert np.abs(drawn_in_turn(team, posterior, actions, 1) - right).max() == pytest.approx(1 / 8)
    assert np.abs(independent(team, posterior, actions) - right).max() == pytest.approx(1 / 8)


@pytest.mark.parametrize("actors", range(1, 7))
def test_closed_forms_of_the_two_doors(actors):
    """M1: what the doors cost, joint and independent, at every T; the K-th power and the geometric series by hand."""
    family, experts = world(two_doors, actors)
    fork = bp.Prompt(current_observations=[0])
    joint = bp.bail(family, fork, experts=experts)
    team = family.subgoals
    meet = [team.join([d] * actors) for d in (0, 1)]
    np.testing.assert_array_equal(joint[meet], 0.5)
    alone = team.product(team.marginals(joint))
    np.testing.assert_allclose(alone, 2.0**-actors)
    T = 40
    expected = np.array([[two_doors_regret(actors, t, independent=i) for t in range(1, T + 1)] for i in (False, True)])
    loss, unknown, split = 1 - 2.0**-actors, 1.0, 1 - 2.0 ** (1 - actors)
    for t in range(T):
        step = expected[1, t] - (expected[1, t - 1] if t else 0)
        assert step == pytest.approx(unknown * loss, abs=1e-12)
        unknown *= split
    for k, name in enumerate(("bail", "independent")):
        np.testing.assert_allclose(bp.expected_regret(family, name, 0.0, T).cumulative, expected[[k, k]], atol=1e-12)


def test_simulated_regret_of_the_three_schemes():
    family, experts = world(two_doors, 2)
    for name, predicted in (("bail", 0.5), ("sequential", 0.5), ("independent", 1.5)):
        curves = bp.simulate_regret(family, 0, name, 0.0, 40, 4096, experts=experts)
        interval = curves.interval(alpha=1e-6)
        assert interval.contains(predicted)
        assert interval.half_width < 0.25


@pytest.mark.parametrize(("program", "actors"), [(two_doors, 3), (warehouse, 2)])
def test_planners_agree_with_exact_regret(program, actors):
    """The first episode, by following the planner through every history."""
    family, experts = world(program, actors)
    histories = bp.enumerate_histories(family)
    for name, kind in (("sequential", SequentialPlanner), ("independent", IndependentPlanner)):
        value = bp.policy_value(family, kind(family, experts), histories=histories)
        lost = (experts.value - value) @ family.instruction_prior
        exact = bp.expected_regret(family, name, 0.0, 1)
        np.testing.assert_allclose(exact.regret[exact.classes.label, 0], lost, atol=1e-12)
    one, other = (bp.expected_regret(family, name, 0.1, 3) for name in ("bail", "sequential"))
    np.testing.assert_allclose(one.regret, other.regret, atol=1e-12)


def test_a_world_with_one_actor_has_nobody_to_coordinate():
    family = bp.enumerate_program(bp.load_model("needle"))
    for name in ("independent", "sequential"):
        assert name in PLANNERS
        for call in (
            lambda name=name: bp.simulate_regret(family, 0, name, 0.0, 2, 2),
            lambda name=name: bp.expected_regret(family, name, 0.0, 2),
        ):
            with pytest.raises(bp.InvalidPlannerError, match="does not say which Actor does what"):
                call()


def test_a_planner_that_knows_nothing_any_more_says_so():
    team = team_of_sizes((2, 2))
    for law in (independent, sequential):
        assert law(team, np.full(3, np.nan), np.zeros(3, int)).sum() != 1


def test_the_claims_hold_and_notice_what_is_wrong(monkeypatch):
    monkeypatch.setattr(m1, "ACTORS", range(2, 4))
    subject = Subject("two_doors", two_doors)
    for claim in (m1, seq):
        assert claim.check(subject, SETTINGS).verdict is Verdict.SUPPORTED
        twins = claim.twins(subject, SETTINGS)
        assert twins
        assert all(t.rejected for t in twins)
    assert m1.check(subject, SETTINGS).tightness >= 0.25
    assert seq.check(Subject("needle", bp.load_model("needle")), SETTINGS).reason == "one Actor"
    monkeypatch.setattr(seq, "sequential", independent)
    assert seq.check(subject, SETTINGS).verdict is Verdict.REFUTED
    with monkeypatch.context() as patch:
        wrong = lambda *a, **k: 1.001 * two_doors_regret(*a, **k)  # noqa: E731
        patch.setattr(m1, "two_doors_regret", wrong)
        assert m1.check(subject, SETTINGS).verdict is Verdict.REFUTED
    right = m1.epsilon_greedy
    monkeypatch.setattr(m1, "epsilon_greedy", lambda *a, **k: right(*a))  # the BAIL term once
    assert m1.check(subject, SETTINGS).verdict is Verdict.REFUTED


def test_the_warehouse_must_be_read_with_its_instruction():
    family, experts = world(warehouse, 2)
    gate = family.observations.index("crate at the gate")
    ada, ben = (
        bp.bail(family, bp.Prompt(current_observations=[gate], current_instruction=w), experts=experts) for w in (0, 1)
    )
    team = family.subgoals
    np.testing.assert_allclose([ada[team.join([b, b])] for b in range(3)], [0.6, 0.3, 0.1])  # where Ada's bay is
    np.testing.assert_allclose([ben[team.join([b, b])] for b in range(3)], [0.2, 0.35, 0.45])
    exact = bp.expected_regret(family, "bail", 0.1, 3)
    np.testing.assert_allclose(family.instruction_prior @ exact.by_instruction.swapaxes(0, 1), exact.regret, atol=1e-14)
    first, second = exact.by_instruction[:, 0, 0]
    assert abs(first - second) > 0.1
    curves = bp.simulate_regret(family, 0, "bail", 0.1, 3, 8192, experts=experts)
    assert abs(curves.instructions.mean() - 0.5) < 0.02
    for w in (0, 1):
        assert curves.under(w)[0] == pytest.approx(exact.by_instruction[w, 0, 0], abs=0.03)


def test_instructions_of_runs_that_are_over():
    """Runs stop early once nothing can be lost any more; what they would have been asked is still what it is."""
    family, experts = world(warehouse, 2)
    early = bp.simulate_regret(family, 0, "bail", 0.0, 400, 32, experts=experts)
    planner = bp.as_planner((lambda w, k: (), lambda s, o: (s, np.full(9, 1 / 9))), family)
    whole = bp.simulate_regret(family, 0, planner, 0.0, 400, 32, experts=experts)
    np.testing.assert_array_equal(early.instructions, whole.instructions)


class TestWorlds:
    def test_the_crate_moves_only_if_all_pull(self):
        family, _ = world(warehouse, 3)
        P, team = family.dense_transition()[0, 0], family.subgoals
        for g, own in enumerate(team.split(np.arange(len(team)))):
            together = len(set(own.tolist())) == 1
            expected = np.eye(4)
            if together:
                expected = (1 - 0.9**3) * np.eye(4) + 0.9**3 * np.eye(4)[own[0] + 1]
            np.testing.assert_allclose(P[g], expected, atol=1e-15)

    def test_doors_are_reached_by_walking(self):
        family, _ = world(two_doors, 2)
        assert isinstance(family.transition, bp.Factored)
        P = family.dense_transition()[0, 0]
        fork = family.states.index("fork, fork")
        for g, where in enumerate(itertools.product(["red door", "blue door"], repeat=2)):
            assert P[g, fork, family.states.index(", ".join(where))] == 1

    def test_light_under_a_door_tells_it(self):
        family = bp.enumerate_program(functools.partial(two_doors, 2, 0.25))
        alone = bp.expected_regret(family, "independent", 0.0, 40).cumulative
        unknown = 0.5 * 0.75  # they part, and see no light
        np.testing.assert_allclose(alone[:, -1], 0.75 / (1 - unknown), atol=1e-9)

    @pytest.mark.parametrize(
        ("program", "bad"),
        [(two_doors, (0,)), (two_doors, (7,)), (two_doors, (2, 1.5)), (warehouse, (1,)), (warehouse, (5,))],
    )
    def test_other_sizes_are_refused(self, program, bad):
        with pytest.raises((ValueError, bp.InvalidProgramError), match=r"Actors|workers"):
            bp.enumerate_program(functools.partial(program, *bad))

    def test_a_team_survives_everything_that_makes_a_family(self):
        family, _ = world(two_doors, 2)
        for made in (
            family.astype("float32"),
            bp.task_classes(family).family,
            bp.Family(**{f.name: getattr(family, f.name) for f in dataclasses.fields(family) if f.name != "sites"}),
        ):
            assert isinstance(made.subgoals, bp.Team)
            assert made.subgoals.actors == family.subgoals.actors
        assert isinstance(family.world(0).subgoals, bp.Team)
        prompt = bp.Prompt([[0, 3]], [[1]], None, [0])
        assert "Subgoal: Ada: red door, Ben: blue door" in prompt.to_text(family)
        again = bp.Prompt.from_text(prompt.to_text(family), family)
        np.testing.assert_array_equal(again.subgoals, prompt.subgoals)
