"""Classes of tasks, the graph of histories and designed exploration, against sums and programs over histories."""

from __future__ import annotations

import functools
import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.optimize import linprog

import bayespar as bp
from bayespar.planning.classes import EQUAL, likelihood_distance
from bayespar.planning.game import Game
from bayespar.planning.graph_experts import first_reward, graph_experts
from bayespar.planning.hellinger import hellinger
from bayespar.planning.histories import enumerate_histories
from bayespar.planning.information import GraphPolicy, graph_table, information_graph
from bayespar.planning.planner import FunctionPlanner, UniformPolicy
from bayespar.planning.value import policy_table, policy_value
from bayespar.testing.oracle import Oracle, eta as listed_eta, hellinger as listed_hellinger
from bayespar.testing.strategies import families, seeds
from bayespar.testing.worlds import SMALL_LAYOUTS, Layout, random_family, random_rows

EXACT = 1e-12


@functools.cache
def family_of(name: str, *arguments, **parameters) -> bp.Family:
    return bp.enumerate_program(functools.partial(bp.load_model(name), *arguments, **parameters))


def family_from(oracle: Oracle, tasks, prior=None) -> bp.Family:
    """A family of (initial, transition, emission), with the rewards of the oracle's."""
    initial, transition, emission = (np.stack(a) for a in zip(*tasks, strict=True))
    prior = np.full(len(tasks), 1 / len(tasks)) if prior is None else prior
    kwargs = {"horizon": oracle.H, "instruction_prior": oracle.instruction_prior}
    return bp.Family(prior, initial, transition, emission, oracle.reward, **kwargs)


def kernels(oracle: Oracle, z: int):
    return oracle.initial[z], oracle.transition[z], oracle.emission[z]


def relabelled(task, order):
    """The same task with its hidden states in another order."""
    initial, transition, emission = task
    return initial[order], transition[:, :, order][..., order], emission[order]


def likelihoods(oracle: Oracle) -> np.ndarray:
    return np.array([[oracle.likelihood(z, *tau) for z in range(oracle.Z)] for tau in oracle.histories(oracle.H)])


def walk(policy: GraphPolicy):
    """A graph policy as ``policy(w, observations, subgoals)``, followed by hand."""

    def probabilities(w, observations, subgoals):
        node = int(policy.root[observations[0]])
        for g, o in zip(subgoals, observations[1:], strict=True):
            node = int(policy.child[node, g, o])
        return np.asarray(policy.table)[w if len(policy.table) > 1 else 0, node]

    return probabilities


def random_policy(oracle: Oracle, rng):
    """A policy that depends on w and on the whole history."""
    table = {}

    def probabilities(w, observations, subgoals):
        key = w, tuple(observations), tuple(subgoals)
        if key not in table:
            table[key] = random_rows(rng, (1, oracle.G))[0]
        return table[key]

    return probabilities


# --- classes of tasks -------------------------------------------------------------------------------------------


def test_tasks_that_no_history_tells_apart_are_one_class():
    classes = bp.task_classes(family_of("aliased"))
    assert classes.label.tolist() == [0, 0]
    assert classes.merged == classes.members == (family_of("aliased").tasks,)
    assert classes.distance <= EQUAL
    assert classes.family.num_tasks == 1
    assert classes.family.task_prior.tolist() == [1.0]
    for name in ("kitchen", "needle", "lock", "tiger"):
        family = family_of(name)
        alone = bp.task_classes(family)
        assert alone.label.tolist() == list(range(family.num_tasks))
        assert alone.merged == ()
        assert alone.distance == 0.0
        assert np.asarray(alone.family.task_prior) == pytest.approx(family.task_prior, abs=EXACT)


def test_duplicates_relabelled_states_and_split_states_are_merged_and_their_priors_add():
    rng = np.random.default_rng(1)
    oracle = Oracle(random_family(rng, Layout(2, 2, 2, 2, 3, 1, steps=True)))
    lump = np.array([[1, 0, 0], [0, 0.5, 0.5]])

    def split(task, share):
        """State 1 in two copies that nothing tells apart, in proportions that depend on where one comes from."""
        initial, transition, emission = task
        spread = np.array([[1, 0, 0], [0, share, 1 - share]])
        rows = transition @ spread
        return initial @ spread, np.concatenate([rows, rows[:, :, 1:]], axis=2), emission[[0, 1, 1]]

    first, second = (split(kernels(oracle, z), 0.5) for z in range(2))
    other = split(kernels(oracle, 0), 0.2)
    assert lump.sum() == 2
    tasks = [first, second, relabelled(first, [2, 0, 1]), other, relabelled(second, [1, 0, 2]), first]
    prior = np.array([0.1, 0.2, 0.3, 0.1, 0.05, 0.25])
    classes = bp.task_classes(family_from(oracle, tasks, prior))
    assert classes.label.tolist() == [0, 1, 0, 0, 1, 0]
    assert np.asarray(classes.family.task_prior) == pytest.approx([0.75, 0.25], abs=EXACT)
    assert [len(names) for names in classes.merged] == [4, 2]
    assert classes.family.tasks == tuple(" = ".join(names) for names in classes.members)
    assert 0 <= classes.distance <= EQUAL
    # The family of classes has the kernels of the first members.
    ours, theirs = likelihoods(Oracle(classes.family)), likelihoods(oracle)
    assert ours == pytest.approx(theirs, abs=EXACT)


