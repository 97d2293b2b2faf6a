"""Small worlds on which other libraries meet exact Bayes: what they get wrong, and what they get right.

    python tests/peers/real_bugs.py            # print the tables
    python tests/peers/real_bugs.py --write    # and put them into docs/real-bugs.md

Everything is computed while it runs; expected values come from sums of exact fractions over all paths. The tables are
those of docs/real-bugs.md, which explains each row.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
import warnings
from collections.abc import Callable
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from dynamax import hidden_markov_model as dynamax
from numpyro.contrib.funsor import config_enumerate, enum, infer_discrete, log_density, markov
from pymdp import algos
from pymdp.agent import Agent
from pymdp.inference import smoothing_exact

warnings.simplefilter("ignore")
PAGE = Path(__file__).parents[2] / "docs" / "real-bugs.md"
PACKAGES = ["dynamax", "inferactively-pymdp", "numpyro", "funsor", "blackjax", "jax"]


class World(NamedTuple):
    """A hidden Markov chain in exact fractions, initial [S], transition [S, S'], emission [S, O]; and what is heard."""

    initial: list[Fraction]
    transition: list[list[Fraction]]
    emission: list[list[Fraction]]
    heard: list[int]

    @property
    def arrays(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the filters take: initial [S], transition [S, S'], log likelihoods [H, S]."""
        initial, transition, emission = (np.array(a, float) for a in self[:3])
        with np.errstate(divide="ignore"):
            return jnp.asarray(initial), jnp.asarray(transition), jnp.asarray(np.log(emission)[:, self.heard].T)


class Exact(NamedTuple):
    """P(heard), and where that is positive the law of the state given all of it, at each step [H][S]."""

    probability: Fraction
    states: list[list[Fraction]] | None


class Row(NamedTuple):
    """One line of a table: a label, the function, the world in words, what is right, what came out, what follows."""

    label: str
    function: str
    world: str
    expected: str
    got: str
    meaning: str


def exact(world: World) -> Exact:
    """Sums over states, forwards and backwards, in fractions."""
    S, H = len(world.initial), len(world.heard)
    after = [[Fraction(1)] * S]
    for o in reversed(world.heard[1:]):
        here = [sum((p * world.emission[t][o] * after[0][t] for t, p in enumerate(r)), Fraction(0)) for r in world[1]]
        after.insert(0, here)
    law = [world.initial[s] * world.emission[s][world.heard[0]] for s in range(S)]
    forward = [law]
    for o in world.heard[1:]:
        law = [sum((law[s] * world[1][s][t] for s in range(S)), Fraction(0)) * world.emission[t][o] for t in range(S)]
        forward.append(law)
    total = sum(law, Fraction(0))
    if not total:
        return Exact(total, None)
    return Exact(total, [[forward[h][s] * after[h][s] / total for s in range(S)] for h in range(H)])


def by_paths(world: World) -> Exact:
    """The same by adding up every single path: the check of :func:`exact`, for short worlds."""
    S, H = len(world.initial), len(world.heard)
    states = [[Fraction(0)] * S for _ in range(H)]
    for path in itertools.product(range(S), repeat=H):
        weight = world.initial[path[0]]
        for h, s in enumerate(path):
            weight *= world.emission[s][world.heard[h]] * (world.transition[path[h - 1]][s] if h else 1)
        for h, s in enumerate(path):
            states[h][s] += weight
    total = sum(states[0], Fraction(0))
    return Exact(total, [[v / total for v in row] for row in states] if total else None)


def fractions(rows: list[list[Any]]) -> list[list[Fraction]]:
    return [[Fraction(v) for v in row] for row in rows]


HALF = [Fraction(1, 2)] * 2
STAY = fractions([[1, 0], [0, 1]])  # the state never changes
SURE = fractions([[1, 0], [0, 1]])  # the state is what is heard
FAIR = fractions([["9/10", "1/10"], ["1/10", "9/10"]])
IMPOSSIBLE = World(fractions([[1, 0]])[0], STAY, SURE, [0, 1])
KNOWN = World(HALF, STAY, SURE, [1, 1])
BALANCED = World(HALF, STAY, FAIR, [0] * 20 + [1] * 20)
# State 0 is never heard as 1; state 1 is, half of the time.
QUIET = World(HALF, STAY, fractions([[1, 0], ["1/2", "1/2"]]), [0, 1])
SILENT = World(HALF, STAY, fractions([[1, 0], [1, 0]]), [1])
TINY = Fraction(5, 10**9)
RARE_STEP = World(
    fractions([["1/2", "1/2", 0]])[0],
    fractions([[1, 0, 0], [0, 1 - TINY, TINY], [0, 0, 1]]),
    fractions([[1 - Fraction(1, 10**10), Fraction(1, 10**10)]] * 2 + [[0, 1]]),
    [0, 1],
)
RARE_SURE = World(
    fractions([[1, 0]])[0], fractions([[1 - Fraction(1, 10**9), Fraction(1, 10**9)], [0, 1]]), SURE, [0, 1]
)


def number(value: Any) -> str:
    """Four digits: what is left of platforms and versions of JAX."""
    value = float(value)
    if math.isnan(value) or math.isinf(value):
        return str(value)
    return f"{value + 0.0:.4g}"


def law(values: Any) -> str:
    return "(" + ", ".join(number(v) for v in np.asarray(values, float).reshape(-1)) + ")"


def log_of(probability: Fraction) -> str:
    return number(math.log(probability)) if probability else "-inf"


def last(world: World) -> str:
    states = exact(world).states
    return "none: impossible" if states is None else law(states[-1])


def first(world: World) -> str:
    states = exact(world).states
    assert states is not None
    return law(states[0])


def whether(condition: bool) -> str:
    return "yes" if condition else "no"


# --- dynamax --------------------------------------------------------------------------------------------------------


def dynamax_rows() -> list[Row]:
    rows = []

    def add(*cells: str) -> None:
        rows.append(Row(f"D{len(rows) + 1}", *cells))

    balanced = dynamax.hmm_filter(*BALANCED.arrays)
    add(
        "hmm_filter, filtered_probs",
        "start (1/2, 1/2), stay, 9 in 10 reports right; hear 0 twenty times, then 1 twenty times",
        last(BALANCED),
        law(balanced.filtered_probs[-1]),
        "the twenty zeros are partly forgotten; a symmetric case becomes a sure one",
    )
    add(
        "hmm_filter, marginal_loglik",
        "the same",
        log_of(exact(BALANCED).probability),
        number(balanced.marginal_loglik),
        "evidence too high by a factor of 6000: it is no evidence to compare tasks by",
    )
    impossible = dynamax.hmm_filter(*IMPOSSIBLE.arrays)
    add(
        "hmm_filter, marginal_loglik",
        "start (1, 0), stay, sure; hear 0, 1",
        log_of(exact(IMPOSSIBLE).probability),
        number(impossible.marginal_loglik),
        "what cannot happen is scored as what must happen",
    )
    hmm = dynamax.CategoricalHMM(num_states=2, emission_dim=1, num_classes=2)
    parameters, _ = hmm.initialize(
        jax.random.key(0),
        initial_probs=IMPOSSIBLE.arrays[0],
        transition_matrix=IMPOSSIBLE.arrays[1],
        emission_probs=jnp.eye(2)[:, None, :],
    )
    add(
        "CategoricalHMM.marginal_log_prob",
        "the same",
        log_of(exact(IMPOSSIBLE).probability),
        number(hmm.marginal_log_prob(parameters, jnp.array([[0], [1]]))),
        "the same, in the class that users see",
    )
    coin = World(HALF, fractions([["1/2", "1/2"]] * 2), SURE, IMPOSSIBLE.heard)
    weights = [exact(IMPOSSIBLE).probability, exact(coin).probability]
    evidence = np.array([dynamax.hmm_filter(*w.arrays).marginal_loglik for w in (IMPOSSIBLE, coin)])
    add(
        "hmm_filter for each of two tasks, normalised",
        "the same under task 0, a fair coin under task 1; tasks 1/2 each",
        law([w / sum(weights) for w in weights]),
        law(np.exp(evidence) / np.exp(evidence).sum()),
        "the impossible task is believed",
    )
    _, path = dynamax.hmm_posterior_sample(jax.random.key(0), *IMPOSSIBLE.arrays)
    add(
        "hmm_posterior_sample",
        "the world of D3",
        last(IMPOSSIBLE),
        f"states {law(path)}",
        "a draw from a posterior that does not exist",
    )
    add(
        "hmm_posterior_mode",
        "the world of D3",
        last(IMPOSSIBLE),
        f"states {law(dynamax.hmm_posterior_mode(*IMPOSSIBLE.arrays))}",
        "a most likely path of probability 0, and no sign of it",
    )
    smoothed = dynamax.hmm_smoother(*RARE_STEP.arrays)
    add(
        "hmm_smoother, smoothed_probs[0]",
        "start (1/2, 1/2, 0); state 1 goes to 2 with 5e-9, else stay; hear 0, 1; P(1) = (1e-10, 1e-10, 1)",
        first(RARE_STEP),
        law(smoothed.smoothed_probs[0]),
        "the only good explanation is dropped, and what is left is scaled up to 1",
    )
    add(
        "hmm_smoother, smoothed_probs[0]",
        "start (1, 0); 0 goes to 1 with 1e-9, else stay; sure; hear 0, 1",
        first(RARE_SURE),
        law(dynamax.hmm_smoother(*RARE_SURE.arrays).smoothed_probs[0]),
        "no posterior for possible evidence",
    )
    initial, transition, _ = IMPOSSIBLE.arrays
    varying = dynamax.hmm_smoother(initial, transition[None], jnp.zeros((2, 2)))
    add(
        "hmm_smoother, trans_probs",
        "start (1, 0), stay, nothing heard; one transition matrix for each step",
        "(1, 0, 0, 0)",
        law(varying.trans_probs),
        "a state that cannot be reached spoils the expected transitions, so EM, of time-varying models",
    )
    parallel = dynamax.parallel_hmm_filter(*KNOWN.arrays)
    add(
        "parallel_hmm_filter, filtered_probs",
        "start (1/2, 1/2), stay, sure; hear 1, 1",
        last(KNOWN),
        law(parallel.filtered_probs[-1]),
        "a transition matrix with zeros and an observation that rules a state out are enough for NaN",
    )
    draws = [dynamax.parallel_hmm_posterior_sample(jax.random.key(k), *KNOWN.arrays)[1] for k in range(20)]
    add(
        "parallel_hmm_posterior_sample",
        "the same; 20 draws of the two states",
        "(1, 1) twenty times",
        f"{law(draws[0])} {sum(tuple(np.asarray(d)) == tuple(np.asarray(draws[0])) for d in draws)} times",
        "every draw is impossible",
    )
    add(
        "hmm_filter, marginal_loglik",
        "start (1/2, 1/2), stay; neither state ever says 1; hear 1",
        log_of(exact(SILENT).probability),
        number(dynamax.hmm_filter(*SILENT.arrays).marginal_loglik),
        "one task that cannot have said this makes the posterior of all tasks NaN",
    )
    return rows


# --- pymdp ----------------------------------------------------------------------------------------------------------


def agent_beliefs(world: World) -> tuple[np.ndarray, float]:
    """The belief of a pymdp agent after the whole of a world [S], and the free energy of its last step, nats."""
    initial, transition, _ = world.arrays
    emission = np.array(world.emission, float)
    agent = Agent(A=[jnp.asarray(emission.T)], B=[transition.T[:, :, None]], D=[initial], inference_algo="exact")
    prior, belief, info = agent.D, None, {}
    for o in world.heard:
        belief, info = agent.infer_states([jnp.array([o])], prior, return_info=True)
        prior = agent.update_empirical_prior(jnp.zeros((1, 1), int), belief)
    assert belief is not None
    return np.asarray(belief[0])[0, -1], float(np.asarray(info["vfe"]).squeeze())


def pymdp_rows() -> list[Row]:
    rows = []

    def add(*cells: str) -> None:
        rows.append(Row(f"P{len(rows) + 1}", *cells))

    once = IMPOSSIBLE._replace(heard=[1])
    belief, energy = agent_beliefs(once)
    add(
        "Agent.infer_states, belief",
        "start (1, 0), stay, sure; hear 1",
        last(once),
        law(belief),
        "impossible evidence gives an ordinary belief, with all that was known forgotten",
    )
    add(
        "Agent.infer_states, free energy",
        "the same",
        "inf",
        number(energy),
        "surprise has a ceiling near 36 nats",
    )
    belief, _ = agent_beliefs(BALANCED)
    add(
        "Agent.infer_states, belief",
        "start (1/2, 1/2), stay, 9 in 10 reports right; hear 0 twenty times, then 1 twenty times",
        last(BALANCED),
        law(belief),
        "the twenty zeros are partly forgotten",
    )
    never = fractions([[1, 0], ["1/10", "9/10"]])
    for heard, words, meaning in (
        ([0] * 16 + [1], "sixteen times 0, then 1", "the task that never says 1 is the likelier one"),
        ([1] + [0] * 20, "1, then twenty times 0", "what was ruled out for good comes back for sure"),
    ):
        world = World(HALF, STAY, never, heard)
        add(
            "Agent.infer_states, belief",
            f"start (1/2, 1/2), stay; state 0 never says 1, state 1 does 9 in 10 times; hear {words}",
            last(world),
            law(agent_beliefs(world)[0]),
            meaning,
        )
    evidence, filtered, _ = algos.hmm_filter_scan_rowstoch(*QUIET.arrays)
    add(
        "algos.hmm_filter_scan_rowstoch, evidence",
        "start (1/2, 1/2), stay; state 0 never says 1, state 1 does half of the time; hear 0, 1",
        log_of(exact(QUIET).probability),
        number(evidence),
        "log 3/8 in place of log 1/8: wrong without any small number or impossible evidence",
    )
    add(
        "algos.hmm_filter_scan_rowstoch, filtered",
        "the same",
        last(QUIET),
        law(filtered[-1]),
        "probabilities that do not sum to 1",
    )
    evidence, _, _ = algos.hmm_filter_scan_rowstoch(*IMPOSSIBLE.arrays)
    add(
        "algos.hmm_filter_scan_rowstoch, evidence",
        "start (1, 0), stay, sure; hear 0, 1",
        log_of(exact(IMPOSSIBLE).probability),
        number(evidence),
        "what cannot happen is scored as what must happen",
    )
    task, state, report = HALF, HALF, [[Fraction(9, 10), Fraction(1, 10)], [Fraction(1, 10), Fraction(6, 10)]]
    joint = [[task[z] * state[s] * report[z][s] for s in range(2)] for z in range(2)]
    total = sum(map(sum, joint), Fraction(0))
    emission = np.array([report, [[1 - p for p in row] for row in report]], float)
    agent = Agent(
        A=[jnp.asarray(emission)],
        B=[jnp.eye(2)[:, :, None]] * 2,
        D=[jnp.full(2, 0.5)] * 2,
        A_dependencies=[[0, 1]],
        B_dependencies=[[0], [1]],
    )
    belief = agent.infer_states([jnp.array([0])], agent.D)
    add(
        "Agent with two factors, belief over the first",
        "task and state (1/2, 1/2) each; P(0 given task, state) = 9/10, 1/10; 1/10, 6/10; hear 0",
        law([sum(row, Fraction(0)) / total for row in joint]),
        law(np.asarray(belief[0])[0, -1]),
        "mean field, an approximation by design: overconfident about the task",
    )
    return rows


# --- numpyro --------------------------------------------------------------------------------------------------------


def chain(world: World) -> Callable[[], list[Any]]:
    """A world as a numpyro model, its states to be enumerated."""
    initial, transition, emission = (jnp.asarray(np.array(a, float)) for a in world[:3])

    def model() -> list[Any]:
        states: list[Any] = []
        for h in markov(range(len(world.heard))):
            law_of_state = transition[states[-1]] if states else initial
            states.append(numpyro.sample(f"state {h}", dist.Categorical(law_of_state)))
            numpyro.sample(f"heard {h}", dist.Categorical(emission[states[-1]]), obs=world.heard[h])
        return states

    return model


def enumerated(model: Callable[[], Any]) -> float:
    return float(log_density(enum(config_enumerate(model), -1), (), {}, {})[0])


def decoded(model: Callable[[], Any], temperature: int) -> str:
    decoder = infer_discrete(
        config_enumerate(model), first_available_dim=-1, temperature=temperature, rng_key=jax.random.key(0)
    )
    try:
        return f"states {law([int(s) for s in decoder()])}"
    except ValueError as error:
        return f"ValueError: {str(error).split('.')[0]}"


def yes_or_no(yes: list[float], heard: list[int], dtype: Any) -> Callable[[], list[Any]]:
    """Two tasks, each with its chance of a yes, Bernoulli."""

    def model() -> list[Any]:
        task = numpyro.sample("task", dist.Categorical(jnp.full(2, 0.5, dtype)))
        chance = jnp.asarray(yes, dtype)[task]
        for n, o in enumerate(heard):
            numpyro.sample(f"heard {n}", dist.Bernoulli(chance), obs=o)
        return [task]

    return model


def numpyro_rows() -> list[Row]:
    rows = []

    def add(*cells: str) -> None:
        rows.append(Row(f"N{len(rows) + 1}", *cells))

    for p, value in ((1.0, 0), (0.0, 1)):
        got = []
        for dtype in (np.float32, np.float64):
            with jax.enable_x64(dtype is np.float64):
                got.append(number(dist.Bernoulli(probs=jnp.asarray(p, dtype)).log_prob(value)))
        add(
            "Bernoulli(probs).log_prob, float32 and float64",
            f"probs = {p:g}; value {value}",
            "-inf, -inf",
            ", ".join(got),
            "impossible becomes unlikely; the two ends differ, and so do the precisions",
        )
    heard = [1] * 8 + [0]
    with jax.enable_x64(False):
        logs = []
        for task in range(2):
            given = numpyro.handlers.condition(yes_or_no([1.0, 0.1], heard, np.float32), {"task": jnp.array(task)})
            logs.append(float(log_density(given, (), {}, {})[0]))
        weights = np.exp(np.array(logs) - max(logs))
        best = decoded(yes_or_no([1.0, 0.1], heard, np.float32), 0)
    world = "two tasks, 1/2 each: always yes, and yes 1 in 10 times (Bernoulli, float32); hear yes 8 times, then no"
    add(
        "log_density at each task, normalised",
        world,
        "(0, 1)",
        law(weights / weights.sum()),
        "the impossible task is believed, in numpyro's default precision, after nine answers",
    )
    add("contrib.funsor.infer_discrete, temperature 0", world, "states (1)", best, "the same, by enumeration")
    add(
        "contrib.funsor.infer_discrete, temperature 1",
        "start (1/2, 1/2), stay, sure; hear 1, 1 (Categorical)",
        "states (1, 1)",
        decoded(chain(KNOWN), 1),
        "a posterior with a zero in it cannot be sampled while validation is on, which it is",
    )
    add(
        "contrib.funsor.infer_discrete, temperature 0",
        "start (1, 0), stay, sure; hear 0, 1 (Categorical)",
        last(IMPOSSIBLE),
        decoded(chain(IMPOSSIBLE), 0),
        "a most likely path of probability 0, and no sign of it",
    )
    return rows


# --- blackjax -------------------------------------------------------------------------------------------------------


def blackjax_rows() -> list[Row]:
    def propose(key: jax.Array) -> jax.Array:
        return jax.random.bernoulli(key, 0.9).astype(int)

    sampler = blackjax.irmh(lambda x: jnp.log(0.5) + 0 * x, propose)
    corrected = blackjax.irmh(
        lambda x: jnp.log(0.5) + 0 * x, propose, lambda _, to: jnp.log(jnp.where(to.position == 1, 0.9, 0.1))
    )
    shares = []
    for algorithm in (sampler, corrected):

        def step(state: Any, key: jax.Array, algorithm: Any = algorithm) -> tuple[Any, jax.Array]:
            state, _ = algorithm.step(key, state)
            return state, state.position

        keys = jax.random.split(jax.random.key(0), 40000)
        _, positions = jax.lax.scan(step, algorithm.init(jnp.array(0)), keys)
        shares.append(f"{float(positions.mean()):.1f}")
    return [
        Row(
            "B1",
            "irmh(log_density, proposal)",
            "two states, 1/2 each; proposal (1/10, 9/10); share of state 1 in 40000 steps",
            "0.5",
            shares[0],
            f"it draws from the proposal; with proposal_logdensity_fn the share is {shares[1]}",
        )
    ]


# --- what is right --------------------------------------------------------------------------------------------------


def random_worlds(count: int, zeros: bool) -> list[World]:
    """Possible worlds of 3 states, 2 observations and 3 steps, in small fractions."""
    rng = np.random.default_rng(0)

    def row(size: int) -> list[Fraction]:
        weights = [int(v) for v in rng.choice([0, 0, 1, 2, 3] if zeros else [1, 2, 3, 4], size=size)]
        total = sum(weights)
        return [Fraction(v, total) for v in weights] if total else [Fraction(i == 0) for i in range(size)]

    worlds = []
    while len(worlds) < count:
        heard = [int(o) for o in rng.integers(2, size=3)]
        world = World(row(3), [row(3) for _ in range(3)], [row(2) for _ in range(3)], heard)
        assert exact(world) == by_paths(world)
        if exact(world).probability:
            worlds.append(world)
    return worlds


def agrees(worlds: list[World], compute: Callable[[World], tuple[Any, Any]], tolerance: float = 1e-9) -> str:
    """On how many worlds (log evidence or None, states [H, S] or the last [S] or None) are right to ``tolerance``."""
    right = 0
    for world in worlds:
        probability, states = exact(world)
        evidence, got = compute(world)
        near = True
        if got is not None:
            wanted = np.array(states, float)
            wanted = wanted if np.ndim(got) == 2 else wanted[-1]
            near = np.allclose(np.asarray(got, float), wanted, rtol=0, atol=tolerance)
        right += near and (evidence is None or abs(float(evidence) - math.log(probability)) < tolerance)
    return f"{right} of {len(worlds)}"


def right_rows() -> list[Row]:
    rows = []

    def add(*cells: str) -> None:
        rows.append(Row(f"R{len(rows) + 1}", *cells))

    zeros, positive = random_worlds(30, zeros=True), random_worlds(30, zeros=False)
    many = "30 random possible worlds of 3 states and 3 steps, half of the entries zeros"
    everywhere = "30 random worlds of 3 states and 3 steps without zeros"

    def of(function: Callable[..., Any], field: str) -> Callable[[World], tuple[Any, Any]]:
        def compute(world: World) -> tuple[Any, Any]:
            result = function(*world.arrays)
            states = getattr(result, field)
            return result.marginal_loglik, states[-1] if field == "filtered_probs" else states

        return compute

    def scan(world: World) -> tuple[Any, Any]:
        evidence, filtered, _ = algos.hmm_filter_scan_rowstoch(*world.arrays)
        return evidence, filtered[-1]

    for name, field in (
        ("hmm_filter", "filtered_probs"),
        ("hmm_smoother", "smoothed_probs"),
        ("hmm_two_filter_smoother", "smoothed_probs"),
        ("parallel_hmm_filter", "filtered_probs"),
        ("parallel_hmm_smoother", "smoothed_probs"),
    ):
        compute = of(getattr(dynamax, name), field)
        add(f"dynamax {name}", many, "30 of 30", agrees(zeros, compute), "evidence and states, to 1e-9")
        if name.startswith("parallel"):
            add(f"dynamax {name}", everywhere, "30 of 30", agrees(positive, compute), "zeros are what it stumbles over")
    two = dynamax.hmm_two_filter_smoother(*RARE_STEP.arrays)
    add(
        "dynamax hmm_two_filter_smoother",
        "the world of D8",
        first(RARE_STEP),
        law(two.smoothed_probs[0]),
        "use it in place of hmm_smoother",
    )
    add(
        "dynamax parallel_hmm_filter, marginal_loglik",
        "the world of D3",
        log_of(exact(IMPOSSIBLE).probability),
        number(dynamax.parallel_hmm_filter(*IMPOSSIBLE.arrays).marginal_loglik),
        "impossible evidence is -inf here",
    )
    add(
        "pymdp Agent, one factor",
        everywhere,
        "30 of 30",
        agrees(positive, lambda w: (None, agent_beliefs(w)[0])),
        "the last belief, to 1e-9: one factor is exact Bayes",
    )
    add(
        "pymdp Agent, one factor",
        many,
        "30 of 30",
        agrees(zeros, lambda w: (None, agent_beliefs(w)[0])),
        "clipping at 2e-16 does no harm in short possible worlds",
    )
    add("pymdp algos.hmm_filter_scan_rowstoch", everywhere, "30 of 30", agrees(positive, scan), "right without zeros")
    add("pymdp algos.hmm_filter_scan_rowstoch", many, "30 of 30", agrees(zeros, scan), "P6 is not a rare case")

    def smoothed(world: World) -> tuple[Any, Any]:
        filtered = dynamax.hmm_filter(*world.arrays).filtered_probs
        return None, smoothing_exact([filtered], [world.arrays[1].T[:, :, None]], jnp.zeros((2, 1), int))[0][0]

    add("pymdp inference.smoothing_exact", many, "30 of 30", agrees(zeros, smoothed), "from exact filtered beliefs")
    few = zeros[:5]
    add(
        "numpyro log_density with enumeration (Categorical)",
        "the first 5 of the worlds with zeros",
        "5 of 5",
        agrees(few, lambda w: (enumerated(chain(w)), None)),
        "evidence only, to 1e-9",
    )
    add(
        "numpyro log_density with enumeration (Categorical)",
        "the world of D1",
        log_of(exact(BALANCED).probability),
        number(enumerated(chain(BALANCED))),
        "log space loses nothing",
    )
    add(
        "numpyro log_density with enumeration (Categorical)",
        "the world of D3",
        log_of(exact(IMPOSSIBLE).probability),
        number(enumerated(chain(IMPOSSIBLE))),
        "Categorical keeps zeros, and enumeration does too",
    )
    numpyro.enable_validation(False)
    unchecked = decoded(chain(KNOWN), 1)
    numpyro.enable_validation(True)
    add(
        "numpyro infer_discrete, temperature 1, enable_validation(False)",
        "the world of N5",
        "states (1, 1)",
        unchecked,
        "the cure for N5",
    )
    names = {
        "nuts": lambda f: blackjax.nuts(f, step_size=0.5, inverse_mass_matrix=jnp.ones(1)),
        "mala": lambda f: blackjax.mala(f, step_size=0.2),
        "normal_random_walk": lambda f: blackjax.normal_random_walk(f, jnp.array([0.7])),
        "barker": lambda f: blackjax.barker(f, step_size=0.5),
    }
    for name, build in names.items():
        add(
            f"blackjax {name}",
            "log odds ~ Normal(0, 1), 5 tosses of that coin, 3 steps of the kernel; 10000 times",
            "still Normal(0, 1)",
            whether(keeps_the_prior(build)),
            "mean, second and third moment within 4 standard errors",
        )
    return rows


def keeps_the_prior(build: Callable[[Callable[[Any], Any]], Any], draws: int = 10000) -> bool:
    """Whether steps on the posterior of data drawn from the model leave the prior as it was (Geweke 2004)."""

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, toss, *steps = jax.random.split(key, 5)
        start = jax.random.normal(first, (1,))
        heads = (jax.random.uniform(toss, (5,)) < jax.nn.sigmoid(start)).sum()
        algorithm = build(lambda x: (-(x**2) / 2 + heads * x - 5 * jnp.logaddexp(0.0, x))[0])
        state = algorithm.init(start)
        for step in steps:
            state, _ = algorithm.step(step, state)
        return start[0], state.position[0]

    before, after = (np.asarray(a) for a in jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), draws)))
    moves = [after**k - before**k for k in (1, 2, 3)]
    return all(abs(m.mean()) < 4 * m.std() / math.sqrt(draws) for m in moves)


