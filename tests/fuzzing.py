"""Fuzzing of every public entry: valid tiny inputs of which one or two things are then broken.

An input is made from (seed, index) alone, so any of them can be replayed:

    python tests/fuzzing.py --count 20000
    python tests/fuzzing.py --only 1234

What may happen to an input is a result without NaN, or one of the documented errors that names what is wrong, within
20 seconds. What is refused must be refused before anything is compiled: refused inputs are tried once more at the end,
with nothing compiled yet, and must leave it so. Exempt is what only shows when something runs: what a planner returns,
what a program samples, evidence that turns out to be impossible.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import dataclasses
import functools
import io
import json
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import xarray as xr
from numpyro.infer.util import log_density

import bayespar as bp
from bayespar.cli import main as command_line
from bayespar.planning.exploration import as_exploration
from bayespar.posterior.result import Posterior

SECONDS = 20
COMPILED = "/jax/core/compile/backend_compile_duration"

# Results: the library makes them and never reads them, or they are plain records of what another entry is given.
RECORDS = {
    "ActorDistance", "Audit", "BailEstimate", "Corpus", "Demonstrations", "Design", "DrawnCorpus", "Episode",
    "ExpectedRegret", "Histories", "Imitation", "Latents", "LowLevelRollout", "Observed", "Particles", "Plan",
    "Planner", "Recommendation", "Recommendations", "RegretCurves", "TaskClasses", "Trained", "TrainingBatch",
    "WorldModel",
}  # fmt: skip


class Case(NamedTuple):
    """One input.

    Attributes:
        entry: name of the entry.
        call: runs it.
        arguments: what it is called with.
        broken: names of the arguments that were broken.
        words: a refusal must contain one of these.
        late: whether what is wrong can only show when something runs.
    """

    entry: str
    call: Callable[[], Any]
    arguments: dict[str, Any]
    broken: tuple[str, ...]
    words: tuple[str, ...]
    late: bool


@dataclasses.dataclass(frozen=True)
class Entry:
    """A public entry.

    Attributes:
        function: called with the arguments by keyword.
        arguments: draws valid ones: name -> (kind, value).
        weight: how often it is drawn.
        valid: how often nothing is broken.
        refuses: words of refusals that valid arguments may meet.
    """

    function: Callable[..., Any]
    arguments: Callable[[np.random.Generator], dict[str, tuple[str, Any]]]
    weight: float = 1.0
    valid: float = 0.2
    refuses: tuple[str, ...] = ()


# --- valid inputs -----------------------------------------------------------------------------------------------


def rows(rng: np.random.Generator, shape: tuple[int, ...], zeros: bool = True) -> np.ndarray:
    """Random distributions; some with exact zeros."""
    counts = rng.choice([0, 0, 1, 2, 5] if zeros else [1, 2, 5], size=shape)
    empty = counts.sum(axis=-1) == 0
    counts[empty, rng.integers(shape[-1], size=int(empty.sum()))] = 1
    return counts / counts.sum(axis=-1, keepdims=True)


def family_arguments(rng: np.random.Generator, sizes: Sequence[int], zeros: bool = True) -> dict[str, Any]:
    """The arguments of a family of these Z, S, G, O, H, W."""
    Z, S, G, O, H, W = sizes
    return {
        "task_prior": rows(rng, (Z,), zeros),
        "initial": rows(rng, (Z, S), zeros),
        "transition": rows(rng, (Z, 1, G, S, S), zeros),
        "emission": rows(rng, (Z, S, O), zeros),
        "reward": rng.integers(0, 11, (H, O, W)) / 10,
        "horizon": H,
        "instruction_prior": rows(rng, (W,), zeros),
    }


@functools.cache
def families() -> tuple[bp.Family, ...]:
    """Families of three shapes, so that little is compiled."""
    rng = np.random.default_rng(0)
    words = {
        "tasks": ["ключ 🗝", "[/bold] task"],
        "observations": ["a cup", "[red]nothing"],
        "subgoals": ["look: left", "__import__('os')"],
        "instructions": ["bring Ada the cup", "!!python/object:os.system"],
        "sites": {"where": ["kitchen", "pantry"], "p": [0.5, 0.25]},
    }
    made = []
    for change in ("none", "zeros", "equal", "observed", "single"):
        arguments = family_arguments(rng, (2, 2, 2, 2, 3, 2), zeros=change == "zeros")
        if change == "equal":
            for name in ("initial", "transition", "emission"):
                arguments[name][1] = arguments[name][0]
        if change == "observed":
            arguments["emission"] = np.eye(2)
        made.append(bp.Family(**arguments, **(words if change in ("none", "zeros") else {})))
    made[-1] = made[-1].astype("float32")
    sparse = family_arguments(rng, (3, 2, 2, 3, 2, 1), zeros=False)
    sparse["transition"] = bp.Sparse(rng.integers(2, size=(3, 1, 2, 2, 2)), rows(rng, (3, 1, 2, 2, 2)))
    sparse["task_prior"] = np.array([0.5, 0.0, 0.5])
    made.append(bp.Family(**sparse))
    made.append(bp.Family(**family_arguments(rng, (2, 1, 2, 2, 1, 1), zeros=False)))
    return tuple(made)


def program() -> bp.World:
    """A coin of one of two biases."""
    z = numpyro.sample("bias", dist.Bernoulli(0.25))
    return bp.World([1.0, 0.0], [[[1 - 0.5 * z, 0.5 * z], [0, 1]], [[1, 0], [0, 1]]], [[0.9, 0.1], [0.2, 0.8]],
                    [[0, 1], [0.5, 1]], horizon=2, observations=["tails", "heads"])  # fmt: skip


@functools.cache
def experts_of(family: int) -> Any:
    return bp.solve_experts(families()[family])


@functools.cache
def histories_of(family: int) -> Any:
    return bp.enumerate_histories(families()[family])


def draw_prompt(rng: np.random.Generator, family: bp.Family) -> dict[str, Any]:
    """The arguments of a prompt that fits."""
    n, h = int(rng.integers(3)), int(rng.integers(family.horizon + 1))
    return {
        "observations": rng.integers(family.num_observations, size=(n, family.horizon)),
        "subgoals": rng.integers(family.num_subgoals, size=(n, family.horizon - 1)),
        "instructions": rng.integers(family.num_instructions, size=n),
        "current_observations": rng.integers(family.num_observations, size=h),
        "current_subgoals": rng.integers(family.num_subgoals, size=max(h - 1, 0)),
        "current_instruction": int(rng.integers(family.num_instructions)),
    }


def start(instruction: Any, key: Any) -> Any:
    return jnp.int32(0)


def first_subgoal(state: Any, observed: Any) -> Any:
    return state, jnp.array([0.75, 0.25])


def by_prompt(prompt: bp.Prompt) -> Any:
    return [0.5, 0.5]


class Stuck(bp.Planner):
    """A planner without a step."""


POLICIES = ["uniform", (start, first_subgoal), by_prompt]


def returns(*values: Any) -> list[Callable[..., Any]]:
    return [lambda prompt, value=value: value for value in values]


# What a planner returns is known only when it runs.
LATE_POLICIES = returns(
    [np.nan, 1.0], [0.5, 0.6], [-1.0, 2.0], [1.0], None, "half", [[0.5, 0.5]] * 2, {}, [np.inf, 0],
    [1 + 0j, 0], ["a", "b"]
)  # fmt: skip
LATE_POLICIES += [(start, lambda state, observed: (state, jnp.array([jnp.nan, 1.0])))]
BAD_POLICIES: list[Any] = [
    "nope", "", "ключ", None, 5, np.nan, (), (start,), (start, 1), (1, 2, 3), [start, first_subgoal], object(), {},
    np.ones(2), bp.Planner(), Stuck(),
    (start, lambda state, observed: (state, jnp.ones(5) / 5)),
    (start, lambda state, observed: (state, 1.0)),
    (start, lambda state, observed: (state, "half")),
    (start, lambda state, observed: None),
    (start, lambda state, observed: (state, jnp.array([0.5, 0.5]), 1)),
    (start, lambda state, observed: (jnp.zeros(2), jnp.array([0.5, 0.5]))),
    (start, lambda state, observed: (state, jnp.array([0.5j, 0.5]))),
    (lambda instruction, key: "state", first_subgoal),
]  # fmt: skip


class Told(bp.Planner):
    """A planner that knows a task, and picks its subgoal by it."""

    task: Any = 0

    def init(self, instruction: Any, key: Any) -> Any:
        return jnp.int32(0)

    def step(self, state: Any, observed: Any) -> Any:
        return state, jax.nn.one_hot(self.task % 2, 2)


@functools.cache
def planners() -> tuple[bp.Planner, ...]:
    """Objects that are planners."""
    return (Told(), *(bp.as_planner(given, families()[0], episodes=9) for given in POLICIES[1:]))


# --- how to break them ------------------------------------------------------------------------------------------

JUNK: list[Any] = [
    None, "", "text", b"bytes", "ключ 🗝", "\ud800", -1, 2.5, np.nan, np.inf, True, 1j, {}, [], (), {1, 2},
    object(), [[1], [1, 2]],
    [None], ["a"], {"a": 1}, 10**30, -(10**30), 10**5000, Decimal("NaN"), np.datetime64("2020-01-01"),
    range(3), int, len, np.array(None),
    np.zeros((0, 3)), np.zeros((2,) * 20), [10**400], np.ma.masked_array([1.0, 2.0], [True, False]),
    np.zeros(2, [("a", float)]),
    slice(None), Ellipsis, memoryview(b"ab"), float("1e308"), np.float32("nan"), [[]], np.array(["a",
    "b"]), print, bp.BayesparError,
]  # fmt: skip


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


JUNK += [nested(100), nested(5000)]


def pick(rng: np.random.Generator, values: Sequence[Any]) -> Any:
    return values[int(rng.integers(len(values)))]


def break_array(rng: np.random.Generator, value: Any) -> Any:
    """Another shape, dtype or entry."""
    if rng.random() < 0.2:
        return pick(rng, JUNK)
    if isinstance(value, bp.Sparse):
        return pick(rng, [value.dense(5), value.next_states, value.probabilities[..., :1], (value.next_states, 1)])
    array, kind = np.array(value), int(rng.integers(8))
    if kind == 0:
        array = np.atleast_1d(array)
    if kind == 0:
        return pick(
            rng, [array[None], array[..., None], array[:0], array[..., :0], np.concatenate([array, array]), array.T]
        )
    if kind == 1 and array.ndim:
        return pick(
            rng,
            [array[0] if len(array) else array, np.repeat(array, 2, axis=-1), array.sum(axis=-1), array.tolist()[:-1]],
        )
    if kind == 2:
        dtypes = [
            complex,
            object,
            str,
            bool,
            np.float16,
            np.longdouble,
            "datetime64[s]",
            "S3",
            np.uint8,
            np.int8,
            np.float32,
        ]
        with contextlib.suppress(ValueError, TypeError):
            return array.astype(pick(rng, dtypes))
        return array.astype(object)
    if kind == 3:
        return array * pick(rng, [0.0, -1.0, 2.0, 1e308, 1e-320, 1 + 1e-7, np.longdouble(10) ** 4000])
    if array.size == 0:
        return pick(rng, JUNK)
    if array.dtype.kind in "iu":
        array = array.astype(pick(rng, [np.int64, np.float64]))
        wrong = [-1, 10, 2**31, 2**62] if array.dtype.kind == "i" else [np.nan, 0.5, -1.0, np.inf]
    else:
        wrong = [np.nan, np.inf, -np.inf, -0.1, 2.0, 1e308, -1e308, 1e-320, -0.0, 0.3]
    array[tuple(int(rng.integers(n)) for n in array.shape)] = pick(rng, wrong)
    return array if rng.random() < 0.7 else array.tolist()


def break_names(rng: np.random.Generator, value: Any) -> Any:
    names = ["a", "b"] if isinstance(value, int) else list(value)
    return pick(
        rng,
        [
            [*names, "one more"], names[1:], [names[0]] * len(names), ["\n", *names[1:]], ["", *names[1:]],
            ["\ud800", *names[1:]], ["a\x00", *names[1:]], [" ", *names[1:]], [10**5000, *names[1:]],
            [None, *names[1:]],
            {}, 5, -1, 0, 10**9, 2.5, "x", iter(names), [names, names], [nested(5000), *names[1:]],
            ["x" * 10**5, *names[1:]],
            [np.nan, *names[1:]], object(), True, (("a", ("b",)), *names[1:]), b"ab", np.arange(len(names)),
        ],
    )  # fmt: skip


def break_sites(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [
            [], [1], "text", 5, {"a": 5}, {"a": []}, {"a": "x"}, {"a": [[1], [2]]}, {"a": [{}, {}]},
            {5: [1, 2]}, {"a": None},
            {"a": [1j, 2j]}, {"task": [1, 2]}, {"a": [np.nan, None]}, {"a": [np.zeros(2), np.zeros(2)]},
            {"": [1, 2]}, {"\ud800": [1, 2]},
            {"a": [(1, 2), (1, "b")]}, {"a": ["x", 3]}, {None: [1, 2]}, {"a": [object(), object()]}, [("a", [1, 2])],
        ],
    )  # fmt: skip


def break_count(rng: np.random.Generator, value: Any) -> Any:
    return pick(rng, [0, -1, -(10**5000), 10**13, 10**30, 10**5000, 2.5, 2.0, np.nan, np.inf, True, None,
        "3", [3], 1j, {}, np.int8(-3),
                      np.float64(3), np.array([3]), b"3", object(), np.array(3.5)])  # fmt: skip


def break_key(rng: np.random.Generator, value: Any) -> Any:
    return pick(rng, [None, "key", 2.5, np.nan, 10**30, -(10**30), 2**64, 10**5000, [1, 2], np.zeros(3,
        np.uint32), np.zeros(0), {}, object(),
                      np.uint32([1, 2, 3]), 1j, b"0", True, np.array("a"), np.zeros((2, 2),
                      np.uint32)])  # fmt: skip


def break_fraction(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [0, 1, -0.5, 1.5, np.nan, np.inf, None, "half", [0.5], 1j, 10**30, True, {}, object(), np.array([0.5, 0.5])],
    )


def break_word(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [
            "nope",
            "",
            "ключ",
            "\ud800",
            "[/red]",
            5,
            2.5,
            [],
            {},
            object(),
            b"exact",
            True,
            np.nan,
            ("exact",),
            "x" * 10**4,
        ],
    )


def break_task(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [
            -1,
            99,
            10**30,
            -(10**5000),
            2.5,
            1.0,
            np.nan,
            None,
            True,
            "nobody",
            "",
            "\ud800",
            [0],
            {},
            np.int64(9),
            np.array([0]),
            1j,
            (0,),
        ],
    )


def not_a_world() -> int:
    return 3


def two_worlds() -> bp.World:
    z = numpyro.sample("z", dist.Bernoulli(0.5))
    return families()[0].world(0) if z else families()[5].world(0)


def broken_program() -> bp.World:
    return {}["no such key"]


def continuous() -> bp.World:
    numpyro.sample("x", dist.Normal(0, 1))
    return program()


def improper() -> bp.World:
    numpyro.sample("x", dist.Categorical(np.array([0.5, np.nan])))
    return program()


def repeated() -> bp.World:
    numpyro.sample("x", dist.Bernoulli(0.5))
    numpyro.sample("x", dist.Bernoulli(0.5))
    return program()


def needs_arguments(size: int) -> bp.World:
    return program()


PROGRAMS: list[Any] = [not_a_world, two_worlds, broken_program, continuous, improper, repeated, needs_arguments]
PROGRAMS += [lambda: numpyro.sample("x", dist.Poisson(3.0)), lambda: numpyro.sample("x",
    dist.Delta(np.nan)), lambda: bp.World,
             lambda: numpyro.sample("a", 5), lambda: numpyro.sample("a", dist.Bernoulli(np.nan)),
             lambda: 1 // 0]  # fmt: skip


def break_family(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [
            None,
            "kitchen",
            5,
            {},
            [],
            families()[0].world(0),
            bp.Prompt(),
            np.zeros(3),
            object(),
            bp.Family,
            bp.World,
            int,
            1j,
            *PROGRAMS,
        ],
    )


def break_prompt(rng: np.random.Generator, value: Any) -> Any:
    if rng.random() < 0.5:
        return pick(rng, [None, "Episode 1", {}, [], 5, object(), bp.Prompt, families()[0], {"episodes": []}, ((), ())])
    return pick(rng, [
        bp.Prompt([[0] * 9], [[0] * 8]), bp.Prompt([[9, 9, 9]], [[0, 0]]), bp.Prompt([[0, 0, 0]], [[9,
        9]]), bp.Prompt(current_observations=[9]),
        bp.Prompt(current_observations=[0] * 9, current_subgoals=[0] * 8),
        bp.Prompt(current_instruction=9), bp.Prompt([[0, 0, 0]], [[0, 0]], [9]),
        bp.Prompt(np.zeros((0, 7), int), np.zeros((0, 6), int), None, [9]),
    ])  # fmt: skip


def break_experts(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        ["exact", 5, {}, [], object(), np.zeros((2, 2)), families()[0], experts_of(5), experts_of(6), bp.solve_experts],
    )


def break_histories(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [
            "all",
            5,
            {},
            [],
            object(),
            np.zeros((2, 2)),
            families()[0],
            histories_of(5),
            histories_of(6),
            histories_of(1),
        ],
    )


def break_policy(rng: np.random.Generator, value: Any) -> Any:
    return pick(rng, BAD_POLICIES + LATE_POLICIES)


def break_schedule(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [
            -0.1, 1.1, np.nan, np.inf, "often", "", "ключ", None, {}, [], [0.5], [0.5] * 9, [[0.5]], ["a",
            "b"], 1j, [[1], [1, 2]], object(), 10**400,
            [np.nan, 0.5], np.array([0.5, 1.5]), bp.Exploration(np.zeros(9), np.full(9, np.inf)),
            b"gated", len, Decimal("NaN"), np.datetime64("2020"),
            np.array(["0.5", "0.5"]), "gated\x00",
        ],
    )  # fmt: skip


def break_initial(rng: np.random.Generator, value: Any) -> Any:
    """Kernels of a World may be functions."""
    bad: list[Any] = [lambda *labels: "nowhere", lambda *labels: 99, lambda *labels: [],
        lambda *labels: None, lambda *labels: np.nan, lambda: 1 // 0,
                      lambda *labels: numpyro.sample("x", dist.Normal(0, 1)), lambda *labels: {}["key"],
                      lambda a, b, c, d: 0]  # fmt: skip
    if callable(value):
        return pick(rng, bad + JUNK)
    return pick(rng, bad) if rng.random() < 0.2 else break_array(rng, value)


CODE = [
    "__import__('os').system('touch {}')",
    "!!python/object/apply:os.system ['touch {}']",
    "cos\nsystem\n(S'touch {}'\ntR.",
    "{{7*7}}",
    "${{jndi:x}}",
]
ODD_TEXT = [
    "",
    "\x00",
    "\ufeff",
    "\ud800",
    "\u2028",
    "🗝",
    "\u202eabc",
    "ключ",
    "[/bold]",
    "[link=x]",
    "{}",
    "%s%n",
    "x" * 10**5,
    "\r\n",
    "\x1b[31m",
    "NaN",
    "'",
    '"',
]


def odd_text(rng: np.random.Generator) -> str:
    return pick(rng, ODD_TEXT + CODE)


def break_data(rng: np.random.Generator, data: Any) -> Any:
    """JSON-like data with one node changed."""
    junk = [
        None,
        True,
        -1,
        99,
        10**30,
        10**5000,
        0.5,
        float("nan"),
        {},
        [],
        [[]],
        "nobody",
        {"a": 1},
        nested(300),
        odd_text(rng),
    ]
    if isinstance(data, dict) and data and rng.random() < 0.8:
        key = pick(rng, list(data))
        kind = rng.random()
        if kind < 0.1:
            return {k: v for k, v in data.items() if k != key}
        if kind < 0.2:
            return {**data, odd_text(rng): 1}
        return {**data, key: break_data(rng, data[key])}
    if isinstance(data, list) and data and rng.random() < 0.8:
        i = int(rng.integers(len(data)))
        return pick(
            rng, [data[:i] + data[i + 1 :], [*data, data[i]], [*data[:i], break_data(rng, data[i]), *data[i + 1 :]]]
        )
    return pick(rng, junk)


def break_text(rng: np.random.Generator, text: Any) -> Any:
    """Text that is cut, doubled, or has something odd put into it."""
    if rng.random() < 0.1:
        return pick(
            rng,
            [
                None,
                5,
                {},
                [],
                object(),
                b"\xff\xfe",
                np.nan,
                bytearray(b"{}"),
                "[" * 100_000,
                '{"a":' * 5000,
                "9" * 5000,
                "nul",
                "NaN",
            ],
        )
    at, kind = int(rng.integers(len(text) + 1)), int(rng.integers(5))
    if kind == 0:
        return text[:at]
    if kind == 1:
        return text + text[at:]
    if kind == 2:
        return text[:at] + text[at + 1 :]
    if kind == 3:
        lines = text.split("\n")
        return "\n".join(lines[i] for i in rng.permutation(len(lines)))
    return text[:at] + odd_text(rng) + text[at:]


def break_json(rng: np.random.Generator, text: Any) -> Any:
    with contextlib.suppress(ValueError):
        return json.dumps(break_data(rng, json.loads(text))) if rng.random() < 0.6 else break_text(rng, text)
    return break_text(rng, text)


def break_planner(rng: np.random.Generator, value: Any) -> Any:
    """No planner object, or one that cannot be run."""
    bad = [p for p in BAD_POLICIES if isinstance(p, tuple) and len(p) == 2 and all(map(callable, p))]
    unfit = [bp.as_planner(p, families()[0]) for p in bad]
    return pick(rng, [*unfit, *BAD_POLICIES, bp.Planner, families()[0], len, 1j])


def break_where(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [
            None, "task", 0, {}, object(), lambda planner: None, lambda planner: 0, lambda planner: planner.nothing,
            lambda: 0, lambda planner: [planner.task] * 2, lambda planner: 1 // 0, lambda planner: planner,
            lambda planner: object(), int,
        ],
    )  # fmt: skip


def break_stream(rng: np.random.Generator, value: Any) -> Any:
    return pick(rng, [None, "stream", 5, {}, [], object(), families()[0], bp.CorpusStream, iter([]), corpus()])


def break_training_plan(rng: np.random.Generator, value: Any) -> Any:
    return pick(rng, ["plan", 5, {}, [], object(), bp.TrainingPlan, {"steps": 1}, np.nan, (1, 2)])


def break_network(rng: np.random.Generator, value: Any) -> Any:
    return pick(rng, [None, "network", 5, {}, [], object(), bp.Transformer, Told(), families()[0], np.ones(2), len])


def break_rate(rng: np.random.Generator, value: Any) -> Any:
    return pick(rng, [-0.1, 1.5, 1e308, np.nan, np.inf, None, "0.1", [0.1], 1j, 10**5000, True, Decimal("NaN"), {}])


def break_curriculum(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng,
        [
            None, 5, "half", {}, {0.5: 1}, (0.5, 1), ((0.5,),), ((0.5, 1, 1),), ((0, 1),), ((-0.5, 1),), ((1.5, 1),),
            ((np.nan, 1),), (("half", 1),), ((0.5, 0),), ((0.5, -1),), ((0.5, 99),), ((0.5, 1.5),), ((0.5, None),),
            ((True, 1),), ((0.5, True),), ((0.5, 10**5000),), (((0.5,), 1),), np.array([[0.5, 1]]), nested(5000),
            ("ab",), iter([(0.5, 1)]), ((10**5000, 1),), ((0.2, 1), (0.4, 99)), object(),
        ],
    )  # fmt: skip


def break_folder(rng: np.random.Generator, value: Any) -> Any:
    """What is no folder, nor can become one."""
    file = str(folder() / "coin.py")
    return pick(
        rng,
        [file, f"{file}/below", "/proc/nowhere/x", "\x00", "x" * 5000, 5, object(), b"bytes", {}, ["a"], "\ud800\x00"],
    )


def break_function(rng: np.random.Generator, value: Any) -> Any:
    return pick(rng, [5, "print", {}, [], object(), np.nan, True, (len,), 1j])


def break_corpus(rng: np.random.Generator, value: Any) -> Any:
    return pick(
        rng, [None, 5, "corpus", {}, [], object(), bp.Corpus, families()[0], np.zeros((2, 2)), density_corpus()]
    )


def break_bytes(rng: np.random.Generator, value: bytes) -> Any:
    """A file that is cut, longer, or has another head; or is none at all."""
    head, _, rest = value.partition(b"\n")
    kind = int(rng.integers(6))
    if kind == 0:
        return value[: int(rng.integers(len(value)))]
    if kind == 1:
        return pick(
            rng, [b"", b"\n", b"\xff\xfe", b"null\n", b"[]\n", b"NaN\n", b"[" * 10**5, b"\x80\x04K\x01.", rest, None]
        )
    if kind == 2:
        return value + pick(rng, [b"x", b"\n", rest, value])
    if kind == 3:
        return head[: int(rng.integers(len(head)))] + b"\n" + rest
    if kind == 4:
        with contextlib.suppress(ValueError):
            return json.dumps(break_data(rng, json.loads(head))).encode() + b"\n" + rest
    return head + b"\n" + pick(rng, [b"", b"\x93NUMPY", rest[1:], rest[len(rest) // 2 :], rest[:-1], rest[::-1]])


BREAK: dict[str, Callable[[np.random.Generator, Any], Any]] = {
    "array": break_array,
    "kernel": break_initial,
    "count": break_count,
    "names": break_names,
    "sites": break_sites,
    "family": break_family,
    "prompt": break_prompt,
    "experts": break_experts,
    "histories": break_histories,
    "policy": break_policy,
    "schedule": break_schedule,
    "key": break_key,
    "fraction": break_fraction,
    "word": break_word,
    "task": break_task,
    "data": break_data,
    "text": break_text,
    "json": break_json,
    "planner": break_planner,
    "where": break_where,
    "stream": break_stream,
    "plan": break_training_plan,
    "network": break_network,
    "rate": break_rate,
    "curriculum": break_curriculum,
    "folder": break_folder,
    "function": break_function,
    "corpus": break_corpus,
    "bytes": break_bytes,
}
PROMPT_WORDS = (
    "prompt",
    "Prompt",
    "episode",
    "Episode",
    "current",
    "line ",
    "text",
    "observation",
    "subgoal",
    "instruction",
)
POLICY_WORDS = ("planner", "policy", "behaviour", "seed 0")
WORDS = {
    "family": ("program", "family", "Family", "World", "site", "sampled", "task"),
    "prompt": PROMPT_WORDS,
    "data": PROMPT_WORDS,
    "text": PROMPT_WORDS,
    "json": PROMPT_WORDS,
    "policy": POLICY_WORDS,
    "planner": (*POLICY_WORDS, "where", "epsilon"),
    "bytes": ("checkpoint.eqx", "manifest", "holds a corpus with"),
    "model": ("",),
    "command": ("",),
}
"""A refusal must contain one of these, by the kind of what was broken; or else its name."""


# --- the entries ------------------------------------------------------------------------------------------------


def some_family(rng: np.random.Generator) -> int:
    return int(rng.integers(len(families())))


def with_family(
    make: Callable[[np.random.Generator, bp.Family, int], dict[str, tuple[str, Any]]],
    name: str = "family_or_program",
    programs: bool = True,
) -> Callable[[np.random.Generator], dict[str, tuple[str, Any]]]:
    """Arguments that start with a family; now and then with a program that makes it."""

    def arguments(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
        i = some_family(rng)
        family = families()[i]
        return {name: ("family", family), **make(rng, family, i)}

    return arguments


def optional(rng: np.random.Generator, **arguments: tuple[str, Any]) -> dict[str, tuple[str, Any]]:
    """Some of them."""
    return {name: value for name, value in arguments.items() if rng.random() < 0.5}


def of_family(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    sizes = [int(n) for n in rng.integers(1, 4, size=6)]
    kinds = {"horizon": "count"}
    drawn = {n: (kinds.get(n, "array"), v) for n, v in family_arguments(rng, sizes).items()}
    Z, S, G, O, _, W = sizes
    if rng.random() < 0.3:
        kernel = np.zeros((Z, 1, G, S, 2), int), rows(rng, (Z, 1, G, S, 2))
        drawn["transition"] = ("array", bp.Sparse(*kernel))
    for name, count in (("tasks", Z), ("states", S), ("subgoals", G), ("observations", O), ("instructions", W)):
        drawn |= optional(rng, **{name: ("names", [f"{name} {i}" for i in range(count)])})
    return drawn | optional(rng, sites=("sites", {"where": list(range(Z))}))


def of_world(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    S, G, O, H, W = (int(n) for n in rng.integers(1, 4, size=5))
    drawn: dict[str, tuple[str, Any]] = {
        "initial": ("kernel", rows(rng, (S,))),
        "transition": ("kernel", rows(rng, (G, S, S))),
        "emission": ("kernel", rows(rng, (S, O))),
        "reward": ("array", rng.random((H, O, W))),
        "horizon": ("count", H),
    }
    if rng.random() < 0.4:
        drawn["initial"] = ("kernel", lambda: "s0")
        drawn["transition"] = ("kernel", lambda state, subgoal: state)
        drawn["emission"] = ("kernel", lambda state: int(state[1]) % O)
        drawn["states"] = ("names", [f"s{i}" for i in range(S)])
        return drawn | {"subgoals": ("names", G), "observations": ("names", O)}
    for name, count in (("states", S), ("subgoals", G), ("observations", O), ("instructions", W)):
        drawn |= optional(rng, **{name: ("names", [f"{name} {i}" for i in range(count)])})
    return drawn | optional(rng, task=("word", "the task"), instruction_prior=("array", rows(rng, (W,))))


def of_sparse(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    shape = tuple(int(n) for n in rng.integers(1, 4, size=4))
    return {"next_states": ("array", rng.integers(3, size=shape)), "probabilities": ("array", rows(rng, shape))}


def of_factored(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    G, S = (int(n) for n in rng.integers(1, 4, size=2))
    return {"factors": ("array", rows(rng, (G, S, S)))}


def of_low_level(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    A, S = (int(n) for n in rng.integers(1, 4, size=2))
    drawn = {"transition": ("kernel", rows(rng, (A, S, S))), "steps": ("count", int(rng.integers(1, 4)))}
    for name, count in (("states", S), ("actions", A)):
        drawn |= optional(rng, **{name: ("names", [f"{name} {i}" for i in range(count)])})
    return drawn


@functools.cache
def low_level() -> bp.LowLevel:
    return bp.LowLevel(rows(np.random.default_rng(0), (2, 3, 3)), steps=2)


@functools.cache
def low_level_world() -> bp.World:
    actors = rows(np.random.default_rng(1), (2, 2, 3, 2))
    return bp.World([1, 0, 0], bp.TwoLevel(low_level(), actors), np.eye(3), np.zeros((3, 3)), horizon=3)


def an_actor(rng: np.random.Generator) -> tuple[str, Any]:
    return "array", rows(rng, (int(rng.integers(1, 3)), 3, 2))


def imitated(states: Any, actions: Any) -> Any:
    return bp.imitate(low_level(), bp.Demonstrations(states, actions))


def of_prompt(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    return {name: ("array", value) for name, value in draw_prompt(rng, families()[some_family(rng)]).items()}


def of_written_prompt(write: str, name: str, kind: str) -> Callable[[np.random.Generator], dict[str, tuple[str, Any]]]:
    def arguments(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
        family = families()[some_family(rng)]
        prompt = bp.Prompt(**draw_prompt(rng, family))
        return {name: (kind, getattr(prompt, write)(family)), "family": ("family", family)}

    return arguments


def of_episodes(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    family = families()[some_family(rng)]
    n = int(rng.integers(3))
    return {
        "family": ("family", family),
        "observations": ("array", rng.integers(family.num_observations, size=(n, family.horizon))),
        "subgoals": ("array", rng.integers(family.num_subgoals, size=(n, family.horizon - 1))),
    }


def prompt_of(rng: np.random.Generator, family: bp.Family) -> tuple[str, Any]:
    return "prompt", bp.Prompt(**draw_prompt(rng, family))


def policy_of(rng: np.random.Generator) -> tuple[str, Any]:
    return "policy", pick(rng, POLICIES)


def key_of(rng: np.random.Generator) -> tuple[str, Any]:
    return "key", pick(rng, [0, 7, -3, 2**40, np.int64(5), np.uint32([1, 2]), jax.random.key(3)])


def arms() -> bp.World:
    """A program with a density: two arms, each pulled once an episode."""
    wins = numpyro.sample("wins", dist.Beta(2.0, 2.0).expand([2]).to_event(1))
    rows = jnp.stack([jnp.stack([0 * w, w, 1 - w]) for w in wins])
    kernel = jnp.stack([rows, jnp.eye(3)[1:2].repeat(2, 0), jnp.eye(3)[2:].repeat(2, 0)], axis=1)
    return bp.World([1.0, 0, 0], kernel, np.eye(3), [[0, 0, 0], [0, 1, 0]], horizon=2)


def pulls(rng: np.random.Generator, step: int) -> tuple[str, Any]:
    observations = np.stack([np.zeros(2, int), rng.integers(1, 3, size=2)], axis=1)
    return "prompt", bp.Prompt(observations, rng.integers(2, size=(2, 1)), current_observations=[0] * step)


def of_density(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    method = pick(rng, ["exact", "exact", "nuts", "smc"])
    settings = {
        "exact": {"tolerance": ("fraction", 1e-6), "max_nodes": ("count", 2**14)},
        "nuts": {"chains": ("count", 2), "warmup": ("count", 50), "draws": ("count", 50), "key": key_of(rng)},
        "smc": {"particles": ("count", 64), "chains": ("count", 2), "moves": ("count", 1), "key": key_of(rng)},
    }
    return {"prompt": pulls(rng, int(rng.integers(2))), "method": ("word", method), **settings[method]}


DENSITY = ("posterior.density", "find_latents", "SMC", "bail_by_draws")
PULLED = bp.Prompt([[0, 1], [0, 2]], [[0], [1]], current_observations=[0])


@functools.cache
def quadrature() -> Any:
    return bp.posterior(arms, PULLED, "exact", tolerance=1e-3)


def by_draws(**given: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of so few draws, every chain says that they are too few
        found = bp.posterior(arms, **given)
    return found.draws, found.leaf_probabilities


def particles(prompt: Any, key: Any, **settings: Any) -> Any:
    smc = bp.SMC(bp.find_latents(arms), **settings)
    return smc.observe(smc.init(key), prompt).leaf_probabilities


def of_regret(rng: np.random.Generator, family: bp.Family, i: int) -> dict[str, tuple[str, Any]]:
    return {
        "task": ("task", pick(rng, [0, 0, family.tasks[0], np.int64(0)])),
        "planner": ("policy", pick(rng, ["bail", "bail", "bawm", "map", "thompson", "oracle", by_prompt])),
        "exploration": ("schedule", pick(rng, [0.0, 0.5, [0.5, 0.25], "gated", "explore-first", "anytime"])),
        "episodes": ("count", 2),
        "seeds": ("count", 2),
        **optional(
            rng,
            exploration_policy=policy_of(rng),
            key=("key", pick(rng, [0, 7, -3])),
            experts=("experts", experts_of(i)),
        ),
    }


def of_expected(rng: np.random.Generator, family: bp.Family, i: int) -> dict[str, tuple[str, Any]]:
    return {
        "planner": ("word", pick(rng, ["bail", "bawm", "map", "thompson"])),
        "exploration": ("schedule", pick(rng, [0.0, [0.5, 0.25], "gated", "constant"])),
        "episodes": ("count", 2),
        **optional(rng, exploration_policy=policy_of(rng), max_posteriors=("count", 10_000)),
    }


def of_exploring(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    epsilon = pick(rng, [0.5, [0.5, 0.25], np.array([1.0, 0.0])])
    return {
        "planner": ("planner", pick(rng, planners())),
        "epsilon": ("schedule", epsilon),
        "policy": ("planner", pick(rng, planners())),
    }


def acted(behaviour: Any) -> Any:
    return bp.sample_corpus(families()[0], 2, 2, behaviour, experts=experts_of(0))


@functools.cache
def corpus() -> bp.Corpus:
    return bp.sample_corpus(families()[0], 3, 2, experts=experts_of(0))


@functools.cache
def density_corpus() -> bp.DrawnCorpus:
    return bp.sample_corpus(arms, 2, 1)


def of_behaviour(rng: np.random.Generator, i: int) -> dict[str, tuple[str, Any]]:
    behaviour = policy_of(rng) if rng.random() < 0.5 else ("policy", pick(rng, ["experts", "bail", *planners()]))
    return optional(rng, behaviour=behaviour, key=key_of(rng), experts=("experts", experts_of(i)))


def of_stream(rng: np.random.Generator, family: bp.Family, i: int) -> dict[str, tuple[str, Any]]:
    prior = np.asarray(family.task_prior, np.float64)
    return {
        "prompts": ("count", 2),
        "episodes": ("count", 1),
        **of_behaviour(rng, i),
        **optional(rng, prior=("array", prior), shuffled=("rate", True)),
    }


def streamed(family_or_program: Any, **given: Any) -> Any:
    return bp.CorpusStream(family_or_program, **given).batch(0)


@functools.cache
def stream() -> bp.CorpusStream:
    return bp.CorpusStream(families()[0], 2, 2, experts=experts_of(0))


def of_replay(rng: np.random.Generator, family: bp.Family, i: int) -> dict[str, tuple[str, Any]]:
    B, N = (int(n) for n in rng.integers(1, 3, size=2))
    return {
        "planner": ("policy", pick(rng, [*POLICIES[1:], *planners()])),
        "instructions": ("array", rng.integers(family.num_instructions, size=(B, N))),
        "observations": ("array", rng.integers(family.num_observations, size=(B, N, family.horizon))),
        "subgoals": ("array", rng.integers(family.num_subgoals, size=(B, N, family.horizon - 1))),
        **optional(rng, key=key_of(rng)),
    }


def network_of(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    sizes = {"width": ("count", 4), "layers": ("count", 1), "heads": ("count", 2)}
    return {"episodes": ("count", 2), **sizes, "key": key_of(rng)}


@functools.cache
def network() -> bp.Transformer:
    return bp.Transformer(families()[0], 2, width=4, layers=1, heads=2, key=jax.random.key(0))


def read_by(**given: Any) -> Any:
    """What the network says of two prompts."""
    planner = bp.TransformerPlanner(**given)
    three = corpus()
    return bp.replay(planner, families()[0], three.instructions, three.observations, three.subgoals)


TINY: dict[str, Any] = {"episodes": 2, "width": 4, "layers": 1, "heads": 2, "steps": 2, "positions": 12}


def of_training_plan(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    return {
        **{name: ("count", size) for name, size in TINY.items()},
        **optional(rng, curriculum=("curriculum", ((0.5, 1),)), rate=("rate", 0.1), patience=("count", 3)),
    }


def contexts(**given: Any) -> Any:
    plan = bp.TrainingPlan(**given)
    return plan.context(0), plan.prompts(1, 3)


def of_training(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    return {
        "stream": ("stream", stream()),
        "plan": ("plan", bp.TrainingPlan(**TINY)),
        **optional(
            rng,
            key=key_of(rng),
            folder=("folder", new_folder(rng)),
            every=("count", 1),
            progress=("function", lambda step, losses, network: None),
        ),
    }


def new_folder(rng: np.random.Generator | None = None) -> str:
    """A folder of nobody else; drawn ones are the same again when an input is replayed."""
    return tempfile.mkdtemp(dir=folder()) if rng is None else str(folder() / f"{int(rng.integers(2**62))}")


def trained(**given: Any) -> Any:
    found = bp.train(**given)
    return found.losses, jax.tree.leaves(found.network)


@functools.cache
def checkpoint() -> bytes:
    place = Path(new_folder())
    bp.train(stream(), bp.TrainingPlan(**TINY), folder=place, every=1)
    return (place / "checkpoint.eqx").read_bytes()


def trained_on(written: Any) -> Any:
    """From a checkpoint with these bytes; a folder if there are none."""
    place = Path(new_folder())
    if isinstance(written, bytes):
        (place / "checkpoint.eqx").write_bytes(written)
    else:
        (place / "checkpoint.eqx").mkdir()
    return trained(stream=stream(), plan=bp.TrainingPlan(**TINY), folder=place, every=1)


def of_written(rng: np.random.Generator, family: bp.Family, i: int) -> dict[str, tuple[str, Any]]:
    return {
        "folder": ("folder", new_folder(rng)),
        "prompts": ("count", 3),
        "episodes": ("count", 1),
        **of_behaviour(rng, i),
        **optional(
            rng, shard=("count", 2), world=("word", "the world"), progress=("function", lambda rows: None),
        ),
    }  # fmt: skip


def swept(family_or_program: Any, planner: Any, exploration: Any, episodes: Any, key: Any, **given: Any) -> Any:
    """A sweep of one combination."""
    point = {"planners": [planner], "explorations": [exploration], "episodes": [episodes], "keys": [key]}
    return bp.sweep({"world": family_or_program}, **point, **given)


def of_sweep(rng: np.random.Generator, family: bp.Family, i: int) -> dict[str, tuple[str, Any]]:
    return {
        "folder": ("folder", new_folder(rng)),
        "planner": ("word", pick(rng, ["bail", "map", "oracle"])),
        "exploration": ("fraction", 0.5),
        "episodes": ("count", 2),
        "key": ("count", 3),
        "seeds": ("count", 2),
        **optional(
            rng,
            exploration_policy=("word", pick(rng, ["uniform", "best"])),
            workers=("count", 1),
            progress=("function", lambda done, of: None),
        ),
    }


@functools.cache
def manifest() -> bytes:
    place = Path(new_folder())
    bp.write_corpus(families()[0], place, prompts=1, episodes=1, experts=experts_of(0))
    return json.dumps(json.loads((place / "manifest.json").read_bytes())).encode() + b"\n"  # its head is all of it


def gone_on(written: Any) -> Any:
    """With a folder whose manifest has these bytes; a folder in its place if there are none."""
    place = Path(new_folder())
    if isinstance(written, bytes):
        (place / "manifest.json").write_bytes(written)
    else:
        (place / "manifest.json").mkdir()
    return bp.write_corpus(families()[0], place, prompts=1, episodes=1, experts=experts_of(0))


def of_audit(rng: np.random.Generator, family: bp.Family, i: int) -> dict[str, tuple[str, Any]]:
    planner = pick(rng, ["bail", "bawm", "map", "thompson", by_prompt, (start, first_subgoal), planners()[0]])
    return {
        "planner": ("policy", planner),
        "prompts": ("count", 2),
        "episodes": ("count", 2),
        "seeds": ("count", 0),
        **of_behaviour(rng, i),
        **optional(
            rng,
            budget=("count", 100),
            alpha=("fraction", 0.05),
            resolution=("fraction", 0.05),
            text=("rate", False),
            names=("names", ("the planner", "the world")),
        ),
    }


def audited(planner: Any, family_or_program: Any, **given: Any) -> Any:
    """All that is a number whatever the prompts say; the weights may be unknown."""
    found = bp.audit(planner, family_or_program, **given)
    json.dumps(found.to_dict(), allow_nan=False)
    assert str(found)
    return dataclasses.replace(found, weights=(), knobs=())


@functools.cache
def folder() -> Path:
    """A folder of world files, good and bad, that goes when the process ends."""
    path = Path(tempfile.mkdtemp(prefix="fuzzing"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    for name, text in MODEL_FILES.items():
        (path / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    (path / "folder.py").mkdir()
    return path


GOOD_FILE = """
import numpyro, numpyro.distributions as dist
import bayespar as bp

