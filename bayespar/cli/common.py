"""What several commands share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from ..compilations import so_far
from ..errors import BayesparError
from ..validation import shown

WORLD = "a shipped world's name, or the path of a .py file of your own (it is run: load only what you trust)"


def print_json(data: Any) -> None:
    """JSON on standard output; never NaN or infinity. An object also tells how many programs were compiled."""
    if isinstance(data, dict):
        data = {**data, "compilations": asdict(so_far())}
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def printable(text: str) -> str:
    """``text`` without what no terminal can be sent, such as half of a surrogate pair."""
    return text.encode("utf-8", "backslashreplace").decode()


def make_folder(path: Path | None) -> None:
    """Make the folder for results, if one is asked for: before the work, so that nothing is lost where it cannot be.

    Raises:
        BayesparError: it cannot be made.
    """
    try:
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise BayesparError(f"--out {shown(str(path))}: {getattr(error, 'strerror', None) or error}") from None


def bars(title: str, names: Sequence[str], probabilities: np.ndarray, most: int = 12) -> Table:
    """Probabilities as bars, the largest first."""
    table = Table(box=None, title=title, title_justify="left", show_header=False)
    order = np.argsort(-probabilities, kind="stable")
    for i in order[:most]:
        table.add_row(names[int(i)], f"{probabilities[i]:.4f}", "█" * round(30 * float(probabilities[i])))
    if len(order) > most:
        rest = float(probabilities[order[most:]].sum())
        table.add_row(f"{len(order) - most} more", f"{rest:.4f}", "█" * round(30 * rest), style="dim")
    return table
