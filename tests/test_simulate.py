"""The online loop and the corpora against closed forms, exact values and the oracle."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bayespar as bp
from bayespar.filtering import Weights
from bayespar.planning.bail import BailPlanner, bail_table
from bayespar.planning.expert import HistoryExperts
from bayespar.planning.histories import enumerate_histories
from bayespar.planning.planner import Episode, Observed
from bayespar.planning.value import policy_value, table_value
from bayespar.statistics import MeanConfidence
from bayespar.testing.oracle import Oracle, as_prompt, corpus_law

ALPHA = 1e-5  # of each statistical test here; keys are fixed, so they either pass or fail for ever


@functools.cache
def family_of(name: str, *arguments, **parameters) -> bp.Family:
    return bp.enumerate_program(functools.partial(bp.load_model(name), *arguments, **parameters))


TINY = (5, (3, 2, 2, 2, 3, 2))  # seed and sizes of a random world


@functools.cache
def tiny() -> tuple[bp.Family, object]:
    family = family_of("random_world", *TINY)
    return family, bp.solve_experts(family)


def contains(draws: np.ndarray, value: float, low: float, high: float) -> bool:
    """Whether the confidence sequence of ``draws`` keeps ``value``."""
    sequence = MeanConfidence(low, high, ALPHA, plan=len(draws))
    for batch in np.array_split(draws, 32):
        sequence.update(batch)
    return sequence.interval().contains(float(value))


# --- regret -----------------------------------------------------------------------------------------------------


def test_needle_meets_its_closed_form():
    K, seeds = 16, 2048
    family = family_of("needle", tasks=K)
    curves = bp.simulate_regret(family, 3, episodes=2 * K, seeds=seeds, key=1)
    assert curves.regret.shape == curves.true_task.shape == curves.explored.shape == (seeds, 2 * K)
    for T in (1, 4, K, 2 * K):
        expected = T - T * (T + 1) / (2 * K) if T <= K else (K - 1) / 2
        interval = curves.interval(T, alpha=ALPHA)
        assert interval.contains(expected)
        assert interval.count == seeds
        assert T == 1 or interval.half_width <= 0.08 * expected
    # What is lost in an episode is what the Planner gives to the wrong buttons, and each failure rules out one.
    assert curves.regret[:, 0] == pytest.approx(1 - 1 / K)
    assert curves.true_task[:, 0] == pytest.approx(1 / K)
    assert curves.regret == pytest.approx(1 - curves.true_task, abs=1e-12)
    assert np.isin(np.round(1 / curves.true_task).astype(int), range(1, K + 1)).all()
    assert (np.diff(curves.true_task, axis=1) >= 0).all()
    assert curves.cumulative[:, -1] == pytest.approx(curves.regret.sum(axis=1))
    assert not curves.explored.any()


def test_same_key_same_curves_and_more_of_them_keep_the_earlier_ones():
    family, experts = tiny()

    def run(**changes):
        settings = {"episodes": 5, "seeds": 3, "key": 7, "exploration": 0.3, "experts": experts} | changes
        return bp.simulate_regret(family, "task 1", **settings)

    first = run()
    for again in (run(key=jax.random.key(7)), run(episodes=300), run(seeds=40), run(episodes=8, seeds=17)):
        for name in ("regret", "true_task", "explored"):
            assert np.array_equal(getattr(again, name)[:3, :5], getattr(first, name)), name
    long = run(episodes=300, seeds=40)
    assert len(np.unique(long.regret[:, :5], axis=0)) > 20  # seeds differ, across blocks and groups of blocks too
    assert not np.array_equal(run(key=8).regret, first.regret)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_keep_what_probabilities_lose(dtype):
    log_weights = np.array([-5000.0, -4998.0, -1.0, 3000.0, -np.inf], dtype)
    likelihood = np.array([0.5, 0.125, 0.0, 0.0, 1.0], dtype)
    with jax.enable_x64(dtype == "float64"), np.errstate(divide="ignore"):
        past = Weights.from_log(log_weights)
        now = past * Weights.from_log(np.log(likelihood))
        posterior, before, logs = (np.asarray(a) for a in (now.normalised(), past.normalised(), now.log()))
        reduced = now.reduced()
        assert np.array_equal(reduced.normalised(), posterior)
        assert ((reduced.fraction >= 1) & (reduced.fraction < 2) | (reduced.fraction == 0)).all()
        nothing = past * Weights.from_log(np.full(5, -np.inf, dtype))
        assert np.isnan(nothing.normalised()).all()
        joint = log_weights.astype(np.float64) + np.log(likelihood)
    # Both survivors lie thousands of nats below what was believed; one is exp(2) / 4 as likely as the other.
    rounding = float(8 * 5000 * np.finfo(dtype).eps)  # of numbers as large as the logarithms
    assert posterior == pytest.approx(np.array([1, math.exp(2) / 4, 0, 0, 0]) / (1 + math.exp(2) / 4), abs=rounding)
    assert (posterior[2:] == 0).all()
    assert np.array_equal(before, [0, 0, 0, 1, 0])
    assert logs[:2] == pytest.approx(joint[:2], abs=rounding)
    assert (logs[2:] == -np.inf).all()
    assert not (np.exp(log_weights - log_weights.max()) * likelihood).any()  # probabilities lose them


def test_a_settled_posterior_recovers_as_logarithms_do():
    """A task that hundreds of episodes all but ruled out is still there: the loop's posterior is exact after each."""
    family, experts = tiny()
    planner = BailPlanner(family, experts)
    rng = np.random.default_rng(0)
    o, g = rng.integers(0, 2, (600, 3)), rng.integers(0, 2, (600, 2))
    logs = np.log(family.task_prior)[:, None] + np.cumsum(bp.log_evidence(family, o, g), axis=1)
    exact = np.exp(logs - logs.max(axis=0)) / np.exp(logs - logs.max(axis=0)).sum(axis=0)

    def episode(state, heard):
        o, g = heard
        for h in range(3):
            state, _ = planner.step(state, Observed(o[h], g[max(h - 1, 0)], jnp.int32(h), jnp.int32(0)))
        state = planner.observe(state, Episode(jnp.int32(0), o, g))
        return state, (planner.posterior(state), state.log_weights)

    with jax.enable_x64(True):
        start = planner.init(0, jax.random.key(0))
        found, kept = jax.jit(lambda s, x: jax.lax.scan(episode, s, x))(start, (o, g))[1]
    differences = np.asarray(kept).T - logs
    assert np.ptp(logs, axis=0).max() > 50
    assert np.abs(np.asarray(found).T - exact).max() <= 1e-10
    assert np.abs(differences - differences[0]).max() <= 1e-10


