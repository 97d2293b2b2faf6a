"""Mutants written by hand: the mistakes that people make, each in a filter, a planner, a sampler or a kernel.

They are variations of :class:`PlainPosterior` and :class:`PlainPlanner`, filters in plain numpy in which every step is
a method, so that a mistake is a method. Unchanged, both pass every check.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...history import Prompt
from ...planning.bail import BailPlanner, BailState
from ...planning.planner import Episode
from ...world import Family
from ..case import rebuilt, with_episodes, without_current
from ..checks.regret import Loop
from ..checks.simulation import Joint
from ..draws import Simulation
from ..oracle import Integer
from . import entries


class Impossible(Exception):
    """The prompt is impossible under every task."""


_LAST: list[tuple[Family, Any]] = []


def _dense(family: Family) -> Any:
    """The dense transition of ``family``; that of the last one asked for is kept."""
    if not _LAST or _LAST[0][0] is not family:
        _LAST[:] = [(family, family.dense_transition())]
    return _LAST[0][1]


class PlainPosterior:
    """P(z | pt) by the forward algorithm in plain numpy, in log space between steps."""

    dtype: Any = np.float64

    def prior(self, family: Family) -> Any:
        """P_Z, [Z]."""
        return family.task_prior

    def start(self, family: Family, z: Integer) -> Any:
        """rho_z, [S]."""
        return family.initial[min(z, len(family.initial) - 1)]

    def move(self, family: Family, z: Integer, states: np.ndarray, step: Integer, subgoal: Integer) -> Any:
        """Weights of the next state, [S]."""
        kernel = _dense(family)
        kernel = kernel[min(z, len(kernel) - 1)]
        return states @ kernel[min(step, len(kernel) - 1), subgoal]

    def hear(self, family: Family, z: Integer, states: np.ndarray, observation: Integer) -> Any:
        """Weights times the chance of the observation, [S]."""
        return states * family.emission[min(z, len(family.emission) - 1)][:, observation]

    def episode(self, family: Family, z: Integer, observations: Any, subgoals: Any) -> float:
        """log L_z, nats."""
        if not len(observations):
            return 0.0
        log, states = 0.0, self.hear(family, z, self.start(family, z), observations[0])
        for h, g in enumerate(subgoals):
            log, states = self.rescale(log, states)
            states = self.hear(family, z, self.move(family, z, states, h, int(g)), observations[h + 1])
        return log + self.log(states.sum())

    def rescale(self, log: float, states: np.ndarray) -> tuple[float, np.ndarray]:
        """The same weights, with their sum moved into ``log``."""
        total = states.sum()
        return (log + math.log(total), states / total) if total > 0 else (-math.inf, states)

    def log(self, number: float) -> float:
        """log with log 0 = -inf."""
        return math.log(number) if number > 0 else -math.inf

    def weights(self, past: list[float], current: float) -> float:
        """log likelihood of a prompt from those of its episodes."""
        return math.fsum([*past, current])

    def finish(self, family: Family, logs: np.ndarray) -> Any:
        """Probabilities from log prior + log likelihood, [Z]."""
        if logs.max() == -math.inf:
            raise Impossible
        weights = np.exp(logs - logs.max())
        return weights / weights.sum()

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        logs = []
        for z, p in enumerate(self.prior(family)):
            pairs = zip(prompt.observations, prompt.subgoals, strict=True)
            seen = {}  # prompts repeat episodes
            past = []
            for o, g in pairs:
                key = (*o, *g)
                if key not in seen:
                    seen[key] = self.episode(family, z, o, g)
                past.append(seen[key])
            now = self.episode(family, z, prompt.current_observations, prompt.current_subgoals)
            logs.append(self.log(float(p)) + self.weights(past, now))
        return self.finish(family, np.array(logs))


class PriorFlat(PlainPosterior):
    """The prior is dropped: every task that it allows counts alike."""

    def prior(self, family: Family) -> Any:
        return (family.task_prior > 0) / (family.task_prior > 0).sum()


class PriorSquared(PlainPosterior):
    """The prior is counted twice."""

    def prior(self, family: Family) -> Any:
        return family.task_prior**2


class PriorEveryEpisode(PlainPosterior):
    """The prior is multiplied in again with every finished episode."""

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        learnt = PlainPosterior.__call__(self, family, prompt) * family.task_prior**prompt.num_episodes
        return learnt / learnt.sum()


class PriorSmoothed(PlainPosterior):
    """The prior is mixed with the uniform distribution over the tasks that it allows."""

    def prior(self, family: Family) -> Any:
        allowed = family.task_prior > 0
        return 0.9 * family.task_prior + 0.1 * allowed / allowed.sum()


class ZerosClipped(PlainPosterior):
    """log 0 is taken for log 1e-16, as a guard against -inf."""

    def log(self, number: float) -> float:
        return math.log(max(number, 1e-16))

    def rescale(self, log: float, states: np.ndarray) -> tuple[float, np.ndarray]:
        total = max(states.sum(), 1e-16)
        return log + math.log(total), states / total


class NoNormalisation(PlainPosterior):
    """Weights are returned as they are."""

    def finish(self, family: Family, logs: np.ndarray) -> Any:
        if logs.max() == -math.inf:
            raise Impossible
        return np.exp(logs)


class FallsBackOnThePrior(PlainPosterior):
    """Where nothing is possible, the prior is returned, as 0/0 = prior."""

    def finish(self, family: Family, logs: np.ndarray) -> Any:
        if logs.max() == -math.inf:
            return family.task_prior
        return super().finish(family, logs)


class Likeliest(PlainPosterior):
    """All probability goes to the likeliest task."""

    def finish(self, family: Family, logs: np.ndarray) -> Any:
        return np.eye(len(logs))[super().finish(family, logs).argmax()]


class LastTaskLeftOut(PlainPosterior):
    """A loop over tasks that stops one short, unless there is one task only."""

    def finish(self, family: Family, logs: np.ndarray) -> Any:
        if np.isfinite(logs[:-1]).any():
            logs = np.append(logs[:-1], -math.inf)
        return super().finish(family, logs)


class LastObservationIgnored(PlainPosterior):
    """The present observation is not used yet."""

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        super().__call__(family, prompt)  # refuses what is impossible
        some = prompt.num_episodes > 0
        past = (prompt.observations, prompt.subgoals, prompt.instructions) if some else (None, None, None)
        heard, chosen = prompt.current_observations[:-1], prompt.current_subgoals[:-1]
        return super().__call__(family, Prompt(*past, heard, chosen, prompt.current_instruction))


class FirstObservationIgnored(PlainPosterior):
    """The forward pass starts from the initial law without its emission."""

    def episode(self, family: Family, z: Integer, observations: Any, subgoals: Any) -> float:
        if len(subgoals) == 0:
            return 0.0
        states = self.start(family, z)
        for h, g in enumerate(subgoals):
            states = self.hear(family, z, self.move(family, z, states, h, int(g)), observations[h + 1])
        return self.log(states.sum())


class StepsOffByOne(PlainPosterior):
    """The transition of the next step is used."""

    def move(self, family: Family, z: Integer, states: np.ndarray, step: Integer, subgoal: Integer) -> Any:
        return super().move(family, z, states, step + 1, subgoal)


class StepsBackwards(PlainPosterior):
    """Observations of an episode are read from its end."""

    def episode(self, family: Family, z: Integer, observations: Any, subgoals: Any) -> float:
        return super().episode(family, z, observations[::-1], subgoals)


class ObservationBeforeAction(PlainPosterior):
    """An observation is taken to come from the state before the subgoal acted."""

    def episode(self, family: Family, z: Integer, observations: Any, subgoals: Any) -> float:
        if not len(observations):
            return 0.0
        states = self.hear(family, z, self.start(family, z), observations[0])
        for h, g in enumerate(subgoals):
            states = self.move(family, z, self.hear(family, z, states, observations[h + 1]), h, int(g))
        return self.log(states.sum())


class SubgoalsShifted(PlainPosterior):
    """Each transition is conditioned on the subgoal before."""

    def episode(self, family: Family, z: Integer, observations: Any, subgoals: Any) -> float:
        return super().episode(family, z, observations, np.roll(subgoals, 1))


class SubgoalIgnored(PlainPosterior):
    """Every transition is that of the first subgoal."""

    def move(self, family: Family, z: Integer, states: np.ndarray, step: Integer, subgoal: Integer) -> Any:
        return super().move(family, z, states, step, 0)


class BehaviourAsEvidence(PlainPosterior):
    """Subgoals count as evidence: those who face task z are taken to prefer one subgoal, four to one."""

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        learnt = super().__call__(family, prompt)
        preferred = np.arange(family.num_tasks) % family.num_subgoals
        times = (prompt.current_subgoals[:, None] == preferred).sum(axis=0)
        weights = learnt * 4.0 ** (times - times.max())
        return weights / weights.sum()


class StartsInFirstState(PlainPosterior):
    """Every episode is taken to start in the first state that it may start in."""

    def start(self, family: Family, z: Integer) -> Any:
        row = super().start(family, z)
        return np.eye(len(row))[np.flatnonzero(row)[0]]


class SharedByFirstTask(PlainPosterior):
    """Every task's emission is read off the first one."""

    def hear(self, family: Family, z: Integer, states: np.ndarray, observation: Integer) -> Any:
        return super().hear(family, 0, states, observation)


