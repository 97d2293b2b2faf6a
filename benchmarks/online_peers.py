"""The online loop as others write it: BAIL by a table of experts, on a random world, with a coin of exploration.

Loops return (regret, P(true task)), both [seeds, T]:

* numpy, vectorised over seeds;
* numpy, one seed after the other;
* jax: one step of one seed, in a scan over steps in a scan over episodes, vmapped over seeds, all in log space;
* numba: compiled loops, seeds in parallel, tasks innermost, so that they vectorise.

Libraries that have no such loop only update their beliefs over (task, state), which they take as one hidden state;
these return P(task) after an episode, [seeds, Z]. pymdp does it compiled, for all seeds at once; pomdp-py one seed at a
time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bayespar as bp


class Problem(NamedTuple):
    """What is run.

    Attributes:
        family: the worlds; kernels do not depend on the step, and there is one instruction.
        table: the subgoal of every task's expert after a step and an observation, [H-1, O, Z].
        task: the true one.
        epsilon: the coin's bias.
    """

    family: bp.Family
    table: np.ndarray
    task: int
    epsilon: float

    @property
    def kernel(self) -> np.ndarray:
        return self.family.transition[:, 0]  # [Z, G, S, S']


Loop = Callable[[int, int, int], tuple[np.ndarray, np.ndarray]]
"""(episodes, seeds, key) -> regret and P(true task)."""


def numpy_vectorised(problem: Problem) -> Loop:
    family, task, table = problem.family, problem.task, problem.table
    S, G, H = family.num_states, family.num_subgoals, family.horizon
    kernel = np.ascontiguousarray(np.moveaxis(problem.kernel, 1, 0))  # [G, Z, S, S']
    emission = np.ascontiguousarray(np.moveaxis(family.emission, 2, 0))  # [O, Z, S]
    initial, reward, eye = family.initial, family.reward[..., 0], np.eye(G)
    initial_cdf, move_cdf, emit_cdf = _cumulative(problem)

    def draw(cdf: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        return np.minimum((cdf <= uniform[:, None] * cdf[..., -1:]).sum(-1), cdf.shape[-1] - 1)

    def run(episodes: int, seeds: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(key)
        log_weights = np.tile(np.log(family.task_prior), (seeds, 1))
        regret, true_task = np.empty((seeds, episodes)), np.empty((seeds, episodes))
        for t in range(episodes):
            u = rng.random((H + 1, 3, seeds))
            explore = u[H, 1] < problem.epsilon
            state = draw(np.broadcast_to(initial_cdf, (seeds, S)), u[0, 0])
            heard = draw(emit_cdf[state], u[0, 1])
            forward = initial * emission[heard]
            gained = reward[0, heard]
            shifted = np.exp(log_weights - log_weights.max(1, keepdims=True))
            true_task[:, t] = shifted[:, task] / shifted.sum(1)
            for h in range(H - 1):
                log_posterior = log_weights + np.log(forward.sum(2))
                posterior = np.exp(log_posterior - log_posterior.max(1, keepdims=True))
                posterior /= posterior.sum(1, keepdims=True)
                bail = (posterior[:, :, None] * eye[table[h, heard]]).sum(1)
                chosen = np.where(explore[:, None], 1 / G, bail)
                subgoal = draw(np.cumsum(chosen, 1), u[h + 1, 2])
                state = draw(move_cdf[subgoal, state], u[h + 1, 0])
                heard = draw(emit_cdf[state], u[h + 1, 1])
                forward = np.matmul(forward[:, :, None, :], kernel[subgoal])[:, :, 0] * emission[heard]
                gained += reward[h + 1, heard]
            log_weights += np.log(forward.sum(2))
            log_weights -= log_weights.max(1, keepdims=True)
            regret[:, t] = 1 - gained
        return regret, true_task

    return run


def numpy_looped(problem: Problem) -> Loop:
    """One seed after the other, each step a few small array operations."""
    family, task, table = problem.family, problem.task, problem.table
    G, H = family.num_subgoals, family.horizon
    kernel = np.ascontiguousarray(np.moveaxis(problem.kernel, 1, 0))
    emission, reward = np.ascontiguousarray(np.moveaxis(family.emission, 2, 0)), family.reward[..., 0]
    initial_cdf, move_cdf, emit_cdf = _cumulative(problem)

    def draw(cdf: np.ndarray, rng: np.random.Generator) -> int:
        return min(int(np.searchsorted(cdf, rng.random() * cdf[-1], side="right")), len(cdf) - 1)

    def run(episodes: int, seeds: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        regret, true_task = np.empty((seeds, episodes)), np.empty((seeds, episodes))
        for n in range(seeds):
            rng = np.random.default_rng([key, n])
            log_weights = np.log(family.task_prior)
            for t in range(episodes):
                explore = rng.random() < problem.epsilon
                shifted = np.exp(log_weights - log_weights.max())
                true_task[n, t] = shifted[task] / shifted.sum()
                state = draw(initial_cdf, rng)
                heard = draw(emit_cdf[state], rng)
                forward, gained = family.initial * emission[heard], reward[0, heard]
                for h in range(H - 1):
                    log_posterior = log_weights + np.log(forward.sum(1))
                    posterior = np.exp(log_posterior - log_posterior.max())
                    posterior /= posterior.sum()
                    bail = np.bincount(table[h, heard], weights=posterior, minlength=G)
                    subgoal = draw(np.cumsum(np.full(G, 1 / G) if explore else bail), rng)
                    state = draw(move_cdf[subgoal, state], rng)
                    heard = draw(emit_cdf[state], rng)
                    forward = np.matmul(forward[:, None], kernel[subgoal])[:, 0] * emission[heard]
                    gained += reward[h + 1, heard]
                log_weights = log_weights + np.log(forward.sum(1))
                regret[n, t] = 1 - gained
        return regret, true_task

    return run


def jax_vmapped(problem: Problem) -> Loop:
    """In float64; kernels gathered for each seed, the forward pass by logsumexp."""
    family, task = problem.family, problem.task
    G, H = family.num_subgoals, family.horizon
    arrays = {
        "initial": np.log(family.initial),
        "kernel": np.log(problem.kernel),
        "emission": np.log(family.emission),
        "reward": family.reward[..., 0],
        "table": problem.table,
    }

    def one(p: Any, key: Any, episodes: int) -> Any:
        def episode(carry: Any, key: Any) -> Any:
            log_weights = carry
            coin, first, *keys = jax.random.split(key, H + 1)
            explore = jax.random.uniform(coin) < problem.epsilon
            k0, k1 = jax.random.split(first)
            s = jax.random.categorical(k0, p["initial"][task])
            o = jax.random.categorical(k1, p["emission"][task, s])

            def step(carry: Any, item: Any) -> Any:
                s, o, forward, gained = carry
                h, key = item
                k0, k1, k2 = jax.random.split(key, 3)
                posterior = jax.nn.softmax(log_weights + jax.nn.logsumexp(forward, axis=1))
                bail = jnp.zeros(G).at[p["table"][h, o]].add(posterior)
                g = jax.random.categorical(k0, jnp.log(jnp.where(explore, 1 / G, bail)))
                s = jax.random.categorical(k1, p["kernel"][task, g, s])
                o = jax.random.categorical(k2, p["emission"][task, s])
                ahead = jax.nn.logsumexp(forward[:, :, None] + p["kernel"][:, g], axis=1)
                return (s, o, ahead + p["emission"][:, :, o], gained + p["reward"][h + 1, o]), None

            start = s, o, p["initial"] + p["emission"][:, :, o], p["reward"][0, o]
            (_, _, forward, gained), _ = jax.lax.scan(step, start, (jnp.arange(H - 1), jnp.stack(keys)))
            after = jax.nn.log_softmax(log_weights + jax.nn.logsumexp(forward, axis=1))
            return after, (1 - gained, jax.nn.softmax(log_weights)[task])

        return jax.lax.scan(episode, jnp.log(family.task_prior), jax.random.split(key, episodes))[1]

    every = jax.jit(jax.vmap(one, in_axes=(None, 0, None)), static_argnums=2)

    def run(episodes: int, seeds: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        with jax.enable_x64(True):
            regret, true_task = every(arrays, jax.random.split(jax.random.key(key), seeds), episodes)
            return np.asarray(regret), np.asarray(true_task)

    return run


def numba_parallel(problem: Problem, threads: int = 2) -> Loop:
    import numba

    @numba.njit
    def draw(cdf, uniform):
        target, k = uniform * cdf[-1], 0
        while k < len(cdf) - 1 and cdf[k] <= target:
            k += 1
        return k

    @numba.njit(parallel=True)
    def loop(log_prior, initial, kernel, emission, reward, table, cdfs, task, epsilon, episodes, seeds, key):
        S, Z = initial.shape
        G, H = len(kernel), len(reward)
        initial_cdf, move_cdf, emit_cdf = cdfs
        regret, true_task = np.empty((seeds, episodes)), np.empty((seeds, episodes))
        for n in numba.prange(seeds):
            np.random.seed(key * seeds + n)  # noqa: NPY002, the generator that numba compiles best
            log_weights, posterior, chances = log_prior.copy(), np.empty(Z), np.empty(G)
            forward, ahead = np.empty((S, Z)), np.empty((S, Z))
            for t in range(episodes):
                explore = np.random.random() < epsilon  # noqa: NPY002
                top = log_weights.max()
                true_task[n, t] = np.exp(log_weights[task] - top) / np.exp(log_weights - top).sum()
                s = draw(initial_cdf, np.random.random())  # noqa: NPY002
                o = draw(emit_cdf[s], np.random.random())  # noqa: NPY002
                gained = reward[0, o]
                for i in range(S):
                    for z in range(Z):
                        forward[i, z] = initial[i, z] * emission[o, i, z]
                for h in range(H - 1):
                    for z in range(Z):
                        posterior[z] = 0
                    for i in range(S):
                        for z in range(Z):
                            posterior[z] += forward[i, z]
                    for z in range(Z):
                        posterior[z] = log_weights[z] + np.log(posterior[z])
                    top, total = posterior.max(), 0.0
                    for z in range(Z):
                        posterior[z] = np.exp(posterior[z] - top)
                        total += posterior[z]
                    if explore:
                        chances[:] = 1 / G
                    else:
                        chances[:] = 0
                        for z in range(Z):
                            chances[table[h, o, z]] += posterior[z] / total
                    for g in range(1, G):
                        chances[g] += chances[g - 1]
                    g = draw(chances, np.random.random())  # noqa: NPY002
                    s = draw(move_cdf[g, s], np.random.random())  # noqa: NPY002
                    o = draw(emit_cdf[s], np.random.random())  # noqa: NPY002
                    ahead[:] = 0
                    for i in range(S):
                        for j in range(S):
                            for z in range(Z):
                                ahead[j, z] += forward[i, z] * kernel[g, i, j, z]
                    for j in range(S):
                        for z in range(Z):
                            forward[j, z] = ahead[j, z] * emission[o, j, z]
                    gained += reward[h + 1, o]
                for z in range(Z):
                    log_weights[z] += np.log(forward[:, z].sum())
                log_weights -= log_weights.max()
                regret[n, t] = 1 - gained
        return regret, true_task

    family = problem.family
    arrays = (
        np.log(family.task_prior),
        np.ascontiguousarray(family.initial.T),
        np.ascontiguousarray(np.transpose(problem.kernel, (1, 2, 3, 0))),
        np.ascontiguousarray(np.transpose(family.emission, (2, 1, 0))),
        np.ascontiguousarray(family.reward[..., 0]),
        problem.table,
        _cumulative(problem),
        problem.task,
        problem.epsilon,
    )

    def run(episodes: int, seeds: int, key: int) -> tuple[np.ndarray, np.ndarray]:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        return loop(*arrays, episodes, seeds, key)

    return run


Beliefs = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(observations [seeds, H], subgoals [seeds, H-1]) -> P(task) after the episode, [seeds, Z]."""


