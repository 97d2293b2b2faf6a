"""Evidence against an explicit sum over hidden paths, and where underflow, shapes and tracing could break it."""

from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import bayespar as bp
from bayespar import evidence, filtering, forward
from bayespar.arrays import precision_of
from bayespar.evidence import Arithmetic, log_evidence, prefix_log_evidence
from bayespar.filtering import Filter

SHAPE = (2, 3, 2, 2, 3, 4)  # Z, S, G, O, H, N
EDGES = [(1, 3, 1, 2, 4, 2), (3, 2, 3, 3, 1, 4), (2, 3, 2, 2, 3, 0)]  # Z = G = 1; H = 1; N = 0
KINDS = ["dense", "sparse", "scattered", "shared"]  # scattered: by step, and never made dense; shared: by step too


def rows(rng: np.random.Generator, *shape: int, zeros: bool = True) -> np.ndarray:
    """Distributions made of small integers, so that exact zeros occur."""
    weights = rng.integers(0 if zeros else 1, 4, shape)
    weights[..., 0] += weights.sum(-1) == 0
    return weights / weights.sum(-1, keepdims=True)


def make(shape: tuple[int, ...], kind: str, seed: int, zeros: bool = True) -> tuple[bp.Family, np.ndarray, np.ndarray]:
    Z, S, G, O, H, N = shape
    rng = np.random.default_rng(seed)
    K = min(2, S)
    transition: Any = {
        "dense": lambda: rows(rng, Z, G, S, S, zeros=zeros),
        "sparse": lambda: bp.Sparse(rng.integers(0, S, (Z, G, S, K)), rows(rng, Z, G, S, K)),
        "scattered": lambda: bp.Sparse(
            rng.integers(0, S, (Z, max(H - 1, 1), G, S, K)),
            rows(rng, 1, 1, 1, 1, K) + np.zeros((Z, max(H - 1, 1), G, S, 1)),
        ),
        "shared": lambda: rows(rng, 1, max(H - 1, 1), G, S, S, zeros=zeros),
        "steps": lambda: rows(rng, Z, max(H - 1, 1), G, S, S, zeros=zeros),
    }[kind]()
    alone = kind == "shared"
    initial = rows(rng, S, zeros=zeros) if alone else rows(rng, Z, S, zeros=zeros)
    emission = rows(rng, *(() if alone else (Z,)), S, O, zeros=zeros)
    family = bp.Family(np.full(Z, 1 / Z), initial, transition, emission, np.zeros((H, O)), horizon=H)
    return family, rng.integers(0, O, (N, H)), rng.integers(0, G, (N, H - 1))


def log_of(x: float) -> float:
    return math.log(x) if x > 0 else -math.inf


def oracle(family: bp.Family, observations: np.ndarray, subgoals: np.ndarray) -> np.ndarray:
    """log L_z of each prefix, [Z, N, H]: the sum over all paths of hidden states, written out."""
    Z, S, (N, H) = family.num_tasks, family.num_states, observations.shape
    initial = np.broadcast_to(family.initial, (Z, S))
    emission = np.broadcast_to(family.emission, (Z, *family.emission.shape[1:]))
    kernel = family.transition
    if isinstance(kernel, bp.Sparse):
        slots = [(kernel.next_states == s) * kernel.probabilities for s in range(S)]
        kernel = np.stack([s.sum(-1) for s in slots], -1)
    kernel = np.broadcast_to(kernel, (Z, max(H - 1, 1), *kernel.shape[2:]))
    out = np.empty((Z, N, H))
    for z, n, h in np.ndindex(Z, N, H):
        o, g = observations[n], subgoals[n]
        terms = [
            initial[z, path[0]]
            * math.prod(kernel[z, k, g[k], path[k], path[k + 1]] for k in range(h))
            * math.prod(emission[z, s, o[k]] for k, s in enumerate(path))
            for path in itertools.product(range(S), repeat=h + 1)
        ]
        out[z, n, h] = log_of(math.fsum(terms))
    return out