def coin():
    z = numpyro.sample("bias", dist.Bernoulli(0.25))
    return bp.World([1.0, 0.0], [[[1 - 0.5 * z, 0.5 * z], [0, 1]], [[1, 0], [0, 1]]], [[0.9, 0.1], [0.2, 0.8]],
                    [[0, 1], [0.5, 1]], horizon=2, observations=["tails", "heads"])
"""
MODEL_FILES = {
    "coin.py": GOOD_FILE,
    "empty.py": "",
    "other.py": "x = 1\n",
    "number.py": "number = 3\n",
    "syntax.py": "def (:\n",
    "null.py": "x = '\x00'\n",
    "raises.py": "raise KeyError('[/bold]')\n",
    "exits.py": "import sys\nsys.exit(3)\n",
    "interrupts.py": "raise SystemExit\n",
    "imports.py": "import no_such_module_at_all\n",
    "surrogate.py": "x = '\ud800'\n",
    "encoding.py": "# coding: no-such-codec\n",
    "indent.py": " x = 1\n\tx = 2\n",
    "nothing.py": "def nothing():\n    return None\n",
    "fails.py": "def fails():\n    return [][3]\n",
    "takes.py": "def takes(size):\n    return size\n",
    "asserts.py": "def asserts():\n    assert False, '[/]'\n",
    "recursive.py": "def recursive():\n    return recursive()\n",
    "wrong.py": GOOD_FILE.replace("def coin", "def wrong").replace("1.0, 0.0", "1.0, 1.0"),
    "nan.py": GOOD_FILE.replace("def coin", "def nan").replace("1.0, 0.0", "float('nan'), 0.0"),
    "klass.py": "class klass:\n    pass\n",
    "a.b.py": GOOD_FILE.replace("coin", "program"),
    "ключ 🗝.py": GOOD_FILE.replace("coin", "program"),
    "leaves.py": "def leaves():\n    import sys\n    sys.exit()\n",
}  # fmt: skip


def model_name(rng: np.random.Generator) -> Any:
    files = [str(folder() / name) for name in [*MODEL_FILES, "folder.py", "absent.py"]]
    return pick(rng, [*files, *files, "lock", "", "nowhere", "../lock", "lock.lock", "__init__", "_x",
        ".py", "\x00.py", "x" * 5000 + ".py", "\ud800.py",
                      "\ud800", "ключ", "os", "lock\x00", "[/bold]", None, 5, b"lock", object(), {},
                      ["lock"], Path("nowhere"), "/", "~", ".", "lock/lock"])  # fmt: skip


def load_and_enumerate(name: Any) -> Any:
    return bp.enumerate_program(bp.load_model(name))


def check_model(program: Any, prompt: Any) -> Any:
    """The model, run once with a site given."""
    model = bp.numpyro_model(program, prompt)
    return log_density(model, (), {}, {"bias": 1})[0]


def filtered(family: Any) -> Any:
    tracker = bp.Filter(family)
    return tracker.weights(tracker.start(0))


def as_text(prompt: Any, family: Any) -> Any:
    if not isinstance(prompt, bp.Prompt):
        raise bp.InvalidPromptError("the prompt is not even one")
    return prompt.to_text(family), prompt.to_json(family)


@functools.cache
def world_models() -> tuple[bp.WorldModel, ...]:
    """Before an episode, and in the middle of one; of worlds where every observation is possible."""
    family = families()[0]
    return bp.bawm(family, bp.Prompt()), bp.bawm(family, bp.Prompt(current_observations=[0]))


def predicted(subgoal: Any) -> Any:
    return world_models()[1].next_observation(subgoal)


def continued(observations: Any, subgoals: Any) -> Any:
    return world_models()[0].log_probability(observations, subgoals)


def planned(**arguments: Any) -> Any:
    return world_models()[1].plan(**arguments)


def of_plan(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    method = pick(rng, ["exact", "exact", "lookahead"])
    return {
        **optional(rng, method=("word", method), max_bytes=("count", 2**20), key=key_of(rng)),
        **optional(rng, depth=("count", 1), simulations=("count", 2), experts=("experts", experts_of(0))),
    }


def marginal(site: Any) -> Any:
    return bp.posterior(families()[0], bp.Prompt()).marginal(site)


@functools.cache
def curves() -> Any:
    return bp.simulate_regret(families()[0], 0, episodes=2, seeds=2)


def explored(coin: Any, gate: Any) -> Any:
    """A schedule, and what its first use makes of it."""
    return as_exploration(bp.Exploration(coin, gate), 3)


def exploration_of(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    gate = pick(rng, [np.full(3, np.inf), np.array([0.5, 0.25, 0.1])])
    return {"coin": ("array", rng.random(3)), "gate": ("array", gate)}


def command_arguments(rng: np.random.Generator) -> dict[str, tuple[str, Any]]:
    """A command line; the kind "command" breaks it."""
    world = str(folder() / "coin.py")
    family = coin_family()
    prompt = bp.Prompt(**draw_prompt(rng, family))
    text = pick(rng, [prompt.to_text, prompt.to_json])(family)
    path = folder() / "prompt"
    lines = [["posterior", world, "--prompt", str(path)]] * 6
    lines += [["explore", world, "--episodes", "3"], ["verify", world, "--claims", "C3"]]
    lines += [
        [
            "regret",
            world,
            "--episodes",
            "2",
            "--seeds",
            "2",
            "--planner",
            "bail",
            "--explore",
            "0.5",
            "--task",
            "bias=1",
            "--key",
            "3",
        ]
    ] * 2
    # One word, so that no other folder takes its place.
    lines += [["corpus", world, "--prompts", "2", "--episodes", "1", "--shard", "1", f"--out={new_folder(rng)}"]]
    lines += [["audit", world, "bail", "--prompts", "2", "--episodes", "2", "--seeds", "0"]]
    line = list(pick(rng, lines)) + (["--json"] if rng.random() < 0.5 else [])
    return {"argv": ("command", line), "prompt": ("json" if text.startswith("{") else "text", text)}


@functools.cache
def coin_family() -> bp.Family:
    return bp.enumerate_program(program)


def break_command(rng: np.random.Generator, line: Any) -> Any:
    odd = ["", "nan", "inf", "-1", "0", "1e400", "9" * 30, "-" + "9" * 30, "9" * 5000, "\ud800", "🗝",
        "\x00", "[/bold]", "[red]", "--help", "--", "-", "٣",
           "often", "1.5", "x" * 5000, "--no-such", "gated", "__import__('os')", "%s", "@file", "bias=0",
           "/"]  # fmt: skip
    kind = rng.random()
    if kind < 0.35:
        return [line[0], str(model_name(rng)), *line[2:]]
    if kind < 0.45:
        return [pick(rng, odd), *line[1:]]
    if kind < 0.55:
        i = int(rng.choice([i for i in range(len(line)) if i != 1]))  # without a world, verify checks all there are
        return line[:i] + line[i + 1 :]
    if kind < 0.65:
        out = pick(rng, [str(folder() / "coin.py"), "/proc/nowhere/x", "\x00", "x" * 5000])
        return [*line, "--out", out]
    if kind < 0.7:
        return [*line, pick(rng, odd)]
    i = int(rng.integers(1, len(line)))
    return [*line[:i], pick(rng, odd), *line[i + 1 :]]


BREAK["command"] = break_command
BREAK["no program"] = lambda rng, value: pick(
    rng, [None, 5, "coin", {}, (), object(), families()[0], not_a_world, 1j, lambda: None]
)
WORDS["no program"] = WORDS["family"]
BREAK["model"] = lambda rng, value: model_name(rng)


def run_command(argv: list[str], prompt: Any) -> Any:
    """The command line in process; its status, and its output if that is JSON.

    Raises:
        BayesparError: the status was 2, with what was printed.
    """
    if isinstance(prompt, str):
        prompt = prompt.encode("utf-8", "surrogatepass")
    (folder() / "prompt").write_bytes(prompt if isinstance(prompt, (bytes, bytearray)) else b"")
    out, err = io.StringIO(), io.StringIO()
    status: Any = None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(folder()):
        try:
            status = command_line(argv)
        except SystemExit as error:  # argparse
            status = error.code
    if status == 2:
        assert err.getvalue().strip(), "status 2, and not a word why"
        assert "Traceback" not in err.getvalue()
        raise bp.BayesparError(err.getvalue())
    assert status in (0, 1), f"status {status}"
    if "--json" in argv and "--help" not in argv:

        def refuse(constant: str) -> Any:
            raise AssertionError(f"{constant} in JSON")

        return status, json.loads(out.getvalue(), parse_constant=refuse)
    out.getvalue().encode("utf-8")
    return status


PLANS = ("has eta =", "prior 0", "no distribution", "cannot be tabulated")
ENTRIES: dict[str, Entry] = {
    "Family": Entry(bp.Family, of_family, weight=8),
    "World": Entry(bp.World, of_world, weight=4),
    "Sparse": Entry(bp.Sparse, of_sparse, weight=2),
    "Factored": Entry(lambda factors: bp.Factored([factors, np.eye(2)[None]]), of_factored),
    "Team": Entry(
        bp.Team,
        lambda rng: {"actors": ("sites", {"Ada": ["left", "right"], "Ben": list("abc")[: int(rng.integers(1, 4))]})},
        refuses=("joint subgoal",),
    ),
    "LowLevel": Entry(bp.LowLevel, of_low_level, refuses=("states has", "actions has")),
    "TwoLevel": Entry(
        lambda actors: bp.TwoLevel(low_level(), actors).compose(),
        lambda rng: {"actors": ("array", rows(rng, (2, int(rng.integers(1, 3)), 3, 2)))},
    ),
    "optimal_actor": Entry(
        lambda reward: bp.optimal_actor(low_level(), reward),
        lambda rng: {"reward": ("array", rng.random((2, 3) if rng.random() < 0.5 else 3))},
    ),
    "sample_demonstrations": Entry(
        lambda **given: bp.sample_demonstrations(low_level(), **given),
        lambda rng: {
            "actor": an_actor(rng),
            "initial": ("array", rows(rng, (3,))),
            "count": ("count", 2),
            **optional(rng, key=key_of(rng)),
        },
    ),
    "imitate": Entry(
        imitated,
        lambda rng: {
            "states": ("array", rng.integers(3, size=(4, 3))),
            "actions": ("array", rng.integers(2, size=(4, 2))),
        },
    ),
    "compare_actors": Entry(
        lambda **given: bp.compare_actors(low_level(), **given),
        lambda rng: {"actor": an_actor(rng), "other": an_actor(rng), "initial": ("array", rows(rng, (3,)))},
    ),
    "rollout_low_level": Entry(
        # A type is a function too, and what a function raises is its own affair.
        lambda policy, **given: bp.rollout_low_level(low_level_world(), None if callable(policy) else policy, **given),
        lambda rng: {
            "policy": ("array", rng.integers(2, size=2)),
            **optional(rng, episodes=("count", 2), key=key_of(rng)),
        },
        refuses=POLICY_WORDS,
    ),
    "Prompt": Entry(bp.Prompt, of_prompt, weight=3),
    "Prompt.from_text": Entry(bp.Prompt.from_text, of_written_prompt("to_text", "text", "text"), weight=3),
    "Prompt.from_dict": Entry(bp.Prompt.from_dict, of_written_prompt("to_dict", "data", "data"), weight=3),
    "Prompt.from_json": Entry(bp.Prompt.from_json, of_written_prompt("to_json", "text", "json"), weight=3),
    "Prompt.to_text": Entry(as_text, with_family(lambda rng, f, i: {"prompt": prompt_of(rng, f)}, "family")),
    "Family.world": Entry(
        lambda family, task: families()[family].world(task),
        lambda rng: {"family": ("fixed", some_family(rng)), "task": ("task", 0)},
    ),
    "Family.astype": Entry(
        lambda dtype: families()[0].astype(dtype), lambda rng: {"dtype": ("word", pick(rng, ["float32", np.float64]))}
    ),
    "Posterior.marginal": Entry(marginal, lambda rng: {"site": ("word", pick(rng, ["task", "where", "p"]))}),
    "RegretCurves.interval": Entry(
        lambda episodes, alpha: curves().interval(episodes, alpha=alpha),
        lambda rng: {"episodes": ("count", 1 + int(rng.integers(2))), "alpha": ("fraction", 0.05)},
    ),
    "log_evidence": Entry(bp.log_evidence, of_episodes, weight=2),
    "prefix_log_evidence": Entry(bp.prefix_log_evidence, of_episodes),
    "Filter": Entry(filtered, with_family(lambda rng, f, i: {}, "family"), weight=0.5),
    "posterior": Entry(
        bp.posterior,
        with_family(lambda rng, f, i: {"prompt": prompt_of(rng, f), **optional(rng, method=("word", "exact"))}),
        weight=2,
    ),
    "posterior.density": Entry(by_draws, of_density, refuses=("the method has no such setting",)),
    "find_latents": Entry(
        lambda program: bp.find_latents(program).example, lambda rng: {"program": ("no program", arms)}
    ),
    "SMC": Entry(
        particles,
        lambda rng: {
            "prompt": pulls(rng, 0),
            "key": key_of(rng),
            "particles": ("count", 64),
            "chains": ("count", 2),
            **optional(rng, threshold=("fraction", 0.5), moves=("count", 1)),
        },
        weight=0.5,
    ),
    "bail_by_draws": Entry(
        lambda **given: bp.bail_by_draws(arms, posterior=quadrature(), **given).probabilities,
        lambda rng: {"prompt": ("prompt", PULLED), **optional(rng, draws=("count", 9))},
        weight=0.5,
        refuses=("of another prompt",),
    ),
    "posterior_path": Entry(bp.posterior_path, with_family(lambda rng, f, i: {"prompt": prompt_of(rng, f)})),
    "state_posterior": Entry(bp.state_posterior, with_family(lambda rng, f, i: {"prompt": prompt_of(rng, f)})),
    "bail": Entry(
        bp.bail,
        with_family(
            lambda rng, f, i: {"prompt": prompt_of(rng, f), **optional(rng, experts=("experts", experts_of(i)))}
        ),
        weight=2,
        refuses=("a decision is made",),
    ),
    "bawm": Entry(bp.bawm, with_family(lambda rng, f, i: {"prompt": prompt_of(rng, f)})),
    "bawm.next_observation": Entry(
        predicted, lambda rng: {"subgoal": ("task", pick(rng, [0, np.int64(1)]))}, weight=0.5
    ),
    "bawm.log_probability": Entry(
        continued,
        lambda rng: {"observations": ("array", np.array([0, 1])), "subgoals": ("array", np.array([1]))},
        weight=0.5,
    ),
    "bawm.plan": Entry(planned, of_plan, valid=0.1),
    "numpyro_model": Entry(
        check_model,
        lambda rng: {"program": ("no program", program), "prompt": prompt_of(rng, coin_family())},
        weight=0.3,
    ),
    "enumerate_program": Entry(bp.enumerate_program, lambda rng: {"program": ("family", program)}, weight=0.5),
    "load_model": Entry(load_and_enumerate, lambda rng: {"name": ("model", str(folder() / "coin.py"))}),
    "available_models": Entry(bp.available_models, lambda rng: {}, weight=0.02),
    "task_classes": Entry(bp.task_classes, with_family(lambda rng, f, i: {}), weight=0.5),
    "enumerate_histories": Entry(
        bp.enumerate_histories, with_family(lambda rng, f, i: optional(rng, max_bytes=("count", 2**20)))
    ),
    "solve_experts": Entry(
        bp.solve_experts,
        with_family(
            lambda rng, f, i: optional(
                rng, method=("word", pick(rng, ["states", "histories", "alpha", "points"])), max_bytes=("count", 2**20)
            )
        ),
        refuses=("does not tell the state",),
    ),
    "design_exploration": Entry(
        bp.design_exploration, with_family(lambda rng, f, i: optional(rng, max_bytes=("count", 2**20)))
    ),
    "cheapest_exploration": Entry(
        bp.cheapest_exploration, with_family(lambda rng, f, i: optional(rng, max_bytes=("count", 2**20)))
    ),
    "eta": Entry(
        bp.eta,
        with_family(
            lambda rng, f, i: {
                "policy": policy_of(rng),
                **optional(rng, histories=("histories", histories_of(i)), key=key_of(rng)),
            }
        ),
    ),
    "policy_value": Entry(
        bp.policy_value,
        with_family(
            lambda rng, f, i: {
                "policy": policy_of(rng),
                **optional(rng, histories=("histories", histories_of(i)), key=key_of(rng)),
            }
        ),
    ),
    "as_planner": Entry(
        bp.as_planner,
        lambda rng: {
            "planner": ("policy", pick(rng, POLICIES[1:])),
            "family": ("family", families()[some_family(rng)]),
            **optional(rng, episodes=("count", 2)),
        },
    ),
    "Exploration": Entry(explored, exploration_of),
    "expected_regret": Entry(bp.expected_regret, with_family(of_expected), refuses=PLANS),
    "recommend": Entry(
        bp.recommend,
        with_family(lambda rng, f, i: {"episodes": ("count", 3), **optional(rng, exploration_policy=policy_of(rng))}),
        refuses=PLANS,
    ),
    "sample_corpus": Entry(
        bp.sample_corpus,
        with_family(
            lambda rng, f, i: {
                "prompts": ("count", 2),
                "episodes": ("count", 1),
                **optional(rng, behaviour=policy_of(rng), key=key_of(rng), experts=("experts", experts_of(i))),
            }
        ),
        valid=0.05,
    ),
    "simulate_regret": Entry(bp.simulate_regret, with_family(of_regret), weight=1.5, valid=0.05, refuses=PLANS),
    "estimate_eta": Entry(
        bp.estimate_eta,
        with_family(
            lambda rng, f, i: {
                **optional(rng, policy=policy_of(rng), key=key_of(rng), alpha=("fraction", 0.05)),
                "draws": ("count", 16),
            }
        ),
        valid=0.05,
    ),
    "Exploring": Entry(
        lambda **given: acted(bp.Exploring(**given)), of_exploring, weight=0.5, valid=0.1, refuses=("exploration has",)
    ),
    "MixtureOfExperts": Entry(
        lambda family, experts: acted(bp.MixtureOfExperts(family, experts)),
        lambda rng: {"family": ("family", families()[0]), "experts": ("experts", experts_of(0))},
        weight=0.5,
    ),
    "TaskDependent": Entry(
        lambda **given: acted(bp.TaskDependent(**given)),
        lambda rng: {"planner": ("planner", Told()), **optional(rng, where=("where", lambda planner: planner.task))},
        weight=0.5,
    ),
    "shuffled_labels": Entry(bp.shuffled_labels, lambda rng: {"corpus": ("corpus", corpus())}, weight=0.3),
    "with_prior": Entry(
        bp.with_prior,
        lambda rng: {"family": ("family", families()[0]), "prior": ("array", rows(rng, (2,)))},
        weight=0.5,
    ),
    "CorpusStream": Entry(
        streamed, with_family(of_stream), weight=0.5, valid=0.05, refuses=("shuffled", "excludes", "behaviour")
    ),
    "CorpusStream.batch": Entry(
        lambda **given: stream().batch(**given),
        lambda rng: {
            "index": ("task", pick(rng, [0, 3, np.int64(2)])),
            **optional(rng, prompts=("count", 2), episodes=("count", 2)),
        },
        weight=0.3,
    ),
    "replay": Entry(bp.replay, with_family(of_replay, "family"), valid=0.05, refuses=POLICY_WORDS),
    "Transformer": Entry(
        lambda **given: jax.tree.leaves(bp.Transformer(families()[0], **given)), network_of, weight=0.5, valid=0.1
    ),
    "Transformer.family": Entry(
        lambda family: jax.tree.leaves(bp.Transformer(family, 1, width=2, layers=1, heads=1, key=0)),
        lambda rng: {"family": ("family", families()[0])},
        weight=0.2,
    ),
    "TransformerPlanner": Entry(
        read_by,
        lambda rng: {"network": ("network", network()), "episodes": ("count", 1 + int(rng.integers(3)))},
        weight=0.3,
    ),
    "TrainingPlan": Entry(contexts, of_training_plan, refuses=("width",)),
    "train": Entry(trained, of_training, weight=0.3, valid=0.05),
    "train.checkpoint": Entry(trained_on, lambda rng: {"written": ("bytes", checkpoint())}, weight=0.15),
    "write_corpus": Entry(bp.write_corpus, with_family(of_written), weight=0.5, valid=0.05, refuses=POLICY_WORDS),
    "sweep": Entry(swept, with_family(of_sweep), weight=0.3, valid=0.05, refuses=PLANS),
    "write_corpus.manifest": Entry(gone_on, lambda rng: {"written": ("bytes", manifest())}, weight=0.2),
    "audit": Entry(
        audited,
        with_family(of_audit),
        weight=0.5,
        valid=0.05,
        refuses=("an episode has no decision", "an audit needs", *POLICY_WORDS),
    ),
    "command line": Entry(run_command, command_arguments, weight=0.3, valid=0.05),
}


def covered() -> set[str]:
    """Public names that are fuzzed."""
    return {name.split(".")[0] for name in ENTRIES}


def make(seed: int, index: int, entries: dict[str, Entry]) -> Case:
    """Input ``index`` of the run of ``seed``."""
    rng = np.random.default_rng([seed, index])
    weights = np.array([e.weight for e in entries.values()])
    name = list(entries)[int(rng.choice(len(entries), p=weights / weights.sum()))]
    entry = entries[name]
    drawn = entry.arguments(rng)
    can = [n for n, (kind, _) in drawn.items() if kind in BREAK]
    broken: tuple[str, ...] = ()
    if can and rng.random() >= entry.valid:
        broken = tuple(
            can[i] for i in rng.choice(len(can), size=min(len(can), 1 + (rng.random() < 0.25)), replace=False)
        )
    with np.errstate(all="ignore"):
        arguments = {n: BREAK[kind](rng, value) if n in broken else value for n, (kind, value) in drawn.items()}
    words: list[str] = list(entry.refuses)
    for n in broken:
        words += WORDS.get(drawn[n][0], (n,))
    if any(value is continuous for value in arguments.values()):  # which some entries take
        words += PROMPT_WORDS
    if name in ("Family", "World"):  # what is told may be the array that a broken one does not fit
        words += [*drawn, "there are no "]
    if any(kind == "kernel" and callable(arguments[n]) for n, (kind, _) in drawn.items()):
        words += ["site "]
    late = (
        "argv" in drawn
        or name in ("load_model", "enumerate_program", "numpyro_model", *DENSITY)  # a program runs first
        or "written" in drawn  # which training or corpus a file is of is known only when that begins
        # whether it tells apart what the graph merges is known only when the graph is there
        or ("cannot be tabulated" in entry.refuses and any(value is by_prompt for value in arguments.values()))
        or any(
            any(value is one for one in (*LATE_POLICIES, *PROGRAMS)) or (callable(value) and drawn[n][0] == "kernel")
            for n, value in arguments.items()
        )
    )
    return Case(name, functools.partial(entry.function, **arguments), arguments, broken, tuple(words), late)


# --- what may happen --------------------------------------------------------------------------------------------


class OutOfTime(BaseException):
    """Not an Exception, so that nothing swallows it."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


