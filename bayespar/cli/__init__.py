"""The ``bayespar`` command."""

from .main import main as main
