"""The arguments of commands that several processes can share, and how a process joins the others."""

from __future__ import annotations

import argparse

from ..distributed import Job, join
from ..errors import BayesparError


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add ``--distributed`` and what it may need."""
    group = command.add_argument_group("several processes", "start the same command in each; see docs/distributed.md")
    group.add_argument(
        "--distributed", action="store_true", help="share the work with the other processes of the job; 0 prints"
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="of process 0 (default: as SLURM, Open MPI or Kubernetes tell)"
    )
    group.add_argument("--processes", type=int, metavar="N", help="how many there are (default: likewise)")
    group.add_argument("--process-id", type=int, metavar="I", help="which one this is, from 0 (default: likewise)")


def job_of(arguments: argparse.Namespace) -> Job:
    """The job that this process belongs to: of itself alone, unless ``--distributed`` is given.

    Raises:
        BayesparError: the others cannot be found.
    """
    given = arguments.coordinator, arguments.processes, arguments.process_id
    if arguments.distributed:
        return join(*given)
    if any(value is not None for value in given):
        raise BayesparError("--coordinator, --processes and --process-id are for --distributed; give that as well")
    return Job()
