"""Corpora at scale: who acts, streams, programs with a density, and Parquet files; against the enumerated corpus."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from scipy import stats

import bayespar as bp
from bayespar.errors import InvalidFolderError
from bayespar.planning.bail import BailPlanner, expert_actions
from bayespar.planning.baselines import OraclePlanner
from bayespar.planning.planner import Episode, Observed, UniformPolicy
from bayespar.posterior.arviz import MissingPackageError
from bayespar.posterior.latents import find_latents
from bayespar.simulate.behaviours import Exploring, MixtureOfExperts, TaskDependent, as_behaviour, tell
from bayespar.simulate.by_particles import true_world
from bayespar.simulate.corpus import sample_corpus, shuffled_labels, with_prior
from bayespar.simulate.shards import write_corpus
from bayespar.simulate.stream import CorpusStream
from bayespar.statistics import MeanConfidence
from bayespar.testing.oracle import Oracle, as_prompt, corpus_law

ALPHA = 1e-5  # of each statistical test here; keys are fixed, so they either pass or fail for ever
EPSILON = (0.4, 0.7)


@functools.cache
def tiny(horizon: int = 3) -> bp.Family:
    program = functools.partial(bp.load_model("random_world"), 5, (3, 2, 2, 2, horizon, 2 if horizon == 3 else 1))
    return bp.enumerate_program(program)


@functools.cache
def experts_of(horizon: int = 3):
    return bp.solve_experts(tiny(horizon))


@functools.cache
def oracle_of(horizon: int = 3) -> Oracle:
    return Oracle(tiny(horizon))


def contains(draws: np.ndarray, value: float, low: float = -1.0, high: float = 1.0) -> bool:
    """Whether the confidence sequence of ``draws`` keeps ``value``."""
    sequence = MeanConfidence(low, high, ALPHA, plan=len(draws))
    for batch in np.array_split(np.asarray(draws, np.float64), 32):
        sequence.update(batch)
    return sequence.interval().contains(float(value))


# --- behaviours, written out ------------------------------------------------------------------------------------


def uniform_law(oracle, z, past, w, o, g):
    return np.full(oracle.G, 1 / oracle.G)


def experts_law(oracle, z, past, w, o, g):
    """The experts that have chosen every subgoal of the episode, by their prior."""
    law = np.zeros(oracle.G)
    for other in range(oracle.Z):
        if all(oracle.expert(other, w, o[: k + 1], g[:k]) == g[k] for k in range(len(g))):
            law[oracle.expert(other, w, o, g)] += oracle.prior[other]
    return law / law.sum() if law.sum() > 0 else uniform_law(oracle, z, past, w, o, g)


def bail_law(oracle, z, past, w, o, g):
    return np.asarray(oracle.bail((past, w, o, g)), np.float64)


def epsilon_law(oracle, z, past, w, o, g):
    """A coin an episode, by Bayes' rule on what was executed."""
    coin = EPSILON[min(len(past), 1)]
    played = math.prod(bail_law(oracle, z, past, w, o[: k + 1], g[:k])[g[k]] for k in range(len(g)))
    exploring, acting = coin / oracle.G ** len(g), (1 - coin) * played
    share = exploring / (exploring + acting)
    return share / oracle.G + (1 - share) * bail_law(oracle, z, past, w, o, g)


def demonstrated_law(oracle, z, past, w, o, g):
    """Half of the time what the expert of the true task would do."""
    return 0.5 / oracle.G + 0.5 * np.eye(oracle.G)[oracle.expert(z, w, o, g)]


class Demonstrator(OraclePlanner):
    """The true expert, with slips."""

    def choose(self, posterior, actions):
        return 0.5 / self.subgoals + 0.5 * super().choose(posterior, actions)


DRAWN = ("uniform", "epsilon", "demonstrated")
LAWS = {
    "uniform": uniform_law,
    "experts": experts_law,
    "epsilon": epsilon_law,
    "demonstrated": demonstrated_law,
}


def behaviour_of(name: str, horizon: int = 3):
    family, experts = tiny(horizon), experts_of(horizon)
    if name == "epsilon":
        return Exploring(BailPlanner(family, experts), EPSILON, UniformPolicy(family.num_subgoals))
    return TaskDependent(Demonstrator(family, experts, 0)) if name == "demonstrated" else name