def test_exploration_schedule():
    K = 4
    family = family_of("needle", tasks=K)
    schedule = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    curves = bp.simulate_regret(family, 0, "bail", schedule, episodes=5, seeds=20)
    assert np.array_equal(curves.explored, np.broadcast_to(schedule == 1, (20, 5)))
    # Uniform play over K + 1 subgoals loses K / (K + 1), whatever is known.
    assert curves.regret[:, [0, 3]] == pytest.approx(K / (K + 1))
    always_reads = (lambda w, key: (), lambda state, observed: (state, jnp.eye(K + 1)[K]))
    curves = bp.simulate_regret(family, 0, "bail", schedule, 5, 20, always_reads)
    assert curves.regret[:, [0, 3]] == pytest.approx(1.0)
    # One read of the sign (q = 1/2): 1 with probability 5/8, else another button; then BAIL samples the posterior.
    assert set(np.round(curves.true_task[:, 1], 9)) <= {0.625, 0.125}
    half = bp.simulate_regret(family, 0, "bail", 0.5, 64, 64)
    assert contains(half.explored.reshape(-1).astype(float), 0.5, 0.0, 1.0)
    for bad in (1.5, -0.1, math.nan, [0.5, 0.5], "gated?"):
        with pytest.raises(bp.InvalidPlannerError):
            bp.simulate_regret(family, 0, "bail", bad, episodes=3, seeds=2)


