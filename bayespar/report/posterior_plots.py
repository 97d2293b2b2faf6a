"""Plots of one posterior: against its prior, against the data, by the ranks of its chains, and episode by episode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from arviz_stats.base.array import array_stats
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.stats import rankdata

from ..errors import InvalidProgramError, InvalidPromptError
from ..posterior.drawn import generator, prior_draws
from ..posterior.predictive import replicate
from ..posterior.result import Posterior
from ..posterior.sites import as_numbers, coordinate_names, finite_sites, in_order, totals
from ..posterior.tree import build_tree
from ..statistics import log_sum_exp
from ..validation import shown
from ..world import Family
from .palette import PALETTE
from .style import colour, frame, new_axes, new_figure, short, styled, whole_numbers

_PRIOR = "#a9adb2"
_MOST_PANELS = 12
_LONGEST = 60  # letters of a label
_MOST_BYTES = 2.0**28


@styled
def plot_marginals(result: Posterior, *, sites: Sequence[str] | None = None) -> Figure:
    """The posterior of every site against its prior: bars of exact probabilities, densities of what has a density.

    Args:
        result: any posterior.
        sites: names of sites, or "task" where tasks are finite; all sites by default.

    Raises:
        InvalidProgramError: there is no such site.
    """
    worlds, draws = result.worlds, dict(result.draws or {})
    finite = finite_sites(worlds)
    if isinstance(worlds, Family):
        finite = {"task": list(worlds.tasks), **finite}
    chosen = [name for name in (*finite, *draws) if name != "task" or len(finite) == 1] if sites is None else sites
    panels: list[tuple[str, Any]] = []
    for name in chosen:
        if name in finite:
            panels.append((name, None))
        elif name in draws:
            panels += [(name, place) for place in np.ndindex(draws[name].shape[2:])]
        else:
            raise InvalidProgramError(f"there is no site {shown(name)}; the sites are {', '.join([*finite, *draws])}")
    tree = build_tree(result, key=0, shape=(4, 500), max_bytes=0)
    more, panels = len(panels) - _MOST_PANELS, panels[:_MOST_PANELS]
    columns = min(len(panels), 2 if len(panels) == 4 else 3)
    rows = -(-len(panels) // columns)
    longest = max(
        [len(str(value)) for name in {n for n, _ in panels} & set(finite) for value in finite[name]], default=0
    )
    figure = new_figure(max((2.8 + 0.06 * min(longest, _LONGEST)) * columns, 4.4), 2.0 * rows + 0.75)
    for k, (name, place) in enumerate(panels):
        ax = figure.add_subplot(rows, columns, k + 1)
        if place is None:
            _bars(ax, name, finite[name], result, tree)
        else:
            _densities(ax, name, place, tree, "experimental" if result.log_weights is None else "scott")
    title = "Posterior against prior" + (f"; {more} more coordinates are not shown" if more > 0 else "")
    keys = [Patch(color=PALETTE["blue"][0], label="posterior"), Patch(color=_PRIOR, label="prior")]
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10.5)
    figure.legend(handles=keys, loc="outside lower left", ncols=2, frameon=False)
    return figure


@styled
def plot_ranks(result: Posterior, *, sites: Sequence[str] | None = None) -> Figure:
    """Ranks of each chain's draws among all draws: how far their distribution is from uniform.

    Chains of independent draws that agree all stay inside the band with probability 0.99, in each panel.

    Args:
        result: a posterior from chains.
        sites: names of sites with a density; all by default.

    Raises:
        InvalidProgramError: the posterior has no chains of its own, or there is no such site.

    Source: Vehtari, Gelman, Simpson, Carpenter and Buerkner (2021); Saeilynoja, Buerkner and Vehtari (2022).
    """
    if not result.draws or result.log_weights is not None:
        raise InvalidProgramError("ranks compare chains, and this posterior has none of its own")
    for name in sites or ():
        if name not in result.draws:
            raise InvalidProgramError(f"there is no site {shown(name)}; the sites are {', '.join(result.draws)}")
    draws = {name: np.asarray(result.draws[name]) for name in sites or result.draws}
    labels = coordinate_names({name: values.shape[2:] for name, values in draws.items()})
    columns = [x for v in draws.values() for x in np.moveaxis(v.reshape(*v.shape[:2], -1), -1, 0)]
    more, columns = len(columns) - _MOST_PANELS, columns[:_MOST_PANELS]
    wide = min(len(columns), 2 if len(columns) == 4 else 3)
    figure = new_figure(max(3.1 * wide, 4.4), 2.0 * -(-len(columns) // wide) + 0.75)
    places, band = rank_band(*columns[0].shape)
    for k, (label, x) in enumerate(zip(labels, columns, strict=False)):
        ax = figure.add_subplot(-(-len(columns) // wide), wide, k + 1)
        ax.fill_between(places, -band, band, color=PALETTE["line"][0], alpha=0.6, lw=0, step="mid")
        for c, difference in enumerate(rank_differences(x, places)):
            ax.step(places, difference, where="mid", color=colour(c), lw=1.2)
        ax.set(xlim=(0, 1), xlabel="rank, as a share of all draws", ylabel="difference")
        _panel(ax, label, "x")
    title = "Ranks of each chain against uniform" + (f"; {more} more coordinates are not shown" if more > 0 else "")
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10.5)
    keys = [Line2D([], [], color=colour(c), label=f"chain {c}") for c in range(min(columns[0].shape[0], 10))]
    figure.legend(handles=keys, loc="outside lower left", ncols=min(len(keys), 5), frameon=False)
    return figure


def rank_differences(
    x: Float[np.ndarray, "chain draw"], places: Float[np.ndarray, " P"]
) -> Float[np.ndarray, "chain P"]:
    """The share of each chain's draws among the lowest of all draws, less what is expected; ties share their rank."""
    return _differences(rankdata(x, axis=None).reshape(x.shape) / x.size, places)


