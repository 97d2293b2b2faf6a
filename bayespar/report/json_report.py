"""A run as plain data, and the schema of ``report.json``. It is data: nothing in it is ever executed."""

from __future__ import annotations

import importlib.metadata
import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..theory.claims import CLAIMS
from ..theory.figure import Bars, Branch, Curves, Figure, Series
from ..theory.runner import Finding, Report

SCHEMA_VERSION = 2


def report_data(report: Report) -> dict[str, Any]:
    """The whole run as JSON data; the fields are described in ``docs/report.md``."""
    return {
        "schema": SCHEMA_VERSION,
        "passed": report.passed,
        "problems": list(report.problems),
        "profile": report.profile,
        "key": report.key,
        "dtype": "float64",
        "seconds": round(report.seconds, 3),
        "versions": versions(),
        "claims": [
            {
                "id": c.id,
                "title": c.title,
                "statement": c.statement,
                "assumptions": list(c.assumptions),
                "status": c.status,
                "worlds_needed": c.worlds,
            }
            for c in (CLAIMS[i] for i in dict.fromkeys(f.claim for f in report.findings))
        ],
        "findings": [_finding(f) for f in report.findings],
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute, by name."""
    names = ("bayespar", "jax", "numpyro", "numpy", "scipy")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in names}}


def write_report(report: Report, folder: Path) -> Path:
    """Write ``report.json`` into ``folder``, made if it is not there; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.json"
    path.write_text(json.dumps(report_data(report), indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    return path


def _finding(finding: Finding) -> dict[str, Any]:
    outcome = finding.outcome
    return {
        "claim": finding.claim,
        "world": finding.world,
        "verdict": outcome.verdict.value,
        "reason": outcome.reason,
        "measured": _number(outcome.measured),
        "predicted": _number(outcome.predicted),
        "tightness": _number(outcome.tightness),
        "half_width": _number(outcome.half_width),
        "alpha": outcome.alpha,
        "seconds": round(finding.seconds, 3),
        "twins": [
            {
                "name": t.name,
                "effect": t.effect,
                "rejected": t.rejected,
                "measured": _number(t.measured),
                "power": t.power,
            }
            for t in finding.twins
        ],
        "figures": [_figure(f) for f in outcome.figures],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    if isinstance(figure, Curves):
        return {
            "kind": "curves",
            "title": figure.title,
            "x_label": figure.x_label,
            "y_label": figure.y_label,
            "log": figure.log,
            "series": [_series(s) for s in figure.series],
            "note": figure.note,
        }
    if isinstance(figure, Bars):
        return {
            "kind": "bars",
            "title": figure.title,
            "x_label": figure.x_label,
            "labels": list(figure.labels),
            "values": _numbers(figure.values),
            "note": figure.note,
        }
    return {
        "kind": "policy",
        "title": figure.title,
        "branches": [_branch(b) for b in figure.branches],
        "note": figure.note,
    }


def _series(series: Series) -> dict[str, Any]:
    return {
        "name": series.name,
        "kind": series.kind,
        "x": _numbers(series.x),
        "y": _numbers(series.y),
        "low": None if series.low is None else _numbers(series.low),
        "high": None if series.high is None else _numbers(series.high),
    }


def _branch(branch: Branch) -> dict[str, Any]:
    return {
        "words": branch.words,
        "kind": branch.kind,
        "probability": _number(branch.probability),
        "children": [_branch(b) for b in branch.children],
    }


def _numbers(values: Sequence[float]) -> list[float | str | None]:
    return [_number(v) for v in values]


def _number(value: float | None) -> float | str | None:
    """JSON has no infinity and no NaN: they are written as the strings "inf", "-inf" and "nan"."""
    if value is None or math.isfinite(value):
        return None if value is None else float(value)
    return str(float(value))
