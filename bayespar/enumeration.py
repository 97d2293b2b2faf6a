"""Run a numpyro program once for every value of its finite discrete sites.

Sites with a density take the value that the caller gives them. The program is replayed, so it may use ordinary
Python control flow on the values of its finite sites, and a finite site may exist, or have another support,
depending on the sites before it. Probabilities are read from the distribution's ``probs`` where it has them: numpyro's
own ``log_prob`` clips a Bernoulli's exact zeros and ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from numpyro.handlers import block
from numpyro.primitives import Messenger
from scipy.special import comb

from .arrays import as_float_array, is_traced
from .errors import BayesparError, InvalidProgramError, TooLargeError

MAX_LEAVES = 1_000_000
_ROW_TOLERANCE = 1e-6
_DENSITY = object()  # marks a site that has a density

Density = Callable[[str, Any], Any]


@dataclass(frozen=True)
class Leaf:
    """One run of a program.

    Attributes:
        sites: the value of every finite site, by name, in the order in which they were sampled.
        weight: the product of the sites' probabilities (a float, or a JAX scalar under a trace).
        value: what the program returned.
        log_density: log density of the sites that have one, at the values that they were given.
        observed: whether a site was observed (``obs=``).
    """

    sites: Mapping[str, Any]
    weight: Any
    value: Any
    log_density: Any = 0.0
    observed: bool = False


def _support(name: str, fn: Any) -> tuple[list[Any], Any]:
    """The values of a finite discrete site, and their probabilities [values].

    A site with several independent elements (in a plate, or with a vector of parameters) has every joint value.
    """
    base = fn
    while isinstance(base, (dist.Independent, dist.ExpandedDistribution)):
        base = base.base_dist
    if isinstance(base, dist.Delta) and not fn.batch_shape:
        return [_plain(base.v)], np.ones(1)
    if not getattr(fn, "has_enumerate_support", False) or fn.event_shape:
        raise InvalidProgramError(
            f"site '{name}' is {type(fn).__name__}, which is not a finite and discrete number, so it cannot be "
            "enumerated; use finite distributions (Categorical, Bernoulli, DiscreteUniform, ...)"
        )
    with jax.ensure_compile_time_eval():  # a support is concrete even where probabilities are traced
        values = np.asarray(fn.enumerate_support(expand=False)).reshape(-1)
    if len(values) == 0:
        raise InvalidProgramError(f"site '{name}' has no value at all; give its distribution at least one")
    if not fn.batch_shape:
        return list(values), _shared_masses(base, values)
    masses = _masses(base, values)

    elements = int(np.prod(fn.batch_shape, dtype=int))
    count = len(values) ** elements
    if count > MAX_LEAVES:
        raise TooLargeError(
            f"site '{name}' of shape {fn.batch_shape} has {count} joint values, more than {MAX_LEAVES}", 8 * count
        )
    xp = jax.numpy if is_traced(masses) else np
    table = xp.broadcast_to(masses, (*fn.batch_shape, len(values))).reshape(elements, len(values))
    choices = np.array(list(itertools.product(range(len(values)), repeat=elements)), dtype=int)
    probabilities = xp.prod(table[np.arange(elements), choices], axis=-1)
    return [values[c].reshape(fn.batch_shape) for c in choices], probabilities


# While a program is traced, sites with the same parameter share its masses: a kernel is then read off a few numbers,
# rather than made of thousands of operations. The entry holds the parameter itself, so that its id cannot be reused.
mass_cache: list[dict[Any, Any]] = []


def _shared_masses(fn: Any, values: np.ndarray) -> Any:
    """The probability of each value of a scalar site: an array, or a list of tracers."""
    parameter = getattr(fn, "probs", None)
    if not is_traced(parameter):
        masses = _masses(fn, values).reshape(-1)
        return list(masses) if is_traced(masses) else masses
    place = type(fn), id(parameter)
    cache = mass_cache[-1] if mass_cache else {}
    if place not in cache:
        cache[place] = parameter, list(_masses(fn, values).reshape(-1))
    return cache[place][1]


def _masses(fn: Any, values: np.ndarray) -> Any:
    """The probability of each value, [*batch, values]; exact zeros stay zeros, which ``log_prob`` may clip."""
    if isinstance(fn, (dist.CategoricalProbs, dist.CategoricalLogits)):
        return as_float_array(fn.probs)
    if isinstance(fn, dist.DiscreteUniform):
        return np.full(len(values), 1 / len(values))
    if isinstance(fn, (dist.BernoulliProbs, dist.BernoulliLogits)):
        p = as_float_array(fn.probs)
        return (jax.numpy if is_traced(p) else np).stack([1 - p, p], -1)
    if isinstance(fn, (dist.BinomialProbs, dist.BinomialLogits)):
        p = as_float_array(fn.probs)[..., None]
        k, n = values.astype(p.dtype), len(values) - 1
        return comb(n, values).astype(p.dtype) * p**k * (1 - p) ** (n - k)
    logs = fn.log_prob(values.reshape(-1, *(1,) * len(fn.batch_shape)))
    return jax.numpy.moveaxis(jax.numpy.exp(logs), 0, -1) if is_traced(logs) else np.moveaxis(np.exp(logs), 0, -1)


def _plain(value: Any) -> Any:
    """A concrete JAX scalar as a numpy one, so that it can index a list or be compared cheaply."""
    return value if is_traced(value) or not isinstance(value, jax.Array) else np.asarray(value)[()]


class _Replay(Messenger):
    """Gives each site the value that ``choices`` says; past its end, the first value of positive probability."""

    def __init__(self, fn: Callable[..., Any], choices: list[int], density: Density | None):
        super().__init__(fn)
        self.choices = choices
        self.density = density
        self.log_density: Any = 0.0
        self.observed = False
        self.sites: dict[str, Any] = {}
        self.open: list[list[int]] = []
        self.weight: Any = 1.0

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if name in self.sites:
            raise InvalidProgramError(f"site '{name}' is sampled twice in one run; give each site its own name")
        if msg["is_observed"]:
            self.observed = True
            log_probability = msg["fn"].log_prob(msg["value"])
            xp = jax.numpy if is_traced(log_probability) else np
            self.weight = self.weight * xp.exp(xp.sum(log_probability))
            return
        if self.density is not None and not msg["fn"].is_discrete:
            self.sites[name] = _DENSITY
            msg["value"] = self.density(name, msg["fn"])
            self.log_density = self.log_density + msg["fn"].log_prob(msg["value"]).sum()
            return
        values, probabilities = _support(name, msg["fn"])
        if not is_traced(probabilities):
            probabilities = np.asarray(probabilities)
            total = probabilities.sum()
            if not (probabilities >= 0).all() or not abs(total - 1) <= _ROW_TOLERANCE:
                raise InvalidProgramError(
                    f"site '{name}' has probabilities {probabilities.tolist()}, which must be non-negative and sum to 1"
                )
            positive = [int(i) for i in np.flatnonzero(probabilities > 0)]
        else:
            positive = list(range(len(values)))
        depth = len(self.open)
        choice = self.choices[depth] if depth < len(self.choices) else positive[0]
        self.open.append([i for i in positive if i > choice])
        if depth >= len(self.choices):
            self.choices.append(choice)
        self.sites[name] = values[choice]
        chance = probabilities[choice]
        self.weight = chance if isinstance(self.weight, float) and self.weight == 1 else self.weight * chance
        msg["value"] = values[choice]


def enumerate_leaves(
    fn: Callable[[], Any],
    *,
    max_leaves: int = MAX_LEAVES,
    what: str = "the program",
    density: Density | None = None,
) -> Iterator[Leaf]:
    """Every run of ``fn`` of positive probability, in lexicographic order of its sites' values.

    Sites inside ``fn`` are hidden from handlers outside it. An observed site multiplies the weight. Where ``density``
    is given, it says the value of each site with a density, from its name and distribution.

    Raises:
        InvalidProgramError: a site is not finite and discrete, or its probabilities do not sum to 1; or ``fn``, called
            ``what`` in messages, raised an error of its own, which is then the cause.
        TooLargeError: there are more than ``max_leaves`` runs.
    """
    choices: list[int] = []
    for count in itertools.count():
        if count >= max_leaves:
            raise TooLargeError(
                f"the program has more than {max_leaves} joint values of its finite sites; "
                "use fewer sites or values, or sample it by MCMC",
                8 * max_leaves,
            )
        replay = _Replay(fn, choices, density)
        with block():
            try:
                value = replay()
            except BayesparError:
                raise
            except (Exception, SystemExit) as error:
                raise InvalidProgramError(f"{what} raised {type(error).__name__}: {error}") from error
        finite = {name: value for name, value in replay.sites.items() if value is not _DENSITY}
        yield Leaf(finite, replay.weight, value, replay.log_density, replay.observed)
        while choices and not replay.open[len(choices) - 1]:
            choices.pop()
        if not choices:
            return
        choices[-1] = replay.open[len(choices) - 1][0]