# --- the page -------------------------------------------------------------------------------------------------------


def table(rows: list[Row]) -> str:
    head = "| | function | world | should be | is | so |\n|---|---|---|---|---|---|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def versions() -> str:
    return "Versions: " + ", ".join(f"{name} {version(name)}" for name in PACKAGES) + "."


def sections() -> dict[str, str]:
    """The tables of the page by their headings."""
    with jax.enable_x64(True):
        return {
            "dynamax": table(dynamax_rows()),
            "pymdp": table(pymdp_rows()),
            "numpyro": table(numpyro_rows()),
            "blackjax": table(blackjax_rows()),
            "What is right": table(right_rows()),
        }


def page(text: str, tables: dict[str, str]) -> str:
    """The page with the first table below each heading, and the versions, as they are now."""
    text = re.sub(r"^Versions: .*$", versions(), text, flags=re.M)
    for heading, table in tables.items():
        before, after = text.split(f"\n## {heading}\n", 1)
        after = re.sub(r"(?:^\|.*\n)+", lambda _, new=table: new, after, count=1, flags=re.M)
        text = f"{before}\n## {heading}\n{after}"
    return text


if __name__ == "__main__":
    print(versions())
    TABLES = sections()
    for heading, text in TABLES.items():
        print(f"\n{heading}\n\n{text}", end="")
    if "--write" in sys.argv:
        PAGE.write_text(page(PAGE.read_text(), TABLES))
