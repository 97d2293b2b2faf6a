"""What a planner loses in each episode, by listing every sequence of episodes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .enumeration import TIE, Oracle
from .separation import HistoryPolicy


def regret(
    oracle: Oracle,
    planner: str,
    explorer: HistoryPolicy,
    coin: Sequence[float],
    gate: Any = None,
    *,
    remembers: Sequence[bool] | None = None,
    per_step: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What ``planner`` ("bail", "map" or "thompson") loses in each episode, over all sequences of episodes.

    ``explorer(w, observations, subgoals) -> [G]`` acts in episode t with probability ``coin[t]``, and for sure
    where 1 - max P(z | past) > ``gate[t]``. No two tasks may be equal. Returns the regret [Z, T], the
    probability that the explorer acts [Z, T], and E[1 - P(z | pt_h)] [2, Z, T, H] if the planner acts whatever the
    coin and the gate say, and if the explorer does.
    """
    T, Z, H, W = len(coin), oracle.Z, oracle.H, oracle.W
    gate = np.full(T, math.inf) if gate is None else gate
    remembers = [True] * T if remembers is None else remembers
    whole = list(oracle.histories(H))
    law = np.array([[[oracle.likelihood(z, o[: h + 1], g[:h]) for z in range(Z)] for h in range(H)] for o, g in whole])
    pay = np.array([[sum(oracle.reward[h, v, w] for h, v in enumerate(o)) for w in range(W)] for o, _ in whole])
    best = oracle.expert_value()
    follows = np.zeros((len(whole), W, H - 1, Z))  # whether the expert of z would take the step that was taken
    explores = np.ones((len(whole), W, H - 1))
    for n, (o, g) in enumerate(whole):
        for w, h in itertools.product(range(W), range(H - 1)):
            explores[n, w, h] = explorer(w, o[: h + 1], g[:h])[g[h]]
            for z in range(Z):
                # An expert whose task is impossible here may do anything: this one takes the first subgoal.
                alive = oracle.likelihood(z, o[: h + 1], g[:h]) > 0
                follows[n, w, h, z] = (oracle.expert(z, w, o[: h + 1], g[:h]) if alive else 0) == g[h]

    def plans(belief: np.ndarray) -> list[tuple[Any, np.ndarray]]:
        """(probability, chance of the step taken [n, W, H-1]) of every way in which the planner may act."""
        if planner == "thompson":
            return [(belief[z], follows[..., z]) for z in range(Z) if belief[z] > 0]
        joint = belief * law[:, : H - 1]
        total = joint.sum(axis=2, keepdims=True)
        posterior = joint / np.where(total > 0, total, 1)
        if planner == "map":
            first = (posterior >= posterior.max(axis=2, keepdims=True) - TIE).argmax(axis=2)
            posterior = np.eye(Z)[first]
        return [(1.0, np.einsum("nhz,nwhz->nwh", posterior, follows))]

    regret, explored, doubt = np.zeros((Z, T)), np.zeros((Z, T)), np.zeros((2, Z, T, H))

    def episode(t: int, belief: np.ndarray, mass: np.ndarray) -> None:
        share = 1.0 if np.sort(belief)[:-1].sum() > gate[t] else float(coin[t])
        explored[:, t] += mass * share
        if per_step:
            mixed = [(p, (1 - share) * plan + share * explores) for p, plan in plans(belief)]
            acting, exploring, share = mixed, [], 0.0
        else:
            acting, exploring = plans(belief), [(1.0, explores)]
        joint = belief * law
        total = joint.sum(axis=2, keepdims=True)
        wrong = 1 - joint / np.where(total > 0, total, 1)
        reach = np.zeros((2, len(whole), W))
        for kind, ways in enumerate((acting, exploring)):
            for p, steps in ways:
                reach[kind] += p * steps.prod(axis=2) * oracle.instruction_prior
            doubt[kind, :, t] += mass[:, None] * np.einsum("nw,nz,nhz->zh", reach[kind], law[:, -1], wrong)
        heard = (1 - share) * reach[0] + share * reach[1]
        value = np.einsum("nw,nz,nw->z", heard, law[:, -1], pay)
        regret[:, t] += mass * (best @ oracle.instruction_prior - value)
        if t == T - 1:
            return
        for n in np.flatnonzero(heard.sum(axis=1) > 0):
            after = mass * heard[n].sum() * law[n, -1]
            if after.sum() > 0:
                learnt = belief * law[n, -1] if remembers[t] else belief
                episode(t + 1, learnt / learnt.sum(), after)

    episode(0, oracle.prior / oracle.prior.sum(), np.ones(Z))
    return regret, explored, doubt
