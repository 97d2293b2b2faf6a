"""CONTRAST: a Reporter learned from matched and mismatched pairs comes to E as n^{-1/2}, with the derived constant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...learned.reporter import (
    Pairs,
    contrast_constant,
    density_ratio,
    draw_pairs,
    reporter_error,
    reporter_of,
    scene_law,
    tabular_critic,
)
from ...statistics import Interval
from ..claim import Claim, Settings, Subject
from ..verdict import Outcome, TwinOutcome, Verdict, all_of, not_applicable
from .rates import LARGEST_CELLS, RATE, Measured, interval_of, rate_twin, replications, smallest_corpus, two_decades

NEGATIVES = 4
DEPENDENT = 0.2  # of the mismatched pairs of a twin are matched ones
LARGEST_MASS = 0.02  # by which the density of a critic may miss 1
OFTEN = 100  # times that a pair has occurred in the smallest corpus whose rate is measured


def _scenes(subject: Subject) -> tuple[np.ndarray, np.ndarray]:
    scenes, emission = scene_law(subject.family), np.asarray(subject.family.emission, np.float64)
    return scenes / scenes.sum(), emission / emission.sum(axis=-1, keepdims=True)


def _cells(subject: Subject) -> np.ndarray:
    scenes, emission = subject.once(_scenes)
    return contrast_constant(scenes, emission, NEGATIVES)


def _sizes(subject: Subject) -> np.ndarray:
    scenes, emission = subject.once(_scenes)
    joint = scenes[..., None] * emission
    apart = NEGATIVES * scenes[..., None] * joint.sum(axis=(0, 1))
    rarer = np.where(joint > 0, np.minimum(joint, apart), 1.0)
    return two_decades(smallest_corpus(subject.once(_cells), rarer, OFTEN))


Speak = Callable[[np.ndarray, Pairs], np.ndarray]


def _measure(
    subject: Subject, settings: Settings, tag: int, speak: Speak, dependent: float = 0.0
) -> tuple[Measured, Interval]:
    """Errors of the tabular critic, and the mass of its density in the largest corpora."""
    scenes, emission = subject.once(_scenes)
    sizes, count = subject.once(_sizes), replications(subject.once(_cells), settings)
    errors, mass = [], np.ones(1)
    for j, n in enumerate(sizes):
        key = subject.key + 1000 * tag + j
        pairs = draw_pairs(scenes, emission, int(n), negatives=NEGATIVES, size=count, key=key)
        if dependent:
            kept = np.random.default_rng(key).binomial(pairs.mismatched.astype(np.int64), 1 - dependent)
            others = draw_pairs(scenes, emission, int(NEGATIVES * dependent * n), size=count, key=key + 500).matched
            pairs = Pairs(pairs.matched, kept + others, NEGATIVES)
        odds = tabular_critic(pairs)
        errors.append(reporter_error(scenes, emission, speak(odds, pairs)))
        mass = np.einsum("...zso,zs->...", density_ratio(odds, pairs), scenes)
    constant = float(subject.once(_cells).sum())
    return Measured(sizes, np.stack(errors, axis=1), constant), interval_of(mass, settings.alpha)


def _contrasted(subject: Subject, settings: Settings) -> tuple[Measured, Interval]:
    return _measure(subject, settings, 1, reporter_of)


def _mass_is_one(mass: Interval, said: str) -> Outcome:
    verdict = Verdict.INCONCLUSIVE
    if max(mass.high - 1, 1 - mass.low) <= LARGEST_MASS:
        verdict = Verdict.SUPPORTED
    elif mass.low > 1 + LARGEST_MASS or mass.high < 1 - LARGEST_MASS:
        verdict = Verdict.REFUTED
    return Outcome(verdict, mass.mean, 1.0, said, half_width=mass.half_width, alpha=mass.alpha)


def check(subject: Subject, settings: Settings) -> Outcome:
    if subject.family.emission.size > LARGEST_CELLS:
        return not_applicable(f"too large: {subject.family.emission.size} pairs of a scene and an observation")
    if subject.once(_cells).sum() < 1e-6:
        return not_applicable("every scene has one thing to say, which is learned the first time")
    found, mass = subject.once(_contrasted, settings)
    said = f"the density of the critic adds up to {mass.mean:.4f} before it is renormalised, {NEGATIVES} negatives"
    outcomes = [*found.outcomes("tabular critic", settings.alpha), _mass_is_one(mass, said)]
    return replace(all_of(outcomes), figures=(found.figure("Distance of the learned Reporter", "matched pairs"),))


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    scenes, emission = subject.once(_scenes)
    found, mass = subject.once(_contrasted, settings)
    forgotten = replace(mass, mean=mass.mean / NEGATIVES, low=mass.low / NEGATIVES, high=mass.high / NEGATIVES)
    refuted = _mass_is_one(forgotten, "").verdict is Verdict.REFUTED
    effect = f"the density adds up to 1/{NEGATIVES}"
    out = [TwinOutcome("k forgotten in the odds", effect, refuted, forgotten.mean, 1 - mass.alpha)]
    marginal = np.einsum("zs,zso->o", scenes, emission)
    ratio = emission / np.where(marginal > 0, marginal, 1)

    def limit(spoken: np.ndarray) -> float:
        return float(reporter_error(scenes, emission, spoken / spoken.sum(axis=-1, keepdims=True)))

    def without_marginal(odds: np.ndarray, pairs: Pairs) -> np.ndarray:
        total = odds.sum(axis=-1, keepdims=True)
        return np.where(total > 0, odds / np.where(total > 0, total, 1), 1 / odds.shape[-1])

    dependent = emission / (1 - DEPENDENT + DEPENDENT * ratio)
    for tag, name, floor, speak, share in (
        (2, f"{DEPENDENT:.0%} of the mismatched pairs match", limit(dependent), reporter_of, DEPENDENT),
        (3, "the marginal left out", limit(ratio), without_marginal, 0.0),
    ):
        if floor > found.errors[:, 0].mean():  # else it is hidden by the error that is left
            slope = _measure(subject, settings, tag, speak, share)[0].exponent(settings.alpha)
            out.append(rate_twin(name, f"the error tends to {floor:.3g}", slope, RATE))
    return out


CONTRAST = Claim(
    id="CONTRAST",
    title="a Reporter learned by contrast comes to E as n^(-1/2)",
    statement=(
        "With n matched pairs of an observation and a scene and k n mismatched ones, the odds of the best critic are "
        "E(o | s) / (k P(o)). Those of the tabular critic give Ehat = k odds P(o), renormalised, whose mean distance "
        "from E falls as B n^(-1/2), with B by the delta method."
    ),
    assumptions=("some scene has more than one thing to say",),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
    checks=6,
)
