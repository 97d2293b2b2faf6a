"""The low level: what an Actor does between two subgoals, composed into the kernel that the Planner sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import sparse

from .arrays import Array, is_traced
from .errors import InvalidWorldError
from .sparse import Sparse, check_successors
from .subprogram import enumerate_kernel, labels_of
from .validation import check_axis, check_names, check_ndim, check_rows, float_array, shown

_FEW = 4  # a composed kernel is stored as successors where no row has more than S / _FEW of them
_SMALL = 32  # states up to which dense products are faster than sparse ones


class LowLevel(eqx.Module):
    """The MDP in which an Actor carries out one subgoal, under one task.

    Attributes:
        transition: T(s' | s, a), [A, S, S'], or a Sparse [A, S, K].
        steps: H_a, low-level steps that a subgoal takes.
        states: names; the low level and the high level have the same states.
        actions: names.

    Source: theory.md, section 1 (low level).
    """

    transition: Float[Array, "A S S2"] | Sparse
    steps: int = eqx.field(static=True)
    states: tuple[str, ...] = eqx.field(static=True)
    actions: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        transition: Any,
        *,
        steps: int,
        states: Sequence[Any] | int | None = None,
        actions: Sequence[Any] | int | None = None,
    ):
        """
        Args:
            transition: [A, S, S'], a Sparse [A, S, K], or a sub-program ``transition(state, action)`` that takes and
                returns labels, as for a :class:`World`.
            steps: H_a.
            states, actions: labels, or how many; needed where a sub-program speaks of them.

        Raises:
            InvalidWorldError: a wrong shape, a row that is no distribution, no step, or names that do not fit.
            InvalidProgramError: a sub-program cannot be enumerated.
        """
        labels = {"states": labels_of("states", states), "actions": labels_of("actions", actions)}
        if callable(transition):
            transition = enumerate_kernel("transition", transition, ("actions", "states"), labels["states"], labels)
        if not isinstance(transition, Sparse):
            transition = float_array("transition", transition)
        check_ndim("transition", transition, (3,), "[A, S, S'], or a Sparse [A, S, K]")
        A, S = transition.shape[:2]
        if A == 0 or S == 0:
            raise InvalidWorldError(
                f"transition has shape {list(transition.shape)}; give at least one action and state"
            )
        if isinstance(transition, Sparse):
            check_successors(transition.next_states, S)
            check_rows("transition.probabilities", transition.probabilities)
        else:
            check_axis("transition", transition, 2, S, "the number of states")
            check_rows("transition", transition)
        if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 1:
            raise InvalidWorldError(f"steps = {shown(steps)}; a subgoal takes an integer of at least 1 low-level steps")
        self.transition, self.steps = transition, int(steps)
        self.states = check_names("states", _names(labels["states"], "state", S), S)
        self.actions = check_names("actions", _names(labels["actions"], "action", A), A)

    @property
    def num_states(self) -> int:
        """S."""
        return self.transition.shape[1]

    @property
    def num_actions(self) -> int:
        """A."""
        return self.transition.shape[0]

    def dense_transition(self) -> Float[Array, "A S S2"]:
        """``transition`` as a dense array."""
        return self.transition.dense(self.num_states) if isinstance(self.transition, Sparse) else self.transition


class TwoLevel(eqx.Module):
    """A low level and its Actors: what a :class:`World` takes in place of a transition.

    An Actor sees the state and the step, not the task and not the history.

    Attributes:
        low_level: T of one task.
        actors: mu_g(a | s) at each low-level step, [G, H_a or 1, S, A]; 1 where every step is alike.

    Source: theory.md, section 1 (low level).
    """

    low_level: LowLevel
    actors: Float[Array, "G steps S A"]

    def __init__(self, low_level: Any, actors: Any):
        """
        Args:
            low_level: T.
            actors: [G, H_a or 1, S, A], or a list with an Actor [H_a or 1, S, A] for each subgoal.

        Raises:
            InvalidWorldError: a wrong shape, or a row that is no distribution over actions.
        """
        low_level = check_low_level(low_level)
        actors = float_array("actors", actors)
        check_ndim("actors", actors, (4,), "[G, H_a or 1, S, A]")
        if actors.shape[0] == 0:
            raise InvalidWorldError("actors has no subgoal (G = 0); give an Actor for each")
        check_axis("actors", actors, 1, (low_level.steps, 1), "H_a, the low-level steps (or 1, if every step is alike)")
        check_axis("actors", actors, 2, low_level.num_states, "the number of states")
        check_axis("actors", actors, 3, low_level.num_actions, "the number of actions")
        check_rows("actors", actors)
        self.low_level, self.actors = low_level, actors

    @property
    def num_subgoals(self) -> int:
        """G."""
        return self.actors.shape[0]

    def compose(self) -> Float[Array, "G S S2"] | Sparse:
        """The high-level kernel P(s' | s, g) = M_1 M_2 ... M_{H_a}, M_k = sum_a mu_{g,k}(a | .) T(. | ., a).

        The product is in the order of time, and no probability is left out, however small. Work is done in float64,
        with sparse matrices where there are more than 32 states.

        Returns:
            A Sparse [G, S, K] where no row has more than S / 4 successors, else an array [G, S, S']; in the precision
            of the less precise of T and the Actors. Under a trace always an array.

        Source: theory.md, section 1 (low level).
        """
        T, mu = self.low_level.transition, self.actors
        if is_traced(T, mu):
            return self._compose_traced()
        kernel = T.probabilities if isinstance(T, Sparse) else T
        dtype = np.float64 if kernel.dtype == mu.dtype == np.float64 else np.float32
        return _stored([_product(steps) for steps in self._steps()], self.low_level.num_states, dtype)

    def _steps(self) -> Iterator[Iterator[Any]]:
        """For each subgoal the matrices M_1, ..., M_{H_a}, [S, S']: dense where S is small, else sparse."""
        T, S = self.low_level.transition, self.low_level.num_states
        if isinstance(T, Sparse):
            weight, column = np.asarray(T.probabilities, np.float64), np.asarray(T.next_states)
        else:
            weight, column = np.asarray(T, np.float64), np.broadcast_to(np.arange(S), T.shape)
        # What a row lacks within the tolerance of its check would grow with every factor.
        weight = weight / weight.sum(axis=-1, keepdims=True)
        mu = np.asarray(self.actors, np.float64)
        mu = mu / mu.sum(axis=-1, keepdims=True)
        action, row, slot = np.nonzero(weight)
        weight, column = weight[action, row, slot], column[action, row, slot]

        def step(rows: np.ndarray) -> Any:
            chosen = rows[row, action]
            used = chosen > 0
            place = row[used], column[used]
            matrix = sparse.csr_array((weight[used] * chosen[used], place), shape=(S, S))
            return matrix.toarray() if S <= _SMALL else matrix

        def of_one(actor: np.ndarray) -> Iterator[Any]:
            matrix = None
            for k in range(self.low_level.steps):
                if matrix is None or (k < len(actor) and not np.array_equal(actor[k], actor[k - 1])):
                    matrix = step(actor[k])
                yield matrix

        return (of_one(actor) for actor in mu)

    def _compose_traced(self) -> Float[Array, "G S S2"]:
        T, mu = jnp.asarray(self.low_level.dense_transition()), jnp.asarray(self.actors)
        steps = jnp.einsum("gksa,ast->kgst", mu, T)
        if len(steps) == 1:
            steps = jnp.broadcast_to(steps, (self.low_level.steps, *steps.shape[1:]))
        first = jnp.broadcast_to(jnp.eye(T.shape[1], dtype=steps.dtype), steps.shape[1:])
        return jax.lax.scan(lambda product, each: (product @ each, None), first, steps)[0]


def check_low_level(low_level: Any) -> LowLevel:
    """``low_level``, if it is one.

    Raises:
        InvalidWorldError: it is not.
    """
    if not isinstance(low_level, LowLevel):
        raise InvalidWorldError(f"low_level = {shown(low_level)}; give a bayespar.LowLevel")
    return low_level


def _names(labels: Sequence[Any] | None, kind: str, count: int) -> Sequence[Any]:
    return [f"{kind} {i}" for i in range(count)] if labels is None or isinstance(labels, range) else labels


def _product(matrices: Iterator[Any]) -> Any:
    product = next(matrices)
    for matrix in matrices:
        product = product @ matrix
    return product


def _stored(kernels: list[Any], S: int, dtype: Any) -> Float[np.ndarray, "G S S2"] | Sparse:
    """Kernels [S, S'], sparse matrices or arrays, stacked: as successors where they are few."""
    rows = [sparse.csr_array(kernel) for kernel in kernels]
    for matrix in rows:
        matrix.sum_duplicates()  # and sorts the successors of a row
    counts = np.stack([np.diff(matrix.indptr) for matrix in rows])
    K = int(counts.max())
    if _FEW * K > S:
        return np.stack([matrix.toarray() for matrix in rows]).astype(dtype)
    used = np.arange(K) < counts[..., None]
    next_states, probabilities = np.zeros(used.shape, np.int32), np.zeros(used.shape)
    next_states[used] = np.concatenate([matrix.indices for matrix in rows])
    probabilities[used] = np.concatenate([matrix.data for matrix in rows])
    return Sparse(next_states, probabilities.astype(dtype))
