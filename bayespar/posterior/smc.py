"""Particles as a posterior: several independent systems, from the prior to everything in a prompt."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..errors import ConvergenceWarning
from ..forward import log_sum
from ..history import Prompt, check_prompt
from ..statistics import log_sum_exp
from ..validation import check_count
from .diagnostics import Diagnostics, disagreements, statistics_table
from .latents import Latents
from .particles import SMC, Particles, constrain
from .result import Posterior

MIN_UNIQUE = 0.5  # of the particles of a chain
MAX_EVIDENCE_ERROR = 0.5  # nats


def smc_posterior(
    latents: Latents,
    prompt: Prompt,
    *,
    key: Any = 0,
    particles: int = 1024,
    chains: int = 4,
    threshold: float = 0.5,
    moves: int = 3,
    batch: int | None = None,
) -> Posterior:
    """The posterior by sequential Monte Carlo: particles from the prior, reweighted, resampled and moved.

    Args:
        latents: from :func:`find_latents`.
        prompt: what was seen.
        key: a JAX key or an int.
        particles: in each chain.
        chains: independent systems; their differences show what the particles miss. The first one sets the schedule.
        threshold: particles are moved when their effective sample size falls below this share of them.
        moves: Hamiltonian moves of each particle after a resampling.
        batch: episodes that are fed at once, tempered where they say too much; by default all of them, which is the
            fastest. With 1 the particles see the prompt as the online loop sees it.

    Returns:
        Draws of equal weight, [chain, particle]: at the end everything is resampled and moved once more. Copies of a
        particle lie side by side, so the effective sample size by autocorrelation counts what moves have not yet told
        apart. ``log_evidence`` is the log of the mean of the unbiased estimates (of every chain but the first, where
        there are several); ``attributes["log_evidence_standard_error"]`` is its standard error in nats, from the
        spread of the chains: rough where they are few, NaN where it is one estimate.

    Raises:
        InvalidPlannerError: no number of particles, chains, moves or episodes, no threshold, or no key.
        InvalidPromptError: the prompt does not fit the program.
        InvalidProgramError: the program observes something itself, so its prior cannot be drawn from.
        ImpossibleEvidenceError: no particle can have produced the prompt; names the episode and step.

    Warns:
        ConvergenceWarning: the draws should not be believed; ``diagnostics.problems`` says why.

    Source: Chopin (2002); theory.md, section 8.
    """
    check_prompt(prompt, latents.example)
    size = max(prompt.num_episodes, 1) if batch is None else check_count("batch", batch)
    smc = SMC(latents, particles, chains, threshold, moves)
    state = smc.init(key)
    starts = range(0, max(prompt.num_episodes, 1), size)
    for start in starts:
        part = slice(start, start + size)
        past = prompt.observations[part], prompt.subgoals[part], prompt.instructions[part]
        last = start == starts[-1]
        now = (prompt.current_observations, prompt.current_subgoals) if last else ()
        state = smc.observe(state, Prompt(*past, *now) if len(past[0]) else Prompt(None, None, None, *now))
    if prompt.num_episodes or prompt.step:
        state = smc.rejuvenate(state)
    result = _posterior(smc, state, prompt, key)
    if result.diagnostics is not None and not result.diagnostics.ok:
        problems = "; ".join(result.diagnostics.problems)
        warnings.warn(f"do not believe these draws: {problems}", ConvergenceWarning, stacklevel=2)
    return result


def _posterior(smc: SMC, state: Particles, prompt: Prompt, key: Any) -> Posterior:
    latents = smc.latents
    with jax.enable_x64(True):
        sites = {name: np.asarray(a) for name, a in constrain(latents, state.u).items()}
        density = np.asarray(log_sum(jnp.asarray(state.log_joint), 2))
    estimates = np.asarray(state.log_evidence)
    estimates = estimates[1:] if len(estimates) > 1 else estimates
    log_evidence, error = _mean_of_logs(estimates)
    unique = np.array([len(np.unique(chain, axis=0)) for chain in np.asarray(state.u)]) / smc.particles
    return Posterior(
        method="smc",
        log_evidence=log_evidence,
        prompt=prompt,
        latents=latents,
        draws=sites,
        leaf_probabilities=state.leaf_probabilities,
        sample_stats={"lp": density},
        diagnostics=_diagnose(sites, unique, error),
        attributes={
            **({"key": int(key)} if isinstance(key, (int, np.integer)) else {}),
            **{name: version(name) for name in ("bayespar", "jax", "blackjax")},
            "particles": smc.particles,
            "chains": smc.chains,
            "threshold": smc.threshold,
            "moves": smc.moves,
            "log_evidence_standard_error": error,
            "log_evidence_by_chain": np.asarray(state.log_evidence).tolist(),
            "rejuvenations": state.generation,
            "acceptance_rate": state.acceptance,
        },
    )


def _mean_of_logs(logs: np.ndarray) -> tuple[float, float]:
    """log of the mean of exp(logs), and its standard error by the delta method, nats."""
    mean = float(log_sum_exp(logs)) - math.log(len(logs))
    if len(logs) < 2:
        return mean, math.nan
    return mean, float(np.exp(logs - mean).std(ddof=1) / math.sqrt(len(logs)))


def _diagnose(sites: Mapping[str, np.ndarray], unique: Float[np.ndarray, " chain"], error: float) -> Diagnostics:
    """What can be seen to be wrong with particles, by the measures that chains are judged by."""
    table = statistics_table(sites)
    problems = disagreements(table, len(unique), "use more particles or moves")
    if unique.min() < MIN_UNIQUE:
        problems.append(
            f"only {unique.min():.0%} of the particles of a chain differ (must be at least {MIN_UNIQUE:.0%}): few "
            "moves are accepted; use more moves"
        )
    if error > MAX_EVIDENCE_ERROR:
        problems.append(
            f"the standard error of log_evidence is {error:.2f} nats (must be at most {MAX_EVIDENCE_ERROR}): use more "
            "particles"
        )
    return Diagnostics(table, 0, np.zeros(0), tuple(problems))
