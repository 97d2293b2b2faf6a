"""The online loop: T episodes, many seeds, one planner, and the regret it collects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array, precision_of
from ..distributed import in_blocks
from ..errors import InvalidPlannerError, InvalidWorldError
from ..filtering import Filter
from ..keys import check_key
from ..planning.aggregated import BawmPlanner
from ..planning.bail import BailPlanner, WatchedPlanner
from ..planning.baselines import MapPlanner, OraclePlanner, ThompsonPlanner
from ..planning.classes import task_classes
from ..planning.design import as_exploration_policy
from ..planning.expert import Experts, check_experts, solve_experts
from ..planning.exploration import Odds, as_exploration, by_rule, check_rule
from ..planning.hellinger import eta
from ..planning.lookahead import LookaheadPlanner
from ..planning.planner import Episode, Observed, Planner, as_planner, check_shape, is_distribution
from ..planning.search import SearchPlanner
from ..planning.several import IndependentPlanner, SequentialPlanner
from ..posterior.latents import Latents, as_latents
from ..program import Program, as_family
from ..statistics import Interval, MeanConfidence
from ..validation import check_count, check_fits, check_fraction, shown
from ..world import Family
from .environment import Environment, block_keys, draw, split_key, stream

# Seeds run in blocks of this many, whatever the machine, so that results do not depend on it.
SEED_BLOCK = 16
# Where a step is cheap, so many blocks are run at once, so that numbers take the time and not their administration, and
# so many steps are written out, so that what one leaves need not be moved to where the next looks for it.
BLOCKS_TOGETHER = UNROLLED = 2
LONGEST_CHUNK = 256
_SHORT_CHUNK = 64  # where a block may be over early


def _by_experts(kind: Any) -> Callable[[Family, Experts, int], Planner]:
    return lambda family, experts, task: kind(family, experts)


PLANNERS: dict[str, Callable[[Family, Experts, int], Planner]] = {
    "bail": _by_experts(BailPlanner),
    "bawm": lambda family, experts, task: BawmPlanner(family),
    "bawm-lookahead": _by_experts(LookaheadPlanner),
    "bawm-search": _by_experts(SearchPlanner),
    "independent": _by_experts(IndependentPlanner),
    "sequential": _by_experts(SequentialPlanner),
    "thompson": _by_experts(ThompsonPlanner),
    "map": _by_experts(MapPlanner),
    "oracle": OraclePlanner,
}
"""The planners by name, made of the family, its experts and the true task, which only the oracle may read."""

# Planners whose steps are cheap, and that give nothing away once their posterior is certain.
_SETTLED = (BailPlanner, BawmPlanner, IndependentPlanner, MapPlanner, SequentialPlanner, ThompsonPlanner)


@dataclass(frozen=True)
class RegretCurves:
    """What a planner lost, episode by episode.

    Attributes:
        regret: expected loss of each episode given the history in it, [seeds, T]; its mean over seeds estimates
            J_z(pi*_z, w) - J_z(pi_t, w), in units of reward.
        true_task: P(z | pt) of the true task before each episode, [seeds, T]; NaN for a planner without a posterior.
        explored: whether the exploration policy acted, [seeds, T].
        instructions: w of each episode, [seeds, T].
        bound: the largest entry that ``regret`` can have.
        estimator: "advantage" (the expert's advantages along the way, never negative) or "reward" (value minus
            rewards, where the experts are not exact).
    """

    regret: Float[np.ndarray, "seeds T"]
    true_task: Float[np.ndarray, "seeds T"]
    explored: np.ndarray
    instructions: Int[np.ndarray, "seeds T"]
    bound: float
    estimator: str

    @property
    def cumulative(self) -> Float[np.ndarray, "seeds T"]:
        """Regret summed over episodes, [seeds, T]."""
        return np.cumsum(self.regret, axis=1)

    def under(self, instruction: int) -> Float[np.ndarray, " T"]:
        """Mean regret of the t-th episode where its instruction is this one; NaN where it never was, [T]."""
        asked = self.instructions == instruction
        count = asked.sum(axis=0)
        total = np.where(asked, self.regret, 0).sum(axis=0)
        return np.where(count > 0, total / np.maximum(count, 1), np.nan)

    def interval(self, episodes: int | None = None, *, alpha: float = 1e-3) -> Interval:
        """A confidence interval for Reg_z of the first ``episodes`` episodes (all by default), valid at any time.

        Raises:
            InvalidPlannerError: there are not so many episodes, or ``alpha`` is no error level.
        """
        check_fraction("alpha", alpha)
        T = self.regret.shape[1] if episodes is None else check_count("episodes", episodes)
        if self.regret.shape[1] < T:
            raise InvalidPlannerError(f"episodes = {T}, but only {self.regret.shape[1]} were run")
        totals = self.regret[:, :T].sum(axis=1)
        sequence = MeanConfidence(*self.total_range(T), alpha, plan=len(totals))
        for batch in np.array_split(totals, min(len(totals), 64)):
            sequence.update(batch)
        return sequence.interval()

    def total_range(self, episodes: int) -> tuple[float, float]:
        """Bounds that the regret of ``episodes`` episodes can never leave."""
        low = 0.0 if self.estimator == "advantage" else -self.bound * episodes
        return low, self.bound * episodes


def simulate_regret(
    family_or_program: Family | Program | Latents,
    task: int | str | Mapping[str, Any],
    planner: Any = "bail",
    exploration: Any = 0.0,
    episodes: int = 100,
    seeds: int = 64,
    exploration_policy: Any = "uniform",
    *,
    key: Any = 0,
    experts: Experts | None = None,
    particles: int = 256,
    progress: Callable[[int], None] | None = None,
) -> RegretCurves:
    """Run a planner for T episodes in the world of one task, many times over.

    In episode t a coin of bias eps_t, independent of everything else, or a gate that reads the posterior, lets the
    exploration policy act instead of the planner; the planner sees what happened either way. Kept on the device: one
    chunk of episodes. The same key gives the same curves on any machine. Runs whose posterior is certain and that will
    not explore again are over: their regret is 0 from then on.

    Args:
        family_or_program: a Family, or a program, finite or not.
        task: the true task z, an index or a name; where tasks have a density, the value of every site by name, finite
            ones too.
        planner: "bail", "bawm" (the best plan in the aggregated world model; "bawm-lookahead" and "bawm-search" where
            its histories do not fit), "independent" and "sequential" (how several Actors draw from BAIL), "thompson",
            "map", "oracle", or anything that :func:`as_planner` takes.
        exploration: epsilon, a schedule [T], an :class:`Exploration`, or a rule of theory.md by name: "constant",
            "anytime" or "explore-first" (E2; they use the eta of the exploration policy), "gated" or "gated-anytime"
            (E3). A gate reads the planner's posterior, or the exact one if the planner has none.
        episodes: T.
        seeds: independent runs.
        exploration_policy: "uniform", "best" (largest eta), "cheapest" (least loss per information), or anything that
            :func:`as_planner` takes.
        key: a JAX key or an int.
        experts: of a finite program, from :func:`solve_experts`; solved here if not given.
        particles: where tasks have a density, how many points stand for the posterior of each run.
        progress: called with the number of seed-episodes just finished.

    Where tasks have a density, the planners by name are "bail", "thompson", "bawm-lookahead" and "oracle"; each run
    carries its posterior as particles (see :class:`SMC`) and solves their experts whenever they move. Points have
    probability 0 and eta is 0 there, so ``true_task`` is NaN, and gates and rules that need either are refused.

    Raises:
        InvalidPlannerError: no such planner or rule, a planner whose probabilities are none, a schedule outside [0, 1],
            a rule that needs an eta above 0, experts of another family, or no episodes, seeds or key.
        InvalidWorldError: no such task, or its prior is 0.
        TooLargeError: so many episodes and seeds, or the histories that "bawm" plans over, do not fit.

    Source: theory.md, sections 1 and 4. The estimator is the performance-difference lemma (Kakade and Langford, 2002).
    """
    latents = as_latents(family_or_program)
    if latents is not None:
        from .by_particles import simulate_by_particles  # it runs this loop

        if experts is not None:
            raise InvalidPlannerError("experts are solved for each particle where tasks have a density; leave them out")
        return simulate_by_particles(
            latents,
            task,
            planner,
            exploration,
            episodes,
            seeds,
            exploration_policy,
            key=key,
            particles=particles,
            progress=progress,
        )
    assert not isinstance(family_or_program, Latents)
    family = as_family(family_or_program)
    if isinstance(task, Mapping):
        raise InvalidWorldError("task gives values of sites, but the program is finite; give the task's index or name")
    z = family.task_index(task)
    check_count("episodes", episodes)
    check_count("seeds", seeds)
    check_fits(f"episodes = {episodes}, seeds = {seeds}", 24 * episodes * seeds)
    check_key(key)
    rule = exploration
    if isinstance(rule, str):
        check_rule(rule)
    else:
        rule = as_exploration(rule, episodes)
    if not family.task_prior[z] > 0:
        raise InvalidWorldError(f"the task {family.tasks[z]!r} has prior 0, so no posterior can ever find it")
    experts = solve_experts(family) if experts is None else check_experts(experts, family)
    chosen = _named_planner(planner, family, z, experts, episodes)
    explorer = as_exploration_policy(exploration_policy, family, episodes=episodes)
    with precision_of(family):
        for role, policy in (("planner", chosen), ("exploration policy", explorer)):
            check_shape(role, policy, family)
    if isinstance(rule, str):
        needs_eta = not rule.startswith("gated")
        least = eta(task_classes(family).family, explorer) if needs_eta else 1.0
        rule = by_rule(rule, Odds.of(family), least, episodes)
    estimator = "advantage" if experts.gap == 0 else "reward"

    ends = estimator == "advantage" and type(chosen) in _SETTLED
    last_coin = int(np.flatnonzero(rule.coin).max(initial=-1))
    # In single precision a probability of 1 may hide a doubt that opens a gate.
    ends = ends and last_coin < episodes - _SHORT_CHUNK and family.dtype == np.float64
    chunk = min(_SHORT_CHUNK if ends else LONGEST_CHUNK, 1 << (episodes - 1).bit_length())
    chunks = -(-episodes // chunk)
    padded = np.zeros((chunks * chunk, 2), family.dtype)
    padded[:episodes] = np.stack([rule.coin, rule.gate], axis=1)
    cheap = type(chosen) in _SETTLED
    together, unroll = (BLOCKS_TOGETHER, UNROLLED) if cheap else (1, 1)
    width = SEED_BLOCK * together
    groups = -(-seeds // width)
    root, entropy = split_key(key)
    with precision_of(family):
        if rule.gated and jax.eval_shape(lambda k: chosen.posterior(chosen.init(0, k)), root) is None:
            chosen = WatchedPlanner(chosen, BailPlanner(family, experts))
        loop = Loop(family, z, chosen, explorer, experts, estimator, rule.gated, unroll)

    def numbers(group: int) -> Iterator[np.ndarray]:
        """Chunk after chunk, in one buffer; the same for an episode and a seed however long and wide the chunks are."""
        shape = together, chunk, SEED_BLOCK, family.horizon + 1, 3
        held, streams = np.empty(shape, family.dtype), []
        for start in range(0, chunks * chunk, chunk):
            if start % LONGEST_CHUNK == 0:
                blocks = range(group * together, (group + 1) * together)
                streams = [stream(entropy, block, start // LONGEST_CHUNK) for block in blocks]
            for rows, source in zip(held, streams, strict=True):
                source.random(out=rows, dtype=family.dtype)
            yield held

    def run(group: int) -> list[np.ndarray]:
        curves: list[np.ndarray] = []  # [seeds of the group, T] each

        def store(start: int, parts: list[np.ndarray]) -> None:
            if not curves:
                rows = min(width, seeds - group * width)
                curves.extend(np.empty((rows, episodes), part.dtype) for part in parts)
            for curve, part in zip(curves, parts, strict=True):
                room = curve[:, start : start + part.shape[1]]
                room[:] = part[: room.shape[0], : room.shape[1]]

        with precision_of(family):
            state: Any = None
            uniforms = numbers(group)
            for c, uniform in enumerate(uniforms):
                if c == 0:
                    blocks = range(group * together, (group + 1) * together)
                    keys = block_keys(root, entropy, blocks, (2, SEED_BLOCK))
                    state = start_block(loop, keys, uniform[:, 0].reshape(width, -1, 3))
                state, out = _run_chunk(loop, state, uniform, padded[c * chunk : (c + 1) * chunk])
                parts = [np.asarray(a).T for a in out]
                store(c * chunk, parts)
                left = chunks - c - 1
                over = ends and left > 0 and (c + 1) * chunk > last_coin and bool((parts[1][:, -1] == 1).all())
                if progress is not None:
                    progress(width * chunk * (left + 1 if over else 1))
                if over:
                    rest = (width, chunk * left)
                    coins = np.zeros(rest, family.dtype)
                    if family.num_instructions > 1:
                        for part, later in zip(np.split(coins, left, axis=1), uniforms, strict=True):
                            part[:] = later[:, :, :, family.horizon, 0].swapaxes(1, 2).reshape(width, chunk)
                    asked = loop.environment.instruct(coins)
                    store((c + 1) * chunk, [np.zeros(rest), np.ones(rest), np.zeros(rest, bool), asked])
                    break
        return curves

    found = in_blocks(run, groups)
    regret, true_task, explored, asked = (np.concatenate([curves.pop(0) for curves in found]) for _ in range(4))
    if np.isnan(regret).any():
        seed, t = (int(i) for i in np.argwhere(np.isnan(regret))[0])
        raise InvalidPlannerError(
            f"seed {seed}, episode {t} (both from 0): the acting policy returned no distribution over subgoals; "
            "if it is a posterior's, its evidence was impossible under every task that it knows"
        )
    return RegretCurves(regret, true_task, explored, asked, largest_loss(family, estimator), estimator)


def largest_loss(family: Family, estimator: str) -> float:
    """What no episode's entry can exceed, from the spread of rewards at each step; 0 would leave no room for rounding.

    An advantage at step h is at most what the rewards after h can differ by. Chance can give back what was lost, so
    advantages along a path can add up to more than an episode can lose on average.
    """
    reward = np.asarray(family.reward, np.float64)
    spread = (reward.max(axis=1) - reward.min(axis=1)).max(axis=1)
    steps = np.arange(family.horizon) if estimator == "advantage" else np.ones(family.horizon)
    return max(float(steps @ spread), 1e-9)


class Loop(eqx.Module):
    """Everything that the online loop reads."""

    environment: Environment
    planner: Planner
    explorer: Planner
    experts: Experts
    tracker: Filter
    reward: Float[Array, "H O W"]
    task: Any
    label: Int[Array, " Z"]
    horizon: int = eqx.field(static=True)
    estimator: str = eqx.field(static=True)
    gated: bool = eqx.field(static=True)
    unroll: int = eqx.field(static=True)

    def __init__(
        self,
        family: Family,
        task: int,
        planner: Planner,
        explorer: Planner,
        experts: Experts,
        estimator: str,
        gated: bool,
        unroll: int = 1,
    ):
        self.environment = Environment(family)
        self.planner, self.explorer, self.experts = planner, explorer, experts
        self.tracker = Filter(family)
        self.reward = family.reward
        self.task = np.int32(task)
        self.horizon = family.horizon
        self.estimator = estimator
        self.gated = gated
        self.unroll = unroll
        self.label = task_classes(family).label if gated else np.zeros(family.num_tasks, int)


@eqx.filter_jit
def start_block(loop: Loop, keys: Any, uniform: Any) -> Any:
    """The planner's state and the explorer's key of every seed, before the first episode; ``keys`` are [2, seeds]."""

    def one(planner_key: Any, uniform: Any) -> Any:
        return loop.planner.init(draw(loop.environment.instructions, uniform[-1, 0]), planner_key)

    return jax.vmap(one)(keys[0], uniform), keys[1]


@eqx.filter_jit
def _run_chunk(loop: Loop, state: Any, uniform: Any, rules: Any) -> Any:
    """A chunk of episodes for some blocks of seeds; ``uniform`` is [blocks, T, seeds of a block, H+1, 3]."""

    def episode(state: Any, item: Any) -> Any:
        uniform, rule = item
        return jax.vmap(lambda s, u: run_episode(loop, s, u, rule))(state, uniform)

    by_episode = jnp.moveaxis(uniform, 0, 1).reshape(len(rules), -1, *uniform.shape[3:])
    return jax.lax.scan(episode, state, (by_episode, rules))


def run_episode(loop: Loop, state: Any, uniform: Any, rule: Any) -> Any:
    """One episode: (planner state, exploration key) -> the same, and (regret, P(true task) before it, explored, w).

    ``uniform`` [H+1, 3] has a row a step (state, observation, subgoal), then (w, coin, unused); ``rule`` is
    (probability of the coin, threshold of the gate).
    """
    H, environment = loop.horizon, loop.environment
    planner_state, explorer_key = state
    w = draw(environment.instructions, uniform[H, 0])
    explore = uniform[H, 1] < rule[0]
    if loop.gated:
        explore = explore | (_uncertainty(loop, planner_state) > rule[1])
    explorer_state = loop.explorer.init(w, explorer_key)
    before = _true_task(loop, planner_state)

    s = environment.start(loop.task, uniform[0, 0])
    o = environment.emit(loop.task, s, uniform[0, 1])
    gained = jnp.asarray(loop.reward)[0, o, w]
    memory = loop.experts.start(o)
    forward = loop.tracker.start(o) if _needs_belief(loop) else ()

    def step(carry: Any, item: Any) -> Any:
        planner_state, explorer_state, s, o, g, memory, forward, loss, gained = carry
        h, u = item
        observed = Observed(o, g, h, w)
        planner_state, chosen = loop.planner.step(planner_state, observed)
        explorer_state, explored = loop.explorer.step(explorer_state, observed)
        probabilities = jnp.where(explore, explored, chosen).astype(loss.dtype)
        loss = jnp.where(is_distribution(probabilities), loss, jnp.nan)  # found, and named, when the run is over
        if loop.estimator == "advantage":
            belief = loop.tracker.weights(forward) if _needs_belief(loop) else ()
            q = loop.experts.q(memory, belief, h, w, loop.task)
            loss = loss + (probabilities * (q.max() - q)).sum()
        g = draw(jnp.cumsum(probabilities), u[2])
        s = environment.move(loop.task, s, h, g, u[0])
        heard = environment.emit(loop.task, s, u[1])
        memory = loop.experts.advance(memory, h, g, heard)
        if _needs_belief(loop):
            forward = loop.tracker.advance(forward, h, g, heard)
        gained = gained + jnp.asarray(loop.reward)[h + 1, heard, w]
        carry = planner_state, explorer_state, s, heard, g, memory, forward, loss, gained
        return carry, (o, g)

    zero = jnp.zeros((), uniform.dtype)
    carry = planner_state, explorer_state, s, o, jnp.int32(-1), memory, forward, zero, gained
    carry, (observations, subgoals) = jax.lax.scan(step, carry, (jnp.arange(H - 1), uniform[1:H]), unroll=loop.unroll)
    planner_state, _, _, o, g, _, _, loss, gained = carry
    planner_state, _ = loop.planner.step(planner_state, Observed(o, g, jnp.int32(H - 1), w))
    planner_state = loop.planner.observe(planner_state, Episode(w, jnp.append(observations, o), subgoals))
    if loop.estimator == "reward":
        loss = loss + jnp.asarray(loop.experts.value)[loop.task, w] - gained
    return (planner_state, explorer_key), (loss, before, explore, w)


def _needs_belief(loop: Loop) -> bool:
    """Whether the experts read the belief: only those without a memory do."""
    return loop.estimator == "advantage" and jax.eval_shape(loop.experts.start, 0) == ()


def _true_task(loop: Loop, planner_state: Any) -> Any:
    posterior = loop.planner.posterior(planner_state)
    return jnp.full((), jnp.nan) if posterior is None else posterior[loop.task]


def _uncertainty(loop: Loop, planner_state: Any) -> Any:
    """1 - max_z P(z | past) over classes of tasks, as a sum over the others, so that nothing cancels."""
    posterior = loop.planner.posterior(planner_state)
    mass = jnp.zeros_like(posterior).at[loop.label].add(posterior)
    return jnp.where(jnp.arange(len(mass)) == mass.argmax(), 0, mass).sum()


def _named_planner(planner: Any, family: Family, task: int, experts: Experts, episodes: int) -> Planner:
    if not isinstance(planner, str):
        return as_planner(planner, family, episodes=episodes)
    if planner not in PLANNERS:
        raise InvalidPlannerError(
            f"planner = {shown(planner)}; give {', '.join(map(repr, PLANNERS))} or a planner of your own"
        )
    return PLANNERS[planner](family, experts, task)
