"""P1: what a planner that is not BAIL adds to the regret is its error on the prompts that it meets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...planning.information import graph_table
from ...planning.misspecified import Setting, practical_setting
from ...planning.planner import UniformPolicy
from ...planning.practical import Policy, Practice, bail_policy, practice
from ...world import Family
from ..bounds import epsilon_greedy
from ..claim import Claim, Explorer, Settings, Subject
from ..constants import Constants
from ..figure import Curves, Figure, Series
from ..verdict import ROUNDING, Outcome, TwinOutcome, Verdict, all_of, inequality, not_applicable
from . import corpora, networks
from .icl import TRAINED

EPISODES = 16
EPSILON = 0.3
SIZES = (0.02, 0.1, 0.4)
FALL = 0.05  # how often the climber of the witness errs at its first step
RARE = 0.05  # how often a corpus of other behaviour goes where the planner errs
_POSTERIORS = 300
_ENTRIES = 10**6  # of posteriors times continuations times tasks, followed at once
_LARGEST = 5 * 10**4  # continuations times tasks


def floor(error: float) -> Policy:
    """BAIL, but with this probability any subgoal."""
    return lambda *at: [(1 - error) * b + error / b.shape[-1] for b in bail_policy(*at)]


def temperature(degrees: float) -> Policy:
    """BAIL, flattened."""

    def policy(*at) -> list[np.ndarray]:
        flat = [b ** (1 / degrees) for b in bail_policy(*at)]
        return [_rows(b) for b in flat]

    return policy


def greedy(*at) -> list[np.ndarray]:
    """The likeliest subgoal of BAIL."""
    return [np.eye(b.shape[-1])[b.argmax(axis=-1)] for b in bail_policy(*at)]


def wrong_prior(strength: float) -> Policy:
    """BAIL from another prior, whose log odds are off by at most ``strength``."""

    def policy(setting: Setting, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
        tilt = np.exp(strength * np.linspace(0, 1, beliefs.shape[1]))
        return bail_policy(setting, _rows(beliefs * tilt), w)

    return policy


def _rows(weights: np.ndarray) -> np.ndarray:
    total = weights.sum(axis=-1, keepdims=True)
    return weights / np.where(total > 0, total, 1)


PLANNERS: dict[str, Policy] = {
    "BAIL": bail_policy,
    **{f"BAIL with {size:.0%} of anything": floor(size) for size in SIZES},
    "BAIL at temperature 2": temperature(2.0),
    "BAIL from a wrong prior": wrong_prior(2.0),
    "BAIL's likeliest subgoal": greedy,
}


def _why_not(subject: Subject) -> str | None:
    reason = subject.why_nothing_to_explore()
    if reason:
        return reason
    edges = max(len(layer.node) for layer in subject.graph.layers)
    if edges * subject.graph.family.num_tasks > _LARGEST:
        return f"too large for the exact side: {edges} continuations under {subject.graph.family.num_tasks} tasks"
    return None


def _runs(subject: Subject) -> dict[str, list[tuple[Explorer, Practice]]]:
    """Each planner, with a constant coin and uniform subgoals, and after one episode of the best policy."""
    setting = practical_setting(subject.family)
    edges = max(len(layer.node) for layer in setting.graph.layers)
    most = max(1, min(_POSTERIORS, _ENTRIES // (edges * len(setting.true))))
    once = (np.arange(EPISODES) < 1).astype(np.float64)
    rules = [(subject.explorers["uniform"], np.full(EPISODES, EPSILON)), (subject.explorers["best"], once)]
    return {
        name: [(e, practice(setting, planner, coin, e.table, max_posteriors=most)) for e, coin in rules]
        for name, planner in PLANNERS.items()
    }


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = _why_not(subject)
    if reason:
        return not_applicable(reason)
    values, bounds, most = [], [], []
    H, prior = subject.family.horizon, np.asarray(subject.classes.family.task_prior, np.float64)[:, None, None]
    runs = subject.once(_runs)
    for explorer, run in (pair for pairs in runs.values() for pair in pairs):
        own = explorer.constants
        lost = np.cumsum((1 - run.coin) * run.acting, axis=1)  # exploring loses the same on both sides
        measured = np.cumsum((1 - run.coin) * (run.doubt[..., : H - 1] @ np.arange(H - 1, 0, -1.0)), axis=1)
        promised = _without_exploring(own, run)
        corpus, square = (prior * run.error).sum(axis=0), (prior * run.squared).sum(axis=0)
        milder = np.sqrt(square / prior)
        for bound in (
            measured + run.planner_error,
            promised + run.planner_error,
            promised + run.weighed(corpus / prior),
            promised + run.weighed(milder),
        ):
            values.append(lost.ravel())
            bounds.append(bound.ravel())
            most.append(np.outer(own.worst, np.cumsum(1 - run.coin)).ravel())
    sizes = [runs[name][0][1] for name in list(PLANNERS)[: len(SIZES) + 1]]
    grown = [float(run.regret[:, -1].max()) for run in sizes]
    said = (
        f"exact regret of the planner's episodes / (doubt, measured and by E2, + the planner's error, online and by a "
        f"corpus of its own), {len(PLANNERS)} planners, two rules, every task; in {len(sizes[0].coin)} episodes, as "
        f"the error grows from 0 to {sizes[-1].planner_error[:, -1].max():.3g}, regret goes from {grown[0]:.3g} to "
        f"{grown[-1]:.3g}"
    )
    outcome = inequality(np.concatenate(values), np.concatenate(bounds), np.concatenate(most), said)
    outcome = replace(outcome, figures=(_figure(sizes, subject.explorers["uniform"].constants),))
    more = [networks.check(subject, settings)] if subject.name in TRAINED else []
    if more or outcome.verdict is not Verdict.NOT_APPLICABLE:
        more.append(corpora.check(subject))
    return all_of([outcome, *more])


def _without_exploring(own: Constants, run: Practice) -> np.ndarray:
    """What E2 promises of the planner's episodes; one that errs may come to where no expert leads, so no cap but R."""
    return epsilon_greedy(replace(own, cap=own.worst, loss=np.zeros_like(own.loss)), run.coin)


