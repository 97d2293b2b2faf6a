"""The checks: right functions pass them, wrong ones get a message that says what is wrong; tests by e-values."""

import functools
import json
import math
import re

import numpy as np
import pytest

import bayespar as bp
from bayespar import testing
from bayespar.statistics import MeanConfidence
from bayespar.testing import matrix
from bayespar.testing.check import documentation
from bayespar.testing.false_alarms import CHEAP, false_alarms
from bayespar.testing.mutants import CORRECT, entries, written, written_mutants
from bayespar.testing.run import Estimator, run_exact
from bayespar.theory.verdict import Verdict

ROLES = [role for role in CORRECT if role not in ("sampler", "kernel", "loop")]
CHECKS = {check.name: check for check in (*testing.EXACT, *testing.STATISTICAL)}


@pytest.mark.parametrize("role", ROLES)
def test_our_own_functions_pass_every_exact_check(role):
    exact = [c.name for c in testing.EXACT]
    report = testing.run_checks(**{role: CORRECT[role]()}, checks=exact, examples=8)
    assert {r.check for r in report.results} == {c.name for c in testing.EXACT if role in c.roles}
    assert not report.failures, str(report)
    assert all(r.cases >= (10 if r.check == "extremes" else 8) for r in report.results)


def test_plain_filters_pass_so_that_their_mutants_fail_for_their_mistake_alone():
    for role, build in [
        ("posterior", written.PlainPosterior),
        ("planner", written.PlainPlanner),
        ("log_evidence", written.PlainEvidence),
    ]:
        report = testing.run_checks(**{role: build()}, checks=[c.name for c in testing.EXACT], examples=8)
        assert not report.failures, str(report)


@pytest.mark.parametrize("role", ["posterior", "planner", "sampler", "kernel", "loop"])
def test_our_own_functions_are_supported_by_simulation(role):
    names = [c.name for c in testing.STATISTICAL if role in c.roles]
    for result in testing.run_checks(**{role: CORRECT[role]()}, checks=names, resolution=0.25).results:
        assert result.verdict is Verdict.SUPPORTED, result.detail
        assert result.test.e_value < 1000


# Each check, and a mutant that no cheaper check kills.
ONLY = {
    "distribution": "NoNormalisation", "normalised": "Base2", "refusal": "FallsBackOnThePrior",
    "task order": "LastTaskLeftOut", "state order": "StartsInFirstState", "instruction order": "WrongInstruction",
    "duplicated task": "PriorFlat", "blank step": "LastObservationIgnored", "history split": "Forgetting",
    "ratio": "StaleContext", "tower": "IncrementalUpdate", "log-loss": "BeliefsOfThePast",
    "agreement": "Float32Votes", "extremes": "NoRescaling", "martingale": "FirstTasksOnly",
    "calibration": "AddedPerBlock", "labels": "TableOfThreeSteps", "ranks": "draws_too_narrow",
    "geweke": "kernel_without_prior", "regret": "NeverLearns",
}  # fmt: skip


@functools.cache
def mutants():
    return {m.name: m for m in written_mutants()}


@pytest.mark.parametrize("check", list(CHECKS))
def test_each_check_kills_what_no_cheaper_one_does(check):
    mutant = mutants()[ONLY[check]]
    row = matrix.examine(mutant.name, mutant.role, mutant.build, until=check)
    assert row.killed_by == [check]


def test_docstrings_say_what_a_check_catches_and_what_it_does_not():
    for check in CHECKS.values():
        assert all(len(check.documentation[part]) > 5 for part in ("property", "catches", "blind to", "cost"))

    def silent():
        """A property.

        Catches: something.
        """

    with pytest.raises(ValueError, match="blind to, cost"):
        documentation(silent)


# --- messages -------------------------------------------------------------------------------------------------------


def forgetful(family, prompt):
    """A filter that forgets: each episode back counts for 0.8 of its log-likelihood."""
    return written.Forgetting()(family, prompt)


