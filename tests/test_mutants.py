"""The catalogue of mutants: large enough, mostly made by machine, true to the source, and killed."""

import re
from pathlib import Path

import pytest

from bayespar.testing import EXACT, STATISTICAL, matrix
from bayespar.testing.mutants import CORRECT, entries, mechanical, mechanical_mutants, written_mutants
from bayespar.testing.mutants.equivalent import EQUIVALENT

PAGE = (Path(__file__).parents[1] / "docs" / "mutants.md").read_text(encoding="utf-8")
MECHANICAL = mechanical_mutants()


def test_there_are_many_and_most_are_made_by_machine():
    written = written_mutants()
    assert len(written) >= 40
    assert len(MECHANICAL) >= len(written)
    names = [m.name for m in (*written, *MECHANICAL)]
    assert len(set(names)) == len(names)
    assert all(m.wrong for m in written)
    assert {m.role for m in (*written, *MECHANICAL)} == set(CORRECT)


def test_every_argument_for_an_equivalent_mutant_is_about_one_that_exists():
    keys = {m.key for m in MECHANICAL}
    assert set(EQUIVALENT) <= keys
    assert all(len(reason) > 10 for reason in EQUIVALENT.values())


def test_the_page_is_about_this_catalogue():
    said = re.search(r"(\d+) mutants: (\d+) written by hand, (\d+) made by machine", PAGE)
    written = written_mutants()
    now = [len(written) + len(MECHANICAL), len(written), len(MECHANICAL)]
    assert [int(n) for n in said.groups()] == now
    assert "; 0 survive" in PAGE
    assert f"in the {len(CORRECT)} roles are killed by 0 checks" in PAGE
    for mutant in written:
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{mutant.name}` |"))
        assert "●" in row
    for check in (*EXACT, *STATISTICAL):
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| {check.name} |"))
        assert check.documentation["catches"] in row
        assert "| `none` |" not in row


SAMPLE = [m for m in MECHANICAL if m.equivalent is None and m.role in ("posterior", "planner")][3::29]
# A planner is asked with experts that are solved anew for each mutant.
SAMPLED = [pytest.param(m, id=m.name, marks=[pytest.mark.slow] if m.role == "planner" else []) for m in SAMPLE]


@pytest.mark.parametrize("mutant", SAMPLED)
def test_a_sample_of_those_made_by_machine_is_killed(mutant):
    row = matrix.examine(mutant.name, mutant.role, mutant.build, until="extremes")
    assert row.killed_by


def test_a_mutation_changes_one_statement_and_leaves_the_installed_module_alone():
    change = next(m for m in mechanical.mutations("posterior.exact", "exact_posterior") if m.kind == "operand")
    assert change.before != change.after
    before = entries.installed("posterior.exact").exact_posterior
    changed = mechanical.load(change)("posterior.exact").exact_posterior
    assert changed is not before
    assert entries.installed("posterior.exact").exact_posterior is before
    with pytest.raises(KeyError, match="no such mutation"):
        mechanical.load(mechanical.Mutation("posterior.exact", "exact_posterior", 0, "operand", "a", "b"))


def test_what_depends_on_a_changed_module_is_run_anew_and_the_rest_is_not():
    change = mechanical.mutations("evidence", "bucket")[0]
    load = mechanical.load(change)
    assert load("planning.bail") is not entries.installed("planning.bail")
    assert load("planning.bail").exact_posterior is load("posterior.exact").exact_posterior
    assert load("world") is entries.installed("world")


def test_what_the_matrix_must_not_show_is_reported():
    written = written_mutants()[:2]
    rows = [matrix.Row(written[0].name, "posterior", ["ratio"]), matrix.Row(written[1].name, "posterior")]
    ours = [matrix.Row("posterior", "posterior", ["tower"])]
    found = "\n".join(matrix.problems(ours, rows, written))
    assert "our own posterior is refuted by tower" in found
    assert f"{written[1].name} survives: " in found
    assert "agreement kills nothing that a cheaper check does not" in found
    assert "ratio kills nothing" not in found
    assert "there is no mutant" in found