def joint_kernels(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Over (task, state) as one hidden state of n = Z S: its law [n], moves [G, n, n] and emission [n, O]."""
    family = problem.family
    Z, S, O = family.emission.shape
    moves = np.zeros((family.num_subgoals, Z, S, Z, S))
    for z in range(Z):
        moves[:, z, :, z] = problem.kernel[z]
    law = family.task_prior[:, None] * family.initial
    return law.reshape(-1), moves.reshape(-1, Z * S, Z * S), family.emission.reshape(Z * S, O)


def pymdp_beliefs(problem: Problem, seeds: int) -> Beliefs:
    """Compiled, all seeds in one batch, one iteration, which is exact where there is one factor."""
    from pymdp.agent import Agent

    law, moves, emission = joint_kernels(problem)
    n, shape = len(law), (problem.family.num_tasks, problem.family.num_states)
    agent = Agent(
        A=[jnp.asarray(np.broadcast_to(emission.T, (seeds, *emission.T.shape)), jnp.float32)],
        B=[jnp.asarray(np.broadcast_to(np.transpose(moves, (2, 1, 0)), (seeds, n, n, len(moves))), jnp.float32)],
        D=[jnp.asarray(np.broadcast_to(law, (seeds, n)), jnp.float32)],
        batch_size=seeds,
        num_iter=1,
    )
    infer = jax.jit(lambda heard, prior: agent.infer_states([heard], prior))
    move = jax.jit(lambda chosen, belief: agent.update_empirical_prior(chosen, belief))

    def run(observations: np.ndarray, subgoals: np.ndarray) -> np.ndarray:
        prior = agent.D
        for h in range(observations.shape[1]):
            belief = infer(jnp.asarray(observations[:, h, None]), prior)
            if h < subgoals.shape[1]:
                prior = move(jnp.asarray(subgoals[:, h, None]), belief)
        return np.asarray(belief[0]).reshape(seeds, *shape).sum(-1)

    return run


def pomdp_py_beliefs(problem: Problem) -> Beliefs:
    """Histograms, updated by models that look up tables."""
    import pomdp_py

    law, moves, emission = joint_kernels(problem)

    class Hears(pomdp_py.ObservationModel):
        def probability(self, observation, next_state, action):
            return emission[next_state, observation]

    class Moves(pomdp_py.TransitionModel):
        def probability(self, next_state, state, action):
            return moves[action, state, next_state]

    hears, moved = Hears(), Moves()

    def run(observations: np.ndarray, subgoals: np.ndarray) -> np.ndarray:
        found = []
        for o, g in zip(observations, subgoals, strict=True):
            first = law * emission[:, o[0]]
            belief = pomdp_py.Histogram(dict(enumerate(first / first.sum())))
            for h in range(len(g)):
                belief = pomdp_py.update_histogram_belief(belief, int(g[h]), int(o[h + 1]), hears, moved)
            found.append([belief[i] for i in range(len(law))])
        return np.reshape(found, (len(found), problem.family.num_tasks, -1)).sum(-1)

    return run


def _cumulative(problem: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    family, z = problem.family, problem.task
    return tuple(np.cumsum(a, -1) for a in (family.initial[z], problem.kernel[z], family.emission[z]))