def test_a_failure_names_the_property_the_smallest_world_and_the_numbers():
    with pytest.raises(AssertionError) as failure:
        testing.assert_correct(posterior=forgetful)
    text = str(failure.value)
    assert text.startswith("posterior: the history split check fails. The chain rule: ")
    assert re.search(r"largest difference 0\.\d+ at \[\d\], allowed 1e-10", text)
    world, prompt = re.search(r"family = (bp.Family.*)\nprompt = (bp.Prompt.*)\n", text).groups()
    family, prompt = eval(world, {"bp": bp}), eval(prompt, {"bp": bp})
    assert family.horizon == 2  # the smallest layout
    assert prompt.num_episodes == 2  # with one, the past and the prior forget alike
    assert prompt.step == 0
    # What is shown is a counterexample: the two numbers differ there.
    exact = bp.posterior(family, prompt).probabilities
    assert np.abs(forgetful(family, prompt) - exact).max() > 1e-3


def test_errors_and_shapes_are_findings():
    def broken(family, prompt):
        raise KeyError("room")

    with pytest.raises(AssertionError, match="the function raised KeyError: 'room'"):
        testing.assert_correct(posterior=broken)
    with pytest.raises(AssertionError, match=r"the function returned shape \[1\]; a posterior is \[2\] here"):
        testing.assert_correct(posterior=lambda family, prompt: [1.0])
    with pytest.raises(AssertionError, match="NaN, or an error"):
        testing.assert_correct(posterior=written.FallsBackOnThePrior(), checks=["refusal"])


def test_a_function_that_changes_its_answer_is_found():
    class Fickle:
        calls = 0

        def __call__(self, family, prompt):
            Fickle.calls += 1
            answer = bp.posterior(family, prompt).probabilities
            return answer if Fickle.calls % 7 else answer[::-1]

    with pytest.raises(AssertionError, match="the function gave another answer"):
        testing.assert_correct(posterior=Fickle(), checks=["agreement"])


def test_a_statistical_failure_shows_its_evidence():
    report = testing.run_checks(kernel=written.kernel_without_prior())
    (result,) = report.failures
    assert result.verdict is Verdict.REFUTED
    assert result.test.e_value >= 1000
    assert "is refuted with probability at most 0.001" in result.detail
    assert "geweke  kernel  refuted" in str(report)


def test_a_world_of_ones_own_is_the_only_one_that_is_used():
    world = bp.enumerate_program(bp.load_model("tiger"))
    seen = set()

    def mine(family, prompt):
        seen.add(family.tasks)
        return bp.posterior(world, prompt).probabilities

    report = testing.run_checks(posterior=mine, family=world, examples=10, resolution=0.3)
    verdicts = {r.check: r.verdict for r in report.results}
    assert seen == {world.tasks}
    assert verdicts["task order"] is Verdict.NOT_APPLICABLE
    assert verdicts["agreement"] is verdicts["tower"] is verdicts["calibration"] is Verdict.SUPPORTED
    assert not report.failures
    # The same filter, with the two tasks taken for each other, is refuted on that world.
    with pytest.raises(AssertionError):
        testing.assert_correct(posterior=lambda f, p: mine(f, p)[::-1], family=world, examples=10)


def test_a_world_in_which_everything_is_possible_has_nothing_to_refuse():
    world = bp.Family([0.5, 0.5], [1], np.ones((1, 1, 1)), [[[0.5, 0.5]], [[0.1, 0.9]]], np.zeros((2, 2)), horizon=2)
    (result,) = testing.run_checks(posterior=CORRECT["posterior"](), family=world, checks=["refusal"]).results
    assert result.verdict is Verdict.NOT_APPLICABLE


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="give a function to check"):
        testing.run_checks()
    with pytest.raises(ValueError, match="there is no check 'towr'; the checks are distribution, "):
        testing.run_checks(posterior=forgetful, checks=["towr"])


def test_the_same_key_finds_the_same_thing():
    def unnormalised(family, prompt):
        return 0.9 * family.task_prior

    f = Estimator("posterior", unnormalised)
    found = [run_exact(CHECKS["distribution"], f, key=key).detail for key in (0, 0, 5)]
    assert found[0] == found[1]
    assert found[2].startswith("posterior: the distribution check fails")


