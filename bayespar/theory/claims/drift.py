"""C3 where tasks have a density: what draws say of the task drifts nowhere."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...history import Prompt
from ...planning.by_draws import DRAWS, mixture_of
from ..agreement import Compared, twin
from ..claim import Settings, Subject
from ..continuous import CHAINS, Continuous
from ..estimates import moments_of, tilted
from ..verdict import Outcome, TwinOutcome
from .continuous import METHODS, agree, case_of, compare_to, first_coordinate

TILT = 0.5


def check_c3(subject: Subject, settings: Settings) -> Outcome:
    """P(leaf | pt) and E[theta | pt] by draws, and their drift to the next observation."""

    def compare(case: Continuous, method: str) -> list[Compared]:
        assert case.exact is not None
        exact, out = case.exact, []
        for prompt in (case.prompts[0], *(p for p, _ in _next_prompts(case))):
            out.append(compare_to(moments_of(case.posterior(method, prompt)), exact.moments(prompt), case))
        return [*out, _drift(case, method)]

    said = "P(leaf | pt) and E[theta | pt], along the prompt, and their drift to the next observation"
    return agree(subject, settings, said, compare)


def twins_c3(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    """The expectation under one task; a posterior from another prior."""
    case, found = subject.once(case_of), []
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
            x = first_coordinate(points, next(iter(case.latents.shapes)))
            slope = tilt * (x - x.mean()) / x.std()
            points, grown = tilted(points, np.repeat(slope[..., None], len(case.latents.leaves), axis=2))
            own = dataclasses.replace(moments_of(points), errors=own.errors)
        after.append(own)
        growth.append(grown)
    mean = sum(p * a.values for p, a in zip(law, after, strict=True))
    variance = sum((p * g * a.errors) ** 2 for p, g, a in zip(law, growth, after, strict=True))
    return Compared(np.asarray(mean), now.values, np.sqrt(now.errors**2 + variance), CHAINS * case.draws, 1e-5)


def _surest(case: Continuous, method: str, outcomes: int, observed: list[int]) -> np.ndarray:
    """The law of the next observation under the draw that is surest of one outcome."""
    mixture = mixture_of(case.posterior(method, case.prompts[0]), DRAWS)
    kernel = mixture.family.dense_transition()[:, 0, 0]
    emission = np.asarray(mixture.family.emission)
    initial = np.asarray(mixture.family.initial) * emission[..., case.prompts[0].current_observations[0]]
    laws = np.einsum("...s,...st,...to->...o", initial / initial.sum(axis=-1, keepdims=True), kernel, emission)
    laws = laws[:, observed]
    return laws[int(np.argmax(laws.max(axis=1)))]