MAY_BE_NAN = {"true_task"}  # of a planner without a posterior, as its docstring says


def nans(value: Any, place: str = "result", depth: int = 0) -> list[str]:
    """Where a result holds NaN."""
    if (
        depth > 8
        or value is None
        or isinstance(value, (str, bytes, bool, int))
        or (callable(value) and not dataclasses.is_dataclass(value))
    ):
        return []
    if isinstance(value, float):
        return [place] if value != value else []
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = [(f.name, getattr(value, f.name, None)) for f in dataclasses.fields(value)]
        if isinstance(value, Posterior) and value.method == "nuts":  # it does not estimate it, as its docstring says
            parts = [(name, part) for name, part in parts if name != "log_evidence"]
    elif isinstance(value, (list, tuple, set)):
        parts = list(enumerate(value))
    elif isinstance(value, dict):
        parts = list(value.items())
    elif isinstance(value, xr.DataTree):
        parts = [(n.path, a.values) for n in value.subtree for a in n.data_vars.values()]
    else:
        array = (
            np.asarray(value.values if isinstance(value, xr.DataArray) else value)
            if not _is_key(value)
            else np.zeros(0)
        )
        return [place] if array.dtype.kind in "fc" and np.isnan(array).any() else []
    return [w for name, part in parts if name not in MAY_BE_NAN for w in nans(part, f"{place}.{name}", depth + 1)]


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