@pytest.mark.parametrize("gap", [1e-6, 1e-9])
@pytest.mark.parametrize("where", ["initial", "transition", "emission"])
def test_a_difference_in_one_entry_makes_two_classes(where, gap):
    oracle = Oracle(random_family(np.random.default_rng(3), Layout(1, 2, 2, 2, 3, 1)))
    task = [np.full_like(a, 1 / 2) for a in kernels(oracle, 0)]
    task[2] = np.array([[0.25, 0.75], [0.5, 0.5]])
    near = [a.copy() for a in task]
    entry = near[("initial", "transition", "emission").index(where)]
    entry[(0,) * (entry.ndim - 1)] += [gap, -gap]
    family = family_from(oracle, [task, near, task])
    classes = bp.task_classes(family)
    assert classes.label.tolist() == [0, 1, 0]
    assert bp.eta(family_from(oracle, [task, near]), "uniform") > 0
    law = likelihoods(Oracle(family))
    apart = np.linalg.norm(law[:, 0] - law[:, 1]) / max(np.linalg.norm(law[:, :2], axis=0))
    assert likelihood_distance(family, 0, 1) == pytest.approx(apart, rel=1e-5)


def test_tasks_of_prior_zero_count_nowhere():
    oracle = Oracle(random_family(np.random.default_rng(4), Layout(3, 2, 2, 2, 3, 1)))
    first, second, third = (kernels(oracle, z) for z in range(3))
    family = family_from(oracle, [first, second, first, third], np.array([0.0, 0.4, 0.6, 0.0]))
    classes = bp.task_classes(family)
    assert classes.label.tolist() == [-1, 0, 1, -1]
    assert classes.merged == ()
    assert bp.eta(family, "uniform") == pytest.approx(bp.eta(family_from(oracle, [first, second]), "uniform"))


@settings(max_examples=60)
@given(families(SMALL_LAYOUTS), seeds)
def test_two_tasks_are_one_class_iff_every_history_is_as_likely(family, seed):
    oracle, rng = Oracle(family), np.random.default_rng(seed)
    if oracle.H > 1:  # some tasks twice, their states in another order
        tasks = [kernels(oracle, z) for z in range(oracle.Z)]
        tasks += [relabelled(tasks[rng.integers(oracle.Z)], rng.permutation(oracle.S)) for _ in range(2)]
        family = family_from(oracle, tasks, random_rows(rng, (1, len(tasks)))[0])
        oracle = Oracle(family)
    law, classes = likelihoods(oracle), bp.task_classes(family)
    assert ((classes.label >= 0) == (oracle.prior > 0)).all()
    for i, j in itertools.combinations(np.flatnonzero(oracle.prior > 0), 2):
        assert (classes.label[i] == classes.label[j]) == (np.abs(law[:, i] - law[:, j]).max() <= 1e-12)
    found = [z for c in range(len(classes.members)) for z in np.flatnonzero(classes.label == c)[:1]]
    assert found == sorted(found)
    assert np.bincount(classes.label[classes.label >= 0], oracle.prior[classes.label >= 0]) == pytest.approx(
        np.asarray(classes.family.task_prior), abs=EXACT
    )


def test_classes_of_a_long_episode():
    rng = np.random.default_rng(0)
    rows = [rng.dirichlet([1, 1], size=shape) for shape in ((), (2, 2), (2,))]
    other = rows[1].copy()
    other[0, 0] += [1e-6, -1e-6]
    kwargs = {"horizon": 1500}
    reward = np.zeros((1500, 2))
    family = bp.Family([0.3, 0.3, 0.4], rows[0], np.stack([rows[1], rows[1], other]), rows[2], reward, **kwargs)
    assert bp.task_classes(family).label.tolist() == [0, 0, 1]


