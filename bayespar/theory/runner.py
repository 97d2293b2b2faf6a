"""Check claims on worlds, and say what the whole run shows."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from ..compilations import Compilations, counted, include
from ..distributed import divide
from ..errors import InvalidWorldError
from ..posterior.latents import has_density
from ..program import Program, load_model
from ..world import Family
from .claim import FALSE_ALARM, Claim, Settings, Subject
from .claims import CLAIMS
from .claims.icl import TRAINED
from .verdict import Outcome, TwinOutcome, Verdict, not_applicable

NO_MASS = "tasks have a density: a single one has mass 0, and eta = 0"


@dataclass(frozen=True)
class Finding:
    """One claim on one world.

    Attributes:
        claim: its id.
        world: its name.
        outcome: of the check.
        twins: of the false twins; empty where the claim does not apply.
        seconds: spent.
    """

    claim: str
    world: str
    outcome: Outcome
    twins: tuple[TwinOutcome, ...]
    seconds: float


@dataclass(frozen=True)
class Report:
    """A whole run.

    Attributes:
        findings: claim by claim, world by world.
        problems: why the exit status is not 0; empty if it is.
        profile: "quick" or "full".
        key: the key of every random choice.
        seconds: spent.
    """

    findings: tuple[Finding, ...]
    problems: tuple[str, ...]
    profile: str
    key: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether everything asked for was shown."""
        return not self.problems


def select_claims(ids: Sequence[str] | None) -> list[Claim]:
    """Claims by id, all by default.

    Raises:
        InvalidWorldError: there is no such claim.
    """
    for name in ids or ():
        if name not in CLAIMS:
            raise InvalidWorldError(f"there is no claim {name!r}; the claims are {', '.join(CLAIMS)}")
    return [CLAIMS[name] for name in dict.fromkeys(ids or CLAIMS)]


def verify(
    worlds: Mapping[str, Family | Program | str],
    claims: Sequence[str] | None = None,
    *,
    profile: str = "quick",
    key: int = 0,
    shipped: bool = True,
    progress: Callable[[str, str], None] | None = None,
) -> Report:
    """Check every claim on every world.

    The processes of a job (see :func:`bayespar.distributed.together`) share the worlds.

    Args:
        worlds: by name; programs, families, or what :func:`load_model` takes. If all are of the last kind, each is
            checked in a process of its own, so that worlds share the cores evenly.
        claims: ids; all by default.
        profile: "quick" or "full".
        key: of every random choice.
        shipped: whether each claim must also be supported on as many worlds as it needs; False for a user's own.
        progress: called with (claim, world) when a check is done.

    Raises:
        InvalidWorldError: no such claim, or a world breaks a contract.

    Source: the design of verdicts is in ``docs/architecture.md``.
    """
    selected = select_claims(claims)
    start = time.perf_counter()
    named = claims is not None and len(worlds) == 1
    ids = [claim.id for claim in selected]
    arguments = [(name, world, ids, profile, key, named) for name, world in worlds.items()]
    apart = len(worlds) > 1 and all(isinstance(world, str) for world in worlds.values())
    order = sorted(arguments, key=_soon) if apart else arguments
    check = _in_processes if apart else _in_turn
    found = divide(lambda mine: list(check([order[i] for i in mine], progress)), len(order))
    by_world = {one[0]: findings for one, findings in zip(order, found, strict=True)}
    findings = tuple(by_world[name][i] for i in range(len(selected)) for name in worlds)
    return Report(findings, _problems(findings, selected, shipped), profile, key, time.perf_counter() - start)


def _check_world(
    name: str,
    world: Family | Program | str,
    claims: Sequence[str],
    profile: str,
    key: int,
    named: bool,
    progress: Callable[[str, str], None] | None,
) -> list[Finding]:
    """Every claim on one world."""
    alpha = FALSE_ALARM / sum(claim.checks for claim in CLAIMS.values())
    settings = Settings(full=profile == "full", alpha=alpha, named=named)
    subject = Subject(name, load_model(world) if isinstance(world, str) else world, key=key)
    found = []
    for claim in claims:
        found.append(_find(CLAIMS[claim], subject, settings))
        if progress is not None:
            progress(claim, name)
    return found


def _in_turn(arguments: Sequence[Any], progress: Any) -> Iterator[list[Finding]]:
    # Not on threads: numpyro keeps what it is tracing in one place for all of them.
    return (_check_world(*one, progress=progress) for one in arguments)


def _in_processes(arguments: Sequence[Any], progress: Any) -> Iterator[list[Finding]]:
    context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads in the middle of their work
    told = context.SimpleQueue()
    with ProcessPoolExecutor(min(len(arguments), os.cpu_count() or 1), context, _start_worker, (told,)) as pool:
        running = [pool.submit(_check_apart, one) for one in arguments]
        while wait(running, timeout=0.2, return_when=FIRST_EXCEPTION).not_done or not told.empty():
            _pass_on(told, progress)
            failed = [f for f in running if f.done() and f.exception()]
            if failed:
                pool.shutdown(wait=False, cancel_futures=True)
                failed[0].result()
        for future in running:
            findings, compiled = future.result()
            include(compiled)
            yield findings


_tell: Callable[[tuple[str, str]], None]  # of a worker, which it tells what is done


def _start_worker(told: Any) -> None:
    """There is a process for every core, so that a product on several threads would only wait for the others."""
    global _tell
    _tell = told.put
    os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen=false {os.environ.get('XLA_FLAGS', '')}"


def _soon(one: Any) -> bool:
    """False, which comes first, for the worlds that take longest: no core should wait for them at the end."""
    name, world = one[:2]
    return not (name in TRAINED or has_density(load_model(world)))


def _check_apart(one: Any) -> tuple[list[Finding], Compilations]:
    with counted() as compiled:
        found = _check_world(*one, progress=lambda claim, world: _tell((claim, world)))
    return found, compiled


def _pass_on(told: Any, progress: Callable[[str, str], None] | None) -> None:
    while not told.empty():
        done = told.get()
        if progress is not None:
            progress(*done)


def _find(claim: Claim, subject: Subject, settings: Settings) -> Finding:
    start = time.perf_counter()
    fitting = claim.on(subject)
    if fitting is None:
        outcome, twins = not_applicable(NO_MASS), ()
    else:
        check, false = fitting
        outcome = check(subject, settings)
        applies = outcome.verdict is not Verdict.NOT_APPLICABLE
        twins = tuple(false(subject, settings)) if applies else ()
    return Finding(claim.id, subject.name, outcome, twins, time.perf_counter() - start)


def _problems(findings: Sequence[Finding], claims: Sequence[Claim], shipped: bool) -> tuple[str, ...]:
    problems = []
    for f in findings:
        if f.outcome.verdict in (Verdict.REFUTED, Verdict.INCONCLUSIVE):
            problems.append(f"{f.claim} is {f.outcome.verdict.value} on {f.world}: {f.outcome.reason}")
        problems += [f"{f.claim} on {f.world} does not reject its twin: {t.name}" for t in f.twins if not t.rejected]
    for claim in claims if shipped else ():
        if not any(f.twins for f in findings if f.claim == claim.id):
            problems.append(f"no false twin of {claim.id} was tried on any of the worlds checked")
        count = sum(f.claim == claim.id and f.outcome.verdict is Verdict.SUPPORTED for f in findings)
        if count < claim.worlds:
            problems.append(f"{claim.id} is supported on {count} of the worlds checked; it needs {claim.worlds}")
    return tuple(problems)
