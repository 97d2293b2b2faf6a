"""Hypothesis strategies: tiny worlds, prompts, policies and programs that shrink to ones that a person can read.

Probabilities are ratios of integers from 0 to 3, so that exact zeros, one-hot rows and exact ties are common and a row
shrinks to (1, 0, ...). Shapes come from a short list, so that compiled code is reused. What a strategy draws has a
``repr`` that builds it again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from hypothesis import assume, strategies as st
from jaxtyping import Float

from ..arrays import is_traced
from ..history import Prompt
from ..literal import call, nested, number
from ..world import Family, Sparse, World
from .worlds import LAYOUTS, Layout, rows_of

seeds = st.integers(0, 2**32 - 1)


@st.composite
def simplexes(
    draw: Any, size: int, shape: tuple[int, ...] = (), *, zeros: bool = True, one_hot: bool = False
) -> Float[np.ndarray, "*shape size"]:
    """Distributions over ``size`` outcomes, [*shape, size], of small integers.

    Args:
        draw: given by hypothesis.
        size: outcomes.
        shape: of the array of distributions; one by default.
        zeros: allow zeros; half of the arrays then mix zeros with other numbers, a quarter are one-hot throughout.
        one_hot: only one-hot ones.
    """
    count = math.prod(shape)
    if one_hot or (zeros and draw(st.integers(0, 3)) == 0):
        hot = draw(st.lists(st.integers(0, size - 1), min_size=count, max_size=count))
        return np.eye(size)[np.reshape(np.array(hot, int), shape)]
    lowest = 0 if zeros else 1
    counts = draw(st.lists(st.integers(lowest, 3), min_size=count * size, max_size=count * size))
    return rows_of(np.reshape(counts, (*shape, size)))


@st.composite
def families(
    draw: Any,
    layouts: Sequence[Layout] = LAYOUTS,
    *,
    zeros: bool = True,
    deterministic: bool = False,
    ties: bool = False,
    near_ties: bool = False,
    fully_observed: bool = False,
    duplicated_tasks: bool = False,
    unreachable_states: bool = False,
) -> Family:
    """Tiny families of one of ``layouts``; rewards are tenths.

    Args:
        draw: given by hypothesis.
        layouts: sizes to choose from; shrinks towards the first.
        zeros: allow zero probabilities; in a quarter of the worlds, in the prior too.
        deterministic: every row of every kernel is one-hot, so that most prompts are impossible.
        ties: the last subgoal does what the first does, so that experts are always indifferent between the two.
        near_ties: the same, but for one time in 10^12, when it does what the second does.
        fully_observed: every state has an observation of its own, where there are enough.
        duplicated_tasks: the last task is a copy of the first (another prior apart).
        unreachable_states: the last state has probability 0 from everywhere; a world of one state stays as it is.
    """
    size = draw(st.sampled_from(list(layouts)))

    def lead(name: str) -> int:
        return 1 if name in size.shared else size.Z

    rows = (lead("transition"), size.H - 1 if size.steps else 1, size.G, size.S)
    states = size.S - 1 if unreachable_states and size.S > 1 else size.S
    pad = [(0, size.S - states)]
    initial = np.pad(draw(simplexes(states, (lead("initial"),), zeros=zeros, one_hot=deterministic)), [(0, 0), *pad])
    emission = draw(simplexes(size.O, (lead("emission"), size.S), zeros=zeros, one_hot=deterministic))
    if size.sparse:
        count = 2 * math.prod(rows)
        slots = draw(st.lists(st.integers(0, states - 1), min_size=count, max_size=count))
        kernel = [np.reshape(slots, (*rows, 2)), draw(simplexes(2, rows, zeros=zeros, one_hot=deterministic))]
    else:
        kernel = [np.pad(draw(simplexes(states, rows, zeros=zeros, one_hot=deterministic)), [(0, 0)] * 4 + pad)]
    if ties:
        for array in kernel:
            array[:, :, -1] = array[:, :, 0]
    if near_ties and not size.sparse:
        kernel[0][:, :, -1] = (1 - 1e-12) * kernel[0][:, :, 0] + 1e-12 * kernel[0][:, :, 1 % size.G]
    if fully_observed and size.O >= size.S:
        emission[:] = np.eye(size.S, size.O)
    if duplicated_tasks:
        for array in (*kernel, initial, emission):
            array[-1] = array[0]
    tenths = draw(st.lists(st.integers(0, 10), min_size=size.H * size.O * size.W, max_size=size.H * size.O * size.W))
    prior = draw(simplexes(size.Z, zeros=zeros and draw(st.integers(0, 3)) == 3))
    return Family(
        prior,
        initial,
        Sparse(*kernel) if size.sparse else kernel[0],
        emission,
        np.reshape(tenths, (size.H, size.O, size.W)) / 10,
        horizon=size.H,
        instruction_prior=draw(simplexes(size.W, zeros=zeros)),
    )


@st.composite
def prompts(
    draw: Any,
    family: Family,
    *,
    episodes: int = 2,
    least_episodes: int = 0,
    steps: Sequence[int] | None = None,
    possible: bool = True,
) -> Prompt:
    """Prompts of ``family``, drawn along hidden paths of one of its tasks.

    Args:
        draw: given by hypothesis.
        family: the world.
        episodes: the most finished episodes.
        least_episodes: the fewest.
        steps: observations of the current episode to choose from; 0..H by default.
        possible: some task of positive prior can have produced the prompt. If False, none can: one observation of a
            possible prompt is changed, and a draw of which every such prompt is possible is rejected.
    """
    kernel = family.dense_transition()

    def pick(row: Any) -> int:
        return draw(st.sampled_from(np.flatnonzero(row > 0).tolist()))

    def part(array: Any, task: int) -> Any:
        return array[min(task, len(array) - 1)]

    def episode(task: int, length: int) -> tuple[list[int], list[int]]:
        heard: list[int] = []
        chosen: list[int] = []
        state = 0
        for h in range(length):
            if h:
                chosen.append(draw(st.integers(0, family.num_subgoals - 1)))
                by_step = part(kernel, task)
                state = pick(by_step[min(h - 1, len(by_step) - 1), chosen[-1], state])
            else:
                state = pick(part(family.initial, task))
            heard.append(pick(part(family.emission, task)[state]))
        return heard, chosen

    task = pick(family.task_prior)
    count = draw(st.integers(least_episodes, episodes))
    step = draw(st.sampled_from(list(range(family.horizon + 1) if steps is None else steps)))
    past = [episode(task, family.horizon) for _ in range(count)]
    heard, chosen = episode(task, step)
    instructions = [pick(family.instruction_prior) for _ in past] if past else None
    now = pick(family.instruction_prior)

    def build() -> Prompt:
        observations, subgoals = ([row[i] for row in past] if past else None for i in (0, 1))
        return Prompt(observations, subgoals, instructions, heard, chosen, now)

    if possible:
        return build()
    ways = []
    for row in (*(o for o, _ in past), heard):
        for h, o in enumerate(row):
            for row[h] in range(family.num_observations):
                if is_impossible(family, build()):
                    ways.append((row, h, row[h]))
            row[h] = o
    assume(ways)
    row, h, o = draw(st.sampled_from(ways))
    row[h] = o
    return build()


def is_impossible(family: Family, prompt: Prompt) -> bool:
    """Whether no task of positive prior can have produced ``prompt``, by following which states are possible."""
    Z = family.num_tasks

    def support(array: Any) -> np.ndarray:
        return np.broadcast_to(array > 0, (Z, *array.shape[1:]))

    initial, kernel, emission = map(support, (family.initial, family.dense_transition(), family.emission))
    alive = family.task_prior > 0
    rows = [*zip(prompt.observations, prompt.subgoals, strict=True)]
    if prompt.step:
        rows.append((prompt.current_observations, prompt.current_subgoals))
    for heard, chosen in rows:
        states = initial & emission[:, :, heard[0]]
        for h, g in enumerate(chosen):
            step = min(h, kernel.shape[1] - 1)
            states = (states[:, :, None] & kernel[:, step, g]).any(axis=1) & emission[:, :, heard[h + 1]]
        alive = alive & states.any(axis=1)
    return not alive.any()


@dataclass(frozen=True)
class TablePolicy:
    """A policy that looks at the instruction, the step and the last observation; a callable from a prompt to [G].

    Attributes:
        table: [W, H-1, O, G].
    """

    table: Float[np.ndarray, "W Hm1 O G"]

    def __call__(self, prompt: Prompt) -> Float[np.ndarray, " G"]:
        return self.table[int(prompt.current_instruction), prompt.step - 1, int(prompt.current_observations[-1])]

    def __repr__(self) -> str:
        return call("testing.TablePolicy", f"np.array({nested(self.table)}, float)")


@st.composite
def policies(draw: Any, family: Family, *, zeros: bool = True) -> TablePolicy:
    """Policies for ``family``: callables from a prompt to probabilities [G], which ``bp.as_planner`` takes."""
    shape = (family.num_instructions, family.horizon - 1, family.num_observations)
    return TablePolicy(draw(simplexes(family.num_subgoals, shape, zeros=zeros)))


@dataclass(frozen=True)
class TabularProgram:
    """A program whose task is a tuple of independent finite sites, with the worlds in a table.

    Attributes:
        sites: the probabilities of each site's values, by name.
        family: the worlds, one for each combination of values, the last site varying fastest; its prior is not used.
    """

    sites: Mapping[str, Sequence[float]]
    family: Family

    def __call__(self) -> World:
        task: Any = 0
        for name, probabilities in self.sites.items():
            # Probabilities as they are: numpyro's own check of a simplex is a tolerance in float32.
            law: Any = dist.Categorical(np.asarray(probabilities), validate_args=False)
            value = numpyro.sample(name, law)
            task = task * len(probabilities) + value
        f = self.family

        def pick(array: Any) -> Any:
            # A numpyro handler may pass a traced value, which indexes jax arrays only.
            array = jax.numpy.asarray(array) if is_traced(task) else array
            return array[0 if len(array) == 1 else task]

        return World(
            pick(f.initial),
            jax.tree.map(lambda a: pick(a)[0] if a.shape[1] == 1 else pick(a), f.transition),
            pick(f.emission),
            f.reward,
            horizon=f.horizon,
            instruction_prior=f.instruction_prior,
        )

    def __repr__(self) -> str:
        sites = ", ".join(f"{name!r}: [{', '.join(map(number, row))}]" for name, row in self.sites.items())
        return call("testing.TabularProgram", f"{{{sites}}}", repr(self.family))


@st.composite
def programs(draw: Any, *, zeros: bool = True) -> TabularProgram:
    """Finite programs of one or two sites, of two or three tasks in all."""
    sizes = draw(st.sampled_from([{"room": 2}, {"room": 3}, {"room": 1, "mode": 2}]))
    tasks = math.prod(sizes.values())
    layouts = [layout for layout in LAYOUTS if tasks == layout.Z]
    family = draw(families(layouts, zeros=zeros))
    return TabularProgram({name: draw(simplexes(size, zeros=zeros)).tolist() for name, size in sizes.items()}, family)