class Forgetting(PlainPosterior):
    """An episode of k episodes ago counts to the power 0.9^k."""

    def weights(self, past: list[float], current: float) -> float:
        return current + sum(0.9 ** (len(past) - n) * log if log > -math.inf else log for n, log in enumerate(past))


class LastEpisodeOnly(PlainPosterior):
    """Of the past, only the last episode counts."""

    def weights(self, past: list[float], current: float) -> float:
        return current + sum(past[-1:])


class StaleContext(PlainPosterior):
    """The current episode is only used to see what is possible."""

    def weights(self, past: list[float], current: float) -> float:
        return sum(past) if current > -math.inf else current


class Tempered(PlainPosterior):
    """Likelihoods count to the power 0.8, as a guard against overconfidence."""

    def weights(self, past: list[float], current: float) -> float:
        logs = [*past, current]
        return -math.inf if -math.inf in logs else 0.8 * sum(logs)


class PossibleOnly(PlainPosterior):
    """Evidence rules tasks out, but does not weigh them."""

    def weights(self, past: list[float], current: float) -> float:
        return -math.inf if -math.inf in (*past, current) else 0.0


class NoRescaling(PlainPosterior):
    """Probabilities are multiplied in float64 until they underflow; then the prior is all that is left."""

    def weights(self, past: list[float], current: float) -> float:
        product = math.prod(math.exp(log) for log in (*past, current))
        return self.log(product)

    def finish(self, family: Family, logs: np.ndarray) -> Any:
        return super().finish(family, logs)