def test_the_number_of_compilations_does_not_grow_with_episodes_or_seeds():
    family, experts = tiny()
    compiled = []

    def listener(event, duration, **kwargs):
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    def count(episodes, seeds):
        before = len(compiled)
        schedule = np.linspace(1, 0, episodes)
        bp.simulate_regret(family, 0, "bail", schedule, episodes, seeds, experts=experts, key=episodes)
        return len(compiled) - before

    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        jax.clear_caches()
        assert count(300, 2) > 0
        # Past a chunk of 256, and at each power of two below it, nothing new is compiled.
        assert [count(T, seeds) for T, seeds in [(299, 2), (257, 2), (256, 2), (200, 2), (129, 2)]] == [0] * 5
        assert [count(T, seeds) for T, seeds in [(300, 1), (300, 16)]] == [0] * 2
        assert max(count(300, 40), count(300, 80)) <= 3  # only to split the key into another number of keys
        few = count(5, 2)
        assert few > 0
        assert [count(T, seeds) for T, seeds in [(6, 2), (7, 2), (8, 16)]] == [0] * 3
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def test_regret_is_unbiased_for_the_exact_values_of_the_first_two_episodes():
    family, experts = tiny()
    oracle, histories = Oracle(family), enumerate_histories(family)
    task = 1
    best = np.asarray(experts.value)[task] @ family.instruction_prior
    first = table_value(histories, bail_table(histories, experts))[task] @ family.instruction_prior

    # The second episode: every first episode, its probability under the task, and BAIL from its posterior.
    second = 0.0
    table = bail_table(histories, experts)
    for n in range(len(histories.layers[2].parent)):
        o, g = histories.sequence(2, n)
        index = [n, int(histories.layers[2].parent[n])]
        index.append(int(histories.layers[1].parent[index[1]]))
        weights = oracle.posterior((((0, tuple(o), tuple(g)),), 0, (), ()))
        later = table_value(histories, bail_table(histories, experts, weights))[task] @ family.instruction_prior
        for w in range(2):
            played = table[0][index[2], w, g[0]] * table[1][index[1], w, g[1]]
            second += family.instruction_prior[w] * oracle.likelihood(task, o, g) * played * later
    # The exact side agrees with the planner that the loop runs.
    planner = policy_value(family, BailPlanner(family, experts))[task] @ family.instruction_prior
    assert planner == pytest.approx(first, abs=1e-10)

    curves = bp.simulate_regret(family, task, episodes=2, seeds=4096, experts=experts, key=3)
    assert curves.estimator == "advantage"
    assert (curves.regret >= 0).all()
    for t, exact in enumerate([best - first, best - second]):
        assert exact > 1e-3
        assert contains(curves.regret[:, t], exact, 0.0, curves.bound)
        assert not contains(curves.regret[:, t], 1.5 * exact + 0.02, 0.0, curves.bound)

    rough = HistoryExperts(
        value=experts.value,
        root=experts.root,
        child=experts.child,
        table=experts.table,
        actions=experts.actions,
        gap=0.1,
    )
    curves = bp.simulate_regret(family, task, episodes=2, seeds=4096, experts=rough, key=3)
    assert curves.estimator == "reward"
    for t, exact in enumerate([best - first, best - second]):
        assert contains(curves.regret[:, t], exact, -curves.bound, curves.bound)


# --- planners ---------------------------------------------------------------------------------------------------


class EliminatingPlanner(bp.Planner):
    """BAIL on the needle, written out: a button at random among those that may still win, or the one that did."""

    buttons: int

    def init(self, instruction, key):
        return jnp.ones(self.buttons)

    def step(self, state, observed):
        return state, jnp.append(state / state.sum(), 0.0)

    def observe(self, state, episode):
        pressed, heard = episode.subgoals[0], episode.observations[1]
        lost = state.at[pressed].set(0.0)
        won = jnp.zeros_like(state).at[pressed].set(1.0)
        return jnp.where(heard == 1, won, jnp.where(heard == 2, lost, state))


