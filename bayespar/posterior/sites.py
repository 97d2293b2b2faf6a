"""The values of finite sites: of each task where tasks are finite, of each leaf beside sites with a density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from ..world import Family
from .latents import Latents


def finite_sites(worlds: Family | Latents) -> dict[str, list[Any]]:
    """The value of each finite site under every task or leaf, by name; None where the site does not exist."""
    if isinstance(worlds, Family):
        return {name: list(values) for name, values in worlds.sites}
    names = dict.fromkeys(name for leaf in worlds.leaves for name in leaf)
    return {name: [_plain(leaf.get(name)) for leaf in worlds.leaves] for name in names}


def in_order(values: Sequence[Any]) -> list[Any]:
    """The distinct values: numbers by size, a missing one last."""
    distinct = list(dict.fromkeys(values))
    return sorted(distinct, key=lambda v: (v is None, str(type(v)), v or 0))


def totals(name: str, values: Sequence[Any], probabilities: Float[np.ndarray, " Z"]) -> xr.DataArray:
    """The probability of every value of a site, from those of tasks or leaves; the values are the coordinate."""
    order = in_order(values)
    index = np.array([order.index(value) for value in values])
    found = np.bincount(index, weights=probabilities, minlength=len(order))
    return xr.DataArray(found, dims=[name], coords={name: coordinate(order)}, name="probability")


def coordinate(values: list[Any]) -> Any:
    """Values as a coordinate: numbers and strings as they are, anything else as text."""
    kinds = {type(v) for v in values}
    return values if kinds in ({int}, {float}, {str}, {bool}) else [str(v) for v in values]


def as_numbers(values: Sequence[Any]) -> tuple[np.ndarray, list[str] | None]:
    """The values as numbers; where they are none, their places among :func:`in_order`, and what each place means."""
    if all(isinstance(v, (int, float)) for v in values):
        return np.array([v * 1 for v in values]), None
    order = in_order(values)
    return np.array([order.index(v) for v in values]), [str(v) for v in order]


def coordinate_names(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The name of every coordinate of every site, as in ``rows[0, 1]``, in order."""
    return [
        f"{name}[{', '.join(map(str, place))}]" if place else name
        for name, shape in shapes.items()
        for place in np.ndindex(*shape)
    ]


def _plain(value: Any) -> Any:
    """Arrays as numbers and nested tuples."""

    def tuples(items: Any) -> Any:
        return tuple(map(tuples, items)) if isinstance(items, list) else items

    return tuples(np.asarray(value).tolist()) if hasattr(value, "dtype") else value