class Float32Underflow(PlainPosterior):
    """Probabilities are multiplied in float32, with a restart from the prior when all of them vanish."""

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        exact = super().__call__(family, prompt)
        logs = [self.log(float(p)) for p in self.prior(family)]
        for z in range(len(logs)):
            for o, g in zip(prompt.observations, prompt.subgoals, strict=True):
                logs[z] += self.episode(family, z, o, g)
        return family.task_prior if max(logs) < math.log(1.2e-38) else exact


class IncrementalUpdate(PlainPosterior):
    """A prompt that continues the one before is updated from its answer, without the transition."""

    def __init__(self) -> None:
        self.seen: tuple[Any, ...] | None = None

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        answer = super().__call__(family, prompt)
        heard, chosen = prompt.current_observations.tolist(), prompt.current_subgoals.tolist()
        if self.seen is not None:
            world, before, past, length = self.seen
            if world is family and past == prompt.observations.tolist() and heard[:-1] == length and chosen:
                rows = np.broadcast_to(family.emission, (len(before), *family.emission.shape[1:]))
                weights = before * rows[:, :, heard[-1]].mean(axis=1)
                return weights / weights.sum() if weights.sum() > 0 else answer
        self.seen = family, answer, prompt.observations.tolist(), heard
        return answer


class FirstTasksOnly(PlainPosterior):
    """A fixed buffer of four tasks: the others are never looked at."""

    def finish(self, family: Family, logs: np.ndarray) -> Any:
        if np.isfinite(logs[:4]).any():
            logs = np.where(np.arange(len(logs)) < 4, logs, -math.inf)
        return super().finish(family, logs)


class FewParticles(PlainPosterior):
    """Only the four likeliest tasks are kept, at their relative weights."""

    def finish(self, family: Family, logs: np.ndarray) -> Any:
        kept = logs >= np.sort(logs)[-min(4, len(logs))]
        return super().finish(family, np.where(kept, logs, -math.inf))


