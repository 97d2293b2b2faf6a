"""Several processes and devices at one piece of work: who does which block, and how all of them hear of the result.

A job is N processes that run the same program. Work comes in blocks whose size depends on nothing but the work; process
i does blocks i, i + N, i + 2N, ..., each as it would be done alone, and every process is told all results in the order
of the blocks. So the result is the same, bit for bit, for any N; and within a process for any number of devices.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import jax
import numpy as np

from .errors import BayesparError
from .validation import shown

T = TypeVar("T")


def _no_one_else(value: Any) -> list[Any]:
    return [value]


@dataclass(frozen=True)
class Job:
    """The processes at work, as one of them sees them.

    Attributes:
        index: of this process, from 0; process 0 leads.
        count: of all processes.
        exchange: tells a value to all, and returns the values of all, in order; every process must call it.
    """

    index: int = 0
    count: int = 1
    exchange: Callable[[Any], list[Any]] = _no_one_else

    @property
    def leads(self) -> bool:
        """Whether this is the one that prints, and writes what all have found."""
        return self.index == 0


_JOB: ContextVar[Job] = ContextVar("job", default=Job())  # noqa: B039, a Job never changes


def join(coordinator: str | None = None, processes: int | None = None, process: int | None = None) -> Job:
    """Meet the other processes of the job, by ``jax.distributed``; before anything is computed.

    Args:
        coordinator: HOST:PORT of process 0; like the others, found by JAX itself under SLURM, Open MPI and Kubernetes.
        processes: N.
        process: i, from 0.

    Raises:
        BayesparError: JAX finds no cluster, and not everything was given; or it was given wrongly.
    """
    if not jax.distributed.is_initialized():
        _check(coordinator, processes, process)
        try:
            jax.distributed.initialize(coordinator, processes, process)
        except (ValueError, TypeError) as error:
            raise BayesparError(
                f"no cluster was found ({str(error).rstrip('.')}); start this under SLURM, Open MPI or Kubernetes, or "
                "give the coordinator (HOST:PORT of process 0), the number of processes and the index of each"
            ) from None
        except RuntimeError as error:
            raise BayesparError(f"the job cannot be joined: {error}") from None
    job = Job(jax.process_index(), jax.process_count(), _exchange)
    with _standard_output_apart():  # the first message between CPUs announces itself there
        job.exchange(None)
    return job


def _check(coordinator: str | None, processes: int | None, process: int | None) -> None:
    if coordinator is not None:
        host, _, port = coordinator.rpartition(":")
        if not host or not port.isdecimal():
            raise BayesparError(f"coordinator = {shown(coordinator)}; give HOST:PORT, such as node-0:5555")
    if processes is not None and processes < 1:
        raise BayesparError(f"processes = {processes}; there is one at least")
    if process is not None and (process < 0 or (processes is not None and process >= processes)):
        raise BayesparError(f"process = {process}; give an index from 0 up to the number of processes minus 1")


@contextlib.contextmanager
def together(job: Job) -> Iterator[None]:
    """While it lasts, :func:`divide` and :func:`in_blocks` divide their blocks among the processes of the job.

    All of them must make the same calls.
    """
    token = _JOB.set(job)
    try:
        yield
    finally:
        _JOB.reset(token)


def current_job() -> Job:
    """The job among whose processes blocks are divided: this process alone, outside of :func:`together`."""
    return _JOB.get()


def divide(work: Callable[[Sequence[int]], Sequence[T]], blocks: int) -> list[T]:
    """The result of every block; ``work`` is told which blocks are this process's own, and returns theirs.

    What ``work`` itself divides stays in this process. An error of any process is raised in all.
    """
    job = _JOB.get()
    if job.count == 1:
        return list(work(range(blocks)))
    mine = range(job.index, blocks, job.count)
    found: list[T] = []
    failed: Exception | None = None
    with together(Job()):
        try:
            found = list(work(mine)) if mine else []
        except Exception as error:
            failed = error
    told = job.exchange((found, failed and (type(failed), failed.args, vars(failed))))
    if failed is not None:
        raise failed
    for _, error in told:
        if error is not None:
            raise _rebuilt(*error)
    return [told[b % job.count][0][b // job.count] for b in range(blocks)]


def in_blocks(work: Callable[[int], T], blocks: int) -> list[T]:
    """``work`` of every block: divided among the processes, in each among its devices, on threads.

    The work of a block is the same program whichever device runs it, and it is compiled once for each device.
    """
    return divide(lambda mine: _in_threads(work, mine), blocks)


def on_devices(work: Callable[[Any], T]) -> Callable[[Any], T]:
    """``work`` on this process's devices: each call on the next one."""
    chosen = cast(Any, jax.config).jax_default_device  # by the user, for this thread
    devices = [chosen] if chosen is not None or jax.local_device_count() == 1 else jax.local_devices()
    turn = itertools.count()

    def run(item: Any) -> T:
        with jax.default_device(devices[next(turn) % len(devices)]):
            return work(item)

    return run


def _in_threads(work: Callable[[int], T], blocks: Sequence[int]) -> list[T]:
    run, devices = on_devices(work), jax.local_device_count()
    if len(blocks) == 1:
        return [run(blocks[0])]
    with ThreadPoolExecutor(max(os.cpu_count() or 1, devices)) as pool:
        # A device's first block goes alone, so that only one thread compiles for it.
        found = list(pool.map(run, blocks[:devices]))
        return found + list(pool.map(run, blocks[devices:]))


def _exchange(value: Any) -> list[Any]:
    """The values of all processes, through JAX's own collectives."""
    from jax.experimental.multihost_utils import process_allgather

    told = np.frombuffer(pickle.dumps(value), np.uint8)
    try:
        sizes = np.asarray(process_allgather(np.uint32(len(told)))).reshape(-1)
        padded = np.zeros(1 << (int(sizes.max()) - 1).bit_length(), np.uint8)  # few sizes, as each is compiled for
        padded[: len(told)] = told
        rows = np.asarray(process_allgather(padded))
    except (RuntimeError, ValueError) as error:  # the latter from Gloo
        raise BayesparError(f"another process of the job has ended ({error}); start all of them again") from None
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _rebuilt(kind: type[Exception], arguments: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    """An error as another process raised it; its class may want more arguments than it passes on."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


@contextlib.contextmanager
def _standard_output_apart() -> Iterator[None]:
    """What native code prints to standard output goes to standard error."""
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