# --- the graph of histories -------------------------------------------------------------------------------------


def graphs_to_try():
    rng = np.random.default_rng(5)
    return [
        bp.task_classes(f).family
        for f in (
            *(random_family(rng, layout) for layout in SMALL_LAYOUTS for _ in range(2)),
            family_of("random_world", 2, (3, 2, 2, 2, 3, 2)),
            family_of("needle", tasks=3),
            family_of("lock", length=3),
        )
        if f.horizon <= 4
    ]


GRAPHS = graphs_to_try()


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_flows_are_sums_over_histories(index):
    """Flow, values and eta of a random policy over the nodes; the uniform one is among them."""
    family = GRAPHS[index]
    oracle, graph, rng = Oracle(family), information_graph(family), np.random.default_rng(index)
    for uniform in (True, False):
        policies = [
            [
                np.full((n.size, oracle.G), 1 / oracle.G) if uniform else random_rows(rng, (n.size, oracle.G))
                for n in graph.layers
            ]
            for _ in range(oracle.W)
        ]
        flows = [graph.flow(policy) for policy in policies]
        planner = GraphPolicy(graph, policies)
        acts = walk(planner)
        offsets = np.cumsum([0, *(layer.size for layer in graph.layers)])
        for w, h in itertools.product(range(oracle.W), range(oracle.H - 1)):
            total = np.zeros(flows[w][h].shape)
            for o, g in oracle.histories(h + 1):
                law = [oracle.likelihood(z, o, g) for z in range(oracle.Z)]
                if max(law) == 0:
                    continue
                node = int(planner.root[o[0]])
                for k in range(h):
                    node = int(planner.child[node, g[k], o[k + 1]])
                chance = math.prod(acts(w, o[: k + 1], g[:k])[g[k]] for k in range(h))
                total[node - offsets[h]] += np.mean(law) * chance * acts(w, o, g)
            assert flows[w][h] == pytest.approx(total, abs=EXACT)
            assert flows[w][h].sum() == pytest.approx(1, abs=EXACT)
        best = graph_experts(graph).value
        game = Game(graph, best)
        apart = listed_hellinger(oracle, acts)
        assert game.information(flows) == pytest.approx(apart[tuple(game.pairs)], abs=EXACT)
        values = oracle.policy_value(acts)
        assert game.loss(flows) == pytest.approx((best - values) @ oracle.instruction_prior, abs=EXACT)
        for w in range(oracle.W):
            paid = sum((y[..., None] * r).sum((0, 1)) for y, r in zip(flows[w], graph.rewards(w), strict=True))
            assert first_reward(graph)[:, w] + paid == pytest.approx(values[:, w], abs=EXACT)
        for policy, flow in zip(policies, flows, strict=True):  # and back
            for rows, again, y in zip(policy, graph.behaviour(flow), flow, strict=True):
                reached = y.sum(axis=1) > 0
                assert again[reached] == pytest.approx(rows[reached], abs=EXACT)
                assert again.sum(axis=1) == pytest.approx(1)


@pytest.mark.parametrize("index", range(0, len(GRAPHS), 3))
def test_policies_over_the_graph_have_the_values_and_the_eta_of_histories(index):
    family = GRAPHS[index]
    graph, rng = information_graph(family), np.random.default_rng(index)
    policies = [
        [random_rows(rng, (n.size, family.num_subgoals)) for n in graph.layers] for _ in range(family.num_instructions)
    ]
    planner, histories = GraphPolicy(graph, policies), enumerate_histories(family)
    game = Game(graph, graph_experts(graph).value)
    flows = [graph.flow(policy) for policy in policies]
    assert bp.eta(family, planner, histories=histories) == pytest.approx(
        game.information(flows).min(initial=1.0), abs=EXACT
    )
    lost = graph_experts(graph).value - policy_value(family, planner, histories=histories)
    assert game.loss(flows) == pytest.approx(lost @ np.asarray(family.instruction_prior), abs=EXACT)


