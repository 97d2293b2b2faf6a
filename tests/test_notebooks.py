"""Every notebook runs from top to bottom, and is committed with what it printed and drew."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 2**20  # bytes
# The fast mode: notebooks compile much and compute little.
FAST = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "MPLBACKEND": "agg", "PYTHONWARNINGS": "ignore"}


LONG = ("exploration", "pretraining", "tour", "your_own_inference")  # CPU seconds: 40 to 60


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if p.stem in LONG else []) for p in NOTEBOOKS],
)
def test_it_runs(path, tmp_path):
    cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    script = tmp_path / f"{path.stem}.py"
    script.write_text("\n".join("".join(c["source"]) for c in cells), "utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**os.environ, **FAST},
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_committed_with_its_outputs(path):
    assert path.stat().st_size < LARGEST
    cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    assert [c["execution_count"] for c in cells] == list(range(1, len(cells) + 1))
    kinds = {o["output_type"] for c in cells for o in c["outputs"]}
    assert "error" not in kinds
    assert any("image/png" in o.get("data", {}) for c in cells for o in c["outputs"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_thin(path):
    """Notebooks load, plot and explain: what is worth a class belongs in the package."""
    cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    nodes = [node for c in cells for node in ast.walk(ast.parse("".join(c["source"])))]
    assert not any(isinstance(node, ast.ClassDef) for node in nodes)
    assert sum(len(c["source"]) for c in cells) < 160  # lines


def test_the_notebooks_that_are_promised_exist():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert {p.stem for p in NOTEBOOKS} >= {"tour", "mcmc", "exploration", "your_own_world", "your_own_inference"}
    named = set(re.findall(r"notebooks/(\w+)\.ipynb", readme))
    assert named <= {p.stem for p in NOTEBOOKS}, "the README names a notebook that is not there"
