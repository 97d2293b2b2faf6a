"""What is refused, and with which words; what must not change around us; programs and their names."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import given, settings, strategies as st

import bayespar as bp
from bayespar.enumeration import enumerate_leaves
from bayespar.evidence import log_evidence, prefix_log_evidence
from bayespar.planning.bail import BailPlanner
from bayespar.planning.histories import enumerate_histories
from bayespar.planning.value import policy_value
from bayespar.testing.oracle import Oracle, as_prompt
from bayespar.testing.strategies import families, seeds
from bayespar.testing.worlds import LAYOUTS

Z, S, G, O, H, W = 2, 3, 2, 2, 3, 2


def arrays(**changes) -> dict:
    """The arguments of a family in which no two axes that may be mixed up agree."""
    rng = np.random.default_rng(0)
    return {
        "task_prior": [0.25, 0.75],
        "initial": rng.dirichlet(np.ones(S), Z),
        "transition": rng.dirichlet(np.ones(S), (Z, H - 1, G, S)),
        "emission": rng.dirichlet(np.ones(O), (Z, S)),
        "reward": rng.random((H, O, W)),
        "horizon": H,
    } | changes


def family(**changes) -> bp.Family:
    return bp.Family(**arrays(**changes))


def changed(name: str, index, value):
    array = np.array(arrays()[name], float)
    array[index] = value
    return {name: array}


# --- arrays -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("task_prior", ()),
        ("task_prior", (Z, 1)),
        ("initial", (Z + 1, S)),
        ("initial", (1, Z, S)),
        ("transition", (G, S)),
        ("transition", (Z + 1, H - 1, G, S, S)),
        ("transition", (Z, H, G, S, S)),
        ("transition", (Z, H - 1, G, S, S + 1)),
        ("transition", (Z, H - 1, G, S + 1, S)),
        ("transition", (1, Z, H - 1, G, S, S)),
        ("emission", (Z, S + 1, O)),
        ("emission", (Z + 1, S, O)),
        ("emission", (O,)),
        ("reward", (H - 1, O, W)),
        ("reward", (H + 1, O)),
        ("reward", (H, O + 1, W)),
        ("reward", (H,)),
        ("instruction_prior", (W + 1,)),
        ("instruction_prior", (1, W)),
        ("task_prior", (0,)),
        ("emission", (Z, S, 0)),
        ("reward", (H, O, 0)),
    ],
)
def test_wrong_shapes_name_the_array(name, shape):
    with pytest.raises(bp.InvalidWorldError, match=rf"^{name} has shape|there are no "):
        family(**{name: np.full(shape, 1 / max(shape[-1], 1) if shape else 1.0)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed("task_prior", 0, 0.5), r"^task_prior sums to 1\.25, not 1.*divide"),
        (changed("initial", (1, 0), 5.0), r"^initial\[1\] sums to"),
        (changed("transition", (1, 0, 1, 2, 0), 9.0), r"^transition\[1, 0, 1, 2\] sums to"),
        (changed("emission", (0, 2), [0.6, 0.41]), r"^emission\[0, 2\] sums to 1\.01"),
        (changed("emission", (1, 1), [1.5, -0.5]), r"^emission\[1, 1, 1\] = -0\.5 is negative"),
        (changed("initial", (0, 1), np.nan), r"^initial\[0, 1\] is nan"),
        (changed("transition", (1, 1, 0, 0, 2), np.inf), r"^transition\[1, 1, 0, 0, 2\] is inf"),
        (changed("reward", (2, 1, 0), 1.01), r"^reward\[2, 1, 0\] = 1\.01 lies outside \[0, 1\]; rescale"),
        (changed("reward", (0, 0, 1), -1e-3), r"^reward\[0, 0, 1\] = -0\.001 lies outside"),
        (changed("reward", (1, 0, 1), np.nan), r"^reward\[1, 0, 1\] is nan"),
        ({"instruction_prior": [0.5, 0.6]}, r"^instruction_prior sums to 1\.1"),
        ({"instruction_prior": [1.5, -0.5]}, r"^instruction_prior\[1\] = -0\.5 is negative"),
        ({"horizon": 0}, r"^horizon = 0"),
        ({"horizon": H + 1}, r"^(reward|transition) has shape"),
        ({"emission": [[1.0, 0.0], [1.0]]}, r"^emission: "),
        ({"emission": [["a", "b"]] * S}, r"^emission: "),
        ({"initial": np.ones((Z, S)) * 1j}, r"^initial: "),
    ],
)
def test_bad_values_name_the_array_the_index_and_the_cure(change, words):
    with pytest.raises(bp.InvalidWorldError, match=words) as raised:
        family(**change)
    assert isinstance(raised.value, ValueError)


def test_rows_must_sum_to_one_as_far_as_their_precision_goes():
    third = np.full((S, 3), 0.33333)
    with pytest.raises(bp.InvalidWorldError, match="sums to"):
        family(emission=third, reward=np.zeros((H, 3)))
    off = changed("initial", (0, 0), arrays()["initial"][0, 0] + 1e-7)["initial"]
    with pytest.raises(bp.InvalidWorldError, match="sums to"):
        family(initial=off)
    family(**{k: np.asarray(v, np.float32) if k != "horizon" else v for k, v in arrays(initial=off).items()})


@pytest.mark.parametrize(
    ("states", "probabilities", "words"),
    [
        ([[[0, 3]] * S] * G, [[[0.5, 0.5]] * S] * G, r"next_states\[0, 0, 0, 0, 1\] = 3.*from 0 to 2"),
        ([[[0, -1]] * S] * G, [[[0.5, 0.5]] * S] * G, r"next_states\[.*\] = -1"),
        ([[[0, 1]] * S] * G, [[[0.5, 0.6]] * S] * G, r"transition.probabilities\[0, 0, 0, 0\] sums to 1\.1"),
        ([[[0.0, 1.0]] * S] * G, [[[0.5, 0.5]] * S] * G, r"dtype float64; states are integers"),
        ([[[0]] * S] * G, [[[0.5, 0.5]] * S] * G, r"must be equal"),
        ([[[0, 1]] * S] * G, [[[np.nan, 1.0]] * S] * G, r"is nan"),
    ],
)
def test_bad_sparse_kernels(states, probabilities, words):
    with pytest.raises(bp.InvalidWorldError, match=words):
        family(transition=bp.Sparse(np.array(states), np.array(probabilities)))


@pytest.mark.parametrize("kind", ["tasks", "states", "subgoals", "observations", "instructions"])
def test_names(kind):
    count = {"tasks": Z, "states": S, "subgoals": G, "observations": O, "instructions": W}[kind]
    good = ["ключ 🗝", "zu Hause: links", "a", "b"][:count]
    assert getattr(family(**{kind: good}), kind) == tuple(good)
    for bad, words in [
        (good[:-1], "names, but the arrays have"),
        ([good[0]] * count, "more than once"),
        ([*good[:-1], "two\nlines"], "on a line of its own"),
        ([*good[:-1], "two\u2028lines"], "on a line of its own"),
        ([*good[:-1], ""], "on a line of its own"),
        ([*good[:-1], " a"], "on a line of its own"),
    ]:
        with pytest.raises(bp.InvalidWorldError, match=words) as raised:
            family(**{kind: bad})
        assert kind in str(raised.value)


def test_sites_need_a_value_for_each_task():
    with pytest.raises(bp.InvalidWorldError, match=r"sites\['room'\] has 1 values; give one for each of the 2 tasks"):
        family(sites={"room": ["kitchen"]})


# --- prompts and episodes ---------------------------------------------------------------------------------------

EPISODES = {"observations": [[0, 1, 1]], "subgoals": [[1, 0]]}


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ({"observations": [[0, 1]], "subgoals": [[1]]}, "observations has 2 columns, but the horizon is 3"),
        ({"observations": [[0, 1, 1, 0]], "subgoals": [[1, 0, 0]]}, "4 columns"),
        ({"observations": [[0, 1, 2]], "subgoals": [[1, 0]]}, r"observations\[0, 2\] = 2, .* 0 to 1"),
        ({"observations": [[0, 1, -1]], "subgoals": [[1, 0]]}, r"observations\[0, 2\] = -1 is not an index"),
        ({"observations": [[0, 1, 1]], "subgoals": [[1, 2]]}, r"subgoals\[0, 1\] = 2"),
        ({"observations": [[0, 1, 1]], "subgoals": [[1]]}, r"subgoals must be \[1, 2\]"),
        ({"observations": [[0, 1, 1.0]], "subgoals": [[1, 0]]}, "dtype float64; give integer indices"),
        ({"observations": [[0, 1, np.nan]], "subgoals": [[1, 0]]}, "dtype float64"),
        ({"observations": [[True, False, True]], "subgoals": [[1, 0]]}, "dtype bool"),
        ({"observations": [["a", "b", "c"]], "subgoals": [[1, 0]]}, "from_text"),
        ({"observations": [[0, 1, 2**40]], "subgoals": [[1, 0]]}, "is not an index"),
        ({"observations": [[0, 1, 1], [0]], "subgoals": [[1, 0]]}, "ragged"),
        ({"observations": [[0, 1, 1]]}, "without subgoals"),
        ({"subgoals": [[1, 0]]}, "without observations"),
        ({"instructions": [0]}, "without observations"),
        ({**EPISODES, "instructions": [0, 1]}, "1 finished episodes but 2 instructions"),
        ({**EPISODES, "instructions": [2]}, r"instructions\[0\] = 2"),
        ({**EPISODES, "instructions": [0.5]}, "dtype float64"),
        ({"current_observations": [0, 1]}, "2 entries and current_subgoals 0"),
        ({"current_observations": [], "current_subgoals": [0]}, "0 entries and current_subgoals 1"),
        ({"current_observations": [0, 1, 1, 0], "current_subgoals": [0, 0, 0]}, "move the finished episode"),
        ({"current_observations": [5]}, r"current_observations\[0\] = 5"),
        ({"current_observations": [0, 0], "current_subgoals": [7]}, r"current_subgoals\[0\] = 7"),
        ({"current_observations": [0.0]}, "dtype float64"),
        ({"current_instruction": 2}, "current_instruction = 2"),
        ({"current_instruction": -1}, "is not an index"),
        ({"current_instruction": 0.0}, "dtype float64"),
    ],
)
def test_bad_prompts(prompt, words):
    with pytest.raises(bp.InvalidPromptError, match=words) as raised:
        bp.posterior(family(), bp.Prompt(**prompt))
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("call", [log_evidence, prefix_log_evidence])
@pytest.mark.parametrize(
    ("observations", "subgoals", "words"),
    [
        ([[0, 1]], [[0]], "horizon is 3"),
        ([0, 1, 1], [0, 0], "1 axes; it needs 2"),
        ([[0, 1, 1]], [[0, 0]] * 2, r"it must be \[N, H-1\] = \[1, 2\]"),
        ([[0, 1, 2]], [[0, 0]], r"observations\[0, 2\] = 2"),
        ([[0, 1, 1]], [[0, -1]], "is not an index"),
        ([[0, 1, 0.5]], [[0, 0]], "dtype float64"),
    ],
)
def test_bad_episodes(call, observations, subgoals, words):
    with pytest.raises(bp.InvalidPromptError, match=words):
        call(family(), observations, subgoals)


def test_no_such_method():
    with pytest.raises(bp.InvalidPromptError, match="method = 'guess'"):
        bp.posterior(family(), bp.Prompt(), method="guess")
    assert bp.posterior(family(), bp.Prompt(), method="exact").method == "exact"


# --- edges ------------------------------------------------------------------------------------------------------


def test_one_task_one_state_one_subgoal_one_observation_one_decision():
    one = bp.Family([1.0], [1.0], np.ones((1, 1, 1)), np.ones((1, 1)), np.full((2, 1), 0.25), horizon=2)
    prompt = bp.Prompt(np.zeros((3, 2), int), np.zeros((3, 1), int), None, [0])
    assert bp.posterior(one, prompt).probabilities.tolist() == [1.0]
    assert bp.posterior(one, prompt).log_evidence == 0
    assert bp.bail(one, prompt).tolist() == [1.0]
    assert np.asarray(bp.solve_experts(one).value) == pytest.approx(np.array([[0.5]]))
    curves = bp.simulate_regret(one, 0, episodes=2, seeds=2)
    assert curves.regret.tolist() == [[0.0, 0.0]] * 2
    assert curves.true_task.tolist() == [[1.0, 1.0]] * 2
    assert (bp.sample_corpus(one, 2, 2).labels == 0).all()


@pytest.mark.parametrize("method", [None, "states", "histories", "alpha"])
def test_horizon_one_has_observations_and_no_decision(method):
    emission = [[[0.75, 0.25]], [[0.25, 0.75]]]
    short = bp.Family([0.5, 0.5], [1.0], np.ones((3, 1, 1)), emission, [[0.0, 1.0]], horizon=1)
    prompt = bp.Prompt([[0], [0]], np.zeros((2, 0), int))
    assert bp.posterior(short, prompt).probabilities == pytest.approx([0.9, 0.1], abs=1e-12)
    assert bp.Prompt([[0], [0]]).num_episodes == 2  # without a decision, subgoals may be left out
    assert bp.posterior_path(short, prompt) == pytest.approx(np.array([[0.5, 0.5], [0.75, 0.25], [0.9, 0.1]]))
    assert log_evidence(short, [[1]], np.zeros((1, 0), int)) == pytest.approx(np.log([[0.25], [0.75]]))
    assert np.asarray(bp.solve_experts(short, method=method).value) == pytest.approx(np.array([[0.25], [0.75]]))
    assert policy_value(short, "uniform") == pytest.approx(np.array([[0.25], [0.75]]))
    assert enumerate_histories(short).count == 2
    with pytest.raises(bp.InvalidPromptError, match="decision"):
        bp.bail(short, bp.Prompt(current_observations=[0]))


@pytest.mark.parametrize("rows", [[[[1.0, 0.0]], [[0.0, 1.0]]], [[[0.75, 0.25], [0.5, 0.5]]]])
def test_horizon_one_can_be_simulated(rows):
    S = len(rows[0])
    prior = np.full(len(rows), 1 / len(rows))
    short = bp.Family(prior, np.eye(S)[0], np.full((3, S, S), 1 / S), rows, [[0.0, 1.0]], horizon=1)
    assert bp.simulate_regret(short, 0, episodes=3, seeds=2).regret.tolist() == [[0.0] * 3] * 2
    corpus = bp.sample_corpus(short, 2, 1)
    assert corpus.observations.shape == (2, 1, 1)
    assert corpus.labels.shape == (2, 1, 0)


def test_no_episode_at_all():
    none = log_evidence(family(), np.zeros((0, H), int), np.zeros((0, H - 1), int))
    assert none.shape == (Z, 0)
    assert prefix_log_evidence(family(), np.zeros((0, H), int), np.zeros((0, H - 1), int)).shape == (Z, 0, H)
    assert bp.posterior(family(), bp.Prompt()).probabilities == pytest.approx([0.25, 0.75], abs=1e-15)


def test_a_world_of_a_family_is_a_family_of_one_task():
    whole = family()
    for z in range(Z):
        world = whole.world(z)
        alone = Oracle(bp.enumerate_program(lambda world=world: world))
        o, g = (0, 1, 0), (1, 0)
        assert alone.likelihood(0, o, g) == Oracle(whole).likelihood(z, o, g)
    with pytest.raises(bp.InvalidWorldError, match="task = 2"):
        whole.world(2)


# --- precision and globals --------------------------------------------------------------------------------------


EMISSION = [[0.7, 0.3], [0.4, 0.6]]
REWARD = [[0.0, 0.0], [0.1, 0.2], [0.3, 1.0]]


def test_float64_arrays_stay_float64_and_no_flag_changes():
    assert not jax.config.jax_enable_x64
    double = bp.Family([0.25, 0.75], [[0.9, 0.1], [0.2, 0.8]], np.full((2, 2, 2), 0.5), EMISSION, REWARD, horizon=3)
    single = double.astype("float32")
    prompt = bp.Prompt(**EPISODES, current_observations=[0])
    # A probability that float32 cannot hold next to 1 survives in float64.
    tiny = family(**changed("emission", (0, 0), [1 - 1e-12, 1e-12]))
    assert tiny.emission[0, 0, 0] != 1.0
    assert tiny.astype("float32").emission[0, 0, 0] == 1.0

    def entry_points(f):
        experts = bp.solve_experts(f)
        assert not jax.config.jax_enable_x64
        yield log_evidence(f, [[0, 1, 1]], [[1, 0]])
        yield prefix_log_evidence(f, [[0, 1, 1]], [[1, 0]])
        yield bp.simulate_regret(f, 0, episodes=1, seeds=1, experts=experts).regret
        yield bp.sample_corpus(f, 1, 1, experts=experts).bail
        assert np.asarray(experts.value).dtype == np.float64  # values are always solved in float64
        for always in (
            bp.posterior(f, prompt).probabilities,
            bp.posterior_path(f, prompt),
            bp.state_posterior(f, prompt),
            bp.bail(f, prompt, experts=experts),
            policy_value(f, BailPlanner(f, experts)),
        ):
            assert np.asarray(always).dtype == np.float64

    for f in (double, single):
        for result in entry_points(f):
            assert isinstance(result, np.ndarray)
            assert result.dtype == f.dtype
            assert not jax.config.jax_enable_x64
    assert bp.enumerate_program(bp.load_model("safe_or_risky")).dtype == np.float64
    assert not jax.config.jax_enable_x64
    assert jnp.ones(2).dtype == np.float32
    with pytest.raises(bp.ImpossibleEvidenceError):
        bp.posterior(family(emission=[[1.0, 0.0]] * S), prompt)
    assert not jax.config.jax_enable_x64


def test_under_a_trace_evidence_follows_it_and_impossible_evidence_is_no_nan():
    f = family(emission=np.array([[[1.0, 0.0]] * S, [[0.5, 0.5]] * S]))

    def evidence(emission):
        traced = bp.Family(**{**arrays(), "emission": emission})
        return log_evidence(traced, np.array([[0, 1, 1], [0, 0, 0]]), np.array([[1, 0]] * 2))

    found = jax.jit(evidence)(jnp.asarray(f.emission, jnp.float32))
    assert found.dtype == np.float32
    assert np.asarray(found)[0, 0] == -np.inf
    assert np.asarray(found)[1] == pytest.approx(3 * np.log(0.5), rel=1e-5)
    gradient = jax.grad(lambda e: evidence(e)[1].sum())(jnp.asarray(f.emission, jnp.float32))
    assert np.isfinite(gradient).all()
    with pytest.raises(bp.InvalidWorldError, match="emission has shape"):
        jax.jit(evidence)(jnp.ones((Z, S + 1, O)) / O)


def test_import_changes_nothing_global():
    code = """
