"""Plots along a prompt: what is believed after each observation, and what a planner proposes at each decision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes

from ..arrays import precision_of
from ..errors import InvalidProgramError, InvalidPromptError
from ..history import Prompt, check_prompt
from ..planning.bail import BailPlanner
from ..planning.expert import Experts, check_experts, solve_experts
from ..planning.planner import Episode, Observed, check_probabilities
from ..posterior.exact import posterior_path
from ..posterior.latents import Latents, as_latents
from ..posterior.sites import finite_sites, in_order
from ..program import Program, as_family
from ..validation import shown
from ..world import Family
from .palette import PALETTE
from .style import colour, frame, new_axes, styled, whole_numbers, wrapped

_MOST_LINES = 5


@styled
def plot_posterior_path(
    family_or_program: Family | Program,
    prompt: Prompt,
    *,
    site: str = "task",
    truth: Any = None,
    ax: Axes | None = None,
) -> Axes:
    """The exact posterior of a site after every observation of a prompt.

    Args:
        family_or_program: a Family, or a finite program.
        prompt: what was seen.
        site: which named site of the program to show, or "task".
        truth: the value that is true, if it is known: it is drawn on top, in black.
        ax: where to draw; a new figure by default.

    Raises:
        InvalidProgramError: the program is not finite, there is no such site, or ``truth`` is no value of it.
        ImpossibleEvidenceError, InvalidPromptError: as :func:`bayespar.posterior_path`.

    Source: theory.md, C1 and C3.
    """
    family = as_family(family_or_program)
    sites = {"task": list(family.tasks), **finite_sites(family)}
    if site not in sites:
        raise InvalidProgramError(f"there is no site {shown(site)}; the sites are {', '.join(sites)}")
    values = in_order(sites[site]) if site in dict(family.sites) else sites[site]
    if truth is not None and truth not in values:
        raise InvalidProgramError(f"truth = {shown(truth)}; the values of {site} are {', '.join(map(str, values))}")
    belongs = np.array([[v == value for value in values] for v in sites[site]], float)
    path = posterior_path(family, prompt) @ belongs

    ax = new_axes(ax, 7.6, 2.9)
    others = sorted((k for k in range(len(values)) if values[k] != truth), key=lambda k: -path[:, k].max())
    x = np.arange(len(path))
    if truth is not None:
        told = wrapped(f"{_named(site, truth)} (true)")
        ax.plot(x, path[:, values.index(truth)], color=PALETTE["ink"][0], lw=2.2, label=told, zorder=4)
    for rank, k in enumerate(others):
        if rank < _MOST_LINES:
            look = {"color": colour(rank), "lw": 1.6, "label": wrapped(_named(site, values[k]))}
        else:
            many = f"{len(others) - _MOST_LINES} more" if rank == _MOST_LINES else None
            look = {"color": PALETTE["line"][0], "lw": 1.0, "label": many, "zorder": 1}
        ax.plot(x, path[:, k], **look)
    starts = 1 + family.horizon * np.arange(1, prompt.num_episodes + bool(prompt.step))
    for start in starts:
        ax.axvline(start - 0.5, color=PALETTE["muted"][0], lw=0.7, ls=(0, (3, 3)), zorder=0)
    ax.set(xlim=(0, max(len(path) - 1, 1)), ylim=(-0.02, 1.02), ylabel="probability")
    ax.set_xlabel("observations seen" + (" (dashes: a new episode)" if len(starts) else ""))
    whole_numbers(ax)
    return frame(ax, f"Posterior of {'the task' if site == 'task' else repr(site)} along the prompt")


@styled
def plot_subgoal_path(
    family_or_program: Family | Program | Latents,
    prompt: Prompt,
    *,
    planner: Callable[[Prompt], Any] | None = None,
    experts: Experts | None = None,
    last: int | None = None,
    ax: Axes | None = None,
) -> Axes:
    """What BAIL or another planner proposes at every decision of a prompt, as stacked bars.

    A dot marks the subgoal that was executed.

    Args:
        family_or_program: a Family, or a finite program; any program where a planner is given.
        prompt: what was seen.
        planner: from a Prompt to probabilities [G]; BAIL by default.
        experts: for BAIL, from :func:`solve_experts`; solved here if not given.
        last: show so many decisions, the last ones; all by default.
        ax: where to draw; a new figure by default.

    Raises:
        InvalidPromptError: the prompt has no decision, or does not fit the world.
        InvalidProgramError: the program is not finite, and no planner is given.
        InvalidPlannerError: the planner returns no distribution, or the experts are of another family.

    Source: theory.md, C1.
    """
    family, decisions = subgoals_along(family_or_program, prompt, planner, experts)
    decisions = decisions if last is None else decisions[-last:]
    chances = np.stack([d.probabilities for d in decisions])
    executed = np.array([-1 if d.executed is None else d.executed for d in decisions])
    x = np.array([d.number for d in decisions])
    ax = new_axes(ax, float(np.clip(3.6 + 0.22 * len(x), 5.4, 10.5)), 2.9)
    bottom = np.zeros(len(x))
    used = [g for g in range(family.num_subgoals) if chances[:, g].max() > 0.005 or (executed == g).any()]
    for rank, g in enumerate(used):
        ax.bar(x, chances[:, g], 0.86, bottom=bottom, color=colour(rank), label=wrapped(family.subgoals[g], 30))
        done = executed == g
        place = bottom[done] + chances[done, g] / 2
        ax.scatter(
            x[done],
            place,
            s=18,
            color=PALETTE["ink"][0],
            edgecolor=PALETTE["paper"][0],
            lw=0.9,
            zorder=3,
            clip_on=False,
        )
        bottom += chances[:, g]
    starts = [d.number for d in decisions[1:] if d.first]
    for start in starts:
        ax.axvline(start - 0.5, color=PALETTE["muted"][0], lw=0.7, ls=(0, (3, 3)), zorder=0)
    ax.set(xlim=(x[0] - 0.6, x[-1] + 0.6), ylim=(0, 1.005), ylabel="probability")
    ax.set_xlabel("decision" + (" (dashes: a new episode)" if starts else ""))
    whole_numbers(ax)
    told = "BAIL's next subgoal" if planner is None else "The planner's next subgoal"
    return frame(ax, f"{told} along the prompt (dots: executed)", grid="none")


class Decision(NamedTuple):
    """One decision of a prompt.

    Attributes:
        number: which, from 0.
        first: whether it is the first of its episode.
        probabilities: what the planner proposes, [G].
        executed: the subgoal that was executed; None where it is still to come.
    """

    number: int
    first: bool
    probabilities: Float[np.ndarray, " G"]
    executed: int | None


def subgoals_along(
    family_or_program: Family | Program | Latents,
    prompt: Prompt,
    planner: Callable[[Prompt], Any] | None = None,
    experts: Experts | None = None,
) -> tuple[Family, list[Decision]]:
    """The world's words, and every decision of a prompt. Arguments and errors are those of plot_subgoal_path."""
    latents = as_latents(family_or_program)
    if latents is not None and planner is None:
        raise InvalidProgramError(
            "the tasks are not finite; give planner=lambda p: bp.bail(program, p), which takes long at every decision, "
            "or another one"
        )
    family = latents.example if latents is not None else as_family(family_or_program)  # pyright: ignore
    check_prompt(prompt, family)
    rows = list(zip(prompt.instructions, prompt.observations, prompt.subgoals, strict=True))
    if prompt.step:
        rows.append((np.int32(prompt.current_instruction), prompt.current_observations, prompt.current_subgoals))
    propose = _bail(family, experts) if planner is None else _asked(planner, prompt, family)
    found = []
    for n, (w, o, g) in enumerate(rows):
        for h in range(len(o)):
            chances = propose(n, h, int(w), o, g)
            if h < family.horizon - 1:
                executed = int(g[h]) if h < len(g) else None
                found.append(Decision(len(found), h == 0, np.asarray(chances, np.float64), executed))
    if not found:
        raise InvalidPromptError("the prompt has no decision yet: give it an observation")
    return family, found


