"""The network: a decoder-only transformer that reads a prompt and predicts labels and observations.

It has one position a step of the prompt. What enters at step h of episode n is what the Planner knows by then and did
not know one step before: the subgoal g_{h-1} that was executed and the observation o_h that followed, with the
instruction, the step and the episode. What comes out are two heads, read at every position that has a decision:

* the Planner, log P(g*_h | pt_h), for the expert's label;
* the world model, log P(o_{h+1} | pt_h, g), for every subgoal g at once.

So a prompt of N episodes is a sequence of N H positions, half of what it would be if subgoals and observations had
positions of their own, and one pass gives both heads at every context length.

Two things differ from a text-book decoder, as each makes training much shorter here. Evidence is what followed what,
(o_{h-1}, g_{h-1}, o_h), so every position also sees the embedding of the one before it (the token shift of Peng et
al., 2023); else a layer must first learn to find it. And attention averages over the past, while evidence adds up: each
average is handed on twice, once as it is and once times the number of positions that it was taken over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..errors import InvalidPlannerError, InvalidPromptError
from ..history import as_indices
from ..keys import as_key, check_key
from ..planning.planner import Episode, Observed, Planner
from ..validation import check_count, check_fits, shown
from ..world import Family, check_family

_BLOCK = 256  # prompts that are read at once
HIDDEN = 2  # width of the gated layer, in units of the network's width


class Block(eqx.Module):
    """One layer: causal attention, then a gated linear unit (Shazeer, 2020), both behind a root-mean-square norm.

    Attributes:
        attend: gain of the norm before attention, [d].
        read: queries, keys and values, [d, 3 d].
        write: from the heads' averages, and their totals, [2 d, d].
        think: gain of the norm before the gated layer, [d].
        up: [d, 2 m].
        down: [m, d].
        heads: among which the width is divided.
    """

    attend: Float[Array, " d"]
    read: Float[Array, "d d3"]
    write: Float[Array, "d2 d"]
    think: Float[Array, " d"]
    up: Float[Array, "d m2"]
    down: Float[Array, "m d"]
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, depth: int, key: Any):
        keys = jax.random.split(key, 4)
        small = 0.5 / depth**0.5
        self.attend, self.think = jnp.ones(width, jnp.float32), jnp.ones(width, jnp.float32)
        self.read = _matrix(keys[0], width, 3 * width)
        self.write = _matrix(keys[1], 2 * width, width, small)
        self.up = _matrix(keys[2], width, 2 * HIDDEN * width)
        self.down = _matrix(keys[3], HIDDEN * width, width, small)
        self.heads = heads

    def project(self, x: Float[Array, "*n d"]) -> Float[Array, "*n 3 heads e"]:
        """Queries, keys and values of every position."""
        return (_normed(x, self.attend) @ self.read).reshape(*x.shape[:-1], 3, self.heads, -1)

    def finish(
        self, x: Float[Array, "*n d"], averages: Float[Array, "*n d"], counts: Float[Array, "*n 1"]
    ) -> Float[Array, "*n d"]:
        """The next layer's input, from what attention found over ``counts`` positions (relative to a full context)."""
        x = x + jnp.concatenate([averages, averages * counts], axis=-1) @ self.write
        gate, value = jnp.split(_normed(x, self.think) @ self.up, 2, axis=-1)
        return x + (jax.nn.silu(gate) * value) @ self.down