def _figure(sizes: list[Practice], own: Constants) -> Figure:
    x = [float(run.planner_error[:, -1].max()) for run in sizes]
    exploring = [np.cumsum(run.coin) * own.loss[:, None] for run in sizes]
    bounds = [e + _without_exploring(own, run) + run.planner_error for e, run in zip(exploring, sizes, strict=True)]
    return Curves(
        f"Regret after {len(sizes[0].coin)} episodes, BAIL mixed with {', '.join(f'{s:.0%}' for s in (0, *SIZES))}",
        "planner error on the prompts met, summed",
        "expected regret",
        [
            Series("exact", x, [float(run.regret[:, -1].max()) for run in sizes]),
            Series("E2's bound + planner error", x, [float(b[:, -1].max()) for b in bounds], kind="bound"),
        ],
    )


def climb(horizon: int = 4) -> Family:
    """One task: who lets go has fallen for good, and every step on the rope pays 1."""
    transition = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
    reward = np.array([[0.0, 0.0]] + [[1.0, 0.0]] * (horizon - 1))
    return Family([1.0], [1.0, 0.0], transition, np.eye(2), reward, horizon=horizon)


def fork() -> Family:
    """One task: a way to the left or to the right, and at the end of either a button that pays."""
    start, left, right, paid, lost = range(5)
    transition = np.zeros((2, 5, 5))
    transition[0, start, left] = transition[1, start, right] = 1
    transition[0, [left, right], paid] = transition[1, [left, right], lost] = 1
    transition[:, paid, paid] = transition[:, lost, lost] = 1
    reward = np.zeros((3, 5))
    reward[2, paid] = 1
    return Family([1.0], np.eye(5)[start], transition, np.eye(5), reward, horizon=3)