# --- tests by e-values ----------------------------------------------------------------------------------------------


def test_e_values_have_mean_at_most_one_and_grow_under_a_false_mean():
    rng = np.random.default_rng(0)
    draws = rng.choice([0.0, 0.2, 1.0], p=[0.5, 0.25, 0.25], size=(4000, 200))  # mean 0.3
    for mean, above, right in [(0.3, False, True), (0.3, True, True), (0.4, True, True), (0.2, True, False)]:
        values = []
        for row in draws[:1000]:
            sequence = MeanConfidence(0, 1, 0.01, plan=200)
            for batch in np.split(row, 4):
                sequence.update(batch)
            values.append(math.exp(sequence.log_e_value(mean, above=above)))
        if right:
            # Markov: at most 1/20 are above 20, and the mean is at most 1 (its standard error is below 0.2 here).
            assert np.mean(values) <= 1.5
            assert np.mean(np.array(values) >= 20) <= 0.05
        else:
            assert np.mean(np.array(values) >= 20) > 0.5
    inside = MeanConfidence(0, 1, 0.01, plan=200)
    interval = inside.update(draws[0])
    assert inside.log_e_value(interval.low - 0.01) >= math.log(100) - 1e-9
    assert inside.log_e_value(interval.mean) < 0


@pytest.mark.parametrize("check", ["martingale", "calibration", "labels"])
def test_false_alarms_stay_below_their_level_and_a_mistake_is_found(check):
    found = false_alarms(check, 100)
    assert found.low <= found.level
    assert found.supported + found.refuted == 100

    def wrong(family, prompt):
        answer = bp.posterior(family, prompt).probabilities if check != "labels" else bp.bail(family, prompt)
        return answer[::-1]

    role = "planner" if check == "labels" else "posterior"
    memo = functools.cache(lambda i: wrong(*kept[i]))
    kept = {}

    def mistaken(family, prompt):
        kept[id(prompt)] = family, prompt
        return memo(id(prompt))

    twin = false_alarms(check, 20, subject=Estimator(role, mistaken))
    assert twin.refuted == 20
    assert "ranks" in CHEAP


def test_a_test_stops_early_and_keeps_its_budget():
    rng = np.random.default_rng(0)
    counts = []

    def draw(mean):
        def batch(n):
            counts.append(n)
            return np.where(rng.random((n, 2)) < (1 + mean) / 2, 1.0, -1.0)

        return batch

    far = testing.sequential_test(draw(0.6))
    assert far.verdict is Verdict.REFUTED
    assert far.draws < far.plan.budget / 8
    near = testing.sequential_test(draw(0.0))
    assert near.verdict is Verdict.SUPPORTED
    assert near.draws <= near.plan.budget
    poor = testing.sequential_test(draw(0.0), budget=300)
    assert poor.verdict is Verdict.INCONCLUSIVE
    assert poor.draws == 300
    said = []
    below = testing.sequential_test(draw(-0.5), one_sided=True, progress=lambda n, limit: said.append((n, limit)))
    assert below.verdict is Verdict.SUPPORTED
    assert said[-1] == (below.draws, below.plan.budget)


@pytest.mark.parametrize("mean", [0.1, -0.1])
def test_the_stated_power_is_kept_at_the_resolution(mean):
    """Draws of +-1, the largest variance there is, with a mean at the resolution: refuted within the budget."""
    rng = np.random.default_rng(1)
    verdicts = [
        testing.sequential_test(lambda n: np.where(rng.random((n, 3)) < (1 + mean) / 2, 1.0, -1.0)).verdict
        for _ in range(30)
    ]
    assert verdicts == [Verdict.REFUTED] * 30


def test_results_are_plain_data():
    result = testing.run_checks(posterior=CORRECT["posterior"](), checks=["distribution"], examples=5).results[0]
    assert json.dumps({"check": result.check, "verdict": result.verdict, "cases": result.cases})
    assert entries.installed("evidence").log_evidence is bp.log_evidence
