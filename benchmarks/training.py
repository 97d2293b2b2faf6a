"""A training step of our network against the same network in PyTorch, eagerly, on the same processor.

Both have the same layers, width, heads and weights, see the same batch of prompts and take a step of AdamW behind a
clip of the gradient's norm; that they compute the same is checked before anything is timed. Steps alternate; the ratio
is that of the medians. A position is a step of the prompt: the subgoal that was executed and the observation that
followed enter together. A network that gives each a token of its own reads two tokens for each of our positions, so
tokens a second are twice the positions a second. The batch is drawn beforehand, for both.

    python benchmarks/training.py --repeats 20
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from common import Row, interleaved, machine, row, save, table

import bayespar as bp
from bayespar.learned.training import Training, _step, loss_of
from bayespar.learned.transformer import Transformer
from bayespar.models.random_world import random_world

HORIZON, SUBGOALS, OBSERVATIONS = 4, 4, 8
CASES = ((2, 64, 128, 32), (4, 128, 128, 64))
"""(layers, width, positions in a prompt, prompts in a batch)."""


def torch_network(network: Transformer) -> Any:
    """The same network in PyTorch, with copies of its weights."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    def weight(array: Any) -> nn.Parameter:
        return nn.Parameter(torch.from_numpy(np.array(array, np.float32)))

    def normed(x: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, (x.shape[-1],), gain, 1e-6)

    class Layer(nn.Module):
        def __init__(self, block: Any):
            super().__init__()
            self.attend, self.read, self.write = weight(block.attend), weight(block.read), weight(block.write)
            self.think, self.up, self.down = weight(block.think), weight(block.up), weight(block.down)
            self.heads = block.heads

        def forward(self, x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            B, T, d = x.shape
            q, k, v = (normed(x, self.attend) @ self.read).view(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            averages = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, d)
            x = x + torch.cat([averages, averages * counts], dim=-1) @ self.write
            gate, value = (normed(x, self.think) @ self.up).chunk(2, dim=-1)
            return x + (F.silu(gate) * value) @ self.down

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.observation, self.subgoal = weight(network.observation), weight(network.subgoal)
            self.instruction, self.step, self.episode = map(
                weight, (network.instruction, network.step, network.episode)
            )
            self.shift, self.last = weight(network.shift), weight(network.last)
            self.planner, self.world = weight(network.planner), weight(network.world)
            self.layers = nn.ModuleList(map(Layer, network.blocks))
            T = network.context * network.horizon
            self.register_buffer("counts", (torch.arange(T) + 1).float()[:, None] * (4 / T))

        def forward(self, o: torch.Tensor, g: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            B, N, H = o.shape
            before = F.pad(g, (1, 0), value=self.subgoal.shape[0] - 1)
            x = F.embedding(o, self.observation) + F.embedding(before, self.subgoal)
            x = x + F.embedding(w, self.instruction)[:, :, None] + self.step + self.episode[:N, None]
            x = x.view(B, N * H, -1)
            x = x + F.pad(x, (0, 0, 1, 0))[:, :-1] @ self.shift
            for layer in self.layers:
                x = layer(x, self.counts)
            x = normed(x.view(B, N, H, -1)[:, :, :-1], self.last)
            return x @ self.planner, (x @ self.world).view(*x.shape[:-1], self.planner.shape[1], -1)

        def loss(self, o: torch.Tensor, g: torch.Tensor, w: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            said, following = self(o, g, w)
            index = g[..., None, None].expand(*g.shape, 1, following.shape[-1])
            executed = following.gather(-2, index).squeeze(-2)
            label = F.cross_entropy(said.flatten(0, -2), labels.flatten())
            return label + F.cross_entropy(executed.flatten(0, -2), o[:, :, 1:].flatten())

    return Network()


def contestants(layers: int, width: int, positions: int, prompts: int) -> dict[str, Any]:
    """A step of each, as functions of nothing; each goes on from where its last one left off.

    Ours alone where PyTorch is not installed.

    Raises:
        RuntimeError: the two networks do not compute the same.
    """
    sizes = (8, 4, SUBGOALS, OBSERVATIONS, HORIZON)
    family = bp.enumerate_program(lambda: random_world(seed=0, sizes=sizes)).astype(np.float32)
    episodes = positions // HORIZON
    plan = bp.TrainingPlan(episodes, width=width, layers=layers, heads=4)
    batch = bp.CorpusStream(family, prompts, episodes, key=0).batch(0)
    network = Transformer(family, episodes, width=width, layers=layers, heads=4, key=0)
    rng = np.random.default_rng(0)
    heads = [rng.standard_normal(a.shape).astype(np.float32) / 8 for a in (network.planner, network.world)]
    network = eqx.tree_at(lambda n: (n.planner, n.world), network, heads)  # new ones are zero, which compares nothing
    optimiser = plan.optimiser()
    network = jax.tree.map(jnp.array, network)
    start = Training(network, optimiser.init(eqx.filter(network, eqx.is_array)), jnp.zeros((), jnp.int32))
    state = [start]

    def step_ours() -> None:
        state[0], losses = _step(state[0], batch, optimiser)
        jax.block_until_ready((state[0], losses))

    if importlib.util.find_spec("torch") is None:
        return {"bayespar": step_ours}
    import torch

    other = torch_network(network)
    arrays = batch.observations, batch.subgoals, batch.instructions, batch.labels
    given = [torch.from_numpy(np.array(a, np.int64)) for a in arrays]
    ours, theirs = float(loss_of(start.network, batch)[0]), other.loss(*given).item()
    if not abs(ours - theirs) < 1e-4 * abs(ours):
        raise RuntimeError(f"not the same network: losses {ours} and {theirs}")
    adam = torch.optim.AdamW(other.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=1e-4)

    def step_theirs() -> None:
        adam.zero_grad()
        other.loss(*given).backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        adam.step()

    return {"bayespar": step_ours, "torch eager": step_theirs}


def rows(repeats: int = 20) -> list[Row]:
    """The rows of the table."""
    out = []
    for layers, width, positions, prompts in CASES:
        times = interleaved(contestants(layers, width, positions, prompts), repeats)
        case, first = (
            f"{layers} layers, d={width}, T={positions}, batch {prompts}",
            statistics.median(times["bayespar"]),
        )
        for name, seconds in times.items():
            found = row("training", case, name, seconds, dtype="float32", ours=first)
            rate = positions * prompts / found["median_s"]
            out.append(found | {"positions_per_s": rate, "tokens_per_s": 2 * rate})
    return out


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = rows(options.repeats)
    print(machine("jax", "torch"))
    print(table(found))
    if {r["name"] for r in found} == {"bayespar"}:
        print("PyTorch is not installed here: pip install torch", file=sys.stderr)
    for r in found:
        rate = f"{r['positions_per_s']:,.0f} positions/s, {r['tokens_per_s']:,.0f} tokens/s"
        print(f"{r['case']}, {r['name']}: {rate}")
    if options.json:
        save(found, options.json)


if __name__ == "__main__":
    main()
