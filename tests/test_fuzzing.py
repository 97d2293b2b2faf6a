"""The fuzzer of ``fuzzing.py``: a sample of its inputs, that it covers every public entry, and that it can fail."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from fuzzing import ENTRIES, RECORDS, Entry, fuzz

import bayespar as bp
from bayespar.cli import main

ROOT = Path(__file__).parents[1]


def told(run: fuzzing.Run) -> str:
    return "\n\n".join(f"index {i}: {violation}\n{case}" for i, violation, case in run.violations)


def test_every_public_callable_is_fuzzed():
    public = {n for n, v in vars(bp).items() if not n.startswith("_") and callable(v) and not inspect.ismodule(v)}
    errors = {n for n in public if isinstance(getattr(bp, n), type) and issubclass(getattr(bp, n), Exception)}
    covered = fuzzing.covered()
    assert public - errors - RECORDS - covered == set(), "add an entry to tests/fuzzing.py"
    assert RECORDS | (covered - {"Posterior", "command line"}) <= public


def test_inputs_through_python():
    """In a process of its own: there, unlike here, no type checker refuses an input before the library does."""
    ran = subprocess.run(
        [sys.executable, "tests/fuzzing.py", "--count", "500"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-3000:]
    assert "0 violations" in ran.stdout


def test_inputs_through_the_command_line():
    run = fuzz(range(200), entries={"command line": ENTRIES["command line"]})
    assert not run.violations, told(run)
    assert run.outcomes["command line", "accepted"] >= 10
    assert run.outcomes["command line", "BayesparError"] >= 50


# --- the fuzzer can fail ----------------------------------------------------------------------------------------


def leaks(size):
    return {}[size]


def returns_nan(size):
    return {"curve": [np.array([1.0, np.nan])]}


def hangs(size):
    while True:
        time.sleep(0.01)


def says_nothing(size):
    raise bp.InvalidPlannerError("something is wrong")


def warns(size):
    return np.ones(1) / np.zeros(1)


def compiles_first(size):
    wide = jnp.sin(jnp.arange(1000003)).sum()
    if not isinstance(size, int) or size != 3:
        raise bp.InvalidPlannerError(f"size = {type(size).__name__}, {wide}")
    return 1.0


def refuses_all(size):
    raise bp.InvalidPlannerError("size is wrong")


@pytest.mark.parametrize(
    ("function", "violation"),
    [
        (leaks, "KeyError"),
        (returns_nan, "NaN in result.curve.0"),
        (hangs, "not done after"),
        (says_nothing, "the message names none of ['size']"),
        (warns, "RuntimeWarning: divide by zero"),
        (compiles_first, "refused only after"),
        (refuses_all, "a valid input was refused"),
    ],
)
def test_a_broken_entry_is_reported(function, violation):
    entry = Entry(function, lambda rng: {"size": ("count", 3)}, valid=0.5)
    run = fuzz(range(8), entries={"broken": entry}, seconds=0.2 if function is hangs else 20)
    assert violation in told(run)


def test_a_sound_entry_is_not():
    def sound(size):
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 0 < size < 100:
            raise bp.InvalidPlannerError("size is no small number")
        return {"value": 1.0, "log": -np.inf}

    run = fuzz(range(50), entries={"sound": Entry(sound, lambda rng: {"size": ("count", 3)}, valid=0.5)})
    assert not run.violations, told(run)
    assert run.outcomes["sound", "accepted"] > 5
    assert run.outcomes["sound", "InvalidPlannerError"] > 5


def test_an_input_is_made_from_its_seed_and_index_alone():
    first, again = (fuzzing.shown(fuzzing.make(3, 17, ENTRIES)) for _ in range(2))
    assert first == again
    assert first != fuzzing.shown(fuzzing.make(4, 17, ENTRIES))


# --- data is only data ------------------------------------------------------------------------------------------


class Payload:
    """Leaves a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def payloads(path: Path) -> list[str]:
    code = f"__import__('pathlib').Path({str(path)!r}).touch()"
    return [
        code,
        f"!!python/object/apply:pathlib.Path.touch [{path}]",
        pickle.dumps(Payload(path), protocol=0).decode(),
        f"{{{{ {code} }}}}",
        f"$(touch {path})",
        f"`touch {path}`",
        f"f'{{{code}}}'",
        f"<script>{code}</script>",
        f"; touch {path} #",
    ]


def test_prompts_never_run_anything(tmp_path, capsys):
    mark = tmp_path / "mark"
    family = fuzzing.families()[0]
    world = tmp_path / "coin.py"
    world.write_text(fuzzing.GOOD_FILE)
    for payload in payloads(mark):
        written = [
            payload,
            json.dumps(payload),
            json.dumps({"episodes": [], "current": payload}),
            json.dumps({"episodes": [{"instruction": payload, "observations": [payload], "subgoals": []}]}),
            json.dumps({payload: 1}),
            f"Episode 1 (now)\nInstruction: {payload}\n",
            f"Episode {payload}\nInstruction: look\nObservation: {payload}\n",
        ]
        for text in written:
            for read in (bp.Prompt.from_text, bp.Prompt.from_json):
                with pytest.raises(bp.InvalidPromptError):
                    read(text, family)
            path = tmp_path / "prompt"
            path.write_text(text)
            assert main(["posterior", str(world), "--prompt", str(path)]) == 2
        assert main(["posterior", payload, "--prompt", str(path)]) == 2
        assert main(["verify", str(world), "--claims", payload]) == 2
        capsys.readouterr()
    assert not mark.exists()
    # The payloads are real ones: this is what they would have done.
    pickle.loads(pickle.dumps(Payload(mark)))
    assert mark.exists()


