"""A posterior as an xarray.DataTree: named dims, ArviZ's groups, and attributes that every file format can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
import xarray as xr

from ..errors import InvalidPlannerError
from ..keys import as_key
from ..validation import check_count, shown
from ..world import Family
from .drawn import Drawn, drawn_points, drawn_tasks, generator, prior_draws, prior_tasks
from .predictive import replicate
from .result import Posterior
from .sites import as_numbers, finite_sites

PACKAGES = ("bayespar", "jax", "numpyro", "arviz-base", "xarray")
_TAKEN = {"chain", "draw", "task", "leaf", "probability", "leaf_probability", "task_index"}

_CHAINS = "the method's own draws"
_TASKS = "tasks drawn systematically by their exact probabilities: R-hat and ESS say nothing about them"
_RESAMPLED = "points resampled systematically by their weights: R-hat and ESS say nothing about them"
_BEHAVIOUR = "each observation one step ahead, given what was seen before it in its episode and the subgoals executed"


def build_tree(result: Posterior, *, key: Any, shape: tuple[int, int], max_bytes: float) -> xr.DataTree:
    """See :meth:`bayespar.posterior.result.Posterior.to_datatree`."""
    chains, draws = _check_shape(shape)
    key_data = np.asarray(jax.random.key_data(as_key(key))).ravel()
    worlds = result.worlds
    drawn = _drawn(result, (chains, draws), key)
    groups = {"posterior": _draws(worlds, drawn), "prior": _prior(worlds, drawn.world.shape, key)}
    sampling = _CHAINS if drawn.point is None else _RESAMPLED
    if isinstance(worlds, Family):
        sampling = _TASKS
        groups["posterior"]["probability"] = _tasks(worlds, result.probabilities)
        groups["prior"]["probability"] = _tasks(worlds, np.asarray(worlds.task_prior))
    elif len(worlds.leaves) > 1 and result.leaf_probabilities is not None:
        leaves = np.asarray(result.leaf_probabilities)
        if drawn.point is not None:
            leaves = leaves.reshape(-1, leaves.shape[-1])[drawn.point]
        groups["posterior"]["leaf_probability"] = (["chain", "draw", "leaf"], leaves)
        groups["posterior"].coords["leaf"] = _words(worlds.leaf_names)
    groups["sample_stats"] = _sample_stats(result, drawn)
    if drawn.point is not None:
        groups["points"] = _points(result)
    left_out = _data(groups, result, drawn, key, max_bytes)

    tree = xr.DataTree.from_dict({name: group for name, group in groups.items() if group is not None})
    attributes: dict[str, Any] = {"method": result.method, "sampling": sampling}
    if not np.isnan(result.log_evidence):
        attributes["log_evidence"] = result.log_evidence
    attributes |= {name.replace("-", "_") + "_version": version(name) for name in PACKAGES}
    attributes |= {"datatree_key": " ".join(map(str, key_data))}
    if left_out:
        attributes["left_out"] = ", ".join(left_out)
    if result.diagnostics is not None:
        attributes["problems"] = "; ".join(result.diagnostics.problems)
    tree.attrs.update({name: plain(value) for name, value in (attributes | dict(result.attributes)).items()})
    return tree


def plain(value: Any) -> str | int | float:
    """A number or a string that says ``value``: the only attributes that NetCDF and Zarr both keep as they are."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value)).lower()
    if isinstance(value, (int, np.integer)):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, (float, np.floating)):
        return float(value)
    if isinstance(value, str):
        return value
    if isinstance(value, jax.Array) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
        value = jax.random.key_data(value)
    if isinstance(value, (np.ndarray, jax.Array)):
        value = np.asarray(value).tolist()
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)


def _check_shape(shape: Any) -> tuple[int, int]:
    if not isinstance(shape, tuple) or len(shape) != 2:
        raise InvalidPlannerError(f"shape = {shown(shape)}; give a pair: how many chains, and how many draws of each")
    return check_count("shape[0]", shape[0]), check_count("shape[1]", shape[1])


def _drawn(result: Posterior, shape: tuple[int, int], key: Any) -> Drawn:
    random = generator(key, 0)
    if isinstance(result.worlds, Family):
        return drawn_tasks(result.probabilities, shape, random)
    points = {name: np.asarray(values) for name, values in (result.draws or {}).items()}
    leaves = result.leaf_probabilities
    leaves = np.ones((*result.weights.shape, 1)) if leaves is None else np.asarray(leaves)
    return drawn_points(points, leaves, result.log_weights, shape, random)


def _prior(worlds: Any, shape: tuple[int, ...], key: Any) -> xr.Dataset | None:
    shape = (shape[0], shape[1])
    if isinstance(worlds, Family):
        return _draws(worlds, prior_tasks(worlds, shape, generator(key, 1)))
    drawn = prior_draws(worlds, shape, key)
    return None if drawn is None else _draws(worlds, drawn)


