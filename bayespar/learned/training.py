"""Pretraining: next-token prediction on a corpus that never ends, resumed exactly where it was stopped.

No prompt is seen twice, so the loss of a batch, taken before the network learns from it, is a loss on new data: there
is nothing to overfit, and no held-out set is needed to see how far training is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import numbers
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from ..errors import InvalidPlannerError, InvalidWorldError
from ..keys import check_key
from ..simulate.stream import CorpusStream, TrainingBatch
from ..validation import check_count, check_fits, shown
from .checkpoint import checkpoint_in, load, save
from .transformer import Transformer

SHARDS = 8  # a batch divides among this many devices
PART = 512  # positions of a part of a batch, at least


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, and for how long.

    Attributes:
        episodes: N, the context.
        width, layers, heads: of the network.
        steps: of the optimiser.
        positions: about as many in a batch, whatever the context of its prompts.
        curriculum: shorter contexts to begin with, as (the fraction of the steps by which it ends, episodes).
        rate: the largest learning rate, at most 1; it rises over the first twentieth of the steps and falls along a
            cosine.
        patience: stop early when this many reports in a row brought no loss smaller than before; None never does.

    Raises:
        InvalidPlannerError: one of them cannot be; the message names it.
    """

    episodes: int = 32
    width: int = 64
    layers: int = 2
    heads: int = 4
    steps: int = 2400
    positions: int = 1536
    curriculum: tuple[tuple[float, int], ...] = ()
    rate: float = 5e-3
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("episodes", "width", "layers", "heads", "steps", "positions"):
            check_count(name, getattr(self, name))
        if self.patience is not None:
            check_count("patience", self.patience)
        if self.width % self.heads:
            raise InvalidPlannerError(f"width = {self.width} is no multiple of heads = {self.heads}; change either")
        if not _is_number(self.rate) or not 0 <= self.rate <= 1:
            raise InvalidPlannerError(f"rate = {shown(self.rate)}; give a number from 0 to 1")
        if not isinstance(self.curriculum, (tuple, list)):
            raise InvalidPlannerError(
                f"curriculum = {shown(self.curriculum)}; give pairs (fraction of the steps, episodes)"
            )
        for i, part in enumerate(self.curriculum):
            if not isinstance(part, (tuple, list)) or len(part) != 2:
                raise InvalidPlannerError(f"curriculum[{i}] = {shown(part)}; give (fraction of the steps, episodes)")
            until, episodes = part
            if not _is_number(until) or not 0 < until <= 1:
                raise InvalidPlannerError(f"curriculum[{i}][0] = {shown(until)}; give a fraction above 0, at most 1")
            if check_count(f"curriculum[{i}][1]", episodes) > self.episodes:
                raise InvalidPlannerError(
                    f"curriculum[{i}][1] = {episodes} is more than episodes = {self.episodes}; lower it"
                )

    def context(self, step: int) -> int:
        """Episodes in the prompts of a step."""
        return next((n for until, n in self.curriculum if step < until * self.steps), self.episodes)

    def prompts(self, step: int, horizon: int) -> int:
        """Prompts in the batch of a step, a multiple of 8."""
        return SHARDS * max(1, round(self.positions / (SHARDS * self.context(step) * horizon)))

    def optimiser(self) -> optax.GradientTransformation:
        """AdamW behind a clip of the gradient's norm."""
        return _optimiser(self.rate, self.steps)


@cache  # a step is compiled for each optimiser
def _optimiser(rate: float, steps: int) -> optax.GradientTransformation:
    schedule = optax.warmup_cosine_decay_schedule(0.0, rate, max(1, steps // 20), steps, rate / 50)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=1e-4))


class Losses(NamedTuple):
    """Log-losses on new data.

    Attributes:
        label: of the Planner, nats a label.
        observation: of the world model, nats an observation.
    """

    label: Any
    observation: Any


@dataclass(frozen=True)
class Trained:
    """What came of a training.

    Attributes:
        network: the last one.
        plan: as asked for.
        steps: taken; fewer than planned where the loss fell no more.
        losses: label and observation, mean over the steps between one report and the next, nats, [reports, 2].
    """

    network: Transformer
    plan: TrainingPlan
    steps: int
    losses: Float[np.ndarray, "reports 2"]


class Training(eqx.Module):
    """Where a training stands: all that its future depends on, besides the plan and the stream."""

    network: Transformer
    optimiser: Any
    step: Any


def train(
    stream: CorpusStream,
    plan: TrainingPlan | None = None,
    *,
    key: Any = 0,
    folder: str | os.PathLike[str] | None = None,
    every: int = 100,
    progress: Callable[[int, Losses, Transformer], None] | None = None,
) -> Trained:
    """Train a network on a stream, from the start or from the last checkpoint in ``folder``.

    The batches follow from the stream, the network's first weights from the key: a training that is killed at any
    moment and started again loses at most ``every`` steps and ends with the same bits. Batches are divided among all
    devices that JAX sees.

    Args:
        stream: whose batches are learned from; how long its prompts are is the plan's affair.
        plan: the default one if not given.
        key: a JAX key or an int, for the network's first weights.
        folder: for the checkpoint; none is written if not given.
        every: steps between reports, and between checkpoints.
        progress: called at every report with the steps taken, the mean losses since the last one, and the network as it
            is; keep a copy if you keep it, as its arrays are used again.

    Raises:
        InvalidPlannerError: an argument is not what it should be, or the loss is not finite any more.
        InvalidWorldError: an episode has no decision.
        InvalidFolderError: ``folder`` cannot be used, or its checkpoint is damaged or belongs to another training.
        TooLargeError: a batch does not fit.
    """
    plan = TrainingPlan() if plan is None else plan
    _check(stream, plan, every, progress)
    check_key(key)
    place = None if folder is None else checkpoint_in(folder)
    network = Transformer(stream.family, plan.episodes, width=plan.width, layers=plan.layers, heads=plan.heads, key=key)
    optimiser = plan.optimiser()
    training = Training(network, optimiser.init(eqx.filter(network, eqx.is_array)), jnp.zeros((), jnp.int32))
    reports: list[list[float]] = []
    what = {} if place is None else _identity(stream, plan, every, training)
    if place is not None and place.exists():
        training, reports = load(place, what, training)
    mesh = Mesh(np.array(_devices()), ("prompts",))
    training = jax.device_put(training, NamedSharding(mesh, PartitionSpec()))
    losses: list[Losses] = []
    for i in range(int(training.step), plan.steps):
        batch = stream.batch(i, prompts=plan.prompts(i, stream.family.horizon), episodes=plan.context(i))
        batch = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("prompts")))
        training, loss = _step(training, batch, optimiser)
        losses.append(loss)
        if (i + 1) % every == 0 or i + 1 == plan.steps:
            reports.append(np.mean(np.asarray(jax.device_get(losses), np.float64), axis=0).tolist())
            losses = []
            if not np.isfinite(reports[-1]).all():
                raise InvalidPlannerError(f"the loss is not finite by step {i + 1}; rate = {plan.rate:g} is too large")
            if place is not None and jax.process_index() == 0:
                save(place, what, training, reports)
            if progress is not None:
                progress(i + 1, Losses(*reports[-1]), training.network)
            if _stuck(plan, reports):
                break
    return Trained(jax.device_get(training.network), plan, int(training.step), np.array(reports).reshape(-1, 2))


