"""A catalogue of wrong estimators: what the checks must catch."""

from .catalogue import (
    CORRECT as CORRECT,
    Mutant as Mutant,
    mechanical_mutants as mechanical_mutants,
    written_mutants as written_mutants,
)