import os, sys
before = dict(os.environ)
import jax
names = ("jax_enable_x64", "jax_platforms", "jax_default_matmul_precision")
flags = {name: getattr(jax.config, name) for name in names}
import bayespar
assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
assert "XLA_FLAGS" not in os.environ
assert flags == {name: getattr(jax.config, name) for name in flags}
import bayespar.models
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
print("ok")
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XLA_", "JAX_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "ok", done.stderr


# --- prompts in words -------------------------------------------------------------------------------------------

words = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=8).filter(
    lambda t: t == t.strip() and len(t.splitlines()) == 1
)


@settings(max_examples=60)
@given(families(LAYOUTS[3:]), seeds, st.data())
def test_prompts_survive_words_and_json(world, seed, data):
    def names(count):
        given_names = st.lists(words, min_size=count, max_size=count, unique=True)
        return data.draw(st.one_of(given_names, st.permutations(["Subgoal: x", "Episode 3", "ключ", "a: b"])))[:count]

    oracle = Oracle(world)
    f = bp.Family(
        world.task_prior,
        world.initial,
        world.transition,
        world.emission,
        world.reward,
        horizon=world.horizon,
        subgoals=names(oracle.G),
        observations=names(oracle.O),
        instructions=names(oracle.W),
    )
    rng = np.random.default_rng(seed)
    past, w, o, g = oracle.draw_prompt(rng, int(rng.integers(3)), int(rng.integers(oracle.H + 1)))
    prompt = as_prompt((past, w, o, g))
    for again in (
        bp.Prompt.from_text(prompt.to_text(f), f),
        bp.Prompt.from_json(prompt.to_json(f), f),
        bp.Prompt.from_dict(json.loads(json.dumps(prompt.to_dict(f))), f),
    ):
        assert again.num_episodes == prompt.num_episodes
        for name in ("observations", "subgoals") if past else ():
            assert np.array_equal(getattr(again, name), getattr(prompt, name)), name
        for name in ("instructions", "current_observations", "current_subgoals", "current_instruction"):
            assert np.array_equal(getattr(again, name), getattr(prompt, name)), name


