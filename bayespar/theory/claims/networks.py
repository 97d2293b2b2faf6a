"""P1 with real networks in BAIL's place: every term of its bound measured, for good networks and for bad ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from ...learned.training import TrainingPlan
from ...learned.transformer import Transformer, TransformerPlanner
from ...planning.planner import UniformPolicy
from ...simulate.behaviours import Exploring
from ...simulate.corpus import sample_corpus
from ...simulate.practical import judge_planner
from ...statistics import Interval, total_variation
from ..claim import Settings, Subject
from ..figure import Curves, Series
from ..practical import (
    CorpusTerm,
    PracticalTerms,
    corpus_term,
    largest_step_losses,
    practical_terms,
    size_needed,
    total,
)
from ..pretrained import EPISODES, QUICK, SIZES, WIDTHS, learn, pretrained
from ..verdict import Outcome, TwinOutcome, Verdict, all_of

EPSILON = 0.25
SEEDS, FULL_SEEDS = 640, 2048
PROMPTS, FULL_PROMPTS = 256, 1024
SHAKEN = 0.4
EXCHANGED = "its last two answers exchanged"


def networks(subject: Subject, full: bool) -> dict[str, Transformer]:
    """Networks by name: as trained, at several sizes, and made bad on purpose."""
    trained = subject.once(pretrained, full).trained
    best = trained.network
    found = {f"trained for {trained.steps} steps": best}
    if full:
        found |= {_name(p): subject.once(learn, p).network for w in WIDTHS for p in _sizes(w)}
        found["trained on labels of other prompts"] = learn(subject, QUICK, shuffled=True).network
        found[f"shaken by {SHAKEN:.0%}"] = shaken(best, SHAKEN, subject.key)
    plan = trained.plan
    found["not trained"] = Transformer(
        subject.family, plan.episodes, width=plan.width, layers=plan.layers, heads=plan.heads, key=subject.key
    )
    answers = np.arange(best.planner.shape[1])
    answers[-2:] = answers[:-3:-1]
    found[EXCHANGED] = eqx.tree_at(lambda n: n.planner, best, best.planner[:, answers])
    return found


def _sizes(width: int) -> list[TrainingPlan]:
    """Pretraining of every size."""
    return [replace(QUICK, width=width, heads=width // 16, steps=steps) for steps in SIZES]


def _name(plan: TrainingPlan) -> str:
    return f"width {plan.width}, {plan.steps} steps"


def shaken(network: Transformer, share: float, key: int) -> Transformer:
    """The network with normal noise in its weights, of this share of each array's root mean square."""
    rng = np.random.default_rng(key)

    def shake(weights: np.ndarray) -> np.ndarray:
        noise = rng.standard_normal(weights.shape) * np.sqrt(np.mean(np.square(weights)))
        return np.asarray(weights + share * noise, np.float32)

    return jax.tree.map(shake, jax.device_get(network))


@dataclass(frozen=True)
class Practised:
    """A network in the online loop.

    Attributes:
        terms: P1's, under the least likely task; and in the full profile under the likeliest too.
        losses: what each step can lose at most under the first of those tasks, [H-1].
        corpus: the error term by a corpus of its own behaviour, for the first of those tasks; None if none was drawn.
    """

    terms: tuple[PracticalTerms, ...]
    losses: Float[np.ndarray, " Hm1"]
    corpus: CorpusTerm | None


def _tasks(subject: Subject, full: bool) -> list[int]:
    prior = np.asarray(subject.family.task_prior, np.float64)
    order = subject.live[np.argsort(-prior[subject.live], kind="stable")].tolist()
    return [order[-1], order[0]] if full else order[-1:]


def practised(subject: Subject, settings: Settings) -> dict[str, Practised]:
    """Every network in BAIL's place."""
    out, full, family = {}, settings.full, subject.family
    tasks = _tasks(subject, full)
    losses = largest_step_losses(subject.graph, subject.graph_experts)[subject.classes.label[tasks]]
    density = 1 / float(np.asarray(family.task_prior)[tasks[0]])
    for name, network in subject.once(networks, full).items():
        planner = TransformerPlanner(network, EPISODES)
        terms = [
            practical_terms(
                planner,
                family,
                z,
                exploration=EPSILON,
                episodes=EPISODES,
                seeds=FULL_SEEDS if full else SEEDS,
                step_losses=step_losses,
                alpha=settings.alpha,
                key=subject.key,
                experts=subject.experts,
            )
            for z, step_losses in zip(tasks, losses, strict=True)
        ]
        corpus = None
        if full or name == EXCHANGED:
            distance = (_by_corpus if full else _by_runs)(subject, network, planner)
            corpus = corpus_term(distance, losses[0], density, settings.alpha)
        out[name] = Practised(tuple(terms), losses[0], corpus)
    return out


