"""What planners say at the decisions of given prompts."""

import functools

import numpy as np
import pytest

import bayespar as bp
from bayespar.planning.bail import BailPlanner
from bayespar.simulate.regret import PLANNERS
from bayespar.simulate.replay import as_function, replay


@functools.cache
def world(name, *arguments):
    family = bp.enumerate_program(functools.partial(bp.load_model(name), *arguments)).astype(np.float64)
    return family, bp.solve_experts(family)


@functools.cache
def prompts(name, *arguments, count=40):
    family, experts = world(name, *arguments)
    return bp.sample_corpus(family, count, 3, key=3, experts=experts)


WORLDS = [("workshop",), ("random_world", 5, (3, 2, 2, 2, 3, 2), 1.0, 0.3)]


def arrays(corpus):
    return corpus.instructions, corpus.observations, corpus.subgoals


@pytest.mark.parametrize("name", WORLDS, ids=lambda n: n[0])
def test_bail_replayed_is_the_conditional_of_the_corpus(name):
    family, experts = world(*name)
    corpus = prompts(*name)
    found = replay(BailPlanner(family, experts), family, *arrays(corpus))
    assert found.dtype == np.float64
    assert np.abs(found - corpus.bail).max() <= 1e-12
    # The twin: prompts whose last subgoal was another one are other prompts.
    other = corpus.subgoals.copy()
    other[:, 0, -1] = (other[:, 0, -1] + 1) % family.num_subgoals
    twin = replay(BailPlanner(family, experts), family, corpus.instructions, corpus.observations, other)
    assert np.abs(twin[:, 1:] - corpus.bail[:, 1:]).max() > 0.01
    assert np.array_equal(twin[:, 0], found[:, 0])  # what comes later changes nothing


@pytest.mark.parametrize("name", WORLDS, ids=lambda n: n[0])
def test_a_callable_from_a_prompt_says_the_same_one_by_one_and_in_a_batch(name):
    family, experts = world(*name)
    few = [a[:3] for a in arrays(prompts(*name))]
    asked = []

    def ask(prompt):
        asked.append(prompt)
        return bp.bail(family, prompt, experts=experts)

    exact = prompts(*name).bail[:3]
    assert np.abs(replay(ask, family, *few) - exact).max() <= 1e-12
    assert len(asked) == exact[..., 0].size
    assert {(p.num_episodes, p.step) for p in asked} == {(n, h) for n in range(3) for h in (1, 2)}

    class Many:
        def __call__(self, prompt):
            raise AssertionError("batch is there")

        def batch(self, prompts):
            return [ask(p) for p in prompts]

    assert np.abs(replay(Many(), family, *few) - exact).max() <= 1e-12


def test_with_the_key_of_the_corpus_a_planner_that_draws_draws_the_same():
    family, experts = world("workshop")
    thompson = PLANNERS["thompson"](family, experts, 0)
    corpus = bp.sample_corpus(family, 40, 4, thompson, key=7, experts=experts)
    executed = np.eye(family.num_subgoals)[corpus.subgoals]
    assert np.array_equal(replay(thompson, family, *arrays(corpus), key=7), executed)
    assert not np.array_equal(replay(thompson, family, *arrays(corpus), key=8), executed)


def test_a_planner_as_a_function_of_a_prompt():
    family, experts = world("workshop")
    ask = as_function(BailPlanner(family, experts), family)
    corpus = prompts("workshop")
    for n, h in ((0, 0), (1, 1), (2, 0)):
        past = (corpus.observations[0, :n], corpus.subgoals[0, :n], corpus.instructions[0, :n]) if n else ()
        now = corpus.observations[0, n, : h + 1], corpus.subgoals[0, n, :h], int(corpus.instructions[0, n])
        prompt = bp.Prompt(*(past or (None,) * 3), *now)
        assert np.abs(ask(prompt) - corpus.bail[0, n, h]).max() <= 1e-12
    with pytest.raises(bp.InvalidPromptError, match="a decision is made after"):
        ask(bp.Prompt())

    def plain(prompt):
        return np.ones(family.num_subgoals) / family.num_subgoals

    assert as_function(plain, family) is plain


def test_errors_name_the_place():
    family, _ = world("workshop")
    corpus = prompts("workshop")

    def broken(prompt):
        return [1.0, 0.0, 0.0] if prompt.num_episodes == 0 else [0.7, 0.7, 0.0]

    with pytest.raises(bp.InvalidPlannerError, match="prompt 0, episode 1, step 0"):
        replay(broken, family, *arrays(corpus))
    pair = (lambda w, key: (), lambda state, observed: (state, np.array([0.5, 0.5, 0.5])))
    with pytest.raises(bp.InvalidPlannerError, match="prompt 0, episode 0, step 0"):
        replay(pair, family, *arrays(corpus))
    with pytest.raises(ZeroDivisionError):  # a callable's own errors are its own
        replay(lambda prompt: 1 / 0, family, *arrays(corpus))
    with pytest.raises(bp.InvalidPromptError, match="instructions must be"):
        replay(pair, family, corpus.instructions[:, :1], corpus.observations, corpus.subgoals)
    with pytest.raises(bp.InvalidPromptError, match="indices run from 0 to 2"):
        replay(pair, family, corpus.instructions, corpus.observations, corpus.subgoals + 1)
    with pytest.raises(bp.InvalidPromptError, match="at least one prompt"):
        replay(pair, family, *(a[:0] for a in arrays(corpus)))


def test_several_distributions_where_one_is_asked_for_are_refused():
    family = bp.enumerate_program(bp.load_model("two_doors"))
    corpus = bp.sample_corpus(family, 1, 1, key=0)
    G = family.num_subgoals
    with pytest.raises(bp.InvalidPlannerError, match=r"prompt 0, episode 0, step 0.*a planner returned shape"):
        replay(lambda prompt: np.full((2, G), 1 / G), family, corpus.instructions, corpus.observations, corpus.subgoals)