@pytest.mark.parametrize("index", range(len(GRAPHS)))
def test_experts_on_the_graph_are_the_experts(index):
    family = GRAPHS[index]
    oracle, graph = Oracle(family), information_graph(family)
    experts = graph_experts(graph)
    assert experts.value == pytest.approx(oracle.expert_value(), abs=EXACT)
    assert experts.value == pytest.approx(np.asarray(bp.solve_experts(family).value), abs=EXACT)
    planner = GraphPolicy(graph, [[np.full((n.size, oracle.G), 1 / oracle.G) for n in graph.layers]])
    offsets = np.cumsum([0, *(layer.size for layer in graph.layers)])
    for h in range(oracle.H - 1):
        for o, g in oracle.histories(h + 1):
            law = np.array([oracle.likelihood(z, o, g) for z in range(oracle.Z)])
            if law.max() == 0:
                continue
            node = int(planner.root[o[0]])
            for k in range(h):
                node = int(planner.child[node, g[k], o[k + 1]])
            n = node - offsets[h]
            assert experts.likelihood[h][n] == pytest.approx(law / law.mean(), abs=EXACT)
            for z, w in itertools.product(np.flatnonzero(law > 0), range(oracle.W)):
                q = oracle.q(z, w, o, g)
                scaled = experts.scaled[h][n, :, z, w]
                assert scaled == pytest.approx(law[z] / law.mean() * np.array(q), abs=EXACT)
                if not any(abs(max(q) - v - 1e-9) < 1e-10 for v in q):
                    assert experts.actions[h][n, z, w] == oracle.expert(z, w, o, g)


def blind_then_seen() -> bp.Family:
    """o_1 says nothing about the task or the future; what follows shows the task, a little."""
    emission = np.array([[[0.5, 0.5], [0.3, 0.7]], [[0.5, 0.5], [0.6, 0.4]]])
    kernel = np.zeros((2, 2, 2))
    kernel[..., 1] = 1
    return bp.Family([0.5, 0.5], [1.0, 0.0], kernel, emission, np.zeros((4, 2)), horizon=4)


def test_histories_are_merged_where_nothing_can_differ_any_more():
    graph = information_graph(blind_then_seen())
    assert graph.root.tolist() == [0, 0]
    # The order of what was heard is forgotten, and so are the subgoals.
    assert [layer.size for layer in graph.layers] == [1, 2, 3]
    assert graph.variables == 12
    assert enumerate_histories(blind_then_seen()).count == 2 + 8 + 32 + 128


def test_graph_table_of_policies_that_must_be_asked():
    family = GRAPHS[-3]
    graph, G = information_graph(family), family.num_subgoals
    rng = np.random.default_rng(0)
    planner = GraphPolicy(
        graph, [[random_rows(rng, (n.size, G)) for n in graph.layers] for _ in range(family.num_instructions)]
    )
    asked = graph_table(
        graph, FunctionPlanner(lambda w, key: jnp.int32(0), lambda s, observed: planner.step(s, observed))
    )  # not recognised, hence asked
    for known, rows in zip(graph_table(graph, planner), asked, strict=True):
        for a, b in zip(known, rows, strict=True):
            assert a == pytest.approx(b, abs=EXACT)

    def by_step(state, observed):
        weights = jnp.arange(1, G + 1) + observed.step * (1 + observed.instruction)
        return state, weights / weights.sum()

    table = graph_table(graph, FunctionPlanner(lambda w, key: (), by_step))
    for w, h in itertools.product(range(family.num_instructions), range(len(graph.layers))):
        weights = np.arange(1, G + 1) + h * (1 + w)
        assert table[w][h] == pytest.approx(np.tile(weights / weights.sum(), (graph.layers[h].size, 1)), abs=1e-12)
    uniform = graph_table(graph, UniformPolicy(G))
    assert all((rows == 1 / G).all() for policy in uniform for rows in policy)
    assert len(uniform) == family.num_instructions


def test_a_policy_that_remembers_what_the_graph_forgets_is_refused():
    graph = information_graph(blind_then_seen())

    def step(state, observed):
        first = jnp.where(observed.step == 0, observed.observation, state)
        return first, jnp.where(first == 0, jnp.array([0.9, 0.1]), jnp.array([0.2, 0.8]))

    with pytest.raises(bp.InvalidPlannerError, match="keeps apart"):
        graph_table(graph, FunctionPlanner(lambda w, key: jnp.int32(0), step))
    with pytest.raises(bp.InvalidPlannerError, match="not a distribution"):
        graph_table(graph, FunctionPlanner(lambda w, key: (), lambda s, observed: (s, jnp.array([0.9, 0.9]))))


def test_a_policy_over_another_graph_is_read_by_what_it_does():
    """Two worlds whose graphs differ only in the first observations."""
    kernel = np.tile(np.eye(3), (2, 1, 1))
    emissions = [np.eye(4)[[0, 1, 3]], np.eye(4)[[0, 2, 3]]]
    initial = np.array([[0.5, 0.5, 0.0], [0.2, 0.8, 0.0]])
    here, there = (
        information_graph(bp.Family([0.5, 0.5], initial, kernel, e, np.zeros((2, 4)), horizon=2)) for e in emissions
    )
    planner = GraphPolicy(there, [[np.array([[0.9, 0.1], [0.3, 0.7]])]])
    table = graph_table(here, planner)[0][0]
    for o in (0, 1):
        assert table[here.root[o]] == pytest.approx(walk(planner)(0, (o,), ()))