@functools.cache
def law_of(name: str, horizon: int = 3, episodes: int = 1):
    oracle = oracle_of(horizon)
    return corpus_law(oracle, episodes, functools.partial(LAWS[name], oracle))[0]


step = eqx.filter_jit(lambda planner, state, observed: planner.step(state, observed))


def probabilities(planner, prompt) -> np.ndarray:
    """What a planner gives at the end of a prompt, which others may have played."""
    past, w, o, g = prompt
    with jax.enable_x64(True):
        state = planner.init(jnp.int32(0), jax.random.key(0))
        for v, heard, played in (*past, (w, o, g)):
            for h, observation in enumerate(heard):
                before = played[h - 1] if h else -1
                state, chances = step(planner, state, Observed(*map(jnp.int32, (observation, before, h, v))))
            episode = Episode(jnp.int32(v), jnp.array(heard), jnp.array(played))
            state = planner.observe(state, episode)
        return np.asarray(chances)


@pytest.mark.parametrize(("name", "horizon", "episodes"), [("experts", 3, 1), ("experts", 2, 2), ("epsilon", 2, 2)])
def test_behaviours_are_the_laws_that_they_are_named_after(name, horizon, episodes):
    oracle = oracle_of(horizon)
    planner = as_behaviour(behaviour_of(name, horizon), tiny(horizon), experts_of(horizon))
    prompts = [pt for pt in law_of(name, horizon, episodes) if len(pt[2]) < horizon]
    checked = [pt for pt in prompts if len(pt[0]) == episodes - 1]
    assert len(checked) >= 12
    distances = []
    for past, w, o, g in checked:
        expected = LAWS[name](oracle, 0, past, w, o, g)
        assert probabilities(planner, (past, w, o, g)) == pytest.approx(expected, abs=1e-12)
        distances.append(np.abs(expected - 1 / oracle.G).max())
    assert max(distances) > 0.05  # it isn't the uniform policy


def test_a_mixture_of_experts_starts_again_where_no_expert_would_have_gone():
    family = bp.enumerate_program(functools.partial(bp.load_model("needle"), tasks=3))
    planner = MixtureOfExperts(family, bp.solve_experts(family))
    chances = probabilities(planner, ((), 0, (0,), ()))
    assert chances == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])  # no expert ever reads the sign
    assert probabilities(planner, (((0, (0, 1), (3,)),), 0, (0,), ())) == pytest.approx(chances)


@functools.cache
def drawn(name: str, count: int = 4000):
    return sample_corpus(tiny(), count, 1, behaviour_of(name), key=3, experts=experts_of())


def counted(corpus, labels) -> dict:
    """How often each prompt of one whole episode came with each label at its last decision."""
    counts: dict = {}
    for b, g in enumerate(labels[:, 0, -1]):
        o, s = corpus.observations[b, 0], corpus.subgoals[b, 0]
        prompt = (), int(corpus.instructions[b, 0]), tuple(map(int, o[:-1])), tuple(map(int, s[:-1]))
        counts[prompt, int(g)] = counts.get((prompt, int(g)), 0) + 1
    return counts


def close_to(counts: dict, law: dict, count: int) -> bool:
    """The exact binomial test of every cell, all of them together at ALPHA."""
    cells = {(pt, g): rows[:, g].sum() for pt, rows in law.items() if len(pt[2]) == 2 for g in range(2)}
    assert set(counts) <= {cell for cell, mass in cells.items() if mass > 0}
    seen, mass = np.array([(counts.get(cell, 0), mass) for cell, mass in cells.items()]).T
    tails = np.minimum(stats.binom.cdf(seen, count, mass), stats.binom.sf(seen - 1, count, mass))
    return bool(tails.min() > ALPHA / (2 * len(cells)))


@pytest.mark.parametrize("name", DRAWN)
def test_corpora_are_drawn_from_the_law_of_their_behaviour(name):
    corpus = drawn(name)
    counts = counted(corpus, corpus.labels)
    assert close_to(counts, law_of(name), 4000)
    assert not close_to(counts, law_of("experts" if name == "uniform" else "uniform"), 4000)


