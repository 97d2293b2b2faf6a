"""Bayesian inference for Planner-Actor-Reporter agents."""

from .actors import (
    ActorDistance as ActorDistance,
    Demonstrations as Demonstrations,
    Imitation as Imitation,
    compare_actors as compare_actors,
    imitate as imitate,
    optimal_actor as optimal_actor,
    sample_demonstrations as sample_demonstrations,
)
from .errors import (
    BayesparError as BayesparError,
    ConvergenceWarning as ConvergenceWarning,
    ImpossibleEvidenceError as ImpossibleEvidenceError,
    InvalidFolderError as InvalidFolderError,
    InvalidPlannerError as InvalidPlannerError,
    InvalidProgramError as InvalidProgramError,
    InvalidPromptError as InvalidPromptError,
    InvalidWorldError as InvalidWorldError,
    TooLargeError as TooLargeError,
)
from .evidence import log_evidence as log_evidence, prefix_log_evidence as prefix_log_evidence
from .factored import Factored as Factored
from .filtering import Filter as Filter
from .history import Prompt as Prompt
from .learned.audit import Audit as Audit, audit as audit
from .learned.training import Trained as Trained, TrainingPlan as TrainingPlan, train as train
from .learned.transformer import Transformer as Transformer, TransformerPlanner as TransformerPlanner
from .low_level import LowLevel as LowLevel, TwoLevel as TwoLevel
from .planning.bail import bail as bail
from .planning.bawm import Plan as Plan, WorldModel as WorldModel, bawm as bawm
from .planning.by_draws import BailEstimate as BailEstimate, bail_by_draws as bail_by_draws
from .planning.classes import TaskClasses as TaskClasses, task_classes as task_classes
from .planning.design import (
    Design as Design,
    cheapest_exploration as cheapest_exploration,
    design_exploration as design_exploration,
)
from .planning.expected_regret import ExpectedRegret as ExpectedRegret, expected_regret as expected_regret
from .planning.expert import solve_experts as solve_experts
from .planning.exploration import Exploration as Exploration
from .planning.hellinger import eta as eta
from .planning.histories import Histories as Histories, enumerate_histories as enumerate_histories
from .planning.planner import (
    Episode as Episode,
    Observed as Observed,
    Planner as Planner,
    as_planner as as_planner,
)
from .planning.value import policy_value as policy_value
from .posterior.choose import posterior as posterior
from .posterior.exact import (
    posterior_path as posterior_path,
    state_posterior as state_posterior,
)
from .posterior.latents import Latents as Latents, find_latents as find_latents
from .posterior.numpyro_model import numpyro_model as numpyro_model
from .posterior.particles import SMC as SMC, Particles as Particles
from .program import (
    available_models as available_models,
    enumerate_program as enumerate_program,
    load_model as load_model,
)
from .simulate.behaviours import (
    Exploring as Exploring,
    MixtureOfExperts as MixtureOfExperts,
    TaskDependent as TaskDependent,
)
from .simulate.corpus import (
    Corpus as Corpus,
    sample_corpus as sample_corpus,
    shuffled_labels as shuffled_labels,
    with_prior as with_prior,
)
from .simulate.drawn_corpus import DrawnCorpus as DrawnCorpus
from .simulate.low_level import LowLevelRollout as LowLevelRollout, rollout_low_level as rollout_low_level
from .simulate.regret import RegretCurves as RegretCurves, simulate_regret as simulate_regret
from .simulate.replay import replay as replay
from .simulate.separation import estimate_eta as estimate_eta
from .simulate.shards import write_corpus as write_corpus
from .simulate.stream import CorpusStream as CorpusStream, TrainingBatch as TrainingBatch
from .simulate.sweep import sweep as sweep
from .team import Team as Team
from .theory.recommend import (
    Recommendation as Recommendation,
    Recommendations as Recommendations,
    recommend as recommend,
)
from .world import Family as Family, Sparse as Sparse, World as World
