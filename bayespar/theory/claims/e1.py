"""E1: with a coin once an episode, the posterior's doubt about the true task decays exponentially."""

from __future__ import annotations

import numpy as np

from ...planning.exploration import anytime_epsilon, by_coin
from ...planning.information import Flow
from ..bounds import posterior_decay
from ..claim import Claim, Explorer, Settings, Subject
from ..verdict import Outcome, TwinOutcome, inequality, not_applicable

EPISODES = 6
EPSILON = 0.3
FORGETFUL = 4096


def quiet_policy(subject: Subject) -> list[Flow]:
    """Of the policies that always choose one subgoal, the one that tells least about the task."""
    graph = subject.graph
    G = graph.family.num_subgoals
    fixed = [[np.tile(np.eye(G)[g], (layer.size, 1)) for layer in graph.layers] for g in range(G)]
    told = [subject.game.eta(graph.flow(policy)).max() for policy in fixed]
    return [fixed[int(np.argmin(told))]] * graph.family.num_instructions


def _measured(
    subject: Subject, coin: np.ndarray, explorer: Explorer, *, coin_per_step: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Doubt and its bound, for BAIL and for a quiet policy between explorations, given the coin of the day or not."""
    values, bounds = [], []
    for planner in ("bail", quiet_policy(subject)):
        found = subject.expected(planner, by_coin(coin), explorer, coin_per_step=coin_per_step, doubt=True)
        for doubt in (found.doubt, found.doubt_exploring):
            bound = posterior_decay(explorer.constants, coin)[:, : doubt.shape[1], None]
            values.append(doubt.ravel())
            bounds.append(np.broadcast_to(bound, doubt.shape).ravel())
    return np.concatenate(values), np.concatenate(bounds)


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = subject.why_nothing_to_explore()
    if reason:
        return not_applicable(reason)
    values, bounds = [], []
    for explorer in subject.explorers.values():
        odds, eta = explorer.constants.odds, explorer.constants.least_eta
        for coin in (np.full(EPISODES, EPSILON), anytime_epsilon(odds, max(eta, 1e-3), EPISODES).coin):
            if posterior_decay(explorer.constants, coin).min() < 1:
                value, bound = _measured(subject, coin, explorer)
                values.append(value)
                bounds.append(bound)
    if not values:
        return not_applicable(f"every bound lies above its trivial value within {EPISODES} episodes")
    value, bound = np.concatenate(values), np.concatenate(bounds)
    said = f"E[1 - P(z | pt)] / bound at {len(value)} steps of up to {EPISODES} episodes, every task, exact"
    return inequality(value, bound, np.ones_like(bound), said)


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    explorer = subject.explorers["best"]
    coin = np.full(EPISODES, EPSILON)
    found = []
    if subject.name == "lock":  # elsewhere single exploring steps may tell enough, and it need not be false
        value, bound = _measured(subject, coin, explorer, coin_per_step=True)
        excess = float((value - bound).max())
        effect = f"the same epsilon {EPSILON}, tossed H-1 times"
        found.append(TwinOutcome("a coin per step", effect, excess > 1e-9, excess, 1.0))
    forgets = subject.expected("bail", by_coin(coin[:1]), explorer, doubt=True).doubt[:, 0].max(axis=1)
    late = posterior_decay(explorer.constants, np.full(FORGETFUL, EPSILON))[:, -1]
    return [
        *found,
        TwinOutcome(
            "a posterior that forgets finished episodes",
            f"at episode {FORGETFUL}",
            bool((forgets > late + 1e-9).any()),
            float((forgets - late).max()),
            1.0,
        ),
    ]


E1 = Claim(
    id="E1",
    title="doubt decays with every exploration",
    statement=(
        "Explore in episode t if a coin of bias eps_t shows up. Whatever is done in the other episodes, at every step "
        "of episode t, also given its coin, E[1 - P(z | pt)] <= min(1, S_t / 2), with S_t = sum over z' of "
        "sqrt(P_Z(z') / P_Z(z)) prod_{i<t} (1 - eps_i eta_zz')."
    ),
    assumptions=(
        "one coin an episode, independent of everything else",
        "the exploration policy does not depend on the past",
        "two tasks or more, after merging equal ones",
    ),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
)
