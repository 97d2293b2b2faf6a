"""Simulation-based calibration of NUTS and SMC: the full profile's part of C1 where tasks have a density."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ...history import Prompt
from ...posterior.choose import posterior
from ...posterior.latents import Latents
from ...posterior.result import Posterior
from ..calibration import LOG_LIKELIHOOD, Calibration, Simulated, calibrate, power, simulate
from ..claim import Settings, Subject
from ..continuous import only
from ..verdict import Outcome, TwinOutcome, Verdict

FITS = 200
EPISODES = 8  # so many that it shows if all but the last are forgotten
SIZES: dict[str, dict[str, Any]] = {
    "nuts": {"chains": 4, "warmup": 300, "draws": 250},
    "smc": {"chains": 4, "particles": 256},
}


def check(subject: Subject, settings: Settings, method: str) -> Outcome:
    """Ranks of every coordinate and of the log-likelihood, and the probabilities of the leaves."""
    found = subject.once(calibration, method, "")
    p = found.p_value()
    levels = settings.alpha / len(found.p_values())
    seen = math.sqrt(math.log(2 / levels) / (2 * FITS))
    furthest = max(found.distance(name) for name in found.ranks)
    said = f"ranks in {FITS} fits by {method.upper()} are {furthest:.2f} from uniform ({seen:.2f} would be too much)"
    verdict = Verdict.REFUTED if p < settings.alpha else Verdict.SUPPORTED
    return Outcome(verdict, furthest, seen, said, alpha=settings.alpha)


def twins(subject: Subject, settings: Settings, method: str) -> list[TwinOutcome]:
    """A likelihood that is missing, and a filter that forgets: by coordinates alone both are calibrated."""
    found = []
    for name in FALSE:
        seen: Calibration = subject.once(calibration, method, name)
        furthest = seen.distance(LOG_LIKELIHOOD)
        level = settings.alpha / len(seen.p_values())
        effect = f"the log-likelihood's ranks {furthest:.2f} from uniform"
        rejected = seen.p_value() < settings.alpha
        found.append(
            TwinOutcome(f"{name} ({method.upper()})", effect, rejected, furthest, power(furthest, FITS, level))
        )
    return found


FALSE: dict[str, Callable[[Prompt], Prompt]] = {
    "calibrated without a likelihood": lambda prompt: only(prompt, []),
    "calibrated on the last episode only": lambda prompt: Prompt(
        prompt.observations[-1:], prompt.subgoals[-1:], prompt.instructions[-1:]
    ),
}


def calibration(subject: Subject, method: str, false: str) -> Calibration:
    """Of a sampler; or of one that sees less, as one of ``FALSE`` says."""
    latents = subject.latents
    assert latents is not None

    def sample(prompt: Prompt, key: int) -> Posterior:
        told = FALSE[false](prompt) if false else prompt
        found = posterior(latents, told, method, key=key, **SIZES[method])
        return dataclasses.replace(found, prompt=prompt)

    return calibrate(latents, sample, subject.once(_cases, latents), key=subject.key)


def _cases(subject: Subject, latents: Latents) -> list[Simulated]:
    rng = np.random.default_rng([subject.key, 9])
    return [simulate(latents, rng, EPISODES) for _ in range(FITS)]
