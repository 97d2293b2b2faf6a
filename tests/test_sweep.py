"""Sweeps: what a cell is, and that no kill loses one, doubles one, or changes a byte."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import bayespar as bp
from bayespar.errors import InvalidFolderError, InvalidPlannerError, InvalidWorldError
from bayespar.simulate import sweep as module
from bayespar.simulate.claims import claims
from bayespar.simulate.sweep import sweep

AXES = {"explorations": (0.1, "gated"), "episodes": (8,), "keys": (0, 3), "seeds": 16}
CELLS = 8  # two tasks


@pytest.fixture(scope="module")
def doors() -> bp.Family:
    return bp.enumerate_program(bp.load_model("two_doors"))


@pytest.fixture(scope="module")
def whole(doors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    return folder, sweep({"doors": doors}, folder, **AXES)


@pytest.fixture
def computed(monkeypatch):
    """The cells that this process computes, in order."""
    numbers, run = [], module._run_cell

    def count(work, number, *rest):
        numbers.append(number)
        run(work, number, *rest)

    monkeypatch.setattr(module, "_run_cell", count)
    return numbers


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_cell_is_what_simulate_regret_finds(whole, doors):
    folder, summary = whole
    cells = [f"cells/0000{k}.json" for k in range(CELLS)]
    assert sorted(contents(folder)) == [*cells, "claims", "manifest.json", "summary.json"]
    runs = {}
    for file in sorted(folder.glob("cells/*.json")):
        found = json.loads(file.read_text())
        told = found.pop("sha256")
        assert told == hashlib.sha256(json.dumps(found, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
        cell, result = found["cell"], found["result"]
        assert cell["planner"] == "bail"
        z = doors.task_index(cell["task"])
        curves = bp.simulate_regret(doors, z, "bail", cell["exploration"], 8, 16, key=cell["key"] + z)
        assert result["runs"] == curves.regret.sum(axis=1).tolist()
        assert result["cumulative"] == curves.cumulative.mean(axis=0).tolist()
        assert result["explored"] == curves.explored.sum(axis=1).mean()
        assert result["true_task"] == curves.true_task[:, -1].mean()
        assert result["low"] <= result["regret"] <= result["high"]
        assert result["regret"] == pytest.approx(np.mean(result["runs"]))
        runs.setdefault(cell["exploration"], {}).setdefault(z, []).extend(result["runs"])
    assert len({tuple(map(tuple, by_task.values())) for by_task in runs.values()}) == 2
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert summary["cells"] == CELLS
    prior = np.asarray(doors.task_prior)
    for row in summary["rows"]:
        means = np.array([np.mean(runs[row["exploration"]][z]) for z in range(2)])
        variances = np.array([np.var(runs[row["exploration"]][z]) for z in range(2)])
        assert row["regret"] == pytest.approx(prior @ means)
        assert row["error"] == pytest.approx(np.sqrt(prior**2 @ variances / 32))
        assert (row["worst"], row["runs"]) == (pytest.approx(means.max()), 64)
        assert row["worst_task"] == doors.tasks[means.argmax()]


def test_a_sweep_that_stops_anywhere_goes_on_to_the_same_bytes(whole, doors, computed, tmp_path):
    class StopError(Exception):
        pass

    def stop(there, total):
        assert total == CELLS
        if there == 3:
            raise StopError

    with pytest.raises(StopError):
        sweep({"doors": doors}, tmp_path, **AXES, progress=stop)
    assert computed == [0, 1, 2]
    # What a killed process may leave, and what a disk may do: half a file; a file that is not what was written.
    (tmp_path / "cells" / "00005.json.partial").write_text('{"cell"')
    harmed = tmp_path / "cells" / "00001.json"
    harmed.write_text(harmed.read_text().replace('"key": 0', '"key": 1'))
    sweep({"doors": doors}, tmp_path, **AXES)
    assert computed == [0, 1, 2, 1, 3, 4, 5, 6, 7]
    assert contents(tmp_path) == contents(whole[0])
    sweep({"doors": doors}, tmp_path, **AXES)
    assert len(computed) == 9


HOLDER = """
import fcntl, os, sys, time
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(handle, fcntl.LOCK_EX, 1, 1 + int(sys.argv[2]))
print("held", flush=True)
time.sleep(600)
"""


def test_a_cell_that_another_process_is_at_is_left_to_it_until_it_dies(whole, doors, computed, tmp_path):
    module.make_folder(tmp_path, "cells", "a sweep")
    holders = [
        subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "claims"), str(k)], stdout=subprocess.PIPE)
        for k in (1, 4)
    ]
    try:
        assert [holder.stdout.readline() for holder in holders] == [b"held\n"] * 2
        (tmp_path / "cells" / "00004.json").write_bytes((whole[0] / "cells" / "00004.json").read_bytes()[:-9])
        running = threading.Thread(target=sweep, args=({"doors": doors}, tmp_path), kwargs=AXES)
        running.start()
        deadline = time.monotonic() + 120
        while len(computed) < CELLS - 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert computed == [0, 2, 3, 5, 6, 7]
        assert running.is_alive()
        # One finishes its cell, and one is killed at it.
        (tmp_path / "cells" / "00004.json").write_bytes((whole[0] / "cells" / "00004.json").read_bytes())
        for holder in holders:
            holder.send_signal(signal.SIGKILL)
        running.join(120)
        assert not running.is_alive()
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()
    assert computed == [0, 2, 3, 5, 6, 7, 1]
    assert contents(tmp_path) == contents(whole[0])


def test_claims_keep_other_processes_apart_and_this_one_not(tmp_path):
    """The false twin: within a process a lock says nothing, so cells are the work of whole processes."""
    with claims(tmp_path / "claims") as claim, claim(3, False) as mine, claim(3, False) as again:
        assert mine
        assert again
    with pytest.raises(InvalidFolderError, match="cannot be written"), claims(tmp_path / "none" / "claims"):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keys": (0, 4)}, r"keys = \[0, 3\], and \[0, 4\]"),
        ({"seeds": 32}, "seeds = 16, and 32"),
        ({"explorations": (0.1,)}, "explorations"),
        ({"exploration_policy": "best"}, "exploration_policy"),
    ],
)
def test_a_folder_of_another_sweep_is_refused(whole, doors, changes, message):
    before = contents(whole[0])
    with pytest.raises(InvalidFolderError, match=message):
        sweep({"doors": doors}, whole[0], **{**AXES, **changes})
    assert contents(whole[0]) == before


def test_a_folder_is_gone_on_with_by_the_same_worlds_and_versions_only(whole, doors, tmp_path):
    with pytest.raises(InvalidFolderError, match="fingerprint"):
        sweep({"doors": doors.astype(np.float32)}, whole[0], **AXES)
    manifest = json.loads((whole[0] / "manifest.json").read_text())
    old = {**manifest["versions"], "jax": "0"}
    for changed, message in (({"versions": old}, "jax = '0'"), ({"backend": "tpu"}, "tpu")):
        (tmp_path / "manifest.json").write_text(json.dumps({**manifest, **changed}))
        with pytest.raises(InvalidFolderError, match=message):
            sweep({"doors": doors}, tmp_path, **AXES)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"worlds": []}, InvalidPlannerError, r"worlds = \[\]"),
        ({"worlds": ["nowhere"]}, bp.BayesparError, "nowhere"),
        ({"worlds": [bp.load_model("two_doors")]}, InvalidWorldError, "without a name"),
        ({"planners": ["nobody"]}, InvalidPlannerError, "there is no 'nobody'"),
        ({"planners": "bail"}, InvalidPlannerError, "planners = 'bail'; give a list"),
        ({"explorations": ["often"]}, InvalidPlannerError, "often"),
        ({"explorations": [1.5]}, InvalidPlannerError, r"outside \[0, 1\]"),
        ({"explorations": [[0.1, 0.2]]}, InvalidPlannerError, "shape"),
        ({"episodes": [0]}, InvalidPlannerError, "episodes = 0"),
        ({"keys": [0, 0]}, InvalidPlannerError, r"keys\[1\] = 0 is there already"),
        ({"keys": ["a"]}, InvalidPlannerError, "key = 'a'"),
        ({"workers": 0}, InvalidPlannerError, "workers = 0"),
        ({"worlds": {"doors": bp.load_model("two_doors")}, "workers": 2}, InvalidWorldError, "workers = 2"),
    ],
)
def test_what_is_refused_says_why_before_there_is_a_folder(arguments, error, message, tmp_path):
    with pytest.raises(error, match=message):
        sweep(**{"worlds": ["two_doors"], "folder": tmp_path / "out", **arguments})
    assert not (tmp_path / "out").exists()


def test_a_combination_that_cannot_be_run_says_why_and_the_others_are(doors, tmp_path, monkeypatch):
    run = module.simulate_regret

    def refuse(family, task, planner, *rest, **more):
        if planner == "bawm":
            raise bp.TooLargeError("the histories do not fit", 10)
        return run(family, task, planner, *rest, **more)

    monkeypatch.setattr(module, "simulate_regret", refuse)
    summary = sweep({"doors": doors}, tmp_path, planners=("bawm", "bail"), episodes=(4,), seeds=16)
    refused, simulated = summary["rows"]
    assert refused["refused"] == "TooLargeError: the histories do not fit"
    assert simulated["regret"] > 0


def test_the_command_line_reads_a_file(whole, tmp_path, capsys):
    from bayespar.cli import main

    spec, out = tmp_path / "sweep.toml", tmp_path / "out"
    spec.write_text('worlds = ["two_doors"]\nexplorations = [0.1]\nepisodes = [8]\nseeds = 16\n')
    assert main(["sweep", str(spec), "--out", str(out), "--key", "3", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    mine = [json.loads((out / "cells" / f"0000{k}.json").read_text())["result"] for k in range(2)]
    theirs = [json.loads((whole[0] / "cells" / f"0000{k}.json").read_text())["result"] for k in (2, 3)]
    assert mine == theirs  # --key is the key where the file has none
    assert main(["sweep", str(spec), "--out", str(out), "--key", "3"]) == 0
    captured = capsys.readouterr()
    assert f"{row['regret']:.4g}" in captured.out
    assert "2 cells" in captured.err
    for text, message in (
        ('planners = ["bail"]', "give worlds"),
        ('worlds = ["two_doors"]\nplanets = 9', "no setting 'planets'"),
        ("worlds = [", "cannot read"),
    ):
        spec.write_text(text)
        assert main(["sweep", str(spec), "--out", str(out)]) == 2
        assert message in capsys.readouterr().err


WORKER = """
import os, sys
from bayespar.simulate import sweep as module
log, run = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT), module._run_cell

