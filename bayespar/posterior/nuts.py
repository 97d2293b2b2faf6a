"""NUTS on the sites with a density; hidden states and finite sites are summed out."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Float
from numpyro.infer import NUTS

from ..arrays import Array
from ..history import Prompt, check_prompt
from ..keys import as_key
from ..validation import check_count
from .diagnostics import diagnose
from .latents import Latents
from .likelihood import Likelihood
from .result import Posterior


def nuts_posterior(
    latents: Latents, prompt: Prompt, *, key: Any = 0, chains: int = 4, warmup: int = 500, draws: int = 500
) -> Posterior:
    """Draws from the posterior by the No-U-Turn sampler."""
    for name, count in (("chains", chains), ("warmup", warmup), ("draws", draws)):
        check_count(name, count)
    family = latents.example
    check_prompt(prompt, family)
    likelihood = Likelihood(prompt, family)
    with jax.enable_x64(True):
        keys = jax.random.split(as_key(key), chains)
        u, leaves, stats = _chains(latents, likelihood, keys, warmup, draws)
        sites = {name: np.asarray(a) for name, a in _constrain(latents, u).items()}
    diagnostics = diagnose(sites, int(stats["diverging"].sum()), np.asarray(stats["energy"]))
    return Posterior(
        method="nuts",
        log_evidence=float("nan"),
        prompt=prompt,
        latents=latents,
        draws=sites,
        leaf_probabilities=np.asarray(leaves),
        sample_stats={name: np.asarray(a) for name, a in stats.items()},
        diagnostics=diagnostics,
    )


@partial(jax.jit, static_argnums=(0, 3, 4))
def _chains(latents: Latents, likelihood: Likelihood, keys: Any, warmup: int, draws: int) -> Any:
    def potential(u: Float[Array, " D"]) -> Array:
        return -jax.nn.logsumexp(latents.log_joint(u, likelihood))

    kernel = NUTS(potential_fn=potential)

    def chain(key: Any) -> Any:
        start, run = jax.random.split(key)
        u = latents.unconstrain(latents.draw(start)[0])
        state = kernel.init(run, warmup, u, (), {})

        def step(state: Any, _: Any) -> Any:
            state = kernel.sample(state, (), {})
            return state, state

        state, _ = jax.lax.scan(lambda s, _: (kernel.sample(s, (), {}), None), state, None, warmup)
        _, states = jax.lax.scan(step, state, None, draws)
        stats = {"diverging": states.diverging, "energy": states.energy, "n_steps": states.num_steps}
        leaves = jax.vmap(lambda u: jax.nn.softmax(latents.log_joint(u, likelihood)))(states.z)
        return states.z, leaves, stats

    return jax.vmap(chain)(keys)


@partial(jax.jit, static_argnums=0)
def _constrain(latents: Latents, u: Any) -> Any:
    return jax.vmap(jax.vmap(lambda u: latents.constrain(u)[0]))(u)
