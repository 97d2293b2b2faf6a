"""Settings of every test: types are checked while the tests run, and hypothesis has one profile."""

import os
from pathlib import Path

import beartype
import hypothesis
import pytest
from jaxtyping import install_import_hook

# Tests compile much and compute little; `make verify` runs the same code with every optimisation.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Commands under test leave the user's cache alone.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

# A whole number may stand for a float, as everywhere in Python.
typechecker = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))

# Before bayespar is first imported: every shape annotation is then checked by beartype at run time. The oracles are
# left out, for speed: they run as their users run them.
PACKAGE = Path(__file__).parents[1] / "bayespar"
MODULES = sorted(f"bayespar.{p.stem}" for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists())
install_import_hook([m for m in MODULES if m not in ("bayespar.testing", "bayespar.__init__")], "conftest.typechecker")

hypothesis.settings.register_profile(
    "bayespar",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
)
hypothesis.settings.load_profile("bayespar")


def pytest_configure(config):
    # beartype checks a random item of each list, also while hypothesis draws; it changes no draw.
    config.addinivalue_line("filterwarnings", "ignore::hypothesis.errors.HypothesisDeprecationWarning")


# What compiles or draws longest, besides tests that are marked slow where they stand: `make test` must stay below 12
# minutes on two cores. `make test-slow` and CI run these.
SLOW = (
    "test_adapters.py::test_importing_the_adapters_imports_no_library",
    "test_audit.py::test_cost",
    "test_audit.py::test_each_defect_is_found_and_named[temperature-workshop]",
    "test_audit.py::test_each_defect_is_found_and_named[wrong prior-workshop]",
    "test_audit.py::test_nothing_is_found_in_bail[workshop]",
    "test_bail.py::test_bail_and_posterior_are_conditionals_of_the_enumerated_corpus",
    "test_bawm.py::test_predictions_are_conditionals_of_the_enumerated_corpus",
    "test_bawm.py::test_simulated_regret_is_the_expected_one[gated]",
    "test_bounds.py::test_no_theorem_about_exploration_is_violated[2]",
    "test_bounds.py::test_no_theorem_about_exploration_is_violated[3]",
    "test_by_draws.py::TestOnline::test_thompson_the_oracle_and_planners_of_your_own",
    "test_calibration.py::test_an_exact_sampler_passes[noisy_room]",
    "test_checks.py::test_a_world_in_which_everything_is_possible_has_nothing_to_refuse",
    "test_checks.py::test_a_world_of_ones_own_is_the_only_one_that_is_used",
    "test_checks.py::test_each_check_kills_what_no_cheaper_one_does[agreement]",
    "test_checks.py::test_each_check_kills_what_no_cheaper_one_does[calibration]",
    "test_checks.py::test_each_check_kills_what_no_cheaper_one_does[instruction order]",
    "test_checks.py::test_each_check_kills_what_no_cheaper_one_does[labels]",
    "test_checks.py::test_each_check_kills_what_no_cheaper_one_does[log-loss]",
    "test_checks.py::test_each_check_kills_what_no_cheaper_one_does[ranks]",
    "test_checks.py::test_false_alarms_stay_below_their_level_and_a_mistake_is_found[labels]",
    "test_checks.py::test_our_own_functions_are_supported_by_simulation[planner]",
    "test_checks.py::test_our_own_functions_are_supported_by_simulation[posterior]",
    "test_checks.py::test_our_own_functions_are_supported_by_simulation[sampler]",
    "test_checks.py::test_our_own_functions_pass_every_exact_check[next_observation]",
    "test_checks.py::test_our_own_functions_pass_every_exact_check[planner]",
    "test_checks.py::test_our_own_functions_pass_every_exact_check[posterior]",
    "test_checks.py::test_our_own_functions_pass_every_exact_check[state_posterior]",
    "test_checks.py::test_the_same_key_finds_the_same_thing",
    "test_claims.py::test_needle_by_simulation",
    "test_cli.py::test_models_lists_every_world",
    "test_cli.py::test_worlds_of_one_file_name_are_kept_apart",
    "test_cli_posterior.py::test_short_chains_fail_and_say_why",
    "test_cli_posterior.py::test_the_file_holds_the_tree",
    "test_compilations.py::test_the_command_line_finds_what_it_compiled_before",
    "test_contracts.py::test_float64_arrays_stay_float64_and_no_flag_changes",
    "test_contracts.py::test_under_a_trace_evidence_follows_it_and_impossible_evidence_is_no_nan",
    "test_datatree.py::test_arviz_takes_it[weighted]",
    "test_density_claims.py::test_right_draws_are_supported_and_every_twin_rejected[C1]",
    "test_density_claims.py::test_right_draws_are_supported_and_every_twin_rejected[W1]",
    "test_design.py::test_no_policy_has_a_larger_eta",
    "test_endpoint.py::test_an_audit_through_the_endpoint_is_that_of_the_planner",
    "test_endpoint.py::test_an_endpoint_acts_in_the_online_loop",
    "test_evidence.py::test_equals_the_sum_over_paths[scattered]",
    "test_exploration.py::test_a_run_that_may_end_early_begins_with_one_that_may_not",
    "test_factored.py::test_evidence_and_filter_agree_with_the_dense_kernel[logarithms-made dense]",
    "test_factored.py::test_evidence_and_filter_agree_with_the_dense_kernel[probabilities-kept factored]",
    "test_factored.py::test_experts_regret_and_simulation_agree_with_the_dense_kernel",
    "test_factored.py::test_the_exact_checks_pass_on_a_factored_world",
    "test_fuzzing.py::test_a_damaged_checkpoint_is_told",
    "test_fuzzing.py::test_inputs_through_python",
    "test_hier.py::test_the_claim_holds_and_its_twins_fail[gridworld_errands]",
    "test_likelihood.py::test_counts_give_the_evidence_of_decoded_worlds",
    "test_likelihood.py::test_it_is_the_evidence_of_every_episode_and_of_the_current_one",
    "test_likelihood.py::test_values_and_derivatives_are_the_same_under_vmap_and_in_blocks",
    "test_notebooks.py::test_it_runs[mcmc]",
    "test_notebooks.py::test_it_runs[several_actors]",
    "test_notebooks.py::test_it_runs[two_levels]",
    "test_notebooks.py::test_it_runs[world_model]",
    "test_notebooks.py::test_it_runs[your_own_world]",
    "test_numpyro_model.py::test_density_and_gradient_of_a_continuous_program",
    "test_outside.py::test_without_the_bug_it_passes",
    "test_posterior_plots.py::test_plots_are_loaded_only_when_asked_for",
    "test_practical.py::test_a_corpus_judges_the_error",
    "test_pretrained.py::test_networks_are_trained_where_they_are_asked_for",
    "test_several.py::test_planners_agree_with_exact_regret[warehouse-2]",
    "test_several.py::test_simulated_regret_of_the_three_schemes",
    "test_several.py::test_the_claims_hold_and_notice_what_is_wrong",
    "test_several.py::test_the_warehouse_must_be_read_with_its_instruction",
    "test_simulate.py::test_a_pair_starts_every_episode_anew",
    "test_simulate.py::test_baselines_on_the_lock",
    "test_simulate.py::test_every_kind_of_planner_that_is_bail_gives_the_same_curves",
    "test_simulate.py::test_exploration_schedule",
    "test_simulate.py::test_regret_is_unbiased_for_the_exact_values_of_the_first_two_episodes",
    "test_smc.py::test_hidden_states_and_leaves_are_summed_out_and_zeros_are_kept",
    "test_strategies.py::test_impossible_prompts_are_impossible",
    "test_transformer.py::test_beyond_its_context_a_planner_forgets",
    "test_world_model_claims.py::test_w2_on_random_worlds",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Mark what is slow, before the marks are read."""
    for item in items:
        if item.nodeid.removeprefix("tests/") in SLOW:
            item.add_marker(pytest.mark.slow)