def test_a_graph_that_does_not_fit_is_refused():
    with pytest.raises(bp.TooLargeError, match=r"continuations|beliefs"):
        information_graph(family_of("random_world", 1, (3, 3, 3, 3, 6)), max_bytes=10**4)


# --- the best exploration ---------------------------------------------------------------------------------------


class HistoryProgram:
    """Linear programs over realisation weights x(tau, g) of every history, one policy for each of ``copies``."""

    def __init__(self, oracle: Oracle, copies: int):
        self.oracle, self.copies = oracle, copies
        self.index = {}
        for h in range(1, oracle.H):
            for o, g in oracle.histories(h):
                for a in range(oracle.G):
                    self.index[o, (*g, a)] = len(self.index)
        self.size = copies * len(self.index)
        self.flow = []  # rows of: sum of the choices here - the choice that led here (or -1 at the start)
        for w in range(copies):
            shift = w * len(self.index)
            for h in range(1, oracle.H):
                for o, g in oracle.histories(h):
                    row = np.zeros(self.size + 1)
                    for a in range(oracle.G):
                        row[shift + self.index[o, (*g, a)]] = 1
                    row[shift + self.index[o[:-1], g] if g else self.size] -= 1
                    self.flow.append(row)

    def eta_rows(self):
        """eta_zz' of the weights, a row a pair."""
        oracle, rows = self.oracle, []
        for i, j in itertools.combinations(range(oracle.Z), 2):
            row = np.zeros(self.size + 1)
            for o, g in oracle.histories(oracle.H):
                gain = (math.sqrt(oracle.likelihood(i, o, g)) - math.sqrt(oracle.likelihood(j, o, g))) ** 2 / 2
                for w in range(self.copies):
                    chance = oracle.instruction_prior[w] if self.copies > 1 else 1.0
                    row[w * len(self.index) + self.index[o[:-1], g]] += chance * gain
            rows.append(row)
        return np.array(rows)

    def loss_rows(self):
        """What the weights lose, a row a task; the last column counts J_z(pi*_z)."""
        oracle, best = self.oracle, self.oracle.expert_value()
        rows = np.zeros((oracle.Z, self.size + 1))
        for z, w in itertools.product(range(oracle.Z), range(oracle.W)):
            chance = oracle.instruction_prior[w]
            rows[z, -1] += chance * best[z, w]
            for h in range(1, oracle.H + 1):
                for o, g in oracle.histories(h):
                    paid = chance * oracle.likelihood(z, o, g) * oracle.reward[h - 1, o[-1], w]
                    column = w * len(self.index) + self.index[o[:-1], g] if g else self.size
                    rows[z, column] -= paid
        return rows


def best_eta(oracle: Oracle) -> float:
    """max over policies of min over pairs, by one linear program over the tree of histories."""
    program = HistoryProgram(oracle, 1)
    gains = program.eta_rows()
    # Unknowns: x, the constant 1, and eta.
    rows = np.hstack([-gains, np.ones((len(gains), 1))])
    equal = np.hstack([np.array(program.flow), np.zeros((len(program.flow), 1))])
    one = np.zeros((1, rows.shape[1]))
    one[0, -2] = 1
    solved = linprog(
        -np.eye(rows.shape[1])[-1],
        A_ub=rows,
        b_ub=np.zeros(len(rows)),
        A_eq=np.vstack([equal, one]),
        b_eq=np.append(np.zeros(len(equal)), 1.0),
        bounds=(0, None),
        method="highs-ipm",
    )
    assert solved.status == 0
    return -solved.fun


def best_ratio(oracle: Oracle) -> float:
    """min over policies, one an instruction, of the largest loss over the least eta: Charnes and Cooper (1962)."""
    program = HistoryProgram(oracle, oracle.W)
    gains, losses = program.eta_rows(), program.loss_rows()
    rows = np.vstack(
        [
            np.hstack([-gains, np.zeros((len(gains), 1))]),
            np.hstack([losses, -np.ones((len(losses), 1))]),
        ]
    )
    equal = np.hstack([np.array(program.flow), np.zeros((len(program.flow), 1))])
    solved = linprog(
        np.eye(rows.shape[1])[-1],
        A_ub=rows,
        b_ub=np.append(-np.ones(len(gains)), np.zeros(len(losses))),
        A_eq=equal,
        b_eq=np.zeros(len(equal)),
        bounds=(0, None),
        method="highs-ipm",
    )
    assert solved.status == 0
    return solved.fun


