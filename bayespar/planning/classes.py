"""Classes of tasks: tasks with the same causal likelihood on every history have the same values and experts.

Whether two tasks agree is decided from the kernels, without enumerating histories. The distance

    || L_z - L_z' ||^2 = sum over whole histories tau, subgoals included, of (L_z(tau) - L_z'(tau))^2

is a quadratic form in the pair of forward vectors. It is carried in square-root form: a triangular factor R of the Gram
matrix of all forward vectors, updated by QR, so that nothing cancels and the distance is right to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float, Int

from ..kernels import HostKernel
from ..program import Program, as_family
from ..world import Family

EQUAL = 1e-12
"""Two tasks are one class when their relative distance is at most this: rounding leaves about 1e-15."""

_SIGNS = 8  # random functionals that separate most pairs cheaply
_SEPARATED = 1e-9


@dataclass(frozen=True)
class TaskClasses:
    """The tasks of positive prior, with equal ones merged.

    Attributes:
        family: one task a class, in the order of their first members; its prior is that of the class.
        label: class of each task, [Z]; -1 for tasks of prior 0, which count nowhere.
        members: names of the tasks of each class.
        distance: largest relative distance within a class; 0.0 where every class has one member.
    """

    family: Family
    label: Int[np.ndarray, " Z"]
    members: tuple[tuple[str, ...], ...]
    distance: float

    @property
    def merged(self) -> tuple[tuple[str, ...], ...]:
        """The classes of more than one task."""
        return tuple(names for names in self.members if len(names) > 1)


def task_classes(family_or_program: Family | Program) -> TaskClasses:
    """Merge the tasks that no history tells apart.

    Args:
        family_or_program: a Family, or a finite program.

    Returns:
        Classes; ``merged`` names those that were merged, and ``distance`` is the proof.

    Source: theory.md, section 1 (classes) and E4 (eta* = 0).
    """
    family = as_family(family_or_program)
    prior = np.asarray(family.task_prior, np.float64)
    label = np.full(family.num_tasks, -1)
    first: list[int] = []
    distance = 0.0
    values = _functionals(family)
    for z in np.flatnonzero(prior > 0):
        near = np.abs(values[first] - values[z]).max(axis=1, initial=0.0) <= _SEPARATED
        for c in np.flatnonzero(near).tolist():
            apart = likelihood_distance(family, int(z), first[c])
            if apart <= EQUAL:
                label[z], distance = c, max(distance, apart)
                break
        else:
            label[z] = len(first)
            first.append(int(z))
    members = tuple(tuple(family.tasks[z] for z in np.flatnonzero(label == c)) for c in range(len(first)))
    weights = np.bincount(label[label >= 0], prior[label >= 0], len(first))
    return TaskClasses(_select(family, first, weights, members), label, members, distance)


def likelihood_distance(family: Family, first: int, second: int) -> float:
    """|| L_z - L_z' || relative to the larger of the norms, over all histories of a whole episode."""
    S, steps = family.num_states, family.horizon - 1
    kernel, emission, initial = _arrays(family)
    zs = [first, second]
    rows = [initial[z % len(initial)] for z in zs]
    emit = np.concatenate([emission[z % len(emission)] for z in zs])
    factor = _compress([np.concatenate(rows)[None] * column for column in emit.T])
    for h in range(steps):
        halves = factor[:, :S], factor[:, S:]
        moves = [kernel.push(z, h, half) for z, half in zip(zs, halves, strict=True)]
        total = np.zeros((0, 2 * S))
        for g in range(family.num_subgoals):
            moved = np.concatenate([move[:, g] for move in moves], axis=1)
            total = _compress([total, *(moved * column for column in emit.T)])
        factor = total / np.abs(total).max()  # of a long episode nothing may overflow or vanish
    one, other = factor[:, :S].sum(axis=1), factor[:, S:].sum(axis=1)
    return float(np.linalg.norm(one - other) / max(np.linalg.norm(one), np.linalg.norm(other)))


def _compress(blocks: list[np.ndarray]) -> np.ndarray:
    """A matrix of as few rows with the Gram matrix of the rows of all blocks."""
    stacked = np.concatenate(blocks)
    return np.asarray(np.linalg.qr(stacked, mode="r")) if len(stacked) > stacked.shape[1] else stacked


def _functionals(family: Family) -> Float[np.ndarray, "Z signs"]:
    """sum over tau of L_z(tau) times a random sign for each (step, g, o), per subgoal sequence: equal for equal tasks.

    Distinct histories meet distinct products of signs, so the mean square over signs is the squared distance. A
    difference far above rounding proves two tasks different; the absence of one proves nothing.
    """
    kernel, emission, initial = _arrays(family)
    Z, G, O = family.num_tasks, family.num_subgoals, family.num_observations
    rng = np.random.default_rng(0)
    values = np.zeros((Z, _SIGNS))
    for k in range(_SIGNS):
        signs = rng.choice([-1.0, 1.0], (family.horizon, G, O))
        v = np.broadcast_to(initial, (Z, family.num_states)) * (emission @ signs[0, 0])
        for h in range(family.horizon - 1):
            heard = np.einsum("zso,go->zgs", emission, signs[h + 1])
            moved = np.concatenate([kernel.push(z, h, v[z : z + 1]) for z in range(Z)])
            v = (moved * heard).mean(axis=1)
        values[:, k] = v.sum(axis=1)
    return values


def _arrays(family: Family) -> tuple[HostKernel, np.ndarray, np.ndarray]:
    return HostKernel(family), np.asarray(family.emission, np.float64), np.asarray(family.initial, np.float64)


def _select(family: Family, tasks: list[int], prior: np.ndarray, members: tuple[tuple[str, ...], ...]) -> Family:
    """The family of some of the tasks, under another prior."""

    def rows(a):
        return a if a.shape[0] == 1 else a[np.asarray(tasks)]

    return Family(
        (prior / prior.sum()).astype(family.dtype),
        rows(family.initial),
        jax.tree.map(rows, family.transition),
        rows(family.emission),
        family.reward,
        horizon=family.horizon,
        instruction_prior=family.instruction_prior,
        tasks=[" = ".join(names) for names in members],
        states=family.states,
        subgoals=family.subgoals,
        observations=family.observations,
        instructions=family.instructions,
    )
