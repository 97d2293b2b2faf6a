"""P1's error term as a size: the corpus that a horizon needs, so that errors cost less than exploration."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from ...errors import TooLargeError
from ...learned.counts import PromptLaw, prompt_law
from ..claim import Subject
from ..figure import Curves, Series
from ..practical import corpus_needed, size_needed
from ..verdict import ROUNDING, Outcome, TwinOutcome, inequality, not_applicable

EPSILON = 0.25
HORIZONS = 6
LARGEST = 2_000  # prompts times labels
_BELOW = np.logspace(-1.5, 0, 7)  # sizes at which the exact error is computed, in units of the largest that is needed


def exact_error(law: PromptLaw, prompts: int, weights: Float[np.ndarray, " Hm1"]) -> Float[np.ndarray, " T"]:
    """sum_t sum_h w_h E_D TV of the count-based predictor, for every horizon t."""
    each = []
    for position in range(law.positions):
        rows = law.position == position
        one = PromptLaw(np.zeros(rows.sum(), np.int64), law.mass[rows], law.bail[rows])
        each.append(one.expected_error(prompts))
    return np.cumsum(np.reshape(each, (-1, len(weights))) @ weights)


def _law(subject: Subject) -> PromptLaw | None:
    """Prompts of as many episodes as can be enumerated quickly, under uniform subgoals."""
    found = None
    for episodes in range(1, HORIZONS + 1):
        try:
            law = prompt_law(subject.family, episodes, histories=subject.histories, experts=subject.experts)
        except TooLargeError:
            return found
        if law.bail.size > LARGEST:
            return found
        found = law
    return found


def _setting(law: PromptLaw, subject: Subject) -> tuple[np.ndarray, np.ndarray, float]:
    """What steps weigh, the coins, and lambda under the least likely class of tasks."""
    steps = subject.family.horizon - 1
    coin = np.full(law.positions // steps, EPSILON)
    return np.arange(steps, 0, -1.0), coin, 1 / float(subject.classes.family.task_prior.min())


def check(subject: Subject) -> Outcome:
    """Whether the corpus that is named is large enough, by the exact error."""
    law = subject.once(_law)
    if law is None:
        return not_applicable("too many prompts to count labels after each")
    weights, coin, density = _setting(law, subject)
    needed = corpus_needed(law, coin, weights, density=density)
    allowed = len(weights) * np.cumsum(coin)
    try:
        at = np.array([density * exact_error(law, int(n), weights)[t] for t, n in enumerate(needed)])
        sizes = np.unique(np.ceil(_BELOW * needed.max()))
        exact = density * np.stack([exact_error(law, int(n), weights) for n in sizes])
    except TooLargeError as error:
        return not_applicable(f"too large for the exact side: {error}")
    said = (
        f"counting labels, the error term by a corpus of the size that the horizon needs / what exploration may lose, "
        f"up to {len(coin)} episodes, for which {needed[-1]:.0f} prompts are needed"
    )
    outcome = inequality(at, allowed, density * weights.sum() * np.arange(1, len(coin) + 1), said)
    figure = Curves(
        f"Corpus that keeps the error term below exploration, epsilon = {EPSILON:g}",
        "horizon T, episodes",
        "prompts in the corpus",
        [
            Series(
                "large enough, by the bound on counting", list(range(1, len(coin) + 1)), needed.tolist(), kind="bound"
            ),
            _measured(size_needed(sizes, exact, allowed)),
        ],
        log=True,
        note="Labels counted after prompts of uniform subgoals, lambda = 1 / P_Z(z) of the least likely task.",
    )
    return replace(outcome, figures=(figure,) if len(coin) > 1 else ())


def _measured(sizes: np.ndarray) -> Series:
    t = np.flatnonzero(np.isfinite(sizes))
    return Series("large enough, exactly", (t + 1.0).tolist(), sizes[t].tolist())


def twins(subject: Subject) -> list[TwinOutcome]:
    """The asymptotic rate alone, which forgets the prompts that never occurred in the corpus."""
    law = subject.once(_law)
    if law is None:
        return []
    weights, coin, density = _setting(law, subject)
    by_position = np.bincount(law.position, law.cells.sum(axis=1) * law.positions, law.positions)
    constant = float(by_position @ np.tile(weights, len(coin)))
    allowed = len(weights) * coin.sum()
    prompts = max(1, int(np.ceil((density * constant / allowed) ** 2)))
    value = density * float(exact_error(law, prompts, weights)[-1])
    if value <= 1.25 * allowed:  # here few prompts are missing from a corpus of that size
        return []
    effect = f"{prompts} prompts, where {corpus_needed(law, coin, weights, density=density)[-1]:.0f} are needed"
    return [TwinOutcome("missing prompts left out of the count", effect, bool(value > allowed + ROUNDING), value, 1.0)]
