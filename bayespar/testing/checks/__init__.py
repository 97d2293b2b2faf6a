"""The checks, cheapest first."""

from ..check import ExactCheck, StatisticalCheck
from .agreement import agreement, extreme_cases, extremes, refusal
from .identities import distribution, history_split, log_loss, normalised, ratio, tower
from .invariances import blank_step, duplicated_task, instruction_order, state_order, task_order
from .regret import regret
from .simulation import calibration, geweke, labels, martingale, ranks

_POINTWISE = ("posterior", "state_posterior", "next_observation", "planner", "log_evidence")
_BELIEFS = _POINTWISE[:4]
_SUMS = ("posterior", "state_posterior", "next_observation", "log_evidence")

EXACT = (
    ExactCheck("distribution", _BELIEFS, distribution),
    ExactCheck("normalised", ("log_evidence",), normalised),
    ExactCheck("refusal", _BELIEFS, refusal, {"possible": False}),
    ExactCheck("task order", _POINTWISE, task_order, changes_world=True),
    ExactCheck("state order", _POINTWISE, state_order, changes_world=True),
    ExactCheck("instruction order", ("planner",), instruction_order, {"instructions": True}, changes_world=True),
    ExactCheck("duplicated task", _POINTWISE, duplicated_task, changes_world=True),
    ExactCheck("blank step", _SUMS, blank_step, changes_world=True),
    ExactCheck("history split", _BELIEFS, history_split, {"least_episodes": 1}, changes_world=True),
    ExactCheck("ratio", ("posterior",), ratio),
    ExactCheck("tower", ("posterior",), tower, {"decision": True}),
    ExactCheck("log-loss", ("planner",), log_loss, {"episodes": 0}),
    ExactCheck("agreement", _POINTWISE, agreement),
    ExactCheck("extremes", _SUMS, extremes, {"fixed": extreme_cases}),
)  # fmt: skip
"""Deterministic checks, on tiny worlds."""

STATISTICAL = (
    StatisticalCheck("martingale", ("posterior",), martingale),
    StatisticalCheck("calibration", ("posterior",), calibration),
    StatisticalCheck("labels", ("planner",), labels),
    StatisticalCheck("ranks", ("sampler",), ranks),
    StatisticalCheck("geweke", ("kernel",), geweke),
    StatisticalCheck("regret", ("loop",), regret, one_sided=True),
)
"""Checks by simulation."""
