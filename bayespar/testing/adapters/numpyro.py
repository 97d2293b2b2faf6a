"""A numpyro model with a discrete site over tasks as a posterior."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...history import Prompt
from ...world import Family


def from_numpyro(
    model: Callable[[Family, Prompt], Any], site: str = "task", log_density: Callable[..., Any] | None = None
) -> Callable[[Family, Prompt], np.ndarray]:
    """The role of a posterior from a numpyro model, by its joint log density at every value of one site.

    log p(site = z, everything observed or factored in) is evaluated for z = 0..Z-1, all at once under ``vmap``, in
    float64, and normalised over z. Nothing else is computed: what is tested is the density that numpyro gives the
    model.

    Args:
        model: ``model(family, prompt)``, with a site of that name whose values are 0..Z-1 and which may be traced.
            Every other site is observed or a ``numpyro.factor``; hidden states are summed out by the model itself, or
            by another ``log_density``.
        site: the name of the site over tasks.
        log_density: has the signature of ``numpyro.infer.util.log_density``, which is the default. Where the model
            has discrete hidden states for numpyro to enumerate, give that of ``numpyro.contrib.funsor`` (needs the
            package funsor) and wrap the model in its ``enum(config_enumerate(...))``.

    Returns:
        ``posterior(family, prompt) -> [Z]``, float64; NaN where the log density is -inf at every value.

    Raises:
        ImportError: numpyro is missing.

    Example::

        def model(family, prompt):
            z = numpyro.sample("task", dist.Categorical(jnp.asarray(family.task_prior)))
            heard = jnp.asarray(family.emission)[z, 0][prompt.observations]  # worlds of one state
            numpyro.factor("heard", jnp.log(heard).sum())

        posterior = from_numpyro(model)
    """
    try:
        from numpyro.infer import util
    except ImportError as error:  # pragma: no cover
        raise ImportError("from_numpyro needs numpyro: pip install numpyro") from error
    density = util.log_density if log_density is None else log_density

    def posterior(family: Family, prompt: Prompt) -> np.ndarray:
        def joint(z: jax.Array) -> Any:
            return density(model, (family, prompt), {}, {site: z})[0]

        with jax.enable_x64(True):
            logs = np.asarray(jax.vmap(joint)(jnp.arange(family.num_tasks)), np.float64)
        with np.errstate(invalid="ignore"):
            weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    return posterior
