"""All mutants, with the role that each plays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from . import entries, written
from .equivalent import EQUIVALENT
from .mechanical import Mutation, load, mutations

CORRECT: dict[str, Callable[[], Any]] = {
    "posterior": entries.posterior,
    "state_posterior": entries.state_posterior,
    "next_observation": entries.next_observation,
    "planner": entries.planner,
    "log_evidence": entries.log_evidence,
    "sampler": entries.sampler,
    "kernel": entries.kernel,
    "loop": entries.loop,
}
"""Our own functions in every role; they pass every check."""

_POSTERIOR = ("exact_posterior", "_log_prior", "_episodes", "_padded_current", "_current")
_FILTER = ("Filter.start", "Filter.advance", "Filter.predict", "_move", "_move_each")
_TARGETS: tuple[tuple[str, tuple[str, ...], str, Callable[..., Any]], ...] = (
    ("posterior.exact", _POSTERIOR, "posterior", entries.posterior),
    ("posterior.exact", ("posterior_path", "_log_joint_path"), "posterior", entries.posterior_path),
    ("statistics", ("log_sum_exp",), "posterior", entries.posterior),
    ("posterior.exact", ("state_posterior", "state_posterior_by_task"), "state_posterior", entries.state_posterior),
    ("filtering", _FILTER, "next_observation", entries.next_observation),
    ("filtering", ("Filter._moved", "total", "_in_halves"), "log_evidence", entries.streamed_evidence),
    ("planning.bail", ("bail", "expert_actions"), "planner", entries.planner),
    ("planning.expert", ("first_best",), "planner", entries.planner),
    ("forward", ("log_sum", "log_predict"), "log_evidence", entries.log_evidence),
)  # fmt: skip
"""Module, functions, and the role and the entry through which they are called."""


@dataclass(frozen=True)
class Mutant:
    """A wrong function.

    Attributes:
        name: unique.
        role: what it pretends to be.
        wrong: what is wrong with it, in a line.
        build: makes the function.
        mutation: for a mutant made by machine, the change.
    """

    name: str
    role: str
    wrong: str
    build: Callable[[], Any]
    mutation: Mutation | None = None

    @property
    def key(self) -> tuple[str, str] | None:
        """What names a mutant made by machine for as long as its statement stands: the function, and the change."""
        change = self.mutation
        return None if change is None else (f"{change.module}.{change.function}", change.after)

    @property
    def equivalent(self) -> str | None:
        """Why it is not wrong after all, if it is not."""
        return None if self.key is None else EQUIVALENT.get(self.key)


def written_mutants() -> list[Mutant]:
    """The mutants written by hand."""
    groups: dict[str, tuple[Any, ...]] = {
        "posterior": written.POSTERIORS,
        "planner": written.PLANNERS,
        "log_evidence": written.EVIDENCES,
        "sampler": written.SAMPLERS,
        "kernel": written.KERNELS,
        "loop": written.LOOPS,
    }
    return [
        Mutant(make.__name__, role, (make.__doc__ or "").strip(), written.in_the_loop(make) if role == "loop" else make)
        for role, group in groups.items()
        for make in group
    ]


def mechanical_mutants() -> list[Mutant]:
    """The mutants made by machine from the source as it is."""
    return [
        Mutant(f"{module}.{function}#{m.number}", role, f"{m.before} -> {m.after}", partial(_build, entry, m), m)
        for module, functions, role, entry in _TARGETS
        for function in functions
        for m in mutations(module, function)
    ]


def _build(entry: Callable[..., Any], mutation: Mutation) -> Any:
    return entry(load(mutation))
