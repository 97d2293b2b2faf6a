"""Property-test an estimator, a planner or a posterior of your own against exact Bayes."""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ImportError as _error:
    raise ImportError("bayespar.testing needs hypothesis: pip install bayespar[testing]") from _error

from .case import Case as Case, Estimator as Estimator
from .check import Equation as Equation, ExactCheck as ExactCheck, StatisticalCheck as StatisticalCheck
from .checks import EXACT as EXACT, STATISTICAL as STATISTICAL
from .checks.regret import Loop as Loop
from .checks.simulation import Joint as Joint
from .oracle import ExactOracle as ExactOracle, Oracle as Oracle
from .result import Report as Report, Result as Result
from .run import assert_correct as assert_correct, run_checks as run_checks
from .sequential import Plan as Plan, Sequential as Sequential, sequential_test as sequential_test
from .strategies import (
    TablePolicy as TablePolicy,
    TabularProgram as TabularProgram,
    families as families,
    policies as policies,
    programs as programs,
    prompts as prompts,
    simplexes as simplexes,
)
