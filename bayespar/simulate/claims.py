"""Who is at which piece of work: locks on the bytes of one small file, which the system releases when a process dies.

No two processes, on one machine or on several that share the folder, hold the same byte. A lock of a process that was
killed is free at once, so nobody has to find out who is alive. Within a process the locks keep nothing apart.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ..errors import InvalidFolderError

Claim = Callable[[int, bool], AbstractContextManager[bool]]


@contextmanager
def claims(file: Path) -> Iterator[Claim]:
    """A context ``claim(number, patient)`` that tells whether piece ``number`` is this process's own while it lasts.

    Whoever is patient waits until it is. Open a file once at a time: to close it gives up all that the process holds.

    Raises:
        InvalidFolderError: the system, or the folder, has no locks.
    """
    try:
        import fcntl
    except ImportError:
        raise InvalidFolderError(f"{file} cannot be locked: only POSIX systems have the locks that it needs") from None
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InvalidFolderError(f"{file} cannot be written: {error.strerror or error}; give another folder") from None

    @contextmanager
    def claim(number: int, patient: bool) -> Iterator[bool]:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | (0 if patient else fcntl.LOCK_NB), 1, number)
        except (BlockingIOError, PermissionError):  # POSIX allows either where another process holds it
            yield False
            return
        except OSError as error:
            told = error.strerror or error
            raise InvalidFolderError(f"{file} cannot be locked: {told}; use a file system that has locks") from None
        try:
            yield True
        finally:
            fcntl.lockf(handle, fcntl.LOCK_UN, 1, number)

    try:
        yield claim
    finally:
        os.close(handle)
