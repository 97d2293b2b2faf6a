"""The practical setting without simulation: what a wrong planner loses before a Reporter that may speak otherwise.

As :func:`expected_regret`, by carrying the distinct posteriors from episode to episode; but the planner is any function
of the posterior, which need not be BAIL, and the posterior need not be right about the Reporter. Besides regret, the
two things that it is made of are measured where they arise: doubt, and the planner's distance from BAIL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from ..errors import TooLargeError
from ..statistics import total_variation
from .beliefs import merge_rows
from .information import Flow
from .misspecified import Setting

Policy = Callable[[Setting, Float[np.ndarray, "m C"], int], list[Float[np.ndarray, "m n G"]]]
"""(setting, posteriors before the episode, instruction) -> probabilities at every node, a layer at a time."""

_BLOCK = 1 << 22  # entries of a temporary array


@dataclass(frozen=True)
class Practice:
    """Expectations under each of K true tasks.

    Attributes:
        acting: what an episode of the planner loses against the believed expert of the true task, [K, T].
        exploring: what an episode of the exploration policy loses, [K, T].
        doubt: E[1 - P(z | pt_h)] after each observation, if the planner acts, [K, T, H].
        doubt_exploring: likewise, if the exploration policy acts.
        error: E TV(q(. | pt_h), BAIL(. | pt_h)) at each decision, if the planner acts, [K, T, H-1].
        squared: E TV^2, likewise.
        error_exploring: E TV, if the exploration policy acts: with coins of 1, on a corpus of that behaviour.
        coin: probability that the exploration policy acts, [T].
        posteriors: distinct posteriors before each episode, [T].
    """

    acting: Float[np.ndarray, "K T"]
    exploring: Float[np.ndarray, "K T"]
    doubt: Float[np.ndarray, "K T H"]
    doubt_exploring: Float[np.ndarray, "K T H"]
    error: Float[np.ndarray, "K T Hm1"]
    squared: Float[np.ndarray, "K T Hm1"]
    error_exploring: Float[np.ndarray, "K T Hm1"]
    coin: Float[np.ndarray, " T"]
    posteriors: np.ndarray

    @property
    def regret(self) -> Float[np.ndarray, "K T"]:
        """Regret summed over episodes, [K, T]."""
        return np.cumsum((1 - self.coin) * self.acting + self.coin * self.exploring, axis=1)

    @property
    def planner_error(self) -> Float[np.ndarray, "K T"]:
        """P1's term, sum_t sum_h (H-h) E[1{t does not explore} TV], summed over episodes, [K, T]."""
        return self.weighed(self.error)

    def weighed(self, error: Float[np.ndarray, "K T Hm1"]) -> Float[np.ndarray, "K T"]:
        """Any error at decisions, weighed by H-h and by the chance that the planner acts, summed over episodes."""
        weights = np.arange(error.shape[2], 0, -1.0)
        return np.cumsum((1 - self.coin) * (error @ weights), axis=1)


def posteriors_within(setting: Setting, beliefs: Float[np.ndarray, "m C"]) -> list[Float[np.ndarray, "m n C"]]:
    """P(z | pt) at every node, a layer at a time; zeros where no task can have led there."""
    C, out = beliefs.shape[1], []
    for likelihood, _ in zip(setting.experts.likelihood, setting.graph.layers, strict=False):
        joint = beliefs[:, None] * likelihood[:, :C]
        total = joint.sum(axis=2, keepdims=True)
        out.append(joint / np.where(total > 0, total, 1))
    return out


def bail_policy(setting: Setting, beliefs: Float[np.ndarray, "m C"], w: int) -> list[Float[np.ndarray, "m n G"]]:
    """BAIL; zeros at nodes that the posterior excludes."""
    G, C = setting.graph.family.num_subgoals, beliefs.shape[1]
    votes = [np.eye(G)[actions[:, :C, w]] for actions in setting.experts.actions]
    pairs = zip(posteriors_within(setting, beliefs), votes, strict=True)
    return [np.einsum("mnc,ncg->mng", p, v, optimize=True) for p, v in pairs]