class AddedPerBlock(PlainPosterior):
    """Tasks are worked on in blocks of four, and all evidence is added once for each block."""

    def finish(self, family: Family, logs: Any) -> Any:
        with np.errstate(divide="ignore"):
            prior = np.where(family.task_prior > 0, np.log(family.task_prior), 0.0)
        return super().finish(family, prior + math.ceil(len(logs) / 4) * (logs - prior))


POSTERIORS = (
    PriorFlat, PriorSquared, PriorEveryEpisode, PriorSmoothed, ZerosClipped, NoNormalisation, FallsBackOnThePrior,
    Likeliest, LastTaskLeftOut, LastObservationIgnored, FirstObservationIgnored, StepsOffByOne, StepsBackwards,
    ObservationBeforeAction, SubgoalsShifted, SubgoalIgnored, BehaviourAsEvidence, StartsInFirstState,
    SharedByFirstTask, Forgetting, LastEpisodeOnly, StaleContext, Tempered, PossibleOnly, NoRescaling,
    Float32Underflow, IncrementalUpdate, FirstTasksOnly, FewParticles,
    AddedPerBlock,
)  # fmt: skip


# --- planners -------------------------------------------------------------------------------------------------------


class PlainPlanner:
    """BAIL(g | pt) by the plain posterior and the experts' subgoals."""

    _last: tuple[Family, Simulation] | None = None

    @staticmethod
    def experts(family: Family) -> Simulation:
        """The experts of ``family``; those of the last one asked for are kept."""
        if PlainPlanner._last is None or PlainPlanner._last[0] is not family:
            PlainPlanner._last = family, Simulation(family)
        return PlainPlanner._last[1]

    def beliefs(self, family: Family, prompt: Prompt) -> Any:
        """P(z | pt), [Z]."""
        return PlainPosterior()(family, prompt)

    def act(self, family: Family, prompt: Prompt, z: Integer) -> int:
        """What the expert of task z does."""
        return self.experts(family).label(z, prompt)

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        answer = np.zeros(family.num_subgoals)
        for z, p in enumerate(self.beliefs(family, prompt)):
            if p > 0:
                answer[self.act(family, prompt, z)] += p
        return answer


def _now(prompt: Prompt, **changes: Any) -> Prompt:
    """The current episode of ``prompt``, changed."""
    given = {
        "current_observations": prompt.current_observations,
        "current_subgoals": prompt.current_subgoals,
        "current_instruction": prompt.current_instruction,
    }
    return Prompt(**{**given, **changes})


class ExpertOfLikeliest(PlainPlanner):
    """The likeliest task's expert is followed."""

    def beliefs(self, family: Family, prompt: Prompt) -> Any:
        return np.eye(family.num_tasks)[np.argmax(super().beliefs(family, prompt))]


class ExpertOfWrongStep(PlainPlanner):
    """The expert's subgoal at the step before is repeated."""

    def act(self, family: Family, prompt: Prompt, z: Integer) -> int:
        h = max(prompt.step - 1, 1)
        now = _now(
            prompt,
            current_observations=prompt.current_observations[:h],
            current_subgoals=prompt.current_subgoals[: h - 1],
        )
        return super().act(family, now, z)


class WrongInstruction(PlainPlanner):
    """Every episode is planned for the first instruction."""

    def act(self, family: Family, prompt: Prompt, z: Integer) -> int:
        return super().act(family, _now(prompt, current_instruction=0), z)


class InstructionOfLastEpisode(PlainPlanner):
    """The instruction of the episode before is still followed."""

    def act(self, family: Family, prompt: Prompt, z: Integer) -> int:
        before = int(prompt.instructions[-1]) if prompt.num_episodes else prompt.current_instruction
        return super().act(family, _now(prompt, current_instruction=before), z)


class PriorBeliefs(PlainPlanner):
    """Experts are averaged under the prior."""

    def beliefs(self, family: Family, prompt: Prompt) -> Any:
        super().beliefs(family, prompt)  # refuses what is impossible
        return family.task_prior


class BeliefsOfThePast(PlainPlanner):
    """Experts are averaged under the posterior before the current episode."""

    def beliefs(self, family: Family, prompt: Prompt) -> Any:
        super().beliefs(family, prompt)  # refuses what is impossible
        return super().beliefs(family, without_current(prompt))