def _differences(shares: np.ndarray, places: np.ndarray) -> np.ndarray:
    return (shares[:, None] <= places[:, None] + 1e-12).mean(axis=2) - places


def rank_band(chains: int, draws: int) -> tuple[Float[np.ndarray, " P"], Float[np.ndarray, " P"]]:
    """Places in (0, 1), and the band that exchangeable draws of all chains stay in with probability 0.99.

    The number of a chain's draws among the lowest is hypergeometric; its standard deviation gives the band its shape,
    and 2000 permutations give it its width.
    """
    total = chains * draws
    lowest = np.unique(np.linspace(0, total, min(draws, 60) + 1).astype(int))[1:-1]
    places = lowest / total
    sd = np.sqrt(places * (1 - places) * (total - draws) / (draws * max(total - 1, 1)))
    random = np.random.default_rng(0)
    furthest = np.empty(2000)
    for n in range(len(furthest)):
        differences = _differences((random.permutation(total) + 1).reshape(chains, draws) / total, places)
        furthest[n] = (np.abs(differences) / np.where(sd > 0, sd, 1)).max(initial=0)
    return places, np.quantile(furthest, 0.99) * sd


@styled
def plot_predictive_check(result: Posterior, *, step: int | None = None, ax: Axes | None = None) -> Axes:
    """How often each observation was seen in the finished episodes, against replicates from the posterior.

    Replicates are one step ahead, so the check is right whoever chose the subgoals.

    Args:
        result: of a prompt with at least one finished episode.
        step: count the observations at this step (from 0) only; all by default.
        ax: where to draw; a new figure by default.

    Raises:
        InvalidPromptError: no finished episode, more than memory should hold, or no such step.
    """
    prompt, worlds = result.prompt, result.worlds
    if prompt is None or not prompt.num_episodes:
        raise InvalidPromptError("the prompt has no finished episode to check predictions against")
    H = prompt.observations.shape[1]
    if step is not None and (isinstance(step, bool) or not 0 <= step < H):
        raise InvalidPromptError(f"step = {shown(step)}; give one from 0 to {H - 1}")
    tree = build_tree(result, key=0, shape=(4, 250), max_bytes=_MOST_BYTES)
    if "posterior_predictive" not in tree.children:
        raise InvalidPromptError(f"{prompt.num_episodes} episodes are too many to replicate for each draw")
    steps = slice(None) if step is None else slice(step, step + 1)
    words = (worlds if isinstance(worlds, Family) else worlds.example).observations
    replicates = tree["posterior_predictive"].to_dataset()["observations"].values[..., steps]
    replicates = replicates.reshape(replicates.shape[0] * replicates.shape[1], -1)
    counts = np.stack([(replicates == o).sum(axis=1) for o in range(len(words))])
    seen = np.bincount(prompt.observations[:, steps].ravel(), minlength=len(words))
    show = np.flatnonzero(seen + counts.max(axis=1))
    low, middle, high = np.quantile(counts[show], [0.05, 0.5, 0.95], axis=1, method="inverted_cdf")

    ax = new_axes(ax, 7.4, 1.0 + 0.25 * len(show))
    y = np.arange(len(show))
    ax.hlines(y, low, high, color=PALETTE["blue"][0], lw=6, alpha=0.3, label="middle 90 % of replicates")
    ax.scatter(middle, y, marker="|", s=70, color=PALETTE["blue"][0], lw=2, label="median of replicates")
    ax.scatter(seen[show], y, s=24, color=PALETTE["ink"][0], zorder=3, label="seen")
    ax.set_yticks(y, [short(words[o]) for o in show])
    ax.set(ylim=(len(show) - 0.4, -0.6), xlabel=f"times in {prompt.num_episodes} episodes")
    ax.set_xlim(left=min(-0.02 * max(high.max(), seen.max()), 0))
    whole_numbers(ax)
    return frame(ax, "Observations" + ("" if step is None else f" at step {step}") + ": seen and replicated", grid="x")


