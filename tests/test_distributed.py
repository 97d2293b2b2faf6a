"""Work divided among processes and devices: the same bits as alone.

Where it is cheap, threads stand for processes: each has a job of its own, and what it tells the others is pickled. The
slow tests start real processes, which meet on the loopback, and give one process eight devices.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import os
import pickle
import socket
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

import bayespar as bp
from bayespar.distributed import Job, current_job, divide, in_blocks, join, together
from bayespar.errors import BayesparError, InvalidFolderError, TooLargeError
from bayespar.simulate import shards
from bayespar.simulate.shards import write_corpus
from bayespar.theory.runner import verify


def jobs(count: int) -> list[Job]:
    """The job as each of ``count`` threads sees it."""
    barrier, values = threading.Barrier(count, timeout=120), [b""] * count

    def exchange_of(index: int):
        def exchange(value):
            values[index] = pickle.dumps(value)
            barrier.wait()
            told = [pickle.loads(value) for value in values]
            barrier.wait()
            return told

        return exchange

    return [Job(i, count, exchange_of(i)) for i in range(count)]


def on_processes(count: int, work) -> list:
    """What ``work(i)`` returns, or raises, in each of ``count`` processes of a job."""

    def run(job: Job):
        with together(job):
            try:
                return work(job.index)
            except BayesparError as error:
                return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, jobs(count)))


# --- blocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("blocks", [0, 1, 5])
def test_each_block_is_done_once_and_all_hear_of_it(count, blocks):
    done = []

    def work(process):
        return in_blocks(lambda block: done.append((process, block)) or block**2, blocks)

    assert on_processes(count, work) == [[b**2 for b in range(blocks)]] * count
    assert sorted(done) == sorted((b % count, b) for b in range(blocks))


def test_what_is_divided_within_a_block_stays_there():
    def work(process):
        return divide(lambda mine: [(b, in_blocks(lambda inner: (process, inner), 3)) for b in mine], 2)

    assert current_job().count == 1
    assert on_processes(2, work) == [[(b, [(b, inner) for inner in range(3)]) for b in range(2)]] * 2


def test_an_error_of_one_process_is_raised_in_all():
    def work(process):
        def block(b):
            if b == 1:
                raise TooLargeError("too many", 12)
            return b

        return in_blocks(block, 3)

    found = on_processes(2, work)
    assert [(type(e), str(e), e.predicted_bytes) for e in found] == [(TooLargeError, "too many", 12)] * 2


def test_blocks_must_not_depend_on_who_divides_them():
    """The false twin: numbers drawn by block, where the blocks are as many as the processes."""

    def drawn(size: int) -> np.ndarray:
        parts = in_blocks(lambda block: np.random.default_rng([7, block]).random(size), 12 // size)
        return np.concatenate(parts)

    fixed = [on_processes(count, lambda _: drawn(3))[0].tobytes() for count in (1, 2, 4)]
    twin = [on_processes(count, lambda _, count=count: drawn(12 // count))[0].tobytes() for count in (1, 2, 4)]
    assert len(set(fixed)) == 1
    assert len(set(twin)) == 3


def test_a_job_that_cannot_be_found_says_what_to_give(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("SLURM", "OMPI", "KUBERNETES", "JAX_COORDINATOR")):
            monkeypatch.delenv(name)
    monkeypatch.setattr("jax._src.xla_bridge.backends_are_initialized", lambda: False)
    for given, message in (
        ((), "no cluster was found"),
        (("nowhere", 2, 0), "HOST:PORT"),
        (("here:1", 2, 2), "process = 2"),
        (("here:1", 0, 0), "processes = 0"),
    ):
        with pytest.raises(BayesparError, match=message):
            join(*given)


# --- regret, evidence, corpora, claims --------------------------------------------------------------------------


def bits(*arrays) -> str:
    """A checksum of arrays."""
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays)).hexdigest()


def curve_bits(curves: bp.RegretCurves) -> str:
    return bits(curves.regret, curves.true_task, curves.explored, curves.instructions)


def test_seeds_of_a_regret_run_are_divided(monkeypatch):
    family = bp.enumerate_program(bp.load_model("two_doors"))
    experts, counts = bp.solve_experts(family), [0, 0, 0]

    def work(process):
        def count(episodes):
            counts[process] += episodes

        run = bp.simulate_regret(family, 0, "bail", 0.1, 8, 80, key=3, experts=experts, progress=count)
        return curve_bits(run)

    alone = work(2)
    assert on_processes(2, work) == [alone] * 2
    assert counts[0] > counts[1] > 0
    assert counts[0] + counts[1] == counts[2]
    monkeypatch.setattr("bayespar.simulate.regret.SEED_BLOCK", 80 // 4)  # the false twin
    assert work(2) != alone


@functools.cache
def worlds() -> bp.Family:
    return bp.enumerate_program(functools.partial(bp.load_model("random_world"), 5, (40, 3, 2, 2, 3, 2)))


def test_tasks_of_evidence_are_divided():
    rng = np.random.default_rng(0)
    o, g = rng.integers(0, 2, (30, 3)), rng.integers(0, 2, (30, 2))
    for family in (worlds(), worlds().astype(np.float32)):
        alone = bits(bp.log_evidence(family, o, g))
        found = on_processes(2, lambda _, family=family: bits(bp.log_evidence(family, o, g)))
        assert found == [alone] * 2


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.*"))}


def test_shards_of_a_corpus_are_divided(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    family = bp.enumerate_program(bp.load_model("two_doors"))
    write = functools.partial(write_corpus, family, prompts=10, episodes=2, shard=2, world="doors")
    drawn, sample = [], shards.sample_corpus
    monkeypatch.setattr(
        shards, "sample_corpus", lambda *a, **k: drawn.append(threading.current_thread()) or sample(*a, **k)
    )
    manifest = write(tmp_path / "alone")
    assert len(drawn) == 5
    assert on_processes(2, lambda _: write(tmp_path / "shared")) == [manifest] * 2
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")
    assert sorted(drawn[5:].count(t) for t in set(drawn[5:])) == [2, 3]
    # What one process left behind is for all of them.
    (tmp_path / "shared" / "data" / "shard-00001.parquet").unlink()
    assert on_processes(2, lambda _: write(tmp_path / "shared")) == [manifest] * 2
    assert (len(drawn), contents(tmp_path / "shared")) == (11, contents(tmp_path / "alone"))
    # The false twin: processes that are not at the same work.
    found = on_processes(2, lambda process: write(tmp_path / "mixed", key=process))
    assert [type(error) for error in found] == [InvalidFolderError] * 2
    assert not (tmp_path / "mixed").exists()


def test_worlds_of_a_verification_are_divided():
    three = {name: bp.enumerate_program(bp.load_model(name)) for name in ("two_doors", "aliased", "safe_or_risky")}
    calls = [[], []]

    def work(process):
        def done(claim, world):
            calls[process].append(world)

        return timeless(verify(three, ["C3"], shipped=False, progress=done))

    assert on_processes(2, work) == [timeless(verify(three, ["C3"], shipped=False))] * 2
    assert sorted(map(len, calls)) == [1, 2]


def timeless(report) -> str:
    findings = tuple(dataclasses.replace(f, seconds=0.0) for f in report.findings)
    return repr(dataclasses.replace(report, findings=findings, seconds=0.0))


# --- real processes and devices ---------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def commands(folder: str) -> list[list[str]]:
    spec = Path(folder) / "sweep.toml"
    regret = ["regret", "two_doors", "--explore", "0.1", "--episodes", "8", "--seeds", "40", "--json"]
    corpus = ["corpus", "two_doors", "--prompts", "10", "--episodes", "2", "--shard", "2", "--json"]
    return [
        regret,
        [*corpus, "--out", f"{folder}/corpus"],
        ["sweep", str(spec), "--out", f"{folder}/sweep", "--json"],
        ["verify", "two_doors", "aliased", "--claims", "C3", "--json"],
    ]


def run_commands(folder: str, *more: str) -> list:
    """What each command prints."""
    from bayespar.cli import main

    found = []
    for command in commands(folder):
        printed = io.StringIO()
        with redirect_stdout(printed):
            assert main([*command, *more]) == 0
        found.append(told(printed.getvalue()))
    return found


def told(printed: str):
    """Printed JSON without times and counts of compilations; None if there is none."""
    return without_times(json.loads(printed)) if printed else None


def without_times(data):
    if isinstance(data, dict):
        return {k: without_times(v) for k, v in data.items() if k not in ("seconds", "compilations")}
    return [without_times(v) for v in data] if isinstance(data, list) else data


def library() -> dict[str, str]:
    """Checksums of what several devices, or processes, compute together."""
    rng = np.random.default_rng(0)
    o, g = rng.integers(0, 2, (300, 3)), rng.integers(0, 2, (300, 2))
    found = {f"evidence, {d}": bits(bp.log_evidence(worlds().astype(d), o, g)) for d in ("float32", "float64")}
    found["regret"] = curve_bits(bp.simulate_regret(bp.load_model("two_doors"), 1, "bail", 0.1, 8, 40))
    prompt = bp.Prompt([[0, 1], [0, 2], [0, 1]], [[0], [1], [1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bp.ConvergenceWarning)
        arms = bp.posterior(bp.load_model("bernoulli_arms"), prompt, method="nuts", chains=2, warmup=20, draws=20)
    return {**found, "chains": bits(*arms.draws.values())}


SPEC = """
worlds = ["two_doors", "aliased"]
explorations = [0.1, "gated"]
episodes = [8]
keys = [0, 1]
seeds = 16
"""


def process(folder: str, file: str) -> None:
    """What each of two processes does, which SLURM is said to have started."""
    found = run_commands(folder, "--distributed")
    with together(join()):
        found.append(library())
    Path(file).write_text(json.dumps(found))


def start(body: str, *arguments: str, **environment: str) -> subprocess.Popen:
    """A process that runs ``body`` with all that is in this file."""
    first = "import sys; sys.path.insert(0, sys.argv.pop(1)); from test_distributed import *"
    command = [sys.executable, "-W", "ignore", "-c", f"{first}; {body}", str(Path(__file__).parent), *arguments]
    return subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def printed_by(*running: subprocess.Popen) -> list[str]:
    """What they print to standard output; they must end well."""
    ended = [process.communicate(timeout=600) for process in running]
    assert [process.returncode for process in running] == [0] * len(running), ended
    return [out for out, _ in ended]


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    pytest.importorskip("pyarrow")
    for name in ("alone", "shared"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.toml").write_text(SPEC)
    files = [tmp_path / f"{i}.json" for i in range(2)]
    slurm = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    slurm["JAX_COORDINATOR_PORT"] = str(free_port())
    body = "process(*sys.argv[1:])"
    running = [start(body, str(tmp_path / "shared"), str(files[i]), SLURM_PROCID=str(i), **slurm) for i in range(2)]
    printed_by(*running)
    zero, one = (json.loads(path.read_text()) for path in files)
    alone = [*run_commands(str(tmp_path / "alone")), library()]
    assert zero == alone
    assert one == [None] * 4 + alone[-1:]  # only process 0 prints
    assert contents(tmp_path / "shared") == contents(tmp_path / "alone")


@pytest.mark.slow
def test_processes_meet_where_they_are_told_to(capsys):
    from bayespar.cli import main

    regret = commands(".")[0]
    flags = ["--distributed", "--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2", "--process-id"]
    body = "from bayespar.cli import main; sys.exit(main(sys.argv[1:]))"
    zero, one = printed_by(*(start(body, *regret, *flags, str(i)) for i in range(2)))
    assert main(regret) == 0
    assert told(zero) == told(capsys.readouterr().out) is not None  # nothing else, such as of their meeting
    assert one == ""


@pytest.mark.slow
def test_devices_change_no_bit():
    body = "import jax; print(json.dumps([len(jax.devices()), library()]))"
    found = []
    for count in (1, 2, 8):
        flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}", "JAX_PLATFORMS": "cpu"}
        found.append(json.loads(printed_by(start(body, **flags))[0]))
    assert [devices for devices, _ in found] == [1, 2, 8]
    assert found[0][1] == found[1][1] == found[2][1]
    assert len(set(found[0][1].values())) == 4