class Outcome(NamedTuple):
    """What became of an input: "accepted" or the name of an error; and what is wrong with that, or ""."""

    kind: str
    violation: str = ""


def judge(case: Case, seconds: float = SECONDS) -> Outcome:
    """Run it."""
    try:
        with warnings.catch_warnings(), at_most(seconds):
            warnings.simplefilter("error")
            result = case.call()
    except bp.BayesparError as error:
        kind, message = type(error).__name__, str(error)
        named = any(w in message for w in case.words) or isinstance(error, bp.ImpossibleEvidenceError)
        if not case.broken and not named:
            return Outcome(kind, f"a valid input was refused: {message}")
        if not named and not isinstance(error, bp.TooLargeError):
            return Outcome(kind, f"the message names none of {sorted(set(case.words))}: {message}")
        if len(message) > 2000 and case.entry != "command line":
            return Outcome(kind, f"a message of {len(message)} characters: {message[:80]}")
        return Outcome(kind)
    except OutOfTime:
        return Outcome("hang", f"not done after {seconds} s")
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return Outcome(type(error).__name__, "".join(traceback.format_exception(error)[-12:]))
    try:
        found = nans(result)
    except Exception as error:
        return Outcome("accepted", f"the result cannot be read: {type(error).__name__}: {error}")
    return Outcome("accepted", f"NaN in {', '.join(found)}" if found else "")