def residuals(corpus) -> list[np.ndarray]:
    """Labels minus their recorded conditional, in sets that the prompt decides: by its first subgoal, and by BAIL."""
    gap = ((corpus.labels[..., None] == np.arange(2)) - corpus.bail)[:, 0, -1, 0]
    belief, played = corpus.bail[:, 0, -1, 0], corpus.subgoals[:, 0, 0]
    sure = belief > np.median(belief)
    return [np.where((played == g) & (sure == high), gap, 0.0) for g in range(2) for high in (False, True)]


def test_conditionals_are_true_unless_the_behaviour_is_told_the_task():
    oracle = oracle_of()
    for name in LAWS:
        exact = law_of(name)
        # P_D(g* | pt) of the enumerated corpus against BAIL: equal for all who cannot see the task, and only for them.
        errors = {pt: np.abs(m.sum(axis=0) / m.sum() - oracle.bail(pt)).max() for pt, m in exact.items() if m.sum()}
        told = name == "demonstrated"
        assert (max(errors.values()) > 0.05) == told
        assert told or max(errors.values()) <= 1e-12
        assert name not in DRAWN or all(contains(gap, 0.0) for gap in residuals(drawn(name))) != told, name


def test_a_behaviour_that_is_told_the_task_needs_its_name():
    family, experts = tiny(), experts_of()
    corpus = drawn("demonstrated")
    played = (corpus.subgoals == corpus.labels).mean(axis=(1, 2))
    assert contains(played, 0.75, 0.0, 1.0)
    told = TaskDependent(Demonstrator(family, experts, 0))
    with pytest.raises(bp.InvalidPlannerError, match="told the task by a corpus"):
        bp.simulate_regret(family, 0, told, episodes=2, seeds=2, experts=experts)
    # The index may lie deeper, where it is said to be; without the name the planner always thinks of task 0.
    deep = TaskDependent(Exploring(told.planner, 0.5, UniformPolicy(2)), lambda p: p.planner.task)
    assert tell(deep, 2).planner.task == tell(told, 2).task == 2
    assert tell(told.planner, 2) is told.planner
    assert told.planner.task == 0


def test_on_policy_the_density_ratio_is_at_most_one_over_the_prior():
    oracle = oracle_of(2)

    def ratio(corpus: str, episodes: int) -> np.ndarray:
        """The largest density of a prompt met online under z against a corpus, times P_Z(z), [Z]."""
        online, offline = law_of("epsilon", 2, episodes), law_of(corpus, 2, episodes)
        return np.max([m.sum(axis=1) / offline[pt].sum() for pt, m in online.items() if m.sum() > 0], axis=0)

    assert all((ratio("epsilon", n) <= 1 + 1e-12).all() for n in (1, 2))
    few, more = ratio("uniform", 1), ratio("uniform", 2)
    assert (more > 1.05 * few).all()
    assert more.max() > 1
    assert oracle.prior.min() > 0


# --- priors and labels of twins ---------------------------------------------------------------------------------


def test_tasks_may_come_from_another_prior_while_beliefs_do_not():
    family, prior = tiny(), np.array([0.1, 0.1, 0.8])
    corpus = sample_corpus(family, 2000, 1, key=1, experts=experts_of(), prior=prior)
    shifted = sample_corpus(with_prior(family, prior), 2000, 1, key=1, experts=experts_of())
    for z in range(3):
        assert contains(corpus.tasks == z, prior[z], 0.0, 1.0)
    for name in ("tasks", "observations", "subgoals", "labels", "actions"):
        assert np.array_equal(getattr(corpus, name), getattr(shifted, name))
    believed, true = oracle_of(), Oracle(with_prior(family, prior))
    for b in range(40):
        o, g = (tuple(map(int, a[b, 0])) for a in (corpus.observations, corpus.subgoals))
        prompt = (), int(corpus.instructions[b, 0]), o[:-1], g[:-1]
        assert corpus.bail[b, 0, -1] == pytest.approx(believed.bail(prompt), abs=1e-10)
        assert shifted.bail[b, 0, -1] == pytest.approx(true.bail(prompt), abs=1e-10)
    assert np.abs(corpus.bail - shifted.bail).max() > 0.1
    assert all(contains(gap, 0.0) for gap in residuals(shifted))
    assert not all(contains(gap, 0.0) for gap in residuals(corpus))
    for bad in ([0.5, 0.5], [0.5, 0.6, -0.1], "uniform"):
        with pytest.raises(bp.InvalidWorldError, match="prior"):
            sample_corpus(family, 2, 1, prior=bad, experts=experts_of())
    without = with_prior(family, [0.0, 0.5, 0.5])
    with pytest.raises(bp.InvalidWorldError, match="with_prior"):
        CorpusStream(without, 2, 1, prior=prior, experts=experts_of())


