"""``log_evidence`` as others compute it: functions of (observations, subgoals) that return log L, [Z, N].

* dynamax has no subgoals, so it is given one transition matrix a step, in each form that we found to be fast. In
  ``matrices`` they are gathered first, [H-1, S, S]; tasks run one after the other, and episodes are vmapped (vmapping
  both at once takes Z N (H-1) S^2 numbers and is much slower). In ``function`` each is gathered when it is needed;
  episodes run in blocks, and tasks are vmapped.
* numpyro enumerates hidden states by funsor: a loop over steps in ``markov``, one episode of one task vmapped over
  episodes, tasks one after the other. (Its ``scan`` multiplies [S, S] matrices, and was slower at every size.)
* numpy: grouped by subgoal, in blocks of tasks that stay in a core's cache; and looped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import bayespar as bp

Contestant = Callable[[np.ndarray, np.ndarray], np.ndarray]

EPISODES = 64  # that dynamax, in the form "function", works on at once
NUMPY_ENTRIES = 2**17  # of a block's forward vectors
EVERY = 8  # steps between two scalings


def dynamax(family: bp.Family) -> dict[str, Contestant]:
    from dynamax.hidden_markov_model import hmm_filter

    kernels = jax.device_put((family.initial, family.dense_transition()[:, 0], family.emission))

    def matrices(rho: Any, kernel: Any, emission: Any, o: Any, g: Any) -> Any:
        return hmm_filter(rho, kernel[g], jnp.log(emission)[:, o].T).marginal_loglik

    def function(rho: Any, kernel: Any, emission: Any, o: Any, g: Any) -> Any:
        likelihoods = jnp.log(emission)[:, o].T
        return hmm_filter(rho, None, likelihoods, transition_fn=lambda h: kernel[g[h]]).marginal_loglik

    def blocks(kernels: Any, o: Any, g: Any) -> Any:
        def episode(e: Any) -> Any:
            return jax.vmap(lambda *task: function(*task, *e))(*kernels)

        return lax.map(episode, (o, g), batch_size=EPISODES).T

    by_task, by_block = jax.jit(_by_task(matrices)), jax.jit(blocks)
    return {
        "dynamax, matrices": lambda o, g: np.asarray(by_task(kernels, o, g)),
        "dynamax, function": lambda o, g: np.asarray(by_block(kernels, o, g)),
    }


def numpyro_enumeration(family: bp.Family, tasks: int) -> Contestant:
    """Of the first ``tasks`` tasks."""
    import numpyro
    import numpyro.distributions as dist
    from numpyro.contrib.funsor import config_enumerate, enum, log_density, markov

    kernels = jax.device_put((family.initial[:tasks], family.dense_transition()[:tasks, 0], family.emission[:tasks]))

    def model(rho: Any, kernel: Any, emission: Any, o: Any, g: Any) -> None:
        state: Any = None
        for h in markov(range(family.horizon)):
            law = kernel[g[h - 1], state] if h else rho
            state = numpyro.sample(f"state {h}", dist.Categorical(law))
            numpyro.sample(f"seen {h}", dist.Categorical(emission[state]), obs=o[h])

    enumerated = enum(config_enumerate(model), -1)
    run = jax.jit(_by_task(lambda *args: log_density(enumerated, args, {}, {})[0]))
    return lambda o, g: np.asarray(run(kernels, o, g))


def _by_task(one: Callable) -> Callable:
    """Tasks one after the other, episodes vmapped."""
    return lambda kernels, o, g: lax.map(lambda task: jax.vmap(lambda o, g: one(*task, o, g))(o, g), kernels)


def numpy_grouped(family: bp.Family) -> Contestant:
    kernel, likelihood = family.dense_transition()[:, 0], np.ascontiguousarray(family.emission.swapaxes(1, 2))
    Z, S, G = family.num_tasks, family.num_states, family.num_subgoals

    def run(o: np.ndarray, g: np.ndarray) -> np.ndarray:
        N, H = o.shape
        members = [[np.flatnonzero(g[:, h] == k) for k in range(G)] for h in range(H - 1)]
        out = np.empty((Z, N), family.dtype)
        block = max(NUMPY_ENTRIES // (N * S), 1)
        for z in range(0, Z, block):
            P, E = kernel[z : z + block], likelihood[z : z + block]
            alpha = family.initial[z : z + block, None] * np.take(E, o[:, 0], 1)
            ahead = np.empty_like(alpha)
            logs = np.zeros(alpha.shape[:2], family.dtype)
            for h in range(H - 1):
                for k, rows in enumerate(members[h]):
                    ahead[:, rows] = np.matmul(np.take(alpha, rows, 1), P[:, k])
                np.multiply(ahead, np.take(E, o[:, h + 1], 1), out=alpha)
                if h % EVERY == EVERY - 1:
                    total = alpha.sum(-1)
                    logs += np.log(total)
                    alpha /= total[..., None]
            out[z : z + block] = np.log(alpha.sum(-1)) + logs
        return out

    return run


def numpy_looped(family: bp.Family) -> Contestant:
    kernel = family.dense_transition()[:, 0]

    def run(o: np.ndarray, g: np.ndarray) -> np.ndarray:
        out = np.empty((family.num_tasks, len(o)), family.dtype)
        for z in range(family.num_tasks):
            rho, P, E = family.initial[z], kernel[z], family.emission[z].T
            for n in range(len(o)):
                alpha, log = rho * E[o[n, 0]], 0.0
                for h in range(o.shape[1] - 1):
                    alpha = (alpha @ P[g[n, h]]) * E[o[n, h + 1]]
                    if h % EVERY == EVERY - 1:
                        total = alpha.sum()
                        log += np.log(total)
                        alpha /= total
                out[z, n] = np.log(alpha.sum()) + log
        return out

    return run
