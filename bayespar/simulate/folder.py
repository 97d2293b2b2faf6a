"""Folders of results that outlive a kill: a file is whole or not there, and a manifest says what it is of."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..errors import InvalidFolderError
from ..validation import shown
from ..world import Family

MANIFEST = "manifest.json"


def make_folder(where: Any, part: str, what: str) -> Path:
    """The folder ``where``, with a folder ``part`` in it.

    Raises:
        InvalidFolderError: it cannot be made; ``what`` says of what it would be.
    """
    try:
        folder = Path(where)
        (folder / part).mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise InvalidFolderError(f"{what} cannot be written to {shown(where)}: {told}; give another folder") from None
    return folder


def check_manifest(folder: Path, manifest: dict[str, Any], what: str) -> dict[str, Any]:
    """The manifest of the folder, if each part of ``manifest`` is the same there.

    Raises:
        InvalidFolderError: a part differs, which the message names, or it is no manifest.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text("utf-8"))
        for part in manifest:
            _check_same(part, found[part], json.loads(json.dumps(manifest[part])), folder, what)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InvalidFolderError):
            raise
        raise InvalidFolderError(f"{folder / MANIFEST} is no manifest of {what}; give another folder") from None
    return found


def _check_same(name: str, found: Any, wanted: Any, folder: Path, what: str) -> None:
    if found == wanted:
        return
    if isinstance(found, dict) and isinstance(wanted, dict) and found.keys() == wanted.keys():
        for part in wanted:
            _check_same(part, found[part], wanted[part], folder, what)
    raise InvalidFolderError(
        f"{folder} holds {what} with {name} = {shown(found)}, and {shown(wanted)} is asked for; "
        "go on with the same settings and versions, or give another folder"
    )


def replace_file(file: Path, write: Callable[[Path], Any]) -> None:
    """Write a file that is there as a whole or not at all, whenever the machine stops.

    Raises:
        InvalidFolderError: it cannot be written.
    """
    partial = file.with_name(f"{file.name}.partial")
    try:
        write(partial)
        with partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        partial.replace(file)
        if hasattr(os, "O_DIRECTORY"):  # the name is safe once its folder is
            handle = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise InvalidFolderError(f"{file} cannot be written: {error.strerror or error}; give another folder") from None


def replace_json(file: Path, data: Any) -> None:
    """Write JSON likewise; never NaN or infinity.

    Raises:
        InvalidFolderError: it cannot be written.
    """
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    replace_file(file, lambda path: path.write_text(text, "utf-8"))


def checksum(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(family: Family, sites: Any = None) -> str:
    """A checksum of the arrays and the words of a family."""
    leaves, structure = jax.tree.flatten(family)
    digest = hashlib.sha256(f"{structure} {sites}".encode())
    for leaf in map(np.ascontiguousarray, leaves):
        digest.update(f"{leaf.shape} {leaf.dtype}".encode() + leaf.tobytes())
    return digest.hexdigest()
