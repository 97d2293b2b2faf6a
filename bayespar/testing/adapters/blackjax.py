"""A blackjax sampling algorithm as an MCMC kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def from_blackjax(
    build: Callable[[Callable[[Any], Any]], Any], log_density: Callable[[Any, Any], Any], steps: int = 1
) -> Callable[[int, Any, Any], Any]:
    """The role of a kernel from a blackjax sampling algorithm.

    A step starts the algorithm's state afresh at the latent value (``init``), takes ``steps`` steps of it, and returns
    the position. That leaves the posterior invariant iff the algorithm does and its state holds nothing but what
    ``init`` computes from the position: true of NUTS, HMC, MALA, Barker, slice and random-walk algorithms, not of
    those that carry a momentum from step to step (GHMC, MCLMC). Everything runs in float64, compiled once for each
    shape of the latent value and the data.

    Args:
        build: takes the log density of one latent value, returns a ``blackjax.SamplingAlgorithm`` (or anything with
            ``init(position)`` and ``step(key, state) -> (state, info)``); called under a trace.
        log_density: ``log_density(latent, data)``, a scalar in nats, up to a constant of the data; latent and data are
            pytrees of arrays.
        steps: steps of the algorithm that make one step of the kernel.

    Returns:
        ``kernel(key, latent, data) -> latent``, of the structure, shapes and dtypes of ``latent``; ``key`` is an
        integer seed.

    Raises:
        ValueError: ``steps`` is not positive.

    Example::

        import blackjax

        def log_density(theta, heads):  # heads [N], 0 or 1; theta is the log odds, with a standard normal prior
            return -theta**2 / 2 + (heads * theta - jnp.logaddexp(0.0, theta)).sum()

        kernel = from_blackjax(
            lambda f: blackjax.nuts(f, step_size=0.5, inverse_mass_matrix=jnp.ones(1)), log_density
        )
    """
    if steps < 1:
        raise ValueError(f"steps = {steps}; a kernel takes at least one step")

    @jax.jit
    def move(key: jax.Array, latent: Any, data: Any) -> Any:
        algorithm = build(lambda position: log_density(position, data))
        state = algorithm.init(latent)
        for k in jax.random.split(key, steps):
            state, _ = algorithm.step(k, state)
        return state.position

    def kernel(key: int, latent: Any, data: Any) -> Any:
        with jax.enable_x64(True):
            return jax.device_get(move(jax.random.key(key), latent, data))

    return kernel
