"""What the theorems guarantee: one function a theorem.

Each is a function of a few :class:`Constants`, which hold either in any world of the same horizon, prior and eta
(:func:`worst_case`) or in the world at hand (:func:`instance`).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from ..planning.expert import TIE
from ..planning.exploration import explore_first
from .constants import Constants


def posterior_decay(constants: Constants, coin: Float[np.ndarray, " T"]) -> Float[np.ndarray, "C T"]:
    """E1: E[1 - P(z | pt)] <= min(1, S_t / 2), at every step of episode t, given its coin or not.

    S_t = sum over z' of sqrt(P_Z(z') / P_Z(z)) prod_{i<t} (1 - eps_i eta_zz').
    """
    return np.minimum(1.0, _decay(constants, coin) / 2)


def epsilon_greedy(constants: Constants, coin: Float[np.ndarray, " T"], *, actors: int = 1) -> Float[np.ndarray, "C T"]:
    """E2: Reg_z(t) for every t, under any schedule of coins: (H-1) sum_t [eps_t + (1-eps_t) min(1, (H/4) S_t)].

    M1: where each of K Actors draws from its own marginal of BAIL, S_t is to be taken K times. What such a mixture of
    experts can lose is bounded by H-h alone, so with ``actors`` above 1 give the constants of :func:`worst_case`.
    """
    doubt = actors * constants.advantage[:, None] * posterior_decay(constants, coin)
    acting = np.minimum(constants.cap[:, None], doubt)
    return np.cumsum(coin * constants.loss[:, None] + (1 - coin) * acting, axis=1)


def explore_first_bound(constants: Constants, episodes: int) -> Float[np.ndarray, " C"]:
    """E2 (c): Reg_z(T) <= (H-1) (n0 + 1), logarithmic in T."""
    count = int(explore_first(constants.odds, constants.least_eta, episodes).coin.sum())
    return count * constants.loss + (constants.horizon - 1)


def gated_regret(constants: Constants, gate: Float[np.ndarray, " T"]) -> Float[np.ndarray, "C T"]:
    """E3: Reg_z(t) for every t, under any decreasing gate.

    Three terms: explorations; episodes past the gate with a wrong task; episodes past it with the right one. Exploring
    more than n times has probability at most sum_z' sqrt(P_Z(z') / P_Z(z)) (1 - eta_zz')^n sqrt((1-delta)/delta).

    Raises:
        ValueError: the gate increases somewhere: the number of explorations is then not bounded by its last value.
    """
    if (gate[1:] > gate[:-1]).any():
        raise ValueError("the gate increases; the bound needs a gate that never does")
    delta = np.minimum(gate, 1.0)
    explorations = explorations_bound(constants, delta)
    against = (1 / constants.prior - 1)[:, None]
    wrong = np.minimum(1.0, against * delta / np.maximum(1 - delta, np.finfo(np.float64).tiny))
    past = np.minimum(constants.cap[:, None], constants.cap[:, None] * wrong + constants.advantage[:, None] * delta)
    return explorations * constants.loss[:, None] + np.cumsum(past, axis=1)


def explorations_bound(constants: Constants, delta: Float[np.ndarray, " T"]) -> Float[np.ndarray, "C T"]:
    """E3: E N_t, the expected number of explorations in the first t episodes."""
    T = len(delta)
    out = np.zeros((len(constants.prior), T))
    lead, seen = np.sqrt((1 - delta) / delta), np.arange(T)
    for z, roots in enumerate(constants.roots):
        # What n explorations leave of the square-root odds of the other tasks falls with n: it is capped first.
        left = roots @ (1 - constants.eta[z][:, None]) ** seen
        total = np.append(0.0, np.cumsum(left))
        with np.errstate(divide="ignore"):
            capped = np.searchsorted(-left, -1 / lead, side="right")
        capped = np.minimum(capped, seen + 1)
        out[z] = capped + lead * (total[seen + 1] - total[capped])
    return out


def gated_closed_form(constants: Constants, episodes: int) -> Float[np.ndarray, " C"]:
    """E3 as a formula in T, for the gate 1 / (T o): O(H log(c_Z |Z| T) / eta + H^2).

    Infinite, for the theorem is silent, unless T o > 1 and eta > 0.
    """
    odds, eta = constants.odds, constants.least_eta
    if episodes * odds.against <= 1 or eta == 0:
        return np.full(len(constants.prior), math.inf)
    delta = 1 / (episodes * odds.against)
    rate = -math.log1p(-eta) if eta < 1 else math.inf
    weight = constants.roots.sum(axis=1) * math.sqrt((1 - delta) / delta)
    explorations = np.log(np.maximum(weight, 1)) / rate + 1 / eta
    H = constants.horizon
    return constants.loss * explorations + (H - 1) * episodes * odds.against * delta / (1 - delta) + H * (H - 1) / 2


def predictive_planning(constants: Constants, coin: Float[np.ndarray, " T"]) -> Float[np.ndarray, "C T"]:
    """W2: Reg_z(t) of planning in the aggregated model: (H-1) sum_t [eps_t + (1-eps_t) min(1, S_t)].

    On the world at hand an episode loses at most min(R_z, sum over z' of odds_z' D_z'z) <= sum sqrt(R_z D_z'z odds_z'),
    with R ``worst`` and D ``misled``; each root of odds shrinks as in E1.
    """
    most = constants.worst[:, None]
    acting = np.minimum(most, _decay(constants, coin, np.sqrt(most * constants.misled.T)))
    return np.cumsum(coin * constants.loss[:, None] + (1 - coin) * acting, axis=1)


def planning_loss(constants: Constants, posterior: Float[np.ndarray, "m C"]) -> Float[np.ndarray, "m C"]:
    """W2, one episode from a posterior: J_z(pi*_z) - J_z(pi) <= (H-1) min(1, (1-p)/p) with p = P(z | past).

    On the world at hand min(R_z, sum over z' of odds_z' D_z'z). Ties are broken within 1e-9 of the best at each of H-1
    decisions, which is worth (H-1) 1e-9 / p.
    """
    allowed = posterior @ constants.misled + (constants.horizon - 1) * TIE
    with np.errstate(divide="ignore", over="ignore"):
        return np.minimum(constants.worst, allowed / posterior)


def actor_error(delta: Float[np.ndarray, " steps"], spread: Float[np.ndarray, "H W"]) -> Float[np.ndarray, " W"]:
    """HIER: |J_z(pi, w; mu) - J_z(pi, w; mu')|, for every high-level policy pi, hence also between the optimal values.

    It is at most sum over h >= 2 of spread(r_h) [1 - prod_k (1 - delta_k)^(h-1)], which is
    sum spread(r_h) [1 - (1 - delta)^((h-1) H_a)] where every delta_k is delta.

    Args:
        delta: largest total variation between the Actors at each low-level step, over states and subgoals, [H_a].
        spread: max_o r_h(o, w) - min_o r_h(o, w), [H, W].
    """
    agree = np.prod(1 - delta)
    return (1 - agree ** np.arange(len(spread))) @ spread


def _decay(
    constants: Constants, coin: Float[np.ndarray, " T"], weight: Float[np.ndarray, "C C"] | None = None
) -> Float[np.ndarray, "C T"]:
    """S_t; with a weight on each pair (z, z') if there is one."""
    roots = constants.roots if weight is None else constants.roots * weight
    before = np.concatenate([[0.0], coin[:-1]])
    total = np.zeros((len(constants.prior), len(coin)))
    for other, eta in enumerate(constants.eta.T):
        total += roots[:, other, None] * np.cumprod(1 - before * eta[:, None], axis=1)
    return total
