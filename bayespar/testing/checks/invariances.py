"""What must not change, or must change along, when a world is written down differently."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ...history import Prompt
from ...world import Sparse
from ..case import Case, Estimator, rebuilt
from ..check import Equation


def task_order(f: Estimator, case: Case) -> Iterator[Equation]:
    """Tasks in another order: the answer is in that order too.

    Catches: an index of a task used for something else, a task left out, ties that fall on the first task.
    Blind to: whatever treats all tasks alike.
    Cost: two calls.
    """
    family, Z = case.family, case.family.num_tasks
    order = np.roll(np.arange(Z), 1 + case.choice % max(Z - 1, 1))

    def along(array: Any) -> Any:
        return array if len(array) == 1 else array[order]

    other = rebuilt(
        family,
        task_prior=family.task_prior[order],
        initial=along(family.initial),
        transition=jax.tree.map(along, family.transition),
        emission=along(family.emission),
    )
    answer = f(case)
    by_task = f.role in ("posterior", "state_posterior", "log_evidence")
    yield Equation(
        f"the answer with tasks in the order {order.tolist()}",
        f(Case(other, case.prompt, case.choice)),
        "the answer before, in that order" if by_task else "the answer before",
        answer[order] if by_task else answer,
    )


def duplicated_task(f: Estimator, case: Case) -> Iterator[Equation]:
    """A task written down twice, with half its prior each: each copy has half its posterior, and nothing else changes.

    Catches: a prior that is dropped, flattened or sharpened, the likeliest task taken for all of them.
    Blind to: whatever depends on the total prior of equal tasks alone.
    Cost: two calls, one with a task more.
    """
    family = case.family
    z = case.choice % family.num_tasks

    def twice(array: Any) -> Any:
        return array if len(array) == 1 else np.concatenate([array, array[z : z + 1]])

    prior = twice(family.task_prior) if family.num_tasks > 1 else np.repeat(family.task_prior, 2)
    prior = np.where(np.isin(np.arange(len(prior)), (z, len(prior) - 1)), prior / 2, prior)
    other = rebuilt(
        family,
        task_prior=prior,
        initial=twice(family.initial),
        transition=jax.tree.map(twice, family.transition),
        emission=twice(family.emission),
    )
    answer, expected = f(case), None
    if f.role in ("posterior", "state_posterior"):
        expected = np.concatenate([answer, answer[z : z + 1]])
        expected[[z, -1]] /= 2
    elif f.role == "log_evidence":
        expected = np.concatenate([answer, answer[z : z + 1]])
    yield Equation(
        f"the answer with task {z} written down twice, half the prior each",
        f(Case(other, case.prompt, case.choice)),
        "the answer before" if expected is None else "the answer before, its share halved and repeated",
        answer if expected is None else expected,
    )


def state_order(f: Estimator, case: Case) -> Iterator[Equation]:
    """Hidden states in another order: they are summed out, so nothing changes.

    Catches: a state's index used for something else, a transition that is read from column to row.
    Blind to: whatever treats all states alike.
    Cost: two calls.
    """
    family, S = case.family, case.family.num_states
    order = np.roll(np.arange(S), 1 + case.choice % max(S - 1, 1))
    place = np.argsort(order)
    kernel = family.transition
    if isinstance(kernel, Sparse):
        kernel = Sparse(place[kernel.next_states[..., order, :]], kernel.probabilities[..., order, :])
    else:
        kernel = family.dense_transition()[..., order, :][..., order]
    other = rebuilt(family, initial=family.initial[:, order], transition=kernel, emission=family.emission[:, order, :])
    answer = f(case)
    yield Equation(
        f"the answer with hidden states in the order {order.tolist()}",
        f(Case(other, case.prompt, case.choice)),
        "the answer before",
        answer[:, order] if f.role == "state_posterior" else answer,
    )


def instruction_order(f: Estimator, case: Case) -> Iterator[Equation]:
    """Instructions in another order, in the rewards and in the prompt: nothing changes.

    Catches: the wrong episode's instruction, one instruction's rewards used for all.
    Blind to: whatever ignores instructions.
    Cost: two calls.
    """
    family, prompt, W = case.family, case.prompt, case.family.num_instructions
    order = np.roll(np.arange(W), 1 + case.choice % max(W - 1, 1))
    place = np.argsort(order)
    other = rebuilt(family, reward=family.reward[:, :, order], instruction_prior=family.instruction_prior[order])
    some = prompt.num_episodes > 0
    moved = Prompt(
        prompt.observations if some else None,
        prompt.subgoals if some else None,
        place[prompt.instructions] if some else None,
        prompt.current_observations,
        prompt.current_subgoals,
        int(place[prompt.current_instruction]),
    )
    yield Equation(
        f"the answer with instructions in the order {order.tolist()}",
        f(Case(other, moved, case.choice)),
        "the answer before",
        f(case),
    )


def blank_step(f: Estimator, case: Case) -> Iterator[Equation]:
    """An observation that says nothing changes nothing.

    The world gets one more subgoal, after which the hidden state stays as it is and a new word, "blank", is heard for
    sure; every episode waits so once, in the same place.

    Catches: steps that are off by one, the last observation ignored, forgetting, observations taken before actions.
    Blind to: whatever is the same at every step; a function that ignores all evidence.
    Cost: two calls, one with twice the states and one more subgoal, observation and step.
    """
    family, prompt = case.family, case.prompt
    S, O, H = family.num_states, family.num_observations, family.horizon
    wait, blank = family.num_subgoals, O
    place = case.choice % H  # it waits after that observation
    old = family.dense_transition()
    kernel = np.zeros((len(old), H, wait + 1, 2 * S, 2 * S))
    for h in range(H):
        before = old[:, min(h - (h > place), old.shape[1] - 1)]
        kernel[:, h, :wait, :, :S] = np.concatenate([before, before], axis=2)
        kernel[:, h, wait, :, S:] = np.tile(np.eye(S), (2, 1))
    emission = np.zeros((len(family.emission), 2 * S, O + 1))
    emission[:, :S, :O] = family.emission
    emission[:, S:, blank] = 1
    waiting = rebuilt(
        family,
        initial=np.pad(family.initial, [(0, 0), (0, S)]),
        transition=kernel,
        emission=emission,
        reward=np.zeros((H + 1, O + 1, family.num_instructions)),
        horizon=H + 1,
    )
    some, waited = prompt.num_episodes > 0, prompt.step > place
    observations, subgoals = prompt.current_observations, prompt.current_subgoals
    longer = Prompt(
        np.insert(prompt.observations, place + 1, blank, axis=1) if some else None,
        np.insert(prompt.subgoals, place, wait, axis=1) if some else None,
        prompt.instructions if some else None,
        np.insert(observations, place + 1, blank) if waited else observations,
        np.insert(subgoals, place, wait) if waited else subgoals,
        prompt.current_instruction,
    )
    answer, expected = f(Case(waiting, longer, case.subgoal)), f(case)
    if f.role == "state_posterior":
        answer = answer.reshape(-1, 2, S).sum(axis=1)
    if f.role == "next_observation":
        expected = np.append(expected, 0.0)
    yield Equation(
        f'the answer where every episode waits after observation {place} and hears "blank"',
        answer,
        "the answer without that step",
        expected,
    )
