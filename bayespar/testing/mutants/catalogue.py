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

_POSTERIOR = ("posterior", "_log_prior", "_episodes", "_padded_current", "_current")
_TARGETS: tuple[tuple[str, tuple[str, ...], str, Callable[..., Any]], ...] = (
    ("posterior.exact", _POSTERIOR, "posterior", entries.posterior),
    ("posterior.exact", ("posterior_path", "_log_joint_path"), "posterior", entries.posterior_path),
    ("statistics", ("log_sum_exp",), "posterior", entries.posterior),
    ("posterior.exact", ("state_posterior", "state_posterior_by_task"), "state_posterior", entries.state_posterior),
    ("filtering", ("Filter.start", "Filter.advance", "Filter.predict", "_move"), "next_observation",
     entries.next_observation),
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
    def equivalent(self) -> str | None:
        """Why it is not wrong after all, if it is not."""
        if self.mutation is None:
            return None
        return EQUIVALENT.get((self.mutation.module, self.mutation.function, self.mutation.before, self.mutation.after))


def catalogue() -> list[Mutant]:
    """Every mutant, those written by hand first."""
    by_hand = (
        ("posterior", written.POSTERIORS),
        ("planner", written.PLANNERS),
        ("log_evidence", written.EVIDENCES),
        ("sampler", written.SAMPLERS),
        ("kernel", written.KERNELS),
    )
    found = [
        Mutant(make.__name__, role, (make.__doc__ or "").strip().splitlines()[0], make)
        for role, group in by_hand
        for make in group
    ]
    for planner in written.LOOPS:
        found.append(Mutant(planner.__name__, "loop", (planner.__doc__ or "").strip(), written.in_the_loop(planner)))
    for module, functions, role, entry in _TARGETS:
        for function in functions:
            for m in mutations(module, function):
                name = f"{module}.{function}#{m.number}"
                found.append(Mutant(name, role, f"{m.before} -> {m.after}", partial(_build, entry, m), m))
    return found


def _build(entry: Callable[..., Any], mutation: Mutation) -> Any:
    return entry(load(mutation))
