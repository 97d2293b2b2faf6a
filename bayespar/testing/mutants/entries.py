"""Our own functions in every role, built from modules that a loader gives: the installed ones, or a mutant's."""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from ...arrays import precision_of
from ...history import Prompt
from ...program import enumerate_program, load_model
from ...world import Family
from ..checks.regret import Loop
from ..checks.simulation import Joint

Load = Callable[[str], types.ModuleType]


def installed(name: str) -> types.ModuleType:
    """A module of the package, as installed."""
    return importlib.import_module(f"{__name__.split('.')[0]}.{name}")


def posterior(load: Load = installed) -> Callable[..., Any]:
    """``bp.posterior``."""
    exact = load("posterior.exact")
    return lambda family, prompt: exact.exact_posterior(family, prompt).probabilities


def posterior_path(load: Load = installed) -> Callable[..., Any]:
    """The last row of ``bp.posterior_path``."""
    exact = load("posterior.exact")
    return lambda family, prompt: exact.posterior_path(family, prompt)[-1]


def state_posterior(load: Load = installed) -> Callable[..., Any]:
    """``bp.state_posterior``."""
    return load("posterior.exact").state_posterior


def next_observation(load: Load = installed) -> Callable[..., Any]:
    """``Filter.predict`` under the exact posterior."""
    exact, filtering = load("posterior.exact"), load("filtering")

    def predict(family: Family, prompt: Prompt, subgoal: int) -> Any:
        tasks = exact.exact_posterior(family, prompt).probabilities
        heard, chosen = prompt.current_observations, prompt.current_subgoals
        with precision_of(family):
            tracker = filtering.Filter(family)
            forward = tracker.start(heard[0])
            for h, g in enumerate(chosen):
                forward = tracker.advance(forward, h, g, heard[h + 1])
            return np.asarray(tracker.predict(forward, tasks, prompt.step - 1, subgoal))

    return predict


def planner(load: Load = installed) -> Callable[..., Any]:
    """``bp.bail``, with the experts of the last world kept."""
    bail, solve = load("planning.bail").bail, load("planning.expert").solve_experts
    kept: list[Any] = []

    def decide(family: Family, prompt: Prompt) -> Any:
        if not kept or kept[0] is not family:
            kept[:] = family, solve(family)
        return bail(family, prompt, experts=kept[1])

    return decide


def log_evidence(load: Load = installed) -> Callable[..., Any]:
    """``bp.log_evidence``."""
    return load("evidence").log_evidence


def streamed_evidence(load: Load = installed) -> Callable[..., Any]:
    """The evidence of finished episodes by ``Filter``, one observation at a time."""
    filtering = load("filtering")

    def evidence(family: Family, observations: Any, subgoals: Any) -> Any:
        out = np.zeros((family.num_tasks, len(observations)))
        with precision_of(family):
            tracker = filtering.Filter(family)
            for n, (heard, chosen) in enumerate(zip(observations, subgoals, strict=True)):
                forward = tracker.start(heard[0])
                for h, g in enumerate(chosen):
                    forward = tracker.advance(forward, h, g, heard[h + 1])
                out[:, n] = tracker.log_likelihood(forward)
        return out

    return evidence


def sampler(load: Load = installed) -> Callable[..., Any]:
    """Independent draws from ``bp.posterior``."""
    probabilities = posterior(load)

    def draw(family: Family, prompt: Prompt, draws: int, *, key: int) -> Any:
        chances = probabilities(family, prompt)
        return np.random.default_rng(key).choice(len(chances), size=draws, p=chances / chances.sum())

    return draw


class Coins:
    """Which of three coins was tossed four times? The joint law of :func:`kernel` and its mutants."""

    prior = np.array([0.5, 0.3, 0.2])
    heads = np.array([0.2, 0.5, 0.8])

    def draw(self, key: int) -> int:
        """A coin from the prior."""
        return int(np.random.default_rng(key).choice(3, p=self.prior))

    def toss(self, key: int, coin: int) -> np.ndarray:
        """Four tosses of it."""
        return (np.random.default_rng(key).random(4) < self.heads[coin]).astype(int)

    def weight(self, coin: int, tosses: np.ndarray) -> float:
        """Its joint probability with the tosses."""
        p = self.heads[coin]
        return float(self.prior[coin] * np.prod(np.where(tosses == 1, p, 1 - p)))

    def quantities(self, coin: int, tosses: np.ndarray) -> np.ndarray:
        """What is compared: each coin, the share of heads, and whether the coin is the likeliest one."""
        best = np.argmax([self.weight(c, tosses) for c in range(3)])
        return np.array([*np.eye(3)[coin], tosses.mean(), float(best == coin)])


def kernel(load: Load = installed) -> Joint:
    """Metropolis-Hastings on :class:`Coins`, proposing either neighbour on a ring."""
    coins = Coins()

    def step(key: int, coin: int, tosses: np.ndarray) -> int:
        rng = np.random.default_rng(key)
        other = (coin + rng.choice([1, 2])) % 3
        accept = rng.random() * coins.weight(coin, tosses) < coins.weight(other, tosses)
        return int(other if accept else coin)

    return Joint(coins.draw, coins.toss, step, coins.quantities)


def needle() -> Family:
    """The needle of eight tasks: BAIL alone loses (K-1)/2 = 3.5 in all."""
    program: Any = load_model("needle")
    return enumerate_program(partial(program, tasks=8))


def loop(load: Load = installed) -> Loop:
    """BAIL on the needle, for 40 episodes."""
    return Loop("bail", needle(), 3, 40, bound=4.5)
