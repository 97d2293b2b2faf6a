"""Corpora for training on the fly: any batch, at once, from its index alone.

A network is shown the true expert's labels and nothing exact, so no posterior is kept here: a prompt costs what its
simulation costs. Batch i is a pure function of (key, i), so training that stops before batch i goes on with batch i.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array, is_traced
from ..errors import InvalidPlannerError
from ..keys import as_key, check_key
from ..planning.expert import Experts, check_experts, solve_experts
from ..posterior.latents import Latents, as_latents
from ..program import Program, as_family
from ..validation import check_count, check_fits, shown
from ..world import Family
from .behaviours import as_behaviour, check_behaviour
from .corpus import drawn_from
from .drawn_corpus import density_behaviour, draw_worlds
from .environment import Environment, draw
from .rollout import Labels, Source, check_lawful, draw_prompt


class TrainingBatch(NamedTuple):
    """B prompts of N episodes, as a network is trained on them; int32.

    Attributes:
        instructions: [B, N].
        observations: [B, N, H].
        subgoals: executed by the behaviour, [B, N, H-1].
        labels: of the expert, never executed and never shown, [B, N, H-1].
    """

    instructions: Int[jax.Array, "B N"]
    observations: Int[jax.Array, "B N H"]
    subgoals: Int[jax.Array, "B N Hm1"]
    labels: Int[jax.Array, "B N Hm1"]


class CorpusStream:
    """An endless corpus, batch by batch, drawn from the law of :func:`sample_corpus`.

    Everything is computed in float32, in which a probability below 1e-7 may never come up. Where tasks are finite a
    batch is one compiled function, the same on any number of devices; where they have a density its worlds are drawn
    and solved first, outside of traced code.

    Attributes:
        prompts: B, of a batch.
        episodes: N, of a prompt.
        family: the worlds; of a program with a density, an example.
    """

    def __init__(
        self,
        family_or_program: Family | Program | Latents,
        prompts: int,
        episodes: int,
        behaviour: Any = "uniform",
        *,
        key: Any = 0,
        experts: Experts | None = None,
        prior: Any = None,
        shuffled: bool = False,
    ):
        """
        Args:
            family_or_program, behaviour, key, experts, prior: as for :func:`sample_corpus`.
            prompts: B, unless :meth:`batch` is told otherwise.
            episodes: N, likewise; the longest prompt of a behaviour that is a callable.
            shuffled: every prompt has the labels of the next prompt's task: the false twin of C2.

        Raises:
            InvalidPlannerError, InvalidWorldError: as :func:`sample_corpus`.
        """
        self.prompts, self.episodes = check_count("prompts", prompts), check_count("episodes", episodes)
        if not isinstance(shuffled, (bool, np.bool_)):
            raise InvalidPlannerError(f"shuffled = {shown(shuffled)}; give True or False")
        check_key(key)
        self.shuffled = bool(shuffled)
        self._latents = latents = as_latents(family_or_program)
        if latents is not None:
            if experts is not None or prior is not None:
                raise InvalidPlannerError("experts and prior are of finite tasks, but these have a density")
            self._root = as_key(key)
            self.family = latents.example
            self._policy = density_behaviour(behaviour, latents, self._root, episodes)
        else:
            assert not isinstance(family_or_program, Latents)
            self.family = family = as_family(family_or_program)
            experts = solve_experts(family) if experts is None else check_experts(experts, family)
            self._policy = as_behaviour(behaviour, family, experts, episodes=episodes)
            check_behaviour(self._policy, family)
            self._prior, self._source = _single(
                (np.cumsum(drawn_from(prior, family)), self._source_of(family, experts))
            )
            self._root = as_key(key)
        if not isinstance(behaviour, str):
            check_lawful(np.asarray(self._draw(0, 2, self.episodes)[1]))

    def batch(self, index: Any, *, prompts: int | None = None, episodes: int | None = None) -> TrainingBatch:
        """Batch ``index``, a number from 0; it may be traced where tasks are finite.

        Args:
            index: i.
            prompts, episodes: sizes of this batch, such as those of a curriculum. Each pair of sizes is compiled once.

        Raises:
            InvalidPlannerError: no index, or no number of prompts or episodes; or a traced index where tasks have a
                density.
        """
        if not is_traced(index) and not _is_index(index):
            raise InvalidPlannerError(f"index = {shown(index)}; give an integer from 0 to {2**32 - 1}")
        B = self.prompts if prompts is None else check_count("prompts", prompts)
        N = self.episodes if episodes is None else check_count("episodes", episodes)
        if self.shuffled and B < 2:
            raise InvalidPlannerError("prompts = 1: labels can be shuffled among 2 prompts at least")
        check_fits(f"prompts = {B}, episodes = {N}", 16 * B * N * (self.family.horizon + 1))
        return self._draw(index, B, N)[0]

    def __iter__(self) -> Iterator[TrainingBatch]:
        """Batches 0, 1, 2, ... for ever."""
        return map(self.batch, itertools.count())

    def _draw(self, index: Any, prompts: int, episodes: int) -> tuple[TrainingBatch, Any]:
        sizes = prompts, episodes, self.shuffled
        if self._latents is None:
            return _batch(self._source, self._prior, self._root, index, sizes)
        if is_traced(index):
            raise InvalidPlannerError("worlds with a density are solved outside of traced code; call batch there")
        key = jax.random.fold_in(jax.random.fold_in(self._root, index), 1)
        _, family, experts = draw_worlds(self._latents, key, prompts)
        return _batch(_single(self._source_of(family, experts)), None, self._root, index, sizes)

    def _source_of(self, family: Family, experts: Experts) -> Source:
        return Source(Environment(family), self._policy, Labels(family, experts), family.horizon)


def _is_index(index: Any) -> bool:
    """Whether a key can be folded with it."""
    if isinstance(index, (np.ndarray, jax.Array)) and index.ndim == 0 and index.dtype.kind in "iu":
        index = int(index)
    return isinstance(index, (int, np.integer)) and not isinstance(index, bool) and 0 <= int(index) < 2**32


@partial(jax.jit, static_argnums=4)
def _batch(
    source: Source, prior: Float[Array, " Z"] | None, root: Any, index: Any, sizes: tuple[int, int, bool]
) -> tuple[TrainingBatch, Any]:
    """A batch, and whether the policy gave distributions [B, N, H-1]; without a prior, each prompt has its own task."""
    B, N, shuffled = sizes
    steps = source.horizon + 1
    key, policy_key = jax.random.split(jax.random.fold_in(root, index))
    numbers = jax.random.uniform(key, (B, N * steps * 3 + 1), jnp.float32)  # at once: each call takes long to compile
    tasks = jnp.arange(B) if prior is None else jax.vmap(partial(draw, prior))(numbers[:, -1])
    others = jnp.roll(tasks, -1) if shuffled else tasks
    keys = jax.vmap(jax.random.fold_in, (None, 0))(policy_key, jnp.arange(B))
    rows = numbers[:, :-1].reshape(B, N, steps, 3)
    w, o, g, lawful, labels = jax.vmap(partial(draw_prompt, source))(tasks, others, keys, rows)
    return TrainingBatch(w, o, g, labels), lawful


def _single(tree: Any) -> Any:
    """``tree`` in single precision, whatever the caller's: a batch must not depend on that."""

    def cast(leaf: Any) -> Any:
        return leaf.astype(np.float32) if eqx.is_array_like(leaf) and getattr(leaf, "dtype", 0) == np.float64 else leaf

    return jax.tree.map(cast, tree)
