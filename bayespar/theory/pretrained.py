"""Networks pretrained on a world's corpus, and the exact conditionals that they are held against."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.special import entr

from ..arrays import precision_of
from ..learned.training import Trained, TrainingPlan, train
from ..planning.bail import BailPlanner, BailState
from ..planning.baselines import OraclePlanner
from ..planning.planner import Episode, Observed
from ..simulate.behaviours import TaskDependent
from ..simulate.corpus import Corpus, sample_corpus
from ..simulate.stream import CorpusStream
from .claim import Subject

EPISODES = 32
LAPSE = 1e-3
TILT = 5.0
QUICK = TrainingPlan(EPISODES, steps=1_800)
SIZES, WIDTHS = (400, 1_200, 4_000, 12_000), (32, 64)
FULL = TrainingPlan(EPISODES, steps=20_000, positions=3072, rate=2e-3)
PROMPTS, FULL_PROMPTS = 8_192, 32_768
_BLOCK = 256


@dataclass(frozen=True)
class Conditionals:
    """What is said of each decision of B prompts of N episodes.

    Attributes:
        label: of the expert's subgoal, [B, N, H-1, G].
        observation: of the next observation after the executed subgoal, [B, N, H-1, O].
    """

    label: Float[np.ndarray, "B N Hm1 G"]
    observation: Float[np.ndarray, "B N Hm1 O"]

    def with_lapse(self, lapse: float = LAPSE) -> Conditionals:
        """Mixed with a uniform guess of weight ``lapse``: no KL from that exceeds log(n / lapse)."""
        return Conditionals(*((1 - lapse) * a + lapse / a.shape[-1] for a in (self.label, self.observation)))

    def of_the_next_prompt(self) -> Conditionals:
        """Each prompt's moved to another prompt."""
        return Conditionals(*(np.roll(a, 1, axis=0) for a in (self.label, self.observation)))


def exact(subject: Subject, corpus: Corpus, *, prior: np.ndarray | None = None, forget: bool = False) -> Conditionals:
    """BAIL and BAWM on the prompts of a corpus, under another ``prior``, or if the past is forgotten each episode."""
    family = subject.family if prior is None else eqx.tree_at(lambda f: f.task_prior, subject.family, prior)
    blocks = []
    with precision_of(family):
        planner = BailPlanner(family, subject.experts)
        for start in range(0, len(corpus.tasks), _BLOCK):
            rows = slice(start, start + _BLOCK)
            prompt = corpus.instructions[rows], corpus.observations[rows], corpus.subgoals[rows]
            blocks.append([np.asarray(a) for a in _exact(planner, forget, *prompt)])
    return Conditionals(*(np.concatenate(a) for a in zip(*blocks, strict=True)))


@eqx.filter_jit
def _exact(planner: BailPlanner, forget: bool, instructions: Any, observations: Any, subgoals: Any) -> Any:
    def episode(state: BailState, item: Any) -> Any:
        w, o, g = item
        before = jnp.append(jnp.int32(-1), g)

        def step(state: BailState, item: Any) -> Any:
            h, heard, last, following = item
            state, label = planner.step(state, Observed(heard, last, h, w))
            predicted = planner.tracker.predict(state.forward, planner.probabilities(state), h, following)
            return state, (label, predicted)

        H = o.shape[0]
        state, out = jax.lax.scan(step, state, (jnp.arange(H - 1), o[:-1], before[:-1], g))
        state, _ = planner.step(state, Observed(o[-1], before[-1], jnp.int32(H - 1), w))
        return state if forget else planner.observe(state, Episode(w, o, g)), out

    def prompt(*items: Any) -> Any:
        return jax.lax.scan(episode, planner.init(items[0][0], jax.random.key(0)), items)[1]

    return jax.vmap(prompt)(instructions, observations, subgoals)


def new_prompts(subject: Subject, full: bool) -> Corpus:
    """Prompts that no network is trained on, with their exact conditionals."""
    prompts = FULL_PROMPTS if full else PROMPTS
    return sample_corpus(subject.family, prompts, EPISODES, key=subject.key + 1, experts=subject.experts)


def uncertainty(corpus: Corpus) -> Float[np.ndarray, "B N"]:
    """Entropy of the posterior at the first decision of each episode, nats."""
    return entr(corpus.posterior[:, :, 0]).sum(axis=-1)


@dataclass(frozen=True)
class Pretrained:
    """A network, and what it says of new prompts.

    Attributes:
        trained: on the corpus of uniform behaviour.
        said: by the network, with a lapse.
        true: BAIL and BAWM.
        uninformed: the same, of somebody who forgets every finished episode.
    """

    trained: Trained
    said: Conditionals
    true: Conditionals
    uninformed: Conditionals


def pretrained(subject: Subject, full: bool) -> Pretrained:
    """Train on the corpus of uniform behaviour, and test on new prompts."""
    trained = learn(subject, FULL if full else QUICK)
    corpus = subject.once(new_prompts, full)
    true = Conditionals(corpus.bail, corpus.next_observation)
    return Pretrained(trained, said_by(trained, corpus), true, exact(subject, corpus, forget=True))


def learn(subject: Subject, plan: TrainingPlan, **corpus: Any) -> Trained:
    """A network trained on a corpus of the world, by default of uniform behaviour; ``corpus`` as for CorpusStream."""
    stream = CorpusStream(subject.family, 1, plan.episodes, key=subject.key, experts=subject.experts, **corpus)
    return train(stream, plan, key=subject.key)


def said_by(trained: Trained, corpus: Corpus) -> Conditionals:
    """What a network says on the prompts of a corpus, with a lapse."""
    return Conditionals(
        *trained.network.predict(corpus.observations, corpus.subgoals, corpus.instructions)
    ).with_lapse()


def tilted_prior(subject: Subject) -> Float[np.ndarray, " Z"]:
    """Another prior, whose log odds are moved by at most TILT."""
    weights = np.asarray(subject.family.task_prior) * np.exp(-TILT * np.linspace(0, 1, subject.family.num_tasks))
    return weights / weights.sum()


def misled(subject: Subject, full: bool) -> dict[str, Conditionals]:
    """What networks say on the new prompts that were trained on corpora which C1 and C2 exclude."""
    behaviour = TaskDependent(OraclePlanner(subject.family, subject.experts, 0))
    corpora = {
        "trained on behaviour that knows the task": {"behaviour": behaviour},
        "trained on labels of other prompts": {"shuffled": True},
        "trained on a corpus from another prior": {"prior": tilted_prior(subject)},
    }
    corpus = subject.once(new_prompts, full)
    return {name: said_by(learn(subject, QUICK, **how), corpus) for name, how in corpora.items()}


def by_size(subject: Subject, full: bool) -> dict[tuple[int, int], Conditionals]:
    """What networks say that saw less, by (width, steps)."""
    corpus = subject.once(new_prompts, full)
    plans = [replace(QUICK, width=width, heads=width // 16, steps=steps) for width in WIDTHS for steps in SIZES]
    return {(plan.width, plan.steps): said_by(subject.once(learn, plan), corpus) for plan in plans}
