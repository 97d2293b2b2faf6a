"""The report as data and as a page: complete, escaped, deterministic, and readable in a browser."""

import ast
import json
import math
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from bayespar.errors import BayesparError
from bayespar.report import plots
from bayespar.report.html import render, write_html
from bayespar.report.inline_svg import inline_svg
from bayespar.report.json_report import report_data, write_report
from bayespar.report.palette import PALETTE, line_styles
from bayespar.report.plots import undrawn, write_plot
from bayespar.report.scales import tick
from bayespar.theory.claims import CLAIMS
from bayespar.theory.figure import Bars, Branch, Curves, PolicyTree, Series
from bayespar.theory.runner import Finding, Report
from bayespar.theory.verdict import Outcome, TwinOutcome, Verdict

INF, NAN = math.inf, math.nan
EVIL = "<script>alert(1)</script>"
EPISODES = [1.0, 10.0, 100.0]

CURVES = Curves(
    "Regret & its bound",
    "episodes T",
    "regret <nats>",
    (
        Series("_BAIL costs $5 and $6", EPISODES, [0.5, 1.5, 2.5], [0.0, 1.0, 2.0], [1.0, 2.0, INF]),
        Series("BAIL again", EPISODES, [0.6, 1.4, 2.4]),
        Series("upper bound", EPISODES, [3.0, 4.0, 5.0], kind="bound"),
        Series("never learns", EPISODES, [0.1, 1.0, 10.0], kind="reference"),
    ),
    log=True,
    note="a note on <256> seeds",
)
BARS = Bars(
    "Least divergence", "eta, nats", ["uniform", f"{EVIL} for ever", "word" * 30], [0.25, NAN, 1.0], "found by LP"
)
TREE = PolicyTree(
    "What it does",
    (
        Branch(
            "a growl <left>", "observation", 0.62, (Branch("listen", "subgoal", 0.75), Branch(EVIL, "subgoal", 0.25))
        ),
        Branch("a growl right", "observation", 0.38),
    ),
    "the rest is left out",
)
# Nothing finite, nothing at all, one point, constants, extremes: on both kinds of axis.
ODD = [
    Series("zeros", [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]),
    Series("not finite", [1.0, NAN, INF], [INF, 1.0, -INF], [NAN, -INF, 0.0], [INF, INF, NAN]),
    Series("empty", [], [], [], []),
    Series("one point", [3.0], [2.0]),
    Series("constant", [1.0, 2.0], [7.0, 7.0], [7.0, 7.0], [7.0, 7.0]),
    Series("extreme", [1e-320, 1.0, 1e308], [1e308, -1e308, 5e-324]),
    Series("negative", [-1.0, -2.0], [-3.0, 4.0], [-5.0, 1.0], [-1.0, 9.0]),
]


def finding(claim, world, outcome, *twins):
    return Finding(claim, world, outcome, twins, 1.25)


@pytest.fixture(scope="module")
def report():
    twins = [
        TwinOutcome("labels shuffled", "5 % of the labels", True, 0.1404, 1.0),
        TwinOutcome(f"prior {EVIL}", "log odds moved", False, INF, 0.99),
    ]
    return Report(
        (
            finding("C1", "lock", Outcome(Verdict.SUPPORTED, 1e-16, 1e-12, "largest error"), twins[0]),
            finding(
                "C1",
                EVIL,
                Outcome(Verdict.SUPPORTED, 0.0, 1e-12, "largest error", figures=(CURVES, BARS, TREE)),
                *twins,
            ),
            finding("C2", "lock", Outcome(Verdict.INCONCLUSIVE, 0.4312, 0.4307, "mean", half_width=0.031, alpha=1e-6)),
            finding("C2", EVIL, Outcome(Verdict.REFUTED, NAN, None, "excess", tightness=1.39, figures=(CURVES,))),
            finding("C3", "lock", Outcome(Verdict.NOT_APPLICABLE, reason="nothing <moves>")),
        ),
        (f"C2 is refuted on {EVIL}: excess",),
        "quick",
        7,
        12.3,
    )


