"""What bayespar computes, again, by explicit sums in plain Python and numpy.

Nothing here is shared with the code under test: arrays are read off a family once, and the rest is loops over tasks,
hidden states, observations, subgoals and labels, added up by ``math.fsum``. A finished episode is a tuple
``(w, observations, subgoals)``, and a prompt is a tuple ``(finished episodes, w, observations, subgoals)``.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np

TIE = 1e-9


class Oracle:
    """The arrays of a family with every shared axis written out, and sums over them.

    Attributes:
        prior [Z], initial [Z, S], transition [Z, H-1, G, S, S'], emission [Z, S, O], reward [H, O, W],
        instruction_prior [W], H.
    """

    def __init__(self, family):
        def array(a):
            return np.asarray(a, np.float64)

        kernel = family.transition
        if hasattr(kernel, "next_states"):
            S = array(family.initial).shape[-1]
            successors, probabilities = np.asarray(kernel.next_states), array(kernel.probabilities)
            dense = np.zeros((*probabilities.shape[:-1], S))
            for index in np.ndindex(*probabilities.shape):
                dense[(*index[:-1], successors[index])] += probabilities[index]
        else:
            dense = array(kernel)
        self.H = family.horizon
        self.prior, self.reward = array(family.task_prior), array(family.reward)
        self.instruction_prior = array(family.instruction_prior)
        Z = len(self.prior)
        initial, emission = array(family.initial), array(family.emission)
        self.initial = np.broadcast_to(initial, (Z, *initial.shape[1:]))
        self.emission = np.broadcast_to(emission, (Z, *emission.shape[1:]))
        self.transition = np.broadcast_to(dense, (Z, max(self.H - 1, 0), *dense.shape[2:]))
        self.Z, self.G, self.S, self.O = Z, dense.shape[2], initial.shape[1], emission.shape[2]
        self.W = self.reward.shape[2]
        self._likelihood, self._value = {}, {}

    # --- one episode --------------------------------------------------------------------------------------------

    def state_weights(self, z, observations, subgoals):
        """P_z(o_{1:h}, s_h = s || g_{1:h-1}) for each s, summed over the paths of hidden states that end there."""
        terms = [[] for _ in range(self.S)]
        for path in itertools.product(range(self.S), repeat=len(observations)):
            weight = float(self.initial[z, path[0]]) * float(self.emission[z, path[0], observations[0]])
            for h, g in enumerate(subgoals):
                weight *= float(self.transition[z, h, g, path[h], path[h + 1]])
                weight *= float(self.emission[z, path[h + 1], observations[h + 1]])
            terms[path[-1]].append(weight)
        return [math.fsum(t) for t in terms]

    def likelihood(self, z, observations, subgoals):
        """L_z(tau); 1 before the first observation."""
        if not observations:
            return 1.0
        key = z, tuple(observations), tuple(subgoals)
        if key not in self._likelihood:
            self._likelihood[key] = math.fsum(self.state_weights(*key))
        return self._likelihood[key]

    def q(self, z, w, observations, subgoals):
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
                        later = max(self.q(z, w, *after)) if len(after[0]) < self.H else 0.0
                        terms.append(chance * (self.reward[len(after[0]) - 1, o, w] + later))
                values.append(math.fsum(terms) / here)
            self._value[key] = values
        return self._value[key]

    def expert(self, z, w, observations, subgoals):
        """The expert's subgoal at a history that is possible under z: the lowest index among the best."""
        values = self.q(z, w, observations, subgoals)
        return next(g for g, value in enumerate(values) if value >= max(values) - TIE)

    def histories(self, length):
        """Every (observations, subgoals) with ``length`` observations, possible or not."""
        for observations in itertools.product(range(self.O), repeat=length):
            for subgoals in itertools.product(range(self.G), repeat=length - 1):
                yield observations, subgoals

    def policy_value(self, policy):
        """J_z(pi, w) [Z, W] of ``policy(w, observations, subgoals) -> [G]``: a sum over every whole history."""
        terms = [[[] for _ in range(self.W)] for _ in range(self.Z)]
        for observations, subgoals in self.histories(self.H):
            for z in range(self.Z):
                chance = self.likelihood(z, observations, subgoals)
                if chance == 0:
                    continue
                for w in range(self.W):
                    chosen = 1.0
                    for h, g in enumerate(subgoals):
                        chosen *= policy(w, observations[: h + 1], subgoals[:h])[g] if chosen > 0 else 0.0
                    pay = math.fsum(self.reward[h, o, w] for h, o in enumerate(observations))
                    terms[z][w].append(chance * chosen * pay)
        return np.array([[math.fsum(t) for t in row] for row in terms])

    def best_policy_value(self, z, w):
        """The largest J_z over all deterministic history policies, by trying every one of them."""
        heard = [s for h in range(1, self.H) for s in itertools.product(range(self.O), repeat=h)]
        best = -math.inf
        for choices in itertools.product(range(self.G), repeat=len(heard)):
            policy = dict(zip(heard, choices, strict=True))
            terms = []
            for observations in itertools.product(range(self.O), repeat=self.H):
                subgoals = tuple(policy[observations[:h]] for h in range(1, self.H))
                pay = math.fsum(self.reward[h, o, w] for h, o in enumerate(observations))
                terms.append(self.likelihood(z, observations, subgoals) * pay)
            best = max(best, math.fsum(terms))
        return best

    # --- the corpus ---------------------------------------------------------------------------------------------

    def corpus_law(self, episodes, behaviour):
        """P_D(pt_h, z, g*_h) of every prompt that ends in a decision, [Z, G] each, and the mass of all corpora.

        Everything is enumerated: z, instructions, hidden states, observations, labels, executed subgoals.
        ``behaviour(z, past, w, observations, subgoals)`` gives the probabilities of the executed subgoal.
        """
        law = defaultdict(lambda: [[[] for _ in range(self.G)] for _ in range(self.Z)])
        whole = []

        def episode(z, past, mass):
            if len(past) == episodes:
                whole.append(mass)
                return
            for w, s, o in itertools.product(range(self.W), range(self.S), range(self.O)):
                here = mass * self.instruction_prior[w] * self.initial[z, s] * self.emission[z, s, o]
                if here > 0:
                    decision(z, past, w, s, (o,), (), here)

        def decision(z, past, w, s, observations, subgoals, mass):
            h = len(observations)
            if h == self.H:
                episode(z, (*past, (w, observations, subgoals)), mass)
                return
            best = self.expert(z, w, observations, subgoals)
            executed = behaviour(z, past, w, observations, subgoals)
            for label in range(self.G):
                labelled = mass * (1.0 if label == best else 0.0)
                if labelled == 0:
                    continue
                law[past, w, observations, subgoals][z][label].append(labelled)
                for g, t, o in itertools.product(range(self.G), range(self.S), range(self.O)):
                    here = labelled * executed[g] * self.transition[z, h - 1, g, s, t] * self.emission[z, t, o]
                    if here > 0:
                        decision(z, past, w, t, (*observations, o), (*subgoals, g), here)

        for z in range(self.Z):
            if self.prior[z] > 0:
                episode(z, (), float(self.prior[z]))
        masses = {pt: np.array([[math.fsum(t) for t in row] for row in rows]) for pt, rows in law.items()}
        return masses, math.fsum(whole)

    def log_joint(self, prompt, behaviour=None):
        """log P_D(pt, z) for each z, the behaviour's probabilities included where one is given."""
        past, w, observations, subgoals = prompt
        logs = []
        for z in range(self.Z):
            factors = [float(self.prior[z]), self.likelihood(z, observations, subgoals), self.instruction_prior[w]]
            for v, o, g in past:
                factors += [self.instruction_prior[v], self.likelihood(z, o, g)]
            if behaviour is not None:
                for n, (v, o, g) in enumerate([*past, (w, observations, subgoals)]):
                    factors += [behaviour(z, past[:n], v, o[: h + 1], g[:h])[a] for h, a in enumerate(g)]
            logs.append(math.fsum(math.log(f) for f in factors) if min(factors) > 0 else -math.inf)
        return logs

    def posterior(self, prompt, behaviour=None):
        """P_D(z | pt)."""
        logs = self.log_joint(prompt, behaviour)
        weights = [math.exp(v - max(logs)) for v in logs]
        return np.array([v / math.fsum(weights) for v in weights])

    def bail(self, prompt, behaviour=None):
        """P_D(g*_h | pt_h)."""
        _, w, observations, subgoals = prompt
        terms = [[] for _ in range(self.G)]
        for z, weight in enumerate(self.posterior(prompt, behaviour)):
            if weight > 0:
                terms[self.expert(z, w, observations, subgoals)].append(weight)
        return np.array([math.fsum(t) for t in terms])

    # --- telling tasks apart ------------------------------------------------------------------------------------

    def expert_value(self):
        """J_z(pi*_z, w) [Z, W], by expectimax."""
        best = np.zeros((self.Z, self.W))
        for z, w in itertools.product(range(self.Z), range(self.W)):
            terms = []
            for o in range(self.O):
                chance = self.likelihood(z, (o,), ())
                if chance > 0:
                    later = max(self.q(z, w, (o,), ())) if self.H > 1 else 0.0
                    terms.append(chance * (self.reward[0, o, w] + later))
            best[z, w] = math.fsum(terms)
        return best

    def hellinger(self, policy):
        """eta_zz' [Z, Z] of ``policy(w, observations, subgoals) -> [G]``: a sum over every whole history."""
        terms = defaultdict(list)
        for observations, subgoals in self.histories(self.H):
            chosen = []
            for w in range(self.W):
                chance = float(self.instruction_prior[w])
                for h, g in enumerate(subgoals):
                    chance *= policy(w, observations[: h + 1], subgoals[:h])[g] if chance > 0 else 0.0
                chosen.append(chance)
            roots = [math.sqrt(self.likelihood(z, observations, subgoals)) for z in range(self.Z)]
            for i, j in itertools.product(range(self.Z), repeat=2):
                terms[i, j].append(math.fsum(chosen) * (roots[i] - roots[j]) ** 2 / 2)
        return np.array([[math.fsum(terms[i, j]) for j in range(self.Z)] for i in range(self.Z)])

    def eta(self, policy):
        """The least eta_zz' over pairs of tasks of positive prior; 1 if there is one task."""
        apart, alive = self.hellinger(policy), np.flatnonzero(self.prior > 0)
        return min((apart[i, j] for i, j in itertools.combinations(alive, 2)), default=1.0)

    # --- regret -------------------------------------------------------------------------------------------------

    def regret(self, planner, explorer, coin, gate=None, *, remembers=None, per_step=False):
        """What ``planner`` ("bail", "map" or "thompson") loses in each episode, over all sequences of episodes.

        ``explorer(w, observations, subgoals) -> [G]`` acts in episode t with probability ``coin[t]``, and for sure
        where 1 - max P(z | past) > ``gate[t]``. No two tasks may be equal. Returns the regret [Z, T], the
        probability that the explorer acts [Z, T], and E[1 - P(z | pt_h)] [2, Z, T, H] if the planner acts whatever the
        coin and the gate say, and if the explorer does.
        """
        T, Z, H, W = len(coin), self.Z, self.H, self.W
        gate = np.full(T, math.inf) if gate is None else gate
        remembers = [True] * T if remembers is None else remembers
        whole = list(self.histories(H))
        law = np.array(
            [[[self.likelihood(z, o[: h + 1], g[:h]) for z in range(Z)] for h in range(H)] for o, g in whole]
        )
        pay = np.array([[sum(self.reward[h, v, w] for h, v in enumerate(o)) for w in range(W)] for o, _ in whole])
        best = self.expert_value()
        follows = np.zeros((len(whole), W, H - 1, Z))  # whether the expert of z would take the step that was taken
        explores = np.ones((len(whole), W, H - 1))
        for n, (o, g) in enumerate(whole):
            for w, h in itertools.product(range(W), range(H - 1)):
                explores[n, w, h] = explorer(w, o[: h + 1], g[:h])[g[h]]
                for z in range(Z):
                    # An expert whose task is impossible here may do anything: this one takes the first subgoal.
                    alive = self.likelihood(z, o[: h + 1], g[:h]) > 0
                    follows[n, w, h, z] = (self.expert(z, w, o[: h + 1], g[:h]) if alive else 0) == g[h]

        def plans(belief):
            """(probability, chance of the step taken [n, W, H-1]) of every way in which the planner may act."""
            if planner == "thompson":
                return [(belief[z], follows[..., z]) for z in range(Z) if belief[z] > 0]
            joint = belief * law[:, : H - 1]
            total = joint.sum(axis=2, keepdims=True)
            posterior = joint / np.where(total > 0, total, 1)
            if planner == "map":
                first = (posterior >= posterior.max(axis=2, keepdims=True) - TIE).argmax(axis=2)
                posterior = np.eye(Z)[first]
            return [(1.0, np.einsum("nhz,nwhz->nwh", posterior, follows))]

        regret, explored, doubt = np.zeros((Z, T)), np.zeros((Z, T)), np.zeros((2, Z, T, H))

        def episode(t, belief, mass):
            share = 1.0 if np.sort(belief)[:-1].sum() > gate[t] else float(coin[t])
            explored[:, t] += mass * share
            if per_step:
                mixed = [(p, (1 - share) * plan + share * explores) for p, plan in plans(belief)]
                acting, exploring, share = mixed, [], 0.0
            else:
                acting, exploring = plans(belief), [(1.0, explores)]
            joint = belief * law
            total = joint.sum(axis=2, keepdims=True)
            wrong = 1 - joint / np.where(total > 0, total, 1)
            reach = np.zeros((2, len(whole), W))
            for kind, ways in enumerate((acting, exploring)):
                for p, steps in ways:
                    reach[kind] += p * steps.prod(axis=2) * self.instruction_prior
                doubt[kind, :, t] += mass[:, None] * np.einsum("nw,nz,nhz->zh", reach[kind], law[:, -1], wrong)
            heard = (1 - share) * reach[0] + share * reach[1]
            value = np.einsum("nw,nz,nw->z", heard, law[:, -1], pay)
            regret[:, t] += mass * (best @ self.instruction_prior - value)
            if t == T - 1:
                return
            for n in np.flatnonzero(heard.sum(axis=1) > 0):
                after = mass * heard[n].sum() * law[n, -1]
                if after.sum() > 0:
                    learnt = belief * law[n, -1] if remembers[t] else belief
                    episode(t + 1, learnt / learnt.sum(), after)

        episode(0, self.prior / self.prior.sum(), np.ones(Z))
        return regret, explored, doubt

    # --- draws --------------------------------------------------------------------------------------------------

    def draw_episode(self, rng, z, length=None):
        """(w, observations, subgoals) of the first ``length`` steps under z, subgoals drawn uniformly."""
        length = self.H if length is None else length
        w = int(rng.choice(self.W, p=self.instruction_prior / self.instruction_prior.sum()))
        observations, subgoals = [], []
        s = 0
        for h in range(length):
            if h:
                subgoals.append(int(rng.integers(self.G)))
            row = self.transition[z, h - 1, subgoals[-1], s] if h else self.initial[z]
            s = int(rng.choice(self.S, p=row / row.sum()))
            heard = self.emission[z, s]
            observations.append(int(rng.choice(self.O, p=heard / heard.sum())))
        return w, tuple(observations), tuple(subgoals)

    def draw_prompt(self, rng, episodes, step):
        """A prompt that is possible under some task of positive prior."""
        z = int(rng.choice(np.flatnonzero(self.prior > 0)))
        past = tuple(self.draw_episode(rng, z) for _ in range(episodes))
        return (past, *self.draw_episode(rng, z, step))


def uneven_behaviour(subgoals):
    """A behaviour policy that is neither uniform nor memoryless, and sees neither the task nor a label."""

    def behaviour(z, past, w, observations, subgoals_so_far):
        seen = sum(observations) + 2 * sum(subgoals_so_far) + w + sum(sum(o) + 3 * sum(g) + v for v, o, g in past)
        weights = [1 + (seen * (g + 1) + g) % 4 for g in range(subgoals)]
        return [v / sum(weights) for v in weights]

    return behaviour


def arrays_of(prompt):
    """The arguments of ``bayespar.Prompt`` for a prompt of this module."""
    past, w, observations, subgoals = prompt
    return {
        "observations": np.array([o for _, o, _ in past]) if past else None,
        "subgoals": np.array([g for _, _, g in past]) if past else None,
        "instructions": np.array([v for v, _, _ in past]) if past else None,
        "current_observations": list(observations),
        "current_subgoals": list(subgoals),
        "current_instruction": w,
    }
