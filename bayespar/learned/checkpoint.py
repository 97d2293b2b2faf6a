"""Checkpoints: a line of JSON that says what for, then the arrays as equinox writes them."""

from __future__ import annotations

import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np

from ..errors import InvalidFolderError
from ..validation import shown


def checkpoint_in(folder: Any) -> Path:
    """Where the checkpoint is; its folder is made.

    Raises:
        InvalidFolderError: it cannot be.
    """
    try:
        place = Path(folder) / "checkpoint.eqx"
        place.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, TypeError, ValueError) as error:
        told = getattr(error, "strerror", None) or error
        raise InvalidFolderError(f"folder = {shown(folder)} cannot be used: {told}; give another") from None
    if place.exists() and not place.is_file():
        raise InvalidFolderError(f"{shown(str(place))} is no file; remove it, or give another folder")
    return place


def save(place: Path, what: dict[str, Any], training: Any, reports: list[list[float]]) -> None:
    """Write a checkpoint at once, so that a kill leaves the last one whole.

    Raises:
        InvalidFolderError: it cannot be written.
    """
    arrays = io.BytesIO()
    eqx.tree_serialise_leaves(arrays, training)
    head = {**what, "reports": reports, "sha256": hashlib.sha256(arrays.getvalue()).hexdigest()}
    new = place.with_suffix(".new")
    try:
        with new.open("wb") as file:
            file.write(json.dumps(head).encode() + b"\n" + arrays.getvalue())
            file.flush()
            os.fsync(file.fileno())
        new.replace(place)
    except OSError as error:
        raise InvalidFolderError(f"{shown(str(place))} cannot be written: {error.strerror or error}") from None


def load(place: Path, what: dict[str, Any], like: Any) -> tuple[Any, list[list[float]]]:
    """The training and the reports that :func:`save` wrote.

    Raises:
        InvalidFolderError: the checkpoint is damaged, or of another training.
    """
    try:
        head, _, arrays = place.read_bytes().partition(b"\n")
        found = json.loads(head)
        reports = [[float(label), float(observation)] for label, observation in found.pop("reports")]
        whole = found.pop("sha256") == hashlib.sha256(arrays).hexdigest() and np.isfinite(reports).all()
    except OSError as error:
        raise InvalidFolderError(f"{shown(str(place))} cannot be read: {error.strerror or error}") from None
    except Exception:  # whatever JSON raises for bytes that are none of its own
        whole, found, reports, arrays = False, {}, [], b""
    if not whole:
        raise InvalidFolderError(f"{shown(str(place))} is damaged; give another folder, or remove it")
    if found != what:
        changed = ", ".join(k for k in {**what, **found} if found.get(k) != what.get(k))
        raise InvalidFolderError(
            f"{shown(str(place))} was written by another training (its {changed} differs: 'start' is the stream, the "
            "key or the world); give another folder, or remove it"
        )
    return eqx.tree_deserialise_leaves(io.BytesIO(arrays), like), reports