def test_every_kind_of_planner_that_is_bail_gives_the_same_curves():
    K, T, seeds = 4, 4, 3
    family = family_of("needle", tasks=K)
    experts = bp.solve_experts(family)
    planner = EliminatingPlanner(K)

    def of_prompt(prompt):
        return bp.bail(family, prompt, experts=experts)

    expected = bp.simulate_regret(family, 2, "bail", 0.0, T, seeds, key=5)
    assert len(np.unique(expected.regret)) > 1
    kinds = {
        "subclass": planner,
        "triple": (planner.init, planner.step, planner.observe),
        "built in": BailPlanner(family, experts),
        "prompt": of_prompt,
    }
    for kind, each in kinds.items():
        found = bp.simulate_regret(family, 2, each, 0.0, T, seeds, key=5)
        assert np.abs(found.regret - expected.regret).max() <= 1e-9, kind
        assert np.isnan(found.true_task).all() == (kind != "built in")


def test_a_prompt_callable_sees_the_whole_prompt():
    family, experts = tiny()
    expected = bp.simulate_regret(family, 1, "bail", 0.5, 2, 2, key=9, experts=experts)
    found = bp.simulate_regret(
        family, 1, lambda p: bp.bail(family, p, experts=experts), 0.5, 2, 2, key=9, experts=experts
    )
    assert np.abs(found.regret - expected.regret).max() <= 1e-9


def test_a_pair_starts_every_episode_anew():
    family, experts = tiny()

    def init(instruction, key):
        return jnp.zeros(()), jnp.asarray(instruction)

    def step(state, observed):
        count, instruction = state
        count = count + 1 + observed.observation
        a = (count + 2 * instruction) / 100  # the instruction that it was started with
        return (count, instruction), jnp.stack([a, 1 - a])

    def of_prompt(prompt):
        a = (sum(1 + o for o in prompt.current_observations) + 2 * prompt.current_instruction) / 100
        return np.array([a, 1 - a])

    def run(planner):
        return bp.simulate_regret(family, 0, planner, 0.2, 4, 4, experts=experts, key=2).regret

    pair = run((init, step))
    assert np.abs(pair - run(of_prompt)).max() <= 1e-9
    remembering = run((init, step, lambda state, episode: state))
    assert np.array_equal(pair[:, 0], remembering[:, 0])
    assert not np.array_equal(pair[:, 1:], remembering[:, 1:])


def test_baselines_on_the_lock():
    """By hand, for a word that must be typed whole: the oracle loses nothing; MAP starts with the first word, by the
    rule for ties; Thompson sampling tries one of the two words and then knows."""
    family = family_of("lock")

    def total(task, planner, seeds=16):
        return bp.simulate_regret(family, task, planner, 0.0, 4, seeds, key=1).regret

    for task in (0, 1):
        assert np.abs(total(task, "oracle")).max() <= 1e-12
        assert np.abs(total(task, "map") - task * np.eye(4)[0]).max() <= 1e-12
    thompson = total(0, "thompson", 4096)
    assert np.abs(thompson[:, 1:]).max() <= 1e-12
    lost = thompson[:, 0] > 0.5
    assert np.abs(thompson[:, 0] - lost).max() <= 1e-12
    assert abs(lost.mean() - 0.5) <= 5 * 0.5 / 64  # five standard deviations of 4096 fair coins


@pytest.mark.parametrize("bad", ["oracle?", 3, None, (lambda w, key: (),), (lambda w, key: (), 5)])
def test_no_planner(bad):
    with pytest.raises(bp.InvalidPlannerError):
        bp.simulate_regret(family_of("needle", tasks=4), 0, bad, episodes=2, seeds=2)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (jnp.ones(5), "no distribution"),
        (jnp.array([1.5, -0.5, 0, 0, 0]), "no distribution"),
        (jnp.full(5, jnp.nan), "no distribution"),
        (jnp.ones(4) / 4, r"shape \[4\]; it must be \[5\]"),
    ],
)
def test_planners_that_return_no_distribution_are_named(probabilities, message):
    planner = (lambda w, key: (), lambda state, observed: (state, probabilities))
    with pytest.raises(bp.InvalidPlannerError, match=message):
        bp.simulate_regret(family_of("needle", tasks=4), 0, planner, episodes=2, seeds=2)
    with pytest.raises(bp.InvalidPlannerError, match=message):
        bp.sample_corpus(family_of("needle", tasks=4), 2, 2, planner)


