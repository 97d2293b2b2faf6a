"""Programs: numpyro functions that sample a latent task and return the World under it."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arrays import Array, is_traced
from .enumeration import MAX_LEAVES, Density, Leaf, enumerate_leaves, mass_cache
from .errors import InvalidProgramError
from .factored import Factored
from .subprogram import kernel_cache
from .validation import label_name, shown
from .world import Family, Sparse, World

Program = Callable[[], World]

# numpyro keeps one stack of handlers for all threads.
_ENUMERATING = threading.RLock()


def enumerate_program(program: Program) -> Family:
    """Every task of a finite program, stacked into a Family.

    The program reads like a numpyro model that returns a :class:`World`. Each joint value of its sites with
    positive probability is a task. Sites may depend on each other; an observed site (``obs=``) conditions the prior.
    A kernel that comes out equal under every task is stored once. Works in float64.

    Args:
        program: a function without arguments (bind parameters with ``functools.partial``).

    Returns:
        The family; its ``sites`` hold each site's value under each task, its tasks are named by ``World(task=...)``
        or else after the sites.

    Raises:
        InvalidProgramError: a site is not finite and discrete, the program does not return a World, or two
            tasks differ in horizon, reward, instructions or words.
        InvalidWorldError: a kernel breaks its contract.
        TooLargeError: too many joint values.

    Source: theory.md, section 1.
    """
    leaves = run_leaves(program)
    worlds = check_worlds(leaves)
    weights = np.array([float(leaf.weight) for leaf in leaves])
    if not weights.sum() > 0:
        raise InvalidProgramError("the program's observed sites have probability 0 under every task")
    names: dict[str, None] = {}
    for leaf in leaves:
        names.update(dict.fromkeys(leaf.sites))
    return stack_worlds(
        weights / weights.sum(),
        worlds,
        tasks=task_names(leaves, worlds),
        sites={name: [_plain(leaf.sites.get(name)) for leaf in leaves] for name in names},
    )


def check_worlds(leaves: Sequence[Leaf]) -> list[World]:
    """The worlds that a program returned, which may differ in their kernels only.

    Raises:
        InvalidProgramError: one is no world, or differs from the first in more.
    """
    worlds = [_check_world(leaf.value) for leaf in leaves]
    first = worlds[0]
    for leaf, world in zip(leaves, worlds, strict=True):
        for what in ("horizon", "states", "subgoals", "observations", "instructions"):
            if getattr(world, what) != getattr(first, what):
                raise InvalidProgramError(
                    f"the task {_task_name(leaf)!r} has other {what} than {_task_name(leaves[0])!r}; "
                    "only initial, transition and emission may depend on the task"
                )
        for what in ("reward", "instruction_prior"):
            if is_traced(getattr(world, what)) or not np.array_equal(getattr(world, what), getattr(first, what)):
                raise InvalidProgramError(
                    f"{what} differs between the tasks {_task_name(leaves[0])!r} and {_task_name(leaf)!r}, "
                    "or depends on a site with a density; "
                    "it must not depend on the task: put what the task changes into the observation"
                )
    return worlds


def stack_worlds(
    task_prior: Any, worlds: Sequence[World], tasks: Sequence[str] | None = None, sites: Any = None
) -> Family:
    """Worlds that :func:`check_worlds` has seen, with their prior [Z], as one family."""
    first = worlds[0]
    return Family(
        task_prior,
        _stack([w.initial for w in worlds]),
        _stack_transitions(_of_one_kind(worlds)),
        _stack([w.emission for w in worlds]),
        first.reward,
        horizon=first.horizon,
        instruction_prior=first.instruction_prior,
        tasks=tasks,
        states=first.states,
        subgoals=first.subgoals,
        observations=first.observations,
        instructions=first.instructions,
        sites=sites,
    )


def task_names(leaves: Sequence[Leaf], worlds: Sequence[World]) -> list[str]:
    """What the tasks are called: as their worlds say, or else after the sites."""
    return [w.task or _task_name(leaf) for leaf, w in zip(leaves, worlds, strict=True)]


def enumerate_worlds(program: Program) -> list[World]:
    """The World of every task of a finite program, in the order of the tasks of its family.

    A family holds composed kernels only; each World still has its ``two_level``.

    Raises:
        InvalidProgramError: as :func:`enumerate_program`.
    """
    return [_check_world(leaf.value) for leaf in run_leaves(program)]


def run_leaves(program: Program, density: Density | None = None, max_leaves: int = MAX_LEAVES) -> list[Leaf]:
    """Every run of a program, in float64; ``density`` as for :func:`enumerate_leaves`.

    Raises:
        InvalidProgramError, TooLargeError: as :func:`enumerate_leaves`.
    """
    if not callable(program):
        raise InvalidProgramError(f"expected a program (a function that returns a World), got {type(program).__name__}")
    with _ENUMERATING, jax.enable_x64(True):
        kernel_cache.append({})
        mass_cache.append({})
        try:
            return list(enumerate_leaves(program, density=density, max_leaves=max_leaves))
        finally:
            kernel_cache.pop()
            mass_cache.pop()


def as_family(family_or_program: Family | Program) -> Family:
    """A family itself, or the family of a finite program.

    Raises:
        InvalidProgramError: neither.
    """
    if isinstance(family_or_program, Family):
        return family_or_program
    return enumerate_program(family_or_program)


def as_stacked(world: Any) -> Family:
    """One world, which a program returned, as a family of one task.

    Raises:
        InvalidProgramError: it is no world.
    """
    world = _check_world(world)
    return Family(
        np.ones(1, world.initial.dtype),
        world.initial,
        jax.tree.map(lambda a: a[None], world.transition),
        world.emission,
        world.reward,
        horizon=world.horizon,
        instruction_prior=world.instruction_prior,
        tasks=None if world.task is None else [world.task],
        states=world.states,
        subgoals=world.subgoals,
        observations=world.observations,
        instructions=world.instructions,
    )


def available_models() -> list[str]:
    """The names of the shipped worlds."""
    path = importlib.import_module("bayespar.models").__path__
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load_model(name: str | Path) -> Program:
    """The program of a shipped world, or of a file of your own.

    A file's program is the function named like the file, or else ``program``. A world file is Python: loading it
    runs it, so load only files that you trust.

    Args:
        name: the name of a shipped world (see :func:`available_models`), or the path of a ``.py`` file.

    Raises:
        InvalidProgramError: no such world, or the file has no program.
    """
    text = str(name)
    if text.endswith(".py"):
        path = Path(text)
        try:
            known = path.is_file()
        except (OSError, ValueError) as error:  # a name that no file can have
            reason = getattr(error, "strerror", None) or error
            raise InvalidProgramError(f"{shown(text)} cannot be loaded: {reason}") from None
        if not known:
            raise InvalidProgramError(f"there is no file {text}")
        spec = importlib.util.spec_from_file_location(f"_bayespar_world_{path.stem}", path)
        if spec is None or spec.loader is None:
            raise InvalidProgramError(f"{text} cannot be loaded as Python")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            raise InvalidProgramError(f"{text} failed to load: {type(error).__name__}: {error}") from error
        for candidate in (path.stem, "program"):
            if callable(getattr(module, candidate, None)):
                return getattr(module, candidate)
        raise InvalidProgramError(f"{text} defines no function named {path.stem!r} or 'program'")
    if text not in available_models():
        raise InvalidProgramError(
            f"there is no world {shown(text)}; the shipped ones are {', '.join(available_models())}; "
            "a file of your own ends in .py"
        )
    return getattr(importlib.import_module(f"bayespar.models.{text}"), text)


def _check_world(value: Any) -> World:
    if not isinstance(value, World):
        raise InvalidProgramError(f"the program returned {type(value).__name__}; it must return a bayespar.World")
    return value


def _plain(value: Any) -> Any:
    """A site's value as Python numbers, nested in tuples where it has several elements, so that it can be looked up."""

    def tuples(items: Any) -> Any:
        return tuple(map(tuples, items)) if isinstance(items, list) else items

    return tuples(value.tolist()) if isinstance(value, (np.generic, np.ndarray)) else value