def shuffled_law(name: str = "uniform") -> dict:
    """Labels of a task that is drawn from the prior whatever the prompt is."""
    oracle, law = oracle_of(), {}
    for pt, masses in law_of(name).items():
        _, w, o, g = pt
        label = sum(oracle.prior[z] * np.eye(2)[oracle.expert(z, w, o, g)] for z in range(oracle.Z))
        law[pt] = (masses.sum() * label)[None]
    return law


def test_shuffled_labels_are_of_another_prompts_task():
    corpus = drawn("uniform")
    twin = shuffled_labels(corpus)
    assert np.array_equal(twin.observations, corpus.observations)
    counts = counted(twin, twin.labels)
    assert close_to(counts, shuffled_law(), 4000)
    assert not close_to(counts, law_of("uniform"), 4000)
    assert not close_to(counted(corpus, corpus.labels), shuffled_law(), 4000)
    assert not all(contains(gap, 0.0) for gap in residuals(twin))


# --- streams ----------------------------------------------------------------------------------------------------


@functools.cache
def stream(**options) -> CorpusStream:
    return CorpusStream(tiny(), 4000, 1, key=7, experts=experts_of(), **options)


def test_a_stream_is_drawn_from_the_law_of_the_corpus():
    plain, twin = stream().batch(0), stream(shuffled=True).batch(0)
    plain, twin = (type(plain)(*map(np.asarray, batch)) for batch in (plain, twin))
    counts = counted(plain, plain.labels)
    assert close_to(counts, law_of("uniform"), 4000)
    assert np.array_equal(plain.observations, twin.observations)
    assert close_to(counted(twin, twin.labels), shuffled_law(), 4000)
    assert not close_to(counted(twin, twin.labels), law_of("uniform"), 4000)
    assert [a.shape for a in plain] == [(4000, 1), (4000, 1, 3), (4000, 1, 2), (4000, 1, 2)]
    assert {a.dtype for a in plain} == {np.dtype(np.int32)}


def same(one, other) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def streamed(key=7, behaviour="uniform", experts=None) -> CorpusStream:
    return CorpusStream(tiny(), 4, 3, behaviour, key=key, experts=experts or experts_of())


def test_a_batch_is_a_function_of_key_and_index_alone():
    one, again = streamed(), streamed(jax.random.key(7))
    batches = [one.batch(i) for i in range(3)]
    assert all(map(same, itertools.islice(one, 3), batches))
    assert not same(batches[0], batches[1])
    assert same(again.batch(2), batches[2])  # resumed there, without what was before
    assert not same(streamed(8).batch(2), batches[2])
    longer = CorpusStream(tiny(), 9, 9, key=7, experts=experts_of())
    assert same(longer.batch(2, prompts=4, episodes=3), batches[2])


@pytest.mark.parametrize(
    "behaviour", ["uniform", pytest.param(Exploring(UniformPolicy(2), 0.3, UniformPolicy(2)), marks=pytest.mark.slow)]
)
def test_a_batch_is_the_same_inside_a_compiled_step_and_in_double_precision(behaviour):
    stream = streamed(behaviour=behaviour)  # whose episodes are side by side, or wait for one another
    with jax.enable_x64(True):
        double = jax.jit(stream.batch)(2)
    assert same(double, stream.batch(2))
    assert {a.dtype for a in double} == {np.dtype(np.int32)}
    assert not same(double, stream.batch(1))