class BeliefsOfTheEpisode(PlainPlanner):
    """Experts are averaged under the posterior of the current episode alone."""

    def beliefs(self, family: Family, prompt: Prompt) -> Any:
        super().beliefs(family, prompt)  # refuses what is impossible
        return super().beliefs(family, with_episodes(prompt, slice(0, 0)))


class TableOfThreeSteps(PlainPlanner):
    """The experts' table has room for three decisions; after them, the first subgoal is taken."""

    def act(self, family: Family, prompt: Prompt, z: Integer) -> int:
        return super().act(family, prompt, z) if prompt.step <= 3 else 0


class TiesToTheLast(PlainPlanner):
    """Among subgoals that are equally good, the last is taken: they are asked for in reverse order."""

    def __init__(self) -> None:
        self.mirrored: tuple[Family, Family] | None = None

    def act(self, family: Family, prompt: Prompt, z: Integer) -> int:
        if self.mirrored is None or self.mirrored[0] is not family:
            self.mirrored = family, rebuilt(family, transition=_dense(family)[:, :, ::-1])
        last = family.num_subgoals - 1
        return last - super().act(self.mirrored[1], _now(prompt, current_subgoals=last - prompt.current_subgoals), z)


class CachedByHistory(PlainPlanner):
    """Answers are kept by the current history and the sizes of the world."""

    def __init__(self) -> None:
        self.kept: dict[Any, np.ndarray] = {}

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        key = (
            id(family),
            prompt.current_instruction,
            tuple(prompt.current_observations),
            tuple(prompt.current_subgoals),
        )
        if key not in self.kept:
            self.kept = {k: v for k, v in self.kept.items() if k[0] == key[0]}
            self.kept[key] = super().__call__(family, prompt)
        return self.kept[key]


class SharpenedVotes(PlainPlanner):
    """The votes of the experts are sharpened by the power 1.2."""

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        votes = super().__call__(family, prompt) ** 1.2
        return votes / votes.sum()


class Float32Votes(PlainPlanner):
    """Votes are rounded to float32."""

    def __call__(self, family: Family, prompt: Prompt) -> Any:
        votes = super().__call__(family, prompt).astype(np.float32).astype(np.float64)
        return votes / votes.sum()


PLANNERS = (
    ExpertOfLikeliest, ExpertOfWrongStep, WrongInstruction, InstructionOfLastEpisode, PriorBeliefs, BeliefsOfThePast,
    BeliefsOfTheEpisode, TableOfThreeSteps, TiesToTheLast, CachedByHistory, SharpenedVotes, Float32Votes,
)  # fmt: skip


# --- evidence -------------------------------------------------------------------------------------------------------


class PlainEvidence:
    """log L_z of each episode, by a plain posterior's forward pass."""

    filter: type[PlainPosterior] = PlainPosterior

    def __call__(self, family: Family, observations: Any, subgoals: Any) -> Any:
        f, rows = self.filter(), range(len(observations))
        return np.array(
            [[f.episode(family, z, observations[n], subgoals[n]) for n in rows] for z in range(family.num_tasks)]
        ).reshape(family.num_tasks, len(observations))


class UniformStart(PlainEvidence):
    """The initial law is taken to be uniform."""

    class filter(PlainPosterior):
        def start(self, family: Family, z: Integer) -> Any:
            return np.full(family.num_states, 1 / family.num_states)


class EvidenceOfSubgoals(PlainEvidence):
    """The behaviour policy (uniform) is counted in."""

    def __call__(self, family: Family, observations: Any, subgoals: Any) -> Any:
        return super().__call__(family, observations, subgoals) - (family.horizon - 1) * math.log(family.num_subgoals)


class Base2(PlainEvidence):
    """Bits instead of nats."""

    def __call__(self, family: Family, observations: Any, subgoals: Any) -> Any:
        return super().__call__(family, observations, subgoals) / math.log(2)


class TransposedKernel(PlainEvidence):
    """The transition is read from column to row, normalised again."""

    class filter(PlainPosterior):
        def move(self, family: Family, z: Integer, states: np.ndarray, step: Integer, subgoal: Integer) -> Any:
            kernel = _dense(family)
            kernel = kernel[min(z, len(kernel) - 1)]
            rows = kernel[min(step, len(kernel) - 1), subgoal].T + 1e-300
            return states @ (rows / rows.sum(axis=1, keepdims=True))


