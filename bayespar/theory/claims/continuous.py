"""C1 and W1 where tasks have a density: by NUTS and by SMC, against closed forms or quadrature."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from ...errors import TooLargeError
from ...history import Prompt
from ...planning.by_draws import DRAWS, first_actions, mixture_of, what_follows
from ...planning.expert import solve_experts
from ...posterior.result import Posterior
from ...world import Family
from ..agreement import ROUNDING, Compared, agreement, twin
from ..claim import Settings, Subject
from ..continuous import CHAINS, EPISODES, Arms, Continuous, only
from ..estimates import Answer, bail_of, predictive_of, tilted, world_model_gap
from ..verdict import Outcome, TwinOutcome, Verdict, all_of, identity, not_applicable
from . import calibrated

METHODS = ("nuts", "smc")
TASTE = 0.5
WORLDS = 3  # with a density, that are shipped

Quantity = Callable[[Posterior], Answer]
Comparison = Callable[[Continuous, str], list[Compared]]


def checks(twins: int) -> int:
    """Statistical checks of a claim with so many twins, in a whole run."""
    return WORLDS * len(METHODS) * (1 + twins)


def case_of(subject: Subject) -> Continuous:
    """The world under test; its tasks have a density."""
    assert subject.latents is not None
    return Continuous(subject.latents, subject.key)


def why_not(subject: Subject) -> str | None:
    """Why samplers cannot be compared with anything here, if they cannot."""
    latents = subject.latents
    if latents is None:
        return "its tasks are finite"
    if latents.observed:
        return "the program observes something itself, so no corpus can be drawn from it"
    if latents.example.horizon == 1:
        return "H = 1: an episode has no decision"
    try:
        case = subject.once(case_of)
    except TooLargeError as error:
        return f"too large for the exact side: {error}"
    if case.exact is None:
        sites = ", ".join(f"{name} {list(shape)}" for name, shape in latents.shapes.items())
        return (
            f"no exact side: {latents.dimension} coordinates have a density ({sites}); quadrature takes two, and there "
            "is no closed form"
        )
    if not case.prompts:
        return "experts agree on almost every prompt, so no false answer could be told from the true one"
    return None


def compare_to(estimate: Answer, exact: Answer, case: Continuous, growth: float = 1.0) -> Compared:
    """An estimate beside the exact answer; its standard errors times ``growth``."""
    errors, slack = estimate.errors * growth, exact.slack + estimate.slack
    return Compared(estimate.values, exact.values, errors, CHAINS * case.draws, slack)


def agree(
    subject: Subject, settings: Settings, what: str, compare: Callable[[Continuous, str], list[Compared]]
) -> Outcome:
    """One outcome of both samplers; inconclusive where a sampler's own diagnostics complain."""
    reason = why_not(subject)
    if reason:
        return not_applicable(reason)
    case, outcomes = subject.once(case_of), []
    for method in METHODS:
        compared = compare(case, method)
        against = "closed forms" if isinstance(case.exact, Arms) else "quadrature"
        said = f"{what}, by {method.upper()} ({CHAINS * case.draws} draws) against {against}"
        outcome = agreement(compared, settings.alpha, said)
        problems = [p for prompt in case.prompts for p in _problems(case.posterior(method, prompt))]
        if problems and outcome.verdict is Verdict.SUPPORTED:
            outcome = dataclasses.replace(outcome, verdict=Verdict.INCONCLUSIVE, reason=f"{said}; {problems[0]}")
        outcomes.append(outcome)
    return all_of(outcomes)


def _problems(found: Posterior) -> tuple[str, ...]:
    return found.diagnostics.problems if found.diagnostics is not None else ()


def _false_posteriors(
    case: Continuous, method: str, prompt: Prompt, forgotten: int
) -> Iterator[tuple[str, str, Posterior, float]]:
    """What is taken for the posterior of a prompt: name, effect, points, growth of the standard errors."""
    for kept, name, effect in (
        ([], "the prior in place of the posterior", "finished episodes not counted"),
        ([n for n in range(EPISODES) if n != forgotten], "an episode is forgotten", f"one of {EPISODES}"),
    ):
        less = case.posterior(method, only(prompt, kept))
        yield name, effect, dataclasses.replace(less, prompt=prompt), 1.0
    points = case.posterior(method, prompt)
    more, growth = tilted(points, _taste(points, prompt))
    effect = f"some tasks prefer what was chosen most, others do not, mixture weight {TASTE}"
    yield "behaviour is counted as evidence", effect, more, growth


