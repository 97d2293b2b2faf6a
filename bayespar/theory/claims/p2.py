"""P2: a Planner that believes in another Reporter still learns, as long as a certificate says so."""

from __future__ import annotations

import numpy as np

from ...errors import TooLargeError
from ...learned.reporter import learn_reporter
from ...planning.information import Flow, graph_table
from ...planning.misspecified import Certificate, Setting, certify, practical_setting
from ...planning.planner import UniformPolicy
from ...planning.practical import Policy, Practice, bail_policy, practice
from ...planning.reporters import confused, with_reporter
from ...world import Family
from ..bounds import posterior_decay
from ..claim import Claim, Settings, Subject
from ..constants import instance
from ..figure import Curves, Figure, Series
from ..verdict import ROUNDING, Outcome, TwinOutcome, Verdict, all_of, inequality, not_applicable

EPISODES = 6
EPSILON = 0.5
NOISES = (0.05, 0.2, 0.6)
PAIRS = 1_000  # that a Reporter is learned from
POWERS = (0.5, 0.2, 0.05)
LARGEST_BYTES = 2**26
LARGEST = 5 * 10**4  # continuations times tasks
_ENTRIES = 2 * 10**6  # of posteriors times edges times tasks, followed at once
# A Reporter that is heard once an episode: how often it errs, as believed and as it is.
BELIEVED_ERROR = 0.2
ERRORS = (0.05, 0.2, 0.35, 0.45, 0.55, 0.7, 0.9)
HEARD = 128


def witness() -> tuple[Family, np.ndarray]:
    """The world of theory.md, P2, in which a single observation leaves more doubt than C_z, and its Reporter."""
    return _listening([0.9, 0.1], 0.01), np.array([[[0.5, 0.5]], [[0.01, 0.99]]])


def listening(error: float) -> tuple[Family, np.ndarray]:
    """Two tasks, one word an episode that names the wrong task with probability ``error``; BELIEVED_ERROR, it is held.

    No subgoal matters, so there is one rate of learning, and all that is wrong is the Reporter.
    """
    return _listening([0.5, 0.5], BELIEVED_ERROR), _words(error)


def _listening(prior: list[float], error: float) -> Family:
    return Family(prior, [1.0], np.ones((1, 1, 1)), _words(error), np.zeros((1, 2)), horizon=1)


def _words(error: float) -> np.ndarray:
    return np.array([[[1 - error, error]], [[error, 1 - error]]])


def listened(error: float, episodes: int, powers: tuple[float, ...] = POWERS) -> tuple[Practice, list[Certificate]]:
    """Exact doubt of that Planner, and its certificates."""
    setting = practical_setting(*listening(error))
    explorer = graph_table(setting.graph, UniformPolicy(1))
    found = practice(setting, bail_policy, np.zeros(episodes), explorer)
    return found, [certify(setting, explorer, power=s) for s in powers]


def _settings(subject: Subject) -> list[Setting]:
    """Reporters with noise, and one that was learned by contrast."""
    family = subject.family
    spoken = [confused(np.asarray(family.emission), noise) for noise in NOISES]
    spoken.append(_learned(family, subject.key))
    return [practical_setting(family, emission, max_bytes=LARGEST_BYTES) for emission in spoken]


def _learned(family: Family, key: int) -> np.ndarray:
    """A Reporter learned by contrast, kept to what is believed possible; where it has learned nothing, the true one."""
    emission = np.asarray(family.emission)
    learned = np.where(emission > 0, learn_reporter(family, PAIRS, key=key).emission, 0)
    total = learned.sum(axis=2, keepdims=True)
    return np.where(total > 0, learned / np.where(total > 0, total, 1), emission)


def _explorers(subject: Subject, setting: Setting) -> dict[str, list[Flow]]:
    policies = {"uniform": UniformPolicy(subject.family.num_subgoals), "best": subject.design.policy}
    return {name: graph_table(setting.graph, policy) for name, policy in policies.items()}


