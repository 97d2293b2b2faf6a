"""An audit as one page, in the style of the verification report, and as JSON."""

from __future__ import annotations

import json
import math
from importlib import resources
from itertools import count
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..learned.ranking import Row
from ..learned.result import Audit
from ..learned.words import number as nats
from ..theory.figure import Bars, Curves, Figure, Series
from . import format as text
from .html import _keys
from .inline_svg import inline_svg
from .json_report import versions
from .palette import MARKERS, PALETTE
from .plots import undrawn

_MOST_STEPS = 4  # lines of single steps in a plot; the mean only where there are more


def write_audit(audit: Audit, folder: Path) -> tuple[Path, Path]:
    """Write ``audit.json`` and ``audit.html`` into ``folder``, made if it is not there; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data, page = folder / "audit.json", folder / "audit.html"
    data.write_text(json.dumps(audit.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    page.write_text(render(audit), "utf-8")
    return data, page


def render(audit: Audit) -> str:
    """The page. The same audit gives the same bytes."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    numbers = count(1)
    environment.globals.update(
        text=text,
        plot=lambda figure: Markup(inline_svg(figure, f"plot{next(numbers)}")),
        is_tree=lambda figure: False,
        keys=_keys,
        knobs=_knobs,
        undrawn=undrawn,
        markers=MARKERS,
        nats=nats,
    )
    files = resources.files("bayespar.report")
    # The macros of the verification report stand before its first line of HTML.
    macros = files.joinpath("page.html").read_text("utf-8").partition("<!DOCTYPE html>")[0]
    page = environment.from_string(macros + files.joinpath("audit.html").read_text("utf-8"))
    return page.render(
        audit=audit,
        figures=figures(audit),
        costs=_costs(audit),
        rules_out=math.log(1 / audit.ranking.alpha),
        rejects=math.log(1 / audit.labels.alpha),
        versions=versions(),
        palette=PALETTE,
        style=Markup(files.joinpath("page.css").read_text("utf-8")),
    )


def figures(audit: Audit) -> list[Figure]:
    """Total variation by context length and step, and how near the rivals are."""
    found = audit.comparison
    contexts = list(range(audit.episodes))
    mean, steps = found.by_context, found.by_position.mean
    series = [Series("all steps", contexts, mean.mean.tolist(), mean.low.tolist(), mean.high.tolist())]
    if 1 < steps.shape[1] <= _MOST_STEPS:
        series += [Series(f"step {h + 1}", contexts, steps[:, h].tolist()) for h in range(steps.shape[1])]
    near = audit.ranking.rows
    return [
        Curves(
            "Total variation from BAIL by context length",
            "finished episodes in the prompt",
            "E TV(planner, BAIL)",
            series,
            note=f"The band holds at all lengths with probability {1 - mean.alpha:.2%}.",
        ),
        Bars(
            "What each rival leaves unexplained",
            "nats a decision",
            [row.name for row in near],
            [float(nats(row.nats)) for row in near],
        ),
    ]


def _costs(audit: Audit) -> list:
    cost = audit.cost
    if cost is None:
        return []
    return [
        ("regret of the planner", cost.regret),
        ("regret of BAIL", cost.bail),
        ("due to not being Bayesian", cost.difference),
        ("P1's error term, added to the bound of BAIL", cost.error_term),
    ]


def _knobs(row: Row) -> str:
    numbers = {k: v for k, v in row.knobs.items() if np.ndim(v) == 0 and not (k == "lapse" and v < 0.005)}
    return ", ".join(f"{k} {v:.2f}" for k, v in numbers.items())