def best_eta_of_mixtures(oracle: Oracle) -> float:
    """The same as a matrix game: a mixture of deterministic policies against a mixture of pairs."""
    heard = [o for h in range(1, oracle.H) for o in itertools.product(range(oracle.O), repeat=h)]
    columns = []
    for choices in itertools.product(range(oracle.G), repeat=len(heard)):
        chosen = dict(zip(heard, choices, strict=True))
        apart = listed_hellinger(oracle, lambda w, o, g, chosen=chosen: np.eye(oracle.G)[chosen[o]])
        columns.append(apart[np.triu_indices(oracle.Z, 1)])
    table = np.array(columns).T
    solved = linprog(
        np.append(np.zeros(table.shape[1]), -1.0),
        A_ub=np.hstack([-table, np.ones((len(table), 1))]),
        b_ub=np.zeros(len(table)),
        A_eq=np.append(np.ones(table.shape[1]), 0.0)[None],
        b_eq=[1.0],
        bounds=(0, None),
    )
    assert solved.status == 0
    return -solved.fun


def distinct(family: bp.Family) -> bool:
    return not bp.task_classes(family).merged


@settings(max_examples=50)
@given(families(SMALL_LAYOUTS), seeds)
def test_no_policy_has_a_larger_eta(family, seed):
    design, rng = bp.design_exploration(family), np.random.default_rng(seed)
    assert 0 <= design.gap <= 1e-9
    assert design.eta == (0.0 if design.classes.merged else design.eta_classes)
    family = design.classes.family
    oracle, histories = Oracle(family), enumerate_histories(family)
    assert listed_eta(oracle, walk(design.policy)) == pytest.approx(design.eta_classes, abs=EXACT)
    if oracle.Z > 1 and oracle.H > 1:
        assert design.eta_classes == pytest.approx(best_eta(oracle), abs=1e-7)
    G = oracle.G
    tables = [[np.full((len(n.parent), oracle.W, G), 1 / G) for n in histories.layers[:-1]]]
    tables += [[random_rows(rng, (len(n.parent), oracle.W, G)) for n in histories.layers[:-1]] for _ in range(4)]
    for z in range(oracle.Z):
        table = []
        for h, layer in enumerate(histories.layers[:-1]):
            rows = np.zeros((len(layer.parent), oracle.W, G))
            for n, w in itertools.product(range(len(layer.parent)), range(oracle.W)):
                o, g = histories.sequence(h, n)
                rows[n, w, oracle.expert(z, w, o, g) if oracle.likelihood(z, o, g) > 0 else 0] = 1
            table.append(rows)
        tables.append(table)
    for table in tables:
        apart = hellinger(histories, table, bp.task_classes(family))
        assert apart[np.triu_indices(oracle.Z, 1)].min(initial=1.0) <= design.upper + EXACT


