"""The law of a pretraining corpus, by listing every corpus."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np

from .enumeration import Behaviour, History, Indices, Integer, Oracle, PromptTuple


def corpus_law(oracle: Oracle, episodes: int, behaviour: Behaviour) -> tuple[dict[PromptTuple, np.ndarray], float]:
    """P_D(pt_h, z, g*_h) of every prompt that ends in a decision, [Z, G] each, and the mass of all corpora.

    Everything is enumerated: z, instructions, hidden states, observations, labels, executed subgoals.
    ``behaviour(z, past, w, observations, subgoals)`` gives the probabilities of the executed subgoal, [G].

    Source: theory.md, C1.
    """
    law: Any = defaultdict(lambda: [[[] for _ in range(oracle.G)] for _ in range(oracle.Z)])
    whole = []

    def episode(z: Integer, past: tuple[History, ...], mass: float) -> None:
        if len(past) == episodes:
            whole.append(mass)
            return
        for w, s, o in itertools.product(range(oracle.W), range(oracle.S), range(oracle.O)):
            here = mass * oracle.instruction_prior[w] * oracle.initial[z, s] * oracle.emission[z, s, o]
            if here > 0:
                decision(z, past, w, s, (o,), (), here)

    def decision(
        z: Integer, past: tuple[History, ...], w: Integer, s: int, observations: Indices, subgoals: Indices, mass: float
    ) -> None:
        h = len(observations)
        if h == oracle.H:
            episode(z, (*past, (w, observations, subgoals)), mass)
            return
        best = oracle.expert(z, w, observations, subgoals)
        executed = behaviour(z, past, w, observations, subgoals)
        law[past, w, observations, subgoals][z][best].append(mass)
        for g, t, o in itertools.product(range(oracle.G), range(oracle.S), range(oracle.O)):
            here = mass * executed[g] * oracle.transition[z, h - 1, g, s, t] * oracle.emission[z, t, o]
            if here > 0:
                decision(z, past, w, t, (*observations, o), (*subgoals, g), here)

    for z in range(oracle.Z):
        if oracle.prior[z] > 0:
            episode(z, (), oracle.prior[z])
    masses = {pt: np.array([[math.fsum(t) for t in row] for row in rows]) for pt, rows in law.items()}
    return masses, math.fsum(whole)


def uneven_behaviour(subgoals: int) -> Behaviour:
    """A behaviour policy that is neither uniform nor memoryless, and sees neither the task nor a label."""

    def behaviour(z: Integer, past: Any, w: Integer, observations: Indices, subgoals_so_far: Indices) -> list[float]:
        seen = sum(observations) + 2 * sum(subgoals_so_far) + w + sum(sum(o) + 3 * sum(g) + v for v, o, g in past)
        weights = [1 + (seen * (g + 1) + g) % 4 for g in range(subgoals)]
        return [v / sum(weights) for v in weights]

    return behaviour
