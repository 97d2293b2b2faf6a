"""Closed forms of expected regret on the constructed worlds."""

from __future__ import annotations

import math
from collections.abc import Sequence


def needle_regret(tasks: int, episodes: int) -> float:
    """Reg_z(T) of BAIL on the needle: T - T(T+1)/(2K) for T <= K, and (K-1)/2 from then on.

    Source: theory.md, N1.
    """
    T = min(episodes, tasks)
    return T - T * (T + 1) / (2 * tasks)


def lock_regret(length: int, episodes: int) -> float:
    """Regret of BAIL on the lock of words of L letters: (1 - p/2) sum_{n<T} (1-p)^n, with p = 2^-(L-1).

    Source: theory.md, N2.
    """
    p = 2.0 ** (1 - length)
    return (1 - p / 2) * -math.expm1(episodes * math.log1p(-p)) / p if p < 1 else 0.5


def forgetful_needle_regret(tasks: int, episodes: int, remembers: Sequence[bool]) -> float:
    """Regret on the needle of a BAIL that keeps the evidence of episode t only where ``remembers[t]``.

    While the task is unknown and e failures are remembered, an episode fails with probability 1 - 1/(K - e); only a
    remembered episode reveals or eliminates anything. With every episode remembered this is :func:`needle_regret`.
    """
    unknown, eliminated, regret = 1.0, 0, 0.0
    for t in range(episodes):
        if unknown <= 0 or eliminated >= tasks - 1:
            break
        fails = 1 - 1 / (tasks - eliminated)
        regret += unknown * fails
        if remembers[t]:
            unknown *= fails
            eliminated += 1
    return regret