def test_reports_hold_names_as_data(tmp_path, capsys):
    """Names that are code stay names: escaped in the page, strings in the JSON."""
    mark = tmp_path / "mark"
    names = [payloads(mark)[0], "<script>alert(1)</script>"]
    world = tmp_path / "coin.py"
    world.write_text(fuzzing.GOOD_FILE.replace('["tails", "heads"]', repr(names)))
    assert main(["verify", str(world), "--claims", "C1", "--out", str(tmp_path / "out")]) == 0
    json.loads((tmp_path / "out" / "report.json").read_text())
    assert "<script>alert" not in (tmp_path / "out" / "index.html").read_text()
    capsys.readouterr()
    assert not mark.exists()


# --- what it found ----------------------------------------------------------------------------------------------


def single() -> bp.Family:
    """In float32, with thirds: rows that sum to 1 as far as float32 goes, and no further."""
    third = np.array([[0.1, 0.3, 0.6], [0.7, 0.1, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    arrays = [[0.5, 0.5], third[0], np.stack([third, third[::-1]]), np.stack([third, third[[1, 0, 2]]])]
    reward = np.linspace(0, 1, 6).reshape(2, 3)
    return bp.Family(*(np.asarray(a, np.float32) for a in (*arrays, reward)), horizon=2)


@pytest.mark.parametrize("method", ["alpha", "points"])
def test_experts_of_a_float32_family_by_alpha_vectors(method):
    value = bp.solve_experts(single(), method=method).value
    assert value == pytest.approx(bp.solve_experts(single(), method="histories").value, abs=1e-6)


def test_a_site_of_several_elements_has_a_marginal():
    def program():
        with numpyro.plate("n", 2):
            z = numpyro.sample("z", dist.Bernoulli(np.array([0.25, 0.5])))
        p = 0.25 + 0.25 * float(z.sum())
        return bp.World([1.0], [[[1.0]]], [[1 - p, p]], [[0, 1], [0, 1]], horizon=2)

    family = bp.enumerate_program(program)
    marginal = bp.posterior(family, bp.Prompt()).marginal("z")
    assert dict(zip(marginal.coords["z"].values, marginal.values, strict=True)) == pytest.approx(
        {"(0, 0)": 0.375, "(0, 1)": 0.375, "(1, 0)": 0.125, "(1, 1)": 0.125}
    )


def test_a_raw_key_is_a_key():
    family = fuzzing.families()[0]
    raw = jax.random.key_data(jax.random.key(7))
    assert (bp.sample_corpus(family, 2, 1, key=raw).tasks == bp.sample_corpus(family, 2, 1, key=7).tasks).all()


def test_a_successor_too_large_for_32_bits_is_refused():
    with pytest.raises(bp.InvalidWorldError, match=r"next_states\[0, 0, 0\] = 4294967296"):
        bp.Sparse([[[2**32]]], [[[1.0]]])


def test_counts_of_labels_must_agree_with_the_arrays():
    with pytest.raises(bp.InvalidWorldError, match="states = 7, but the arrays have 1 states"):
        bp.World([1.0], [[[1.0]]], [[1.0]], [[0.5]], horizon=1, states=7)


def test_words_in_brackets_reach_the_terminal(tmp_path, capsys):
    assert main(["posterior", "[/bold] [red]nowhere", "--prompt", "x"]) == 2
    assert "[/bold] [red]nowhere" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["regret", "kitchen", "--episodes", "1000000", "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_behaviour_that_is_refused_leaves_no_manifest(tmp_path):
    """Else the folder would refuse the right one for being another."""
    family = fuzzing.families()[0]
    for wrong in ("nope", (fuzzing.start, lambda state, observed: (state, jnp.ones(5) / 5))):
        with pytest.raises(bp.InvalidPlannerError, match="behaviour"):
            bp.write_corpus(family, tmp_path, prompts=1, episodes=1, behaviour=wrong)
    assert not list(tmp_path.iterdir())
    assert bp.write_corpus(family, tmp_path, prompts=1, episodes=1)["settings"]["behaviour"] == "uniform"


def test_a_damaged_checkpoint_is_told(tmp_path):
    whole = fuzzing.checkpoint()
    for written in (whole[:-1], whole + b"x", b"{}\n", b"\xff" + whole, b""):
        (tmp_path / "checkpoint.eqx").write_bytes(written)
        with pytest.raises(bp.InvalidFolderError, match=r"checkpoint\.eqx' is damaged; give another folder"):
            bp.train(fuzzing.stream(), bp.TrainingPlan(**fuzzing.TINY), folder=tmp_path, every=1)
    (tmp_path / "checkpoint.eqx").write_bytes(whole)
    assert bp.train(fuzzing.stream(), bp.TrainingPlan(**fuzzing.TINY), folder=tmp_path, every=1).steps == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": float("nan")}, "rate = nan"),
        ({"heads": 3}, "width = 64 is no multiple of heads = 3"),
        ({"steps": 0}, "steps = 0"),
        ({"curriculum": ((0.5, 33),)}, r"curriculum\[0\]\[1\] = 33 is more than episodes = 32"),
        ({"curriculum": ((0.2, 4), (1.5, 8))}, r"curriculum\[1\]\[0\] = 1.5"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_when_it_is_made(change, message):
    with pytest.raises(bp.InvalidPlannerError, match=message):
        bp.TrainingPlan(**change)
