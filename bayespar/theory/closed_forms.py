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


def gamble_bail_regret(safe: float, prior: float, good: bool, decisions: int, episodes: int) -> float:
    """Regret of BAIL where a safe prize s competes with a gamble that is good with probability p; n choices an episode.

    Until the gamble is taken once nothing is learnt, and each of the n T decisions takes it with probability p. If it
    is good, (1-s) ((1-p)/p) (1 - (1-p)^(nT)); if not, s (1 - (1-p)^(nT)).

    Source: theory.md, W3.
    """
    tried = -math.expm1(decisions * episodes * math.log1p(-prior))
    return (1 - safe) * (1 - prior) / prior * tried if good else safe * tried


def gamble_bawm_regret(safe: float, prior: float, good: bool, decisions: int, episodes: int) -> float:
    """Regret of the best plan in the aggregated model on the same world.

    It takes the gamble at once if p > s / (n - (n-1) s), loses s if that was wrong, and knows; else it never learns,
    and loses n (1-s) in every episode if the gamble is good.

    Source: theory.md, W3.
    """
    n = decisions
    if prior > safe / (n - (n - 1) * safe):
        return 0.0 if good else safe
    return n * (1 - safe) * episodes if good else 0.0


def two_doors_regret(actors: int, episodes: int, *, independent: bool) -> float:
    """Regret of BAIL on the two doors without exploration: one joint draw tells the door, a split tells nothing.

    Joint: 1/2, all of it in the first episode. Independent: while the door is unknown an episode loses 1 - 2^-K, and
    all Actors agree, and so learn, with probability 2^(1-K): (2^(K-1) - 1/2) (1 - (1 - 2^(1-K))^T).

    Source: theory.md, M1.
    """
    if not independent:
        return 0.5 * min(episodes, 1)
    agree = 2.0 ** (1 - actors)
    return (1 / agree - 0.5) * (1 - (1 - agree) ** episodes)
