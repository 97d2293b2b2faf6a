"""Pretraining corpora: prompts, expert labels, next observations, and the true conditionals of both."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, overload

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from ..arrays import Array, precision_of
from ..errors import InvalidPlannerError, InvalidWorldError
from ..keys import check_key
from ..planning.bail import BailPlanner
from ..planning.expert import Experts, check_experts, solve_experts
from ..posterior.latents import Latents, as_latents
from ..program import Program, as_family
from ..validation import check_count, check_fits, check_rows, float_array, shown
from ..world import Family, check_family
from .behaviours import as_behaviour, check_behaviour
from .drawn_corpus import DrawnCorpus, draw_corpus
from .environment import Environment, block_keys, draw, split_key, uniforms
from .rollout import Conditionals, Source, check_lawful, draw_prompt

PROMPT_BLOCK = 32


@dataclass(frozen=True)
class Corpus:
    """B prompts of N episodes each, drawn from P_D.

    Attributes:
        tasks: the latent task of each prompt, [B]; not part of what a network is shown.
        instructions: [B, N].
        observations: [B, N, H].
        subgoals: executed by the behaviour policy, [B, N, H-1].
        labels: g*_h ~ pi*_z(. | tau_h, w), never executed and never in a prompt, [B, N, H-1].
        bail: P_D(g*_h | pt_h), the true conditional of each label, [B, N, H-1, G].
        next_observation: P_D(o_{h+1} | pt_h, g_h), the true conditional of each observation but the first of an
            episode, [B, N, H-1, O].
        posterior: P(z | pt_h) at each decision, [B, N, H-1, Z].
        actions: pi*_z(tau_h, w), the expert subgoal of every task at each decision, [B, N, H-1, Z].
    """

    tasks: Int[np.ndarray, " B"]
    instructions: Int[np.ndarray, "B N"]
    observations: Int[np.ndarray, "B N H"]
    subgoals: Int[np.ndarray, "B N Hm1"]
    labels: Int[np.ndarray, "B N Hm1"]
    bail: Float[np.ndarray, "B N Hm1 G"]
    next_observation: Float[np.ndarray, "B N Hm1 O"]
    posterior: Float[np.ndarray, "B N Hm1 Z"]
    actions: Int[np.ndarray, "B N Hm1 Z"]


@overload
def sample_corpus(
    family_or_program: Family,
    prompts: int,
    episodes: int,
    behaviour: Any = ...,
    *,
    key: Any = ...,
    experts: Experts | None = ...,
    prior: Any = ...,
) -> Corpus: ...
@overload
def sample_corpus(
    family_or_program: Program | Latents,
    prompts: int,
    episodes: int,
    behaviour: Any = ...,
    *,
    key: Any = ...,
    experts: Experts | None = ...,
    prior: Any = ...,
) -> Any: ...
def sample_corpus(
    family_or_program: Family | Program | Latents,
    prompts: int,
    episodes: int,
    behaviour: Any = "uniform",
    *,
    key: Any = 0,
    experts: Experts | None = None,
    prior: Any = None,
) -> Corpus | DrawnCorpus:
    """Draw a corpus: z ~ P_Z; per episode w ~ P_Omega; subgoals from the behaviour policy, labels from the expert of z.

    Args:
        family_or_program: a Family, or a program, finite or not.
        prompts: B.
        episodes: N, episodes in each prompt.
        behaviour: pi_b: "uniform", "experts", "bail" (see :func:`as_behaviour`), or anything that :func:`as_planner`
            takes. It sees neither z nor labels, unless it is a :class:`TaskDependent`.
        key: a JAX key or an int.
        experts: of a family, from :func:`solve_experts`; solved here if not given.
        prior: tasks are drawn from this distribution [Z] instead of the family's prior. The conditionals, the posterior
            and named behaviours stay those of the family: they are then what a Planner with the family's prior
            believes, and not the conditionals of this corpus, which are those of :func:`with_prior`.

    Returns:
        A Corpus; a DrawnCorpus where tasks have a density.

    Raises:
        InvalidPlannerError: no prompts or episodes, no such behaviour, or experts of another family; or experts or a
            prior where tasks have a density.
        InvalidWorldError: the prior is no distribution over tasks, or draws one that the family excludes.

    Source: theory.md, section 2.
    """
    check_count("prompts", prompts)
    check_count("episodes", episodes)
    check_key(key)
    latents = as_latents(family_or_program)
    if latents is not None:
        if experts is not None or prior is not None:
            raise InvalidPlannerError("experts and prior are of finite tasks, but these have a density; leave them out")
        return draw_corpus(latents, prompts, episodes, behaviour, key=key)
    assert not isinstance(family_or_program, Latents)
    family = as_family(family_or_program)
    decision = family.num_subgoals + family.num_observations + 2 * family.num_tasks + 4
    check_fits(f"prompts = {prompts}, episodes = {episodes}", 8 * prompts * episodes * family.horizon * decision)
    experts = solve_experts(family) if experts is None else check_experts(experts, family)
    policy = as_behaviour(behaviour, family, experts, episodes=episodes)
    cumulative = np.cumsum(drawn_from(prior, family))
    drawn = []
    with precision_of(family):
        check_behaviour(policy, family)
        root, entropy = split_key(key)
        source = Source(Environment(family), policy, Conditionals(BailPlanner(family, experts)), family.horizon)
        blocks = -(-prompts // PROMPT_BLOCK)
        for block in range(blocks):
            first = uniforms(entropy, block, 0, (PROMPT_BLOCK,), family.dtype)
            rest = uniforms(entropy, block, 1, (episodes, PROMPT_BLOCK, family.horizon + 1, 3), family.dtype)
            keys = block_keys(root, entropy, [block], (PROMPT_BLOCK,))
            out = _sample_block(source, cumulative, keys, first, rest.swapaxes(0, 1))
            drawn.append([np.asarray(a) for a in out])
    tasks, *arrays = (np.concatenate(a)[:prompts] for a in zip(*drawn, strict=True))
    instructions, observations, subgoals, lawful, *told = arrays
    check_lawful(lawful)
    return Corpus(tasks, instructions, observations, subgoals, *told)


@eqx.filter_jit
def _sample_block(source: Source, prior: Array, keys: Any, first: Any, uniform: Any) -> Any:
    def prompt(key: Any, u: Any, rows: Any) -> Any:
        task = draw(prior, u)
        return (task, *draw_prompt(source, task, task, key, rows))

    return jax.vmap(prompt)(keys, first, uniform)


def shuffled_labels(corpus: Corpus) -> Corpus:
    """The false twin of a corpus for C2: every prompt has the labels of the next prompt's task.

    That task is drawn from the prior whatever the prompt shows, so the label's conditional is the mean of the experts
    under the prior, and there is nothing to be learnt in context. The recorded conditionals stay those of the corpus.

    Raises:
        InvalidPlannerError: no corpus of finite tasks.
    """
    if not isinstance(corpus, Corpus):
        raise InvalidPlannerError(f"corpus = {shown(corpus)}; give what sample_corpus returned for finite tasks")
    others = np.roll(corpus.tasks, -1)
    labels = np.take_along_axis(corpus.actions, others[:, None, None, None], axis=3)[..., 0]
    return dataclasses.replace(corpus, labels=labels)


def with_prior(family: Family, prior: Any) -> Family:
    """The same tasks under another prior [Z].

    Raises:
        InvalidWorldError: no family, or the prior is no distribution over tasks.
    """
    check_family(family)
    return eqx.tree_at(lambda f: f.task_prior, family, check_prior(prior, family))


def drawn_from(prior: Any, family: Family) -> Float[np.ndarray, " Z"]:
    """The distribution of the tasks of a corpus: the family's own prior if none is given.

    Raises:
        InvalidWorldError: it is no distribution over tasks, or draws one that the family excludes.
    """
    if prior is None:
        return np.asarray(family.task_prior)
    array = check_prior(prior, family)
    excluded = np.flatnonzero((array > 0) & (np.asarray(family.task_prior) == 0))
    if excluded.size:
        z = int(excluded[0])
        raise InvalidWorldError(
            f"prior[{z}] = {array[z]:g}, but the family's own prior excludes {shown(family.tasks[z])}, so no Planner "
            "could believe what it sees; give it 0 here as well, or change the family by with_prior"
        )
    return array


def check_prior(prior: Any, family: Family) -> Float[np.ndarray, " Z"]:
    """``prior`` in the precision of the family, if it is a distribution over its tasks.

    Raises:
        InvalidWorldError: it is none.
    """
    array = np.asarray(float_array("prior", prior))
    if array.shape != (family.num_tasks,):
        raise InvalidWorldError(f"prior has shape {list(array.shape)}; there are {family.num_tasks} tasks")
    check_rows("prior", array)
    return array.astype(family.dtype)
