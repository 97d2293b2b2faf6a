"""A Reporter learned by contrast: told which words belong to a scene and which do not, it finds out what to say.

Matched pairs (o, s) come from the joint law P(s) E(o | s), mismatched ones from the product of its marginals, k of them
for each matched pair. A critic learns by logistic loss to tell them apart. The odds of the best critic are
E(o | s) / (k P(o)), so Ehat(o | s) = odds k P(o), renormalised in every scene (k then cancels: what shows that it was
forgotten is the mass before that, which is 1 for the best critic).

The tabular critic has one parameter a pair and its maximum of the likelihood in closed form. Its error falls as
n^{-1/2}: it is a smooth function of frequencies, whose errors do. The embedding critic, as in CLIP, scores a pair by
the inner product of two vectors; of full dimension it can represent every table, of a lower one it stays at a floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import expit

from ..errors import InvalidPlannerError
from ..kernels import HostKernel
from ..keys import check_key
from ..program import Program, as_family
from ..simulate.environment import split_key
from ..statistics import total_variation
from ..validation import check_axis, check_count, check_ndim, check_rows, float_array, shown
from ..world import Family

CRITICS = ("tabular", "embedding")
_UNSEEN = 0.5  # mismatched pairs added to every cell: a pair that was never mismatched has no finite odds
_STEPS = 400


def scene_law(family_or_program: Family | Program) -> Float[np.ndarray, "Ze S"]:
    """How often a scene comes up: the law of the state, averaged over steps, under uniform subgoals.

    A scene is a state, and also its task where the emission depends on the task; tasks follow their prior.

    Returns:
        Probabilities that add up to 1, [Z or 1, S].
    """
    family = as_family(family_or_program)
    kernel, H, G = HostKernel(family), family.horizon, family.num_subgoals
    prior = np.asarray(family.task_prior, np.float64)
    initial = np.asarray(family.initial, np.float64)
    out = np.zeros((family.num_tasks, family.num_states))
    for z in np.flatnonzero(prior > 0).tolist():
        law = initial[min(z, len(initial) - 1)]
        for h in range(H):
            out[z] += prior[z] * law / H
            law = kernel.push(z, h, law[None])[0].sum(axis=0) / G if h < H - 1 else law
    return out if family.emission.shape[0] > 1 else out.sum(axis=0, keepdims=True)


@dataclass(frozen=True)
class Pairs:
    """Pairs to learn from, counted.

    Attributes:
        matched: how often the observation was made in the scene, [..., Z or 1, S, O].
        mismatched: how often it was put beside the scene by chance, likewise.
        negatives: k, mismatched pairs for each matched one.
    """

    matched: Float[np.ndarray, "*batch Ze S O"]
    mismatched: Float[np.ndarray, "*batch Ze S O"]
    negatives: int

    @property
    def marginal(self) -> Float[np.ndarray, "*batch 1 1 O"]:
        """P(o), as the matched pairs have it."""
        total = self.matched.sum(axis=(-3, -2), keepdims=True)
        return total / total.sum(axis=-1, keepdims=True)


def draw_pairs(
    scenes: Any, emission: Any, count: int, *, negatives: int = 1, size: int | None = None, key: Any = 0
) -> Pairs:
    """Draw matched pairs, and mismatched ones that are independent of them.

    Args:
        scenes: their law, [Z or 1, S], as :func:`scene_law` has it.
        emission: what is said in each, [Z or 1, S, O].
        count: n, matched pairs.
        negatives: k; k n pairs of an observation from one scene beside another scene.
        size: how many times to draw all that; once, without a leading axis, if not given.
        key: a JAX key or an int.

    Raises:
        InvalidPlannerError: no such count or key.
        InvalidWorldError: the arrays do not fit together, or are no distributions.
    """
    check_count("count", count)
    check_count("negatives", negatives)
    check_key(key)
    law, rows = joint_law(scenes, emission)
    rng = np.random.default_rng(split_key(key)[1])
    joint = (law[..., None] * rows).reshape(-1)
    apart = (law[..., None] * (law[..., None] * rows).sum(axis=(0, 1))).reshape(-1)
    shape = rows.shape if size is None else (check_count("size", size), *rows.shape)
    matched = rng.multinomial(count, joint / joint.sum(), size)
    mismatched = rng.multinomial(count * negatives, apart / apart.sum(), size)
    counts = [a.astype(np.float64).reshape(shape) for a in (matched, mismatched)]
    return Pairs(counts[0], counts[1], negatives)


def joint_law(scenes: Any, emission: Any) -> tuple[Float[np.ndarray, "Ze S"], Float[np.ndarray, "Ze S O"]]:
    """Both in float64, if they fit together.

    Raises:
        InvalidWorldError: they do not, or are no distributions.
    """
    law, rows = (np.asarray(float_array(n, a), np.float64) for n, a in (("scenes", scenes), ("emission", emission)))
    check_ndim("emission", rows, (3,), "[Z or 1, S, O]")
    check_ndim("scenes", law, (2,), "[Z or 1, S]")
    check_axis("scenes", law, 0, rows.shape[0], "the first axis of the emission")
    check_axis("scenes", law, 1, rows.shape[1], "the number of states")
    check_rows("scenes, all of them,", law.reshape(-1))
    check_rows("emission", rows)
    return law, rows


def tabular_critic(pairs: Pairs) -> Float[np.ndarray, "*batch Ze S O"]:
    """The odds of "matched" for every pair: the ratio of counts, which maximises the likelihood.

    Half a mismatched pair is added to every cell, for the odds of one that was never mismatched would be infinite. A
    pair that was never matched has odds 0: what was never heard in a scene will not be said there.
    """
    return pairs.matched / (pairs.mismatched + _UNSEEN)


def embedding_critic(pairs: Pairs, dimension: int, *, steps: int = _STEPS, key: Any = 0) -> Float[np.ndarray, "Ze S O"]:
    """The odds of a critic that scores a pair by <u_o, v_s> + b, trained by logistic loss with L-BFGS.

    The half pairs are those of :func:`tabular_critic`.

    Args:
        pairs: from :func:`draw_pairs`.
        dimension: of the embeddings; from the smaller of the numbers of scenes and observations on, none is better.
        steps: of the optimiser.
        key: of the initial embeddings.

    Raises:
        InvalidPlannerError: no such dimension, number of steps or key.
    """
    check_count("dimension", dimension)
    check_count("steps", steps)
    check_key(key)
    shape, total = pairs.matched.shape, pairs.matched.sum()
    matched, mismatched = (a.reshape(-1, shape[2]) / total for a in (pairs.matched, pairs.mismatched + _UNSEEN))
    scenes, words = matched.shape
    split = words * dimension, (words + scenes) * dimension

    def unpack(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        u, v, bias = np.split(parameters, split)
        return u.reshape(words, dimension), v.reshape(scenes, dimension), float(bias[0])

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        u, v, bias = unpack(parameters)
        score = np.einsum("od,xd->xo", u, v) + bias  # by BLAS, starting its threads would take longest
        value = (matched * np.logaddexp(0, -score) + mismatched * np.logaddexp(0, score)).sum()
        slope = mismatched * expit(score) - matched * expit(-score)
        back = np.einsum("xo,xd->od", slope, v), np.einsum("xo,od->xd", slope, u)
        return float(value), np.concatenate([back[0].ravel(), back[1].ravel(), [slope.sum()]])

    rng = np.random.default_rng(split_key(key)[1])
    start = np.append(rng.normal(size=split[1]) / np.sqrt(dimension), -np.log(pairs.negatives))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": steps, "ftol": 0, "gtol": 1e-8})
    u, v, bias = unpack(found.x)
    return np.exp(np.einsum("od,xd->xo", u, v) + bias).reshape(shape)


def density_ratio(odds: Float[np.ndarray, "*batch Ze S O"], pairs: Pairs) -> Float[np.ndarray, "*batch Ze S O"]:
    """k odds P(o), the density that a critic has found; it adds up to about 1 in every scene that came up."""
    return pairs.negatives * odds * pairs.marginal


def reporter_of(odds: Float[np.ndarray, "*batch Ze S O"], pairs: Pairs) -> Float[np.ndarray, "*batch Ze S O"]:
    """Ehat, from a critic's odds: the density, renormalised; P(o) in a scene that never came up."""
    density = density_ratio(odds, pairs)
    total = density.sum(axis=-1, keepdims=True)
    known = (total > 0) & (pairs.matched.sum(axis=-1, keepdims=True) > 0)
    return np.where(known, density / np.where(total > 0, total, 1), pairs.marginal)


