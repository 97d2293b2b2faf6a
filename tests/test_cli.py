"""The command line, run in process."""

import json

import pytest

import bayespar as bp
from bayespar.cli import main

WORLD = """
import numpyro, numpyro.distributions as dist
import bayespar as bp

def coin():
    z = numpyro.sample("bias", dist.Bernoulli(0.25))
    return bp.World([1.0, 0.0], [[[1 - 0.5 * z, 0.5 * z], [0, 1]], [[1, 0], [0, 1]]], [[0.9, 0.1], [0.2, 0.8]],
                    [[0, 1], [0.5, 1]], horizon=2, observations=["tails", "heads"])
"""


@pytest.fixture
def world(tmp_path):
    path = tmp_path / "coin.py"
    path.write_text(WORLD)
    return str(path)


def test_verify_prints_a_table_and_writes_the_report(world, tmp_path, capsys):
    status = main(["verify", world, "lock", "--claims", "C1", "C3", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert status == 0
    assert "supported" in printed
    assert "coin" in printed
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["passed"] is True
    assert "in-context learning" in (tmp_path / "out" / "index.html").read_text()
    assert {(f["claim"], f["world"]) for f in report["findings"]} == {
        (c, w) for c in ("C1", "C3") for w in ("coin", "lock")
    }


def test_verify_json_goes_to_standard_output(world, capsys):
    assert main(["verify", world, "--claims", "C3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["schema"] == 2
    assert report["versions"]["jax"]
    assert report["findings"][0]["verdict"] == "supported"


def test_a_world_that_meets_no_assumption_says_why(tmp_path, capsys):
    path = tmp_path / "dull.py"
    path.write_text(WORLD.replace("def coin", "def dull").replace("horizon=2", "horizon=1").replace(", [0.5, 1]]", "]"))
    assert main(["verify", str(path), "--claims", "C1"]) == 0
    assert "H = 1" in capsys.readouterr().out


def test_worlds_of_one_file_name_are_kept_apart(world, tmp_path, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "coin.py").write_text(WORLD.replace("0.25", "0.5"))
    assert main(["verify", world, str(other / "coin.py"), "--claims", "C1", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["findings"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "nowhere"], "there is no world 'nowhere'"),
        (["verify", "nowhere.py"], "there is no file nowhere.py"),
        (["verify", "lock", "--claims", "X"], "there is no claim 'X'"),
        (["posterior", "lock", "--prompt", "nowhere.json"], "cannot read"),
        (["regret", "lock", "--explore", "often"], "give a probability, or one of constant"),
        (["regret", "lock", "--explore", "1.5"], "outside [0, 1]"),
        (["regret", "lock", "--episodes", "0"], "at least 1"),
        (["regret", "lock", "--task", "open"], "open"),
        (["explore", "lock", "--episodes", "0"], "at least 1"),
    ],
)
def test_unusable_input_is_status_2_and_a_line(arguments, message, capsys):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_posterior_reads_text_and_json_alike(world, tmp_path, capsys):
    family = bp.enumerate_program(bp.load_model(world))
    prompt = bp.Prompt([[0, 1]], [[0]], current_observations=[0])
    results = []
    for name, text in (("p.txt", prompt.to_text(family)), ("p.json", prompt.to_json(family))):
        (tmp_path / name).write_text(text)
        assert main(["posterior", world, "--prompt", str(tmp_path / name), "--json"]) == 0
        results.append(json.loads(capsys.readouterr().out))
    for result in results:
        assert set(result.pop("compilations")) == {"programs", "from_cache"}
    assert results[0] == results[1]
    # By hand: L_0 = .9 * .1, L_1 = .9 * (.5 * .1 + .5 * .8), prior 3 : 1; the current observation says nothing.
    odds = 3 * 0.1 / 0.45
    assert results[0]["sites"]["bias"]["0"] == pytest.approx(odds / (1 + odds), abs=1e-12)
    assert sum(results[0]["bail"].values()) == pytest.approx(1)


def test_posterior_prints_bars(world, tmp_path, capsys):
    path = tmp_path / "p.json"
    path.write_text('{"current": {"observations": ["heads"]}}')
    assert main(["posterior", world, "--prompt", str(path)]) == 0
    assert "bias=0" in capsys.readouterr().out


def test_impossible_evidence_is_status_2(tmp_path, capsys):
    path = tmp_path / "p.json"
    path.write_text('{"current": {"observations": ["1"]}}'.replace('"1"', "1"))
    assert main(["posterior", "needle", "--prompt", str(path)]) == 2
    assert "episode 0" in capsys.readouterr().err


def test_models_lists_every_world(capsys):
    assert main(["models", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == bp.available_models()


def test_explore_names_the_hardest_pair_and_ranks_the_rules(world, capsys):
    assert main(["explore", "lock", "--episodes", "50"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "the code is left, right, left / the code is right, left, right" in printed
    assert "→ turn left" in printed
    assert "explore-first" in printed
    assert main(["explore", world, "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["eta"] == data["eta_classes"] > 0
    guarantees = [r["guaranteed"] for r in data["recommended"]]
    assert guarantees == sorted(guarantees)
    assert {r["rule"] for r in data["recommended"]} >= {
        "constant",
        "anytime",
        "explore-first",
        "gated",
        "gated-anytime",
    }


def test_explore_names_tasks_that_nothing_tells_apart(capsys):
    assert main(["explore", "aliased"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert (
        "eta* = 0: a steady lamp, a careless reporter and a flickering lamp, an exact reporter are one class" in printed
    )
    assert "do not explore" in printed
    assert main(["explore", "aliased", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["eta"] == 0
    assert len(data["merged"][0]) == 2


def test_explore_estimates_where_it_cannot_enumerate(monkeypatch, capsys):
    def refuse(*_, **__):
        raise bp.TooLargeError("too many histories", 10)

    monkeypatch.setattr("bayespar.cli.explore.design_exploration", refuse)
    assert main(["explore", "lock", "--json"]) == 0
    uniform = json.loads(capsys.readouterr().out)["uniform_eta"]
    assert uniform["low"] <= 2 / 27 <= uniform["high"]
    assert main(["explore", "lock"]) == 0
    assert "By simulation" in capsys.readouterr().out


@pytest.mark.parametrize("planner", ["bail", "thompson"])
def test_regret_of_every_task(planner, capsys):
    arguments = ["regret", "lock", "--planner", planner, "--explore", "explore-first", "--policy", "best"]
    assert main([*arguments, "--episodes", "30", "--seeds", "32", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [t["task"] for t in data["tasks"]] == list(bp.enumerate_program(bp.load_model("lock")).tasks)
    for task in data["tasks"]:
        assert task["regret"] == pytest.approx(task["cumulative"][-1], abs=1e-9)
        assert task["explored"] == 1
        assert (task["bound"] is None) == (planner != "bail")
        if planner == "bail":
            assert task["regret"] <= task["bound"] + 1e-9
    assert data["at"] == list(range(1, 31))


def test_regret_writes_curves_and_plots(world, tmp_path, capsys):
    arguments = ["regret", world, "--explore", "gated", "--episodes", "20", "--seeds", "16", "--key", "3"]
    assert main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert "explored" in capsys.readouterr().out
    assert (tmp_path / "out" / "regret.png").stat().st_size > 1000
    assert "<svg" in (tmp_path / "out" / "regret.svg").read_text()
    first = (tmp_path / "out" / "regret.json").read_bytes()
    assert main([*arguments, "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "regret.json").read_bytes() == first
