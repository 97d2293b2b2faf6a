"""Closed forms of the conjugate worlds, in plain numpy and scipy: see :mod:`bayespar.theory.conjugate`."""

from ...theory.conjugate import (
    arm_posterior as arm_posterior,
    arm_predictive as arm_predictive,
    arms_log_evidence as arms_log_evidence,
    best_arm as best_arm,
    row_posterior as row_posterior,
    row_predictive as row_predictive,
    rows_log_evidence as rows_log_evidence,
)
