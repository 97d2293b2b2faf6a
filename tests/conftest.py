"""Settings of every test: types are checked while the tests run, and hypothesis has one profile."""

import os
from pathlib import Path

import beartype
import hypothesis
from jaxtyping import install_import_hook

# Tests compile much and compute little; `make verify` runs the same code with every optimisation.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

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