@pytest.mark.slow
def test_a_batch_is_the_same_on_eight_devices():
    code = """
import functools, hashlib, jax, numpy as np, bayespar as bp
from bayespar.simulate.stream import CorpusStream
from jax.sharding import Mesh, NamedSharding, PartitionSpec
family = bp.enumerate_program(functools.partial(bp.load_model("random_world"), 5, (3, 2, 2, 2, 3, 2)))
placed = NamedSharding(Mesh(np.array(jax.devices()), "batch"), PartitionSpec("batch"))
for behaviour in ("uniform", "bail"):
    batch = jax.jit(CorpusStream(family, 16, 4, behaviour).batch, out_shardings=placed)(5)
    assert len(batch.labels.sharding.device_set) == len(jax.devices())
    print(hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in batch)).hexdigest())
print(len(jax.devices()))
"""
    told = []
    for count in (1, 8):
        flags = f"--xla_force_host_platform_device_count={count}"
        run = [sys.executable, "-c", code]
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        told.append(subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout.split())
    assert told[0][:-1] == told[1][:-1]
    assert [t[-1] for t in told] == ["1", "8"]


def test_experts_that_read_the_belief_label_alike():
    by_belief = bp.solve_experts(tiny(), method="alpha")
    assert same(streamed(experts=by_belief).batch(2), streamed().batch(2))


# --- programs with a density ------------------------------------------------------------------------------------


def test_arms_with_a_density_are_labelled_by_their_own_best():
    arms = bp.load_model("bernoulli_arms")
    corpus = sample_corpus(arms, 300, 8, key=2)
    wins = corpus.sites["wins"]
    assert wins.shape == (300, 3)
    best = wins.argmax(axis=1)
    clear = np.sort(wins, axis=1)[:, -1] - np.sort(wins, axis=1)[:, -2] > 1e-6
    assert clear.sum() > 290
    assert (corpus.labels[clear] == best[clear, None, None]).all()
    pulled = corpus.subgoals[..., 0]
    won = (corpus.observations[..., 1] == 1) - np.take_along_axis(wins, pulled, axis=1)
    for arm in range(3):
        assert contains(np.where(pulled == arm, won, 0.0).mean(axis=1), 0.0)
    assert contains(wins.mean(axis=1), 0.5, 0.0, 1.0)
    assert len(np.unique(best)) == 3


@pytest.mark.slow
def test_experts_of_other_worlds_know_nothing_of_this_one():
    arms = bp.load_model("bernoulli_arms")
    mixed = sample_corpus(arms, 300, 8, "experts", key=2)
    pool = sample_corpus(arms, 3, 8, "experts", key=2)
    assert np.array_equal(pool.subgoals, mixed.subgoals[:3])
    share = np.bincount(mixed.subgoals.ravel(), minlength=3) / mixed.subgoals.size
    agree = (mixed.subgoals == mixed.labels).mean(axis=(1, 2))
    best = mixed.sites["wins"].argmax(axis=1)
    chance = float((share * np.bincount(best, minlength=3) / 300).sum())
    assert contains(agree - chance, 0.0)


def two_coins() -> bp.World:
    """A finite site and one with a density: which of two coins is the good one, and how good it is."""
    good = int(numpyro.sample("good", dist.Bernoulli(0.25)))
    share = numpyro.sample("share", dist.Beta(4.0, 1.0))
    odds = jnp.where(jnp.arange(2) == good, share, 0.0)
    move = jnp.stack([jnp.array([0.0, 1.0, 0.0])[None] * odds[g] + jnp.array([0.0, 0.0, 1.0])[None] * (1 - odds[g])
                      for g in range(2)])  # fmt: skip
    kernel = jnp.concatenate([move, jnp.broadcast_to(jnp.eye(3)[1:], (2, 2, 3))], axis=1)
    reward = np.zeros((2, 3))
    reward[1, 1] = 1
    return bp.World([1.0, 0.0, 0.0], kernel, np.eye(3), reward, horizon=2)