def reporter_error(scenes: Any, emission: Any, spoken: Any) -> Float[np.ndarray, "*batch"]:
    """The mean over scenes of TV(Ehat(. | s), E(. | s)), for what is spoken, [..., Z or 1, S, O]."""
    law, rows = joint_law(scenes, emission)
    return np.asarray(np.einsum("...zs,zs->...", total_variation(spoken, rows), law))


@dataclass(frozen=True)
class LearnedReporter:
    """What came of it.

    Attributes:
        emission: Ehat, [Z or 1, S, O]; :func:`with_reporter` puts it into the family.
        error: mean over scenes of its distance from E, total variation.
        mass: mean over scenes of what the density adds up to before it is renormalised; 1 for the best critic.
        pairs: what it was learned from.
    """

    emission: Float[np.ndarray, "Ze S O"]
    error: float
    mass: float
    pairs: Pairs


def learn_reporter(
    family_or_program: Family | Program,
    pairs: int,
    *,
    negatives: int = 1,
    critic: str = "tabular",
    dimension: int | None = None,
    key: Any = 0,
) -> LearnedReporter:
    """Learn the Reporter of a family by contrast, from scenes under uniform subgoals.

    Args:
        family_or_program: a Family, or a finite program.
        pairs: n, matched pairs.
        negatives: k, mismatched pairs for each of them.
        critic: "tabular" or "embedding".
        dimension: of the embeddings; by default one that can represent every table.
        key: a JAX key or an int.

    Raises:
        InvalidPlannerError: no such critic, count, dimension or key.

    Source: theory.md, P2. Contrast: Gutmann and Hyvarinen (2010); in two modalities, Radford et al. (2021).
    """
    if not isinstance(critic, str) or critic not in CRITICS:
        raise InvalidPlannerError(f'critic = {shown(critic)}; give "tabular" or "embedding"')
    if dimension is not None and critic == "tabular":
        raise InvalidPlannerError("dimension is of the embeddings; the tabular critic has none")
    family = as_family(family_or_program)
    emission = np.asarray(family.emission, np.float64)
    emission = emission / emission.sum(axis=2, keepdims=True)
    scenes = scene_law(family)
    found = draw_pairs(scenes / scenes.sum(), emission, pairs, negatives=negatives, key=key)
    if critic == "tabular":
        odds = tabular_critic(found)
    else:
        full = min(emission.shape[0] * emission.shape[1], emission.shape[2])
        odds = embedding_critic(found, full if dimension is None else dimension, key=key)
    spoken = reporter_of(odds, found)
    scenes = scenes / scenes.sum()
    mass = float((density_ratio(odds, found).sum(axis=2) * scenes).sum())
    return LearnedReporter(spoken, float(reporter_error(scenes, emission, spoken)), mass, found)


