"""docs/real-bugs.md shows what tests/peers/real_bugs.py computes, and what that expects is right by hand."""

import re
from fractions import Fraction
from pathlib import Path

import real_bugs

PAGE = Path(__file__).parents[2] / "docs" / "real-bugs.md"


def test_the_page_shows_what_the_script_prints():
    text = PAGE.read_text()
    assert re.search(r"^Versions: dynamax [\d.]+, ", text, flags=re.M)
    kept = re.search(r"^Versions: .*$", text, flags=re.M).group()
    tables = real_bugs.sections()
    assert list(tables) == re.findall(r"^## (.*)$", text, flags=re.M)
    assert re.sub(r"^Versions: .*$", kept, real_bugs.page(text, tables), flags=re.M) == text


def test_every_row_is_explained():
    text = PAGE.read_text()
    for label in re.findall(r"^\| ([DPNB]\d+) \|", text, flags=re.M):
        assert re.search(rf"\*\*(?:[^*]*\W)?{label}(?:\W[^*]*)?\*\*", text), f"{label} is not explained"


def test_expected_values_by_hand():
    exact = real_bugs.exact
    assert exact(real_bugs.IMPOSSIBLE) == (0, None)
    assert exact(real_bugs.KNOWN) == (Fraction(1, 2), [[0, 1], [0, 1]])
    # Only state 1 says 1, and then it said 0 before: 1/2 times 1/2 times 1/2.
    assert exact(real_bugs.QUIET) == (Fraction(1, 8), [[0, 1], [0, 1]])
    assert exact(real_bugs.BALANCED).probability == Fraction(9, 100) ** 20
    assert exact(real_bugs.BALANCED).states[-1] == real_bugs.HALF
    # Weights of "stay in 0", "stay in 1" and "1, then 2", up to a factor: 1, 1 - 5e-9, and 5e-9 / 1e-10 = 50.
    stays = 1 - real_bugs.TINY
    assert exact(real_bugs.RARE_STEP).states[0] == [1 / (51 + stays), (50 + stays) / (51 + stays), 0]


def test_two_ways_to_sum_agree():
    for world in (real_bugs.QUIET, real_bugs.RARE_STEP, real_bugs.RARE_SURE, real_bugs.IMPOSSIBLE, real_bugs.KNOWN):
        assert real_bugs.exact(world) == real_bugs.by_paths(world)