@pytest.mark.parametrize("returned", [[2.0, 0, 0, 0, 0], [0.5, 0.5], [np.nan] * 5])
def test_prompt_callables_that_return_no_distribution_are_named(returned):
    with pytest.raises(bp.InvalidPlannerError, match="seed 0, episode 0"):
        bp.simulate_regret(family_of("needle", tasks=4), 0, lambda prompt: returned, episodes=2, seeds=2)


def test_a_task_of_prior_zero_is_refused():
    family = family_of("needle", tasks=4)
    family = bp.Family([0, 0.5, 0.5, 0], family.initial, family.transition, family.emission, family.reward, horizon=2)
    with pytest.raises(bp.InvalidWorldError, match="prior 0"):
        bp.simulate_regret(family, 0, episodes=2, seeds=2)


@pytest.mark.parametrize("counts", [(0, 4), (4, 0), (-1, 4), (True, 4)])
def test_bad_counts(counts):
    with pytest.raises(bp.InvalidPlannerError, match="at least 1"):
        bp.simulate_regret(family_of("needle", tasks=4), 0, "bail", 0.0, *counts)


def test_no_such_task():
    for bad in (4, -1, "button 9 wins", True):
        with pytest.raises(bp.InvalidWorldError):
            bp.simulate_regret(family_of("needle", tasks=4), bad, episodes=2, seeds=2)


# --- corpora ----------------------------------------------------------------------------------------------------


def corpus_prompt(corpus: bp.Corpus, b: int, n: int, h: int):
    """The prompt of decision h of episode n, for the oracle."""
    past = tuple(
        (
            int(corpus.instructions[b, i]),
            *(tuple(int(v) for v in a[b, i]) for a in (corpus.observations, corpus.subgoals)),
        )
        for i in range(n)
    )
    current = tuple(map(int, corpus.observations[b, n, : h + 1])), tuple(map(int, corpus.subgoals[b, n, :h]))
    return past, int(corpus.instructions[b, n]), *current


def uneven(w, key):
    return jnp.zeros(())


def uneven_step(state, observed):
    a = (1 + observed.observation + 2 * (observed.subgoal == 1) + observed.instruction + state) / 12
    return state + observed.observation, jnp.stack([a, 1 - a])


BEHAVIOUR = (uneven, uneven_step, lambda state, episode: jnp.minimum(state, 5.0))


@functools.cache
def corpus() -> bp.Corpus:
    family, experts = tiny()
    return bp.sample_corpus(family, 2000, 2, BEHAVIOUR, key=4, experts=experts)


def test_corpus_shapes_and_repeatability():
    family, experts = tiny()
    B, N, H, Z, G, O = 2000, 2, 3, 3, 2, 2
    c = corpus()
    shapes = {
        "tasks": (B,),
        "instructions": (B, N),
        "observations": (B, N, H),
        "subgoals": (B, N, H - 1),
        "labels": (B, N, H - 1),
        "bail": (B, N, H - 1, G),
        "next_observation": (B, N, H - 1, O),
        "posterior": (B, N, H - 1, Z),
        "actions": (B, N, H - 1, Z),
    }
    assert {name: getattr(c, name).shape for name in shapes} == shapes
    again = bp.sample_corpus(family, 100, 2, BEHAVIOUR, key=4, experts=experts)
    other = bp.sample_corpus(family, 100, 2, BEHAVIOUR, key=5, experts=experts)
    for name in shapes:
        assert np.array_equal(getattr(again, name), getattr(c, name)[:100]), name
    assert not np.array_equal(other.observations, again.observations)
    for a in (c.bail, c.next_observation, c.posterior):
        assert a.dtype == np.float64
        assert np.abs(a.sum(axis=-1) - 1).max() <= 1e-12
    assert np.array_equal(c.labels, np.take_along_axis(c.actions, c.tasks[:, None, None, None], 3)[..., 0])
    for prompts, episodes in [(0, 1), (1, 0)]:
        with pytest.raises(bp.InvalidPlannerError, match="at least 1"):
            bp.sample_corpus(family, prompts, episodes, experts=experts)


