"""``bayespar posterior`` by every method, run in process."""

import json
import sys

import numpy as np
import pytest
import xarray as xr

import bayespar as bp
from bayespar.cli import main

# Whether a bell is broken is a finite site, how often it rings has a density; both have simple closed forms.
WORLD = """
import jax.numpy as jnp, numpyro, numpyro.distributions as dist
import bayespar as bp

def bell():
    broken = int(numpyro.sample("broken", dist.Bernoulli(0.25)))
    rings = numpyro.sample("rings", dist.Uniform(0, 1))
    heard = rings * (1 - broken)
    emission = jnp.stack([jnp.array([1.0, 0.0]), jnp.stack([1 - heard, heard])])
    return bp.World([1.0, 0.0], [[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]]], emission, [[0, 0], [0, 1]],
                    horizon=2, observations=["nothing", "a bell"], subgoals=["press", "wait"])
"""
SILENT = 4
SMALL = ["--chains", "2", "--draws", "60"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "bell.py"
    path.write_text(WORLD)
    return bp.load_model(path)


@pytest.fixture
def bell(tmp_path, program, monkeypatch):
    # Loaded once, so that it is compiled once.
    load = lambda name: program if name == "bell" else bp.load_model(name)  # noqa: E731
    monkeypatch.setattr(sys.modules["bayespar.cli.posterior"], "load_model", load)
    episode = {"observations": ["nothing", "nothing"], "subgoals": ["press"]}
    prompt = {"episodes": [episode] * SILENT, "current": {"observations": ["nothing"]}}
    (tmp_path / "silent.json").write_text(json.dumps(prompt))
    return ["bell", "--prompt", str(tmp_path / "silent.json")]


def test_quadrature_gives_the_closed_form(bell, capsys):
    assert main(["posterior", *bell, "--method", "exact", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    # A sound bell is silent n times with probability E(1-r)^n = 1/(n+1), and r is then Beta(1, n+1).
    sound = 0.75 / (SILENT + 1)
    assert data["sites"]["broken"]["1"] == pytest.approx(0.25 / (0.25 + sound), abs=1e-6)
    assert data["log_evidence"] == pytest.approx(np.log(0.25 + sound), abs=1e-6)
    mean = (0.25 * 0.5 + sound / (SILENT + 2)) / (0.25 + sound)
    assert data["coordinates"]["rings"]["mean"] == pytest.approx(mean, abs=1e-6)
    assert data["problems"] == []
    # Pressing is as good as waiting if the bell is broken, and ties fall on the first subgoal.
    assert data["bail"] == pytest.approx({"press": 1.0, "wait": 0.0})


def test_short_chains_fail_and_say_why(bell, capsys):
    arguments = ["posterior", *bell, "--method", "nuts", *SMALL, "--warmup", "60", "--key", "3"]
    assert main(arguments) == 1
    said = capsys.readouterr().out
    assert "PROBLEM" in said
    assert "ESS" in said
    assert "rings" in said
    assert "BAIL's next subgoal" in said
    assert main([*arguments, "--allow-problems", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["problems"]
    assert set(data["coordinates"]["rings"]) == {"mean", "sd", "mcse", "r_hat", "ess_bulk", "ess_tail"}
    assert sum(data["sites"]["broken"].values()) == pytest.approx(1)


def test_the_file_holds_the_tree(bell, tmp_path, capsys):
    for name, options in (("out.nc", {"engine": "h5netcdf"}), ("out.zarr", {"engine": "zarr", "consolidated": False})):
        out = tmp_path / name
        assert main(["posterior", *bell, "--method", "exact", "--out", str(out), "--key", "5"]) == 0
        with xr.open_datatree(out, **options) as tree:
            assert tree.attrs["method"] == "exact"
            assert tree.attrs["datatree_key"] == "0 5"
            assert "resampled" in tree.attrs["sampling"]
            broken = float(tree["posterior/broken"].mean())
    assert "wrote" in capsys.readouterr().err
    # Systematic resampling puts the share of broken bells within a binomial's 5 standard deviations of 2000 draws.
    expected = 0.25 / (0.25 + 0.75 / (SILENT + 1))
    assert abs(broken - expected) < 5 * np.sqrt(expected * (1 - expected) / 2000)


def test_a_world_file_is_read_by_its_path(tmp_path, capsys):
    (tmp_path / "bell.py").write_text(WORLD)
    assert main(["posterior", str(tmp_path / "bell.py"), "--prompt", str(tmp_path / "none.json")]) == 2
    assert "cannot read" in capsys.readouterr().err


def test_finite_tasks_need_no_method(tmp_path, capsys):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"current": {"observations": [0]}}))
    assert main(["posterior", "needle", "--prompt", str(path), "--json"]) == 0
    named = json.loads(capsys.readouterr().out)
    assert main(["posterior", "needle", "--prompt", str(path), "--method", "exact", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == named
    assert sum(named["tasks"].values()) == pytest.approx(1)
    assert "problems" not in named


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "exact", "--chains", "3"], "no such setting"),
        (["--method", "nuts", "--draws", "0"], "draws"),
        (["--method", "exact", "--out", "result.csv"], ".nc (NetCDF) or .zarr"),
        (["--method", "exact", "--out", "nowhere/result.nc"], "there is no folder nowhere"),
    ],
)
def test_unusable_input_is_status_2(bell, arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main(["posterior", *bell, *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_method_for_densities_is_refused_where_tasks_are_finite(tmp_path, capsys):
    path = tmp_path / "p.json"
    path.write_text('{"current": {}}')
    assert main(["posterior", "needle", "--prompt", str(path), "--method", "nuts"]) == 2
    assert "finite" in capsys.readouterr().err
