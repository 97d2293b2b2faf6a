"""Do a planner's probabilities come true? A test on the labels alone, by betting.

For a Bayesian planner the probabilities q are those with which the expert of the (unknown) task does each thing:
given the prompt, 1{g* = g} - q(g) has mean 0. So a gambler who is paid r(g*)/q(g*) for a label, for any distribution r,
plays a fair game. Labels of one prompt share a task and are not independent, so what is paid is averaged over a prompt,
and the capital is multiplied from prompt to prompt, half of it at stake each time: a martingale. The bettors r are q
made sharper, q made flatter, and BAIL; the first two know nothing of the world. Their capitals are averaged, and the
probability that this e-value ever exceeds 1/alpha is at most alpha.

It detects probabilities that are off on average over prompts, such as too sure or not sure enough, from labels; it
needs many prompts where they are off by little, and its power says how many are enough.

Source: Shafer (2021), "Testing by betting"; theory.md, C1 (what the labels' law is).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..simulate.environment import split_key, uniforms
from ..simulate.low_level import draw_rows
from ..statistics import log_normalise
from .rivals import RIVALS, Evidence, Fit, bayes

_STAKE = 0.5
_REPEATS = 100
_SHARPER, _FLATTER = 2.0, 0.5


@dataclass(frozen=True)
class Martingale:
    """How the test ended.

    Attributes:
        log_e: log of the e-value, nats; infinite if a label came up that the planner held impossible.
        alpha: the false-alarm level: a Bayesian planner is rejected with at most this probability.
        power: the probability of rejecting, on these prompts, with labels drawn anew: of the planner itself, and of
            planners that are off by a stated amount.
        prompts: how many.
    """

    log_e: float
    alpha: float
    power: dict[str, float]
    prompts: int

    @property
    def rejected(self) -> bool:
        """Whether the probabilities do not come true."""
        return self.log_e >= math.log(1 / self.alpha)


def bet_on_labels(
    data: Evidence,
    q: Float[np.ndarray, "B N Hm1 G"],
    labels: Int[np.ndarray, "B N Hm1"],
    *,
    alpha: float = 1e-3,
    key: Any = 0,
) -> Martingale:
    """Bet on the labels of a corpus against planner probabilities.

    Args:
        data: the evidence at each decision.
        q: the planner's probabilities there.
        labels: the experts' subgoals, of a :class:`Corpus`.
        alpha: see :class:`Martingale`.
        key: of the labels that are drawn anew for the power, a JAX key or an int.
    """
    _, exact = bayes(data)
    log_e = float(_log_capital(q, exact, labels[None])[0])
    drawn = _redrawn(data, key)
    off = {"the planner itself": q} | {words: f.predict(data, q) for words, f in _REFERENCES.items()}
    goal = math.log(1 / alpha)
    power = {words: float((_log_capital(p, exact, drawn) >= goal).mean()) for words, p in off.items()}
    return Martingale(log_e, alpha, power, len(q))


def _named(name: str) -> Any:
    return next(r for r in RIVALS if r.name == name)


_REFERENCES = {
    "temperature 2": Fit.of(_named("temperature"), temperature=2.0),
    "forgetting, keep 0.8": Fit.of(_named("forgetting"), keep=0.8),
}
"""What the power is stated for."""


def _log_capital(
    q: Float[np.ndarray, "B N Hm1 G"], exact: Float[np.ndarray, "B N Hm1 G"], labels: Int[np.ndarray, "R B N Hm1"]
) -> Float[np.ndarray, " R"]:
    """log of the average capital of the bettors after all prompts, for R sets of labels."""
    bettors: Sequence[np.ndarray] = (_to_power(q, _SHARPER), _to_power(q, _FLATTER), exact)
    logs = []
    for r in bettors:
        with np.errstate(divide="ignore", invalid="ignore"):
            price = np.where(q > 0, r / q, np.inf)
        paid = np.take_along_axis(price[None], labels[..., None], axis=-1)[..., 0].mean(axis=(2, 3))
        logs.append(np.log1p(_STAKE * (paid - 1)).sum(axis=1))
    return np.logaddexp.reduce(np.stack(logs), axis=0) - math.log(len(logs))


def _to_power(q: np.ndarray, power: float) -> np.ndarray:
    raised = q**power
    return raised / raised.sum(axis=-1, keepdims=True)


def _redrawn(data: Evidence, key: Any) -> Int[np.ndarray, "R B N Hm1"]:
    """Labels as they could have been: the expert's of a task drawn anew given the whole prompt."""
    whole = np.exp(log_normalise(data.log_prior + np.asarray(data.episodes).sum(axis=1)))
    B = len(whole)
    uniform = uniforms(split_key(key)[1], 0, 1, (_REPEATS, B), np.float64)
    cumulative = np.broadcast_to(np.cumsum(whole, axis=-1), (_REPEATS, *whole.shape)).reshape(_REPEATS * B, -1)
    tasks = draw_rows(cumulative, uniform.reshape(-1)).reshape(_REPEATS, B, 1, 1, 1)
    return np.take_along_axis(np.asarray(data.actions)[None], tasks, axis=-1)[..., 0]