def test_corpus_conditionals_are_those_of_the_oracle():
    oracle, c = Oracle(tiny()[0]), corpus()
    for b, n, h in itertools.product(range(0, 2000, 50), range(2), range(2)):
        prompt = corpus_prompt(c, b, n, h)
        past, w, o, g = prompt
        assert np.abs(c.posterior[b, n, h] - oracle.posterior(prompt)).max() <= 1e-10
        assert np.abs(c.bail[b, n, h] - oracle.bail(prompt)).max() <= 1e-10
        assert [oracle.expert(z, w, o, g) for z in range(3)] == c.actions[b, n, h].tolist()
        played = int(c.subgoals[b, n, h])
        logs = [oracle.log_joint((past, w, (*o, x), (*g, played))) for x in range(2)]
        mass = np.exp(np.array(logs)).sum(axis=1)
        assert np.abs(c.next_observation[b, n, h] - mass / mass.sum()).max() <= 1e-10


def test_corpus_is_drawn_from_the_law_that_it_reports():
    oracle, c = Oracle(tiny()[0]), corpus()
    heard = c.observations[:, :, 1:, None] == np.arange(2)
    labelled = c.labels[..., None] == np.arange(2)
    true = c.tasks[:, None, None, None] == np.arange(3)
    # Draws minus their conditionals have mean 0 in every subset that the prompt decides, here its last observation.
    for name, drawn, law in [("o", heard, c.next_observation), ("g", labelled, c.bail), ("z", true, c.posterior)]:
        residual = (drawn - law)[..., 0]
        assert np.abs(residual).max() > 0.1, name
        for o in range(2):
            chosen = np.where(c.observations[:, :, :-1] == o, residual, 0.0)
            assert contains(chosen.mean(axis=(1, 2)), 0.0, -1.0, 1.0), name

    def behaviour(z, past, w, o, g):
        carried = 0
        for _, seen, _ in past:
            carried = min(carried + sum(seen), 5)
        a = (1 + o[-1] + 2 * (bool(g) and g[-1] == 1) + w + carried + sum(o[:-1])) / 12
        return [a, 1 - a]

    law, _ = corpus_law(oracle, 1, behaviour)
    deep = {pt: rows for pt, rows in law.items() if len(pt[2]) == 2}
    counts = {(pt, g): 0 for pt in deep for g in range(2)}
    for b in range(2000):
        counts[corpus_prompt(c, b, 0, 1), int(c.labels[b, 0, 1])] += 1
    # Hoeffding over all cells at once: every frequency within sqrt(log(2 cells / ALPHA) / 2n).
    slack = math.sqrt(math.log(2 * len(counts) / ALPHA) / (2 * 2000))
    assert all(abs(n / 2000 - deep[pt][:, g].sum()) <= slack for (pt, g), n in counts.items())
    assert max(deep[pt][:, g].sum() for pt, g in counts) > 2 * slack


def test_labels_never_leak():
    family, experts = tiny()
    # A behaviour that always plays 1 leaves no trace of labels in the prompt: everything it is told is executed.
    one = (lambda w, key: (), lambda state, observed: (state, jnp.array([0.0, 1.0])))
    c = bp.sample_corpus(family, 200, 2, one, key=1, experts=experts)
    assert (c.subgoals == 1).all()
    assert set(np.unique(c.labels)) == {0, 1}
    # A behaviour of the prompt is handed exactly the executed prompt.
    seen = []

    def watch(prompt):
        seen.append(prompt.to_dict(family))
        return np.array([0.5, 0.5])

    c = bp.sample_corpus(family, 2, 1, watch, key=1, experts=experts)
    for b, n, h in itertools.product(range(2), range(1), range(2)):
        assert as_prompt(corpus_prompt(c, b, n, h)).to_dict(family) in seen
    assert not any("label" in name for name in vars(bp.Prompt()))
    # With uniform behaviour, the executed subgoal agrees with the label by chance only.
    c = bp.sample_corpus(family, 1000, 2, key=2, experts=experts)
    assert contains((c.subgoals == c.labels).mean(axis=(1, 2)), 0.5, 0.0, 1.0)