@pytest.fixture(scope="module")
def page(report):
    return render(report)


class Page(HTMLParser):
    """Collects text, attributes and identifiers, and checks that elements are closed in order."""

    VOID = ("meta", "link", "br", "img", "input", "hr")

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.ids, self.links, self.open = [], Counter(), [], [], []
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags[tag] += 1
        values = dict(attributes)
        assert not [name for name in values if name.startswith("on")]
        self.ids += [values["id"]] if "id" in values else []
        self.links += [v for k, v in attributes if k in ("href", "src", "xlink:href", "data", "action")]
        self.links += [f"#{name}" for v in values.values() for name in re.findall(r"url\(#([^)]*)\)", v or "")]
        self.links += [f"#{name}" for name in values.get("aria-labelledby", "").split()]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def words(page):
    return " ".join(" ".join(Page(page).text).split())


def test_the_page_holds_every_claim_finding_twin_and_figure(report, page):
    shown = words(page)
    for i in ("C1", "C2", "C3"):
        claim = CLAIMS[i]
        assert " ".join(claim.statement.split()) in shown
        assert claim.title in shown
        assert all(a in shown for a in claim.assumptions)
    for f in report.findings:
        assert f.world in shown
        assert f.outcome.verdict.value in shown
        assert f.outcome.reason in shown
        for t in f.twins:
            assert t.name in shown
            assert t.effect in shown
    for number in ("1e-16", "≤ 1e-12", "0.4312", "0.4307", "± 3.1%", "1e-06", "1.39", "0.1404", "nan", "inf", "0.99"):
        assert number in shown, number
    for text in (CURVES.title, CURVES.note, BARS.title, BARS.note, TREE.title, TREE.note, "a growl <left>", "0.620"):
        assert text in shown, text
    for text in ("not everything holds", report.problems[0], "2 supported, 2 of 3 false twins rejected, 12 s", "key 7"):
        assert text in shown, text
    assert all(s.name in shown for s in CURVES.series)
    assert "twin not rejected" in shown


def test_a_run_that_passes_says_so(report):
    good = Report(report.findings[:1], (), "full", 0, 1.0)
    shown = words(render(good))
    assert "everything holds" in shown
    assert "not everything holds" not in shown
    assert "What does not hold" not in shown


def test_user_text_is_escaped_and_nothing_points_elsewhere(page):
    parsed = Page(page)
    assert EVIL not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(parsed.tags)
    assert not re.findall(r"https?:|//|@import|url\((?!#)|javascript:", page)
    assert parsed.tags["style"] == 1


def test_identifiers_are_unique_and_every_link_has_its_target(page):
    parsed = Page(page)
    assert [i for i, n in Counter(parsed.ids).items() if n > 1] == []
    assert set(parsed.links) <= {f"#{i}" for i in parsed.ids}
    assert parsed.tags["svg"] >= 3
    assert any(i.startswith("plot2-") for i in parsed.ids)


def test_the_same_report_gives_the_same_bytes(report, page, tmp_path):
    with matplotlib.rc_context(
        {"lines.linewidth": 9, "xtick.direction": "in", "axes.titleweight": "bold", "svg.fonttype": "path"}
    ):
        assert write_html(report, tmp_path / "new").read_text("utf-8") == page
        assert matplotlib.rcParams["lines.linewidth"] == 9


def test_plots_are_drawn_with_named_colours_and_text_that_is_text(page):
    svg = re.search(r'<svg viewBox="0 0 400 .*?</svg>', page, flags=re.S).group()
    assert "regret &lt;nats&gt;" in svg
    # Each light colour is used once, or a name could not be put in its place.
    assert len({light for light, _ in PALETTE.values()}) == len(PALETTE)
    assert not re.findall(r"#[0-9a-f]{6}", svg)
    assert set(re.findall(r"var\(--(\w+)\)", svg)) <= set(PALETTE)


