"""The structure of the repository: layers, packaging, the README's tour."""

import ast
import itertools
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A module imports only from the layers before its own, or from its own package.
LAYERS = [
    {"errors", "arrays", "literal"},
    {"enumeration"},
    {"validation"},
    {"compilations", "distributed", "keys", "sparse", "factored", "team"},
    {"subprogram"},
    {"low_level"},
    {"world"},
    {"statistics", "program", "history", "kernels"},
    {"forward"},
    {"evidence"},
    {"filtering"},
    {"posterior"},
    {"planning"},
    {"simulate"},
    {"learned", "actors"},
    {"theory"},
    {"testing"},
    {"report"},
    {"plots"},
    {"cli"},
]
MODULES = sorted((ROOT / "bayespar").rglob("*.py"))


def layer_of(name: str) -> int:
    return next(i for i, layer in enumerate(LAYERS) if name in layer)


def imported(path: Path) -> set[str]:
    """Top-level parts of bayespar that a module imports when it is loaded."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            target = (*base, *(node.module or "").split(".")) if node.module else base
            names = [target[1]] if len(target) > 1 else [alias.name for alias in node.names]
            found.update(names)
        assert not (isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bayespar")), path
    return found


@pytest.mark.parametrize("path", [p for p in MODULES if p.name != "__init__.py"], ids=lambda p: p.stem)
def test_modules_import_only_from_layers_above(path):
    part = path.relative_to(ROOT / "bayespar").with_suffix("").parts[0]
    own = layer_of(part)
    for name in imported(path) - {part}:
        assert layer_of(name) < own, f"{path} imports {name}"


def test_wheel_holds_every_module_of_the_tree(tmp_path):
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # what an older build left there would be packed too
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        ROOT,
    ]
    subprocess.run([str(c) for c in command], check=True, capture_output=True, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    data = {"bayespar/py.typed", "bayespar/report/audit.html", "bayespar/report/page.css", "bayespar/report/page.html"}
    tree = {str(p.relative_to(ROOT)) for p in MODULES} | data
    tree |= {f"bayespar/{p.relative_to(ROOT)}" for p in (ROOT / "models").glob("*.py")}
    assert names == tree


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (ROOT / "docs" / "architecture.md").read_text().split("## Dependencies")[1]
    extras = project["optional-dependencies"]
    for requirement in itertools.chain(project["dependencies"], *extras.values()):
        name = re.match(r"[\w-]+", requirement).group().removeprefix("pytest-")
        assert name in page or name == "bayespar", f"docs/architecture.md does not say why {name} is there"


def test_locks_have_hashes_and_no_url():
    for lock in (ROOT / "lock").glob("*.txt"):
        text = lock.read_text()
        assert "://" not in text
        pins = re.findall(r"^[\w.-]+(?:\[[\w,]+\])?==\S+(?: ;[^\\]*)? \\$", text, flags=re.M)
        assert len(pins) == len(re.findall(r"^\S", text, flags=re.M)) > 20


def test_the_readme_tour_prints_what_it_says(tmp_path):
    text = (ROOT / "README.md").read_text()
    tour, output = re.search(r"## A tour.*?```python\n(.*?)```.*?```\n(.*?)```", text, flags=re.S).groups()
    run = subprocess.run([sys.executable, "-c", tour], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert run.stdout == output


def test_the_readme_world_works_by_its_path(tmp_path):
    text = (ROOT / "README.md").read_text()
    world = re.search(r"## A world of your own.*?```python\n(.*?)```", text, flags=re.S).group(1)
    (tmp_path / "levers.py").write_text(world)
    from bayespar.cli import main

    assert main(["verify", str(tmp_path / "levers.py"), "--claims", "C1", "C2", "C3"]) == 0