def test_a_mixed_program_gives_the_value_of_every_site():
    corpus = sample_corpus(two_coins, 400, 2, key=5)
    assert set(corpus.sites) == {"good", "share"}
    assert contains(corpus.sites["good"] == 1, 0.25, 0.0, 1.0)
    assert contains(corpus.sites["share"], 0.8, 0.0, 1.0)
    assert (corpus.labels == corpus.sites["good"][:, None, None]).all()
    right = corpus.subgoals[..., 0] == corpus.sites["good"][:, None]
    won = corpus.observations[..., 1] == 1
    assert not won[~right].any()
    assert contains(np.where(right, won - corpus.sites["share"][:, None], 0.0).mean(axis=1), 0.0)
    assert corpus.task(7) == {"good": corpus.sites["good"][7], "share": corpus.sites["share"][7]}


@pytest.mark.slow
def test_labels_of_long_episodes_are_those_of_the_world_solved_alone():
    program = functools.partial(bp.load_model("dirichlet_world"))
    latents = find_latents(program)
    corpus = sample_corpus(program, 65, 1, key=4)  # the last prompt begins another block of worlds
    tried = set()
    for b in (0, 1, 64):
        family = true_world(latents, corpus.task(b))
        experts = bp.solve_experts(family)
        o, g, w = corpus.observations[b, 0], corpus.subgoals[b, 0], int(corpus.instructions[b, 0])
        for h in range(family.horizon - 1):
            prompt = bp.Prompt(current_observations=o[: h + 1], current_subgoals=g[:h], current_instruction=w)
            label = int(corpus.labels[b, 0, h])
            assert expert_actions(family, experts, prompt)[0] == label
            tried.add(label)
    assert len(tried) > 1


@pytest.mark.slow
def test_a_stream_of_drawn_worlds_has_the_same_law():
    arms = bp.load_model("bernoulli_arms")
    one = CorpusStream(arms, 1024, 8, key=1)
    batch, again = one.batch(3), CorpusStream(arms, 1024, 8, key=1).batch(3)
    assert same(batch, again)
    assert not same(batch, one.batch(2))
    best, pulled = np.asarray(batch.labels)[..., 0], np.asarray(batch.subgoals)[..., 0]
    assert (best == best[:, :1]).all()
    won = np.asarray(batch.observations)[..., 1] == 1
    # The best of three uniform arms wins 3/4 of the time, another one (1/4 + 1/2)/2.
    assert contains(np.where(pulled == best, won - 0.75, 0.0).mean(axis=1), 0.0)
    assert contains(np.where(pulled != best, won - 0.375, 0.0).mean(axis=1), 0.0)
    assert not contains(np.where(pulled == best, won - 0.375, 0.0).mean(axis=1), 0.0)
    with pytest.raises(bp.InvalidPlannerError, match="outside of traced code"):
        jax.jit(one.batch)(1)


# --- what is refused --------------------------------------------------------------------------------------------


NO_LAW = (lambda w, key: (), lambda state, seen: (state, jnp.array([0.5, 0.6])))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_corpus(tiny(), 2, 1, "expert"), "\"?'?uniform"),
        (lambda: CorpusStream(tiny(), 0, 1), "prompts = 0"),
        (lambda: stream().batch(0, episodes=0), "episodes = 0"),
        (lambda: stream(shuffled=True).batch(0, prompts=1), "2 prompts at least"),
        (
            lambda: stream(behaviour=NO_LAW),
            "prompt 0, episode 0, step 0",
        ),
        (lambda: sample_corpus(bp.load_model("bernoulli_arms"), 2, 1, "bail"), "needs finite tasks"),
        (lambda: CorpusStream(bp.load_model("bernoulli_arms"), 2, 1, prior=[1.0]), "have a density"),
        (lambda: sample_corpus(bp.load_model("bernoulli_arms"), 2, 1, experts=experts_of()), "have a density"),
        (lambda: Exploring(UniformPolicy(2), 1.5, UniformPolicy(2)), r"outside \[0, 1\]"),
        (lambda: Exploring(UniformPolicy(2), [[0.5]], UniformPolicy(2)), "schedule"),
        (lambda: Exploring("bail", 0.5, UniformPolicy(2)), "planner = 'bail'"),
    ],
)
def test_what_is_refused_says_why(call, message):
    with pytest.raises(bp.InvalidPlannerError, match=message):
        call()


# --- Parquet ----------------------------------------------------------------------------------------------------