@styled
def plot_evidence(result: Posterior, *, ax: Axes | None = None) -> Axes:
    """The evidence of each finished episode, nats: under the prior, and under the posterior that has seen them all.

    What the prompt taught about an episode is the difference. Where tasks are finite all is exact, and the evidence
    given the episodes before it is shown too; it adds up to the log evidence of all of them.

    Args:
        result: of a prompt with at least one finished episode.
        ax: where to draw; a new figure by default.

    Raises:
        InvalidPromptError: no finished episode, or more than memory should hold.

    Source: theory.md, W1.
    """
    series = episode_evidence(result)
    x = np.arange(len(next(iter(series.values()))))
    ax = new_axes(ax, float(np.clip(4.6 + 0.12 * len(x), 6, 9.5)), 2.9)
    few = len(x) <= 60
    looks = {
        _UNDER_PRIOR: (_PRIOR, "s"),
        _SEQUENTIAL: (PALETTE["vermillion"][0], "^"),
        _AFTER: (PALETTE["blue"][0], "o"),
    }
    if few and _UNDER_PRIOR in series:
        ax.vlines(x, series[_UNDER_PRIOR], series[_AFTER], color=PALETTE["line"][0], lw=1.4, zorder=1)
    for name, values in series.items():
        tint, marker = looks[name]
        told = f"{name}\n({values.sum():.2f} nats in all)" if name == _SEQUENTIAL else name
        ax.plot(x, values, marker if few else "-", color=tint, ms=5, lw=1.1, label=told)
    ax.set(xlabel="episode", ylabel="log evidence (nats)")
    whole_numbers(ax)
    return frame(ax, "Evidence of each episode")


_UNDER_PRIOR, _SEQUENTIAL, _AFTER = "under the prior", "given those before", "under the posterior"