def _draws(worlds: Any, drawn: Drawn) -> xr.Dataset:
    """Every site of every draw; words are given by their places, and the attribute ``values`` lists them."""
    shape = drawn.world.shape
    coords: dict[str, Any] = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    variables: dict[str, Any] = {}
    for name, values in drawn.sites.items():
        dims = [f"{name}_dim_{i}" for i in range(values.ndim - 2)]
        variables[_free(name)] = (["chain", "draw", *dims], values)
        coords |= {dim: np.arange(size) for dim, size in zip(dims, values.shape[2:], strict=True)}
    for name, values in finite_sites(worlds).items():
        numbers, words = as_numbers(values)
        attrs = {} if words is None else {"values": json.dumps(words, ensure_ascii=False)}
        variables[_free(name)] = (["chain", "draw"], numbers[drawn.world], attrs)
    if isinstance(worlds, Family) and not worlds.sites:
        variables["task_index"] = (["chain", "draw"], drawn.world)
    return xr.Dataset(variables, coords=coords)


def _free(name: str) -> str:
    """The name of a site, with an underscore where it would hide a dimension or a variable of ours."""
    return f"{name}_" if name in _TAKEN else name


def _words(names: Sequence[str]) -> np.ndarray:
    """Names as a coordinate; numpy's strings of a fixed length have no place in Zarr's specification."""
    return np.array(names, dtype=object)


def _tasks(family: Family, probabilities: np.ndarray) -> xr.DataArray:
    return xr.DataArray(probabilities, dims=["task"], coords={"task": _words(family.tasks)}, name="probability")


def _sample_stats(result: Posterior, drawn: Drawn) -> xr.Dataset:
    shape = drawn.world.shape
    variables: dict[str, Any] = {}
    if result.log_probabilities is not None:
        variables["lp"] = (["chain", "draw"], np.asarray(result.log_probabilities)[drawn.world])
    for name, values in result.sample_stats.items():
        values = np.asarray(values)
        if drawn.point is not None and values.shape[:2] == result.weights.shape:
            values = values.reshape(-1, *values.shape[2:])[drawn.point]
        own = values.shape[:2] == shape
        dims = ["chain", "draw"] if own else []
        dims += [f"{name}_dim_{i}" for i in range(values.ndim - len(dims))]
        variables[name] = (dims, values)
    if drawn.point is not None and result.log_weights is not None:
        variables["point"] = (["chain", "draw"], drawn.point)
        variables["log_weight"] = (["chain", "draw"], np.asarray(result.log_weights).ravel()[drawn.point])
    return xr.Dataset(variables, coords={"chain": np.arange(shape[0]), "draw": np.arange(shape[1])})


def _points(result: Posterior) -> xr.Dataset:
    """The points before they were resampled, with their exact weights."""
    variables: dict[str, Any] = {}
    for name, values in (result.draws or {}).items():
        flat = np.asarray(values).reshape(-1, *np.shape(values)[2:])
        variables[_free(name)] = (["point", *(f"{name}_dim_{i}" for i in range(flat.ndim - 1))], flat)
    variables["log_weight"] = (["point"], np.asarray(result.log_weights).ravel())
    if result.leaf_probabilities is not None:
        leaves = np.asarray(result.leaf_probabilities)
        variables["leaf_probability"] = (["point", "leaf"], leaves.reshape(-1, leaves.shape[-1]))
    return xr.Dataset(variables)


def _data(groups: dict[str, Any], result: Posterior, drawn: Drawn, key: Any, max_bytes: float) -> list[str]:
    """Add the groups of what was observed; returns what was left out for its size."""
    worlds, prompt = result.worlds, result.prompt
    if prompt is None:
        return []
    family = worlds if isinstance(worlds, Family) else worlds.example
    N, H = prompt.observations.shape
    words = {
        "subgoal": _words(family.subgoals),
        "observation": _words(family.observations),
        "state": _words(family.states),
        "instruction": _words(family.instructions),
    }
    groups["constant_data"] = xr.Dataset(
        {
            "subgoals": (["episode", "decision"], np.asarray(prompt.subgoals)),
            "instructions": (["episode"], np.asarray(prompt.instructions)),
            "current_observations": (["current_step"], np.asarray(prompt.current_observations)),
            "current_subgoals": (["current_decision"], np.asarray(prompt.current_subgoals)),
            "current_instruction": ([], np.int32(prompt.current_instruction)),
        },
        coords=words,
    )
    if not N:
        return []
    steps: Mapping[str, Any] = {"episode": np.arange(N), "step": np.arange(H)}
    chains = {"chain": np.arange(drawn.world.shape[0]), "draw": np.arange(drawn.world.shape[1])}
    groups["observed_data"] = xr.Dataset(
        {"observations": (["episode", "step"], np.asarray(prompt.observations))}, coords=steps
    )
    log_likelihood, left_out = xr.Dataset(coords={"episode": np.arange(N)}), []
    if isinstance(worlds, Family) and result.episode_log_evidence is not None:
        exact = (["task", "episode"], np.asarray(result.episode_log_evidence))
        log_likelihood = log_likelihood.assign(log_likelihood=exact).assign_coords(task=_words(worlds.tasks))
    if 8 * drawn.world.size * N * max(H // 4, 1) > max_bytes:
        left_out = ["log_likelihood/observations", "posterior_predictive/observations"]
    else:
        values, replicates = replicate(worlds, drawn, prompt, generator(key, 2))
        named = (["chain", "draw", "episode"], values)
        log_likelihood = log_likelihood.assign(observations=named).assign_coords(chains)
        groups["posterior_predictive"] = xr.Dataset(
            {"observations": (["chain", "draw", "episode", "step"], replicates)},
            coords={**chains, **steps},
            attrs={"behaviour": _BEHAVIOUR},
        )
    if log_likelihood.data_vars:
        groups["log_likelihood"] = log_likelihood
    return left_out
