"""Programs whose tasks are not finite: their sites with a density, and the finite family that is left given them.

A point theta fixes every site with a density. Given theta, the finite sites are enumerated: each of their joint
values is a *leaf*, a world with a probability, so P(z) is a density over theta times a finite sum over leaves, and
the sum is taken exactly. Samplers work on the unconstrained vector u [D], to which theta is in bijection.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from numpyro.distributions import biject_to

from ..arrays import Array, is_traced
from ..enumeration import Leaf, enumerate_leaves
from ..errors import BayesparError, InvalidProgramError
from ..forward import safe_log
from ..program import Program, check_worlds, run_leaves, stack_worlds, task_names
from ..world import Family
from .likelihood import Likelihood

_BLOCK = 1024  # points whose worlds are computed at once
MAX_TRACED_LEAVES = 1024  # each is traced on its own, which takes milliseconds


@dataclass(frozen=True, eq=False)
class Latents:
    """The latent sites of a program that has sites with a density.

    Attributes:
        program: the program.
        shapes: the shape of each site with a density, by name, in the order in which they are sampled.
        sizes: the number of unconstrained coordinates of each.
        supports: the support of each: numpyro's constraints.
        leaves: the value of every finite site in each leaf, [L]; one empty leaf where there is no finite site.
        leaf_names: what the leaves are called, [L].
        observed: whether the program has sites that are observed (``obs=``).
    """

    program: Program
    shapes: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, int]
    supports: Mapping[str, Any]
    leaves: tuple[Mapping[str, Any], ...]
    leaf_names: tuple[str, ...]
    observed: bool

    @cached_property
    def example(self) -> Family:
        """The worlds of one point, for their sizes, words and rewards."""
        # At 0 itself, probabilities may be equal, or vanish, by symmetry alone.
        with jax.enable_x64(True):
            origin = _constrained(self, np.sin(1.0 + np.arange(self.dimension)))
        return self.mixture({name: np.asarray(value)[None] for name, value in origin.items()})[1]

    @property
    def dimension(self) -> int:
        """D, the length of an unconstrained vector."""
        return sum(self.sizes.values())

    def constrain(self, u: Float[Array, " D"]) -> tuple[dict[str, Array], Array]:
        """The sites at an unconstrained vector, and the log of the Jacobian of this map. Traceable."""
        sites, log_jacobian, start = {}, jnp.zeros((), u.dtype), 0
        for name, size in self.sizes.items():
            transform = biject_to(self.supports[name])
            part = u[start : start + size].reshape(transform.inverse_shape(self.shapes[name]))
            sites[name] = transform(part)
            log_jacobian = log_jacobian + transform.log_abs_det_jacobian(part, sites[name]).sum()
            start += size
        return sites, log_jacobian

    def unconstrain(self, sites: Mapping[str, Any]) -> Float[Array, " D"]:
        """The unconstrained vector of given sites. Traceable."""
        parts = [biject_to(self.supports[name]).inv(jnp.asarray(sites[name])).reshape(-1) for name in self.shapes]
        return jnp.concatenate(parts)

    def worlds(self, sites: Mapping[str, Any]) -> tuple[Float[Array, " L"], Family]:
        """The world of every leaf at given values of the sites with a density. Traceable.

        Returns:
            log P_Z(theta, leaf), nats, [L] (a density in theta, a probability of the leaf); and the worlds, as a
            family of L tasks whose own prior is uniform.
        """
        return _leaf_worlds(self, {name: jnp.asarray(sites[name]) for name in self.shapes})

    def mixture(self, points: Mapping[str, Any]) -> tuple[Float[np.ndarray, "M L"], Family]:
        """The worlds of many points, stacked: a family whose task m L + l is leaf l of point m.

        Args:
            points: the value of each site with a density, [M, ...].

        Returns:
            log P_Z(theta, leaf), nats, [M, L]; and the family of M L tasks, whose own prior is uniform. A kernel that
            comes out equal everywhere is stored once.
        """
        with jax.enable_x64(True):
            points = {name: np.asarray(points[name]) for name in self.shapes}
            M, L = len(next(iter(points.values()))), len(self.leaves)
            size = min(1 << max(M - 1, 0).bit_length(), _BLOCK)  # so that few sizes are compiled
            padded = {name: np.concatenate([a, a[-1:].repeat(-M % size, 0)]) for name, a in points.items()}
            blocks = [
                jax.tree.map(np.asarray, _worlds(self, {name: a[m : m + size] for name, a in padded.items()}))
                for m in range(0, M, size)
            ]
            log_prior, family = jax.tree.map(lambda *parts: np.concatenate(parts)[:M], *blocks)
            kernels: Any = (family.initial, family.transition, family.emission)
            initial, transition, emission = jax.tree.map(lambda a: _flatten(np.asarray(a), L), kernels)
        names = [name if M == 1 else f"draw {m}: {name}" for m in range(M) for name in self.leaf_names]
        blank = jax.tree.map(lambda a: a[0], family)
        stacked = Family(
            np.full(M * L, 1 / (M * L)),
            initial,
            transition,
            emission,
            np.asarray(blank.reward),
            horizon=family.horizon,
            instruction_prior=np.asarray(blank.instruction_prior),
            tasks=names,
            states=family.states,
            subgoals=family.subgoals,
            observations=family.observations,
            instructions=family.instructions,
        )
        return log_prior, stacked

    def log_joint(self, u: Float[Array, " D"], likelihood: Likelihood) -> Float[Array, " L"]:
        """log of the density of u and each leaf, times the probability of a prompt, nats. Traceable.

        Source: theory.md, section 8.
        """
        sites, log_jacobian = self.constrain(u)
        log_prior, family = self.worlds(sites)
        return log_prior + log_jacobian + likelihood(family)

    def draw(self, key: Any) -> tuple[dict[str, Any], Int[Array, ""]]:
        """One draw from the prior: the sites with a density, and the index of the leaf. Traceable.

        Every leaf draws the same where its sites before are the same, so picking a leaf by its probability is
        ancestral sampling.

        Raises:
            InvalidProgramError: the program observes something, so its prior is not that of its sites.
        """
        if self.observed:
            raise InvalidProgramError("the program has an observed site, so there is no drawing from its prior")
        by_leaf: list[dict[str, Any]] = []
        drawn: dict[str, tuple[Any, Any]] = {}

        def density(name: str, fn: Any) -> Any:
            if not by_leaf or name in by_leaf[-1]:
                by_leaf.append({})
            if name not in drawn or not _alike(drawn[name][0], fn):  # a sampler takes long to compile
                drawn[name] = fn, fn.sample(jax.random.fold_in(key, zlib.crc32(name.encode())))
            by_leaf[-1][name] = drawn[name][1]
            return drawn[name][1]

        leaves = self._run(density)
        weights = jnp.stack([jnp.asarray(leaf.weight) for leaf in leaves])
        leaf = jax.random.categorical(jax.random.fold_in(key, 0), safe_log(weights))
        sites = {name: jnp.stack([values[name] for values in by_leaf])[leaf] for name in self.shapes}
        return sites, leaf

    def _run(self, density: Any) -> list[Leaf]:
        return run_leaves(self.program, density, MAX_TRACED_LEAVES)


def as_latents(program: Family | Program | Latents) -> Latents | None:
    """The latent sites of a program, or None where it is finite.

    Raises:
        InvalidProgramError, TooLargeError: as :func:`find_latents`.
    """
    if isinstance(program, Latents):
        return program
    if isinstance(program, Family) or not has_density(program):
        return None
    return _find_latents(program)


def has_density(program: Program) -> bool:
    """Whether the first run of a program meets a site with a density.

    Raises:
        InvalidProgramError: it is no program, or its first run fails.
    """
    if not callable(program):
        raise InvalidProgramError(f"expected a program (a function that returns a World), got {type(program).__name__}")

    def density(name: str, fn: Any) -> Any:
        raise _MetError

    try:
        with jax.enable_x64(True):
            next(enumerate_leaves(program, density=density))
    except _MetError:
        return True
    return False


class _MetError(BayesparError):
    """A site with a density was met."""


def find_latents(program: Program) -> Latents:
    """The latent sites of a program that has sites with a density.

    They are remembered, with everything that is compiled for them, so a program must not change once it is used.

    Raises:
        InvalidProgramError: no site has a density; one exists under some values of the finite sites only, or its shape
            or support depends on other sites; or the program fails as under :func:`enumerate_program`.
        TooLargeError: more than 1024 joint values of the finite sites.
    """
    if not has_density(program):
        raise InvalidProgramError(
            "no site of the program has a density, so its tasks are finite: use bayespar.enumerate_program"
        )
    return _find_latents(program)


@lru_cache(maxsize=32)
def _find_latents(program: Program) -> Latents:
    runs: list[dict[str, tuple[tuple[int, ...], Any]]] = []
    kept: dict[str, Any] = {}

    def density(name: str, fn: Any) -> Array:
        if not runs or name in runs[-1]:
            runs.append({})
        runs[-1][name] = tuple(fn.shape()), fn.support
        return fn.sample(key_of[0])

    key_of: list[Any] = []

    def trace(key: Any) -> int:
        key_of.append(key)
        leaves = run_leaves(program, density, MAX_TRACED_LEAVES)
        kept["leaves"] = [leaf.sites for leaf in leaves]
        kept["names"] = task_names(leaves, check_worlds(leaves))
        kept["observed"] = any(leaf.observed for leaf in leaves)
        return 0

    with jax.enable_x64(True):
        jax.eval_shape(trace, jax.random.key(0))
    if len(runs) != len(kept["leaves"]) or any(run.keys() != runs[0].keys() for run in runs):
        raise InvalidProgramError(
            "a site with a density exists under some values of the finite sites only; sample it under all of them"
        )
    for name, (shape, support) in runs[0].items():
        if is_traced(vars(support)) or any(not _same(run[name], (shape, support)) for run in runs):
            raise InvalidProgramError(
                f"the shape or support of site '{name}' depends on other sites; sample it on a fixed one (a "
                "fraction, a standard score) and scale it"
            )
    shapes = {name: shape for name, (shape, _) in runs[0].items()}
    supports = {name: support for name, (_, support) in runs[0].items()}
    sizes = {n: int(np.prod(biject_to(supports[n]).inverse_shape(shapes[n]), dtype=int)) for n in shapes}
    latents = Latents(
        program, shapes, sizes, supports, tuple(kept["leaves"]), tuple(kept["names"]), bool(kept["observed"])
    )
    _ = latents.example  # built now, so that what is wrong with a world is said here
    return latents


def _alike(one: Any, other: Any) -> bool:
    """Whether two distributions are the same, as far as can be seen under a trace."""
    (mine, structure), (theirs, its) = jax.tree.flatten(one), jax.tree.flatten(other)
    return structure == its and all(
        a is b or (not is_traced(a, b) and np.array_equal(a, b)) for a, b in zip(mine, theirs, strict=True)
    )


def _same(one: Any, other: Any) -> bool:
    return one[0] == other[0] and bool(one[1] == other[1])


@partial(jax.jit, static_argnums=0)
def _constrained(latents: Latents, u: Float[Array, " D"]) -> dict[str, Array]:
    return latents.constrain(u)[0]


@partial(jax.jit, static_argnums=0)  # the program runs once, however many other programs need it
def _leaf_worlds(latents: Latents, sites: Mapping[str, Array]) -> tuple[Array, Family]:
    leaves = latents._run(lambda name, fn: sites[name])
    log_weights = jnp.stack([leaf.log_density + safe_log(jnp.asarray(leaf.weight)) for leaf in leaves])
    worlds = check_worlds(leaves)
    return log_weights, stack_worlds(np.full(len(leaves), 1 / len(leaves)), worlds, task_names(leaves, worlds))


@partial(jax.jit, static_argnums=0)
def _worlds(latents: Latents, points: Mapping[str, Array]) -> Any:
    return jax.vmap(latents.worlds)(points)


def _flatten(kernel: np.ndarray, leaves: int) -> np.ndarray:
    """[M, L or 1, ...] as [M L or 1, ...]."""
    if (kernel == kernel[:1, :1]).all():
        return kernel[0, :1]
    rest = kernel.shape[2:]
    return np.broadcast_to(kernel, (len(kernel), leaves, *rest)).reshape(-1, *rest)