COMPILATIONS = [0]


@functools.cache
def count_compilations() -> None:
    """Start counting; listeners cannot be taken away, so one serves the whole process."""

    def count(event: str, *_: Any, **__: Any) -> None:
        COMPILATIONS[0] += event == COMPILED

    jax.monitoring.register_event_duration_secs_listener(count)


def shown(case: Case) -> str:
    """The input, shortened."""

    def text(value: Any) -> str:
        try:
            words = repr(value)
        except Exception as error:
            words = f"<{type(value).__name__} without a repr: {type(error).__name__}>"
        return words if len(words) < 400 else f"{words[:400]}..."

    lines = [f"    {'* ' if n in case.broken else '  '}{n} = {text(value)}" for n, value in case.arguments.items()]
    return "\n".join([f"  {case.entry}", *lines])


@dataclasses.dataclass
class Run:
    """What a run found.

    Attributes:
        outcomes: how many inputs of each (entry, outcome).
        violations: (index, what is wrong, the input).
    """

    outcomes: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    violations: list[tuple[int, str, str]] = dataclasses.field(default_factory=list)

    def table(self) -> str:
        """Inputs by entry and outcome."""
        kinds = ["accepted", *sorted({k for _, k in self.outcomes} - {"accepted"})]
        lines = [" ".join([f"{'entry':24}", f"{'inputs':>7}", *(f"{k.removesuffix('Error'):>18}" for k in kinds)])]
        for entry in dict.fromkeys(sorted(e for e, _ in self.outcomes)):
            counts = [self.outcomes[entry, k] for k in kinds]
            lines.append(" ".join([f"{entry:24}", f"{sum(counts):7}", *(f"{n or '':>18}" for n in counts)]))
        counts = [sum(n for (_, k), n in self.outcomes.items() if k == kind) for kind in kinds]
        lines.append(" ".join([f"{'all':24}", f"{sum(counts):7}", *(f"{n:>18}" for n in counts)]))
        return "\n".join(lines)