def _by_corpus(subject: Subject, network: Transformer, planner: TransformerPlanner) -> Float[np.ndarray, "B T Hm1"]:
    """TV from BAIL on a corpus of the network's own behaviour, coins included."""
    behaviour = Exploring(planner, EPSILON, UniformPolicy(subject.family.num_subgoals))
    corpus = sample_corpus(
        subject.family, FULL_PROMPTS, EPISODES, behaviour, key=subject.key + 2, experts=subject.experts
    )
    said, _ = network.predict(corpus.observations, corpus.subgoals, corpus.instructions)
    return total_variation(said, corpus.bail)


def _by_runs(subject: Subject, network: Transformer, planner: TransformerPlanner) -> Float[np.ndarray, "B T Hm1"]:
    """The same of online runs whose task is drawn from the prior, which have the same law and compile nothing new."""
    prior = np.asarray(subject.family.task_prior, np.float64)
    rng = np.random.default_rng([subject.key, 3])
    found = []
    for z, count in enumerate(rng.multinomial(PROMPTS, prior / prior.sum())):
        if count:
            key = subject.key + 1000 + z
            rest = EPSILON, EPISODES, int(count)
            found.append(judge_planner(subject.family, z, planner, *rest, key=key, experts=subject.experts).error)
    return np.concatenate(found)[rng.permutation(PROMPTS)]  # in any order, as prompts of a corpus come


def holds(slack: Interval, terms: PracticalTerms, told: str) -> Outcome:
    """Supported if what the terms leave above the regret is above 0 with all of its interval; refuted if below."""
    verdict = Verdict.SUPPORTED if slack.low >= 0 else Verdict.REFUTED if slack.high < 0 else Verdict.INCONCLUSIVE
    if terms.violations:
        verdict = Verdict.REFUTED
    return Outcome(
        verdict,
        terms.regret.mean,
        terms.measured,
        told,
        tightness=terms.regret.mean / terms.measured,
        alpha=slack.alpha,
    )


def denser(online: Interval, corpus: Interval, told: str) -> Outcome:
    """Supported if the error online lies below what the corpus makes of it, intervals apart."""
    verdict = Verdict.INCONCLUSIVE
    if online.high <= corpus.low:
        verdict = Verdict.SUPPORTED
    elif online.low > corpus.high:
        verdict = Verdict.REFUTED
    return Outcome(verdict, online.mean, corpus.mean, told, alpha=online.alpha + corpus.alpha)


def check(subject: Subject, settings: Settings) -> Outcome:
    """P1 for every network."""
    found = subject.once(practised, settings)
    outcomes = []
    for one in found.values():
        outcomes += [holds(terms.slack, terms, "") for terms in one.terms]
        if one.corpus is not None:
            outcomes.append(denser(_online(one, settings.alpha), one.corpus.error, ""))
    by_error = sorted(found, key=lambda name: found[name].terms[0].error.mean)
    shown = "; ".join(f"{name}: {_shown(found[name])}" for name in by_error)
    task = subject.family.tasks[_tasks(subject, settings.full)[0]]
    told = (
        f"{len(found)} networks, {EPISODES} episodes of {task!r}, regret <= exploration + doubt + error, each measured "
        f"online ({shown}); {_growth([found[name] for name in by_error], settings.alpha)}"
    )
    figures = (_figure(found, by_error), *([_corpora(found, subject.family.horizon)] if settings.full else []))
    return replace(all_of(outcomes), reason=told, figures=figures)


def _online(one: Practised, alpha: float) -> Interval:
    """The error on all prompts met under the first task, whoever acted, as the prompts of a corpus are."""
    return total(one.terms[0].runs.error @ one.losses, 0.0, float(one.losses.sum()), alpha)


def _shown(one: Practised) -> str:
    terms = one.terms[0]
    parts = f"{terms.exploration.mean:.2f} + {terms.doubt.mean:.2f} + {terms.error.mean:.2f}"
    told = f"{terms.regret.mean:.2f} <= {parts}"
    return told if one.corpus is None else f"{told}, error at most {one.corpus.error.mean:.3g} by its own corpus"


