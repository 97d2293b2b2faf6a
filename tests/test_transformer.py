"""The network, its planner, and its training."""

import os
import subprocess
import sys
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayespar as bp
from bayespar.learned.training import TrainingPlan, train
from bayespar.learned.transformer import Transformer, TransformerPlanner
from bayespar.planning.planner import Episode, Observed
from bayespar.simulate.stream import CorpusStream

EPISODES = 4
ROUNDING = 2e-5  # of float32 through two layers whose activations are of order 1


@pytest.fixture(scope="module")
def family():
    """Three instructions, so that every embedding has something to say."""
    return bp.enumerate_program(bp.load_model("kitchen"))


@pytest.fixture(scope="module")
def network(family):
    """Not trained, but with no parameter at its first value: heads and positions start at zero."""
    made = Transformer(family, EPISODES, width=16, layers=2, heads=2, key=jax.random.key(0))
    leaves, tree = jax.tree.flatten(made)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [a + 0.3 * jax.random.normal(k, a.shape, a.dtype) for a, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


@pytest.fixture(scope="module")
def batch(family):
    return CorpusStream(family, 3, EPISODES, key=0).batch(0)


@pytest.fixture(scope="module")
def said(network, batch):
    return eqx.filter_jit(network)(batch.observations, batch.subgoals, batch.instructions)


def oracle(network, observations, subgoals, instructions):
    """The label logits of one prompt in numpy, position by position, with nothing shared."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), network)
    N, H = observations.shape
    normed = lambda x, gain: x / np.sqrt((x**2).mean() + 1e-6) * gain  # noqa: E731
    embedded = []
    for n in range(N):
        for h in range(H):
            g = subgoals[n, h - 1] if h else -1
            embedded.append(
                p.observation[observations[n, h]]
                + p.subgoal[g]
                + p.instruction[instructions[n]]
                + p.step[h]
                + p.episode[n]
            )
    rows = [x + (embedded[t - 1] @ p.shift if t else 0) for t, x in enumerate(embedded)]
    for block in p.blocks:
        e = len(rows[0]) // block.heads
        projected = [normed(x, block.attend) @ block.read for x in rows]
        after = []
        for t, x in enumerate(rows):
            found = []
            for head in range(block.heads):
                q, k, v = ([r[i * len(x) + head * e :][:e] for r in projected[: t + 1]] for i in range(3))
                scores = np.array([q[t] @ key / np.sqrt(e) for key in k])
                weights = np.exp(scores - scores.max())
                found.append(weights @ np.array(v) / weights.sum())
            average = np.concatenate(found)
            x = x + np.concatenate([average, average * (t + 1) * 4 / (EPISODES * H)]) @ block.write
            gate, value = np.split(normed(x, block.think) @ block.up, 2)
            after.append(x + (gate / (1 + np.exp(-gate)) * value) @ block.down)
        rows = after
    return np.array([normed(x, p.last) @ p.planner for x in rows]).reshape(N, H, -1)[:, :-1]


def test_the_network_is_what_its_page_says(network, batch, said):
    for b in range(2):
        expected = oracle(
            network, *(np.asarray(a[b]) for a in (batch.observations, batch.subgoals, batch.instructions))
        )
        assert np.abs(np.asarray(said[0][b]) - expected).max() < ROUNDING * np.abs(expected).max()


def test_nothing_is_read_ahead_of_its_time(network, batch, said):
    changed = batch.observations.at[:, 2, 3].add(1)
    label, following = network(changed, batch.subgoals, batch.instructions)
    for before, after in zip(said, (label, following), strict=True):
        moved = np.abs(np.asarray(before) - np.asarray(after)).max(axis=tuple(range(3, before.ndim)))
        assert moved[:, :2].max() < ROUNDING
        assert moved[:, 2, :3].max() < ROUNDING
        assert moved[:, 2, 3].min() > ROUNDING
        assert moved[:, 3].min() > ROUNDING


def test_a_shorter_prompt_is_the_beginning_of_a_longer_one(network, batch, said):
    label, _ = network(batch.observations[:, :2], batch.subgoals[:, :2], batch.instructions[:, :2])
    assert np.abs(np.asarray(label) - np.asarray(said[0][:, :2])).max() < ROUNDING


def walk(planner, batch, b, episodes):
    """What a planner says along a prompt, [episodes, H-1, G]."""
    state, out = planner.init(0, jax.random.key(0)), []
    step, observe = eqx.filter_jit(planner.step), eqx.filter_jit(planner.observe)
    for n in range(episodes):
        o, g, w = batch.observations[b, n], batch.subgoals[b, n], batch.instructions[b, n]
        for h in range(len(o)):
            state, probabilities = step(state, Observed(o[h], g[h - 1] if h else jnp.int32(-1), jnp.int32(h), w))
            out.append(np.asarray(probabilities))
        state = observe(state, Episode(w, o, g))
    return np.array(out).reshape(episodes, len(o), -1)[:, :-1]


def test_the_planner_reads_on_what_the_network_reads_at_once(network, batch, said):
    true = np.asarray(jax.nn.softmax(said[0]))
    for double in (False, True):
        with jax.enable_x64(double):
            assert np.abs(walk(TransformerPlanner(network, EPISODES), batch, 1, EPISODES) - true[1]).max() < ROUNDING
    assert np.abs(true[1] - true[2]).max() > 100 * ROUNDING  # of another prompt it is far away


def test_beyond_its_context_a_planner_forgets(family, network):
    long = CorpusStream(family, 1, EPISODES + 2, key=1).batch(0)
    planner = TransformerPlanner(network, EPISODES + 2)
    assert planner.forgets
    assert not TransformerPlanner(network, EPISODES).forgets
    found = walk(planner, long, 0, EPISODES + 2)
    logits, _ = network(long.observations[:, 2:], long.subgoals[:, 2:], long.instructions[:, 2:])
    assert np.abs(found[-1] - np.asarray(jax.nn.softmax(logits))[0, -1]).max() < ROUNDING
    logits, _ = network(long.observations[:, :4], long.subgoals[:, :4], long.instructions[:, :4])
    assert np.abs(found[:4] - np.asarray(jax.nn.softmax(logits))[0]).max() < ROUNDING


SMALL = TrainingPlan(
    episodes=4, width=16, layers=1, heads=2, steps=60, positions=200, rate=1e-2, curriculum=((0.3, 2),)
)


def arrays(trained):
    return b"".join(np.asarray(a).tobytes() for a in jax.tree.leaves(trained.network))


@pytest.fixture(scope="module")
def doors():
    return CorpusStream(bp.load_model("two_doors"), 1, 4, key=0)


@pytest.fixture(scope="module")
def whole(doors):
    return train(doors, SMALL, every=20)


def test_training_lowers_both_losses(whole):
    assert whole.steps == 60
    assert whole.losses.shape == (3, 2)
    assert (whole.losses[-1] < 0.8 * whole.losses[0]).all()


class Killed(Exception):
    """In place of a signal, at a step of choice."""


def test_a_training_that_is_killed_goes_on_with_the_same_bits(doors, whole, tmp_path):
    def killed(step, losses, network):
        if step == 40:
            raise Killed

    with pytest.raises(Killed):
        train(doors, SMALL, every=20, folder=tmp_path, progress=killed)
    (tmp_path / "checkpoint.new").write_bytes(b"half of a checkpo")
    steps = []
    again = train(doors, SMALL, every=20, folder=tmp_path, progress=lambda step, losses, network: steps.append(step))
    assert steps == [60]
    assert arrays(again) == arrays(whole)
    assert (again.losses == whole.losses).all()
    assert arrays(train(doors, SMALL, every=20, folder=tmp_path)) == arrays(whole)  # nothing is left to do


def test_a_checkpoint_of_another_training_is_refused(doors, tmp_path):
    short = replace(SMALL, steps=2)
    train(doors, short, every=2, folder=tmp_path)
    with pytest.raises(bp.InvalidFolderError, match="plan"):
        train(doors, SMALL, every=2, folder=tmp_path)
    other = CorpusStream(bp.load_model("two_doors"), 1, 4, key=1)
    with pytest.raises(bp.InvalidFolderError, match="start"):
        train(other, short, every=2, folder=tmp_path)


def test_training_stops_where_nothing_is_learned(doors):
    still = TrainingPlan(episodes=4, width=16, layers=1, heads=2, steps=400, positions=200, rate=0.0, patience=2)
    assert train(doors, still, every=10).steps < 200


@pytest.mark.slow
def test_eight_devices_train_as_one_does(whole, tmp_path):
    program = f"""
import bayespar as bp, numpy as np, jax
from bayespar.learned.training import TrainingPlan, train
from bayespar.simulate.stream import CorpusStream
assert len(jax.devices()) == 8
stream = CorpusStream(bp.load_model("two_doors"), 1, 4, key=0)
np.save({str(tmp_path / "losses.npy")!r}, train(stream, {SMALL!r}, every=20).losses)
"""
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    assert np.abs(np.load(tmp_path / "losses.npy") / whole.losses - 1).max() < 1e-5