class Transformer(eqx.Module):
    """The network, in float32.

    Attributes:
        observation, subgoal, instruction, step, episode: embeddings, [O, d], [G + 1, d] (the last where no subgoal
            was executed yet), [W, d], [H, d], [N, d].
        shift: from the embedding of the position before, [d, d].
        blocks: the layers.
        last: gain of the norm before the heads, [d].
        planner: [d, G].
        world: [d, G O].
    """

    observation: Float[Array, "O d"]
    subgoal: Float[Array, "G1 d"]
    instruction: Float[Array, "W d"]
    step: Float[Array, "H d"]
    episode: Float[Array, "N d"]
    shift: Float[Array, "d d"]
    blocks: tuple[Block, ...]
    last: Float[Array, " d"]
    planner: Float[Array, "d G"]
    world: Float[Array, "d GO"]

    def __init__(self, family: Family, episodes: int, *, width: int = 64, layers: int = 2, heads: int = 4, key: Any):
        """A network for prompts of at most ``episodes`` episodes of ``family``, not trained.

        Args:
            key: a JAX key or an int.

        Raises:
            InvalidWorldError: no family.
            InvalidPlannerError: the heads do not divide the width, or a size is no positive integer.
            TooLargeError: so many weights do not fit.
        """
        check_family(family)
        for name, size in (("episodes", episodes), ("width", width), ("layers", layers), ("heads", heads)):
            check_count(name, size)
        if width % heads:
            raise InvalidPlannerError(f"width = {width} is not a multiple of heads = {heads}; change either")
        G, O, W, H = family.num_subgoals, family.num_observations, family.num_instructions, family.horizon
        weights = width * (layers * (5 + 3 * HIDDEN) * width + width + episodes + H + O + G + W + G * O)
        check_fits(f"width = {width}, layers = {layers}, episodes = {episodes}", 4 * weights)
        check_key(key)
        keys = jax.random.split(as_key(key), layers + 3)
        self.observation = jax.random.normal(keys[0], (O, width), jnp.float32) / 2
        self.subgoal = jax.random.normal(keys[1], (G + 1, width), jnp.float32) / 2
        self.instruction = jnp.zeros((W, width), jnp.float32)
        self.step = jnp.zeros((H, width), jnp.float32)
        self.episode = jnp.zeros((episodes, width), jnp.float32)
        self.shift = _matrix(keys[2], width, width)
        self.blocks = tuple(Block(width, heads, layers, k) for k in keys[3:])
        self.last = jnp.ones(width, jnp.float32)
        self.planner = jnp.zeros((width, G), jnp.float32)
        self.world = jnp.zeros((width, G * O), jnp.float32)

    @property
    def context(self) -> int:
        """N, the episodes that it was made for."""
        return self.episode.shape[0]

    @property
    def horizon(self) -> int:
        """H."""
        return self.step.shape[0]

    def __call__(
        self, observations: Int[Array, "B N H"], subgoals: Int[Array, "B N Hm1"], instructions: Int[Array, "B N"]
    ) -> tuple[Float[Array, "B N Hm1 G"], Float[Array, "B N Hm1 G O"]]:
        """Logits of the expert's label, and of the next observation after each subgoal, at every decision.

        Prompts may have fewer episodes than the context.
        """
        B, N, H = observations.shape
        none = jnp.full((B, N, 1), self.subgoal.shape[0] - 1)
        x = _rows(self.observation, observations) + _rows(self.subgoal, jnp.concatenate([none, subgoals], axis=-1))
        x = x + _rows(self.instruction, instructions)[:, :, None] + self.step + self.episode[:N, None]
        T, d = N * H, x.shape[-1]
        x = x.reshape(B, T, d)
        before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :T]
        x = x.reshape(B * T, d) + before.reshape(B * T, d) @ self.shift  # products of two axes are what runs fast
        counts = jnp.tile(self._count(jnp.arange(T)), B)[:, None]
        future = jnp.where(jnp.tril(jnp.ones((T, T), bool)), 0.0, -jnp.inf)
        for block in self.blocks:
            q, k, v = jnp.moveaxis(block.project(x).reshape(B, T, 3, block.heads, -1), (2, 3), (0, 2))
            scores = (q / q.shape[-1] ** 0.5) @ k.swapaxes(-1, -2) + future
            # A softmax, divided where there is less to divide.
            raised = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
            averages = (raised @ v) / raised.sum(axis=-1, keepdims=True)
            x = block.finish(x, averages.swapaxes(1, 2).reshape(B * T, d), counts)
        return self.heads_of(x.reshape(B, N, H, d)[:, :, :-1])

    def predict(
        self, observations: Any, subgoals: Any, instructions: Any
    ) -> tuple[Float[np.ndarray, "B N Hm1 G"], Float[np.ndarray, "B N Hm1 O"]]:
        """Probabilities of the label, and of the observation that followed the executed subgoal, at every decision.

        Args:
            observations, subgoals, instructions: of B prompts, such as those of a :class:`Corpus`.

        Raises:
            InvalidPromptError: an index is out of range, or the prompts are longer than the context.
        """
        tables = {"observations": self.observation, "subgoals": self.subgoal[:-1], "instructions": self.instruction}
        for name, given, ndim in (
            ("observations", observations, 3),
            ("subgoals", subgoals, 3),
            ("instructions", instructions, 2),
        ):
            index = as_indices(name, given, ndim)
            if index.size and index.max() >= len(tables[name]):
                raise InvalidPromptError(f"{name} has the index {index.max()}; the network knows {len(tables[name])}")
            if index.shape[1] > self.context:
                raise InvalidPromptError(
                    f"{name} has {index.shape[1]} episodes; the network's context is {self.context}"
                )
        blocks = []
        for start in range(0, len(observations), _BLOCK):
            rows = slice(start, start + _BLOCK)
            found = _predict(self, *(jnp.asarray(a[rows]) for a in (observations, subgoals, instructions)))
            blocks.append([np.asarray(a, np.float64) for a in found])
        label, observation = (np.concatenate(a) for a in zip(*blocks, strict=True))
        return label / label.sum(-1, keepdims=True), observation / observation.sum(-1, keepdims=True)

    def heads_of(self, x: Float[Array, "*n d"]) -> tuple[Float[Array, "*n G"], Float[Array, "*n G O"]]:
        """The two heads at each position."""
        x = _normed(x, self.last)
        return x @ self.planner, (x @ self.world).reshape(*x.shape[:-1], self.planner.shape[1], -1)

    def _count(self, position: Any) -> Any:
        """Positions up to this one, in units of a quarter of the context."""
        return (jnp.asarray(position) + 1).astype(jnp.float32) * (4 / (self.context * self.horizon))

    def read_on(self, memory: Memory, observed: Observed) -> tuple[Memory, Any, Any]:
        """One more position: the memory after it, and the two heads' logits, [G] and [G, O]."""
        o, g, h, w = observed
        at = memory.length
        g = jnp.where(h == 0, self.subgoal.shape[0] - 1, g)
        n = jnp.minimum(at // self.horizon, self.context - 1)
        x = self.observation[o] + self.subgoal[g] + self.instruction[w] + self.step[h] + self.episode[n]
        embedded, x = x, x + memory.before @ self.shift
        seen, past = jnp.arange(memory.past.shape[1]) <= at, memory.past
        for layer, block in enumerate(self.blocks):
            q, k, v = block.project(x)
            past = past.at[layer, at].set(jnp.stack([k, v]))
            scores = jnp.einsum("he,the->ht", q, past[layer, :, 0]) / q.shape[-1] ** 0.5
            weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1)
            averages = jnp.einsum("ht,the->he", weights, past[layer, :, 1]).reshape(-1)
            x = block.finish(x, averages, self._count(at)[None])
        return Memory(past, embedded, at + 1), *self.heads_of(x)


