"""How much a planner makes of its prior, of finished episodes and of the current one: 1 each where it is Bayesian.

The knobs of :mod:`rivals` are fitted together: a task's log-weight is prior log P_Z + past sum_i keep^(n-1-i) E_i +
current C, and a share ``lapse`` of all decisions is at random. It is a regression of the planner's log-odds on the
exact contributions to the log-odds, except that only the experts' votes are seen, not the weights themselves; so it is
done by maximum likelihood. Standard errors come from fits without a fifth of the prompts each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import stdtrit

from .rivals import LIMITS, Evidence, Fit, Rival, fit

_GROUPS = 5
_MEANT = 1e-6  # nats: contributions that differ by less say nothing


@dataclass(frozen=True)
class Weight:
    """One knob of a fit.

    Attributes:
        name: "prior", "past", "current", "keep", or another knob of a rival.
        value: the fitted one; NaN where nothing in these prompts depends on it.
        low, high: ends of its 95 % interval, by the jackknife over prompts, within what a knob may be. Where all are
            at the same limit, the true value may lie beyond it.
        means: what it is, or why it cannot be known.
    """

    name: str
    value: float
    low: float
    high: float
    means: str


_WEIGHTS = {
    "prior": "weight of the prior",
    "past": "weight of the last finished episode",
    "current": "weight of the current episode",
    "keep": "what is kept of an episode's weight when another one ends",
    "lapse": "share of decisions at random",
}
_UNKNOWN = {
    "prior": "the prior is uniform, so its weight shows nowhere",
    "past": "no finished episode tells tasks apart, so their weight shows nowhere",
    "current": "the current episode tells no tasks apart when a decision is made, so its weight shows nowhere",
    "keep": "no prompt has two finished episodes that tell tasks apart, so nothing can fade",
}


def evidence_weights(data: Evidence, q: Float[np.ndarray, "B N Hm1 G"]) -> tuple[Weight, ...]:
    """The weights that planner probabilities q give to each part of the evidence, all fitted together.

    Args:
        data: the evidence at each decision, of at least 2 prompts.
        q: the planner's probabilities there.
    """
    known = [name for name in ("prior", "past", "current", "keep") if _shows(name, data)]
    rival = Rival("weighted", "weighs each part of the evidence in its own way", free=tuple(known))
    found = {w.name: w for w in with_errors(rival, data, q, _WEIGHTS)}
    missing = {n: Weight(n, np.nan, np.nan, np.nan, why) for n, why in _UNKNOWN.items()}
    return tuple((missing | found)[name] for name in _WEIGHTS)


def with_errors(
    rival: Rival, data: Evidence, q: Float[np.ndarray, "B N Hm1 G"], means: dict[str, str] | None = None
) -> tuple[Weight, ...]:
    """The free knobs of a rival, fitted to q, with 95 % intervals by a jackknife over groups of prompts.

    The knobs of a tilt are left out: they are the prior's, and come as a whole.
    """
    whole = fit(rival, data, q)
    names = [n for n in (*rival.free, "lapse") if n != "tilt"]
    parts = np.array([[f.knobs[n] for n in names] for f in _leaving_out(whole, data, q)])
    groups = len(parts)
    errors = np.sqrt((groups - 1) / groups * ((parts - parts.mean(axis=0)) ** 2).sum(axis=0))
    reach = errors * float(stdtrit(groups - 1, 0.975))
    out = []
    for name, r in zip(names, reach, strict=True):
        value, (least, most) = float(whole.knobs[name]), LIMITS[name]
        out.append(Weight(name, value, max(value - r, least), min(value + r, most), (means or {}).get(name, "")))
    return tuple(out)


def _leaving_out(whole: Fit, data: Evidence, q: np.ndarray) -> Iterator[Fit]:
    """Fits without one group of prompts each."""
    groups = min(_GROUPS, len(q))
    for k in range(groups):
        share = np.where(np.arange(len(q)) % groups == k, 0.0, 1.0)
        yield fit(whole.rival, data, q, whole.knobs, share)


def _shows(name: str, data: Evidence) -> bool:
    """Whether a part of the evidence differs between tasks that are possible, anywhere."""
    live = np.isfinite(data.log_prior)
    if name == "prior":
        return _differs(data.log_prior[live])
    if name == "current":
        return _differs(data.current[..., live])
    last = 2 if name == "keep" else 1
    return data.episodes.shape[1] > last and _differs(data.episodes[:, :-last][..., live])


def _differs(logs: np.ndarray) -> bool:
    finite = np.isfinite(logs)
    low = np.where(finite, logs, np.inf).min(axis=-1)
    high = np.where(finite, logs, -np.inf).max(axis=-1)
    return bool((high - low > _MEANT).any())
