"""C1, C3 and W1 where tasks have a density: by NUTS and by SMC, against closed forms or quadrature."""

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
from ..continuous import (
    EPISODES,
    Answer,
    Continuous,
    bail_of,
    moments_of,
    predictive_of,
    shorter,
    tilted,
    world_model_gap,
)
from ..verdict import Outcome, TwinOutcome, Verdict, all_of, identity, not_applicable
from . import calibrated

METHODS = ("nuts", "smc")
TASTE = 0.5
TILT = 0.5
WORLDS = 3  # with a density, that are shipped

Quantity = Callable[[Posterior], Answer]
Comparison = Callable[[Continuous, str], list[Compared]]


def checks(twins: int) -> int:
    """Statistical checks of a claim with so many twins, in a whole run."""
    return WORLDS * len(METHODS) * (1 + twins)


def _case(subject: Subject) -> Continuous:
    assert subject.latents is not None
    return Continuous(subject.latents, subject.key)


def _why_not(subject: Subject) -> str | None:
    latents = subject.latents
    if latents is None:
        return "its tasks are finite"
    if latents.observed:
        return "the program observes something itself, so no corpus can be drawn from it"
    if latents.example.horizon == 1:
        return "H = 1: an episode has no decision"
    try:
        case = subject.once(_case)
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


def _compare(estimate: Answer, exact: Answer, case: Continuous, growth: float = 1.0) -> Compared:
    errors, slack = estimate.errors * growth, exact.slack + estimate.slack
    return Compared(estimate.values, exact.values, errors, 4 * case.draws, slack)


def _agree(
    subject: Subject, settings: Settings, what: str, compare: Callable[[Continuous, str], list[Compared]]
) -> Outcome:
    """One outcome of both samplers; inconclusive where a sampler's own diagnostics complain."""
    reason = _why_not(subject)
    if reason:
        return not_applicable(reason)
    case, outcomes = subject.once(_case), []
    for method in METHODS:
        compared = compare(case, method)
        against = "closed forms" if type(case.exact).__name__ == "Arms" else "quadrature"
        said = f"{what}, by {method.upper()} ({4 * case.draws} draws) against {against}"
        outcome = agreement(compared, settings.alpha, said)
        problems = [p for prompt in case.prompts for p in _problems(case.posterior(method, prompt))]
        if problems and outcome.verdict is Verdict.SUPPORTED:
            outcome = dataclasses.replace(outcome, verdict=Verdict.INCONCLUSIVE, reason=f"{said}; {problems[0]}")
        outcomes.append(outcome)
    return all_of(outcomes)


def _problems(found: Posterior) -> tuple[str, ...]:
    return found.diagnostics.problems if found.diagnostics is not None else ()


def _false_posteriors(case: Continuous, method: str) -> Iterator[tuple[str, str, Posterior, float]]:
    """What is taken for the posterior of the first prompt: name, effect, points, growth of the standard errors."""
    prompt = case.prompts[0]
    for kept, name in ((0, "the prior in place of the posterior"), (EPISODES - 1, "the last episode is forgotten")):
        less = case.posterior(method, shorter(prompt, kept))
        yield name, f"{kept} of {EPISODES} episodes counted", dataclasses.replace(less, prompt=prompt), 1.0
    more, growth = tilted(case.posterior(method, prompt), _taste(case.posterior(method, prompt), prompt))
    yield "behaviour is counted as evidence", f"each task has its own taste, mixture weight {TASTE}", more, growth


