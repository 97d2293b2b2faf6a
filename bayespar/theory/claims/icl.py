"""ICL-BAIL and ICL-BAWM: a network pretrained by next-token prediction is BAIL, and BAWM, in context."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.stats import norm

from ...learned.rivals import RIVALS, Evidence, Fit
from ...statistics import Interval, MeanConfidence, kl_divergence, total_variation
from ..claim import Claim, Settings, Subject
from ..figure import Curves, Series
from ..pretrained import (
    EPISODES,
    LAPSE,
    SIZES,
    WIDTHS,
    Conditionals,
    Pretrained,
    by_size,
    exact,
    misled,
    new_prompts,
    pretrained,
    tilted_prior,
    uncertainty,
)
from ..verdict import Outcome, TwinOutcome, Verdict, all_of, below, not_applicable

TRAINED = ("workshop",)
"""Worlds on which networks are trained unasked; on another one, where that and the claim are named."""
UNCERTAIN = 0.3
LIMIT, FULL_LIMIT = 0.05, 0.01
INFORMED = 0.5
SHARE = 0.25
VARIATION, SHORTEST = 0.03, 4
RIVAL_KNOBS: dict[str, dict[str, Any]] = {
    "map expert": {},
    "argmax": {},
    "last episode only": {},
    "forgetting": {"keep": 0.7},
    "temperature": {"temperature": 2.0},
    "tempered evidence": {"evidence": 0.5},
}
HEADS = {"label": "BAIL", "observation": "BAWM"}


def _mean(draws: np.ndarray, largest: float, alpha: float, *, low: float = 0.0) -> Interval:
    """The mean over prompts; fed in batches, so that the stakes adapt."""
    sequence = MeanConfidence(low, largest, alpha, plan=len(draws))
    for batch in np.array_split(draws, 32):
        sequence.update(batch)
    return sequence.interval()


def _excess(true: Conditionals, said: Conditionals, head: str, alpha: float) -> Interval:
    """E KL(true || said), nats, where ``said`` holds a uniform guess of weight LAPSE."""
    p, q = getattr(true, head), getattr(said, head)
    return _mean(kl_divergence(p, q).mean(axis=(1, 2)), float(np.log(p.shape[-1] / LAPSE)), alpha)


def _distance(true: Conditionals, said: Conditionals, head: str, alpha: float) -> Interval:
    """E TV."""
    return _mean(total_variation(getattr(true, head), getattr(said, head)).mean(axis=(1, 2)), 1.0, alpha)


def _why_not(subject: Subject, settings: Settings) -> str | None:
    if subject.name not in TRAINED and not settings.named:
        return f"networks are trained on {' and '.join(TRAINED)}; ask for this one by name to train one on it"
    if subject.family.horizon == 1:
        return "H = 1: an episode has no decision"
    entropy = uncertainty(subject.once(new_prompts, settings.full))[:, EPISODES // 2]
    middle = _mean(entropy, float(np.log(max(2, subject.family.num_tasks))), settings.alpha)
    if middle.low < UNCERTAIN:
        return (
            f"the world gives itself away: after {EPISODES // 2} episodes the posterior has {middle.mean:.2f} nats of "
            f"entropy left, on average, and {UNCERTAIN} are asked for"
        )
    return None


def _judge(true: Conditionals, found: Pretrained, head: str, settings: Settings) -> Outcome:
    """Whether the network says ``true``: the check, and with another truth its twins."""
    reference = _distance(found.true, found.uninformed, head, settings.alpha)
    distance = _distance(true, found.said, head, settings.alpha)
    told = f"E TV from {HEADS[head]} (whoever forgets the past: {reference.mean:.2g})"
    outcomes = [below(distance, SHARE * reference.low, reference.low, told)]
    if head == "label":
        excess = _excess(true, found.said, head, settings.alpha)
        limit = FULL_LIMIT if settings.full else LIMIT
        outcomes.insert(0, below(excess, limit, INFORMED, f"E KL({HEADS[head]} || network), nats a label"))
    if settings.full:
        outcomes += _by_context(true, found, head, settings.alpha / EPISODES)
    return all_of(outcomes)


def _trend(subject: Subject, found: Pretrained, head: str, alpha: float) -> list[Outcome]:
    """Whoever saw more is nearer, for each of two widths; the last of the row is the network of the check."""
    said, out = subject.once(by_size, True), []
    for width in WIDTHS:
        row = {steps: said[width, steps] for steps in SIZES}
        if width == found.trained.plan.width:
            row[found.trained.plan.steps] = found.said
        far = [total_variation(getattr(found.true, head), getattr(q, head)).mean(axis=(1, 2)) for q in row.values()]
        shown = ", ".join(f"{d.mean():.3g} after {steps}" for steps, d in zip(row, far, strict=True))
        told = f"E TV at width {width}: {shown} steps"
        for less, more in pairwise(far):
            change = _mean(more - less, 1.0, alpha, low=-1.0)
            rises = Verdict.REFUTED if change.low > 0 else Verdict.INCONCLUSIVE
            verdict = Verdict.SUPPORTED if change.high < 0 else rises
            out.append(Outcome(verdict, change.mean, 0.0, told, alpha=change.alpha))
    return out


def _nearer_than_rivals(subject: Subject, found: Pretrained, alpha: float) -> list[Outcome]:
    """The network's distance from BAIL is at most a fifth of each rival's."""
    corpus = subject.once(new_prompts, True)
    data = Evidence.of(subject.family, corpus.observations, corpus.subgoals, corpus.actions)
    tilt = np.log(tilted_prior(subject) / np.asarray(subject.family.task_prior))
    knobs = {**RIVAL_KNOBS, "wrong prior": {"tilt": tilt}}
    distance, out = _distance(found.true, found.said, "label", alpha), []
    for rival in RIVALS:
        if rival.name in knobs:
            law = Fit.of(rival, **knobs[rival.name]).predict(data, corpus.bail)
            apart = _mean(total_variation(corpus.bail, law).mean(axis=(1, 2)), 1.0, alpha)
            told = f"a fifth of each rival's E TV from BAIL ({', '.join(knobs)})"
            out.append(below(distance, apart.low / 5, 1.0, told))
    return out


def check(head: str, subject: Subject, settings: Settings) -> Outcome:
    reason = _why_not(subject, settings)
    if reason:
        return not_applicable(reason)
    found = subject.once(pretrained, settings.full)
    if head == "label":
        uninformed = _excess(found.true, found.uninformed.with_lapse(), head, settings.alpha)
        if uninformed.low < INFORMED:
            return not_applicable(
                f"whoever forgets the past has an excess of {uninformed.mean:.2f} nats, and {INFORMED} are asked for"
            )
    outcome = _judge(found.true, found, head, settings)
    if settings.full:
        more = _trend(subject, found, head, settings.alpha / (len(SIZES) * len(WIDTHS)))
        if head == "label":
            more += _nearer_than_rivals(subject, found, settings.alpha / (len(RIVALS) + 1))
        outcome = all_of([outcome, *more])
    excess = kl_divergence(getattr(found.true, head), getattr(found.said, head))
    trained = found.trained
    told = (
        f"{outcome.reason}; mean excess {excess.mean():.2g} nats on {len(excess)} new prompts of {EPISODES} episodes, "
        f"after {trained.steps} steps of {trained.plan.layers} layers of width {trained.plan.width}"
    )
    return replace(outcome, reason=told, figures=(_figure(found, head),))


def _by_context(true: Conditionals, found: Pretrained, head: str, alpha: float) -> list[Outcome]:
    """Mean total variation at every context length that is not short."""
    distance = total_variation(getattr(true, head), getattr(found.said, head)).mean(axis=2)
    told = f"E TV at every context of {SHORTEST} episodes or more"
    return [below(_mean(distance[:, n], 1.0, alpha), VARIATION, 1.0, told) for n in range(SHORTEST, EPISODES)]


def _figure(found: Pretrained, head: str) -> Curves:
    true = getattr(found.true, head)
    at = list(range(1, EPISODES + 1))

    def series(name: str, said: Conditionals, kind: Any) -> Series:
        distance = total_variation(true, getattr(said, head)).mean(axis=2)
        middle, error = distance.mean(axis=0), distance.std(axis=0) / len(distance) ** 0.5
        return Series(name, at, middle.tolist(), (middle - 3 * error).tolist(), (middle + 3 * error).tolist(), kind)

    return Curves(
        f"How far the network is from {HEADS[head]}",
        "episode of the prompt",
        f"mean TV from {HEADS[head]}",
        [series("network", found.said, "measured"), series("who forgets the past", found.uninformed, "reference")],
        note="Means over new prompts, with three standard errors.",
    )


def twins(head: str, subject: Subject, settings: Settings) -> list[TwinOutcome]:
    found, corpus = subject.once(pretrained, settings.full), subject.once(new_prompts, settings.full)
    name = HEADS[head]
    wrong = {
        f"{name} of another prior": exact(subject, corpus, prior=tilted_prior(subject)),
        f"{name} of whoever forgets finished episodes": found.uninformed,
        f"{name} of another prompt": found.true.of_the_next_prompt(),
    }
    cases = [(what, target, found.said) for what, target in wrong.items()]
    if settings.full:
        networks = subject.once(misled, True)
        if head == "observation":  # the world model never sees a label
            networks = {what: said for what, said in networks.items() if "labels" not in what}
        cases += [(f"a network {what}", found.true, said) for what, said in networks.items()]
    limit = SHARE * _distance(found.true, found.uninformed, head, settings.alpha).low
    out = []
    for what, target, said in cases:
        wrong_side = target if target is not found.true else said
        effect = total_variation(getattr(wrong_side, head), getattr(found.true, head)).mean()
        refuted = _judge(target, replace(found, said=said), head, settings).verdict is Verdict.REFUTED
        distance = _distance(target, said, head, settings.alpha)
        means = total_variation(getattr(target, head), getattr(said, head)).mean(axis=(1, 2))
        # That as many new prompts refute it again, by their total variation alone.
        power = float(norm.cdf((distance.low - limit) * len(means) ** 0.5 / means.std()))
        out.append(TwinOutcome(what, f"E TV {effect:.2g} from {name}", refuted, distance.mean, power))
    return out


def _claim(head: str) -> Claim:
    name = HEADS[head]
    what = {"label": "the expert's label", "observation": "the next observation"}[head]
    excess = f"has an excess log-loss E KL({name} || network) below {LIMIT} nats (full profile: {FULL_LIMIT}), and "
    return Claim(
        id=f"ICL-{name}",
        title=f"in-context learning is {name}",
        statement=(
            f"A transformer pretrained to predict {what} on a corpus of uniform behaviour "
            f"{excess if head == 'label' else ''}is within {SHARE} of the total variation from {name} that whoever "
            "forgets the past is from it."
        ),
        assumptions=(
            f"H >= 2, and the posterior keeps {UNCERTAIN} nats of entropy in the middle of the context",
            *([f"whoever forgets the past has an excess of {INFORMED} nats"] if head == "label" else []),
        ),
        status="measured",
        worlds=1,
        check=partial(check, head),
        twins=partial(twins, head),
        checks=40,
    )


ICL_BAIL, ICL_BAWM = _claim("label"), _claim("observation")