def episode_evidence(result: Posterior) -> dict[str, Float[np.ndarray, " N"]]:
    """log evidence of each finished episode, nats, by what is known: see :func:`plot_evidence`."""
    prompt, worlds = result.prompt, result.worlds
    if prompt is None or not prompt.num_episodes:
        raise InvalidPromptError("the prompt has no finished episode")
    if isinstance(worlds, Family):
        with np.errstate(divide="ignore"):
            prior = np.log(np.asarray(worlds.task_prior, np.float64))[:, None]
        episodes = np.asarray(result.episode_log_evidence)
        so_far = log_sum_exp(np.cumsum(np.concatenate([prior, episodes], axis=1), axis=1).T)
        after = np.asarray(result.log_probabilities)[:, None]
        return {
            _UNDER_PRIOR: log_sum_exp((prior + episodes).T),
            _SEQUENTIAL: np.diff(so_far),
            _AFTER: log_sum_exp((after + episodes).T),
        }
    tree = build_tree(result, key=0, shape=(4, 500), max_bytes=_MOST_BYTES)
    if "log_likelihood" not in tree.children:
        raise InvalidPromptError(f"{prompt.num_episodes} episodes are too many to evaluate for each draw")
    after = tree["log_likelihood"].to_dataset()["observations"].values
    drawn = prior_draws(worlds, after.shape[:2], 0)
    found = {} if drawn is None else {_UNDER_PRIOR: replicate(worlds, drawn, prompt, generator(0, 3))[0]}
    logs = {name: values.reshape(-1, values.shape[-1]).T for name, values in {**found, _AFTER: after}.items()}
    return {name: log_sum_exp(values) - np.log(values.shape[1]) for name, values in logs.items()}


def _bars(ax: Axes, name: str, values: list[Any], result: Posterior, tree: xr.DataTree) -> None:
    """Probabilities of the values of a finite site, the posterior's above the prior's."""
    worlds = result.worlds
    marginal = totals(name, values, result.world_probabilities)
    labels = [short(v, _LONGEST) for v in marginal.coords[name].values]
    prior = None
    if isinstance(worlds, Family):
        prior = totals(name, values, np.asarray(worlds.task_prior, np.float64)).values
    elif "prior" in tree.children:
        prior = _shares(tree, name, values, len(labels))
    order = np.arange(len(labels))
    if len(labels) > 8:
        order = np.argsort(-marginal.values, kind="stable")[:8]
    y = np.arange(len(order))
    ax.barh(y - 0.2, marginal.values[order], 0.38, color=PALETTE["blue"][0])
    if prior is not None:
        ax.barh(y + 0.2, prior[order], 0.38, color=_PRIOR)
    ax.set_yticks(y, [labels[k] for k in order])
    ax.set(ylim=(len(order) - 0.5, -0.5), xlim=(0, 1), xlabel="probability")
    _panel(ax, name, "x")


def _shares(tree: xr.DataTree, name: str, values: list[Any], count: int) -> Float[np.ndarray, " values"]:
    """How often each value of a finite site comes among draws from the prior."""
    prior = tree["prior"].to_dataset()
    drawn = prior[name if name in prior else f"{name}_"].values
    numbers, _ = as_numbers(values)
    places = [numbers[values.index(value)] for value in in_order(values)]
    return np.array([(drawn == place).mean() for place in places[:count]])


def _densities(ax: Axes, name: str, place: tuple[int, ...], tree: xr.DataTree, bandwidth: str) -> None:
    """Densities of one coordinate of a site; an axis without numbers, for only their shape and place say something.

    Resampled points repeat, which a bandwidth that looks at fine structure would take for modes.
    """
    variable = name if name in tree["posterior"] else f"{name}_"
    for group, tint in (("prior", _PRIOR), ("posterior", PALETTE["blue"][0])):
        if group not in tree.children:
            continue
        x, density, _ = array_stats.kde(tree[group].to_dataset()[variable].values[(..., *place)].ravel(), bw=bandwidth)
        ax.fill_between(x, density, color=tint, alpha=0.35, lw=0)
        ax.plot(x, density, color=tint, lw=1.4)
    ax.set(ylim=(0, None), ylabel="density")
    ax.set_yticks([])
    _panel(ax, f"{name}[{', '.join(map(str, place))}]" if place else name, "x")


def _panel(ax: Axes, title: str, grid: str) -> None:
    frame(ax, "", grid=grid)
    ax.set_title(title, loc="left", fontsize=9.5)
    ax.tick_params(labelsize=8.5)
