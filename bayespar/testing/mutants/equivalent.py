"""Mutants made by machine that are not wrong, each with the argument why."""

from __future__ import annotations

_CONSTANT = "the same constant is added for every task, and normalisation takes it out"
_NORMALISE_REFUSES = "log_normalise, which comes next, refuses the same rows"
_NOT_READ = "a prefix does not depend on what follows it, so the padding is not read"
_EITHER_WAY = "the same sum, written out or not"
_REFUTED = "the divisor of a task whose weights are all 0: what is divided is 0"

EQUIVALENT: dict[tuple[str, str], str] = {
    ("posterior.exact.exact_posterior", "if total == np.inf:"): "the answer is NaN then, which refuses as well",
    ("posterior.exact._episodes", "return np.ones((family.num_tasks, 0))"): "an array without entries",
    (
        "posterior.exact._episodes",
        "return np.zeros((family.num_tasks, 1))",
    ): "one more episode, of log-likelihood 0, changes no probability",
    (
        "posterior.exact._padded_current",
        "observations, subgoals = (np.ones((1, family.horizon), np.int32), "
        "np.zeros((1, family.horizon - 1), np.int32))",
    ): _NOT_READ,
    (
        "posterior.exact._padded_current",
        "observations, subgoals = (np.zeros((1, family.horizon), np.int32), "
        "np.ones((1, family.horizon - 1), np.int32))",
    ): _NOT_READ,
    ("posterior.exact._current", "return np.ones(family.num_tasks)"): _CONSTANT,
    ("posterior.exact.posterior_path", "if (log_sum_exp(log_path) == -np.inf).all():"): _NORMALISE_REFUSES,
    ("posterior.exact.posterior_path", "if (log_sum_exp(log_path) == np.inf).any():"): _NORMALISE_REFUSES,
    (
        "posterior.exact._log_joint_path",
        "before = rows[0][0][:, None] + np.concatenate([np.ones((family.num_tasks, 1)), before], axis=1)",
    ): "it is added to the rows of the first episode alone, each of which is normalised by itself",
    (
        "posterior.exact._log_joint_path",
        "rows.append((before[:, :-1, None] + prefixes).reshape(family.num_tasks, -2).T)",
    ): "numpy takes any negative size for the one that is left open",
    (
        "posterior.exact.state_posterior_by_task",
        "return weights / np.where(total > 0, total, 2)",
    ): _REFUTED,
    (
        "filtering.Filter.advance",
        "if jax.tree.leaves(self.transition)[0].shape[1] == 0:",
    ): "a world without a step has no next observation to ask for; planners do come here: see tests/test_evidence.py",
    ("filtering._move", "if forward.shape[0] >= _WRITTEN_OUT:"): _EITHER_WAY,
    ("filtering._move", "if forward.shape[1] > _WRITTEN_OUT:"): _EITHER_WAY,
    (
        "filtering.Filter._moved",
        "if isinstance(kernel, (Sparse, Factored)) or len(forward) >= _WRITTEN_OUT:",
    ): _EITHER_WAY,
    ("filtering.total", "if len(x) >= _WRITTEN_OUT:"): _EITHER_WAY,
    ("filtering.Filter.predict", "total = weights.sum(axis=1, keepdims=True)"): "the last of two axes",
    (
        "filtering.Filter.predict",
        "belief = (weights / jnp.where(total > 0, total, 2) * posterior[:, None]).T",
    ): _REFUTED,
    (
        "planning.bail.bail",
        "experts = solve_experts(family)",
    ): "the experts given are those of the family: solved twice",
    (
        "planning.bail.bail",
        "experts = check_experts(experts, family)",
    ): "experts are given here; without them it refuses, which tests/test_bail.py would see",
    (
        "planning.bail.bail",
        "known = exact_posterior(family, prompt)",
    ): "no posterior is given here; where one is, tests/test_by_draws.py would see",
    ("planning.expert.first_best", "xp = np"): "the same functions, on the host",
    ("planning.expert.first_best", "xp = jnp"): "the same functions, on the device",
    (
        "planning.expert.first_best",
        "return xp.argmax(values > values.max(axis=-1, keepdims=True) - TIE, axis=-1).astype(np.int32)",
    ): "two values would have to differ by 1e-9 exactly",
}
"""(module.function, the statement after the change) -> why it does the same."""
