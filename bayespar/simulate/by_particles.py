"""The online loop where tasks have a density: each run carries particles, and plans with the worlds of its particles.

While its particles stay where they are they form a finite family: an episode runs compiled, with their weights as the
prior. Between episodes the weights are updated, and when the particles have to be moved, their experts are solved anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..arrays import precision_of
from ..distributed import in_blocks
from ..errors import InvalidPlannerError, InvalidWorldError
from ..history import Prompt
from ..keys import check_key
from ..planning.bail import BailPlanner
from ..planning.baselines import OraclePlanner, ThompsonPlanner
from ..planning.by_draws import subfamily
from ..planning.expert import AlphaExperts, Experts, HistoryExperts, StateExperts, solve_experts
from ..planning.exploration import as_exploration
from ..planning.lookahead import LookaheadPlanner
from ..planning.planner import Episode, Observed, Planner, as_planner, as_policy, check_shape
from ..posterior.latents import Latents
from ..posterior.particles import SMC, Particles, constrain
from ..validation import check_count, check_fits, shown
from ..world import Family
from .environment import draw, split_key, uniforms
from .regret import LONGEST_CHUNK, SEED_BLOCK, Loop, RegretCurves, largest_loss, run_episode, simulate_regret

PLANNERS: Mapping[str, Callable[[Family, Experts], BailPlanner]] = {
    "bail": BailPlanner,
    "bawm-lookahead": LookaheadPlanner,
    "thompson": ThompsonPlanner,
}
"""The planners that read the particles, by name."""


class Blind(Planner):
    """A planner that shows no posterior: one world is all there is to see, and every point has probability 0."""

    inner: Planner

    def init(self, instruction: Any, key: Any) -> Any:
        return self.inner.init(instruction, key)

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        return self.inner.step(state, observed)

    def observe(self, state: Any, episode: Episode) -> Any:
        return self.inner.observe(state, episode)


class Recorder(Planner):
    """A planner for one episode, which keeps what it saw: the particles are updated outside."""

    inner: BailPlanner
    horizon: int = eqx.field(static=True)

    def init(self, instruction: Any, key: Any) -> Any:
        H = self.horizon
        return self.inner.init(instruction, key), Episode(jnp.int32(0), jnp.zeros(H, int), jnp.zeros(H - 1, int))

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        inner, probabilities = self.inner.step(state[0], observed)
        return (inner, state[1]), probabilities

    def observe(self, state: Any, episode: Episode) -> Any:
        return state[0], episode


def true_world(latents: Latents, task: Any) -> Family:
    """The world at given values of all sites, as a family of one task.

    Args:
        latents: from :func:`find_latents`.
        task: the value of every site, by name; finite ones as the program samples them.

    Raises:
        InvalidWorldError: a site is missing, unknown, of another shape or outside its support, or the values of the
            finite sites do not occur together.
    """
    finite = list(dict.fromkeys(name for leaf in latents.leaves for name in leaf))
    every = ", ".join([*latents.shapes, *finite])
    if not isinstance(task, Mapping):
        raise InvalidWorldError(f"task = {shown(task)}; give the value of every site of the program: {every}")
    for name in task:
        if name not in latents.shapes and name not in finite:
            raise InvalidWorldError(f"task[{shown(name)}]: there is no such site; the sites are {every}")
    points = {}
    for name, shape in latents.shapes.items():
        if name not in task:
            raise InvalidWorldError(f"task has no value for site {name!r}; the sites are {every}")
        try:
            value = np.asarray(task[name], np.float64)
        except (TypeError, ValueError):
            raise InvalidWorldError(f"task[{name!r}] = {shown(task[name])}; give numbers of shape {shape}") from None
        if value.shape != shape:
            raise InvalidWorldError(f"task[{name!r}] has shape {value.shape}; the site has {shape}")
        with jax.enable_x64(True):
            inside = np.isfinite(value).all() and bool(np.all(latents.supports[name](jnp.asarray(value))))
        if not inside:
            raise InvalidWorldError(f"task[{name!r}] = {shown(task[name])} lies outside the support of the site")
        points[name] = value[None]
    given = {name for name in finite if name in task}
    leaves = [
        k
        for k, leaf in enumerate(latents.leaves)
        if leaf.keys() == given and all(np.array_equal(leaf[name], task[name]) for name in leaf)
    ]
    if len(leaves) != 1:
        known = "; ".join(latents.leaf_names[:8])
        raise InvalidWorldError(
            f"task gives the finite sites as { {name: task[name] for name in given} }, which is none of the joint "
            f"values that the program samples: {known}"
        )
    log_prior, family = latents.mixture(points)
    if log_prior[0, leaves[0]] == -np.inf:
        raise InvalidWorldError(f"task = {shown(dict(task))} has prior density 0, so no posterior can ever find it")
    return subfamily(family, np.array(leaves))


def simulate_by_particles(
    latents: Latents,
    task: Any,
    planner: Any,
    exploration: Any,
    episodes: int,
    seeds: int,
    exploration_policy: Any,
    *,
    key: Any,
    particles: int,
    progress: Callable[[int], None] | None,
) -> RegretCurves:
    """:func:`simulate_regret` for a program with a density.

    A planner of your own, and the oracle, run in the true world alone, all compiled. "bail", "thompson" and
    "bawm-lookahead" carry their posterior as particles: the error of their probabilities is that of so many particles.

    Raises:
        InvalidPlannerError, InvalidWorldError, InvalidProgramError: as :func:`simulate_regret`; also for rules and
            exploration policies that need eta, which is 0 where tasks have a density.
    """
    family = true_world(latents, task)
    for name, count in (("episodes", episodes), ("seeds", seeds), ("particles", particles)):
        check_count(name, count)
    check_fits(f"episodes = {episodes}, seeds = {seeds}", 24 * episodes * seeds)
    check_key(key)
    no_eta = "eta is 0 where tasks have a density (theory.md, section 8)"
    if isinstance(exploration, str):
        raise InvalidPlannerError(f"exploration = {shown(exploration)}: {no_eta}; give epsilon, or a schedule [T]")
    rule = as_exploration(exploration, episodes)
    if rule.gated:
        raise InvalidPlannerError(
            "exploration has a gate, but a point has no probability that could open it; use a coin"
        )
    if isinstance(exploration_policy, str) and exploration_policy != "uniform":
        raise InvalidPlannerError(
            f'exploration_policy = {shown(exploration_policy)}; give "uniform" or a policy of your own: {no_eta}, so '
            "none can be designed"
        )
    if not isinstance(planner, str) or planner == "oracle":
        experts = solve_experts(family)
        inner = (
            OraclePlanner(family, experts, 0) if planner == "oracle" else as_planner(planner, family, episodes=episodes)
        )
        curves = simulate_regret(
            family,
            0,
            Blind(inner),
            rule,
            episodes,
            seeds,
            exploration_policy,
            key=key,
            experts=experts,
            progress=progress,
        )
        return replace(curves, true_task=np.full_like(curves.true_task, np.nan))
    if planner not in PLANNERS:
        raise InvalidPlannerError(
            f"planner = {shown(planner)}; where tasks have a density give {', '.join(map(repr, PLANNERS))}, 'oracle' "
            "or a planner of your own"
        )
    return _run(latents, family, planner, rule, episodes, seeds, exploration_policy, key, particles, progress)


def _run(
    latents: Latents,
    family: Family,
    planner: str,
    rule: Any,
    episodes: int,
    seeds: int,
    exploration_policy: Any,
    key: Any,
    particles: int,
    progress: Callable[[int], None] | None,
) -> RegretCurves:
    experts = solve_experts(family)
    estimator = "advantage" if experts.gap == 0 else "reward"
    explorer = as_policy(exploration_policy, family, episodes=episodes)
    check_shape("exploration policy", explorer, family)
    smc = SMC(latents, particles, chains=1)
    rules = np.stack([rule.coin, rule.gate], axis=1)
    root, entropy = split_key(key)

    def loop_of(state: Particles) -> Loop:
        with precision_of(family):
            points = {name: a[0] for name, a in constrain(latents, state.u).items()}
            worlds = latents.mixture(points)[1]
            inner = PLANNERS[planner](worlds, _padded(solve_experts(worlds)))
            loop = Loop(family, 0, Recorder(inner, family.horizon), explorer, experts, estimator, False)
            return jax.tree.map(jnp.asarray, loop)

    def run(seed: int) -> tuple[np.ndarray, ...]:
        block, row = divmod(seed, SEED_BLOCK)
        with precision_of(family):
            start, *rest = jax.random.split(jax.random.fold_in(root, seed), 3)
            state = smc.init(start)
            loop, generation = loop_of(state), state.generation
            curves = np.zeros(episodes), np.zeros(episodes, bool), np.zeros(episodes, np.int32)
            uniform = np.zeros(0)
            for t in range(episodes):
                if t % LONGEST_CHUNK == 0:
                    shape = (LONGEST_CHUNK, SEED_BLOCK, family.horizon + 1, 3)
                    uniform = uniforms(entropy, block, t // LONGEST_CHUNK, shape, family.dtype)[:, row]
                if state.generation != generation:
                    loop, generation = loop_of(state), state.generation
                weights = _log_weights(state)
                keys = jax.random.fold_in(rest[0], t), rest[1]
                *out, o, g = _play(loop, weights, *keys, uniform[t % LONGEST_CHUNK], rules[t])
                for curve, value in zip(curves, out, strict=True):
                    curve[t] = value
                if np.isnan(curves[0][t]):
                    break
                state = smc.observe(state, Prompt(np.asarray(o)[None], np.asarray(g)[None], curves[2][t : t + 1]))
        if progress is not None:
            progress(episodes)
        return curves

    results = in_blocks(run, seeds)
    regret, explored, asked = (np.stack(a) for a in zip(*results, strict=True))
    if np.isnan(regret).any():
        seed, t = (int(i) for i in np.argwhere(np.isnan(regret))[0])
        raise InvalidPlannerError(
            f"seed {seed}, episode {t} (both from 0): the acting policy returned no distribution over subgoals; if it "
            f"is that of the particles, what was observed has probability 0 under every one: use more than {particles}"
        )
    unknown = np.full(regret.shape, np.nan)
    return RegretCurves(regret, unknown, explored, asked, largest_loss(family, estimator), estimator)


@eqx.filter_jit
def _play(loop: Loop, log_weights: Any, key: Any, explorer_key: Any, uniform: Any, rule: Any) -> Any:
    """One episode: regret, explored, w, observations and subgoals."""
    loop = eqx.tree_at(lambda l: l.planner.inner.log_prior, loop, log_weights)
    state = loop.planner.init(draw(loop.environment.instructions, uniform[-1, 0]), key)
    ((_, episode), _), (loss, _, explored, w) = run_episode(loop, (state, explorer_key), uniform, rule)
    return loss, explored, w, episode.observations, episode.subgoals


@jax.jit
def _leaf_weights(log_weights: Any, log_joint: Any) -> Any:
    return (log_weights[..., None] + jax.nn.log_softmax(log_joint, axis=-1))[0].reshape(-1)


def _log_weights(state: Particles) -> Any:
    """log P(particle, leaf | past), in the order of the tasks of ``Latents.mixture``."""
    return _leaf_weights(state.log_weights, state.log_joint)


def _padded(experts: Experts) -> Experts:
    """The same experts with tables of a size that few sizes share, so that little is compiled anew."""
    if isinstance(experts, HistoryExperts):
        inner, nodes = experts.child.shape[0], experts.table.shape[0]
        more, last = _power(inner), _power(nodes) - 1

        def moved(nodes_of: Any, rows: int = 0) -> Any:
            padding = [(0, rows)] + [(0, 0)] * (nodes_of.ndim - 1)
            to = np.where(nodes_of == nodes - 1, last, nodes_of).astype(np.int32)
            return np.pad(to, padding, constant_values=last)

        rows = [(0, last + 1 - nodes)] + [(0, 0)] * 2
        return HistoryExperts(
            value=experts.value,
            gap=0.0,
            root=moved(experts.root),
            child=moved(experts.child, more - inner),
            table=np.pad(experts.table, rows),
            actions=np.pad(experts.actions, rows[:2]),
        )
    if isinstance(experts, AlphaExperts):
        width = experts.vectors.shape[4]
        padding = [(0, 0)] * 4 + [(0, _power(width) - width), (0, 0)]
        return AlphaExperts(value=experts.value, gap=0.0, vectors=np.pad(experts.vectors, padding, mode="edge"))
    assert isinstance(experts, StateExperts)
    return experts


def _power(count: int) -> int:
    return 1 << max(count - 1, 0).bit_length()
