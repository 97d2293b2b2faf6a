"""Integrals over the whole line or plane, by a lattice of nodes that is filled outwards from the modes.

For what is smooth and falls off at least exponentially, a plain sum over a lattice (the trapezoid rule) converges
faster than any power of its spacing: a Gaussian is integrated to 5e-9 by nodes one standard deviation apart, to 1e-33
at half of that. The first spacing is the width of the density at its mode, and the lattice goes as far as the density
is worth it, so a narrow density takes no more nodes than a wide one, and no box is guessed.

The lattice of spacing h consists of 2^D lattices of spacing 2h, each a quadrature of its own: by how much they differ
from the whole is the error estimate. It is that of the coarser ones, so the whole is better than it says.

Source: Trefethen and Weideman (2014), "The exponentially convergent trapezoidal rule".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..errors import TooLargeError
from ..statistics import log_normalise, log_sum_exp

Density = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Points [n, D] to their log densities [n] and those of their parts [n, L], nats."""

_DEPTH = 45.0  # nats below the mode where the filling stops: 3e-20 of the density there
_SHELL = 5.0  # the last nats of it; falling exponentially, there is less mass below them than in them
_FLAT = 1e-2  # nats between neighbours, where a climb has arrived
_CLIMB = 100  # rounds of a compass search, at most
_OFFSET = 2**30  # indices stay below it


@dataclass(frozen=True)
class Lattice:
    """A lattice that is fine enough, or as fine as was allowed.

    Attributes:
        points: of the nodes, [n, D].
        log_density: at the nodes, nats, [n].
        parts: of it, nats, [n, L].
        spacing: along each axis, [D].
        error: of the log integral (nats), of the share of each part, and of the mean of each column (in its standard
            deviations), at most.
    """

    points: Float[np.ndarray, "n D"]
    log_density: Float[np.ndarray, " n"]
    parts: Float[np.ndarray, "n L"]
    spacing: Float[np.ndarray, " D"]
    error: float

    @property
    def log_integral(self) -> float:
        """log of the integral of the density, nats."""
        return float(log_sum_exp(self.log_density) + np.log(self.spacing).sum())

    @property
    def shares(self) -> Float[np.ndarray, "n L"]:
        """The share of each part at each node, as :func:`shares`."""
        return shares(self.log_density, self.parts)


def integrate(
    density: Density,
    starts: Float[np.ndarray, "m D"],
    columns: Callable[[np.ndarray], np.ndarray],
    *,
    tolerance: float,
    max_nodes: int,
) -> Lattice:
    """Integrate a density.

    Args:
        density: the density, in parts.
        starts: points of positive density to climb from.
        columns: functions of a point whose means are wanted, [n, D] to [n, K]; the error counts theirs.
        tolerance: halve the spacing until the error is at most this.
        max_nodes: of a lattice; where it does not suffice for the tolerance, the error says so.

    Raises:
        TooLargeError: it does not suffice for the first lattice.
    """
    modes = _modes(density, starts)
    centre = modes[0]
    spacing = _width(density, centre)
    nodes, total, parts = _fill(
        density, centre, spacing, np.rint((modes - centre) / spacing).astype(np.int64), max_nodes
    )
    while True:
        points = centre + nodes * spacing
        error = _error(nodes, total, parts, columns(points))
        if error <= tolerance:
            break
        try:
            nodes, total, parts = _fill(density, centre, spacing / 2, _children(nodes[total > -np.inf]), max_nodes)
        except TooLargeError:
            break
        spacing = spacing / 2
    return Lattice(points, total, parts, spacing, error)


def _modes(density: Density, points: Float[np.ndarray, "m D"]) -> Float[np.ndarray, "n D"]:
    """Where compass search ends, best first, as far down as the filling reaches."""
    D = points.shape[1]
    best, steps, rows = density(points)[0], np.ones_like(points), np.arange(len(points))
    for _ in range(_CLIMB):
        flat = True
        for d in range(D):
            move = steps[:, d, None] * np.eye(D)[d]
            tried = np.stack([points + move, points - move])
            values = density(tried.reshape(-1, D))[0].reshape(2, -1)
            side = values.argmax(axis=0)
            better = values[side, rows] > best
            flat &= bool((np.abs(values - best) < _FLAT).all())
            points = np.where(better[:, None], tried[side, rows], points)
            best = np.where(better, values[side, rows], best)
            steps[:, d] *= np.where(better, 2.0, 0.5)
        if flat:
            break
    order = np.argsort(-best, kind="stable")
    return points[order[best[order] > best.max() - _DEPTH]]