def written(folder, **changes):
    settings = {"prompts": 10, "episodes": 2, "shard": 4, "key": 3, "experts": experts_of(), "world": "tiny"}
    settings["behaviour"] = Exploring(UniformPolicy(2), 0.25, UniformPolicy(2))
    return write_corpus(tiny(), folder, **{**settings, **changes})


def contents(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    pytest.importorskip("pyarrow")
    folder = tmp_path_factory.mktemp("corpus")
    written(folder)
    return folder


def test_shards_can_be_read_without_this_package(whole):
    import pyarrow.parquet as parquet

    family, oracle = tiny(), oracle_of()
    manifest = json.loads((whole / "manifest.json").read_text())
    assert list(manifest["shards"]) == [f"data/shard-0000{k}.parquet" for k in range(3)]
    for name, told in manifest["shards"].items():
        assert hashlib.sha256((whole / name).read_bytes()).hexdigest() == told
    words, first = [t["word"] for t in manifest["vocabulary"]["tokens"]], manifest["vocabulary"]["first"]
    assert [t["id"] for t in manifest["vocabulary"]["tokens"]] == list(range(len(words)))
    rows = parquet.read_table(whole / "data").to_pylist()
    assert [row["prompt"] for row in rows] == list(range(10))
    for row in rows:
        prompt = bp.Prompt.from_text(row["text"], family)
        assert prompt.to_text(family) == row["text"]
        o = np.vstack([prompt.observations, prompt.current_observations])
        g = np.vstack([prompt.subgoals, prompt.current_subgoals])
        w = [*map(int, prompt.instructions), prompt.current_instruction]
        spoken = [words[i] for i in row["token_ids"]]
        expected = ["<bos>"]
        for n in range(2):
            turns = [family.observations[o[n, 0]]]
            for h in range(2):
                turns += [family.subgoals[g[n, h]], family.observations[o[n, h + 1]]]
            expected += ["<episode>", family.instructions[w[n]], *turns]
        assert spoken == [*expected, "<eos>"]
        assert family.tasks[row["task"]] == row["task_name"]
        decisions = itertools.product(range(2), range(2))
        for d, (n, h) in enumerate(decisions):
            at, played = row["label_positions"][d], row["subgoal_positions"][d]
            assert row["token_ids"][at] == first["observation"] + o[n, h]
            assert (row["token_ids"][played], played) == (first["subgoal"] + g[n, h], at + 1)
            past = tuple((w[i], tuple(map(int, o[i])), tuple(map(int, g[i]))) for i in range(n))
            now = (past, w[n], tuple(map(int, o[n, : h + 1])), tuple(map(int, g[n, :h])))
            assert row["labels"][d] == oracle.expert(row["task"], *now[1:])
            assert row["label_words"][d] == family.subgoals[row["labels"][d]]
            assert row["bail"][d] == pytest.approx(oracle.bail(now), abs=1e-10)
            heard = bp.bawm(family, as_prompt(now)).next_observation(int(g[n, h]))
            assert row["next_observation"][d] == pytest.approx(heard, abs=1e-10)
    again = sample_corpus(tiny(), 4, 2, key=jax.random.fold_in(jax.random.key(3), 1), experts=experts_of())
    assert [row["task"] for row in rows[4:8]] == again.tasks.tolist()
    assert len({row["text"] for row in rows}) == 10


def test_a_run_that_stops_anywhere_goes_on_to_the_same_bytes(whole, tmp_path):
    class StopError(Exception):
        pass

    rows = []

    def stop(count):
        rows.append(count)
        raise StopError

    with pytest.raises(StopError):
        written(tmp_path, progress=stop)
    assert rows == [4]
    assert sorted(contents(tmp_path)) == ["data/shard-00000.parquet", "manifest.json"]
    # What a killed run may leave: half a file, a shard that the manifest does not know; and what a disk may do to one.
    (tmp_path / "data" / "shard-00001.parquet.partial").write_bytes(b"PAR1")
    (tmp_path / "data" / "shard-00001.parquet").write_bytes(b"something else")
    before = (tmp_path / "data" / "shard-00000.parquet").stat().st_mtime_ns
    written(tmp_path, progress=rows.append)
    assert rows == [4, 4, 4, 2]
    assert contents(tmp_path) == contents(whole)
    assert (tmp_path / "data" / "shard-00000.parquet").stat().st_mtime_ns == before
    (tmp_path / "data" / "shard-00002.parquet").write_bytes(b"harmed")
    written(tmp_path)
    assert contents(tmp_path) == contents(whole)


@pytest.mark.slow
def test_a_killed_process_loses_at_most_a_shard(tmp_path):
    pytest.importorskip("pyarrow")
    code = """
import functools, sys, bayespar as bp
from bayespar.simulate.shards import write_corpus
program = functools.partial(bp.load_model("random_world"), 5, (3, 2, 2, 2, 3, 2))
write_corpus(program, sys.argv[1], prompts=600, episodes=2, shard=8, key=1, world="tiny")
"""
    folders = [tmp_path / name for name in ("killed", "whole")]
    runs = [[sys.executable, "-c", code, str(folder)] for folder in folders]
    process = subprocess.Popen(runs[0])
    deadline = time.monotonic() + 120
    while len(list(folders[0].glob("data/*.parquet"))) < 5:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    listed = json.loads((folders[0] / "manifest.json").read_text())["shards"]
    present = len(list(folders[0].glob("data/*.parquet")))
    assert present - 1 <= len(listed) <= present < 75
    for run in runs:
        subprocess.run(run, check=True)
    assert contents(folders[0]) == contents(folders[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": 4}, "key"),
        ({"prompts": 12}, "prompts = 10, and 12"),
        ({"behaviour": "bail"}, "behaviour = 'Exploring .* and 'bail'"),
        ({"behaviour": Exploring(UniformPolicy(2), 0.5, UniformPolicy(2))}, "behaviour = 'Exploring .*'Exploring"),
        ({"shard": 5}, "shard"),
        ({"world": "another"}, "world = 'tiny'"),
    ],
)
def test_a_folder_of_another_corpus_is_refused(whole, changes, message):
    before = contents(whole)
    with pytest.raises(InvalidFolderError, match=message):
        written(whole, **changes)
    assert contents(whole) == before


def test_a_folder_is_gone_on_with_by_the_same_world_and_versions_only(whole, tmp_path):
    with pytest.raises(InvalidFolderError, match="fingerprint"):
        write_corpus(tiny(2), whole, prompts=10, episodes=2, shard=4, key=3, world="tiny")
    manifest = json.loads((whole / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "versions": {**manifest["versions"], "jax": "0"}}))
    with pytest.raises(InvalidFolderError, match="jax = '0'"):
        written(tmp_path)
    for text in ("{}", "[]", "no JSON"):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(InvalidFolderError, match="no manifest"):
            written(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidFolderError, match="cannot be written"):
        written(tmp_path / "file")


