"""What is compiled is counted, and what one command compiled the next one finds on disk."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp

from bayespar.compilations import Compilations, counted, include, so_far

REGRET = "from bayespar.cli import main; main(['regret', 'needle', '--episodes', '2', '--seeds', '2', '--json'])"


def test_programs_are_counted_here_and_in_other_processes():
    with counted() as outer:
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(7))
        first = outer.programs
        assert first >= 1
        with counted() as inner:
            assert so_far() is inner
            include(Compilations(programs=5, from_cache=2))
        assert inner == Compilations(5, 2)
        assert outer.programs == first + 5
    assert so_far() == Compilations()
    jax.jit(lambda x: x * 5 - 1)(jnp.ones(7))
    assert outer.programs == first + 5


def test_the_command_line_finds_what_it_compiled_before(tmp_path):
    told = ("JAX_COMPILATION", "JAX_ENABLE_COMPILATION", "JAX_PERSISTENT")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(told)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "HOME": str(tmp_path)}

    def run(**more: str) -> dict[str, int]:
        told = subprocess.run(
            [sys.executable, "-c", REGRET], env=environment | more, capture_output=True, text=True, check=True
        )
        return json.loads(told.stdout)["compilations"]

    first, second = run(), run()
    assert first["from_cache"] < first["programs"] == second["programs"] == second["from_cache"]
    assert run(JAX_ENABLE_COMPILATION_CACHE="false") == {"programs": first["programs"], "from_cache": 0}