def test_the_words_of_a_prompt():
    f = family(subgoals=["go", "stop"], observations=["red", "green"], instructions=["drive", "wait"])
    prompt = bp.Prompt(**EPISODES, instructions=[1], current_observations=[1])
    assert prompt.to_text(f) == (
        "Episode 1\nInstruction: wait\nObservation: red\nSubgoal: stop\nObservation: green\nSubgoal: go\n"
        "Observation: green\n\nEpisode 2 (now)\nInstruction: drive\nObservation: green\n"
    )
    assert bp.Prompt().to_text(f) == "Episode 1 (now)\nInstruction: drive\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "Episode 1\nObservation: observation 0",
        "Episode 1\nInstruction: instruction 0\nSubgoal: subgoal 0",
        "Episode 1\nInstruction: instruction 0\nObservation: nothing",
        "Episode 1\nInstruction: instruction 0\nInstruction: instruction 0",
        "Episode 1\nInstruction: instruction 0\n\nEpisode 2 (now)\nInstruction: instruction 0",  # 1 is unfinished
        "Instruction: instruction 0",
    ],
)
def test_malformed_words(text):
    with pytest.raises(bp.InvalidPromptError):
        bp.Prompt.from_text(text, family())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "an object with the keys"),
        ('{"past": []}', "an object with the keys"),
        ('{"episodes": {}}', "must be a list"),
        ('{"episodes": [3]}', r"episodes\[0\] must be an object"),
        ('{"episodes": [{"instruction": 0}]}', "0 observations and 0 subgoals"),
        ('{"current": {"observations": [0]}}', "current has no instruction"),
        ('{"current": {"instruction": 0, "observations": "red"}}', "must be a list"),
        ('{"current": {"instruction": 0, "observations": [9]}}', "which the world does not know"),
        ('{"current": {"instruction": 0, "observations": [true]}}', "which the world does not know"),
        ('{"current": {"instruction": 0, "observations": [0.0]}}', "which the world does not know"),
        ('{"current": {"instruction": null}}', "which the world does not know"),
        ('{"current": {"instruction": 0, "observations": [[0]]}}', "which the world does not know"),
        ('{"current": {"instruction": 0, "observations": [0, 0]}}', "2 entries and current_subgoals 0"),
        ('{"current": {"instruction": 0, "labels": [0]}}', "must be an object with"),
    ],
)
def test_malformed_json(text, said):
    with pytest.raises(bp.InvalidPromptError, match=said):
        bp.Prompt.from_json(text, family())