def streamed(family: bp.Family, observations: np.ndarray, subgoals: np.ndarray) -> np.ndarray:
    """log L_z of each prefix, [Z, N, H], from the filter, one step at a time."""
    with precision_of(family):
        tracker = Filter(family)

        @jax.jit
        def run(o: jax.Array, g: jax.Array) -> jax.Array:
            forward = tracker.start(o[0])
            rows = [tracker.log_likelihood(forward)]
            for h in range(family.horizon - 1):
                forward = tracker.advance(forward, h, g[h], o[h + 1])
                rows.append(tracker.log_likelihood(forward))
            return jnp.stack(rows)

        out = [np.asarray(run(o, g)).T for o, g in zip(observations, subgoals, strict=True)]
    return np.stack(out, axis=1) if out else np.zeros((family.num_tasks, *observations.shape))


close = partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-12)


def check(shape: tuple[int, ...], kind: str, seed: int) -> None:
    family, o, g = make(shape, kind, seed)
    expected = oracle(family, o, g)
    with pytest.MonkeyPatch.context() as patch:
        if kind == "scattered":
            patch.setattr(forward, "DENSE_STATES", 0)
        assert evidence.choose_arithmetic(family) == Arithmetic(np.dtype(np.float64), scaled=False)
        close(log_evidence(family, o, g), expected[:, :, -1])
        close(prefix_log_evidence(family, o, g), expected)
        patch.setattr(evidence, "choose_arithmetic", lambda family: None)
        close(log_evidence(family, o, g), expected[:, :, -1])
        close(prefix_log_evidence(family, o, g), expected)
    close(streamed(family, o, g), expected)


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6))
def test_equals_the_sum_over_paths(kind: str, seed: int) -> None:
    check(SHAPE, kind, seed)


@pytest.mark.parametrize("shape", EDGES)
def test_smallest_shapes(shape: tuple[int, ...]) -> None:
    check(shape, "dense", 0)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10**6), dtype=st.sampled_from(["float32", "float64"]))