def design_worlds(count: int, layouts, *, seed: int):
    """Families of at least two tasks, all different."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        family = random_family(rng, layouts[len(found) % len(layouts)])
        if distinct(family) and family.num_tasks > 1:
            found.append(family)
    return found


WORLDS = design_worlds(14, [s for s in SMALL_LAYOUTS if s.H > 1 and s.Z > 1], seed=0)


@pytest.mark.parametrize("index", range(len(WORLDS)))
def test_the_best_eta_is_that_of_the_linear_program_over_histories(index):
    family = WORLDS[index]
    design = bp.design_exploration(family)
    assert design.eta == pytest.approx(best_eta(Oracle(family)), abs=1e-9)
    assert bp.eta(family, design.policy) == pytest.approx(design.eta, abs=EXACT)
    first, second = (family.tasks.index(name) for name in design.hardest_pair)
    assert listed_hellinger(Oracle(family), walk(design.policy))[first, second] == pytest.approx(design.eta, abs=EXACT)
    assert design.loss is design.ratio is design.ratio_lower is None


@pytest.mark.parametrize("family", [w for w in WORLDS if w.num_observations ** (w.horizon - 1) <= 4])
def test_mixtures_of_deterministic_policies_do_no_better(family):
    oracle = Oracle(family)
    if oracle.G ** sum(oracle.O**h for h in range(1, oracle.H)) <= 64:
        assert bp.design_exploration(family).eta == pytest.approx(best_eta_of_mixtures(oracle), abs=1e-9)


def test_deterministic_policies_can_be_strictly_worse():
    family = family_of("needle", tasks=3, accuracy=0.0)
    oracle, design = Oracle(family), bp.design_exploration(family)
    assert design.eta == pytest.approx(2 / 3, abs=1e-9)
    # After the blank first observation, one press in three at random; the sign says nothing.
    assert walk(design.policy)(0, (0,), ()) == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0], abs=1e-9)
    for g in range(4):
        assert listed_eta(oracle, lambda w, o, past, g=g: np.eye(4)[g]) == 0


def test_one_word_opens_the_lock_or_tells_that_it_is_the_other():
    for length in (1, 3, 8):
        family = family_of("lock", length=length)
        design = bp.design_exploration(family)
        assert design.eta == pytest.approx(1, abs=1e-9)
        assert design.hardest_pair == family.tasks
        uniform = 2 * 3.0**-length / 2  # each word is completed with probability 3^-L
        assert bp.eta(family, "uniform") == pytest.approx(2 * uniform, rel=1e-9) or length == 1


def test_nothing_separates_two_tasks_that_are_one():
    family = family_of("aliased")
    for design in (bp.design_exploration(family), bp.cheapest_exploration(family)):
        assert design.eta == 0.0
        assert design.eta_classes == 1.0
        assert design.hardest_pair == family.tasks
        assert design.classes.distance <= EQUAL
    assert bp.eta(family, "uniform") == 0.0
    # Two classes, one of them of two tasks: the pair that cannot be told apart is named, the other is told apart.
    oracle = Oracle(random_family(np.random.default_rng(4), Layout(2, 2, 2, 2, 3, 1)))
    first, second = kernels(oracle, 0), kernels(oracle, 1)
    design = bp.design_exploration(family_from(oracle, [second, first, relabelled(first, [1, 0])]))
    assert design.eta == 0.0
    assert design.hardest_pair == ("task 1", "task 2")
    assert design.eta_classes == pytest.approx(best_eta(Oracle(family_from(oracle, [first, second]))), abs=1e-9)


def test_one_task_or_no_decision_leaves_nothing_to_design():
    one = random_family(np.random.default_rng(1), Layout(1, 2, 2, 2, 3, 2))
    for design in (bp.design_exploration(one), bp.cheapest_exploration(one)):
        assert (design.eta, design.eta_classes, design.gap, design.hardest_pair) == (1.0, 1.0, 0.0, None)
    assert bp.cheapest_exploration(one).loss == pytest.approx(0, abs=EXACT)
    assert bp.cheapest_exploration(one).ratio_lower == 0.0
    still = bp.Family([0.5, 0.5], np.eye(2), np.ones((2, 2, 2)) / 2, np.eye(2), np.zeros((1, 2)), horizon=1)
    for design in (bp.design_exploration(still), bp.cheapest_exploration(still)):
        assert (design.eta, design.gap, design.hardest_pair) == (1.0, 0.0, still.tasks)
        graph = information_graph(still)
        assert graph_table(graph, design.policy) == [[]]
        assert bp.eta(still, design.policy) == 1.0


@pytest.mark.parametrize("gap", [1e-3, 1e-5, 1e-7])
def test_the_best_exploration_of_tasks_that_hardly_differ(gap):
    rng = np.random.default_rng(2)
    rows = [rng.dirichlet([1, 1], size=shape) for shape in ((2, 2), (2,))]
    near = rows[0].copy()
    near[0, 0] += [gap, -gap]
    other = rng.dirichlet([1, 1], size=(2, 2))
    for tasks in ([rows[0], near], [rows[0], near, other]):
        family = bp.Family(
            np.full(len(tasks), 1 / len(tasks)), [0.4, 0.6], np.stack(tasks), rows[1], rng.random((3, 2)), horizon=3
        )
        design, cheap = bp.design_exploration(family), bp.cheapest_exploration(family)
        assert 0 < design.eta <= design.upper <= design.eta * (1 + 1e-6)
        assert design.eta >= bp.eta(family, "uniform") * (1 - 1e-9)
        assert cheap.ratio_lower <= cheap.ratio * (1 + 1e-9)
        assert cheap.ratio <= cheap.ratio_lower * (1 + 1e-6)


def test_a_design_plugs_in_wherever_a_policy_is_taken():
    family = family_of("random_world", 5, (3, 2, 2, 2, 3, 2))
    oracle, histories = Oracle(family), enumerate_histories(family)
    for design in (bp.design_exploration(family), bp.cheapest_exploration(family)):
        acts = walk(design.policy)
        value = policy_value(family, design.policy, histories=histories)
        assert value == pytest.approx(oracle.policy_value(acts), abs=EXACT)
        for rows, layer in zip(policy_table(histories, design.policy), histories.layers[:-1], strict=True):
            assert rows.shape == (len(layer.parent), 2, 2)
        lost = (oracle.expert_value() - value) @ oracle.instruction_prior
        if design.loss is not None:
            assert design.loss == pytest.approx(lost.max(), abs=EXACT)
        curves = bp.simulate_regret(family, 1, "bail", 1.0, episodes=2, seeds=1024, exploration_policy=design.policy)
        assert curves.explored.all()
        assert curves.interval(alpha=1e-5).contains(2 * lost[1])
        assert curves.interval(alpha=1e-5).half_width <= 0.25


# --- the cheapest exploration -----------------------------------------------------------------------------------


@pytest.mark.parametrize("index", range(len(WORLDS)))
def test_the_least_loss_per_information_is_that_of_the_linear_program_over_histories(index):
    family = WORLDS[index]
    oracle, rng = Oracle(family), np.random.default_rng(index)
    design = bp.cheapest_exploration(family)
    ratio = best_ratio(oracle)
    assert design.ratio == pytest.approx(ratio, abs=1e-8 * max(1, ratio))
    assert design.ratio_lower <= design.ratio + EXACT
    assert design.ratio_lower == pytest.approx(ratio, abs=1e-8 * max(1, ratio))
    best = oracle.expert_value()
    acts = walk(design.policy)
    assert listed_eta(oracle, acts) == pytest.approx(design.eta, abs=EXACT)
    lost = ((best - oracle.policy_value(acts)) @ oracle.instruction_prior).max()
    assert design.loss == pytest.approx(lost, abs=EXACT)
    uniform = np.full(oracle.G, 1 / oracle.G)
    for policy in (lambda w, o, g: uniform, *(random_policy(oracle, rng) for _ in range(3))):
        lost = ((best - oracle.policy_value(policy)) @ oracle.instruction_prior).max()
        assert lost >= design.ratio_lower * listed_eta(oracle, policy) - 1e-10


def test_the_lock_is_explored_at_half_the_price():
    design = bp.cheapest_exploration(family_of("lock", length=3))
    assert design.eta == pytest.approx(1, abs=1e-9)
    assert design.loss == design.ratio == pytest.approx(0.5, abs=1e-9)
    assert design.ratio_lower == pytest.approx(0.5, abs=1e-9)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("reward", [0.0, 0.3, 1.0])
def test_exploring_is_free_where_nothing_is_at_stake(reward, monkeypatch):
    solved = []
    monkeypatch.setattr("bayespar.planning.game.linprog", lambda *a, **k: solved.append(0) or linprog(*a, **k))
    oracle = Oracle(random_family(np.random.default_rng(6), Layout(2, 2, 2, 2, 3, 1)))
    oracle.reward = np.full_like(oracle.reward, reward)
    design = bp.cheapest_exploration(family_from(oracle, [kernels(oracle, 0), kernels(oracle, 1)]))
    assert design.loss == pytest.approx(0, abs=EXACT)
    assert design.ratio_lower <= design.ratio + EXACT <= 1e-9
    assert len(solved) <= 50


def test_designs_need_few_rounds(monkeypatch):
    """No design stops because it has run out of rounds."""
    solved = []
    monkeypatch.setattr("bayespar.planning.game.linprog", lambda *a, **k: solved.append(0) or linprog(*a, **k))
    rng = np.random.default_rng(8)
    for index in range(40):
        family = random_family(rng, SMALL_LAYOUTS[index % len(SMALL_LAYOUTS)])
        solved.clear()
        assert bp.design_exploration(family).gap <= 1e-9
        assert bp.cheapest_exploration(family).ratio_lower >= 0
        assert len(solved) <= 60


def test_a_gap_that_rounding_keeps_open_ends_the_search():
    from bayespar.planning.game import _PATIENCE, _Closing

    done = _Closing()
    assert not any(done(gap, 1.0) for gap in (1e-3, 1e-5, 5e-10))
    assert [done(5e-10, 1.0) for _ in range(_PATIENCE)] == [False] * (_PATIENCE - 1) + [True]
    far = _Closing()
    assert not any(far(1e-7, 1.0) for _ in range(10 * _PATIENCE))  # this one may still close
    assert _Closing()(1e-11, 1.0)