# --- programs ---------------------------------------------------------------------------------------------------


def plain(**changes) -> bp.World:
    return bp.World(**({"initial": [0.5, 0.5], "transition": np.full((2, 2, 2), 0.5), "emission": np.eye(2),
                        "reward": np.zeros((2, 2)), "horizon": 2} | changes))  # fmt: skip


def test_program_errors():
    def continuous():
        numpyro.sample("x", dist.Normal(0, 1))
        return plain()

    def twice():
        numpyro.sample("x", dist.Bernoulli(0.5))
        numpyro.sample("x", dist.Bernoulli(0.5))
        return plain()

    def wrong():
        return numpyro.sample("x", dist.Bernoulli(0.5))

    def reward_of_task():
        pays = numpyro.sample("pays", dist.Bernoulli(0.5))
        return plain(reward=np.full((2, 2), float(pays)))

    def horizon_of_task():
        steps = 2 + int(numpyro.sample("long", dist.Bernoulli(0.5)))
        return plain(reward=np.zeros((steps, 2)), horizon=steps)

    def words_of_task():
        return plain(observations=["a", f"b{int(numpyro.sample('b', dist.Bernoulli(0.5)))}"])

    def impossible():
        numpyro.sample("x", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Delta(np.array(1.0)), obs=np.array(0.0))
        return plain()

    def unknown_label():
        return plain(initial=lambda: "the garden", states=["kitchen", "hall"])

    def no_labels():
        return plain(initial=lambda: 0)

    def continuous_inside():
        return plain(emission=lambda s: numpyro.sample("x", dist.Beta(1, 1)), states=2, observations=2)

    for program, error, said in [
        (continuous, bp.InvalidProgramError, "site 'x' is Normal"),
        (twice, bp.InvalidProgramError, "site 'x' is sampled twice"),
        (wrong, bp.InvalidProgramError, "must return a bayespar.World"),
        (lambda: None, bp.InvalidProgramError, "returned NoneType"),
        (reward_of_task, bp.InvalidProgramError, "reward differs between the tasks .*must not depend on the task"),
        (horizon_of_task, bp.InvalidProgramError, "other horizon"),
        (words_of_task, bp.InvalidProgramError, "other observations"),
        (impossible, bp.InvalidProgramError, "probability 0 under every task"),
        (unknown_label, bp.InvalidProgramError, r"initial\(\) returned 'the garden', which is not one of the world's"),
        (no_labels, bp.InvalidWorldError, "initial is a sub-program, so the world must say its states"),
        (continuous_inside, bp.InvalidProgramError, "site 'x' is Beta"),
    ]:
        with pytest.raises(error, match=said):
            bp.enumerate_program(program)
    with pytest.raises(bp.InvalidProgramError, match="there is no world 'atlantis'"):
        bp.load_model("atlantis")


