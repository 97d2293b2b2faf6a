"""Finite-horizon POMDP values of one task under one instruction, as sets of alpha vectors.

The value of a decision after having seen o_h, as a function of the belief b over the state at step h, does not
count r_h(o_h), which has been paid by then:

    Q_h(b, g) = sum_o' P(o' | b, g) [ r_{h+1}(o') + V_{h+1}(b') ],    V_h(b) = max_g Q_h(b, g),    V_{H-1} = 0.

It is the maximum of linear functions of b. A set of them is kept for each subgoal, so that Q is right for each
subgoal everywhere (ties between subgoals are decided outside), and one backup is the cross-sum over o of

    { s -> sum_s' P_h(s' | s, g) E(o | s') [ r_{h+1}(o) + alpha(s') ] : alpha in V_{h+1} }.

Sources: incremental pruning (Cassandra, Littman and Zhang, UAI 1997) with the filter of Lark (in White, Annals of
Operations Research 1991); point-based value iteration (Pineau, Gordon and Thrun, IJCAI 2003); the fast informed
bound and sawtooth interpolation (Hauskrecht, JAIR 2000).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from scipy.optimize import linprog

from ..errors import InvalidWorldError, TooLargeError
from ..validation import check_axis, check_ndim, check_range, check_rows, float_array

EXACT_TOLERANCE = 5e-11
"""What all prunings of one exact solution together may take from a value, for rewards in [0, 1]."""

_BLOCK = 1 << 22  # entries of a temporary array
_LP_ENTRIES = 1 << 16  # entries of the matrix of one linear program
_SAME_BELIEF = 10  # decimals in which beliefs agree that count as one

Beliefs = Float[np.ndarray, "n S"]
Vectors = Float[np.ndarray, "_ S"]  # sets of any size: as many vectors as are needed
Kernel = Float[np.ndarray, "G S S"]
Kernels = Float[np.ndarray, "decisions G S S"]
Emission = Float[np.ndarray, "S O"]
Reward = Float[np.ndarray, "H O"]
Joint = Float[np.ndarray, "n G O S"]
Layers = Sequence[Vectors]


class AlphaVectors(eqx.Module):
    """Alpha vectors of every decision step and subgoal.

    Attributes:
        vectors: [H-1, G, V, S]; Q_h(b, g) = max_v b . vectors[h, g, v]. Shorter sets are padded with copies of
            one of their own vectors, which never change the maximum.
        lower: value of the policy that follows ``vectors`` (or a bound below it) at each start belief, [n].
        upper: bound above the optimal value at each start belief, [n].
        gap: bound on the optimal value minus that of the policy that follows ``vectors``, over all start beliefs;
            0.0 from the exact method, which is exact to :data:`EXACT_TOLERANCE` and rounding. A policy that takes
            any subgoal within c of the best may lose another (H-1) c.
    """

    vectors: Float[np.ndarray, "decisions G V S"]
    lower: Float[np.ndarray, " n"]
    upper: Float[np.ndarray, " n"]
    gap: float

    def q(self, step: int, beliefs: Beliefs) -> Float[np.ndarray, "n G"]:
        """Q_h(b, g) at ``step`` = h for every belief b and subgoal g, [n, G]."""
        return np.stack([(beliefs @ each.T).max(axis=1) for each in self.vectors[step]], axis=1)


def solve_alpha_vectors(
    transition: Any,
    emission: Any,
    reward: Any,
    horizon: int,
    *,
    start_beliefs: Any,
    method: Literal["exact", "points"] = "exact",
    max_vectors: int = 20_000,
    max_beliefs: int = 200,
    beliefs: Any = None,
) -> AlphaVectors:
    """Values of one task under one instruction.

    ``exact`` is incremental pruning: Q is right at every belief. ``points`` backs values up at beliefs only: its
    vectors are bounds below Q of the policy that follows them, and ``gap`` says what is lost at the start beliefs.

    Args:
        transition: P, [H-1 or 1, G, S, S'].
        emission: E, [S, O].
        reward: r, [H, O], in [0, 1].
        horizon: H.
        start_beliefs: beliefs after the first observation, [n, S]: where ``gap`` is measured.
        method: "exact" or "points".
        max_vectors: most vectors in one cross-sum before pruning, or from one backup at points (all subgoals).
        max_beliefs: (points) most reachable beliefs kept at a step; those likeliest and farthest apart stay.
        beliefs: (points) beliefs to use at every step [m, S], in place of the reachable ones.

    Raises:
        InvalidWorldError: an array has a wrong shape, is no distribution, or leaves its range.
        TooLargeError: more than ``max_vectors`` vectors would be needed; raised before they are allocated.
    """
    transition, emission, reward, start = _check(transition, emission, reward, horizon, start_beliefs)
    if method == "exact":
        sets = _solve_exactly(transition, emission, reward, max_vectors)
        lower = _best_value(sets, start)
        return AlphaVectors(_pad(sets, transition.shape), lower, lower.copy(), 0.0)
    if method != "points":
        raise ValueError(f"method = {method!r}; give 'exact' or 'points'")
    if beliefs is None:
        layers = _reachable(start, transition, emission, max_beliefs)
    else:
        beliefs = _check_beliefs("beliefs", beliefs, emission.shape[0])
        layers = [np.concatenate([start, beliefs])] + [beliefs] * (horizon - 2)
    sets, upper = _solve_at_points(transition, emission, reward, layers, len(start), max_vectors)
    lower = _best_value(sets, start)
    upper = np.maximum(upper, lower)  # where both are exact, rounding may cross them
    return AlphaVectors(_pad(sets, transition.shape), lower, upper, float((upper - lower).max(initial=0.0)))


def _check(transition: Any, emission: Any, reward: Any, horizon: int, start: Any) -> tuple[np.ndarray, ...]:
    """The arrays in float64, with a transition for every decision step (shared ones are views)."""
    transition, emission = float_array("transition", transition), float_array("emission", emission)
    reward = float_array("reward", reward)
    check_ndim("transition", transition, (4,), "[H-1 or 1, G, S, S']")
    check_ndim("emission", emission, (2,), "[S, O]")
    check_ndim("reward", reward, (2,), "[H, O]")
    states = emission.shape[0]
    if horizon < 1:
        raise InvalidWorldError(f"horizon = {horizon}; it counts observations, an integer of at least 1")
    check_axis("transition", transition, 0, (horizon - 1, 1), "H-1, the number of decisions (or 1)")
    for axis in (2, 3):
        check_axis("transition", transition, axis, states, "the number of states")
    check_axis("reward", reward, 0, horizon, "the horizon")
    check_axis("reward", reward, 1, emission.shape[1], "the number of observations")
    check_rows("transition", transition)
    check_rows("emission", emission)
    check_range("reward", reward, 0.0, 1.0)
    start = _check_beliefs("start_beliefs", start, states)
    transition, emission, reward = (a.astype(np.float64) for a in (transition, emission, reward))
    return np.broadcast_to(transition, (horizon - 1, *transition.shape[1:])), emission, reward, start


def _check_beliefs(name: str, beliefs: Any, states: int) -> Beliefs:
    beliefs = float_array(name, beliefs)
    check_ndim(name, beliefs, (2,), "[n, S]")
    check_axis(name, beliefs, 1, states, "the number of states")
    check_rows(name, beliefs)
    return beliefs.astype(np.float64)


def _best_value(sets: Sequence[Sequence[Vectors]], start: Beliefs) -> Float[np.ndarray, " n"]:
    """max_g Q_0(b, g) at each start belief; 0 when there is nothing to decide."""
    return (start @ np.concatenate(sets[0]).T).max(axis=1) if sets else np.zeros(len(start))


def _pad(sets: Sequence[Sequence[Vectors]], shape: tuple[int, ...]) -> Float[np.ndarray, "decisions G V S"]:
    decisions, subgoals, states = shape[:3]
    size = max((len(each) for row in sets for each in row), default=1)
    padded = np.empty((decisions, subgoals, size, states))
    for h, row in enumerate(sets):
        for g, each in enumerate(row):
            padded[h, g] = each[np.minimum(np.arange(size), len(each) - 1)]
    return padded


# --- exact -----------------------------------------------------------------------------------------------------


def _solve_exactly(transition: Kernels, emission: Emission, reward: Reward, max_vectors: int) -> list[list[Vectors]]:
    """Pruned sets by decision step and subgoal."""
    # A backup prunes at most 2 O times, the union over subgoals included, and losses add.
    tolerance = EXACT_TOLERANCE / max(1, 2 * emission.shape[1] * len(transition))
    later: list[list[Vectors]] = []
    for h in reversed(range(len(transition))):
        union = _prune(np.concatenate(later[-1]), tolerance) if later else np.zeros((1, len(emission)))
        # [O, V, S']: what a next state is worth once o has been heard
        gains = emission.T[:, None] * (reward[h + 1][:, None, None] + union)
        later.append([_backup(gains @ kernel.T, tolerance, max_vectors) for kernel in transition[h]])
    return later[::-1]


def _backup(projected: Float[np.ndarray, "O V S"], tolerance: float, max_vectors: int) -> Vectors:
    """The pruned cross-sum over observations, smallest sets first."""
    sets = sorted((_prune(each, tolerance) for each in projected), key=len)
    total = sets[0]
    for each in sets[1:]:
        size, states = len(total) * len(each), total.shape[1]
        _check_size(size, size * states * 8, max_vectors, 'use method="points"')
        total = _prune((total[:, None] + each).reshape(size, states), tolerance)
    return total


def _check_size(vectors: int, num_bytes: int, max_vectors: int, cure: str) -> None:
    if vectors > max_vectors:
        needs = f"a backup needs {vectors} alpha vectors ({num_bytes} bytes)"
        raise TooLargeError(f"{needs}, but max_vectors = {max_vectors}; raise it, or {cure}", num_bytes)


def _prune(vectors: Vectors, tolerance: float) -> Vectors:
    """A subset whose upper surface over the simplex is nowhere more than ``tolerance`` below that of ``vectors``.

    A vector that wins at a belief is kept. One leaves only when a convex combination of kept vectors is seen to be
    at least as large in every state, to within ``tolerance``, so the solver's own tolerances cost no accuracy.
    """
    # At a tie the lexicographic largest is never dominated; rounding keeps noise from deciding the order.
    order = np.lexsort(np.round(vectors, 11).T[::-1])[::-1]
    rest, kept = vectors[order], vectors[:0]
    winners = _winners(rest, _probes(vectors.shape[1]), tolerance)
    while True:
        new, rest = rest[winners], np.delete(rest, winners, axis=0)
        kept = np.concatenate([kept, new])
        for vector in new:
            rest = rest[(rest > vector + tolerance).any(axis=1)]
        if not len(rest):
            return kept
        rest, winners = _challenge(rest, kept, tolerance)


@functools.cache
def _probes(states: int) -> Beliefs:
    """A fixed spread of beliefs: vertices, then a Kronecker sequence mapped to the simplex at two concentrations."""
    root = 2.0
    for _ in range(32):  # the root of x^(S+1) = x + 1, whose powers fill the cube evenly
        root = (1 + root) ** (1 / (states + 1))
    cube = (0.5 + np.outer(np.arange(1, min(8 * states, 400) + 1), root ** -np.arange(1.0, states + 1))) % 1
    exponential = -np.log(np.clip(cube, 1e-12, 1 - 1e-12))
    spread = np.concatenate([exponential, exponential**4])
    return np.concatenate([np.eye(states), spread / spread.sum(axis=1, keepdims=True)])


def _winners(vectors: Vectors, beliefs: Beliefs, tolerance: float) -> Int[np.ndarray, " winners"]:
    """Indices of the vectors that are the first within ``tolerance`` of the best at some belief."""
    values = beliefs @ vectors.T
    return np.unique(np.argmax(values >= values.max(axis=1, keepdims=True) - tolerance, axis=1))


def _challenge(rest: Vectors, kept: Vectors, tolerance: float) -> tuple[Vectors, Int[np.ndarray, " winners"]]:
    """Drop those of the first few of ``rest`` that are dominated; indices of those to keep, found at witnesses."""
    count = min(len(rest), max(1, _LP_ENTRIES // kept.size))
    first = rest[:count]
    weights, witnesses = _dominance(first, kept)
    dropped = (first - weights @ kept).max(axis=1) <= tolerance
    gain = (witnesses * first).sum(axis=1) - (witnesses @ kept.T).max(axis=1)
    seen = ~dropped & (gain > tolerance)
    unclear = np.flatnonzero(~seen[~dropped])  # neither proof succeeded: keeping is always right
    rest = np.concatenate([first[~dropped], rest[count:]])
    winners = _winners(rest, witnesses[seen], tolerance) if seen.any() else unclear
    return rest, np.union1d(winners, unclear)


def _dominance(vectors: Vectors, kept: Float[np.ndarray, "K S"]) -> tuple[np.ndarray, np.ndarray]:
    """min t such that a convex combination of ``kept`` is at least w - t in every state, for each w in ``vectors``.

    One block-diagonal linear program for all w. Returns the convex weights [V, K], which prove domination when t
    is 0, and the dual beliefs [V, S], at which w wins by t. Both are distributions whatever the solver did.
    """
    count, (size, states) = len(vectors), kept.shape
    blocks = sparse.eye_array(count)
    result = linprog(
        np.tile(np.append(np.zeros(size), 1.0), count),
        A_ub=sparse.kron(blocks, np.hstack([-kept.T, -np.ones((states, 1))]), format="csr"),
        b_ub=-vectors.ravel(),
        A_eq=sparse.kron(blocks, np.append(np.ones(size), 0.0)[None], format="csr"),
        b_eq=np.ones(count),
        bounds=np.tile(np.vstack([np.tile([0.0, np.inf], (size, 1)), [-np.inf, np.inf]]), (count, 1)),
        method="highs-ds",
        options={"presolve": False, "primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if result.status != 0:
        return np.full((count, size), 1 / size), np.full((count, states), 1 / states)
    weights = result.x.reshape(count, size + 1)[:, :-1]
    return _normalised(weights), _normalised(-result.ineqlin.marginals.reshape(count, states))


def _normalised(rows: Float[np.ndarray, "n K"]) -> Float[np.ndarray, "n K"]:
    rows = np.maximum(rows, 0.0)
    return rows / rows.sum(axis=1, keepdims=True)


# --- points ----------------------------------------------------------------------------------------------------


def _solve_at_points(
    transition: Kernels, emission: Emission, reward: Reward, layers: Layers, starts: int, max_vectors: int
) -> tuple[list[list[Vectors]], Float[np.ndarray, " n"]]:
    """Vectors by decision step and subgoal, and upper bounds at the first ``starts`` beliefs of the first layer."""
    states, corners = len(emission), np.eye(len(emission))
    decisions, subgoals = transition.shape[:2]
    size = subgoals * (max((len(layer) for layer in layers[:decisions]), default=0) + states)
    _check_size(size, decisions * size * states * 8, max_vectors, "use fewer beliefs")
    alpha, upper, upper_points = np.zeros((1, states)), np.zeros((states, 1)), corners
    later: list[list[Vectors]] = []
    for h in reversed(range(decisions)):
        points = np.concatenate([layers[h], corners])
        joint = _joint(points, transition[h], emission)
        later.append(_point_backup(points, joint, alpha, transition[h], emission, reward[h + 1]))
        bounds = _upper_bound(joint.reshape(-1, states), upper_points, upper).reshape(joint.shape[:3])
        upper, upper_points = joint.sum(axis=3) @ reward[h + 1] + bounds.sum(axis=2), points
        alpha = np.concatenate(later[-1])
    return later[::-1], upper[:starts].max(axis=1) if decisions else np.zeros(starts)


def _joint(beliefs: Beliefs, kernel: Kernel, emission: Emission) -> Joint:
    """P(o, s' | b, g) for every belief: unnormalised beliefs after the next observation."""
    predicted = np.einsum("ns,gst->ngt", beliefs, kernel, optimize=True)
    return predicted[:, :, None] * emission.T


def _point_backup(
    points: Beliefs, joint: Joint, alpha: Vectors, kernel: Kernel, emission: Emission, reward: Float[np.ndarray, " O"]
) -> list[Vectors]:
    """For each subgoal, the vectors backed up at each point that win at a point."""
    best = _best_vector(joint.reshape(-1, joint.shape[3]), alpha).reshape(joint.shape[:3])
    gains = sum(emission[:, o] * (reward[o] + alpha[best[:, :, o]]) for o in range(len(reward)))
    backed = np.einsum("ngt,gst->gns", gains, kernel, optimize=True)
    return [each[np.unique(_best_vector(points, each))] for each in backed]


def _best_vector(rows: Float[np.ndarray, "m S"], vectors: Vectors) -> Int[np.ndarray, " m"]:
    return _in_blocks(lambda some: (some @ vectors.T).argmax(axis=1), rows, len(vectors))


def _upper_bound(
    rows: Float[np.ndarray, "m S"], points: Float[np.ndarray, "n S"], q: Float[np.ndarray, "n G"]
) -> Float[np.ndarray, " m"]:
    """max_g of the sawtooth interpolation, at unnormalised beliefs, of bounds above Q at ``points``.

    The last S points are the vertices. Q(., g) is convex, so every x = phi b_i + (a combination of vertices) has
    Q(x) <= phi q_i + (that combination of the vertices' q); phi is the largest that leaves no negative weight.
    The vertices alone give the fast informed bound.
    """
    states = points.shape[1]
    inner, corner = points[:-states], q[-states:]
    drop = np.minimum(q[:-states] - inner @ corner, 0.0)

    def bound(some: Float[np.ndarray, "m S"]) -> Float[np.ndarray, " m"]:
        values = some @ corner
        if len(inner):
            share = np.full((len(some), len(inner)), np.inf)
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                for s in range(states):  # fmin passes over 0/0: a state that neither belief holds
                    np.fmin(share, some[:, s, None] / inner[:, s], out=share)
            values += np.stack([(share * each).min(axis=1) for each in drop.T], axis=1)
        return values.max(axis=1)

    return _in_blocks(bound, rows, len(points))


def _in_blocks(function: Callable[[np.ndarray], np.ndarray], rows: np.ndarray, width: int) -> np.ndarray:
    """``function`` of ``rows``, in blocks of rows that keep temporaries of ``width`` columns small."""
    step = max(1, _BLOCK // max(1, width))
    return np.concatenate([function(rows[i : i + step]) for i in range(0, len(rows), step)])


def _reachable(start: Beliefs, transition: Kernels, emission: Emission, max_beliefs: int) -> Layers:
    """Beliefs at every decision step that are reached from ``start``: all, while they are at most ``max_beliefs``."""
    layers, weights = [start], np.ones(len(start))
    for kernel in transition[:-1]:
        joint = _joint(layers[-1], kernel, emission)
        probability = joint.sum(axis=3)
        possible = probability > 0
        reached = joint[possible] / probability[possible][:, None]
        beliefs, weights = _thin(reached, (weights[:, None, None] * probability)[possible], max_beliefs)
        layers.append(beliefs)
    return layers


def _thin(
    beliefs: Beliefs, weights: Float[np.ndarray, " n"], size: int
) -> tuple[Float[np.ndarray, "k S"], Float[np.ndarray, " k"]]:
    """Distinct beliefs; at most ``size``, each the farthest from those before it, distance times weight."""
    _, first, group = np.unique(np.round(beliefs, _SAME_BELIEF), axis=0, return_index=True, return_inverse=True)
    heaviest = np.zeros(len(first))
    np.maximum.at(heaviest, group.ravel(), weights)
    beliefs = beliefs[first]
    if len(beliefs) <= size:
        return beliefs, heaviest
    chosen, distance = [], np.full(len(beliefs), 2.0)
    for _ in range(size):
        chosen.append(int(np.argmax(heaviest * distance)))
        distance = np.minimum(distance, np.abs(beliefs - beliefs[chosen[-1]]).sum(axis=1))
    return beliefs[chosen], heaviest[chosen]
