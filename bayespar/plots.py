"""Plots for notebooks: of a posterior, and along a prompt. Each returns matplotlib axes or a figure."""

from .report.path_plots import (
    plot_posterior_path as plot_posterior_path,
    plot_subgoal_path as plot_subgoal_path,
)
from .report.posterior_plots import (
    plot_evidence as plot_evidence,
    plot_marginals as plot_marginals,
    plot_predictive_check as plot_predictive_check,
    plot_ranks as plot_ranks,
)
