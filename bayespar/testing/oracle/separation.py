"""How far apart a policy drives the tasks, by summing over every whole history."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .enumeration import Indices, Integer, Oracle

HistoryPolicy: TypeAlias = Callable[[Integer, Indices, Indices], Any]


def hellinger(oracle: Oracle, policy: HistoryPolicy) -> np.ndarray:
    """eta_zz' [Z, Z] of ``policy(w, observations, subgoals) -> [G]``: a sum over every whole history."""
    terms: Any = defaultdict(list)
    for observations, subgoals in oracle.histories(oracle.H):
        chosen = []
        for w in range(oracle.W):
            chance = float(oracle.instruction_prior[w])
            for h, g in enumerate(subgoals):
                chance *= policy(w, observations[: h + 1], subgoals[:h])[g] if chance > 0 else 0.0
            chosen.append(chance)
        roots = [math.sqrt(oracle.likelihood(z, observations, subgoals)) for z in range(oracle.Z)]
        for i, j in itertools.product(range(oracle.Z), repeat=2):
            terms[i, j].append(math.fsum(chosen) * (roots[i] - roots[j]) ** 2 / 2)
    return np.array([[math.fsum(terms[i, j]) for j in range(oracle.Z)] for i in range(oracle.Z)])


def eta(oracle: Oracle, policy: HistoryPolicy) -> float:
    """The least eta_zz' over pairs of tasks of positive prior; 1 if there is one task."""
    apart, alive = hellinger(oracle, policy), np.flatnonzero(oracle.prior > 0)
    return min((apart[i, j] for i, j in itertools.combinations(alive, 2)), default=1.0)