def fuzz(
    indices: Sequence[int],
    seed: int = 0,
    entries: dict[str, Entry] | None = None,
    *,
    seconds: float = SECONDS,
    progress: Callable[[int, Run], None] | None = None,
) -> Run:
    """Try these inputs; then the refused ones once more, to see that nothing is compiled for them."""
    entries = ENTRIES if entries is None else entries
    count_compilations()
    run, refused = Run(), []
    for done, index in enumerate(indices):
        case = make(seed, index, entries)
        outcome = judge(case, seconds)
        run.outcomes[case.entry, outcome.kind] += 1
        if outcome.violation:
            run.violations.append((index, outcome.violation, shown(case)))
        elif outcome.kind not in ("accepted", "ImpossibleEvidenceError") and case.broken and not case.late:
            refused.append(index)
        if progress is not None:
            progress(done + 1, run)
    jax.clear_caches()
    for index in refused:
        case = make(seed, index, entries)
        before = COMPILATIONS[0]
        judge(case, seconds)
        if COMPILATIONS[0] > before:
            text = f"refused only after {COMPILATIONS[0] - before} compilations"
            run.violations.append((index, text, shown(case)))
            jax.clear_caches()
    return run


def main() -> int:
    """Status 1 if anything is not as it should be."""
    parser = argparse.ArgumentParser(description="fuzz every public entry")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="INDEX", help="replay one input")
    parser.add_argument(
        "--entry", action="append", metavar="NAME", help="only this entry (changes what an index means)"
    )
    arguments = parser.parse_args()
    # Asking for too much memory must fail here rather than end the machine.
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**34, resource.RLIM_INFINITY))
    entries = ENTRIES if arguments.entry is None else {name: ENTRIES[name] for name in arguments.entry}
    indices = range(arguments.count) if arguments.only is None else [arguments.only]
    began = time.perf_counter()

    def progress(done: int, run: Run) -> None:
        if done % 100 == 0 or done == len(indices):
            seconds = time.perf_counter() - began
            told = f"{done} of {len(indices)} inputs, {len(run.violations)} violations, {seconds:.0f} s"
            print(f"\r{told}", end="", file=sys.stderr, flush=True)

    run = fuzz(indices, arguments.seed, entries, progress=progress)
    print(file=sys.stderr)
    print(run.table())
    for index, violation, case in run.violations:
        print(
            f"\nseed {arguments.seed}, index {index}:\n{case}\n  {violation.strip()}".encode(
                "utf-8", "replace"
            ).decode()
        )
    print(f"\n{len(run.violations)} violations")
    return 1 if run.violations else 0


if __name__ == "__main__":
    sys.exit(main())
