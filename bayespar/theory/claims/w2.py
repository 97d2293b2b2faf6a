"""W2: planning in the aggregated world model loses at most what the odds against the true task allow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from ...planning.classes import task_classes
from ...planning.expected_regret import episode_loss
from ...planning.expert import TIE
from ...planning.exploration import Exploration
from ...planning.graph_experts import graph_experts
from ...planning.information import graph_table, information_graph
from ...planning.planner import UniformPolicy
from ...world import Family
from ..bounds import planning_loss, predictive_planning
from ..claim import Claim, Settings, Subject
from ..constants import Constants, instance, worst_case
from ..verdict import Outcome, TwinOutcome, Verdict, all_of, inequality, not_applicable
from .e2 import EPISODES, against_bounds, coin_rules

POSTERIORS = 600
LARGEST_ENTRIES = 2 * 10**7  # posteriors times nodes: a second
PAIRS = 12
DOUBT = 0.25  # of the witness; the bound is 1/3 there
NEARLY, TILT, BEYOND = 0.999, 0.1, 1.05

EpisodeBound = Callable[[Constants, np.ndarray], np.ndarray]


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = subject.why_nothing_to_explore()
    if reason:
        return not_applicable(reason)
    own = subject.explorers["uniform"].constants
    width = sum(layer.size for layer in subject.graph.layers) * subject.family.num_subgoals
    posteriors = some_posteriors(own.prior, subject.key)[: max(50, LARGEST_ENTRIES // width)]
    loss = episode_loss(subject.graph, "bawm", posteriors, experts=subject.graph_experts)
    said = f"exact loss / bound of one episode from {len(posteriors)} posteriors"
    outcomes = [
        _one_episode(loss, posteriors, own, said, planning_loss),
        against_bounds(
            subject,
            coin_rules,
            _regret_bound,
            f"exact regret / bound, four schedules, two policies, every task, up to {EPISODES} episodes",
            planner="bawm",
            trivial=lambda constants: constants.loss,  # what exploring for ever loses is no achievement
        ),
    ]
    if subject.name == "safe_or_risky":
        outcomes.append(_on_the_witness(NEARLY))
    return all_of(outcomes)


def some_posteriors(prior: Float[np.ndarray, " C"], key: int) -> Float[np.ndarray, "m C"]:
    """The prior; random ones, near and far from certainty about each task; and odds of every size between pairs."""
    C = len(prior)
    rng = np.random.default_rng(key)
    inside = rng.dirichlet(np.ones(C), POSTERIORS // 4)
    doubt = 2.0 ** -rng.uniform(0, 20, (POSTERIORS // 4, 1))
    near = (1 - doubt) * np.eye(C)[rng.integers(C, size=len(doubt))] + doubt * rng.dirichlet(
        np.full(C, 0.3), len(doubt)
    )
    first, second = np.nonzero(~np.eye(C, dtype=bool))
    chosen = rng.permutation(len(first))[:PAIRS]
    grid = np.linspace(-10, 10, POSTERIORS // (2 * len(chosen)))
    share = 1 / (1 + 2.0 ** -grid[:, None, None])
    edges = share * np.eye(C)[first[chosen]] + (1 - share) * np.eye(C)[second[chosen]]
    out = np.concatenate([prior[None], inside, near, edges.reshape(-1, C)])
    return out[rng.permutation(len(out))] / out.sum(axis=1, keepdims=True)


def _one_episode(loss: np.ndarray, posteriors: np.ndarray, own: Constants, said: str, bound: EpisodeBound) -> Outcome:
    """Losses [m, C] against the bound on one episode, by both constants."""
    both = own, worst_case(own.horizon, own.prior, own.least_eta)
    bounds = [bound(constants, posteriors) for constants in both]
    most = [np.broadcast_to(constants.worst, loss.shape) for constants in both]
    return inequality(np.stack([loss, loss]), np.stack(bounds), np.stack(most), said)


def _regret_bound(constants: Constants, rule: Exploration) -> np.ndarray:
    """The bound, with what ties may cost: E_z[1 / P(z | past)] <= 1 / P_Z(z), as odds are supermartingales."""
    ties = (constants.horizon - 1) * TIE / constants.prior
    return predictive_planning(constants, rule.coin) + np.outer(ties, np.arange(1, len(rule.coin) + 1))


def witness(against: float) -> Family:
    """Two tasks, one decision: under the first the risk pays 1 and safety 1 - ``against``, under the second 0 and 1."""
    transition = np.zeros((2, 2, 4, 4))
    transition[:, :, 1:, 1:] = np.eye(3)
    transition[0, :, 0] = np.eye(4)[[2, 1]]  # safe, risky
    transition[1, :, 0] = np.eye(4)[[1, 3]]
    reward = np.array([[0.0] * 4, [0.0, 1.0, 1 - against, 0.0]])
    return Family([1 - DOUBT, DOUBT], np.eye(4)[0], transition, np.eye(4), reward, horizon=2)


def _on_the_witness(ratio: float, tilt: float = 0.0, bound: EpisodeBound | None = None) -> Outcome:
    """The check where safety loses ``ratio`` times the bound, for a plan from log odds tilted against the truth."""
    family = witness(ratio * DOUBT / (1 - DOUBT))
    graph = information_graph(task_classes(family).family)
    experts = graph_experts(graph)
    own = instance(graph, graph_table(graph, UniformPolicy(2)), experts=experts)
    believed = np.array([[1 - DOUBT, DOUBT * np.exp(tilt)]])
    loss = episode_loss(graph, "bawm", believed / believed.sum(), experts=experts)
    return _one_episode(loss, own.prior[None], own, "two tasks on which it is nearly attained", bound or planning_loss)


def _without_division(constants: Constants, posterior: np.ndarray) -> np.ndarray:
    return (constants.horizon - 1) * (1 - posterior)


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    undivided = _on_the_witness(NEARLY, bound=_without_division)
    tilted = _on_the_witness(BEYOND, TILT)
    return [
        TwinOutcome(
            "the bound (H-1)(1-p), without the division by p",
            f"at p = {1 - DOUBT:g}: {DOUBT:g} instead of {DOUBT / (1 - DOUBT):.3f}",
            undivided.verdict is Verdict.REFUTED,
            undivided.measured,
            1.0,
        ),
        TwinOutcome(
            "a plan made from a posterior that is off",
            f"log odds tilted by {TILT} against the true task",
            tilted.verdict is Verdict.REFUTED,
            tilted.measured,
            1.0,
        ),
    ]


W2 = Claim(
    id="W2",
    title="planning in the aggregated model",
    statement=(
        "With p = P(z | past), an optimal plan of the aggregated model has J_z(pi*_z) - J_z(pi) <= (H-1) min(1, "
        "(1-p)/p). With exploration by coins Reg_z(T) <= (H-1) sum_t [eps_t + (1-eps_t) min(1, S_t)]: no factor H/4. "
        "On the world at hand (H-1)(1-p)/p becomes sum_z' odds_z' (loss of the expert of z under z'), and the first "
        "H-1 the loss of the exploration policy."
    ),
    assumptions=(
        "one coin an episode, independent of everything else",
        "the exploration policy does not depend on the past",
        "two tasks or more, after merging equal ones",
        "a bound below its trivial value",
    ),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
)
