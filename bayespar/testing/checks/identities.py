"""Identities that a function satisfies on its own, or with a number or two from the enumeration oracle."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from ...history import Prompt
from ..case import Case, Estimator, rebuilt, truth, with_episodes, without_current
from ..check import Equation
from ..oracle import Oracle, as_prompt, as_tuple, corpus_law, uneven_behaviour


def distribution(f: Estimator, case: Case) -> Iterator[Equation]:
    """The answer is a distribution: no entry is negative, they sum to 1, and a task of prior 0 has none of it.

    Catches: missing or wrong normalisation, NaN, smoothing that revives a task which the prior rules out.
    Blind to: any answer that is a distribution, however wrong.
    Cost: one call.
    """
    answer = f(case)
    yield Equation("the sum of the answer", answer.sum(), "one", 1.0)
    yield Equation("its negative entries", np.minimum(answer, 0).ravel(), "none", np.zeros(answer.size))
    if f.role in ("posterior", "state_posterior"):
        ruled_out = np.where(case.family.task_prior > 0, 0.0, answer.reshape(case.family.num_tasks, -1).sum(axis=1))
        yield Equation("probability of the tasks of prior 0", ruled_out, "none", np.zeros_like(ruled_out))


def normalised(f: Estimator, case: Case) -> Iterator[Equation]:
    """Over all observation sequences, with the subgoals held fixed, the likelihoods of each task sum to 1.

    Catches: a wrong axis in a sum over states, emissions multiplied in twice or left out, logarithms of the wrong base.
    Blind to: a likelihood of another world; the order of steps and subgoals.
    Cost: one call with O^H episodes.
    """
    family = case.family
    sequences = np.array(list(itertools.product(range(family.num_observations), repeat=family.horizon)), np.int32)
    subgoals = np.broadcast_to(case.prompt.subgoals[:1], (len(sequences), family.horizon - 1))
    answer = f(Case(family, Prompt(sequences, subgoals)))
    yield Equation(
        f"likelihoods of all observations after subgoals {subgoals[0].tolist()}, added up for each task",
        np.exp(answer).sum(axis=1),
        "one",
        np.ones(family.num_tasks),
    )


def history_split(f: Estimator, case: Case) -> Iterator[Equation]:
    """The chain rule: an answer given the past is the answer without it, under the posterior of the past as prior.

    Catches: a prior that is dropped, squared or counted once an episode, forgetting, episodes left out.
    Blind to: anything wrong within an episode; a function that ignores all evidence and repeats the prior.
    Cost: two calls, and a third (for other roles than the posterior's, a posterior by enumeration).
    """
    family, prompt = case.family, case.prompt
    cut = 1 + case.choice % prompt.num_episodes
    first = Case(family, without_current(with_episodes(prompt, slice(None, cut))), case.choice)
    learnt = f(first) if f.role == "posterior" else truth("posterior", first)
    if Equation("", learnt.sum(), "", 1.0).error() > 1e-6 or learnt.min() < 0:
        yield Equation(f"the posterior after episodes 0..{cut - 1}, added up", learnt.sum(), "one", 1.0)
        return
    later = Case(rebuilt(family, task_prior=learnt), with_episodes(prompt, slice(cut, None)), case.choice)
    yield Equation(
        f"the answer to the whole prompt ({prompt.num_episodes} finished episodes)",
        f(case),
        f"the answer without episodes 0..{cut - 1}, whose posterior is made the prior",
        f(later),
    )


def tower(f: Estimator, case: Case) -> Iterator[Equation]:
    """The tower property: averaged over the next observation, the next posterior is the present one.

    The next observation is drawn as the present posterior says; what each task says of it is enumerated.

    Catches: any wrong use of an observation or a subgoal: shifted, ignored, counted twice, tempered, clipped.
    Blind to: a wrong prior; a function that ignores every observation.
    Cost: 1 + O calls, and Z O likelihoods by enumeration.
    """
    family, prompt = case.family, case.prompt
    now = f(case)
    past, w, observations, subgoals = as_tuple(prompt)
    chances = now @ Oracle(family).next_by_task((past, w, observations, subgoals), case.subgoal)
    later = np.zeros_like(now)
    for o in np.flatnonzero(chances > 0):
        extended = as_prompt((past, w, (*observations, int(o)), (*subgoals, case.subgoal)))
        later += chances[o] * f(Case(family, extended, case.choice))
    yield Equation(
        f"the posterior after subgoal {case.subgoal} and its observation, averaged over that observation",
        later,
        "the posterior before",
        now,
    )


def ratio(f: Estimator, case: Case) -> Iterator[Equation]:
    """The ratio test: two tasks' probabilities stand to each other as their joint probabilities with the prompt.

    It needs no normalising constant, and so no sum over tasks. Source: Grosse and Duvenaud (2014), "Testing MCMC code".

    Catches: a wrong prior or likelihood of either task, evidence that is ignored.
    Blind to: the share of all other tasks; a pair that the prompt rules out.
    Cost: one call, and two likelihoods by enumeration.
    """
    Z = case.family.num_tasks
    first = case.choice % Z
    second = (first + 1 + case.choice // Z % max(Z - 1, 1)) % Z
    oracle, (past, _, observations, subgoals) = Oracle(case.family), as_tuple(case.prompt)
    joint = []
    for z in (first, second):
        terms = [oracle.likelihood(z, observations, subgoals), *(oracle.likelihood(z, o, g) for _, o, g in past)]
        joint.append(math.prod(terms) * oracle.prior[z])
    if sum(joint) > 0:
        answer = f(case)[[first, second]]
        yield Equation(
            f"share of task {first} in the probability of tasks {first} and {second}",
            answer[0] / answer.sum() if answer.sum() != 0 else np.nan,
            "its share in their joint probability with the prompt",
            joint[0] / sum(joint),
        )


def log_loss(f: Estimator, case: Case) -> Iterator[Equation]:
    """The log-loss identity: over a whole enumerated corpus, the log-loss of the labels is that of BAIL (C2).

    Every prompt of the corpus is asked for in turn, so a function that keeps something between calls is seen to.

    Catches: wrong answers on prompts of any probability, weighted by it; answers that depend on the calls before.
    Blind to: small errors, of which it sees the square; prompts that a corpus never holds.
    Cost: one call a prompt of a corpus of two episodes, and the law of the corpus.
    """
    oracle = Oracle(case.family)
    law, _ = corpus_law(oracle, 2 if oracle.H == 2 else 1, uneven_behaviour(oracle.G))
    found, expected = [], []
    for prompt, by_task in law.items():
        labels = by_task.sum(axis=0)
        answer = f(Case(case.family, as_prompt(prompt), case.choice))
        for p, q, best in zip(labels, answer, labels / labels.sum(), strict=True):
            if p > 0:
                found.append(p * -oracle.log(q) if q > 0 else math.inf)
                expected.append(p * -oracle.log(best))
    yield Equation("log-loss of the labels, nats", math.fsum(found), "that of BAIL", math.fsum(expected))
