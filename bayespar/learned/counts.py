"""The count-based predictor: what a Planner learns that knows nothing but how often each label followed each prompt.

It is maximum likelihood on a finite prompt set, and the only comparator of a trained network whose rate is known. At a
prompt that was met k times the frequency of a label of probability p has standard deviation sqrt(p (1-p) / k), so the
distance to BAIL falls as n^{-1/2} in the number n of prompts in the corpus, wherever two experts disagree on a prompt
(p (1-p) > 0), and no faster. Nor can any predictor do better that may not assume anything about the world: two label
laws that differ by n^{-1/2} at each prompt cannot be told apart from n labels (Le Cam's two-point argument). What a
network gains on it comes from sharing what it learns between prompts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import gammaln, xlog1py, xlogy

from ..errors import InvalidPlannerError, InvalidPromptError, TooLargeError
from ..history import Prompt
from ..planning.bail import expert_table
from ..planning.expert import Experts, solve_experts
from ..planning.histories import Histories, enumerate_histories
from ..planning.value import policy_table, reach_weights
from ..program import Program, as_family
from ..simulate.corpus import Corpus
from ..statistics import total_variation
from ..validation import check_count
from ..world import Family

_LARGEST = 2**24  # prompts times tasks
_DEVIATIONS = 12.0  # of the number of times that a prompt was met: beyond it nothing is left in double precision


def frequencies(counts: Float[np.ndarray, "*batch G"]) -> Float[np.ndarray, "*batch G"]:
    """Counts as probabilities; uniform where nothing was counted."""
    total = counts.sum(axis=-1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1), 1 / counts.shape[-1])


class CountPredictor:
    """Frequencies of the labels after every prompt of a corpus; uniform after a prompt that never occurred.

    It is a callable from a :class:`Prompt` to probabilities, so :func:`as_planner` takes it, and it can be run, audited
    and compared like any other planner.

    Attributes:
        subgoals: G.
        counts: of the labels, by the prompt's indices, [G] each.
    """

    def __init__(self, corpus: Corpus, subgoals: int):
        """
        Args:
            corpus: from :func:`sample_corpus`.
            subgoals: G.

        Raises:
            InvalidPlannerError: no such number of subgoals, or a label of the corpus is beyond it.
        """
        self.subgoals = check_count("subgoals", subgoals)
        if corpus.labels.size and corpus.labels.max() >= subgoals:
            raise InvalidPlannerError(f"the corpus has a label {corpus.labels.max()}, but subgoals = {subgoals}")
        self.counts: dict[tuple[int, ...], np.ndarray] = {}
        for rows, (n, h) in _rows(corpus.instructions, corpus.observations, corpus.subgoals):
            distinct, index = np.unique(rows, axis=0, return_inverse=True)
            table = np.zeros((len(distinct), subgoals))
            np.add.at(table, (index.reshape(-1), corpus.labels[:, n, h]), 1)
            self.counts.update(zip(map(tuple, distinct.tolist()), table, strict=True))

    def __call__(self, prompt: Prompt) -> Float[np.ndarray, " G"]:
        """Probabilities of the subgoals."""
        arrays = prompt.observations, prompt.subgoals, prompt.current_observations, prompt.current_subgoals
        o, g, now, done = (np.asarray(a) for a in arrays)
        if not len(now):
            raise InvalidPromptError("there is no decision to make before the first observation of an episode")
        w = np.append(prompt.instructions, prompt.current_instruction)
        return self._look_up(_key(w, o.reshape(-1), g.reshape(-1), now, done))

    def predict(self, instructions: Any, observations: Any, subgoals: Any) -> Float[np.ndarray, "B N Hm1 G"]:
        """The same at every decision of B prompts of N episodes, as :func:`replay` but faster."""
        w, o, g = (np.asarray(a) for a in (instructions, observations, subgoals))
        out = np.zeros((*g.shape, self.subgoals))
        for rows, (n, h) in _rows(w, o, g):
            out[:, n, h] = [self._look_up(tuple(row)) for row in rows.tolist()]
        return out

    def _look_up(self, key: tuple[int, ...]) -> np.ndarray:
        return frequencies(self.counts.get(key, np.zeros(self.subgoals)))


def _key(w: np.ndarray, o: np.ndarray, g: np.ndarray, now: np.ndarray, done: np.ndarray) -> tuple[int, ...]:
    """A prompt as integers; those of different numbers of episodes or steps differ in their first two."""
    return tuple(np.concatenate([[len(w), len(now)], w, o, g, now, done]).astype(int).tolist())


def _rows(w: np.ndarray, o: np.ndarray, g: np.ndarray) -> Iterator[tuple[np.ndarray, tuple[int, int]]]:
    """The keys of all prompts [B, width], at every decision (n, h)."""
    B, N, decisions = g.shape
    for n in range(N):
        for h in range(decisions):
            place = np.tile([n + 1, h + 1], (B, 1))
            past = w[:, : n + 1], o[:, :n].reshape(B, -1), g[:, :n].reshape(B, -1)
            yield np.concatenate([place, *past, o[:, n, : h + 1], g[:, n, :h]], axis=1), (n, h)


@dataclass(frozen=True)
class PromptLaw:
    """Every prompt that a corpus can hold, with its probability and its label's.

    Attributes:
        position: which decision of the prompt it stands before, counted through all episodes, [P].
        mass: its probability among the prompts at that position, [P].
        bail: P_D(g* | pt), [P, G].
    """

    position: Int[np.ndarray, " P"]
    mass: Float[np.ndarray, " P"]
    bail: Float[np.ndarray, "P G"]

    @property
    def positions(self) -> int:
        """N (H-1), the decisions in a prompt of the corpus."""
        return int(self.position[-1]) + 1

    def error(self, predicted: Float[np.ndarray, "*batch P G"]) -> Float[np.ndarray, "*batch"]:
        """E_D TV(predicted, BAIL), averaged over positions."""
        return np.asarray(total_variation(predicted, self.bail) @ self.mass / self.positions)

    def shuffled(self) -> PromptLaw:
        """The law of a corpus whose labels were shuffled across prompts: every prompt has the average label."""
        average = np.zeros((self.positions, self.bail.shape[1]))
        np.add.at(average, self.position, self.mass[:, None] * self.bail)
        return PromptLaw(self.position, self.mass, average[self.position])

    def draw(self, prompts: int, size: int, rng: np.random.Generator) -> Float[np.ndarray, "size P G"]:
        """Label counts of ``size`` corpora of so many prompts.

        Positions are drawn independently of one another, which changes no expectation of :meth:`error`.
        """
        joint = self.mass[:, None] * self.bail
        out = np.zeros((size, *joint.shape))
        for position in range(self.positions):
            rows = self.position == position
            chance = joint[rows].reshape(-1)
            drawn = rng.multinomial(prompts, chance / chance.sum(), size)
            out[:, rows] = drawn.reshape(size, -1, joint.shape[1])
        return out

    def expected_error(self, prompts: int) -> float:
        """E of :meth:`error` of the frequencies in a corpus of so many prompts, exactly.

        A prompt of mass P is met k ~ Bin(n, P) times, and the frequency of a label of probability p is then off by
        E|X/k - p| = 2 m C(k, m) p^m (1-p)^(k-m+1) / k, m = floor(kp) + 1, on average (De Moivre).

        Raises:
            TooLargeError: the sums over k have too many terms; :attr:`constant` tells the error then.
        """
        n, total = check_count("prompts", prompts), 0.0
        unseen = total_variation(np.full(self.bail.shape[1], 1 / self.bail.shape[1]), self.bail)
        reach = 1 + _DEVIATIONS * np.sqrt(n * self.mass * (1 - self.mass)) + _DEVIATIONS
        if (terms := 2 * reach.sum() * self.bail.shape[1]) > _LARGEST:
            raise TooLargeError(f"the expectation over {n} prompts has {terms:.0f} terms", int(8 * terms))
        for mass, bail, missed, around in zip(self.mass, self.bail, unseen, reach, strict=True):
            k = np.arange(max(0, int(n * mass - around)), min(n, int(n * mass + around) + 1) + 1)
            log = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1) + xlogy(k, mass) + xlog1py(n - k, -mass)
            met = np.exp(log)
            spread = _mean_deviation(np.maximum(k, 1)[:, None], bail).sum(axis=1) / 2
            total += mass * float(met @ np.where(k > 0, spread, missed))
        return total / self.positions

    def unseen(self, prompts: float) -> float:
        """The part of :meth:`expected_error` that is owed to prompts which never occurred in the corpus."""
        guess = total_variation(np.full(self.bail.shape[1], 1 / self.bail.shape[1]), self.bail)
        return float(self.mass * (1 - self.mass) ** prompts @ guess) / self.positions

    @property
    def cells(self) -> Float[np.ndarray, "P G"]:
        """What each label at each prompt contributes to :attr:`constant`."""
        spread = np.sqrt(self.bail * (1 - self.bail) / (2 * np.pi))
        return np.sqrt(self.mass)[:, None] * spread / self.positions

    @property
    def constant(self) -> float:
        """A in :meth:`expected_error` ~ A n^{-1/2}: sum over prompts of sqrt(P) sum over labels of sqrt(p(1-p)/2pi).

        By the central limit theorem, with E|x| = sqrt(2/pi) of a standard normal.
        """
        return float(self.cells.sum())


def _mean_deviation(k: np.ndarray, p: np.ndarray) -> np.ndarray:
    """E|X/k - p| of X ~ Bin(k, p)."""
    inner = np.clip(p, 0, 1)
    m = np.minimum(np.floor(k * inner) + 1, k)  # m > k only where p = 1, and nothing deviates there
    log = gammaln(k + 1) - gammaln(m + 1) - gammaln(k - m + 1) + xlogy(m, inner) + xlog1py(k - m + 1, -inner)
    return 2 * m * np.exp(log) / k


def prompt_law(
    family_or_program: Family | Program,
    episodes: int = 1,
    behaviour: Any = "uniform",
    *,
    histories: Histories | None = None,
    experts: Experts | None = None,
) -> PromptLaw:
    """Enumerate the prompts of a corpus.

    Args:
        family_or_program: a Family, or a finite program.
        episodes: N.
        behaviour: "uniform", or any policy that remembers nothing between episodes.
        histories: from :func:`enumerate_histories`; enumerated here if not given.
        experts: from :func:`solve_experts`; solved here if not given.

    Raises:
        TooLargeError: the prompts do not fit.
        InvalidPromptError: H = 1: there is no decision.

    Source: theory.md, C1.
    """
    check_count("episodes", episodes)
    family = as_family(family_or_program).astype(np.float64)
    if family.horizon == 1:
        raise InvalidPromptError("H = 1: an episode has no decision, so a corpus has no label")
    histories = enumerate_histories(family) if histories is None else histories
    actions = expert_table(histories, solve_experts(family) if experts is None else experts)
    reach = reach_weights(histories, policy_table(histories, behaviour))
    chance, G = np.asarray(family.instruction_prior, np.float64), family.num_subgoals
    past = np.asarray(family.task_prior, np.float64)[None]  # P(z, past), [m, Z]
    position, mass, label = [], [], []
    for n in range(episodes):
        for h in range(family.horizon - 1):
            joint = _extend(past, histories, reach, chance, h)
            total = joint.sum(axis=-1)
            votes = np.eye(G)[actions[h]]  # [n, W, Z, G]
            rows = np.einsum("mnwz,nwzg->mnwg", joint, votes, optimize=True)
            possible = total > 0
            mass.append(total[possible])
            label.append(np.minimum(rows[possible] / total[possible][:, None], 1.0))
            position.append(np.full(possible.sum(), n * (family.horizon - 1) + h))
        if n < episodes - 1:
            past = _extend(past, histories, reach, chance, family.horizon - 1).reshape(-1, family.num_tasks)
            past = past[past.sum(axis=1) > 0]
    return PromptLaw(np.concatenate(position), np.concatenate(mass), np.concatenate(label))


def _extend(
    past: np.ndarray, histories: Histories, reach: list[np.ndarray], chance: np.ndarray, h: int
) -> Float[np.ndarray, "m n W Z"]:
    """P(z, past, tau, w) of every past and every history of layer h."""
    likelihood = histories.layers[h].likelihood
    terms = len(past) * len(likelihood) * len(chance) * past.shape[1]
    if terms > _LARGEST:
        raise TooLargeError(f"the prompts under all tasks have {terms} entries; ask for fewer episodes", 8 * terms)
    return np.einsum("mz,nz,nw,w->mnwz", past, likelihood, reach[h], chance, optimize=True)
