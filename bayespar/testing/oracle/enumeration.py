"""The enumeration oracle, in two arithmetics: float64 added up by ``math.fsum``, and exact rationals.

It shares no code with what it checks: arrays are read off a family once, and the rest is loops over tasks, hidden
states, observations and subgoals. A finished episode is a tuple ``(w, observations, subgoals)``, and a prompt a tuple
``(finished episodes, w, observations, subgoals)``; :func:`as_tuple` and :func:`as_prompt` translate.

A likelihood costs up to S^H products, and an expert's value all its futures, (G O)^(H-1): it is for tiny worlds.

Source: theory.md, section 1 and C1.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from ...history import Prompt
from ...world import Family

TIE = 1e-9
LARGEST_LISTED = 10**4
"""Paths of hidden states up to which a likelihood is a sum over all of them; beyond, a recursion over steps."""
_DENOMINATOR = 10**4

Integer: TypeAlias = int | np.integer
Indices: TypeAlias = tuple[Integer, ...]
History: TypeAlias = tuple[Integer, Indices, Indices]
PromptTuple: TypeAlias = tuple[tuple[History, ...], Integer, Indices, Indices]
Behaviour: TypeAlias = Callable[..., Any]


class Oracle:
    """The arrays of a family with every shared axis written out, and sums over them, in float64.

    Attributes:
        prior [Z], initial [Z, S], transition [Z, H-1, G, S, S'], emission [Z, S, O], reward [H, O, W],
        instruction_prior [W], H, Z, S, G, O, W.
    """

    def __init__(self, family: Family):
        kernel: Any = family.transition
        if hasattr(kernel, "next_states"):
            S = np.shape(family.initial)[-1]
            successors, probabilities = np.asarray(kernel.next_states), self.numbers(kernel.probabilities)
            dense = self.numbers(np.zeros((*probabilities.shape[:-1], S)))
            for index in np.ndindex(*probabilities.shape):
                dense[(*index[:-1], successors[index])] += probabilities[index]
        elif hasattr(kernel, "factors"):
            sizes = [max(axis) for axis in zip(*(np.shape(f)[:2] for f in kernel.factors), strict=True)]
            each = [
                np.broadcast_to(f, (*sizes, *f.shape[2:])).reshape(-1, *f.shape[2:])
                for f in map(self.numbers, kernel.factors)
            ]
            joint = [
                functools.reduce(np.kron, chosen)
                for rows in zip(*each, strict=True)
                for chosen in itertools.product(*rows)
            ]
            dense = np.array(joint).reshape(*sizes, -1, *joint[0].shape)
        else:
            dense = self.numbers(kernel)
        self.H = family.horizon
        self.prior, self.reward = self.numbers(family.task_prior), self.numbers(family.reward)
        self.instruction_prior = self.numbers(family.instruction_prior)
        Z = len(self.prior)
        initial, emission = self.numbers(family.initial), self.numbers(family.emission)
        self.initial = np.broadcast_to(initial, (Z, *initial.shape[1:]))
        self.emission = np.broadcast_to(emission, (Z, *emission.shape[1:]))
        self.transition = np.broadcast_to(dense, (Z, max(self.H - 1, 0), *dense.shape[2:]))
        self.Z, self.G, self.S, self.O = Z, dense.shape[2], initial.shape[1], emission.shape[2]
        self.W = self.reward.shape[2]
        self._likelihood: dict[Any, Any] = {}
        self._value: dict[Any, Any] = {}

    # --- the arithmetic -----------------------------------------------------------------------------------------

    zero: Any = 0.0
    one: Any = 1.0

    @staticmethod
    def numbers(array: Any) -> np.ndarray:
        """An array of a family in this arithmetic."""
        return np.asarray(array, np.float64)

    @staticmethod
    def total(terms: Iterable[Any]) -> Any:
        """The sum of many numbers."""
        return math.fsum(terms)

    @staticmethod
    def log(number: Any) -> float:
        """log of a number, nats; -inf at 0."""
        return math.log(number) if number > 0 else -math.inf

    # --- one episode --------------------------------------------------------------------------------------------

    def state_weights(self, z: Integer, observations: Indices, subgoals: Indices) -> list[Any]:
        """P_z(o_{1:h}, s_h = s || g_{1:h-1}) for each s: a sum over every path of hidden states that ends there.

        Where there are more than :data:`LARGEST_LISTED` paths, by :meth:`forward`.
        """
        if self.S ** len(observations) > LARGEST_LISTED:
            return self.forward(z, observations, subgoals)
        terms: list[list[Any]] = [[] for _ in range(self.S)]
        for path in itertools.product(range(self.S), repeat=len(observations)):
            weight = self.initial[z, path[0]] * self.emission[z, path[0], observations[0]]
            for h, g in enumerate(subgoals):
                weight = weight * self.transition[z, h, g, path[h], path[h + 1]]
                weight = weight * self.emission[z, path[h + 1], observations[h + 1]]
            terms[path[-1]].append(weight)
        return [self.total(t) for t in terms]

    def forward(self, z: Integer, observations: Indices, subgoals: Indices) -> list[Any]:
        """The same by recursion over steps, for histories whose paths cannot be listed."""
        weights = [self.initial[z, s] * self.emission[z, s, observations[0]] for s in range(self.S)]
        for h, g in enumerate(subgoals):
            arrived: list[list[Any]] = [[] for _ in range(self.S)]
            for s, t in np.argwhere(self.transition[z, h, g] > 0):
                arrived[t].append(weights[s] * self.transition[z, h, g, s, t])
            weights = [self.total(a) * self.emission[z, t, observations[h + 1]] for t, a in enumerate(arrived)]
        return weights

    def likelihood(self, z: Integer, observations: Indices, subgoals: Indices) -> Any:
        """L_z(tau); 1 before the first observation."""
        if not observations:
            return self.one
        key = z, tuple(observations), tuple(subgoals)
        if key not in self._likelihood:
            self._likelihood[key] = self.total(self.state_weights(*key))
        return self._likelihood[key]

    def histories(self, length: int) -> Iterator[tuple[Indices, Indices]]:
        """Every (observations, subgoals) with ``length`` observations, possible or not."""
        for observations in itertools.product(range(self.O), repeat=length):
            for subgoals in itertools.product(range(self.G), repeat=length - 1):
                yield observations, subgoals

    # --- experts ------------------------------------------------------------------------------------------------

    def q(self, z: Integer, w: Integer, observations: Indices, subgoals: Indices) -> list[Any]:
        """Reward still to come after each subgoal, by expectimax over everything that may still be done and heard."""
        key = z, w, tuple(observations), tuple(subgoals)
        if key not in self._value:
            here = self.likelihood(z, observations, subgoals)
            values = []
            for g in range(self.G):
                terms = []
                for o in range(self.O):
                    after = (*key[2], o), (*key[3], g)
                    chance = self.likelihood(z, *after)
                    if chance > 0:
                        later = max(self.q(z, w, *after)) if len(after[0]) < self.H else self.zero
                        terms.append(chance * (self.reward[len(after[0]) - 1, o, w] + later))
                values.append(self.total(terms) / here)
            self._value[key] = values
        return self._value[key]

    def expert(self, z: Integer, w: Integer, observations: Indices, subgoals: Indices) -> int:
        """The expert's subgoal at a history that is possible under z: the lowest index among the best."""
        values = self.q(z, w, observations, subgoals)
        return next(g for g, value in enumerate(values) if value >= max(values) - TIE)

    def expert_value(self) -> np.ndarray:
        """J_z(pi*_z, w) [Z, W], by expectimax."""
        best = self.numbers(np.zeros((self.Z, self.W)))
        for z, w in itertools.product(range(self.Z), range(self.W)):
            terms = []
            for o in range(self.O):
                chance = self.likelihood(z, (o,), ())
                if chance > 0:
                    later = max(self.q(z, w, (o,), ())) if self.H > 1 else self.zero
                    terms.append(chance * (self.reward[0, o, w] + later))
            best[z, w] = self.total(terms)
        return best

    def policy_value(self, policy: Callable[[Integer, Indices, Indices], Any]) -> np.ndarray:
        """J_z(pi, w) [Z, W] of ``policy(w, observations, subgoals) -> [G]``: a sum over every whole history."""
        terms: list[list[list[Any]]] = [[[] for _ in range(self.W)] for _ in range(self.Z)]
        for observations, subgoals in self.histories(self.H):
            for z in range(self.Z):
                chance = self.likelihood(z, observations, subgoals)
                if chance == 0:
                    continue
                for w in range(self.W):
                    chosen = self.one
                    for h, g in enumerate(subgoals):
                        chosen *= policy(w, observations[: h + 1], subgoals[:h])[g] if chosen > 0 else self.zero
                    pay = self.total(self.reward[h, o, w] for h, o in enumerate(observations))
                    terms[z][w].append(chance * chosen * pay)
        return np.array([[self.total(t) for t in row] for row in terms])

    def best_policy_value(self, z: Integer, w: Integer) -> Any:
        """The largest J_z over all deterministic history policies, by trying every one of them."""
        heard = [s for h in range(1, self.H) for s in itertools.product(range(self.O), repeat=h)]
        values = []
        for choices in itertools.product(range(self.G), repeat=len(heard)):
            policy = dict(zip(heard, choices, strict=True))
            terms = []
            for observations in itertools.product(range(self.O), repeat=self.H):
                subgoals = tuple(policy[observations[:h]] for h in range(1, self.H))
                pay = self.total(self.reward[h, o, w] for h, o in enumerate(observations))
                terms.append(self.likelihood(z, observations, subgoals) * pay)
            values.append(self.total(terms))
        return max(values)

    # --- prompts ------------------------------------------------------------------------------------------------

    def log_joint(self, prompt: PromptTuple, behaviour: Behaviour | None = None) -> list[float]:
        """log P_D(pt, z) for each z, nats, the behaviour's probabilities included where one is given."""
        past, w, observations, subgoals = prompt
        logs = []
        for z in range(self.Z):
            factors = [self.prior[z], self.likelihood(z, observations, subgoals), self.instruction_prior[w]]
            for v, o, g in past:
                factors += [self.instruction_prior[v], self.likelihood(z, o, g)]
            if behaviour is not None:
                for n, (v, o, g) in enumerate([*past, (w, observations, subgoals)]):
                    factors += [behaviour(z, past[:n], v, o[: h + 1], g[:h])[a] for h, a in enumerate(g)]
            logs.append(math.fsum(map(self.log, factors)) if min(factors) > 0 else -math.inf)
        return logs

    def posterior(self, prompt: PromptTuple, behaviour: Behaviour | None = None) -> np.ndarray:
        """P_D(z | pt), [Z].

        Raises:
            ZeroDivisionError: the prompt is impossible under every task.
        """
        logs = self.log_joint(prompt, behaviour)
        if max(logs) == -math.inf:
            raise ZeroDivisionError("the prompt is impossible under every task of positive prior")
        weights = [math.exp(v - max(logs)) for v in logs]
        return np.array([v / math.fsum(weights) for v in weights])

    def state_posterior(self, prompt: PromptTuple) -> np.ndarray:
        """P_D(z, s | pt), [Z, S]; before the first observation, of the state in which the episode will start."""
        _, _, observations, subgoals = prompt
        out = self.numbers(np.zeros((self.Z, self.S)))
        for z, weight in enumerate(self.posterior(prompt)):
            if weight > 0:
                states = self.state_weights(z, observations, subgoals) if observations else list(self.initial[z])
                total = self.total(states)
                out[z] = [weight * s / total for s in states]
        return out

    def next_by_task(self, prompt: PromptTuple, subgoal: Integer) -> np.ndarray:
        """P_z(o' | tau, g) [Z, O]; zeros for a task that the current history refutes."""
        _, _, observations, subgoals = prompt
        out = self.numbers(np.zeros((self.Z, self.O)))
        for z in range(self.Z):
            here = self.likelihood(z, observations, subgoals)
            if here > 0:
                after = [self.likelihood(z, (*observations, o), (*subgoals, subgoal)) for o in range(self.O)]
                out[z] = [a / here for a in after]
        return out

    def next_observation(self, prompt: PromptTuple, subgoal: Integer) -> np.ndarray:
        """P_D(o' | pt, g), [O]."""
        chances = self.next_by_task(prompt, subgoal)
        weights = self.posterior(prompt)
        return np.array([self.total(w * c for w, c in zip(weights, column, strict=True)) for column in chances.T])

    def bail(self, prompt: PromptTuple, behaviour: Behaviour | None = None) -> np.ndarray:
        """P_D(g*_h | pt_h), [G]."""
        _, w, observations, subgoals = prompt
        terms: list[list[Any]] = [[] for _ in range(self.G)]
        for z, weight in enumerate(self.posterior(prompt, behaviour)):
            if weight > 0:
                terms[self.expert(z, w, observations, subgoals)].append(weight)
        return np.array([self.total(t) for t in terms])

    # --- draws --------------------------------------------------------------------------------------------------

    def draw_episode(self, rng: np.random.Generator, z: Integer, length: int | None = None) -> History:
        """(w, observations, subgoals) of the first ``length`` steps under z, subgoals drawn uniformly."""
        length = self.H if length is None else length

        def pick(row: np.ndarray) -> int:
            row = np.asarray(row, np.float64)
            return int(rng.choice(len(row), p=row / row.sum()))

        w, s = pick(self.instruction_prior), 0
        observations, subgoals = [], []
        for h in range(length):
            if h:
                subgoals.append(int(rng.integers(self.G)))
            s = pick(self.transition[z, h - 1, subgoals[-1], s] if h else self.initial[z])
            observations.append(pick(self.emission[z, s]))
        return w, tuple(observations), tuple(subgoals)

    def draw_prompt(self, rng: np.random.Generator, episodes: int, step: int) -> PromptTuple:
        """A prompt that is possible under some task of positive prior."""
        z = int(rng.choice(np.flatnonzero(self.prior > 0)))
        past = tuple(self.draw_episode(rng, z) for _ in range(episodes))
        return (past, *self.draw_episode(rng, z, step))


class ExactOracle(Oracle):
    """The same sums in exact rationals (:class:`fractions.Fraction`): its numbers have no error at all.

    A float that is the nearest one to a fraction with a denominator of at most 10,000 is read as that fraction, so that
    1/3 means one third; any other float is read as the binary number that it is.
    """

    zero: Any = Fraction(0)
    one: Any = Fraction(1)

    @staticmethod
    def numbers(array: Any) -> np.ndarray:
        """An array of a family as fractions."""
        array = np.asarray(array, np.float64)
        out = np.empty(array.shape, object)
        for index in np.ndindex(*array.shape):
            exact = Fraction(float(array[index]))
            near = exact.limit_denominator(_DENOMINATOR)
            out[index] = near if float(near) == float(exact) else exact
        return out

    @staticmethod
    def total(terms: Iterable[Any]) -> Any:
        """The exact sum."""
        return sum(terms, Fraction(0))

    @staticmethod
    def log(number: Any) -> float:
        """log of a fraction, nats, however small it is; -inf at 0."""
        number = Fraction(number)
        return math.log(number.numerator) - math.log(number.denominator) if number > 0 else -math.inf

    def posterior(self, prompt: PromptTuple, behaviour: Behaviour | None = None) -> np.ndarray:
        """P_D(z | pt), [Z], as fractions.

        Raises:
            ZeroDivisionError: the prompt is impossible under every task.
        """
        past, w, observations, subgoals = prompt
        weights = []
        for z in range(self.Z):
            weight = self.prior[z] * self.likelihood(z, observations, subgoals)
            for _, o, g in past:
                weight *= self.likelihood(z, o, g)
            if behaviour is not None:
                for n, (v, o, g) in enumerate([*past, (w, observations, subgoals)]):
                    for h, a in enumerate(g):
                        weight *= Fraction(behaviour(z, past[:n], v, o[: h + 1], g[:h])[a])
            weights.append(weight)
        return np.array([weight / self.total(weights) for weight in weights], object)


def as_tuple(prompt: Prompt) -> PromptTuple:
    """A prompt as nested tuples of plain integers."""

    def plain(array: Any) -> Indices:
        return tuple(int(i) for i in array)

    rows = zip(prompt.instructions, prompt.observations, prompt.subgoals, strict=True)
    past = tuple((int(w), plain(o), plain(g)) for w, o, g in rows)
    return past, int(prompt.current_instruction), plain(prompt.current_observations), plain(prompt.current_subgoals)


def as_prompt(prompt: PromptTuple) -> Prompt:
    """Nested tuples as a :class:`bayespar.Prompt`."""
    past, w, observations, subgoals = prompt
    return Prompt(
        observations=np.array([o for _, o, _ in past], np.int32) if past else None,
        subgoals=np.array([g for _, _, g in past], np.int32) if past else None,
        instructions=np.array([v for v, _, _ in past], np.int32) if past else None,
        current_observations=list(observations),
        current_subgoals=list(subgoals),
        current_instruction=w,
    )