def _taste(points: Posterior, prompt: Prompt) -> np.ndarray:
    """log probability of the prompt's subgoals, if tasks had favourites among them, [chain, draw, L], nats.

    Those with the second likeliest leaf, or where there is one leaf, with the first coordinate above its median, are
    taken to prefer the subgoal that was chosen most.
    """
    assert points.latents is not None
    assert points.leaf_probabilities is not None
    shape = points.leaf_probabilities.shape
    if shape[2] > 1:
        some = np.arange(shape[2]) == np.argsort(points.leaf_probabilities.mean(axis=(0, 1)))[-2]
    else:
        first = first_coordinate(points, next(iter(points.latents.shapes)))
        some = (first > np.median(first))[..., None]
    counts = np.bincount(prompt.subgoals.ravel(), minlength=points.latents.example.num_subgoals)
    other, own = np.log((1 - TASTE) / len(counts)), np.log((1 - TASTE) / len(counts) + TASTE)
    most, least = (counts.sum() * other + n * (own - other) for n in (counts.max(), counts.min()))
    if counts.max() - counts.min() < 2:  # hardly any difference: the others choose uniformly
        least = -counts.sum() * np.log(len(counts))
    return np.broadcast_to(np.where(some, most, least), shape)


def first_coordinate(points: Posterior, name: str) -> np.ndarray:
    """The first coordinate of a site, [chain, draw]."""
    assert points.draws is not None
    values = np.asarray(points.draws[name])
    return values.reshape(*values.shape[:2], -1)[..., 0]


def _judge(case: Continuous, quantity: Quantity, exact: Callable[[Prompt], Answer], alpha: float) -> list[TwinOutcome]:
    """The twins of both samplers, where forgetting one episode changes the exact answer most."""
    changes = [
        (float(np.abs(exact(p).values - exact(only(p, [m for m in range(EPISODES) if m != n])).values).max()), k, n)
        for k, p in enumerate(case.prompts)
        for n in range(EPISODES)
    ]
    _, which, forgotten = max(changes)
    found, prompt = [], case.prompts[which]
    for method in METHODS:
        own = quantity(case.posterior(method, prompt))
        for name, effect, points, growth in _false_posteriors(case, method, prompt, forgotten):
            answer = quantity(points)
            errors = own.errors if points.log_weights is not None else answer.errors
            compared = compare_to(dataclasses.replace(answer, errors=errors), exact(prompt), case, growth)
            found.append(twin(f"{name} ({method.upper()})", effect, compared, alpha))
    return found


def check_c1(subject: Subject, settings: Settings) -> Outcome:
    """BAIL by draws."""

    def compare(case: Continuous, method: str) -> list[Compared]:
        assert case.exact is not None
        return [compare_to(bail_of(case.posterior(method, p)), case.exact.bail(p), case) for p in case.prompts]

    outcome = agree(subject, settings, "BAIL", compare)
    if not settings.full or outcome.verdict is Verdict.NOT_APPLICABLE:
        return outcome
    return all_of([outcome, *[calibrated.check(subject, settings, method) for method in METHODS]])


def twins_c1(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    """Besides the false posteriors: the expert of the mean world."""
    case, found = subject.once(case_of), []
    assert case.exact is not None
    exact = case.exact.bail(case.prompts[0])
    for method in METHODS:
        one = compare_to(_mean_world_expert(case.posterior(method, case.prompts[0])), exact, case)
        name = f"the expert of the posterior-mean world ({method.upper()})"
        found.append(twin(name, f"one subgoal, which BAIL gives {exact.values.max():.2f} at most", one, settings.alpha))
        if settings.full:
            found += calibrated.twins(subject, settings, method)
    return found + _judge(case, bail_of, case.exact.bail, settings.alpha)


def _mean_world_expert(points: Posterior) -> Answer:
    """The subgoal of the expert whose world has the mean of all kernels."""
    prompt = points.prompt or Prompt()
    mixture = mixture_of(points, DRAWS)
    family = what_follows(mixture.family, prompt)
    kernels = (family.initial, family.dense_transition(), family.emission)
    initial, transition, emission = (
        np.tensordot(mixture.weights, np.broadcast_to(k, (family.num_tasks, *k.shape[1:])), 1)[None] for k in kernels
    )
    one = Family(
        np.ones(1),
        initial,
        transition,
        emission,
        family.reward,
        horizon=family.horizon,
        instruction_prior=family.instruction_prior,
    )
    chosen = int(first_actions(one, solve_experts(one), prompt)[0])
    return Answer(np.eye(family.num_subgoals)[chosen], np.zeros(family.num_subgoals))


def check_w1(subject: Subject, settings: Settings) -> Outcome:
    """The law of the next observation by draws."""

    def compare(case: Continuous, method: str) -> list[Compared]:
        assert case.exact is not None
        return [
            compare_to(predictive_of(case.posterior(method, p)), case.exact.predictive(p), case) for p in case.prompts
        ]

    outcome = agree(subject, settings, "law of the next observation after every subgoal", compare)
    if outcome.verdict is Verdict.NOT_APPLICABLE:
        return outcome
    case = subject.once(case_of)
    gap = world_model_gap(case.posterior(METHODS[0], case.prompts[0]), DRAWS)
    said = "the world model itself against the mean law of its draws"
    return all_of([outcome, identity(gap, ROUNDING, said)])


def twins_w1(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    """The false posteriors."""
    case = subject.once(case_of)
    assert case.exact is not None
    return _judge(case, predictive_of, case.exact.predictive, settings.alpha)