def followed(setting: Setting, coin: np.ndarray, explorer: list[Flow], planner: Policy = bail_policy) -> Practice:
    """As many episodes as can be followed in about a second."""
    edges = max(len(layer.node) for layer in setting.graph.layers)
    most = max(1, min(500, _ENTRIES // (edges * len(setting.true))))
    return practice(setting, planner, coin, explorer, max_posteriors=most)


def _why_not(subject: Subject) -> str | None:
    reason = subject.why_nothing_to_explore()
    if reason:
        return reason
    size = max(len(layer.node) for layer in subject.graph.layers) * subject.graph.family.num_tasks
    if size > LARGEST:
        return f"too large for the exact side: continuations times tasks are {size}"
    emission = np.asarray(subject.family.emission)
    if np.array_equal(confused(emission, 0.5), emission):
        return "every state has one thing to say, and nothing else that a Reporter could say is believed possible"
    try:
        subject.once(_settings)
    except TooLargeError as error:
        return f"too large for the exact side: {error}"
    return None


def check(subject: Subject, settings: Settings) -> Outcome:
    reason = _why_not(subject)
    if reason:
        return not_applicable(reason)
    coin = np.full(EPISODES, EPSILON)
    values, bounds, most, silent = [], [], [], 0
    for setting in subject.once(_settings):
        for explorer in _explorers(subject, setting).values():
            found = followed(setting, coin, explorer)
            certificates = [certify(setting, explorer, power=s) for s in POWERS]
            silent += min(c.rate(EPSILON).max() for c in certificates) >= 1
            T, worst = len(found.coin), np.arange(1, len(found.coin) + 1) * (subject.family.horizon - 1.0)
            doubt = np.minimum.reduce([c.doubt(found.coin) for c in certificates])
            regret = np.minimum.reduce([c.regret(found.coin) for c in certificates])
            values += [found.doubt.ravel(), found.doubt_exploring.ravel(), found.regret.ravel()]
            bounds += [doubt.ravel(), doubt.ravel(), regret.ravel()]
            most += [np.ones(2 * doubt.size), np.broadcast_to(worst, (len(setting.true), T)).ravel()]
    said = (
        f"exact doubt and regret / certificate, Reporters of noise {', '.join(map(str, NOISES))} and one learned from "
        f"{PAIRS} pairs, two policies, every task, up to {EPISODES} episodes; silent in {silent} of "
        f"{2 * len(NOISES) + 2} cases"
    )
    outcomes = [inequality(np.concatenate(values), np.concatenate(bounds), np.concatenate(most), said)]
    outcomes.append(_knowing(subject, coin))
    if subject.name == "tiger":
        outcomes.append(_phase_change())
    return all_of(outcomes)


def _knowing(subject: Subject, coin: np.ndarray) -> Outcome:
    """A Planner that knows the Reporter is well specified: E1 with the eta of what is spoken."""
    spoken = with_reporter(subject.family, confused(np.asarray(subject.family.emission), NOISES[1]))
    setting = practical_setting(spoken, max_bytes=LARGEST_BYTES)
    explorer = graph_table(setting.graph, UniformPolicy(subject.family.num_subgoals))
    found = followed(setting, coin, explorer)
    bound = posterior_decay(instance(setting.graph, explorer), found.coin)[..., None]
    value, bound = np.stack(np.broadcast_arrays(found.doubt, bound))
    said = f"a Planner that knows the Reporter, noise {NOISES[1]}: doubt / E1 with the eta of what is spoken"
    return inequality(value, bound, np.ones_like(bound), said)


def _phase_change() -> Outcome:
    """Where the least rate over powers crosses 1, exact doubt stops falling."""
    doubts, rates, excess = [], {s: [] for s in (*POWERS, 0.01)}, -np.inf
    wrong = []
    for error in ERRORS:
        found, certificates = listened(error, HEARD, tuple(rates))
        doubt = found.doubt[0, :, 0]
        excess = max(excess, max(float((found.doubt - c.doubt(found.coin)).max()) for c in certificates))
        for certificate in certificates:
            rates[certificate.power].append(float(certificate.rate(0.0)[0]))
        doubts.append(float(doubt[-1]))
        falls = doubt[-1] < doubt[HEARD // 2]
        if falls != (min(r[-1] for r in rates.values()) < 1):
            wrong.append(error)
    half = sum(r < 1 for r in rates[0.5])
    said = (
        f"one word an episode, {HEARD} episodes: exact doubt falls iff some power's rate is below 1, at errors "
        f"{', '.join(map(str, ERRORS))} (power 1/2 sees it in the first {half})"
    )
    figure: Figure = Curves(
        f"Doubt after {HEARD} episodes as the Reporter degrades, believed to err {BELIEVED_ERROR:.0%} of the time",
        "how often the Reporter errs",
        "probability, or rate an episode",
        [
            Series("E[1 - P(z | pt)], exact", ERRORS, doubts),
            *(Series(f"rate rho, power {s:g}", ERRORS, r, kind="bound") for s, r in rates.items()),
            Series("certificates are silent above", ERRORS, [1.0] * len(ERRORS), kind="reference"),
        ],
        note="The doubt stops falling where the rate of the smallest powers crosses 1; power 1/2 gives up earlier.",
    )
    verdict = Verdict.REFUTED if wrong or not excess <= ROUNDING else Verdict.SUPPORTED
    return Outcome(verdict, float(len(wrong)), 0.0, said, figures=(figure,))


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    setting = practical_setting(*witness())
    explorer = graph_table(setting.graph, UniformPolicy(1))
    first = float(practice(setting, bail_policy, np.zeros(1), explorer).doubt[0, 0, 0])
    dropped = float(certify(setting, explorer).roots[0].sum())
    found = []
    effect = f"the first observation leaves a doubt of {first:.3f}, C_z = {dropped:.3f}"
    found.append(TwinOutcome("D_h left out", effect, first > dropped + ROUNDING, first, 1.0))
    family, spoken = listening(ERRORS[-2])
    doubt = listened(ERRORS[-2], HEARD)[0].doubt[0, :, 0]
    for name, eta_of in (
        ("silence taken for the rate of what is believed", family),
        ("a Planner that does not know the Reporter learns as if it did", with_reporter(family, spoken)),
    ):
        believed = practical_setting(eta_of)
        constants = instance(believed.graph, graph_table(believed.graph, UniformPolicy(1)))
        bound = posterior_decay(constants, np.ones(HEARD))[0]
        above = float((doubt - bound).max())
        effect = f"rate above 1: doubt {doubt[-1]:.3f} after {HEARD} episodes, E1 would have {bound[-1]:.2g}"
        found.append(TwinOutcome(name, effect, above > ROUNDING, above, 1.0))
    return found


P2 = Claim(
    id="P2",
    title="a Reporter that is not believed",
    statement=(
        "The Reporter speaks Ehat, the posterior assumes E. With B = E_{z,pi,Ehat} (L_z' / L_z)^s over an episode, D_h "
        "its maximum over policies within h observations, and rho = eps B_exp + (1-eps) B_max, "
        "E[1 - P(z | pt_h^t)] <= min(1, c_s sum over z' of (P_Z(z') / P_Z(z))^s D_h rho^(t-1)), c_s = s^s (1-s)^(1-s), "
        "for every s in (0, 1): a certificate where max rho < 1, silence elsewhere. E2's argument then bounds the "
        "regret against the expert of E that hears Ehat. A Planner that knows Ehat is well specified."
    ),
    assumptions=(
        "the Reporter says nothing that the Planner holds impossible in a state that can be reached",
        "one coin an episode, independent of everything else",
        "two tasks or more, after merging equal ones",
    ),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
)