def _growth(by_error: Sequence[Practised], alpha: float) -> str:
    """By how much regret changes from one network to the next: run by run, with the same random numbers."""
    changes = []
    for less, more in pairwise(by_error):
        most = float(less.losses.sum())
        change = total(more.terms[0].runs.regret - less.terms[0].runs.regret, -most, most, alpha)
        changes.append(f"{change.mean:+.2f} [{change.low:.2f}, {change.high:.2f}]")
    return f"from each error to the next larger one regret changes by {', '.join(changes)}, which no theorem promises"


def _figure(found: dict[str, Practised], by_error: Sequence[str]) -> Curves:
    terms = [found[name].terms[0] for name in by_error]
    x = [t.error.mean for t in terms]
    regret = [t.regret for t in terms]
    return Curves(
        f"Regret of networks in BAIL's place after {EPISODES} episodes",
        "planner error on the prompts met, summed",
        "regret",
        [
            Series("network", x, [r.mean for r in regret], [r.low for r in regret], [r.high for r in regret]),
            Series("exploration + doubt + error", x, [t.measured for t in terms], kind="bound"),
            Series("without the error", x, [t.exploration.mean + t.doubt.mean for t in terms], kind="reference"),
        ],
        note=f"From the left: {'; '.join(by_error)}.",
    )


def _corpora(found: dict[str, Practised], horizon: int) -> Curves:
    """The corpus that a horizon needs, for each width."""
    lines, sizes = [], [plan.steps * plan.prompts(0, horizon) for plan in _sizes(WIDTHS[0])]
    for width in WIDTHS:
        errors, allowed = [], np.zeros(EPISODES)
        for plan in _sizes(width):
            one = found[_name(plan)]
            runs = one.terms[0].runs
            errors.append(np.cumsum(runs.weighed(runs.error, one.losses).mean(axis=0)))
            allowed = np.cumsum(np.where(runs.explored, runs.regret, 0.0).mean(axis=0))
        needed = size_needed(np.array(sizes, np.float64), np.stack(errors), allowed)
        t = np.flatnonzero(np.isfinite(needed))
        lines.append(Series(f"width {width}", (t + 1.0).tolist(), needed[t].tolist()))
    return Curves(
        f"Corpus that keeps a network's error below exploration, epsilon = {EPSILON:g}",
        "horizon T, episodes",
        "prompts in the corpus",
        lines,
        log=True,
        note="Errors on the prompts met under the least likely task; where no size was enough there is no point.",
    )


def twins(subject: Subject, settings: Settings) -> list[TwinOutcome]:
    """The network whose answers are exchanged, with its error left out, and judged by a corpus as if lambda were 1."""
    one = subject.once(practised, settings)[EXCHANGED]
    terms, n = one.terms[0], len(one.terms[0].runs.regret)
    most = float(one.losses.sum())
    runs = terms.runs
    left = runs.weighed(runs.doubt, one.losses) - np.where(runs.explored, 0.0, runs.regret)
    slack = total(left, -most, most, settings.alpha)
    spread = float(left.sum(axis=1).std())
    left_over = terms.exploration.mean + terms.doubt.mean
    effect = f"a network with {EXCHANGED}: regret {terms.regret.mean:.3g}, exploration + doubt {left_over:.3g}"
    out = [
        TwinOutcome(
            "the network's error left out",
            effect,
            holds(slack, terms, "").verdict is Verdict.REFUTED,
            slack.mean,
            float(norm.cdf(-slack.high * n**0.5 / spread)),
        )
    ]
    if one.corpus is not None:
        density, online = one.corpus.density, _online(one, settings.alpha)
        corpus = replace(
            one.corpus.error, **{k: getattr(one.corpus.error, k) / density for k in ("mean", "low", "high")}
        )
        spread = float((runs.error @ one.losses).sum(axis=1).std())
        effect = f"its error is {online.mean:.3g} under the least likely task, and {corpus.mean:.3g} on its corpus"
        out.append(
            TwinOutcome(
                "lambda forgotten",
                effect,
                denser(online, corpus, "").verdict is Verdict.REFUTED,
                online.mean - corpus.mean,
                float(norm.cdf((online.low - corpus.high) * n**0.5 / spread)),
            )
        )
    return out