class Memory(NamedTuple):
    """What is kept of the positions read so far.

    Attributes:
        past: keys and values, [layers, N H, 2, heads, e].
        before: embedding of the last position, [d].
        length: positions read.
    """

    past: Any
    before: Any
    length: Any


class TransformerPlanner(Planner):
    """The network's Planner head as a planner.

    Within the network's context it reads one position a step and remembers keys and values. Of positions beyond it a
    network knows nothing; where a run is longer, the planner reads the last ``network.context`` episodes anew at each
    step. Then it has forgotten what came before, and is to be reported as a planner that forgets.

    Attributes:
        network: trained.
        forgets: whether the run is longer than the network's context.
    """

    network: Transformer
    forgets: bool = eqx.field(static=True)

    def __init__(self, network: Transformer, episodes: int):
        """``episodes``: T, of the run.

        Raises:
            InvalidPlannerError: no network, or ``episodes`` is no positive integer.
        """
        if not isinstance(network, Transformer):
            raise InvalidPlannerError(f"network = {shown(network)}; give a Transformer, such as train(...).network")
        self.network = jax.tree.map(jnp.asarray, network)
        self.forgets = check_count("episodes", episodes) > network.context

    def init(self, instruction: Any, key: Any) -> Memory | Window:
        N, H = self.network.context, self.network.horizon
        if self.forgets:
            return Window(jnp.zeros(N, int), jnp.zeros((N, H), int), jnp.zeros((N, H - 1), int), jnp.zeros((), int))
        width, first = self.network.last.shape[0], self.network.blocks[0]
        past = jnp.zeros((len(self.network.blocks), N * H, 2, first.heads, width // first.heads), jnp.float32)
        return Memory(past, jnp.zeros(width, jnp.float32), jnp.zeros((), jnp.int32))

    def step(self, state: Any, observed: Observed) -> tuple[Any, Float[Array, " G"]]:
        if isinstance(state, Memory):
            state, logits, _ = self.network.read_on(state, observed)
            return state, jax.nn.softmax(logits)
        o, g, h, w = observed
        n = state.episode
        subgoals = state.subgoals
        if self.network.horizon > 1:
            before = jnp.maximum(h - 1, 0)
            subgoals = subgoals.at[n, before].set(jnp.where(h == 0, subgoals[n, before], g))
        state = Window(state.instructions.at[n].set(w), state.observations.at[n, h].set(o), subgoals, n)
        logits, _ = self.network(state.observations[None], subgoals[None], state.instructions[None])
        return state, jax.nn.softmax(logits[0, n, jnp.minimum(h, self.network.horizon - 2)])

    def observe(self, state: Any, episode: Episode) -> Any:
        if isinstance(state, Memory):
            return state
        full = state.episode == self.network.context - 1
        w, o, g = (jnp.where(full, jnp.roll(a, -1, axis=0), a) for a in state[:3])
        return Window(w, o, g, jnp.where(full, state.episode, state.episode + 1))


class Window(NamedTuple):
    """The last episodes as they were.

    Attributes:
        instructions, observations, subgoals: [N], [N, H], [N, H-1].
        episode: which of them is the current one.
    """

    instructions: Any
    observations: Any
    subgoals: Any
    episode: Any


@eqx.filter_jit
def _predict(network: Transformer, observations: Any, subgoals: Any, instructions: Any) -> Any:
    labels, following = network(observations, subgoals, instructions)
    executed = jnp.take_along_axis(following, subgoals[..., None, None], axis=-2)[..., 0, :]
    return jax.nn.softmax(labels), jax.nn.softmax(executed)


def _rows(table: Float[Array, "n d"], index: Int[Array, "*n"]) -> Float[Array, "*n d"]:
    """``table[index]``, as a product: the derivative of a look-up is a scatter, which a CPU does one row at a time."""
    return jax.nn.one_hot(index, table.shape[0], dtype=table.dtype) @ table


def _matrix(key: Any, rows: int, columns: int, scale: float = 1.0) -> Float[Array, "rows columns"]:
    return jax.random.normal(key, (rows, columns), jnp.float32) * (scale / rows**0.5)


def _normed(x: Float[Array, "*n d"], gain: Float[Array, " d"]) -> Float[Array, "*n d"]:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6) * gain
