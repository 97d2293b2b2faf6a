"""``index.html``: a run as one page that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import count, takewhile
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ..theory.claim import Claim
from ..theory.claims import CLAIMS
from ..theory.figure import Figure, PolicyTree
from ..theory.runner import Finding, Report
from ..theory.verdict import TwinOutcome, Verdict
from . import format as text
from .inline_svg import inline_svg
from .json_report import versions
from .palette import MARKERS, PALETTE, line_styles
from .plots import undrawn

# What says a verdict beside its colour, and the name of that colour.
_SIGNS = {
    Verdict.SUPPORTED: ("✓", "good"),
    Verdict.REFUTED: ("✗", "bad"),
    Verdict.INCONCLUSIVE: ("?", "doubt"),
    Verdict.NOT_APPLICABLE: ("\u2013", "muted"),
}


@dataclass(frozen=True)
class Cell:
    """A finding with its place on the page.

    Attributes:
        anchor: its identifier there.
        finding: the finding.
        sign, colour: of its verdict.
    """

    anchor: str
    finding: Finding
    sign: str
    colour: str

    @property
    def missed(self) -> int:
        """How many of its twins the check did not reject."""
        return sum(not t.rejected for t in self.finding.twins)


@dataclass(frozen=True)
class Twin:
    """One false twin on the worlds where it was tried.

    Attributes:
        name, effect: what was made false, and by how much.
        tried: (world, outcome), in order.
    """

    name: str
    effect: str
    tried: tuple[tuple[str, TwinOutcome], ...]


@dataclass(frozen=True)
class Section:
    """All about one claim.

    Attributes:
        claim: the claim.
        cells: by world, in the order of the report; a world that was not checked has none.
        twins: of all worlds.
    """

    claim: Claim
    cells: dict[str, Cell]
    twins: tuple[Twin, ...]

    @property
    def applicable(self) -> list[Cell]:
        """Where the claim was checked."""
        return [c for c in self.cells.values() if c.finding.outcome.verdict is not Verdict.NOT_APPLICABLE]

    def alike(self, row: int) -> int:
        """How many rows from ``row`` on share its reason; 0 if the row above does, and has said it."""
        reasons = [c.finding.outcome.reason for c in self.applicable]
        if row and reasons[row] == reasons[row - 1]:
            return 0
        return sum(1 for _ in takewhile(lambda reason: reason == reasons[row], reasons[row:]))

    @property
    def skipped(self) -> dict[str, list[Cell]]:
        """Where it does not apply, by reason."""
        out: dict[str, list[Cell]] = {}
        for c in self.cells.values():
            if c.finding.outcome.verdict is Verdict.NOT_APPLICABLE:
                out.setdefault(c.finding.outcome.reason, []).append(c)
        return out


def write_html(report: Report, folder: Path) -> Path:
    """Write ``index.html`` into ``folder``, made if it is not there; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(render(report), "utf-8")
    return path


def render(report: Report) -> str:
    """The page. The same report gives the same bytes."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    # Plots are numbered in the order in which they come, so that no two share an identifier.
    numbers = count(1)
    environment.globals.update(
        text=text,
        plot=lambda figure: Markup(inline_svg(figure, f"plot{next(numbers)}")),
        is_tree=lambda figure: isinstance(figure, PolicyTree),
        keys=_keys,
        undrawn=undrawn,
        markers=MARKERS,
    )
    files = resources.files("bayespar.report")
    return environment.from_string(files.joinpath("page.html").read_text("utf-8")).render(
        report=report,
        sections=_sections(report.findings),
        worlds=list(dict.fromkeys(f.world for f in report.findings)),
        signs=[(v.value, *_SIGNS[v]) for v in Verdict],
        versions=versions(),
        palette=PALETTE,
        style=Markup(files.joinpath("page.css").read_text("utf-8")),
    )


def _sections(findings: Sequence[Finding]) -> list[Section]:
    out = []
    for claim in dict.fromkeys(f.claim for f in findings):
        found = [f for f in findings if f.claim == claim]
        cells = {f.world: Cell(f"{claim}-{i}", f, *_SIGNS[f.outcome.verdict]) for i, f in enumerate(found, 1)}
        out.append(Section(CLAIMS[claim], cells, _twins(found)))
    return out


def _twins(findings: Sequence[Finding]) -> tuple[Twin, ...]:
    by_name: dict[tuple[str, str], list[tuple[str, TwinOutcome]]] = {}
    for f in findings:
        for t in f.twins:
            by_name.setdefault((t.name, t.effect), []).append((f.world, t))
    return tuple(Twin(name, effect, tuple(tried)) for (name, effect), tried in by_name.items())


def _keys(figure: Figure) -> list:
    """(series, style) of the lines of a plot, for its legend."""
    series = getattr(figure, "series", ())
    return list(zip(series, line_styles(series), strict=True))
