"""Used from outside: a project of its own, with a filter that has a bug and a pytest file of three lines."""

import os
import re
import subprocess
import sys

import bayespar as bp

FILTER = '''
"""A filter that somebody wrote."""

import numpy as np


def posterior(family, prompt):
    kernel = family.dense_transition()
    weights = family.task_prior.copy()
    episodes = [*zip(prompt.observations, prompt.subgoals)]
    episodes.append((prompt.current_observations, prompt.current_subgoals))
    for observations, subgoals in episodes:
        for z in range(family.num_tasks):
            states = family.initial[min(z, len(family.initial) - 1)]
            moves = kernel[min(z, len(kernel) - 1)]
            sees = family.emission[min(z, len(family.emission) - 1)]
            for h, o in enumerate(observations):
                if h:
                    states = states @ moves[min(h - 1, len(moves) - 1), subgoals[h - 1]]
                states = states * sees[:, o]
                total = states.sum()
                weights[z] *= {evidence}
                states = states / total if total > 0 else states
    if weights.sum() == 0:
        raise ValueError("impossible")
    return weights / weights.sum()
'''

TEST = """
from bayespar import testing
from filter import posterior


def test_my_filter():
    testing.assert_correct(posterior=posterior, checks={checks})
"""
EXACT = ["distribution", "refusal", "task order", "history split", "tower", "agreement"]


def run(tmp_path, evidence):
    (tmp_path / "filter.py").write_text(FILTER.replace("{evidence}", evidence))
    (tmp_path / "test_filter.py").write_text(TEST.replace("{checks}", repr(EXACT)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "test_filter.py"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)


def test_a_bug_in_somebodys_filter_is_found_with_the_smallest_world(tmp_path):
    found = run(tmp_path, "total > 0")  # the belief is normalised, and its normaliser forgotten
    assert found.returncode == 1, found.stdout
    assert "posterior: the tower check fails. The tower property: averaged over the next observation" in found.stdout
    assert re.search(r"largest difference [\d.]+(e-\d+)? at \[\d\], allowed 1e-10", found.stdout)
    text = re.sub(r"^E +", "", found.stdout, flags=re.M)
    world, prompt = re.search(r"^family = (bp\.Family.*)\nprompt = (bp\.Prompt.*)$", text, flags=re.M).groups()
    family, prompt = eval(world, {"bp": bp}), eval(prompt, {"bp": bp})
    assert family.transition.shape == (2, 1, 2, 2, 2)  # the smallest layout
    assert prompt.num_episodes == 0
    scope = {}
    exec(FILTER.replace("{evidence}", "total > 0"), scope)
    after = [
        bp.Prompt(current_observations=[*prompt.current_observations, o], current_subgoals=[0])
        for o in range(family.num_observations)
    ]
    wrong = [scope["posterior"](family, p) - bp.posterior(family, p).probabilities for p in after]
    assert max(abs(w).max() for w in wrong) > 1e-3


def test_without_the_bug_it_passes(tmp_path):
    passed = run(tmp_path, "total")
    assert passed.returncode == 0, passed.stdout