Propose = Callable[[int, int, int, Int[np.ndarray, " h"], Int[np.ndarray, " g"]], Any]


def _bail(family: Family, experts: Experts | None) -> Propose:
    """BAIL, one step at a time."""
    bail = BailPlanner(family, solve_experts(family) if experts is None else check_experts(experts, family))
    with precision_of(family):
        state = bail.init(np.int32(0), None)
    step, observe = eqx.filter_jit(bail.step), eqx.filter_jit(bail.observe)

    def propose(n: int, h: int, w: int, o: np.ndarray, g: np.ndarray) -> Any:
        nonlocal state
        before = np.int32(g[h - 1] if h else -1)
        with precision_of(family):
            state, chances = step(state, Observed(np.int32(o[h]), before, np.int32(h), np.int32(w)))
            if h == family.horizon - 1:
                state = observe(state, Episode(np.int32(w), np.asarray(o), np.asarray(g)))
        return chances

    return propose


def _asked(planner: Callable[[Prompt], Any], prompt: Prompt, family: Family) -> Propose:
    def propose(n: int, h: int, w: int, o: np.ndarray, g: np.ndarray) -> Any:
        if h == family.horizon - 1:
            return None
        past = (prompt.observations[:n], prompt.subgoals[:n], prompt.instructions[:n]) if n else (None, None, None)
        return check_probabilities(planner(Prompt(*past, o[: h + 1], g[:h], w)), family.num_subgoals).reshape(-1)

    return propose


def _named(site: str, value: Any) -> str:
    return str(value) if site == "task" else f"{site} = {value}"