def _task_name(leaf: Leaf) -> str:
    parts = [f"{name}={label_name(_plain(value))}" for name, value in leaf.sites.items()]
    return ", ".join(parts) or "the task"


def _stack(arrays: Sequence[Any]) -> Array:
    """Arrays stacked on a new task axis, of size 1 if all are equal."""
    if is_traced(arrays):
        return arrays[0][None] if all(a is arrays[0] for a in arrays) else jnp.stack(arrays)
    shared = all(a is arrays[0] or np.array_equal(a, arrays[0]) for a in arrays[1:])
    return np.asarray(arrays[0])[None] if shared else np.stack(arrays)


def _of_one_kind(worlds: Sequence[World]) -> list[Any]:
    """The transitions; a composed one is made dense where that of another task came out dense."""
    transitions = [w.transition for w in worlds]
    if all(isinstance(t, Sparse) for t in transitions):
        return transitions
    return [
        t.dense(w.initial.shape[0]) if isinstance(t, Sparse) and w.two_level is not None else t
        for t, w in zip(transitions, worlds, strict=True)
    ]


def _stack_transitions(kernels: Sequence[Any]) -> Any:
    """Transitions stacked on a new task axis; sparse ones are padded to the same number of successors."""
    steps = max(k.shape[0] for k in kernels)
    if all(isinstance(k, Factored) for k in kernels):
        by_actor = zip(*(k.factors for k in kernels), strict=True)
        return Factored([_stack_transitions(factors) for factors in by_actor])
    if any(isinstance(k, Factored) for k in kernels):
        raise InvalidProgramError("some tasks have a factored transition and some do not; use one kind")
    sparse = [isinstance(k, Sparse) for k in kernels]
    if any(sparse) != all(sparse):
        raise InvalidProgramError("some tasks have a sparse transition and some a dense one; use one kind")
    if not any(sparse):
        return _stack([_broadcast(k, (steps, *k.shape[1:])) for k in kernels])
    width = max(k.shape[-1] for k in kernels)

    def pad(a: Array) -> Array:
        padded = (jnp if is_traced(a) else np).pad(a, [(0, 0)] * (a.ndim - 1) + [(0, width - a.shape[-1])])
        return _broadcast(padded, (steps, *padded.shape[1:]))

    states, probabilities = [pad(k.next_states) for k in kernels], [pad(k.probabilities) for k in kernels]
    stacked = _stack(states), _stack(probabilities)
    Z = max(a.shape[0] for a in stacked)
    return Sparse(*(_broadcast(a, (Z, *a.shape[1:])) for a in stacked))


def _broadcast(array: Array, shape: Sequence[int]) -> Array:
    if array.shape == tuple(shape):
        return array
    return (jnp if is_traced(array) else np).broadcast_to(array, shape)
