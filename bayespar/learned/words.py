"""The finding of an audit in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..world import Family
from .compare import Comparison
from .ranking import Ranking
from .rivals import Fit
from .weights import Weight

_OFTEN = 0.005  # a smaller lapse is not worth a word
_NOTHING = 1e-5  # nats
_MOST_NAMES = 3
_SAYS = {
    "bail": "gives each task's expert its Bayesian vote",
    "map expert": "follows the expert of the most probable task",
    "argmax": "always does what BAIL finds most probable",
    "thompson": "samples one task an episode and follows its expert",
    "last episode only": "reads only the last finished episode and the current one",
    "current episode only": "ignores all finished episodes",
    "forgetting": "forgets: keep = {keep} of an episode's weight for each one since",
    "wrong prior": "starts from another prior",
    "temperature": "is BAIL at temperature {temperature}",
    "tempered evidence": "raises likelihoods to the power {evidence}",
    "uninformed": "learns nothing from its prompt",
    "habit": "does the same whatever its prompt says",
}


def words_of(
    comparison: Comparison,
    ranking: Ranking,
    name: str | None,
    found: bool,
    knobs: Sequence[Weight],
    resolution: float,
    prior: str,
) -> tuple[str, str]:
    """The finding, and how far the planner is from BAIL."""
    excess = comparison.excess
    sure = f"{1 - excess.alpha:.2%}".rstrip("0%").rstrip(".") + " %"
    cut = comparison.asked > excess.mean + _NOTHING
    limits = f"{f'at least {number(excess.low)}' if cut else f'{number(excess.low)} to {number(excess.high)}'}, {sure}"
    if comparison.impossible:
        far = (
            f"excess infinite: it rules out what can happen at {comparison.impossible:.1%} of decisions; "
            f"with no decision above {_nats(comparison.cap)} {number(excess.mean)} (of all prompts: {limits})"
        )
    else:
        far = f"excess {number(comparison.asked)} nats a decision (of all prompts: {limits})"
    if not found:
        if excess.high <= resolution:
            return f"behaves like BAIL within {number(resolution)} nats a decision", far
        return (
            f"nothing found: the excess may be 0 or up to {number(excess.high)} nats a decision; "
            "more prompts would tell",
            far,
        )
    if name is None:
        near = ranking.rows[0]
        return (
            f"is not BAIL, nor any of the rivals; nearest is {near.name!r}, which leaves {number(near.nats)} nats a "
            "decision unexplained",
            far,
        )
    fitted = {k.name: f"{k.value:.2f} ({k.low:.2f} to {k.high:.2f})" for k in knobs}
    said = _SAYS[name].format(**fitted) + (f": {prior}" if prior else "")
    lapse = next(k for k in knobs if k.name == "lapse")
    if lapse.value > _OFTEN:
        said += f", but picks at random with probability {fitted['lapse']}"
    alike = [row.name for row in ranking.rows if row.left and row.name != name]
    if len(alike) > _MOST_NAMES:
        alike = [*alike[:_MOST_NAMES], f"{len(alike) - _MOST_NAMES} more"]
    return said + (f" (not told apart from: {', '.join(alike)})" if alike else ""), far


def prior_in_words(family: Family, found: Fit) -> str:
    """The prior that a planner seems to start from, where it differs most from the true one."""
    prior = np.asarray(family.task_prior, np.float64)
    with np.errstate(divide="ignore"):
        logits = np.log(prior) + found.knobs["tilt"]
    own = np.exp(logits - logits.max())
    own /= own.sum()
    most = np.argsort(-np.abs(own - prior), kind="stable")[:2]
    return ", ".join(f"{family.tasks[z]!r} {own[z]:.2f} instead of {prior[z]:.2f}" for z in most.tolist())


def _nats(value: float) -> str:
    return f"{value:g} nat" + ("" if value == 1 else "s")


def number(value: float) -> str:
    """A number of nats: 0 where it is within what rounding and the least lapse amount to."""
    if abs(value) < _NOTHING:
        return "0"
    return f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.0e}"