def test_scaling_changes_nothing(seed: int, dtype: str) -> None:
    family, o, g = make(SHAPE, "dense", seed, zeros=False)
    family = family.astype(dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "choose_arithmetic", lambda family: Arithmetic(family.dtype, scaled=True))
        rest = family.transition, family.emission, family.reward
        late = bp.Family(family.task_prior, [0.0, 0.25, 0.75], *rest, horizon=family.horizon)
        for world in (family, late):  # the entry that sets the scale may be 0 at the start
            got = prefix_log_evidence(world, o, g)
            assert got.dtype == dtype
            close(got, oracle(world, o, g), rtol=1e-12 if dtype == "float64" else 1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_scale_does_not_wipe_out_what_it_scales(dtype: str) -> None:
    """The entry that sets the scale is first 0 and then 1, in numbers where 1 - p is 1."""
    p, H = {"float32": 1e-10, "float64": 1e-17}[dtype], 60
    kernel = [[[p, 1 - p], [1 - p, p]]]
    world = bp.Family([1.0], [0.0, 1.0], kernel, np.eye(2), np.zeros((H, 2)), horizon=H).astype(dtype)
    assert evidence.choose_arithmetic(world) == Arithmetic(np.dtype(dtype), scaled=True)
    assert log_evidence(world, [[(h + 1) % 2 for h in range(H)]], np.zeros((1, H - 1), int)).tolist() == [[0.0]]


def test_the_arithmetic_follows_from_the_smallest_probabilities() -> None:
    def family(p: float, horizon: int, dtype: str) -> bp.Family:
        kernel = np.array([[1 - p, p], [p, 1 - p]])
        world = bp.Family([1.0], [0.5, 0.5], kernel[None], np.eye(2), np.zeros((horizon, 2)), horizon=horizon)
        return world.astype(dtype)

    single, double = np.dtype(np.float32), np.dtype(np.float64)
    choose = evidence.choose_arithmetic
    assert choose(family(0.1, 8, "float32")) == Arithmetic(single, scaled=False)
    assert choose(family(0.1, 200, "float32")) == Arithmetic(single, scaled=True)
    assert choose(family(0.0, 10**4, "float32")) == Arithmetic(single, scaled=False)  # deterministic
    assert choose(family(1e-20, 5, "float32")) == Arithmetic(double, scaled=False)
    assert choose(family(1e-20, 50, "float32")) == Arithmetic(double, scaled=True)
    assert choose(family(1e-200, 50, "float64")) is None
    chain = family(0.1, 400, "float64")
    sparse = bp.Family([1.0], chain.initial, bp.Sparse([[[0, 1], [0, 1]]], chain.transition[0, 0]), chain.emission,
                       chain.reward, horizon=400)  # fmt: skip
    assert choose(sparse) is None
    rng = np.random.default_rng(0)
    for world in (family(1e-20, 50, "float32"), family(0.1, 200, "float32"), family(1e-200, 50, "float64"), sparse):
        H = world.horizon
        o, g = rng.integers(0, 2, (3, H)), np.zeros((3, H - 1), int)
        flips = (np.diff(o) != 0).sum(1)
        p = np.min(world.transition.probabilities if world is sparse else world.transition)
        expected = np.log(0.5) + flips * np.log(float(p)) + (H - 1 - flips) * np.log1p(-float(p))
        np.testing.assert_allclose(log_evidence(world, o, g)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_state_that_normalised_filters_lose(dtype: str) -> None:
    p, H = 1e-20, 21
    emission = np.array([[1.0, 0.0], [p, 1 - p]], dtype)
    family = bp.Family([1.0], [0.5, 0.5], np.eye(2)[None], emission, np.zeros((H, 2)), horizon=H).astype(dtype)
    o, g = np.zeros((1, H), int), np.zeros((1, H - 1), int)
    o[0, -1] = 1  # only the state that is 1e-400 times as likely as the other emits this
    belief = np.array([0.5, 0.5])
    for seen in o[0]:
        belief = belief * emission[:, seen]
        belief = belief / max(belief.sum(), 1e-300)
    assert belief.sum() == 0
    expected = math.log(0.5) + (H - 1) * math.log(float(emission[1, 0])) + math.log(float(emission[1, 1]))
    for got in (log_evidence(family, o, g)[0, 0], prefix_log_evidence(family, o, g)[0, 0, -1], streamed(family, o, g)):
        np.testing.assert_allclose(np.ravel(got)[-1], expected, rtol=1e-6 if dtype == "float32" else 1e-14)


def test_denormal_probabilities_are_not_zero() -> None:
    p = 1e-310
    family = bp.Family([1.0], [1.0, 0.0], [[[1.0, p], [0.0, 1.0]]], np.eye(2), np.zeros((2, 2)), horizon=2)
    assert log_evidence(family, [[0, 1]], [[0]])[0, 0] == pytest.approx(math.log(p), rel=1e-12)
    assert streamed(family, np.array([[0, 1]]), np.array([[0]]))[0, 0, 1] == pytest.approx(math.log(p), rel=1e-12)


def test_a_hundred_thousand_episodes() -> None:
    family, o, g = make((3, 3, 2, 3, 4, 10), "dense", 1, zeros=False)
    once, many = log_evidence(family, o, g), log_evidence(family, np.tile(o, (10_000, 1)), np.tile(g, (10_000, 1)))
    assert many.shape == (3, 100_000)
    assert np.isfinite(many.sum(1)).all()
    np.testing.assert_allclose(many.sum(1), 10_000 * once.sum(1), rtol=1e-12)
    np.testing.assert_allclose(many.reshape(3, -1, 10), np.broadcast_to(once[:, None], (3, 10_000, 10)), rtol=1e-12)


def test_blocks_of_tasks_and_episodes_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    family, o, g = make((5, 3, 3, 3, 4, 150), "steps", 3)
    whole = prefix_log_evidence(family, o, g)
    monkeypatch.setattr(evidence, "BLOCK_EPISODES", 64)
    monkeypatch.setattr(evidence, "TASK_GROUP", 3)  # and groups of 3 and 2, so that several blocks run side by side
    monkeypatch.setattr(evidence, "BLOCK_ENTRIES", 2 * 3 * 100)  # blocks of 2 of the 5 tasks, the last one overlapping
    np.testing.assert_allclose(prefix_log_evidence(family, o, g), whole, rtol=1e-13)
    np.testing.assert_allclose(whole[:, 70:75], oracle(family, o[70:75], g[70:75]), rtol=1e-12)


@pytest.mark.parametrize("log_space", [False, True])
def test_repeated_episodes_are_worked_out_once(log_space: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    family, o, g = make((2, 3, 2, 3, 3, 12), "dense", 4)
    expected = prefix_log_evidence(family, o, g)
    if log_space:
        monkeypatch.setattr(evidence, "choose_arithmetic", lambda family: None)
    which = np.random.default_rng(0).integers(0, len(o), 700)
    found = evidence.distinct_episodes(o[which], g[which])
    assert found is not None
    assert len(found[0]) == len(np.unique(np.concatenate([o, g], 1)[which], axis=0))
    close(prefix_log_evidence(family, o[which], g[which]), expected[:, which])
    close(log_evidence(family, o[which], g[which]), expected[:, which, -1])
    # Where different episodes have one hash, none is taken for another.
    monkeypatch.setattr(evidence, "_ODD", np.uint64(0))
    assert evidence.distinct_episodes(o[which], g[which]) is None
    close(log_evidence(family, o[which], g[which]), expected[:, which, -1])
    # Episodes that only differ in their subgoals are different.
    alike = evidence.distinct_episodes(np.zeros((64, 2), int), np.arange(64)[:, None])
    assert alike is None


def test_float32_log_odds() -> None:
    rng = np.random.default_rng(5)
    Z, S, G, O, H, N = 4, 8, 3, 6, 16, 1000
    kernels = [rng.dirichlet(np.ones(n), shape) for n, shape in ((S, (Z,)), (S, (Z, G, S)), (O, (Z, S)))]
    family = bp.Family(np.full(Z, 1 / Z), *kernels, np.zeros((H, O)), horizon=H).astype("float32")
    o, g = rng.integers(0, O, (N, H)), rng.integers(0, G, (N, H - 1))
    single = log_evidence(family, o, g).astype(np.float64)
    double = log_evidence(family.astype("float64"), o, g)
    for a, b in ((single, double), (single.sum(1), double.sum(1))):
        odds, exact = a[1:] - a[0], b[1:] - b[0]
        assert (np.abs(odds - exact) <= 1e-3 * np.maximum(1, np.abs(exact))).all()
    assert log_evidence(family, o, g).dtype == np.float32
    assert not (single == double).all()


@pytest.mark.parametrize("exact", [False, True])
def test_growing_prompts_rarely_recompile(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    family, o, g = make((2, 2, 3, 2, 3, 300), "dense", 2)
    if exact:
        monkeypatch.setattr(evidence, "choose_arithmetic", lambda family: None)
    compiled = forward.log_space_block if exact else forward.probability_block
    compiled.clear_cache()
    for n in range(200, 301, 5):
        log_evidence(family, o[:n], g[:n])
    assert 1 <= compiled._cache_size() <= 4
    plans = {evidence.plan_tiles(o[:n], g[:n], 3, 32)[1].shape for n in range(1, 301)}
    assert len(plans) <= 10


@pytest.mark.parametrize("kind", ["dense", "sparse", "scattered"])
@pytest.mark.parametrize("log_space", [False, True])
def test_filter_beliefs_and_predictions(kind: str, log_space: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beliefs are normalised conditionals; the predicted observation is the ratio of successive likelihoods."""
    family, o, g = make((2, 3, 2, 2, 5, 6), kind, 3)
    if kind == "scattered":
        monkeypatch.setattr("bayespar.forward.DENSE_STATES", 0)
    if log_space:
        monkeypatch.setattr(filtering, "choose_arithmetic", lambda family: None)
    with precision_of(family):
        tracker = Filter(family)
        assert tracker.log_space is log_space
        for row, subgoals in zip(o, g, strict=True):
            forward = tracker.start(row[0])
            for h in range(family.horizon - 1):
                evidence = np.asarray(tracker.log_likelihood(forward))
                for z in np.flatnonzero(np.isfinite(evidence)):
                    predicted = tracker.predict(forward, np.eye(2)[z], h, subgoals[h])
                    following = [tracker.advance(forward, h, subgoals[h], k) for k in range(2)]
                    ratio = [np.exp(tracker.log_likelihood(f)[z] - evidence[z]) for f in following]
                    np.testing.assert_allclose(predicted, ratio, atol=1e-12)
                forward = tracker.advance(forward, h, subgoals[h], row[h + 1])
            possible = np.isfinite(tracker.log_likelihood(forward))
            np.testing.assert_array_equal(np.asarray(tracker.weights(forward)).sum(1) > 0, possible)


def test_indices_are_checked() -> None:
    family, _, _ = make((2, 2, 2, 2, 3, 1), "dense", 0)
    with pytest.raises(bp.InvalidPromptError, match=r"observations\[0, 1\]"):
        log_evidence(family, [[0, 2, 0]], [[0, 0]])


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_under_jit_and_vmap(kind: str) -> None:
    family, observations, subgoals = make(SHAPE, kind, 7)
    expected = log_evidence(family, observations, subgoals)
    flipped = jax.tree.map(lambda a: a[::-1], family)

    @jax.jit
    def both(families: Any, o: Any, g: Any) -> Any:
        return (
            jax.vmap(lambda f: prefix_log_evidence(f, o, g))(families),
            jax.vmap(lambda o, g: log_evidence(family, o[None], g[None])[:, 0], out_axes=1)(o, g),
            log_evidence(family, observations, subgoals),
        )

    with jax.enable_x64(True):
        prefixes, one, constant = both(jax.tree.map(lambda *a: jnp.stack(a), family, flipped), observations, subgoals)
    close(prefixes[0, :, :, -1], expected)
    close(prefixes[1, ::-1, :, -1], expected)
    close(one, expected)
    close(constant, expected)


@pytest.mark.parametrize("sparse", [False, True])
def test_gradients(sparse: bool) -> None:
    rng = np.random.default_rng(0)
    S, G, O, H = 3, 2, 2, 3
    o, g = rng.integers(0, O, (4, H)), rng.integers(0, G, (4, H - 1))
    zero = rng.random((S, S)) < 0.3
    zero[np.arange(S), np.arange(S)] = False
    next_states = np.broadcast_to(np.arange(S), (1, G, S, S))

    def total(theta: Any) -> Any:
        kernel = jax.nn.softmax(jnp.where(zero, -jnp.inf, theta[:, None, None] * np.arange(S) + np.eye(S)))
        kernel = jnp.broadcast_to(kernel, (2, G, S, S))
        emission = jax.nn.softmax(theta[:, None, None] * np.arange(S * O).reshape(S, O))
        transition = bp.Sparse(jnp.broadcast_to(next_states, kernel.shape), kernel) if sparse else kernel
        family = bp.Family(np.full(2, 0.5), np.eye(S)[0], transition, emission, np.zeros((H, O)), horizon=H)
        return log_evidence(family, o, g).sum()

    assert zero.any()
    with jax.enable_x64(True):
        value_and_grad = jax.jit(jax.value_and_grad(total))
        theta = np.array([0.3, -0.7])
        gradient = value_and_grad(theta)[1]
        for i, unit in enumerate(1e-6 * np.eye(2)):
            numeric = (value_and_grad(theta + unit)[0] - value_and_grad(theta - unit)[0]) / 2e-6
            assert float(gradient[i]) == pytest.approx(float(numeric), rel=1e-6)


def test_gradients_of_impossible_evidence_are_not_nan() -> None:
    def total(kernel: Any) -> Any:
        family = bp.Family([1.0], [1.0, 0.0], kernel, np.eye(2), np.zeros((2, 2)), horizon=2)
        return jnp.where(jnp.isfinite(e := log_evidence(family, [[0, 1], [0, 0]], [[0], [0]])), e, 0).sum()

    gradient = jax.jit(jax.grad(total))(jnp.array([[[1.0, 0.0], [0.5, 0.5]]]))
    assert gradient[0, 0].tolist() == [1.0, 0.0]
    assert np.isfinite(gradient).all()


def test_a_world_without_a_step_stays_where_it_is() -> None:
    """With H = 1 a kernel may have no step at all; loops that are traced regardless must not fail."""
    family = bp.Family(
        [0.5, 0.5], [0.25, 0.75], np.zeros((1, 0, 2, 2, 2)), np.eye(2), np.zeros((1, 2)), horizon=1, tasks=["a", "b"]
    )
    with precision_of(family):
        tracker = Filter(family)
        start = tracker.start(1)
        np.testing.assert_array_equal(tracker.advance(start, 0, 1, 0), start)
    curves = bp.simulate_regret(family, 0, "bail", 0.0, 2, 2)
    assert not curves.regret.any()