def test_a_missing_package_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingPackageError, match=r'pip install "bayespar\[corpus\]"'):
        written(tmp_path)


def test_the_command_line_writes_a_corpus(tmp_path, capsys):
    parquet = pytest.importorskip("pyarrow.parquet")
    from bayespar.cli import main

    asked = ["corpus", "tiger", "--prompts", "6", "--episodes", "2", "--shard", "4", "--behaviour", "bail"]
    asked += ["--epsilon", "0.5", "--key", "2", "--json"]
    assert main([*asked, "--out", str(tmp_path / "finite")]) == 0
    manifest = json.loads(capsys.readouterr().out)
    assert manifest["settings"]["world"] == "tiger"
    assert manifest["settings"]["behaviour"].startswith("Exploring ")
    assert parquet.read_table(tmp_path / "finite" / "data").num_rows == 6
    asked = ["corpus", "bernoulli_arms", "--prompts", "3", "--episodes", "2", "--out", str(tmp_path / "arms")]
    assert main(asked) == 0
    (row, *_) = parquet.read_table(tmp_path / "arms" / "data").to_pylist()
    wins = json.loads(row["sites"])["wins"]
    assert row["labels"] == [int(np.argmax(wins))] * 2
    assert not {"task", "bail", "next_observation"} & set(row)
    assert main([*asked, "--epsilon", "0.5"]) == 2
    assert main([*asked, "--key", "1"]) == 2
    assert "key" in capsys.readouterr().err
