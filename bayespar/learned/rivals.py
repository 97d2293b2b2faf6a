"""What a planner may behave like: BAIL, and what one gets by getting Bayes wrong, as probabilities at given decisions.

Most rivals are BAIL with its parts weighted. With E_i the log-likelihood of the i-th finished episode under each task
and C that of the current one, a task's weight before the n-th episode is

    exp(prior log P_Z + tilt + evidence (past sum_i keep^(n-1-i) E_i + current C)),

its expert has that vote, the votes are raised to the power 1/temperature and normalised, and a share ``lapse`` of
them is spread evenly over all subgoals. BAIL has all knobs at 1 and no tilt or lapse. Every rival may lapse, so that
one mistake costs none of them everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize, minimize_scalar

from ..evidence import prefix_log_evidence
from ..planning.expert import first_best
from ..statistics import kl_divergence, log_normalise
from ..world import Family

LEAST_LAPSE, MOST_LAPSE = 1e-6, 0.99
KNOBS = ("prior", "evidence", "past", "current", "keep", "temperature", "lapse")
LIMITS = dict.fromkeys(("prior", "evidence", "past", "current"), (0.0, 4.0)) | {
    "keep": (0.0, 1.0),
    "temperature": (0.2, 20.0),  # from nearly the most voted to nearly uniform
    "lapse": (LEAST_LAPSE, MOST_LAPSE),
    "tilt": (-20.0, 20.0),
}
"""Within which knobs are fitted."""
_EVALUATIONS = 500


class Evidence(NamedTuple):
    """What the rivals read: exact log-likelihoods at each decision of B prompts.

    Attributes:
        log_prior: log P_Z, [Z].
        episodes: log L_z of each whole episode, nats, [B, N, Z].
        current: log L_z(tau_h) of the current one at each decision, [B, N, H-1, Z].
        actions: the expert subgoal of every task, [B, N, H-1, Z].
        subgoals: [G], only their number matters.
    """

    log_prior: Float[np.ndarray, " Z"]
    episodes: Float[np.ndarray, "B N Z"]
    current: Float[np.ndarray, "B N Hm1 Z"]
    actions: Int[np.ndarray, "B N Hm1 Z"]
    subgoals: Int[np.ndarray, " G"]

    @staticmethod
    def of(family: Family, observations: Any, subgoals: Any, actions: Any) -> Evidence:
        """The evidence of prompts [B, N, ...] and the actions of a :class:`Corpus`."""
        B, N, H = observations.shape
        prefixes = prefix_log_evidence(family, observations.reshape(B * N, H), subgoals.reshape(B * N, H - 1))
        prefixes = np.moveaxis(np.asarray(prefixes, np.float64), 0, -1).reshape(B, N, H, -1)
        with np.errstate(divide="ignore"):
            log_prior = np.log(np.asarray(family.task_prior, np.float64))
        return Evidence(log_prior, prefixes[:, :, -1], prefixes[:, :, :-1], actions, np.arange(family.num_subgoals))

    def at(self, prompts: Any) -> Evidence:
        """That of some of the prompts."""
        return self._replace(
            episodes=self.episodes[prompts], current=self.current[prompts], actions=self.actions[prompts]
        )


Knobs = dict[str, Any]
Law = Callable[[Evidence, Float[np.ndarray, "B N Hm1 G"]], Float[np.ndarray, "B N Hm1 G"]]


@dataclass(frozen=True)
class Rival:
    """One way to behave.

    Attributes:
        name: of it.
        says: what a planner like that does, in a few words.
        free: knobs that are fitted, besides the lapse.
        fixed: knobs that are not 1.
        law: its probabilities without lapse from the evidence and what the planner itself proposed, where knobs do not
            describe it.
        draws: whether it draws at random, and what it draws is seen.
    """

    name: str
    says: str
    free: tuple[str, ...] = ()
    fixed: Mapping[str, float] = field(default_factory=dict)
    law: Law | None = None
    draws: bool = False


@dataclass(frozen=True)
class Fit:
    """A rival with its knobs.

    Attributes:
        rival: the rival.
        knobs: by name; "tilt" [Z] moves the log-prior.
        nats: mean KL(q || rival) where it was fitted, nats a decision.
    """

    rival: Rival
    knobs: Knobs
    nats: float

    @staticmethod
    def of(rival: Rival, **knobs: Any) -> Fit:
        """A rival with given knobs, and no lapse but what ``knobs`` say."""
        return Fit(rival, dict.fromkeys(KNOBS, 1.0) | {"lapse": 0.0} | dict(rival.fixed) | knobs, math.nan)

    def predict(self, data: Evidence, q: Float[np.ndarray, "B N Hm1 G"], **changes: float) -> np.ndarray:
        """Its probabilities, [B, N, H-1, G], of a planner that proposed q; ``changes`` are of knobs."""
        knobs = self.knobs | changes
        if self.rival.law is None:
            with jax.enable_x64(True):
                return np.asarray(_law(_pack(knobs, len(data.log_prior)), data))
        return _lapsed(self.rival.law(data, q), knobs["lapse"])


def fit(
    rival: Rival,
    data: Evidence,
    q: Float[np.ndarray, "B N Hm1 G"],
    start: Knobs | None = None,
    share: Float[np.ndarray, " B"] | None = None,
) -> Fit:
    """The knobs under which a rival's probabilities are nearest to q: those of least mean KL(q || rival).

    Args:
        rival: the rival.
        data: the evidence at each decision.
        q: the planner's probabilities, or what it chose as rows of zeros and a one: the fit is then the most likely.
        start: knobs to start from, of an earlier fit; any will do.
        share: weight of each prompt; 1 by default.
    """
    share = np.ones(len(q)) if share is None else share
    if rival.law is not None:
        law = rival.law(data, q)

        def loss(log_lapse: float) -> float:
            return float(share @ kl_divergence(q, _lapsed(law, math.exp(log_lapse))).mean(axis=(1, 2)) / share.sum())

        best = minimize_scalar(loss, bounds=(math.log(LEAST_LAPSE), math.log(MOST_LAPSE)), method="bounded")
        return Fit(rival, {"lapse": math.exp(best.x)}, float(best.fun))
    Z = len(data.log_prior)
    knobs = dict.fromkeys(KNOBS, 1.0) | dict(rival.fixed) | {"lapse": 0.01, "tilt": np.zeros(Z)}
    whole = _pack(knobs | (start or {}), Z)
    free = np.isin(_NAMES + ["tilt"] * Z, [*rival.free, "lapse"])
    with jax.enable_x64(True):
        data, q, share = jax.tree.map(jnp.asarray, (data, q, share))

        def objective(values: np.ndarray) -> tuple[float, np.ndarray]:
            whole[free] = values
            value, slope = _loss_and_slope(whole, data, q, share)
            return float(value), np.asarray(slope)[free]

        bounds = [_BOUNDS[name] for name, is_free in zip(_NAMES + ["tilt"] * Z, free, strict=True) if is_free]
        found = minimize(
            objective,
            whole[free],
            jac=True,
            method="TNC",
            bounds=bounds,
            options={"maxfun": _EVALUATIONS, "ftol": 1e-9, "gtol": 1e-7},
        )
    whole[free] = found.x
    return Fit(rival, _unpack(whole), float(found.fun))


# --- the weighted family ----------------------------------------------------------------------------------------

# As the optimiser sees them: positive scales by their logarithm.
_NAMES = list(KNOBS)
_LOGS = "temperature", "lapse"
_BOUNDS = {name: tuple(np.log(ends)) if name in _LOGS else ends for name, ends in LIMITS.items()}


def _pack(knobs: Knobs, tasks: int) -> Float[np.ndarray, " P"]:
    with np.errstate(divide="ignore"):
        numbers = [np.log(knobs[k]) if k in _LOGS else knobs[k] for k in KNOBS]
    return np.append(np.array(numbers, np.float64), knobs.get("tilt", np.zeros(tasks)))


def _unpack(whole: Float[np.ndarray, " P"]) -> Knobs:
    numbers = {k: float(np.exp(v)) if k in _LOGS else float(v) for k, v in zip(KNOBS, whole, strict=False)}
    return numbers | {"tilt": whole[len(KNOBS) :].copy()}


@jax.jit
def _law(whole: Any, data: Evidence) -> Any:
    """Probabilities [B, N, H-1, G]. Evidence of weight 0 counts for nothing, also where it is impossible."""
    prior, evidence, past, current, keep = whole[:5]
    temperature, lapse, tilt = jnp.exp(whole[5]), jnp.exp(whole[6]), whole[7:]
    log_prior = jnp.asarray(data.log_prior)

    def finite(logs: Any) -> tuple[Any, Any]:
        possible = jnp.isfinite(logs)
        return jnp.where(possible, logs, 0), ~possible

    (base, never), (episodes, ruled_out), (now, wrong) = map(finite, (log_prior, data.episodes, data.current))

    def episode(carry: Any, item: Any) -> Any:
        summed, gone = carry
        told, impossible = item
        return (keep * summed + told, (gone & (keep > 0)) | impossible), carry

    zero = jnp.zeros_like(episodes[:, 0]), jnp.zeros(ruled_out[:, 0].shape, bool)
    _, (before, gone) = jax.lax.scan(episode, zero, (episodes.swapaxes(0, 1), ruled_out.swapaxes(0, 1)))
    before, gone = before.swapaxes(0, 1)[:, :, None], gone.swapaxes(0, 1)[:, :, None]
    logits = prior * base + tilt + evidence * (past * before + current * now)
    dead = never | (gone & (evidence * past > 0)) | (wrong & (evidence * current > 0))
    weights = jax.nn.softmax(jnp.where(dead, -jnp.inf, logits), axis=-1)
    G = data.subgoals.shape[0]
    votes = jnp.stack([jnp.where(data.actions == g, weights, 0).sum(axis=-1) for g in range(G)], axis=-1)
    voted = votes > 0
    cooled = jnp.where(voted, jnp.exp(jnp.log(jnp.where(voted, votes, 1)) / temperature), 0)
    cooled = cooled / cooled.sum(axis=-1, keepdims=True)
    return (1 - lapse) * cooled + lapse / G


def _divergence(whole: Any, data: Evidence, q: Any, share: Any) -> Any:
    said = q > 0
    law = _law(whole, data)
    each = jnp.where(said, q * (jnp.log(jnp.where(said, q, 1)) - jnp.log(law)), 0).sum(axis=-1)
    return share @ each.mean(axis=(1, 2)) / share.sum()


_loss_and_slope = jax.jit(jax.value_and_grad(_divergence))


def _lapsed(law: np.ndarray, lapse: float) -> np.ndarray:
    return (1 - lapse) * law + lapse / law.shape[-1]


# --- the rivals ----------------------------------------------------------------------------------------------------


def bayes(data: Evidence) -> tuple[np.ndarray, np.ndarray]:
    """The exact P(z | pt_h) [B, N, H-1, Z] and BAIL [B, N, H-1, G]."""
    posterior = np.exp(log_normalise(_log_past(data)[:, :, None] + data.current))
    votes = [np.where(data.actions == g, posterior, 0).sum(axis=-1) for g in range(len(data.subgoals))]
    return posterior, np.stack(votes, axis=-1)


def _log_past(data: Evidence) -> np.ndarray:
    """log P(z, past) before each episode, [B, N, Z]."""
    before = np.cumsum(np.asarray(data.episodes), axis=1)
    return data.log_prior + np.concatenate([np.zeros_like(before[:, :1]), before[:, :-1]], axis=1)


def _one_hot(choice: np.ndarray, data: Evidence) -> np.ndarray:
    return np.eye(len(data.subgoals))[choice]


def _map_expert(data: Evidence, q: np.ndarray) -> np.ndarray:
    likeliest = np.asarray(first_best(bayes(data)[0]))[..., None]
    return _one_hot(np.take_along_axis(np.asarray(data.actions), likeliest, axis=-1)[..., 0], data)


def _argmax(data: Evidence, q: np.ndarray) -> np.ndarray:
    return _one_hot(np.asarray(first_best(bayes(data)[1])), data)


def _thompson(data: Evidence, q: np.ndarray) -> np.ndarray:
    """The law of the next proposal given the planner's own earlier ones in the episode.

    They show which task was drawn: its weight is P(z | past) times the probability q that its expert's subgoals were
    proposed. Where the drawn task is impossible, the first subgoal is chosen, as by :class:`ThompsonPlanner`.
    """
    actions = np.where(np.isfinite(data.current), data.actions, 0)
    weights = np.exp(log_normalise(_log_past(data)))
    out = np.zeros_like(q)
    for h in range(q.shape[2]):
        for g in range(q.shape[3]):
            out[:, :, h, g] = np.where(actions[:, :, h] == g, weights, 0).sum(axis=-1)
        agreed = weights * np.take_along_axis(q[:, :, h], actions[:, :, h], axis=-1)
        total = agreed.sum(axis=-1, keepdims=True)
        weights = np.where(total > 0, agreed / np.where(total > 0, total, 1), weights)
    return out


def _habit(data: Evidence, q: np.ndarray) -> np.ndarray:
    return np.broadcast_to(q.mean(axis=(0, 1, 2)), q.shape)


BAIL = Rival("bail", "weighs all evidence as Bayes does, and gives each task's expert its vote")
RIVALS: tuple[Rival, ...] = (
    BAIL,
    Rival("map expert", "follows the expert of the most probable task", law=_map_expert),
    Rival("argmax", "does what BAIL finds most probable, always", law=_argmax),
    Rival("thompson", "draws one task an episode from P(z | past), and follows its expert", law=_thompson, draws=True),
    Rival("last episode only", "reads only the last finished episode and the current one", fixed={"keep": 0.0}),
    Rival("current episode only", "ignores all finished episodes", fixed={"past": 0.0}),
    Rival("forgetting", "discounts each finished episode by keep for every one since", free=("keep",)),
    Rival("wrong prior", "starts from another prior on tasks", free=("tilt",)),
    Rival("temperature", "takes BAIL to the power 1/temperature", free=("temperature",)),
    Rival("tempered evidence", "raises all likelihoods to a power", free=("evidence",)),
    Rival("uninformed", "knows the prior, and learns nothing", fixed={"evidence": 0.0}),
    Rival("habit", "does the same whatever the prompt says", law=_habit),
)
"""What an audit tells apart, those with fewer knobs first where it matters."""
