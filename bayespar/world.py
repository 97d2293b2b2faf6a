"""Worlds: what the Planner faces under one task (World), and all tasks stacked with their prior (Family).

Arrays and letters are those of the notation table in ``docs/architecture.md``. Kernels are stored in one
canonical layout, in which an axis of size 1 means *shared*, and nothing shared is copied:

=============  ==================================  =========================
field          shape                               meaning of a 1
=============  ==================================  =========================
task_prior     [Z]
initial        [Z or 1, S]                         shared by all tasks
transition     [Z or 1, H-1 or 1, G, S, S']        shared by all tasks, steps
emission       [Z or 1, S, O]                      shared by all tasks
reward         [H, O, W]
=============  ==================================  =========================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from .arrays import Array, is_traced
from .errors import InvalidWorldError
from .factored import Factored
from .literal import LARGEST_SHOWN, call, names, nested, summary
from .low_level import TwoLevel
from .sparse import Sparse as Sparse, check_successors
from .subprogram import enumerate_kernel, labels_of
from .validation import (
    check_axis,
    check_names,
    check_ndim,
    check_range,
    check_rows,
    check_sites,
    float_array,
    shown,
)


class World(eqx.Module):
    """What the Planner faces under one task; what a program returns.

    Each of ``initial``, ``transition`` and ``emission`` is an array, a :class:`Sparse` (transition only), or a
    *sub-program*: a function with ``numpyro.sample`` sites in it that returns one outcome, enumerated here
    into a kernel. Sub-programs are ``initial()``, which returns a state, ``transition(state, subgoal)``, which
    returns the next state, and ``emission(state)``, which returns an observation. They take and return *labels*:
    the entries of ``states``, ``subgoals`` and ``observations`` (strings, tuples, ...), or indices where only a
    count was given.

    Attributes:
        initial: rho, [S].
        transition: P, [H-1 or 1, G, S, S'], a Sparse [H-1 or 1, G, S, K], or a Factored.
        emission: E, [S, O].
        reward: [H, O, W], in [0, 1].
        horizon: H, observations in an episode; H-1 decisions.
        task: the name of this task, or None.
        instruction_prior: P_Omega, [W].
        two_level: what ``transition`` was composed from, or None.

    Source: theory.md, section 1.
    """

    initial: Float[Array, " S"]
    transition: Float[Array, "steps G S S2"] | Sparse | Factored
    emission: Float[Array, "S O"]
    reward: Float[Array, "H O W"]
    instruction_prior: Float[Array, " W"]
    two_level: TwoLevel | None
    horizon: int = eqx.field(static=True)
    task: str | None = eqx.field(static=True)
    states: tuple[str, ...] = eqx.field(static=True)
    subgoals: tuple[str, ...] = eqx.field(static=True)
    observations: tuple[str, ...] = eqx.field(static=True)
    instructions: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        initial: Any,
        transition: Any,
        emission: Any,
        reward: Any,
        *,
        horizon: int,
        task: str | None = None,
        states: Sequence[Any] | int | None = None,
        subgoals: Sequence[Any] | int | None = None,
        observations: Sequence[Any] | int | None = None,
        instructions: Sequence[Any] | None = None,
        instruction_prior: Any = None,
    ):
        """
        Args:
            initial: [S] or a sub-program.
            transition: [G, S, S'], [H-1, G, S, S'], a Sparse with K in place of S', a
                :class:`Factored`, a sub-program, or a :class:`TwoLevel`, which is composed here.
            emission: [S, O] or a sub-program.
            reward: [H, O], or [H, O, W] when instructions differ in what they reward.
            horizon: H, observations in an episode.
            task: the name of this task; by default it is named after the sites of its program.
            states, subgoals, observations: labels, or how many; needed where a sub-program speaks of them.
            instructions: names.
            instruction_prior: [W]; uniform by default.

        Raises:
            InvalidWorldError: a contract of the arrays is broken.
            InvalidProgramError: a sub-program cannot be enumerated.
        """
        self.two_level = transition if isinstance(transition, TwoLevel) else None
        if isinstance(transition, TwoLevel):
            states = transition.low_level.states if states is None else states
            transition = transition.compose()
        given = {"states": states, "subgoals": subgoals, "observations": observations}
        labels = {kind: labels_of(kind, words) for kind, words in given.items()}
        if callable(initial):
            initial = enumerate_kernel("initial", initial, (), labels["states"], labels)
        if callable(transition):
            transition = enumerate_kernel("transition", transition, ("subgoals", "states"), labels["states"], labels)
        if callable(emission):
            emission = enumerate_kernel("emission", emission, ("states",), labels["observations"], labels)
        if not isinstance(transition, (Sparse, Factored)):
            transition = float_array("transition", transition)
        check_ndim("transition", transition, (3, 4), "[G, S, S'] or [H-1, G, S, S'] for one world")
        initial, emission = float_array("initial", initial), float_array("emission", emission)
        check_ndim("initial", initial, (1,), "[S] for one world")
        check_ndim("emission", emission, (2,), "[S, O] for one world")
        family = Family(
            np.ones(1),
            initial,
            _expand(transition, axes=1) if transition.ndim == 4 else transition,
            emission,
            reward,
            horizon=horizon,
            tasks=None if task is None else [task],
            states=_names(labels["states"]),
            subgoals=_names(labels["subgoals"]),
            observations=_names(labels["observations"]),
            instructions=instructions,
            instruction_prior=instruction_prior,
        )
        for kind, words in labels.items():
            count = len(getattr(family, kind))
            if words is not None and len(words) != count:
                raise InvalidWorldError(f"{kind} = {len(words)}, but the arrays have {count} {kind}")
        self.initial = family.initial[0]
        self.transition = jax.tree.map(lambda a: a[0], family.transition)
        self.emission = family.emission[0]
        self.reward = family.reward
        self.instruction_prior = family.instruction_prior
        self.horizon = family.horizon
        self.task = None if task is None else family.tasks[0]
        self.states = family.states
        self.subgoals = family.subgoals
        self.observations = family.observations
        self.instructions = family.instructions


class Family(eqx.Module):
    """All tasks stacked, with their prior. See the table at the top of this module for the canonical layout.

    Every array has the precision of the least precise of the prior and the kernels: float32 or float64.

    Attributes:
        task_prior: P_Z, [Z]; zeros are allowed and such tasks count nowhere.
        initial: rho_z, [Z or 1, S].
        transition: P_z, [Z or 1, H-1 or 1, G, S, S'], or a Sparse with K in place of S', or a Factored.
        emission: E_z, [Z or 1, S, O].
        reward: r_h(o, w), [H, O, W], in [0, 1]; the same for every task.
        instruction_prior: P_Omega, [W].
        horizon: H.
        tasks, states, subgoals, observations, instructions: names.
        sites: for a family enumerated from a program, the value of each named site under each task.

    Source: theory.md, section 1.
    """

    task_prior: Float[Array, " Z"]
    initial: Float[Array, "Zi S"]
    transition: Float[Array, "Zt steps G S S2"] | Sparse | Factored
    emission: Float[Array, "Ze S O"]
    reward: Float[Array, "H O W"]
    instruction_prior: Float[Array, " W"]
    horizon: int = eqx.field(static=True)
    tasks: tuple[str, ...] = eqx.field(static=True)
    states: tuple[str, ...] = eqx.field(static=True)
    subgoals: tuple[str, ...] = eqx.field(static=True)
    observations: tuple[str, ...] = eqx.field(static=True)
    instructions: tuple[str, ...] = eqx.field(static=True)
    sites: tuple[tuple[str, tuple[Any, ...]], ...] = eqx.field(static=True)

    def __init__(
        self,
        task_prior: Any,
        initial: Any,
        transition: Any,
        emission: Any,
        reward: Any,
        *,
        horizon: int,
        instruction_prior: Any = None,
        tasks: Sequence[Any] | None = None,
        states: Sequence[Any] | None = None,
        subgoals: Sequence[Any] | None = None,
        observations: Sequence[Any] | None = None,
        instructions: Sequence[Any] | None = None,
        sites: Mapping[str, Sequence[Any]] | None = None,
    ):
        """
        Args:
            task_prior: [Z].
            initial: [Z, S], or [S] shared.
            transition: [G, S, S'] shared, [Z or 1, G, S, S'], or [Z or 1, H-1, G, S, S'] where it depends on
                the step; or a Sparse with K in place of S'; or a :class:`Factored` of arrays so laid out.
            emission: [Z, S, O], or [S, O] shared.
            reward: [H, O], or [H, O, W].
            horizon: H, observations in an episode.
            instruction_prior: [W]; uniform by default.
            tasks, states, subgoals, observations, instructions: names; "task 0", ... by default.
            sites: the value of each named site under each task, for marginals.

        Raises:
            InvalidWorldError: a contract is broken; the message names the array, the index and the cure.
        """
        if isinstance(horizon, bool) or not isinstance(horizon, (int, np.integer)) or horizon < 1:
            raise InvalidWorldError(f"horizon = {shown(horizon)}; it counts observations, an integer of at least 1")
        self.horizon = H = int(horizon)

        prior = float_array("task_prior", task_prior)
        initial = float_array("initial", initial)
        emission = float_array("emission", emission)
        reward = float_array("reward", reward)
        if not isinstance(transition, (Sparse, Factored)):
            transition = float_array("transition", transition)

        check_ndim("task_prior", prior, (1,), "[Z]")
        check_ndim("initial", initial, (1, 2), "[S] (shared by all tasks) or [Z, S]")
        check_ndim("transition", transition, (3, 4, 5), "[G, S, S'], [Z or 1, G, S, S'] or [Z or 1, H-1, G, S, S']")
        check_ndim("emission", emission, (2, 3), "[S, O] (shared by all tasks) or [Z, S, O]")
        check_ndim("reward", reward, (2, 3), "[H, O] or [H, O, W]")

        if initial.ndim == 1:
            initial = initial[None]
        if emission.ndim == 2:
            emission = emission[None]
        if reward.ndim == 2:
            reward = reward[..., None]
        if transition.ndim == 3:
            transition = _expand(transition, axes=2)
        elif transition.ndim == 4:
            transition = jax.tree.map(lambda a: a[:, None], transition)

        Z, S = prior.shape[0], initial.shape[1]
        O, W = emission.shape[2], reward.shape[2]
        for name, size in (("Z", Z), ("S", S), ("O", O), ("W", W), ("G", transition.shape[2])):
            if size == 0:
                raise InvalidWorldError(f"there are no {_KIND[name]} ({name} = 0); every axis needs at least one entry")
        check_axis("initial", initial, 0, (Z, 1), "the number of tasks (or 1, if shared)")
        parts: dict[str, Any] = {"transition": transition}
        if isinstance(transition, Factored):
            parts = {f"transition.factors[{k}]": f for k, f in enumerate(transition.factors)}
        for name, part in parts.items():
            check_axis(name, part, 0, (Z, 1), "the number of tasks (or 1, if shared)")
            check_axis(name, part, 1, (H - 1, 1), "H-1, the number of decisions (or 1, if every step is alike)")
        check_axis("transition", transition, 3, S, "the number of states")
        check_axis("emission", emission, 0, (Z, 1), "the number of tasks (or 1, if shared)")
        check_axis("emission", emission, 1, S, "the number of states")
        check_axis("reward", reward, 0, H, "the horizon")
        check_axis("reward", reward, 1, O, "the number of observations")
        if isinstance(transition, Sparse):
            check_successors(transition.next_states, S)
            check_rows("transition.probabilities", transition.probabilities)
        else:
            check_axis("transition", transition, 4, S, "the number of states")
            for name, part in parts.items():
                check_rows(name, part)
        check_rows("task_prior", prior)
        check_rows("initial", initial)
        check_rows("emission", emission)
        check_range("reward", reward, 0.0, 1.0)

        if instruction_prior is None:
            instruction_prior = np.full(W, 1 / W)
        instruction_prior = float_array("instruction_prior", instruction_prior)
        check_ndim("instruction_prior", instruction_prior, (1,), "[W]")
        check_axis("instruction_prior", instruction_prior, 0, W, "the number of instructions (the last axis of reward)")
        check_rows("instruction_prior", instruction_prior)

        kernels = (prior, initial, transition, emission)
        dtype = _common_dtype(kernels)
        self.task_prior, self.initial, self.transition, self.emission = jax.tree.map(lambda a: _cast(a, dtype), kernels)
        self.reward = _cast(reward, dtype)
        self.instruction_prior = _cast(instruction_prior, dtype)
        self.tasks = check_names("tasks", tasks if tasks is not None else [f"task {i}" for i in range(Z)], Z)
        self.states = check_names("states", states if states is not None else [f"state {i}" for i in range(S)], S)
        G = self.transition.shape[2]
        self.subgoals = check_names(
            "subgoals", subgoals if subgoals is not None else [f"subgoal {i}" for i in range(G)], G
        )
        self.observations = check_names(
            "observations", observations if observations is not None else [f"observation {i}" for i in range(O)], O
        )
        self.instructions = check_names(
            "instructions", instructions if instructions is not None else [f"instruction {i}" for i in range(W)], W
        )
        self.sites = check_sites({} if sites is None else sites, Z)

    def __repr__(self) -> str:
        """The source that builds this family, where it is small; else its sizes."""
        leaves = jax.tree.leaves(self)
        if not all(isinstance(a, np.ndarray) for a in leaves):
            return super().__repr__()
        if sum(a.size for a in leaves) > LARGEST_SHOWN:
            sizes = {"tasks": self.num_tasks, "states": self.num_states, "subgoals": self.num_subgoals}
            sizes |= {"observations": self.num_observations, "instructions": self.num_instructions}
            return summary("Family", sizes | {"horizon": self.horizon, "dtype": self.dtype})
        uniform = bool((self.instruction_prior == 1 / self.num_instructions).all())
        transition = self.transition
        if transition.shape[1] == 1:
            shared = transition.shape[0] == 1
            transition = jax.tree.map(lambda a: a[0, 0] if shared else a[:, 0], transition)
        source = call(
            "bp.Family",
            nested(self.task_prior),
            nested(_unshared(self.initial)),
            repr(transition) if isinstance(transition, (Sparse, Factored)) else nested(transition),
            nested(_unshared(self.emission)),
            nested(self.reward[..., 0] if self.num_instructions == 1 else self.reward),
            horizon=str(self.horizon),
            instruction_prior=None if uniform else nested(self.instruction_prior),
            tasks=names(self.tasks, "task"),
            states=names(self.states, "state"),
            subgoals=names(self.subgoals, "subgoal"),
            observations=names(self.observations, "observation"),
            instructions=names(self.instructions, "instruction"),
            sites=repr({name: list(values) for name, values in self.sites}) if self.sites else None,
        )
        return source if self.dtype == np.float64 else f"{source}.astype({str(self.dtype)!r})"

    @property
    def num_tasks(self) -> int:
        """Z."""
        return self.task_prior.shape[0]

    @property
    def num_states(self) -> int:
        """S."""
        return self.initial.shape[1]

    @property
    def num_subgoals(self) -> int:
        """G."""
        return self.transition.shape[2]

    @property
    def num_observations(self) -> int:
        """O."""
        return self.emission.shape[2]

    @property
    def num_instructions(self) -> int:
        """W."""
        return self.reward.shape[2]

    @property
    def dtype(self) -> np.dtype:
        """Precision of every array: float32 or float64."""
        return np.dtype(self.task_prior.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes in the arrays."""
        return sum(int(np.prod(a.shape, dtype=int)) * a.dtype.itemsize for a in jax.tree.leaves(self))

    def astype(self, dtype: Any) -> Family:
        """The same family in another precision ("float32" or "float64").

        Raises:
            InvalidWorldError: another dtype.
        """
        if dtype not in ("float32", "float64", np.float32, np.float64):
            raise InvalidWorldError(f'dtype = {shown(dtype)}; a family is "float32" or "float64"')
        return jax.tree.map(lambda a: _cast(a, np.dtype(dtype)), self)

    def dense_transition(self) -> Float[Array, "Zt steps G S S2"]:
        """``transition`` as a dense array.

        Raises:
            TooLargeError: it is factored, and the dense one would take more than 2 GiB.
        """
        if isinstance(self.transition, Factored):
            return self.transition.dense()
        return self.transition.dense(self.num_states) if isinstance(self.transition, Sparse) else self.transition

    def world(self, task: int) -> World:
        """The world of one task.

        Raises:
            InvalidWorldError: there is no such task.
        """
        task = self.task_index(task)

        def pick(a: Array) -> Array:
            return a[min(task, a.shape[0] - 1)]

        return World(
            pick(self.initial),
            jax.tree.map(pick, self.transition)
            if self.transition.shape[1] > 1
            else jax.tree.map(lambda a: pick(a)[0], self.transition),
            pick(self.emission),
            self.reward,
            horizon=self.horizon,
            states=self.states,
            subgoals=self.subgoals,
            observations=self.observations,
            instructions=self.instructions,
            instruction_prior=self.instruction_prior,
            task=self.tasks[task],
        )

    def task_index(self, task: int | str) -> int:
        """The index of a task given by index or by name.

        Raises:
            InvalidWorldError: there is no such task.
        """
        if isinstance(task, str):
            if task not in self.tasks:
                raise InvalidWorldError(
                    f"there is no task {shown(task)}; the tasks are {', '.join(map(shown, self.tasks[:8]))}, ..."
                )
            return self.tasks.index(task)
        if isinstance(task, bool) or not isinstance(task, (int, np.integer)) or not 0 <= task < self.num_tasks:
            raise InvalidWorldError(f"task = {shown(task)}; give an index from 0 to {self.num_tasks - 1}, or a name")
        return int(task)


def _names(labels: Sequence[Any] | None) -> Sequence[Any] | None:
    """Labels as names; where only a count was given, names are made."""
    return None if isinstance(labels, range) else labels


def check_family(family: Any) -> Family:
    """``family``, if it is one."""
    if not isinstance(family, Family):
        raise InvalidWorldError(
            f"expected a bayespar.Family, got {type(family).__name__}; enumerate_program makes one of a program"
        )
    return family


_KIND = {"Z": "tasks", "S": "states", "O": "observations", "W": "instructions", "G": "subgoals"}


def _unshared(array: Array) -> Array:
    """``array`` without a task axis of size 1."""
    return array[0] if array.shape[0] == 1 else array


def _expand(transition: Any, axes: int) -> Any:
    """``transition`` with ``axes`` leading axes of size 1."""
    return jax.tree.map(lambda a: a[(None,) * axes], transition)


def _common_dtype(tree: Any) -> np.dtype:
    """The precision of the least precise float leaf; under a trace, what the trace can hold."""
    leaves = [a.dtype for a in jax.tree.leaves(tree) if jax.numpy.issubdtype(a.dtype, np.floating)]
    dtype = np.dtype(np.float64) if all(d == np.float64 for d in leaves) else np.dtype(np.float32)
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype)) if is_traced(tree) else dtype


def _cast(array: Array, dtype: np.dtype) -> Array:
    """Float arrays in ``dtype`` and C order (a stacked one may come with the task axis innermost); integers as is."""
    if not jax.numpy.issubdtype(array.dtype, np.floating):
        return array
    return array.astype(dtype) if is_traced(array) else np.ascontiguousarray(array, dtype=dtype)
