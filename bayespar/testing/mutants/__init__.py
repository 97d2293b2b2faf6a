"""A catalogue of wrong estimators: what the checks must catch."""

from .catalogue import CORRECT as CORRECT, Mutant as Mutant, catalogue as catalogue
