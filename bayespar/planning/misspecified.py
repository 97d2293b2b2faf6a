"""A Reporter that speaks otherwise than the Planner believes: how long its doubt still falls, certified.

The Planner's posterior assumes the emission E of its family; the Reporter in use speaks another one. Both are put on
one information graph: first the tasks as they are believed, equal ones merged, then the tasks as they are. A history
then carries its likelihood under either.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from ..arrays import Array
from ..errors import InvalidPlannerError
from ..program import Program, as_family
from ..validation import shown
from ..world import Family
from .beliefs import DEFAULT_MAX_BYTES
from .classes import TaskClasses, task_classes
from .graph_experts import GraphExperts, first_reward, graph_experts
from .information import Flow, InformationGraph, information_graph
from .reporters import check_support, with_reporter


@dataclass(frozen=True)
class Setting:
    """What a Planner believes and what is so, over one graph.

    Attributes:
        classes: the tasks as the Planner believes them, C classes.
        graph: of those, and, where the Reporter speaks otherwise, of the K true tasks after them.
        true: where each true task stands in the graph, [K].
        label: the class that each true task belongs to, [K].
        prior: P_Z of the true tasks, [K].
        tasks: their names.
    """

    classes: TaskClasses
    graph: InformationGraph
    true: Int[np.ndarray, " K"]
    label: Int[np.ndarray, " K"]
    prior: Float[np.ndarray, " K"]
    tasks: tuple[str, ...]

    @cached_property
    def experts(self) -> GraphExperts:
        """The experts of all believed classes, then of all true tasks."""
        return graph_experts(self.graph)

    @cached_property
    def owed(self) -> Float[np.ndarray, "K W"]:
        """What the believed expert of each true task earns there after r_1: what regret is measured against."""
        G, rewards = self.graph.family.num_subgoals, []
        for w in range(self.graph.family.num_instructions):
            paid = self.graph.rewards(w)
            for z, c in zip(self.true, self.label, strict=True):
                flow = self.graph.flow([np.eye(G)[actions[:, c, w]] for actions in self.experts.actions])
                rewards.append(sum(np.einsum("ng,ng->", y, r[..., z]) for y, r in zip(flow, paid, strict=True)))
        return np.reshape(np.array(rewards, np.float64), (-1, len(self.true))).T

    @property
    def price(self) -> Float[np.ndarray, " K"]:
        """What the believed expert of each true task loses an episode against one who knows the Reporter."""
        best = self.experts.value - first_reward(self.graph)
        return (best[self.true] - self.owed) @ np.asarray(self.graph.family.instruction_prior, np.float64)


def practical_setting(
    family_or_program: Family | Program, emission: Any = None, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> Setting:
    """The setting of a Planner that believes the family, before a Reporter that speaks ``emission``.

    Args:
        family_or_program: as the Planner believes it: a Family, or a finite program.
        emission: what the Reporter in use says, [Z or 1, S, O] or [S, O]; as believed if not given.
        max_bytes: largest layer of the graph.

    Raises:
        InvalidWorldError: the Reporter may say what the Planner holds impossible.
        TooLargeError: the graph does not fit.

    Source: theory.md, section 5.
    """
    family = as_family(family_or_program).astype(np.float64)
    classes = task_classes(family)
    if emission is None:
        graph, C = information_graph(classes.family, max_bytes=max_bytes), classes.family.num_tasks
        prior = np.asarray(classes.family.task_prior, np.float64)
        return Setting(classes, graph, np.arange(C), np.arange(C), prior, classes.family.tasks)
    spoken = with_reporter(family, emission)
    check_support(family, spoken)
    live = np.flatnonzero(family.task_prior > 0)
    graph = information_graph(_stack(classes.family, spoken, live), max_bytes=max_bytes)
    true = classes.family.num_tasks + np.arange(len(live))
    prior = np.asarray(family.task_prior, np.float64)[live]
    return Setting(classes, graph, true, classes.label[live], prior, tuple(family.tasks[z] for z in live))


@dataclass(frozen=True)
class Certificate:
    """P2: how fast the doubt of a Planner falls that believes in another Reporter.

    With s the power, an episode multiplies the expectation of odds(z' : z)^s by at most B = E (L_z' / L_z)^s, the
    expectation under what is so.

    Attributes:
        horizon: H.
        power: s; theory.md has 1/2.
        roots: (P_Z(z') / P_Z(z))^s for every true task and believed class, 0 for its own, [K, C].
        exploring: B of the exploration policy, [K, C].
        most: B_max, the largest over all policies, [K, C].
        first: D_h, likewise over the first h observations only, [K, C, H]; may exceed 1.
    """

    horizon: int
    power: float
    roots: Float[np.ndarray, "K C"]
    exploring: Float[np.ndarray, "K C"]
    most: Float[np.ndarray, "K C"]
    first: Float[np.ndarray, "K C H"]

    def rate(self, epsilon: float) -> Float[np.ndarray, " K"]:
        """max over z' of rho = eps B_exp + (1 - eps) B_max: below 1 the doubt is certain to vanish; else silence."""
        rho = epsilon * self.exploring + (1 - epsilon) * self.most
        return np.where(self.roots > 0, rho, 0.0).max(axis=1)

    def doubt(self, coin: Float[np.ndarray, " T"]) -> Float[np.ndarray, "K T H"]:
        """The bound on E[1 - P(z | pt_h^t)]: min(1, c_s sum over z' of roots D_h prod_{i<t} rho_i).

        1 - P = o / (1 + o) is at most c_s o^s with c_s = s^s (1-s)^(1-s), which is 1/2 at s = 1/2.
        """
        before = np.concatenate([[0.0], coin[:-1]])
        rho = before * self.exploring[..., None] + (1 - before) * self.most[..., None]
        rho[..., 0] = 1.0
        with np.errstate(over="ignore"):
            left = np.cumprod(rho, axis=2)
            total = np.einsum("kc,kch,kct->kth", self.roots, self.first, left)
        s = self.power
        return np.minimum(1.0, s**s * (1 - s) ** (1 - s) * total)

    def regret(self, coin: Float[np.ndarray, " T"]) -> Float[np.ndarray, "K T"]:
        """The bound on Reg_z(t) against the expert who believes as the Planner does, and knows the task: E2's argument.

        (H-1) sum_t eps_t + sum_t (1 - eps_t) min(H-1, sum_h (H-h) doubt_h).
        """
        return np.cumsum(coin * (self.horizon - 1) + (1 - coin) * acting_loss(self.doubt(coin)), axis=1)


def acting_loss(doubt: Float[np.ndarray, "K T H"]) -> Float[np.ndarray, "K T"]:
    """What an episode of BAIL can lose at most: min(H-1, sum over decisions h of (H-h) E[1 - P(z | pt_h)])."""
    H = doubt.shape[2]
    return np.minimum(H - 1, doubt[..., : H - 1] @ np.arange(H - 1, 0, -1.0))


def certify(setting: Setting, explorer: list[Flow], *, power: float = 0.5) -> Certificate:
    """P2's certificate, by dynamic programming over histories.

    Args:
        setting: from :func:`practical_setting`.
        explorer: the exploration policy, from :func:`graph_table` on the setting's graph.
        power: s, above 0 and below 1. Small powers stay below 1 for worse Reporters, and promise a slower fall.

    Raises:
        InvalidPlannerError: no such power.

    Source: theory.md, P2.
    """
    if not 0 < power < 1:
        raise InvalidPlannerError(f"power = {shown(power)}; give a number above 0 and below 1")
    graph, label, H = setting.graph, setting.label, setting.graph.family.horizon
    K, C = len(label), setting.classes.family.num_tasks

    def tilted(likelihood: np.ndarray) -> np.ndarray:
        """P_true(tau) (L_z' / L_z)^s, up to the factor that the graph leaves out, [n, K * C]."""
        own = likelihood[:, label]
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(own[..., None] > 0, likelihood[:, None, :C] / own[..., None], 0.0)
        return (likelihood[:, setting.true, None] * ratio**power).reshape(len(likelihood), -1)

    sums = [_sum_over_edges(layer, graph.family.num_subgoals) for layer in graph.layers]
    first = [graph.start @ tilted(graph.likelihood)]
    for depth, last in enumerate(graph.layers):
        later = _best(sums[depth] @ tilted(last.joint), graph.family.num_subgoals)
        for h in reversed(range(depth)):
            layer = graph.layers[h]
            later = _best(sums[h] @ (layer.joint.mean(axis=1)[:, None] * later[layer.child]), graph.family.num_subgoals)
        first.append(graph.start @ later)
    exploring = first[0]
    if graph.layers:
        last, chance = graph.layers[-1], np.asarray(graph.family.instruction_prior, np.float64)
        flows = [graph.flow(table)[-1] for table in explorer]
        weight = np.einsum("w,wng->ng", chance, np.stack(flows))[last.node, last.subgoal]
        exploring = weight @ tilted(last.joint)
    prior = np.asarray(setting.classes.family.task_prior, np.float64)
    roots = (prior / prior[label][:, None]) ** power
    roots[np.arange(K), label] = 0.0
    steps = np.stack(first, axis=-1).reshape(K, C, H)
    return Certificate(H, power, roots, exploring.reshape(K, C), steps[..., -1], steps)


def _sum_over_edges(layer: Any, subgoals: int) -> sparse.csr_array:
    """The matrix that adds up edges by node and subgoal."""
    e = len(layer.node)
    index = layer.node.astype(np.int64) * subgoals + layer.subgoal
    return sparse.csr_array((np.ones(e), (index, np.arange(e))), shape=(layer.size * subgoals, e))


def _best(q: Float[np.ndarray, "nG P"], subgoals: int) -> Float[np.ndarray, "n P"]:
    return q.reshape(-1, subgoals, q.shape[1]).max(axis=1)


def _stack(believed: Family, spoken: Family, live: Int[np.ndarray, " K"]) -> Family:
    """One family of all tasks as they are believed, then of all live tasks as they are."""
    C, K = believed.num_tasks, len(live)

    def join(a: Array, b: Array) -> Array:
        if a.shape[0] == 1 and b.shape[0] == 1 and np.array_equal(a, b):
            return a
        b = b if b.shape[0] == 1 else b[live]
        return np.concatenate([np.broadcast_to(a, (C, *a.shape[1:])), np.broadcast_to(b, (K, *b.shape[1:]))])

    names = [f"{name}, as believed" for name in believed.tasks] + [f"{spoken.tasks[z]}, as it is" for z in live]
    return Family(
        np.full(C + K, 1 / (C + K)),
        join(believed.initial, spoken.initial),
        jax.tree.map(join, believed.transition, spoken.transition),
        join(believed.emission, spoken.emission),
        believed.reward,
        horizon=believed.horizon,
        instruction_prior=believed.instruction_prior,
        tasks=names,
        states=believed.states,
        subgoals=believed.subgoals,
        observations=believed.observations,
        instructions=believed.instructions,
    )
