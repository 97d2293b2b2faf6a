"""COUNT: the count-based predictor comes to BAIL as n^{-1/2}, with the constant that the theory gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...errors import TooLargeError
from ...learned.counts import PromptLaw, frequencies, prompt_law
from ..claim import Claim, Settings, Subject
from ..figure import Series
from ..verdict import Outcome, TwinOutcome, all_of, closed_form, not_applicable
from .rates import (
    LARGEST_CELLS,
    NEGLIGIBLE,
    RATE,
    Measured,
    interval_of,
    rate_twin,
    replications,
    smallest_corpus,
    two_decades,
)

SMALL = 100  # prompts: many are unseen
OFTEN = 32  # times that a label has occurred in the smallest corpus whose rate is measured


def _prompts(subject: Subject) -> PromptLaw:
    return prompt_law(subject.family, histories=subject.histories, experts=subject.experts)


def _measure(subject: Subject, settings: Settings, drawn: PromptLaw, tag: int) -> Measured:
    law = subject.once(_prompts)
    smallest = smallest_corpus(law.cells, law.mass[:, None] * np.minimum(law.bail, 1 - law.bail), OFTEN)
    while law.unseen(smallest) > NEGLIGIBLE * law.constant / np.sqrt(smallest):
        smallest *= 2  # a prompt whose label is certain errs too as long as it is unseen
    sizes, count = two_decades(smallest), replications(law.cells, settings)
    rng = np.random.default_rng([subject.key, tag])
    errors = [law.error(frequencies(drawn.draw(int(n), count, rng))) for n in sizes]
    return Measured(sizes, np.stack(errors, axis=1), law.constant)


def _counted(subject: Subject, settings: Settings) -> Measured:
    return _measure(subject, settings, subject.once(_prompts), 1)


def check(subject: Subject, settings: Settings) -> Outcome:
    if subject.family.horizon == 1:
        return not_applicable("H = 1: an episode has no decision, so there is no label")
    try:
        law = subject.once(_prompts)
    except TooLargeError as error:
        return not_applicable(f"too large for the exact side: {error}")
    if law.bail.size > LARGEST_CELLS:
        return not_applicable(f"too large: {len(law.mass)} prompts of one episode with {law.bail.shape[1]} labels")
    if law.constant < 1e-6:
        return not_applicable("no two experts disagree after any prompt: each label is learned the first time")
    found = subject.once(_counted, settings)
    rng = np.random.default_rng([subject.key, 2])
    small = law.error(frequencies(law.draw(SMALL, replications(law.cells, settings), rng)))
    interval, exact = interval_of(small, settings.alpha), law.expected_error(SMALL)
    said = f"{SMALL} prompts: mean error {interval.mean:.4g}, exact expectation {exact:.4g}"
    outcomes = [*found.outcomes("counts", settings.alpha), closed_form(interval, exact, said)]
    n = np.unique(np.logspace(0, 4, 17).astype(int))
    curve = Series("expected, exact", n.astype(float).tolist(), [law.expected_error(int(k)) for k in n])
    figure = found.figure("Distance of the count-based predictor from BAIL", "prompts in the corpus", (curve,))
    return replace(all_of(outcomes), figures=(figure,))


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    law = subject.once(_prompts)
    shuffled = law.shuffled()
    floor = float(law.error(shuffled.bail))
    found = subject.once(_counted, settings)
    out = [rate_twin("a rate of 1/n", "exponent -1 for -1/2", found.exponent(settings.alpha), -1.0)]
    if floor > found.errors[:, 0].mean():
        slope = _measure(subject, settings, shuffled, 3).exponent(settings.alpha)
        effect = f"the error tends to {floor:.3g}"
        out.append(rate_twin("labels shuffled across prompts", effect, slope, RATE))
    return out


COUNT = Claim(
    id="COUNT",
    title="counting labels comes to BAIL as n^(-1/2)",
    statement=(
        "The frequencies of labels after each prompt of n tend to BAIL: E_D TV ~ A n^(-1/2), A = sum over prompts of "
        "sqrt(P_D(pt)) sum_g sqrt(p_g (1 - p_g) / (2 pi)), p = BAIL(. | pt), averaged over positions."
    ),
    assumptions=("H >= 2", "some two experts disagree on a possible history"),
    status="derived",
    worlds=2,
    check=check,
    twins=twins,
    checks=5,
)