def practice(
    setting: Setting,
    planner: Policy,
    coin: Float[np.ndarray, " T"],
    explorer: list[Flow],
    *,
    max_posteriors: int = 2000,
    truncate: bool = True,
) -> Practice:
    """Follow a planner through as many episodes as ``coin`` has.

    Args:
        setting: from :func:`practical_setting`.
        planner: a function of the posterior, such as :func:`bail_policy`.
        coin: probability of exploring in each episode, [T].
        explorer: the exploration policy, from :func:`graph_table` on the setting's graph.
        max_posteriors: the most distinct posteriors that are carried.
        truncate: return the episodes that can be computed instead of raising.

    Raises:
        TooLargeError: more posteriors than that.

    Source: theory.md, section 5.
    """
    episode = _Episode(setting, planner, explorer)
    K, T = len(setting.true), len(coin)
    beliefs, mass = np.asarray(setting.classes.family.task_prior, np.float64)[None], np.ones((1, K))
    found, counts = [], []
    for t in range(T):
        counts.append(len(beliefs))
        parts, next_beliefs, next_mass = [], [], []
        for rows in np.array_split(np.arange(len(beliefs)), -(-len(beliefs) // episode.rows)):
            played = [episode.play(beliefs[rows], mass[rows], k) for k in range(2)]
            parts.append([a for numbers, _ in played for a in numbers])
            if t < T - 1:
                heard = (1 - coin[t]) * played[0][1] + coin[t] * played[1][1]
                possible = (heard > 0).any(axis=2)
                joint = (beliefs[rows][:, None] * episode.messages)[possible]
                next_beliefs.append(joint / joint.sum(axis=1, keepdims=True))
                next_mass.append(heard[possible])
        found.append([sum(numbers) for numbers in zip(*parts, strict=True)])
        if t == T - 1:
            break
        merged, index = merge_rows(np.concatenate(next_beliefs))
        if len(merged) > max_posteriors and truncate:
            break
        if len(merged) > max_posteriors:
            raise TooLargeError(
                f"{len(merged)} posteriors are possible after {t + 1} episodes, more than {max_posteriors}; ask for "
                "fewer episodes, raise max_posteriors, or simulate",
                len(merged) * (K + merged.shape[1]) * 8,
            )
        beliefs, mass = merged, _adder(index, np.ones(len(index)), len(merged)) @ np.concatenate(next_mass)
    acting, doubt, error, squared, exploring, unsure, elsewhere, _ = (np.stack(a, 1) for a in zip(*found, strict=True))
    told = coin[: len(counts)], np.array(counts)
    return Practice(acting, exploring, doubt, unsure, error, squared, elsewhere, *told)


class _Episode:
    """One episode from a batch of posteriors.

    Attributes:
        messages: what an episode can tell: likelihoods of the believed classes up to a factor, [messages, C].
        rows: how many posteriors are followed at once.
    """

    def __init__(self, setting: Setting, planner: Policy, explorer: list[Flow]):
        graph, family = setting.graph, setting.graph.family
        self.setting, self.planner, self.explorer = setting, planner, explorer
        self.chance = np.asarray(family.instruction_prior, np.float64)
        self.rewards = [[r[..., setting.true] for r in graph.rewards(w)] for w in range(family.num_instructions)]
        C = setting.classes.family.num_tasks
        last = graph.layers[-1].joint if graph.layers else graph.likelihood
        believed = last[:, :C].sum(axis=1, keepdims=True)
        scaled = np.where(believed > 0, last[:, :C] / np.where(believed > 0, believed, 1), 0.0)
        self.messages, index = merge_rows(scaled)
        self.endings = [_adder(index, last[:, z], len(self.messages)) for z in setting.true]
        widest = max(last.shape[0], len(self.messages)) * (C + len(setting.true) + family.num_subgoals)
        self.rows = max(1, _BLOCK // widest)

    def play(
        self, beliefs: Float[np.ndarray, "m C"], mass: Float[np.ndarray, "m K"], explored: int
    ) -> tuple[list[np.ndarray], Float[np.ndarray, "m messages K"]]:
        """Loss [K], doubt [K, H], error and its square [K, H-1], summed over posteriors; and what is heard."""
        setting, graph = self.setting, self.setting.graph
        m, K, H = len(beliefs), len(setting.true), graph.family.horizon
        loss, doubt = np.zeros(K), np.zeros((K, H))
        error, squared = np.zeros((2, K, H - 1))
        heard = np.zeros((m, len(self.messages), K))
        for w, chance in enumerate(self.chance):
            bail = bail_policy(setting, beliefs, w)
            own = self.planner(setting, beliefs, w)
            policy: list[np.ndarray] = own
            if explored:
                policy = [np.broadcast_to(rows, b.shape) for rows, b in zip(self.explorer[w], bail, strict=True)]
            inflow = np.broadcast_to(graph.start, (m, len(graph.start)))
            weight, likelihood = inflow, graph.likelihood
            doubt[:, 0] += chance * self._doubt(beliefs, mass, weight, likelihood)
            left = mass * setting.owed[:, w]
            for h, layer in enumerate(graph.layers):
                arrived = np.einsum("mn,nk,mk->mnk", inflow, setting.experts.likelihood[h][:, setting.true], mass)
                distance = total_variation(own[h], bail[h])
                error[:, h] += chance * np.einsum("mnk,mn->k", arrived, distance)
                squared[:, h] += chance * np.einsum("mnk,mn->k", arrived, distance**2)
                y = inflow[..., None] * policy[h]
                left = left - mass * np.einsum("mng,ngk->mk", y, self.rewards[w][h], optimize=True)
                weight, likelihood = y[:, layer.node, layer.subgoal], layer.joint
                doubt[:, h + 1] += chance * self._doubt(beliefs, mass, weight, likelihood)
                if h < H - 2:
                    size = graph.layers[h + 1].size
                    inflow = np.asarray((_adder(layer.child, layer.joint.mean(axis=1), size) @ weight.T).T)
            loss += chance * left.sum(axis=0)
            told = np.stack([(ending @ weight.T).T for ending in self.endings], axis=2)
            heard += chance * told * mass[:, None]
        return [loss, doubt, error, squared], heard

    def _doubt(self, beliefs: np.ndarray, mass: np.ndarray, weight: np.ndarray, likelihood: np.ndarray) -> np.ndarray:
        """E[1 - P(z | tau)] of each true task, summed over posteriors, [K]."""
        joint = beliefs[:, None] * likelihood[:, : beliefs.shape[1]]
        total = joint.sum(axis=2)
        out = np.zeros(len(self.setting.true))
        for k, (z, c) in enumerate(zip(self.setting.true, self.setting.label, strict=True)):
            wrong = (total - joint[..., c]) / np.where(total > 0, total, 1)
            out[k] = np.einsum("m,mn,n,mn->", mass[:, k], weight, likelihood[:, z], wrong, optimize=True)
        return out


def _adder(index: np.ndarray, weights: np.ndarray, size: int) -> sparse.csr_array:
    """The matrix that adds up weighted entries by index."""
    return sparse.csr_array((weights, (index, np.arange(len(index)))), shape=(size, len(index)))
