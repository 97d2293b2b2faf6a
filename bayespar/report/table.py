"""The table of verdicts in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..theory.claims import CLAIMS
from ..theory.runner import Finding, Report
from ..theory.verdict import Verdict
from .format import conclusion, counts, half_width, number, predicted, tightness

_STYLES = {
    Verdict.SUPPORTED: "green",
    Verdict.REFUTED: "bold red",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.NOT_APPLICABLE: "dim",
}


def verdict_table(report: Report) -> RenderableType:
    """One row a claim and world; what does not apply is listed below, with its reason, then the problems."""
    title = f"Verdicts ({report.profile} profile, key {report.key})"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("claim", "world", "verdict", "measured", "predicted", "tightness", "twins"):
        table.add_column(name, justify="left" if name in ("claim", "world", "verdict") else "right", no_wrap=True)
    skipped: dict[tuple[str, str], list[str]] = {}
    last = None
    for f in report.findings:
        if f.outcome.verdict is Verdict.NOT_APPLICABLE:
            skipped.setdefault((f.claim, f.outcome.reason), []).append(f.world)
            continue
        if last is not None and f.claim != last:
            table.add_section()
        table.add_row(f.claim if f.claim != last else "", f.world, *_cells(f))
        last = f.claim
    lines: list[RenderableType] = [table]
    titles = {f.claim: CLAIMS[f.claim].title for f in report.findings}
    lines += [Text(f"{i}: {title}", style="dim") for i, title in titles.items()]
    lines.append(Text("tightness: measured / bound; twins: how many false ones the check rejected", style="dim"))
    if skipped:
        lines.append(Text("\nNot applicable:", style="dim"))
        lines += [Text(f"  {c} on {', '.join(w)}: {why}", style="dim") for (c, why), w in skipped.items()]
    lines.append(Text(""))
    lines += [Text(p, style="bold red") for p in report.problems]
    lines.append(_summary(report))
    return Group(*lines)


def _cells(finding: Finding) -> tuple[Text | str, ...]:
    outcome = finding.outcome
    rejected = sum(t.rejected for t in finding.twins)
    twins = Text(f"{rejected}/{len(finding.twins)}", style="" if rejected == len(finding.twins) else "bold red")
    measured = f"{number(outcome.measured)} {half_width(outcome)}".strip()
    verdict = Text(outcome.verdict.value, style=_STYLES[outcome.verdict])
    return verdict, measured, predicted(outcome), tightness(outcome), twins


def _summary(report: Report) -> Text:
    verdict = Text(conclusion(report) + ("" if report.passed else " (see above)"))
    verdict.stylize("bold green" if report.passed else "bold red")
    return Text(f"{counts(report)}: ") + verdict