def contrast_constant(scenes: Any, emission: Any, negatives: int = 1) -> Float[np.ndarray, "Ze S O"]:
    """B in E TV ~ B n^{-1/2} for the tabular critic, cell by cell; its sum is the constant of :func:`reporter_error`.

    By the delta method: Ehat is a smooth function of the frequencies of matched and mismatched pairs, and
    E|x| = sqrt(2/pi) of a standard normal.
    """
    law, rows = joint_law(scenes, emission)
    shape, check = rows.shape, check_count("negatives", negatives)
    law, rows = law.reshape(-1), rows.reshape(-1, shape[2])
    joint, marginal = law[:, None] * rows, law @ rows
    apart = law[:, None] * marginal
    out = np.zeros(rows.shape)
    for x, o in np.argwhere(joint > 0):
        slope = rows[x, o] * (np.eye(shape[2])[o] - rows[x])  # of Ehat(o | x) in the logarithm of each odds k P(o')
        heard = slope != 0
        # The logarithm moves by d matched / joint + d marginal / P(o') - d mismatched / apart.
        by_matched = np.zeros(rows.shape)
        by_matched[:, heard] = slope[heard] / marginal[heard]
        by_matched[x, heard] += slope[heard] / joint[x, heard]
        mean = (joint * by_matched).sum()
        variance = (joint * (by_matched - mean) ** 2).sum()
        variance += (slope[heard] ** 2 / apart[x, heard]).sum() / check
        out[x, o] = law[x] * np.sqrt(2 * variance / np.pi) / 2
    return out.reshape(shape)
