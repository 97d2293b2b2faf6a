"""Everything that depends on which ArviZ is installed, and files.

ArviZ 0.x (Python 3.11) takes InferenceData, ArviZ 1.x takes an xarray.DataTree. Both want every variable of the groups
that they read to have the dims ``chain`` and ``draw``.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

import xarray as xr

from ..errors import BayesparError

_READ = ("posterior", "prior", "log_likelihood", "posterior_predictive")


class MissingPackageError(BayesparError, ImportError):
    """A package is not installed that only some users need; the message says how to install it."""


def as_arviz(tree: xr.DataTree) -> Any:
    """What the functions of the installed ``arviz`` take, of a tree that was built here or loaded from a file.

    Exact variables, which have no draws, are moved to groups of their own: ``exact_posterior``, ``exact_prior`` and
    ``exact_log_likelihood``.

    Returns:
        InferenceData with ArviZ 0.x, an xarray.DataTree with 1.x.

    Raises:
        MissingPackageError: ``arviz`` is not installed.
    """
    if find_spec("arviz") is None:
        raise MissingPackageError('arviz is not installed; pip install "bayespar[arviz]"')
    import arviz

    groups: dict[str, xr.Dataset] = {}
    for name, child in tree.children.items():
        group = child.to_dataset()
        exact = [v for v in group.data_vars if not {"chain", "draw"} <= set(group[v].dims)]
        if name not in _READ or not exact:
            groups[name] = group
            continue
        drawn = group.drop_vars(exact)
        used = {dim for v in drawn.data_vars for dim in drawn[v].dims}
        groups[name] = drawn.drop_dims([dim for dim in drawn.dims if dim not in used])
        groups[f"exact_{name}"] = group[exact].drop_vars(["chain", "draw"], errors="ignore")
    for name in {"posterior", "prior"} & set(groups):
        groups[name] = groups[name].map(_rankable, keep_attrs=True)
    moved = xr.DataTree.from_dict({name: group for name, group in groups.items() if group.data_vars})
    moved.attrs.update(tree.attrs)
    if int(arviz.__version__.split(".")[0]) >= 1:
        return moved
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*group.*not defined in the InferenceData scheme")
        return arviz.InferenceData.from_datatree(moved)


def _rankable(values: xr.DataArray) -> xr.DataArray:
    """Integers that are all equal as floats: ArviZ ranks integers by a spline through two of them."""
    return values.astype(float) if values.dtype.kind == "i" and values.min() == values.max() else values