def logged(work, number, *rest):
    os.write(log, b"%d\\n" % number)
    run(work, number, *rest)

module._run_cell = logged
if __name__ == "__main__":
    settings = {"explorations": (0.1, "gated"), "episodes": (8,), "keys": tuple(range(12)), "seeds": 16}
    module.sweep(["two_doors"], sys.argv[1], **settings, workers=int(sys.argv[3]))
"""


@pytest.mark.slow
def test_killed_workers_lose_and_double_nothing(tmp_path):
    """Two processes share a folder, as two hosts may; the first is killed at a cell, then the other at another."""
    (tmp_path / "worker.py").write_text(WORKER)

    def start(folder: str, workers: int = 1) -> subprocess.Popen:
        run = [sys.executable, str(tmp_path / "worker.py"), str(tmp_path / folder), str(tmp_path / f"{folder}.log")]
        return subprocess.Popen([*run, str(workers)])

    def wait_for(cells: int, *running: subprocess.Popen) -> None:
        deadline = time.monotonic() + 300
        while len(list((tmp_path / "killed" / "cells").glob("*.json"))) < cells:
            assert all(process.poll() is None for process in running)
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def kill(process: subprocess.Popen) -> None:
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    first, second = start("killed"), start("killed")
    wait_for(5, first, second)
    kill(first)
    wait_for(20, second)
    kill(second)
    finished = contents(tmp_path / "killed")
    assert len([name for name in finished if name.endswith("0.json") or name.startswith("cells")]) < 48
    for folder in ("killed", "whole"):
        assert start(folder).wait() == 0
    kept = {name: (tmp_path / "killed" / name).read_bytes() for name in finished if not name.endswith(".partial")}
    assert kept == {name: finished[name] for name in kept}
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    counts = Counter((tmp_path / "killed.log").read_text().split())
    assert set(counts) == {str(k) for k in range(48)}
    assert sum(counts.values()) <= 48 + 2  # only a cell at which a process was killed is begun again
    assert Counter((tmp_path / "whole.log").read_text().split()) == dict.fromkeys(counts, 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the children of a process in /proc")
def test_a_killed_worker_of_one_command_is_replaced_by_the_others(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    run = [sys.executable, str(tmp_path / "worker.py"), str(tmp_path / "out"), str(tmp_path / "log"), "2"]
    master = subprocess.Popen(run)
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "out" / "cells").glob("*.json"))) < 5:
        assert master.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    children = Path(f"/proc/{master.pid}/task/{master.pid}/children").read_text().split()
    workers = [int(c) for c in children if "spawn_main" in Path(f"/proc/{c}/cmdline").read_text()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    assert master.wait(timeout=300) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["cells"] == 48
    counts = Counter((tmp_path / "log").read_text().split())
    assert set(counts) == {str(k) for k in range(48)}
    assert sum(counts.values()) <= 48 + 1