def _width(density: Density, mode: Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
    """How far from a mode the log density has fallen by half a nat, the mean of both sides, along each axis."""
    D, scales = len(mode), 2.0 ** np.arange(-30, 12)
    offsets = scales[:, None, None] * np.eye(D)
    values = density(np.concatenate([mode + offsets, mode - offsets]).reshape(-1, D))[0].reshape(2, -1, D)
    fallen = density(mode[None])[0] - values.mean(axis=0) >= 0.5
    return scales[np.where(fallen.any(axis=0), fallen.argmax(axis=0), len(scales) - 1)]


def _fill(
    density: Density,
    centre: Float[np.ndarray, " D"],
    spacing: Float[np.ndarray, " D"],
    start: Int[np.ndarray, "m D"],
    max_nodes: int,
) -> tuple[Int[np.ndarray, "n D"], Float[np.ndarray, " n"], Float[np.ndarray, "n L"]]:
    """The nodes of a lattice, filled from ``start`` to where the density is ``_DEPTH`` below its largest.

    Returns:
        Indices of the nodes, their log densities, and those of each leaf, nats.
    """
    D = len(centre)
    steps = np.concatenate([np.eye(D, dtype=np.int64), -np.eye(D, dtype=np.int64)])
    seen, parts, values, top = np.zeros(0, np.int64), [], [], -np.inf
    new = np.unique(_codes(start))
    while len(new):
        seen = np.union1d(seen, new)
        if len(seen) > max_nodes:
            raise TooLargeError(
                f"a lattice of spacing {spacing.tolist()} has more than max_nodes = {max_nodes} nodes; raise it, "
                'or use method="nuts" or method="smc"',
                8 * len(seen) * (D + 2),
            )
        nodes = _indices(new, D)
        total, logs = density(centre + nodes * spacing)
        parts.append(nodes)
        values.append((total, logs))
        top = max(top, total.max())
        worth = nodes[total > top - _DEPTH]
        new = np.setdiff1d(_codes((worth[:, None] + steps).reshape(-1, D)), seen)
    nodes = np.concatenate(parts)
    order = np.lexsort(nodes.T[::-1])
    return nodes[order], np.concatenate([t for t, _ in values])[order], np.concatenate([v for _, v in values])[order]


def _codes(nodes: Int[np.ndarray, "n D"]) -> Int[np.ndarray, " n"]:
    """One number a node."""
    return (nodes + _OFFSET) @ (2 * _OFFSET) ** np.arange(nodes.shape[1])


def _indices(codes: Int[np.ndarray, " n"], dimension: int) -> Int[np.ndarray, "n D"]:
    return np.stack([codes // (2 * _OFFSET) ** d % (2 * _OFFSET) for d in range(dimension)], axis=1) - _OFFSET


def _children(nodes: Int[np.ndarray, "n D"]) -> Int[np.ndarray, "m D"]:
    """The nodes of the lattice of half the spacing that are those of this one, or next to them."""
    D = nodes.shape[1]
    near = np.stack(np.meshgrid(*[[-1, 0, 1]] * D, indexing="ij"), axis=-1).reshape(-1, D)
    return (2 * nodes[:, None] + near).reshape(-1, D)


def _error(
    nodes: Int[np.ndarray, "n D"],
    total: Float[np.ndarray, " n"],
    parts: Float[np.ndarray, "n L"],
    columns: Float[np.ndarray, "n K"],
) -> float:
    """How far the lattices of twice the spacing are from their union, plus what lies below its depth, plus rounding."""
    D, L = nodes.shape[1], parts.shape[1]
    weights = np.exp(log_normalise(total))
    columns = np.concatenate([shares(total, parts), columns], axis=1)
    mean = weights @ columns
    scale = np.sqrt(weights @ (columns - mean) ** 2)
    scale = np.where((np.arange(len(mean)) < L) | (scale == 0), 1.0, scale)
    worst, place = 0.0, (nodes % 2) @ 2 ** np.arange(D)
    for part in range(2**D):
        mine = place == part
        mass = float(weights[mine].sum())
        if not mass > 0:
            return math.inf
        off = np.abs(weights[mine] @ columns[mine] / mass - mean) / scale
        worst = max(worst, abs(math.log(mass * 2**D)), float(off.max()))
    tail = float(weights[total < total.max() - _DEPTH + _SHELL].sum())
    rounding = 1e-13 + 4e-16 * abs(float(log_sum_exp(total)))
    return worst + tail + rounding


def shares(total: Float[np.ndarray, " n"], parts: Float[np.ndarray, "n L"]) -> Float[np.ndarray, "n L"]:
    """The share of each part, whose logs are given, at each node, [n, L]; equal ones where there is no density."""
    return np.exp(log_normalise(np.where((total > -np.inf)[:, None], parts, 0.0)))