def _check(stream: Any, plan: Any, every: Any, progress: Any) -> None:
    """Raise unless the arguments of :func:`train` are what they should be; nothing is compiled."""
    if not isinstance(stream, CorpusStream):
        raise InvalidPlannerError(f"stream = {shown(stream)}; give a CorpusStream")
    if not isinstance(plan, TrainingPlan):
        raise InvalidPlannerError(f"plan = {shown(plan)}; give a TrainingPlan")
    check_count("every", every)
    if progress is not None and not callable(progress):
        raise InvalidPlannerError(f"progress = {shown(progress)}; give a function of (steps, losses, network), or None")
    H = stream.family.horizon
    if H == 1:
        raise InvalidWorldError("stream: H = 1, so an episode has no decision and there is nothing to learn")
    prompts, n = plan.prompts(plan.steps, H), plan.episodes
    scores = 4 * plan.layers * plan.heads * prompts * (n * H) ** 2  # of attention, which are kept for the gradient
    check_fits(f"positions = {plan.positions}, episodes = {n}, layers = {plan.layers}, heads = {plan.heads}", scores)


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def loss_of(network: Transformer, batch: TrainingBatch) -> tuple[Any, Losses]:
    """The sum of both heads' mean log-losses, and the two, nats."""
    labels, following = network(batch.observations, batch.subgoals, batch.instructions)
    executed = jnp.where(jax.nn.one_hot(batch.subgoals, labels.shape[-1], dtype=bool)[..., None], following, 0).sum(-2)
    losses = Losses(_log_loss(labels, batch.labels), _log_loss(executed, batch.observations[:, :, 1:]))
    return losses.label + losses.observation, losses


def _log_loss(logits: Any, truth: Any) -> Any:
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(truth, logits.shape[-1])).mean()


@partial(jax.jit, static_argnums=2, donate_argnums=0)
def _step(training: Training, batch: TrainingBatch, optimiser: Any) -> tuple[Training, Losses]:
    prompts, episodes, horizon = batch.observations.shape
    n = _parts(prompts, episodes * horizon)
    # Each device holds neighbouring prompts, and has its share of every part.
    parts = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(prompts // n, n, *a.shape[1:]), 1, 0), batch)

    def more(total: Any, part: TrainingBatch) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.grad(loss_of, has_aux=True)(training.network, part)), None

    none = jax.tree.map(jnp.zeros_like, training.network), Losses(jnp.zeros(()), jnp.zeros(()))
    gradient, losses = jax.tree.map(lambda a: a / n, jax.lax.scan(more, none, parts)[0])
    updates, state = optimiser.update(gradient, training.optimiser, cast(Any, training.network))
    return Training(eqx.apply_updates(training.network, updates), state, training.step + 1), losses


def _parts(prompts: int, positions: int) -> int:
    """How many parts of a batch are learned from one after the other: what is kept for a gradient then fits a cache."""
    most = prompts // SHARDS
    return max(n for n in range(1, most + 1) if most % n == 0 and (n == 1 or prompts // n * positions >= PART))


def _devices() -> list[Any]:
    """As many devices as a batch divides among."""
    devices = jax.devices()
    return devices[: max(n for n in range(1, SHARDS + 1) if SHARDS % n == 0 and n <= len(devices))]


def _stuck(plan: TrainingPlan, reports: list[list[float]]) -> bool:
    if plan.patience is None or len(reports) <= plan.patience:
        return False
    totals = [sum(r) for r in reports]
    return min(totals[-plan.patience :]) >= min(totals[: -plan.patience])


def _identity(stream: CorpusStream, plan: TrainingPlan, every: int, training: Training) -> dict[str, Any]:
    """What a checkpoint must have been written for: a plan, a first batch, first weights."""
    first = stream.batch(0, prompts=SHARDS, episodes=plan.episodes)
    start = hashlib.sha256(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves((first, training))))
    told = {"plan": dataclasses.asdict(plan), "every": every, "start": start.hexdigest()}
    return json.loads(json.dumps(told, default=float))  # counts may be numpy's
