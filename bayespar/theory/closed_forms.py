"""Closed forms of expected regret on the constructed worlds."""

from __future__ import annotations

from collections.abc import Sequence


def needle_regret(tasks: int, episodes: int) -> float:
    """Reg_z(T) of BAIL on the needle: T - T(T+1)/(2K) for T <= K, and (K-1)/2 from then on.

    Source: theory.md, N1.
    """
    T = min(episodes, tasks)
    return T - T * (T + 1) / (2 * tasks)


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
