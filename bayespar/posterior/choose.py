"""The posterior of any program, by a method that fits it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidPromptError
from ..history import Prompt
from ..program import Program, as_family
from ..validation import shown
from ..world import Family
from .exact import exact_posterior
from .latents import Latents, as_latents
from .nuts import nuts_posterior
from .quadrature import quadrature_posterior
from .result import Posterior
from .smc import smc_posterior

_BY_DENSITY: Mapping[str, Callable[..., Posterior]] = {
    "exact": quadrature_posterior,
    "nuts": nuts_posterior,
    "smc": smc_posterior,
}


def posterior(
    family_or_program: Family | Program | Latents, prompt: Prompt, method: str | None = None, **settings: Any
) -> Posterior:
    """P(z | pt), proportional to P_Z(z) prod_i L_z(tau^i) L_z(tau_h).

    Subgoals enter only as inputs: the policy that chose them cancels. Hidden states and finite sites are summed out
    exactly by every method.

    Args:
        family_or_program: a Family, or a program, finite or not.
        prompt: what was seen.
        method: "exact": every task of a finite program, and quadrature on a grid where one or two coordinates have a
            density. "nuts": Markov chains on the sites with a density. "smc": particles, from the prior to everything
            seen. By default "exact" for a finite program, "nuts" otherwise.
        settings: of the method: see :func:`quadrature_posterior`, :func:`nuts_posterior`, :func:`smc_posterior`.

    Raises:
        ImpossibleEvidenceError: no task of positive prior can have produced the prompt; names the episode and step.
        InvalidPromptError: the prompt does not fit the family, or there is no such method or setting.

    Source: theory.md, C1 and section 8.
    """
    if method is not None and not (isinstance(method, str) and method in _BY_DENSITY):
        raise InvalidPromptError(f"method = {shown(method)}; give {', '.join(map(repr, _BY_DENSITY))}")
    latents = as_latents(family_or_program)
    if latents is None:
        if method not in (None, "exact"):
            raise InvalidPromptError(f'method = {shown(method)}; a finite program has the method "exact"')
        _check_settings(exact_posterior, settings)
        assert not isinstance(family_or_program, Latents)
        return exact_posterior(as_family(family_or_program), prompt)
    by = _BY_DENSITY[method or "nuts"]
    _check_settings(by, settings)
    return by(latents, prompt, **settings)


def _check_settings(by: Callable[..., Posterior], settings: Mapping[str, Any]) -> None:
    parameters = inspect.signature(by).parameters.values()
    known = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    for name in settings:
        if name not in known:
            told = f"it has {', '.join(known)}" if known else "it has none"
            raise InvalidPromptError(f"{name} = {shown(settings[name])}: the method has no such setting; {told}")