def _taste(points: Posterior, prompt: Prompt) -> np.ndarray:
    """log probability of the prompt's subgoals, if each task had a favourite among them, [chain, draw, L], nats."""
    assert points.latents is not None
    G, (name, *_) = points.latents.example.num_subgoals, points.latents.shapes
    first = _first_coordinate(points, name)
    rank = np.argsort(np.argsort(first, axis=None), axis=None).reshape(first.shape)
    favourite = (rank[..., None] * G // first.size + np.arange(len(points.latents.leaves))) % G
    counts = np.bincount(prompt.subgoals.ravel(), minlength=G)
    other, own = np.log((1 - TASTE) / G), np.log((1 - TASTE) / G + TASTE)
    return counts.sum() * other + counts[favourite] * (own - other)


def _first_coordinate(points: Posterior, name: str) -> np.ndarray:
    assert points.draws is not None
    values = np.asarray(points.draws[name])
    return values.reshape(*values.shape[:2], -1)[..., 0]


def _judge(case: Continuous, method: str, quantity: Quantity, exact: Answer, alpha: float) -> list[TwinOutcome]:
    found = []
    for name, effect, points, growth in _false_posteriors(case, method):
        own = quantity(case.posterior(method, case.prompts[0]))
        answer = quantity(points)
        errors = own.errors if points.log_weights is not None else answer.errors
        compared = _compare(dataclasses.replace(answer, errors=errors), exact, case, growth)
        found.append(twin(f"{name} ({method.upper()})", effect, compared, alpha))
    return found


def check_c1(subject: Subject, settings: Settings) -> Outcome:
    """BAIL by draws."""

    def compare(case: Continuous, method: str) -> list[Compared]:
        assert case.exact is not None
        return [_compare(bail_of(case.posterior(method, p)), case.exact.bail(p), case) for p in case.prompts]

    outcome = _agree(subject, settings, "BAIL", compare)
    if not settings.full or outcome.verdict is Verdict.NOT_APPLICABLE:
        return outcome
    return all_of([outcome, *[calibrated.check(subject, settings, method) for method in METHODS]])


def twins_c1(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    """Besides the false posteriors: the expert of the mean world."""
    case, found = subject.once(_case), []
    assert case.exact is not None
    exact = case.exact.bail(case.prompts[0])
    for method in METHODS:
        one = _compare(_mean_world_expert(case.posterior(method, case.prompts[0])), exact, case)
        name = f"the expert of the posterior-mean world ({method.upper()})"
        found.append(twin(name, f"one subgoal, which BAIL gives {exact.values.max():.2f} at most", one, settings.alpha))
        found += _judge(case, method, bail_of, exact, settings.alpha)
        if settings.full:
            found += calibrated.twins(subject, settings, method)
    return found


def _mean_world_expert(points: Posterior) -> Answer:
    """The subgoal of the expert whose world has the mean of all kernels."""
    prompt = points.prompt or Prompt()
    mixture = mixture_of(points, DRAWS)
    family = what_follows(mixture.family, prompt)
    kernels = (family.initial, family.dense_transition(), family.emission)
    means = [
        np.tensordot(mixture.weights, np.broadcast_to(k, (len(mixture.weights), *k.shape[1:])), 1) for k in kernels
    ]
    one = Family(
        np.ones(1),
        *[np.asarray(m)[None] for m in means],
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
            _compare(predictive_of(case.posterior(method, p)), case.exact.predictive(p), case) for p in case.prompts
        ]

    outcome = _agree(subject, settings, "law of the next observation after every subgoal", compare)
    if outcome.verdict is Verdict.NOT_APPLICABLE:
        return outcome
    case = subject.once(_case)
    gap = world_model_gap(case.posterior(METHODS[0], case.prompts[0]), DRAWS)
    said = "the world model itself against the mean law of its draws"
    return all_of([outcome, identity(gap, ROUNDING, said)])


def twins_w1(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    """The false posteriors."""
    case = subject.once(_case)
    assert case.exact is not None
    exact = case.exact.predictive(case.prompts[0])
    return [t for m in METHODS for t in _judge(case, m, predictive_of, exact, settings.alpha)]


def check_c3(subject: Subject, settings: Settings) -> Outcome:
    """P(leaf | pt) and E[theta | pt] by draws, and their drift to the next observation."""

    def compare(case: Continuous, method: str) -> list[Compared]:
        assert case.exact is not None
        exact, out = case.exact, []
        for prompt in (case.prompts[0], *(p for p, _ in _next_prompts(case))):
            out.append(_compare(moments_of(case.posterior(method, prompt)), exact.moments(prompt), case))
        return [*out, _drift(case, method)]

    said = "P(leaf | pt) and E[theta | pt], along the prompt, and their drift to the next observation"
    return _agree(subject, settings, said, compare)


def twins_c3(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    """The expectation under one task; a posterior from another prior."""
    case, found = subject.once(_case), []
    for method in METHODS:
        sure = f"the expectation under one task ({method.upper()})"
        effect = "the outcome that is likeliest under the draw that is surest of it"
        found.append(twin(sure, effect, _drift(case, method, under=True), settings.alpha))
        tilt = _drift(case, method, tilt=TILT)
        effect = f"log density of the prior moved by {TILT} a posterior standard deviation"
        found.append(twin(f"a posterior from another prior ({method.upper()})", effect, tilt, settings.alpha))
    return found


def _next_prompts(case: Continuous) -> list[tuple[Prompt, float]]:
    """The first prompt with the first subgoal and each observation that may follow, and its probability."""
    assert case.exact is not None
    prompt = case.prompts[0]
    O = case.latents.example.num_observations
    law = case.exact.predictive(prompt).values[:O]
    past = prompt.observations, prompt.subgoals, prompt.instructions
    chosen = np.append(prompt.current_subgoals, 0)
    return [
        (Prompt(*past, np.append(prompt.current_observations, o), chosen, prompt.current_instruction), float(law[o]))
        for o in np.flatnonzero(law > 1e-6)
    ]


def _drift(case: Continuous, method: str, *, under: bool = False, tilt: float = 0.0) -> Compared:
    """sum_o P(o | pt, g) E[. | pt, g, o] against E[. | pt], each by its own draws.

    Args:
        case: the world.
        method: of the sampler.
        under: take P(o | .) of one draw, instead of the aggregated law.
        tilt: of the prior, in log density a posterior standard deviation of the first site.
    """
    following = _next_prompts(case)
    law = np.array([p for _, p in following])
    if under:
        law = _surest(case, method, len(law), [int(p.current_observations[-1]) for p, _ in following])
    law = law / law.sum()
    now = moments_of(case.posterior(method, case.prompts[0]))
    after, growth = [], []
    for prompt, _ in following:
        points = case.posterior(method, prompt)
        own, grown = moments_of(points), 1.0
        if tilt:
            x = _first_coordinate(points, next(iter(case.latents.shapes)))
            slope = tilt * (x - x.mean()) / x.std()
            points, grown = tilted(points, np.repeat(slope[..., None], len(case.latents.leaves), axis=2))
            own = dataclasses.replace(moments_of(points), errors=own.errors)
        after.append(own)
        growth.append(grown)
    mean = sum(p * a.values for p, a in zip(law, after, strict=True))
    variance = sum((p * g * a.errors) ** 2 for p, g, a in zip(law, growth, after, strict=True))
    return Compared(np.asarray(mean), now.values, np.sqrt(now.errors**2 + variance), 4 * case.draws, 1e-5)


def _surest(case: Continuous, method: str, outcomes: int, observed: list[int]) -> np.ndarray:
    """The law of the next observation under the draw that is surest of one outcome."""
    mixture = mixture_of(case.posterior(method, case.prompts[0]), DRAWS)
    kernel = mixture.family.dense_transition()[:, 0, 0]
    emission = np.asarray(mixture.family.emission)
    initial = np.asarray(mixture.family.initial) * emission[..., case.prompts[0].current_observations[0]]
    laws = np.einsum("...s,...st,...to->...o", initial / initial.sum(axis=-1, keepdims=True), kernel, emission)
    laws = laws[:, observed]
    return laws[int(np.argmax(laws.max(axis=1)))]