def contrast(a, b):
    def luminance(colour):
        c = np.array(matplotlib.colors.to_rgb(colour))
        return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_the_paper(mode):
    paper = PALETTE["paper"][mode]
    for name in ("ink", "muted", "good", "bad", "doubt"):
        assert contrast(PALETTE[name][mode], paper) >= 4.5, name
    for name in ("blue", "vermillion", "green", "purple", "ochre"):
        assert contrast(PALETTE[name][mode], paper) >= 3, name


def test_lines_of_a_kind_differ_in_more_than_their_colour():
    styles = line_styles([Series(str(i), [1.0], [1.0]) for i in range(20)])
    assert len(set(styles)) == 20
    kinds = line_styles([Series("a", [], []), Series("b", [], [], kind="bound"), Series("c", [], [], kind="reference")])
    assert [bool(s.dashes) for s in kinds] == [False, True, True]
    assert kinds[1].dashes != kinds[2].dashes
    assert kinds[2].width < kinds[0].width


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("log", [False, True], ids=["linear", "log"])
@pytest.mark.parametrize("series", [(), *((s,) for s in ODD), tuple(ODD)], ids=lambda s: s[0].name if s else "none")
def test_any_numbers_can_be_drawn(series, log):
    figure = Curves("odd \x08 words", "x", "y \x08", series, log=log)
    svg = inline_svg(figure, "f")
    ElementTree.fromstring(svg)
    assert "nan" not in re.sub(r"<text.*?</text>|aria-label=\"[^\"]*\"", "", svg).lower()
    assert undrawn(figure) == sum(
        not all(1e-300 < v < 1e300 if log else abs(v) < 1e300 for v in point)
        for s in series
        for point in zip(s.x, s.y, strict=True)
    )


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("values", [[], [0.0], [NAN, INF, -INF], [-1.0, 2.0], [1e308, 1.0], [1e-12]])
def test_any_bars_can_be_drawn(values):
    ElementTree.fromstring(inline_svg(Bars("b", "x", [f"policy {i}" for i in range(len(values))], values), "f"))


def test_ticks_are_short():
    ticks = [tick(v) for v in (0.0, 0.25, -3.0, 2000.0, 1e-6, 3e8, -1e9, -2.5e-7)]
    assert ticks == ["0", "0.25", "\u22123", "2000", "10⁻⁶", "3\u00d710⁸", "\u221210⁹", "\u22122.5\u00d710⁻⁷"]


@pytest.mark.parametrize("figure", [CURVES, BARS], ids=["curves", "bars"])
def test_a_plot_of_its_own(figure, tmp_path):
    for name in ("a.svg", "b.svg", "a.PNG", "b.PNG"):
        write_plot(figure, tmp_path / name)
    text = (tmp_path / "a.svg").read_text("utf-8")
    assert text == (tmp_path / "b.svg").read_text("utf-8")
    assert "var(" not in text
    drawn = " ".join(t.text for t in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text"))
    assert figure.title in drawn
    assert all(s.name in drawn for s in getattr(figure, "series", ()))
    assert (tmp_path / "a.PNG").read_bytes() == (tmp_path / "b.PNG").read_bytes()
    pixels = matplotlib.image.imread(tmp_path / "a.PNG", format="png")
    assert pixels[0, 0, :3] == pytest.approx(1, abs=0.01)
    assert pixels.std() > 0.02
    with pytest.raises(BayesparError, match=r"\.svg or \.png"):
        write_plot(figure, tmp_path / "a.pdf")


def test_nothing_of_the_report_uses_pyplot():
    for path in Path(plots.__file__).parent.glob("*.py"):
        if path.name == "style.py":  # of notebooks, which show figures by it
            continue
        names = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, (ast.Import, ast.ImportFrom))]
        assert not [n for n in names if "pyplot" in ast.dump(n)], path