def leaves_of(program) -> dict:
    """{site values: weight} of every run."""
    with jax.enable_x64(True):
        return {tuple(np.asarray(v).tolist() for v in leaf.sites.values()): float(leaf.weight)
                for leaf in enumerate_leaves(program)}  # fmt: skip


def test_enumeration_keeps_exact_zeros_and_ones():
    for p in (0.0, 1.0):
        assert leaves_of(lambda p=p: numpyro.sample("x", dist.Bernoulli(p))) == {(int(p),): 1.0}
    assert leaves_of(lambda: numpyro.sample("x", dist.Categorical(np.array([0.5, 0.0, 0.5])))) == {(0,): 0.5, (2,): 0.5}

    def program():
        # Sensors that never err leave exact zeros in the kernel.
        def emission(state):
            return int(numpyro.sample("heard", dist.Bernoulli(float(state))))

        return plain(emission=emission, states=2, observations=2)

    family_of = bp.enumerate_program(program)
    assert family_of.emission[0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_sites_may_depend_on_each_other_in_value_and_in_support():
    def program():
        n = int(numpyro.sample("n", dist.DiscreteUniform(1, 3)))
        k = int(numpyro.sample("k", dist.DiscreteUniform(0, n - 1)))
        if k == 0:
            numpyro.sample("extra", dist.Bernoulli(0.25))

    expected = {}
    for n in (1, 2, 3):
        for k in range(n):
            for tail, p in [((0,), 0.75), ((1,), 0.25)] if k == 0 else [((), 1.0)]:
                expected[(n, k, *tail)] = pytest.approx(p / (3 * n), abs=1e-15)
    assert leaves_of(program) == expected


def test_plates_and_observed_sites():
    def program():
        with numpyro.plate("sensors", 2):
            x = numpyro.sample("x", dist.Bernoulli(np.array([0.25, 1.0])))
        numpyro.sample("seen", dist.Categorical(np.array([0.9, 0.1])), obs=int(x[0]))

    with jax.enable_x64(True):
        found = {tuple(np.asarray(leaf.sites["x"]).tolist()): float(leaf.weight) for leaf in enumerate_leaves(program)}
    # Sensor 1 always fires: its other value has weight 0, whether or not it is listed.
    assert {x: p for x, p in found.items() if p > 0} == {
        (0, 1): pytest.approx(0.75 * 0.9, abs=1e-7),
        (1, 1): pytest.approx(0.25 * 0.1, abs=1e-7),
    }


def test_a_sub_program_that_tasks_share_is_enumerated_once():
    calls = []

    def emission(state):
        calls.append(state)
        return int(numpyro.sample("o", dist.Bernoulli(0.25 + 0.5 * state)))

    def program():
        first = int(numpyro.sample("first", dist.DiscreteUniform(0, 4)) > 1)
        return plain(initial=lambda: first, emission=emission, states=2, observations=2)

    f = bp.enumerate_program(program)
    assert len(calls) == 4  # two values of one site in each of two states, whatever the number of tasks
    assert f.emission.shape == (1, 2, 2)
    assert f.initial.shape == (5, 2)
    assert f.transition.shape == (1, 1, 2, 2, 2)
    bp.enumerate_program(program)
    assert len(calls) == 8  # and nothing is remembered from one enumeration to the next


def two_rooms() -> bp.World:
    room = int(numpyro.sample("room", dist.Categorical(np.array([0.2, 0.3, 0.5]))))
    lit = numpyro.sample("lit", dist.Bernoulli(0.25))
    return plain(
        initial=np.array([1.0, 0.0]) if room else np.array([0.5, 0.5]),
        emission=np.array([[0.75, 0.25], [0.5, 0.5]]) if lit else np.eye(2),
    )


def test_marginals_of_sites_and_datatree():
    f = bp.enumerate_program(two_rooms)
    prompt = bp.Prompt([[0, 1]], [[0]], None, [1])
    found = bp.posterior(two_rooms, prompt)
    oracle = Oracle(f)
    expected = oracle.posterior((((0, (0, 1), (0,)),), 0, (1,), ()))
    assert found.probabilities == pytest.approx(expected, abs=1e-12)
    sites = dict(f.sites)
    for name, values in [("room", [0, 1, 2]), ("lit", [0, 1])]:
        marginal = found.marginal(name)
        assert marginal.dims == (name,)
        assert marginal.coords[name].values.tolist() == values
        for value in values:
            weight = sum(p for p, v in zip(expected, sites[name], strict=True) if v == value)
            assert float(marginal.sel({name: value})) == pytest.approx(weight, abs=1e-12)
    assert found.marginal("task").values == pytest.approx(expected, abs=1e-12)
    with pytest.raises(bp.InvalidProgramError, match="there is no site 'cellar'; the sites are task, room, lit"):
        found.marginal("cellar")

    tree = found.to_datatree()
    assert set(tree.children) >= {"posterior", "prior", "log_likelihood"}
    assert np.array_equal(tree["posterior/probability"].values, found.probabilities)
    assert np.array_equal(tree["prior/probability"].values, f.task_prior)
    assert tree["posterior"].coords["task"].values.tolist() == list(f.tasks)
    assert tree["log_likelihood/log_likelihood"].dims == ("task", "episode")
    assert np.array_equal(tree["log_likelihood/log_likelihood"].values, log_evidence(f, [[0, 1]], [[0]]))
    assert tree.attrs["log_evidence"] == found.log_evidence
    assert tree.attrs["method"] == "exact"


def test_a_program_stands_for_its_family_everywhere():
    program = functools.partial(bp.load_model("safe_or_risky"), prior=0.25)
    f = bp.enumerate_program(program)
    prompt = bp.Prompt(current_observations=[0])
    assert np.array_equal(bp.posterior(program, prompt).probabilities, bp.posterior(f, prompt).probabilities)
    assert np.array_equal(bp.posterior_path(program, prompt), bp.posterior_path(f, prompt))
    assert np.array_equal(bp.state_posterior(program, prompt), bp.state_posterior(f, prompt))
    assert np.array_equal(bp.bail(program, prompt), bp.bail(f, prompt))
    assert np.array_equal(bp.solve_experts(program).value, bp.solve_experts(f).value)


@pytest.mark.parametrize("file", ["missing.py", "broken.py", "empty.py"])
def test_a_world_file_that_holds_no_program(file, tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "empty.py").write_text("x = 1\n")
    said = {"missing.py": "there is no file", "broken.py": "ZeroDivisionError", "empty.py": "no function named 'empty'"}
    with pytest.raises(bp.InvalidProgramError, match=said[file]):
        bp.load_model(str(tmp_path / file))


def test_a_world_file_of_ones_own(tmp_path):
    (tmp_path / "attic.py").write_text(
        "import numpy as np\nimport bayespar as bp\n"
        "def attic():\n    return bp.World([1.0], np.ones((1, 1, 1)), [[1.0]], np.ones((2, 1)), horizon=2)\n"
    )
    assert bp.solve_experts(bp.load_model(tmp_path / "attic.py")).value.tolist() == [[2.0]]


def test_ragged_input_is_named():
    with pytest.raises(bp.InvalidWorldError, match="next_states is ragged"):
        bp.Sparse([[0, 1], [0]], [[0.5, 0.5], [1.0, 0.0]])
    with pytest.raises(bp.InvalidPromptError, match="observations is ragged"):
        bp.Prompt([[0, 1], [0]])


@pytest.mark.parametrize(("probability", "masses"), [(0.0, [1.0]), (1.0, [1.0]), (0.25, [9 / 16, 6 / 16, 1 / 16])])
def test_a_binomial_keeps_exact_zeros(probability, masses):
    leaves = list(enumerate_leaves(lambda: numpyro.sample("n", dist.Binomial(2, probability))))
    assert [float(leaf.weight) for leaf in leaves] == masses
    assert int(leaves[0].value) == (2 if probability == 1 else 0)
