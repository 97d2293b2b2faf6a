"""The adapters that need no further library, one runnable example each; the rest is in tests/peers."""

import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

import bayespar as bp
from bayespar.testing.adapters.blackjax import from_blackjax
from bayespar.testing.adapters.dynamax import from_dynamax
from bayespar.testing.adapters.numpyro import from_numpyro
from bayespar.testing.adapters.plain import from_words
from bayespar.testing.adapters.pymdp import from_pymdp
from bayespar.testing.oracle import Oracle, as_prompt

# Two cupboards. Task 0 keeps the cup on the left, task 1 on the right; opening the right one shows it, or nothing.
CUPBOARDS = bp.Family(
    [0.75, 0.25],
    [1.0, 0, 0],  # closed, cup, empty
    [[[[0, 1.0, 0]] * 3, [[0, 0, 1.0]] * 3], [[[0, 0, 1.0]] * 3, [[0, 1.0, 0]] * 3]],
    np.eye(3),
    np.zeros((3, 3)),
    horizon=3,
    tasks=["left", "right"],
    subgoals=["open the left one", "open the right one"],
    observations=["closed", "cup", "empty"],
)
RNG = np.random.default_rng(3)
DICE = bp.Family(  # three dice, thrown four times; the third has no chance
    [0.25, 0.75, 0],
    [1.0],
    np.ones((1, 1, 1)),
    np.array([[[2, 1, 1, 0]], [[1, 1, 1, 1]], [[4, 0, 0, 0]]]) / 4,
    np.zeros((4, 4)),
    horizon=4,
)


def test_a_function_of_words_is_a_planner():
    heard = []

    def answer(text):
        heard.append(text)
        return {"open the right one": 0.9, "open the left one": 0.1} if "empty" in text else "open the left one"

    planner = from_words(answer)
    np.testing.assert_array_equal(planner(CUPBOARDS, bp.Prompt(current_observations=[0])), [1, 0])
    prompt = bp.Prompt(current_observations=[0, 2], current_subgoals=[0])
    np.testing.assert_array_equal(planner(CUPBOARDS, prompt), [0.1, 0.9])
    assert heard[-1] == prompt.to_text(CUPBOARDS)


def test_a_function_of_words_is_a_posterior():
    posterior = from_words(lambda text: [0.3, 0.7], about="tasks")
    np.testing.assert_array_equal(posterior(CUPBOARDS, bp.Prompt()), [0.3, 0.7])
    named = from_words(lambda text: {"right": 0.7}, about="tasks")
    np.testing.assert_array_equal(named(CUPBOARDS, bp.Prompt()), [0, 0.7])  # and is not repaired


def test_words_that_the_family_does_not_know_are_refused():
    prompt = bp.Prompt(current_observations=[0])
    with pytest.raises(ValueError, match="has 'shout', but the subgoals are 'open the left one'"):
        from_words(lambda text: "shout")(CUPBOARDS, prompt)
    with pytest.raises(ValueError, match=r"shape \[3\], but there are 2 subgoals"):
        from_words(lambda text: [0.2, 0.3, 0.5])(CUPBOARDS, prompt)
    with pytest.raises(ValueError, match="about = 'rewards'"):
        from_words(lambda text: "shout", about="rewards")


def dice(family, prompt):
    """The numpyro model of a family with one state: throws do not depend on each other."""
    task = numpyro.sample("task", dist.Categorical(jnp.asarray(family.task_prior)))
    chances = jnp.asarray(family.emission)[task, 0]
    thrown = np.concatenate([prompt.observations.reshape(-1), prompt.current_observations])
    with numpyro.plate("throws", len(thrown)):
        numpyro.sample("thrown", dist.Categorical(chances), obs=jnp.asarray(thrown))


def cupboards(family, prompt):
    """The numpyro model of a family whose states are known from what is heard: only steps can tell tasks apart."""
    task = numpyro.sample("task", dist.Categorical(jnp.asarray(family.task_prior)))
    kernel = jnp.asarray(family.transition)[task, 0]
    past = zip(prompt.observations, prompt.subgoals, strict=True)
    for n, (o, g) in enumerate([*past, (prompt.current_observations, prompt.current_subgoals)]):
        for h in range(len(g)):
            numpyro.sample(f"heard {n}.{h}", dist.Categorical(kernel[g[h], o[h]]), obs=o[h + 1])


def test_a_numpyro_model_is_a_posterior():
    for model, family in ((dice, DICE), (cupboards, CUPBOARDS)):
        posterior, oracle = from_numpyro(model), Oracle(family)
        for step in (1, 2, 3):
            drawn = oracle.draw_prompt(RNG, 2, step)
            got = posterior(family, as_prompt(drawn))
            np.testing.assert_allclose(got, oracle.posterior(drawn), atol=1e-12)


def test_a_numpyro_model_sees_zeros():
    posterior = from_numpyro(dice)
    np.testing.assert_array_equal(posterior(DICE, bp.Prompt(current_observations=[3])), [0, 1, 0])
    never = bp.Family([1, 0, 0], DICE.initial, DICE.transition, DICE.emission, DICE.reward, horizon=4)
    assert np.isnan(posterior(never, bp.Prompt(current_observations=[3]))).all()


@pytest.mark.parametrize(
    ("adapter", "package", "module"),
    [
        (from_dynamax, "dynamax", "dynamax.hidden_markov_model"),
        (from_pymdp, "inferactively-pymdp", "pymdp.agent"),
        (lambda: from_numpyro(dice), "numpyro", "numpyro.infer"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, adapter, package, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        adapter()


def test_a_kernel_takes_a_step():
    with pytest.raises(ValueError, match="steps = 0"):
        from_blackjax(lambda f: None, lambda latent, data: 0.0, steps=0)


def test_importing_the_adapters_imports_no_library():
    names = ["plain", "numpyro", "blackjax", "dynamax", "pymdp"]
    code = "; ".join(f"import bayespar.testing.adapters.{n}" for n in names)
    code += "; import sys; print([m for m in ('blackjax', 'dynamax', 'pymdp', 'funsor') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