def test_the_data_round_trip(report, tmp_path):
    data = json.loads(write_report(report, tmp_path).read_text("utf-8"), parse_constant=pytest.fail)
    assert data == report_data(report)
    assert data["schema"] == 2
    assert [c["assumptions"] for c in data["claims"]] == [list(CLAIMS[i].assumptions) for i in ("C1", "C2", "C3")]
    assert [f["world"] for f in data["findings"]] == [f.world for f in report.findings]
    curves, bars, policy = data["findings"][1]["figures"]
    assert [f["kind"] for f in (curves, bars, policy)] == ["curves", "bars", "policy"]
    assert curves["log"] is True
    assert curves["series"][0] == {
        "name": "_BAIL costs $5 and $6",
        "kind": "measured",
        "x": EPISODES,
        "y": [0.5, 1.5, 2.5],
        "low": [0.0, 1.0, 2.0],
        "high": [1.0, 2.0, "inf"],
    }
    assert curves["series"][2]["low"] is None
    assert bars["values"] == [0.25, "nan", 1.0]
    assert policy["branches"][0]["children"][1] == {
        "words": EVIL,
        "kind": "subgoal",
        "probability": 0.25,
        "children": [],
    }
    assert data["findings"][0]["figures"] == []


# --- in a browser -----------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
HARNESS = """<!DOCTYPE html><body><script>
const out = {}, names = ["index.html", "wide.html"];
Promise.all(names.map(name => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.style = "width: 360px; height: 700px; border: 0";
  frame.onload = () => {
    const page = frame.contentDocument;
    out[name] = [frame.contentWindow.innerWidth, page.documentElement.scrollWidth,
                 page.querySelectorAll("svg").length, page.querySelectorAll("script").length];
    done();
  };
  frame.src = name;
  document.body.append(frame);
}))).then(() => { document.body.innerHTML = "<pre>" + JSON.stringify(out) + "</pre>"; console.warn("harness done"); });
</script>"""


def chromium(folder, *arguments):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'profile'}",
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)


@needs_chromium
def test_the_page_fits_a_phone_and_is_silent(page, tmp_path):
    (tmp_path / "index.html").write_text(page, "utf-8")
    wide = page.replace("<footer>", '<footer><p style="white-space: nowrap">' + "far too wide " * 20 + "</p>")
    (tmp_path / "wide.html").write_text(wide, "utf-8")
    (tmp_path / "harness.html").write_text(HARNESS, "utf-8")
    run = chromium(
        tmp_path,
        "--allow-file-access-from-files",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        "--dump-dom",
        (tmp_path / "harness.html").as_uri(),
    )
    measured = json.loads(re.search(r"<pre>(.*)</pre>", run.stdout).group(1))
    width, content, plots_seen, scripts = measured["index.html"]
    assert (width, content) == (360, 360)
    assert plots_seen >= 3
    assert scripts == 0
    assert measured["wide.html"][1] > 360
    console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
    assert len(console) == 1, console
    assert "harness done" in console[0]


@needs_chromium
def test_the_page_is_light_or_dark_as_the_reader_asks(page, tmp_path):
    path = tmp_path / "index.html"
    path.write_text(page, "utf-8")
    grounds = []
    for scheme in (1, 0):  # Blink's numbers for light and dark
        shot = tmp_path / f"{scheme}.png"
        chromium(
            tmp_path,
            f"--blink-settings=preferredColorScheme={scheme}",
            "--window-size=800,600",
            f"--screenshot={shot}",
            path.as_uri(),
        )
        pixels = matplotlib.image.imread(shot)[..., :3]
        grounds.append(pixels[2, 2])
        assert np.abs(pixels - pixels[2, 2]).max() > 0.5
    for ground, colour in zip(grounds, PALETTE["paper"], strict=True):
        np.testing.assert_allclose(ground, matplotlib.colors.to_rgb(colour), atol=0.01)