class EvidenceUnderflow(PlainEvidence):
    """Probabilities are multiplied without rescaling."""

    class filter(PlainPosterior):
        def rescale(self, log: float, states: np.ndarray) -> tuple[float, np.ndarray]:
            return log, states


EVIDENCES = (UniformStart, EvidenceOfSubgoals, Base2, TransposedKernel, EvidenceUnderflow)


# --- samplers -------------------------------------------------------------------------------------------------------


def _sampler(chances: Callable[[Family, Prompt], Any]) -> Callable[..., np.ndarray]:
    def draw(family: Family, prompt: Prompt, draws: int, *, key: int) -> Any:
        return np.random.default_rng(key).choice(family.num_tasks, size=draws, p=chances(family, prompt))

    return draw


def draws_from_the_prior() -> Callable[..., np.ndarray]:
    """Draws come from the prior."""
    return _sampler(lambda family, prompt: family.task_prior)


def draws_too_narrow() -> Callable[..., np.ndarray]:
    """Draws come from the squared posterior."""

    def chances(family: Family, prompt: Prompt) -> Any:
        squared = PlainPosterior()(family, prompt) ** 2
        return squared / squared.sum()

    return _sampler(chances)


def one_draw_repeated() -> Callable[..., np.ndarray]:
    """A chain that does not move: one draw, many times."""
    right = entries.sampler()
    return lambda family, prompt, draws, *, key: np.repeat(right(family, prompt, 1, key=key), draws)


SAMPLERS = (draws_from_the_prior, draws_too_narrow, one_draw_repeated)


# --- kernels --------------------------------------------------------------------------------------------------------


def _metropolis(accept: Callable[[entries.Coins, int, int, np.ndarray], float], proposals: Any = (1, 2)) -> Joint:
    coins = entries.Coins()

    def step(key: int, coin: int, tosses: np.ndarray) -> int:
        rng = np.random.default_rng(key)
        other = int((coin + rng.choice(proposals)) % 3)
        return other if rng.random() < accept(coins, coin, other, tosses) else coin

    return Joint(coins.draw, coins.toss, step, coins.quantities)


def kernel_without_prior() -> Joint:
    """The prior is left out of the acceptance ratio."""

    def accept(coins: entries.Coins, coin: int, other: int, tosses: np.ndarray) -> float:
        return coins.weight(other, tosses) / coins.prior[other] * coins.prior[coin] / coins.weight(coin, tosses)

    return _metropolis(accept)


def kernel_that_always_accepts() -> Joint:
    """Every proposal is accepted."""
    return _metropolis(lambda coins, coin, other, tosses: 1.0)


def kernel_upside_down() -> Joint:
    """The acceptance ratio is inverted."""
    return _metropolis(lambda coins, coin, other, tosses: coins.weight(coin, tosses) / coins.weight(other, tosses))


def kernel_with_lopsided_proposals() -> Joint:
    """One neighbour is proposed twice as often as the other, uncorrected."""
    return _metropolis(
        lambda coins, coin, other, tosses: coins.weight(other, tosses) / coins.weight(coin, tosses), (1, 1, 2)
    )


def kernel_of_first_toss() -> Joint:
    """Only the first observation is in the likelihood."""
    return _metropolis(
        lambda coins, coin, other, tosses: coins.weight(other, tosses[:1]) / coins.weight(coin, tosses[:1])
    )


KERNELS = (
    kernel_without_prior, kernel_that_always_accepts, kernel_upside_down, kernel_with_lopsided_proposals,
    kernel_of_first_toss,
)  # fmt: skip


# --- planners in the online loop ------------------------------------------------------------------------------------


class NeverLearns(BailPlanner):
    """Nothing is kept from one episode to the next."""

    def observe(self, state: BailState, episode: Episode) -> BailState:
        return state


class RemembersLastEpisode(BailPlanner):
    """Of the past, only the last episode is kept."""

    def observe(self, state: BailState, episode: Episode) -> BailState:
        return super().observe(BailState(self.log_prior, state.forward, state.memory), episode)


def in_the_loop(planner: type[BailPlanner]) -> Callable[[], Loop]:
    def build() -> Loop:
        right = entries.loop()
        return dataclasses.replace(right, planner=planner(right.family, right.experts))

    return build


LOOPS = (NeverLearns, RemembersLastEpisode)