def gamble() -> Family:
    """A safe prize or a gamble (W3): BAIL tries it now and then, its likeliest subgoal never."""
    start, safe, jackpot, blank = range(4)
    transition = np.zeros((2, 2, 4, 4))
    transition[:, 0, :, safe] = transition[0, 1, :, blank] = transition[1, 1, :, jackpot] = 1
    return Family([0.7, 0.3], np.eye(4)[start], transition, np.eye(4), [[0.0] * 4, [0.0, 0.6, 1.0, 0.0]], horizon=2)


def slip(*at) -> list[np.ndarray]:
    """BAIL that errs at the first step only."""
    first, *rest = bail_policy(*at)
    return [(1 - FALL) * first + FALL * (1 - first), *rest]


def lost_on_the_left(setting: Setting, beliefs: np.ndarray, w: int) -> list[np.ndarray]:
    """BAIL on the fork that never presses the button on the left."""
    first, second = bail_policy(setting, beliefs, w)
    layer = setting.graph.layers[0]
    second = second.copy()
    second[:, layer.child[layer.subgoal == 0]] = [0.0, 1.0]
    return [first, second]


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    found = []
    setting = practical_setting(climb())
    H, uniform = setting.graph.family.horizon, UniformPolicy(2)
    run = practice(setting, slip, np.zeros(1), graph_table(setting.graph, uniform))
    regret, plain = float(run.regret[0, 0]), float(H * (H - 1) / 2 * run.error.mean())
    said = f"an error of {FALL:.0%} at the first of {H - 1} steps: regret {regret:.4g}, "
    for name, bound in (("a plain mean over positions", plain), ("the planner's error left out", 0.0)):
        found.append(TwinOutcome(name, f"{said}bound {bound:.4g}", regret > bound + ROUNDING, regret, 1.0))
    setting = practical_setting(fork())
    elsewhere = [[RARE, 1 - RARE]], [[0.5, 0.5]] * setting.graph.layers[1].size
    run = practice(setting, lost_on_the_left, np.zeros(1), [[np.array(rows) for rows in elsewhere]])
    regret, corpus = float(run.regret[0, 0]), float(run.error_exploring[0, 0] @ [2.0, 1.0])
    effect = f"it comes where the planner errs in {RARE:.0%} of prompts: regret {regret:.4g}, bound {corpus:.4g}"
    found.append(TwinOutcome("a corpus of other behaviour", effect, regret > corpus + ROUNDING, regret, 1.0))
    setting = practical_setting(gamble())
    explorer = graph_table(setting.graph, uniform)
    run, bail = (practice(setting, planner, np.zeros(2 * EPISODES), explorer) for planner in (greedy, bail_policy))
    more, error = float((run.regret - bail.regret)[1, -1]), float(run.planner_error[1, -1])
    effect = f"who never tries loses {more:.4g} more than BAIL, its error is {error:.4g}"
    found.append(TwinOutcome("the error bounds the loss against BAIL", effect, more > error + ROUNDING, more, 1.0))
    trained = networks.twins(subject, settings) if subject.name in TRAINED else []
    return [*found, *corpora.twins(subject), *trained]


P1 = Claim(
    id="P1",
    title="a planner's error adds to the regret",
    statement=(
        "For a Planner q in place of BAIL, Reg_z(T) <= [E2's bound] + sum_t sum_h (H-h) E[1{t does not explore} "
        "TV(q, BAIL)] over the prompts that q itself meets. On a corpus of the online behaviour the density of those "
        "is at most 1 / P_Z(z), so E_z TV <= E_D TV / P_Z(z), and E_z TV <= sqrt(E_D TV^2 / P_Z(z)). Every "
        "run obeys it too, with what a step can lose in the world at hand for H-h: so it is measured, networks being q."
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
    checks=60,
)
