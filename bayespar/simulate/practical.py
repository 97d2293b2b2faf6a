"""The online loop with a judge beside the planner: what it lost, and the doubt and the error that it lost it by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..arrays import precision_of
from ..errors import InvalidPlannerError, InvalidWorldError
from ..keys import check_key
from ..planning.bail import BailPlanner
from ..planning.classes import task_classes
from ..planning.design import as_exploration_policy
from ..planning.expert import Experts, check_experts, solve_experts
from ..planning.exploration import Exploration, Odds, as_exploration, by_rule, check_rule
from ..planning.hellinger import eta
from ..planning.planner import Episode, Observed, Planner, as_planner, check_shape
from ..planning.reporters import with_reporter
from ..program import Program, as_family
from ..validation import check_count, check_fits
from ..world import Family
from .environment import block_keys, split_key, uniforms
from .regret import LONGEST_CHUNK, PLANNERS, SEED_BLOCK, Loop, largest_loss, run_episode, start_block


@dataclass(frozen=True)
class JudgedRuns:
    """Runs of a planner, and exact BAIL on the prompts that it met.

    Attributes:
        regret: as :class:`RegretCurves` has it, [seeds, T].
        explored: whether the exploration policy acted, [seeds, T].
        error: TV(q(. | pt_h), BAIL(. | pt_h)) at each decision, whoever acted, [seeds, T, H-1].
        doubt: 1 - P(z | pt_h), equal tasks taken together, [seeds, T, H-1].
        rule: when it explored.
        bound: the largest entry that ``regret`` can have.
    """

    regret: Float[np.ndarray, "seeds T"]
    explored: np.ndarray
    error: Float[np.ndarray, "seeds T Hm1"]
    doubt: Float[np.ndarray, "seeds T Hm1"]
    rule: Exploration
    bound: float

    def weighed(
        self, at_decisions: Float[np.ndarray, "seeds T Hm1"], weights: Float[np.ndarray, " Hm1"] | None = None
    ) -> Float[np.ndarray, "seeds T"]:
        """sum_h (H-h) of it in episodes that do not explore, 0 in the others; other ``weights`` if they are given."""
        weights = np.arange(at_decisions.shape[2], 0, -1.0) if weights is None else weights
        return np.where(self.explored, 0.0, at_decisions @ weights)


def judge_planner(
    family_or_program: Family | Program,
    task: int | str,
    planner: Any = "bail",
    exploration: Any = 0.0,
    episodes: int = 32,
    seeds: int = 64,
    exploration_policy: Any = "uniform",
    *,
    emission: Any = None,
    key: Any = 0,
    experts: Experts | None = None,
) -> JudgedRuns:
    """Run a planner as :func:`simulate_regret` does, with the same numbers, and judge each of its decisions.

    Where the experts are exact and the Reporter speaks as believed, every single run obeys P1: what an episode that
    does not explore loses is at most sum_h (H-h) (doubt + error).

    Args:
        family_or_program: a Family, or a finite program.
        task: the true task z, an index or a name.
        planner: a name, or anything that :func:`as_planner` takes.
        exploration: as for :func:`simulate_regret`, coins only.
        episodes: T.
        seeds: independent runs.
        exploration_policy: as for :func:`simulate_regret`.
        emission: what the Reporter in use says, [Z or 1, S, O]; as the family has it if not given. Planners by name and
            the judge go on believing the family; regret is against the expert who knows the Reporter.
        key: a JAX key or an int.
        experts: of the family, from :func:`solve_experts`; solved here if not given.

    Raises:
        InvalidPlannerError: no such planner or rule, a gate, or a planner whose probabilities are none.
        InvalidWorldError: no such task, its prior is 0, or no such emission.

    Source: theory.md, P1.
    """
    family = as_family(family_or_program)
    z, T = family.task_index(task), check_count("episodes", episodes)
    check_count("seeds", seeds)
    check_fits(f"episodes = {episodes}, seeds = {seeds}", 24 * episodes * seeds * family.horizon)
    check_key(key)
    if not family.task_prior[z] > 0:
        raise InvalidWorldError(f"the task {family.tasks[z]!r} has prior 0, so no posterior can ever find it")
    world = family if emission is None else with_reporter(family, emission)
    experts = solve_experts(family) if experts is None else check_experts(experts, family)
    optimal = experts if emission is None else solve_experts(world)
    named = isinstance(planner, str) and planner in PLANNERS
    chosen = PLANNERS[planner](family, experts, z) if named else as_planner(planner, family, episodes=T)
    explorer = as_exploration_policy(exploration_policy, family, episodes=T)
    with precision_of(family):
        for role, policy in (("planner", chosen), ("exploration policy", explorer)):
            check_shape(role, policy, family)
    rule = coin_rule(exploration, family, explorer, T)
    label = task_classes(family).label
    judged = JudgedPlanner(chosen, BailPlanner(family, experts), label != label[z], family.horizon - 1)
    estimator = "advantage" if optimal.gap == 0 else "reward"
    blocks = -(-seeds // SEED_BLOCK)
    root, entropy = split_key(key)
    rules = np.stack([rule.coin, rule.gate], axis=1).astype(family.dtype)
    found = []
    with precision_of(family):
        loop = Loop(world, z, judged, explorer, optimal, estimator, False)
        for block in range(blocks):
            state, parts = None, []
            for c, start in enumerate(range(0, T, LONGEST_CHUNK)):
                count = min(LONGEST_CHUNK, T - start)
                numbers = uniforms(entropy, block, c, (count, SEED_BLOCK, family.horizon + 1, 3), family.dtype)
                if state is None:
                    state = start_block(loop, block_keys(root, entropy, [block], (2, SEED_BLOCK)), numbers[0])
                state, out = _run(loop, state, numbers, rules[start : start + count])
                parts.append([np.asarray(a) for a in out])
            found.append([np.concatenate(a).swapaxes(0, 1) for a in zip(*parts, strict=True)])
    regret, explored, error, doubt = (np.concatenate(a)[:seeds] for a in zip(*found, strict=True))
    if np.isnan(regret).any():
        seed, t = (int(i) for i in np.argwhere(np.isnan(regret))[0])
        raise InvalidPlannerError(
            f"seed {seed}, episode {t} (both from 0): the acting policy returned no distribution over subgoals"
        )
    regret, error, doubt = (np.asarray(a, np.float64) for a in (regret, error, doubt))
    return JudgedRuns(regret, explored, error, doubt, rule, largest_loss(world, estimator))


def coin_rule(exploration: Any, family: Family, explorer: Planner, episodes: int) -> Exploration:
    """The coins of an exploration given in any form.

    Raises:
        InvalidPlannerError: none, or a gate.
    """
    if isinstance(exploration, str):
        check_rule(exploration)
        gated = exploration.startswith("gated")
        least = 1.0 if gated else eta(task_classes(family).family, explorer)
        rule = by_rule(exploration, Odds.of(family), least, episodes)
    else:
        rule = as_exploration(exploration, episodes)
    if rule.gated:
        raise InvalidPlannerError("exploration is gated; P1 is about coins: give epsilon, a schedule or a rule of E2")
    return rule


class JudgedPlanner(Planner):
    """A planner, and exact BAIL beside it, which keeps the distance and the doubt at each decision of an episode.

    Attributes:
        planner: acts.
        judge: BAIL.
        others: the tasks of another class than the true one, [Z].
        decisions: H - 1.
    """

    planner: Planner
    judge: BailPlanner
    others: Any
    decisions: int = eqx.field(static=True)

    def init(self, instruction: Any, key: Any) -> Any:
        blank = jnp.zeros((2, self.decisions))
        return self.planner.init(instruction, key), self.judge.init(instruction, key), blank

    def step(self, state: Any, observed: Observed) -> tuple[Any, Any]:
        inner, judged, kept = state
        inner, probabilities = self.planner.step(inner, observed)
        judged, bail = self.judge.step(judged, observed)
        distance = jnp.abs(probabilities - bail).sum() / 2
        doubt = jnp.where(jnp.asarray(self.others), self.judge.probabilities(judged), 0).sum()
        here = jnp.arange(self.decisions) == observed.step
        kept = jnp.where(here, jnp.stack([distance, doubt]).astype(kept.dtype)[:, None], kept)
        return (inner, judged, kept), probabilities

    def observe(self, state: Any, episode: Episode) -> Any:
        inner, judged, kept = state
        return self.planner.observe(inner, episode), self.judge.observe(judged, episode), kept

    def posterior(self, state: Any) -> Any:
        return self.planner.posterior(state[0])


@eqx.filter_jit
def _run(loop: Loop, state: Any, uniform: Any, rules: Any) -> Any:
    """Episodes of a block of seeds; numbers come back with the episode first, [T, seeds, ...]."""

    def episode(state: Any, item: Any) -> Any:
        uniform, rule = item
        state, (loss, _, explored, _) = jax.vmap(lambda s, u: run_episode(loop, s, u, rule))(state, uniform)
        _, _, kept = state[0]
        return state, (loss, explored, kept[:, 0], kept[:, 1])

    return jax.lax.scan(episode, state, (uniform, rules))
