"""Pretraining: next-token prediction on a corpus that never ends, resumed exactly where it was stopped.

No prompt is seen twice, so the loss of a batch, taken before the network learns from it, is a loss on new data: there
is nothing to overfit, and no held-out set is needed to see how far training is.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float

from ..errors import InvalidFolderError
from ..keys import as_key
from ..simulate.stream import CorpusStream, TrainingBatch
from ..validation import shown
from .transformer import Transformer

SHARDS = 8  # a batch divides among this many devices


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained, and for how long.

    Attributes:
        episodes: N, the context.
        width, layers, heads: of the network.
        steps: of the optimiser.
        positions: about as many in a batch, whatever the context of its prompts.
        curriculum: shorter contexts to begin with, as (the fraction of the steps by which it ends, episodes).
        rate: the largest learning rate; it rises over the first twentieth of the steps and falls along a cosine.
        patience: stop early when this many reports in a row brought no loss smaller than before; None never does.
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

    def context(self, step: int) -> int:
        """Episodes in the prompts of a step."""
        return next((n for until, n in self.curriculum if step < until * self.steps), self.episodes)

    def prompts(self, step: int, horizon: int) -> int:
        """Prompts in the batch of a step, a multiple of 8."""
        return SHARDS * max(1, round(self.positions / (SHARDS * self.context(step) * horizon)))

    def optimiser(self) -> optax.GradientTransformation:
        """AdamW behind a clip of the gradient's norm."""
        rate = optax.warmup_cosine_decay_schedule(0.0, self.rate, max(1, self.steps // 20), self.steps, self.rate / 50)
        return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b2=0.98, weight_decay=1e-4))


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
        InvalidFolderError: the checkpoint in ``folder`` belongs to another training.
    """
    plan = TrainingPlan() if plan is None else plan
    network = Transformer(
        stream.family, plan.episodes, width=plan.width, layers=plan.layers, heads=plan.heads, key=as_key(key)
    )
    optimiser = plan.optimiser()
    training = Training(network, optimiser.init(eqx.filter(network, eqx.is_array)), jnp.zeros((), jnp.int32))
    reports: list[list[float]] = []
    place = None if folder is None else Path(folder) / "checkpoint.eqx"
    what = _identity(stream, plan, every, training)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            training, reports = _load(place, what, training)
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
            if place is not None:
                _save(place, what, training, reports)
            if progress is not None:
                progress(i + 1, Losses(*reports[-1]), training.network)
            if _stuck(plan, reports):
                break
    return Trained(jax.device_get(training.network), plan, int(training.step), np.array(reports).reshape(-1, 2))


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
    gradient, losses = jax.grad(loss_of, has_aux=True)(training.network, batch)
    updates, state = optimiser.update(gradient, training.optimiser, cast(Any, training.network))
    return Training(eqx.apply_updates(training.network, updates), state, training.step + 1), losses


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
    return json.loads(json.dumps({"plan": dataclasses.asdict(plan), "every": every, "start": start.hexdigest()}))


def _save(place: Path, what: dict[str, Any], training: Training, reports: list[list[float]]) -> None:
    """Write a checkpoint: a line of JSON, then the arrays; at once, so that a kill leaves the last one whole."""
    new = place.with_suffix(".new")
    with new.open("wb") as file:
        file.write(json.dumps({**what, "reports": reports}).encode() + b"\n")
        eqx.tree_serialise_leaves(file, training)
        file.flush()
        os.fsync(file.fileno())
    new.replace(place)


def _load(place: Path, what: dict[str, Any], like: Training) -> tuple[Training, list[list[float]]]:
    with place.open("rb") as file:
        found = json.loads(file.readline())
        reports = found.pop("reports")
        if found != what:
            changed = ", ".join(k for k in what if found.get(k) != what[k])
            raise InvalidFolderError(
                f"{shown(str(place))} was written by another training (its {changed} differs: 'start' is the stream, "
                "the key or the world); give another folder, or remove it"
            )
        return eqx.tree_deserialise_leaves(file, like), reports
