"""The shipped worlds have the properties that their prose and the theorems claim, by numpy code of their own."""

import functools
import importlib
import inspect
import itertools
import re
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest

import bayespar as bp
from bayespar import models
from bayespar.posterior.latents import find_latents

MODELS = Path(models.__path__[0])
NAMES = [
    "aliased", "gridworld_errands", "kitchen", "ledge", "lock", "needle", "random_world", "safe_or_risky", "tiger",
    "two_doors", "warehouse",
]  # fmt: skip


@functools.cache
def family_of(name, **parameters):
    return bp.enumerate_program(functools.partial(bp.load_model(name), **parameters))


def kernels(family, z):
    """rho [S], P [H-1, G, S, S'], E [S, O] of one task, dense and with every step written out."""
    P = family.dense_transition()
    P = np.broadcast_to(P, (P.shape[0], max(family.horizon - 1, 1), *P.shape[2:]))
    return (a[z if a.shape[0] > 1 else 0] for a in (family.initial, P, family.emission))


def likelihood_by_paths(family, z, observations, subgoals):
    """L_z of a history, summed over every path of hidden states."""
    rho, P, E = kernels(family, z)
    total = 0.0
    for path in itertools.product(range(family.num_states), repeat=len(observations)):
        weight = rho[path[0]] * E[path[0], observations[0]]
        for h, g in enumerate(subgoals):
            weight *= P[h, g, path[h], path[h + 1]] * E[path[h + 1], observations[h + 1]]
        total += weight
    return total


class Expert:
    """Optimal values and first-index-wins actions under one task, by expectimax over beliefs."""

    def __init__(self, family, z):
        self.rho, self.P, self.E = kernels(family, z)
        self.R, self.H = family.reward, family.horizon
        self.seen = {}
        self.value = self.R[0, 0] * 0.0
        for o, p, belief in self.outcomes(self.rho):
            self.value = self.value + p * (self.R[0, o] + self.solve(1, belief)[0])

    def outcomes(self, predicted):
        probabilities = predicted @ self.E
        for o in np.flatnonzero(probabilities):
            yield o, probabilities[o], predicted * self.E[:, o] / probabilities[o]

    def solve(self, h, belief):
        """Value of the decisions left after o_h [W], and the best subgoals [W]."""
        if h == self.H:
            return 0.0, None
        key = (h, belief.round(12).tobytes())
        if key not in self.seen:
            q = np.zeros((self.P.shape[1], self.R.shape[2]))
            for g, predicted in enumerate(belief @ self.P[h - 1]):
                for o, p, after in self.outcomes(predicted):
                    q[g] += p * (self.R[h, o] + self.solve(h + 1, after)[0])
            self.seen[key] = q.max(0), (q >= q.max(0) - 1e-9).argmax(0)
        return self.seen[key]


def bail_value(family, truth):
    """J_truth of BAIL in the first episode, instruction 0: every history, the experts mixed by the posterior."""
    experts = [Expert(family, z) for z in range(family.num_tasks)]

    def play(h, o, joint):
        # joint [z][S]: P(z) L_z and the hidden state after o_h, unnormalised; the value is weighted by L_truth
        value = family.reward[h - 1, o, 0] * joint[truth].sum() / family.task_prior[truth]
        if h == family.horizon:
            return value
        mass = np.array([j.sum() for j in joint])
        mixture = np.zeros(family.num_subgoals)
        for e, j, m in zip(experts, joint, mass, strict=True):
            if m > 0:
                mixture[e.solve(h, j / m)[1][0]] += m / mass.sum()
        for g in np.flatnonzero(mixture):
            predicted = [j @ e.P[h - 1, g] for e, j in zip(experts, joint, strict=True)]
            value += mixture[g] * follow(h + 1, predicted)
        return value

    def follow(h, predicted):
        after = [
            [p * e.E[:, o] for e, p in zip(experts, predicted, strict=True)] for o in range(family.num_observations)
        ]
        return sum(play(h, o, joint) for o, joint in enumerate(after) if joint[truth].sum() > 0)

    return follow(1, [family.task_prior[z] * e.rho for z, e in enumerate(experts)])


def reachable_histories(family):
    """How many histories (o_1, g_1, ..., o_h) of each length h have a positive probability under some task."""
    Z, S, O = family.num_tasks, family.num_states, family.num_observations
    P = np.broadcast_to(family.dense_transition() > 0, (Z, family.horizon - 1, family.num_subgoals, S, S))
    E = np.broadcast_to(family.emission > 0, (Z, S, O))
    assert (family.task_prior > 0).all()

    def split(predicted):
        after = predicted[..., None] & E
        return [after[..., o].tobytes() for o in np.flatnonzero(after.any((0, 1)))]

    # Histories after which the same states are possible under the same tasks are counted together.
    level = Counter(split(np.broadcast_to(family.initial > 0, (Z, S))))
    counts = [level.total()]
    for h in range(family.horizon - 1):
        following = Counter()
        for support, count in level.items():
            now = np.frombuffer(support, bool).reshape(Z, S)
            for g in range(family.num_subgoals):
                for after in split((now[..., None] & P[:, h, g]).any(1)):
                    following[after] += count
        level = following
        counts.append(level.total())
    return counts


def random_prompt(family, seed, episodes=3):
    rng = np.random.default_rng(seed)
    H, G, O, W = family.horizon, family.num_subgoals, family.num_observations, family.num_instructions
    h = int(rng.integers(1, H + 1))
    current = rng.integers(O, size=h), rng.integers(G, size=h - 1), int(rng.integers(W))
    if not episodes:
        return bp.Prompt(None, None, None, *current)
    past = rng.integers(O, size=(episodes, H)), rng.integers(G, size=(episodes, H - 1)), rng.integers(W, size=episodes)
    return bp.Prompt(*past, *current)


def same_prompt(a, b):
    fields = ["observations", "subgoals", "instructions", "current_observations", "current_subgoals"]
    equal = all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)
    return equal and a.current_instruction == b.current_instruction


class TestEveryWorld:
    def test_shipped_worlds_are_listed(self):
        assert set(NAMES) <= set(bp.available_models())

    @pytest.mark.parametrize("name", NAMES)
    def test_file_is_short_and_its_prose_names_a_source(self, name):
        text = (MODELS / f"{name}.py").read_text()
        assert 30 <= len(text.splitlines()) <= 140
        prose, _, source = importlib.import_module(f"bayespar.models.{name}").__doc__.partition("\nSource: ")
        assert len(prose.split()) >= 60
        assert "theory.md" in source or "(19" in source

    @pytest.mark.parametrize("name", NAMES)
    def test_program_is_a_documented_function_with_defaults(self, name):
        program = bp.load_model(name)
        assert program.__name__ == name
        assert program.__doc__
        assert all(p.default is not p.empty for p in inspect.signature(program).parameters.values())

    @pytest.mark.parametrize("name", NAMES)
    def test_enumerates_in_float64_with_named_sites(self, name):
        family = family_of(name)
        assert family.dtype == np.float64
        assert family.task_prior.sum() == pytest.approx(1, abs=1e-15)
        assert len(family.sites) >= 1
        for _, values in family.sites:
            assert len(values) == family.num_tasks

    @pytest.mark.parametrize("name", NAMES)
    def test_enumerating_twice_gives_the_same_family(self, name):
        arrays, structure = jax.tree.flatten(family_of(name))
        arrays_again, structure_again = jax.tree.flatten(bp.enumerate_program(bp.load_model(name)))
        assert structure == structure_again  # names, horizon and sites are part of it
        for a, b in zip(arrays, arrays_again, strict=True):
            assert np.array_equal(a, b)

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("seed", range(4))
    def test_prompt_in_words_round_trips(self, name, seed):
        family = family_of(name)
        prompt = random_prompt(family, seed, episodes=seed)
        text = prompt.to_text(family)
        assert text.count("Episode") == seed + 1
        assert same_prompt(bp.Prompt.from_text(text, family), prompt)

    @pytest.mark.parametrize("name", [n for n in NAMES if n != "random_world"])
    def test_words_are_its_own(self, name):
        family = family_of(name)
        for kind in ("tasks", "states", "subgoals", "observations", "instructions"):
            assert f"{kind.removesuffix('s')} 0" not in getattr(family, kind)

    def test_loads_from_its_path_too(self):
        family = bp.enumerate_program(bp.load_model(str(MODELS / "safe_or_risky.py")))
        assert family.tasks == family_of("safe_or_risky").tasks


class TestNeedle:
    def test_shapes(self):
        family = family_of("needle")
        assert (family.num_tasks, family.num_states, family.num_subgoals, family.num_observations) == (16, 4, 17, 19)
        assert (family.horizon, family.num_instructions) == (2, 1)
        assert np.array_equal(family.task_prior, np.full(16, 1 / 16))
        assert isinstance(family.transition, bp.Sparse)
        assert family.initial.shape[0] == 1

    @pytest.mark.parametrize(("tasks", "accuracy"), [(1, 0.5), (5, 0.0), (5, 0.3), (4, 1.0)])
    def test_law_of_one_episode(self, tasks, accuracy):
        family = family_of("needle", tasks=tasks, accuracy=accuracy)
        bell, buzzer = family.observations.index("a bell rings"), family.observations.index("a buzzer sounds")
        signs = [family.observations.index(f"the sign says {k + 1}") for k in range(tasks)]
        for z in range(tasks):
            rho, P, E = kernels(family, z)
            after = rho @ P[0] @ E
            for g in range(tasks):
                assert after[g, bell] == (g == z)
                assert after[g, buzzer] == (g != z)
            expected = np.full(tasks, (1 - accuracy) / tasks)
            expected[z] += accuracy
            np.testing.assert_allclose(after[tasks, signs], expected, atol=1e-15)
            assert family.reward[:, :, 0].sum() == family.reward[1, bell, 0] == 1

    def test_expert_presses_its_button_and_bail_one_at_random(self):
        family = family_of("needle", tasks=6)
        for z in range(6):
            expert = Expert(family, z)
            assert expert.value[0] == 1
            assert expert.solve(1, expert.rho)[1][0] == z
            assert 1 - bail_value(family, z) == pytest.approx(1 - 1 / 6, abs=1e-14)  # T - T(T+1)/(2K) at T = 1

    def test_no_button_is_refused(self):
        with pytest.raises(ValueError, match="at least one button"):
            bp.load_model("needle")(tasks=0)

    def test_reading_is_the_last_subgoal(self):
        assert family_of("needle").subgoals[-1] == "read the sign"

    def test_large_needle_fits_in_100_megabytes(self):
        assert family_of("needle", tasks=256).nbytes < 100e6


class TestLock:
    @pytest.mark.parametrize("length", [1, 2, 3, 4])
    def test_silent_until_the_right_word_is_complete(self, length):
        family = family_of("lock", length=length)
        assert (family.num_tasks, family.num_subgoals, family.horizon) == (2, 3, length + 1)
        assert family.subgoals[0] == "idle"
        words = []
        for z in range(2):
            rho, P, E = kernels(family, z)
            opening = []
            for word in itertools.product(range(3), repeat=length):
                belief = rho
                for h, g in enumerate(word):
                    assert (belief @ E)[0] == 1
                    belief = belief @ P[h, g]
                if (belief @ E)[1] == 1:
                    opening.append(word)
                else:
                    assert (belief @ E)[0] == 1
            assert len(opening) == 1
            words += opening
        assert all(a != b and a > 0 and b > 0 for a, b in zip(*words, strict=True))
        assert np.array_equal(np.argwhere(family.reward), [[length, 1, 0]])

    @pytest.mark.parametrize("length", [1, 2, 3, 4])
    def test_first_episode_of_bail_loses_what_the_theorem_says(self, length):
        family = family_of("lock", length=length)
        p = 2.0 ** -(length - 1)
        for z in range(2):
            assert Expert(family, z).value[0] == 1
            assert 1 - bail_value(family, z) == pytest.approx(1 - p / 2, abs=1e-14)

    def test_no_letter_is_refused(self):
        with pytest.raises(ValueError, match="at least one letter"):
            bp.load_model("lock")(length=0)

    def test_an_expert_whose_word_is_dead_idles(self):
        family = family_of("lock")
        expert = Expert(family, 0)
        jammed = np.eye(family.num_states)[family.states.index("jammed")]
        assert [int(expert.solve(h, jammed)[1][0]) for h in (1, 2, 3)] == [0, 0, 0]


class TestSafeOrRisky:
    def test_payoffs(self):
        family = family_of("safe_or_risky")
        np.testing.assert_allclose(family.task_prior, [0.7, 0.3], atol=1e-15)
        for z in range(2):
            rho, P, E = kernels(family, z)
            payoffs = rho @ P[0] @ E @ family.reward[1, :, 0]
            np.testing.assert_allclose(payoffs, [0.6, float(z)], atol=1e-15)
        assert not family.reward[0].any()

    def test_greedy_plan_is_safe_and_safety_is_silent(self):
        family = family_of("safe_or_risky")
        laws = []
        for z in range(2):
            rho, P, E = kernels(family, z)
            laws.append(rho @ P[0] @ E)
        assert np.array_equal(laws[0][0], laws[1][0])
        aggregated = np.tensordot(family.task_prior, np.array(laws), 1) @ family.reward[1, :, 0]
        assert aggregated.argmax() == 0

    @pytest.mark.parametrize(("safe", "prior"), [(0.6, 0.3), (0.9, 0.05)])
    def test_first_episode_of_bail(self, safe, prior):
        family = family_of("safe_or_risky", safe=safe, prior=prior)
        assert safe - bail_value(family, 0) == pytest.approx(safe * prior, abs=1e-14)
        assert 1 - bail_value(family, 1) == pytest.approx((1 - safe) * (1 - prior), abs=1e-14)

    @pytest.mark.parametrize(("safe", "prior"), [(0.3, 0.6), (0.5, 0.5), (1.0, 0.3), (0.6, 0.0), (float("nan"), 0.3)])
    def test_outside_its_theorem_it_is_refused(self, safe, prior):
        with pytest.raises(ValueError, match="0 < prior < safe < 1"):
            bp.load_model("safe_or_risky")(safe=safe, prior=prior)


class TestAliased:
    def test_kernels_differ_and_no_relabelling_of_states_makes_them_equal(self):
        family = family_of("aliased")
        (rho0, P0, E0), (rho1, P1, E1) = (tuple(kernels(family, z)) for z in range(2))
        assert family.num_tasks == 2
        assert family.transition.shape[0] == family.emission.shape[0] == 2
        for order in itertools.permutations(range(family.num_states)):
            order = list(order)
            same = np.allclose(rho0[order], rho1) and np.allclose(E0[order], E1)
            assert not (same and np.allclose(P0[0][:, order][:, :, order], P1[0]))

    def test_one_law_on_every_history(self):
        family = family_of("aliased")
        H, probabilities = family.horizon, []
        for subgoals in itertools.product(range(family.num_subgoals), repeat=H - 1):
            total = 0.0
            for observations in itertools.product(range(family.num_observations), repeat=H):
                a, b = (likelihood_by_paths(family, z, observations, subgoals) for z in range(2))
                assert a == pytest.approx(b, abs=1e-15)
                assert a > 0
                total += a
                probabilities.append(a)
            assert total == pytest.approx(1, abs=1e-14)
        assert np.ptp(probabilities) > 0.1

    def test_same_value_and_the_choice_matters(self):
        experts = [Expert(family_of("aliased"), z) for z in range(2)]
        assert experts[0].value == pytest.approx(experts[1].value, abs=1e-14)
        first = [[int(e.solve(1, b)[1][0]) for _, _, b in e.outcomes(e.rho)] for e in experts]
        assert first == [[0, 1], [0, 1]]  # green: let it run; red: oil the machine

    def test_posterior_of_hidden_states_does_differ(self):
        green = []
        for z in range(2):
            rho, _, E = kernels(family_of("aliased"), z)
            green.append(rho * E[:, 0] / (rho @ E)[0])
        assert np.abs(green[0] - green[1]).max() > 0.05


class TestTiger:
    @pytest.mark.parametrize(("steps", "value"), [(1, -1.0), (2, -2.0), (3, 2.72)])
    def test_classic_values_with_a_random_door(self, steps, value):
        family = family_of("tiger", steps=steps, random_door=True)
        assert family.num_tasks == 1
        assert 110 * Expert(family, 0).value[0] - 100 * steps == pytest.approx(value, abs=1e-10)

    def test_side_is_redrawn_after_an_opening_only(self):
        family = family_of("tiger", random_door=True)
        _, P, _ = kernels(family, 0)
        left = np.array(["tiger left" in s for s in family.states])
        for state in range(family.num_states):
            np.testing.assert_allclose(P[0, :, state, left].sum(0), [float(left[state]), 0.5, 0.5])

    def test_as_a_world_the_side_is_the_task(self):
        family = family_of("tiger")
        assert (family.num_tasks, family.horizon) == (2, 4)
        assert family.transition.shape[0] == family.emission.shape[0] == 1
        for z, door in enumerate((2, 1)):  # tiger on the left: the right door
            expert = Expert(family, z)
            assert expert.value[0] == pytest.approx(3)
            assert expert.solve(1, expert.rho)[1][0] == door

    def test_listening_and_opening(self):
        family = family_of("tiger", accuracy=0.7)
        for z, growl in enumerate((1, 2)):
            rho, P, E = kernels(family, z)
            heard = rho @ P[0, 0] @ E
            assert heard[growl] == pytest.approx(0.7)
            assert heard[3 - growl] == pytest.approx(0.3)
            opened = rho @ P[0, 1:] @ E @ family.reward[1, :, 0]
            assert opened.tolist() == [float(z == 1), float(z == 0)]
            assert heard @ family.reward[1, :, 0] == pytest.approx(0.9)
        assert not family.reward[0].any()


class TestKitchen:
    def test_size(self):
        family = family_of("kitchen")
        assert 12 <= family.num_tasks <= 48
        assert family.num_states >= 40
        assert family.num_subgoals >= 6
        assert family.num_observations >= 8
        assert family.horizon >= 5
        assert family.num_instructions >= 2
        assert family.nbytes < 5e6

    def test_reachable_histories(self):
        counts = reachable_histories(family_of("kitchen"))
        assert 2e4 <= sum(counts) <= 2e5
        assert counts == [1, 13, 187, 2509, 32059]

    def test_count_of_histories_agrees_with_enumeration(self):
        family = family_of("aliased")
        histories = 0
        for h in range(1, family.horizon + 1):
            for o in itertools.product(range(2), repeat=h):
                for g in itertools.product(range(2), repeat=h - 1):
                    histories += likelihood_by_paths(family, 0, o, g) > 0
        assert sum(reachable_histories(family)) == histories

    def test_partially_observed_and_never_revealed(self):
        family = family_of("kitchen")
        assert ((family.emission > 0).sum(1).max(1) > 1).all()  # one observation, several states
        assert ((family.emission > 0).sum(2).max(1) > 1).all()  # one state, several observations
        # No history rules out a task: all tasks have the same possible states and observations.
        assert len({(row > 0).tobytes() for row in family.initial}) == 1
        assert len({(row > 0).tobytes() for row in family.emission}) == 1
        assert family.transition.shape[0] == 1

    def test_sites(self):
        family = family_of("kitchen")
        sites = dict(family.sites)
        assert list(sites) == ["cup", "book", "reporter"]
        cup, book = np.array(sites["cup"]), np.array(sites["book"])
        joint = np.array([[family.task_prior[(cup == c) & (book == b)].sum() for b in range(3)] for c in range(3)])
        assert np.ptp(family.task_prior) > 0.01
        assert np.abs(joint - np.outer(joint.sum(1), joint.sum(0))).max() > 0.01  # the book depends on the cup

    def test_experts_differ_between_tasks_and_instructions(self):
        family = family_of("kitchen")
        places = {"kitchen": 0, "pantry": 1, "garden": 2}
        values, plans = [], []
        for z in range(family.num_tasks):
            expert = Expert(family, z)
            values.append(expert.value)
            (_, _, belief), *others = expert.outcomes(expert.rho)
            assert not others  # o_1 says nothing
            first = expert.solve(1, belief)[1]
            looked = [expert.solve(2, b)[1] for _, _, b in expert.outcomes(belief @ expert.P[0, first[0]])]
            plans.append((*first, *np.ravel(looked)))
            cup_home = family.tasks[z].split(",")[0].split()[-1]
            assert first[0] == places[cup_home]
        values = np.array(values)
        assert ((values > 0.4) & (values < 0.9)).all()
        assert len({plan[0] for plan in plans}) == 3
        assert any(plan[0] != plan[1] for plan in plans)
        awake, sleepy = plans[2:4]
        assert family.tasks[2].replace("wide-awake", "sleepy") == family.tasks[3]
        assert awake != sleepy

    def test_reads_like_english(self):
        family = family_of("kitchen")
        o, g = family.observations.index, family.subgoals.index
        prompt = bp.Prompt(
            current_observations=[o("in the hall with empty hands"), o("in the pantry: a cup, it seems")],
            current_subgoals=[g("look in the pantry")],
            current_instruction=family.instructions.index("bring Ada the cup"),
        )
        assert prompt.to_text(family) == (
            "Episode 1 (now)\n"
            "Instruction: bring Ada the cup\n"
            "Observation: in the hall with empty hands\n"
            "Subgoal: look in the pantry\n"
            "Observation: in the pantry: a cup, it seems\n"
        )


class TestRandomWorld:
    SIZES = (5, 4, 3, 6, 3, 2)

    def test_sizes(self):
        family = family_of("random_world", seed=1, sizes=self.SIZES)
        assert family.transition.shape == (5, 1, 3, 4, 4)
        assert family.emission.shape == (5, 4, 6)
        assert family.reward.shape == (3, 6, 2)
        assert family_of("random_world", sizes=(2, 2, 2, 2, 3)).num_instructions == 1

    @pytest.mark.parametrize("sizes", [(1, 1, 1, 1, 1, 1), (1, 3, 1, 2, 2, 3), (3, 1, 2, 2, 1)])
    def test_smallest_sizes(self, sizes):
        family = family_of("random_world", sizes=sizes, zeros=0.5)
        assert (family.num_tasks, family.num_states, family.horizon) == (sizes[0], sizes[1], sizes[4])

    def test_same_seed_same_world(self):
        module = importlib.import_module("bayespar.models.random_world")
        a = family_of("random_world", seed=3, sizes=self.SIZES)
        module.draw_family.cache_clear()
        b = bp.enumerate_program(functools.partial(bp.load_model("random_world"), seed=3, sizes=self.SIZES))
        c = family_of("random_world", seed=4, sizes=self.SIZES)
        assert np.array_equal(a.transition, b.transition)
        assert np.array_equal(a.reward, b.reward)
        assert np.abs(a.transition - c.transition).max() > 0.1

    def test_nothing_is_shared_or_uniform(self):
        family = family_of("random_world", seed=1, sizes=self.SIZES)
        for array in (family.initial, family.transition, family.emission):
            assert len({a.tobytes() for a in array}) == 5
            assert (array > 0).all()
        assert np.ptp(family.task_prior) > 0.01
        assert np.ptp(family.instruction_prior) > 0.01

    def test_zeros(self):
        sizes = (8, 8, 4, 8, 3, 1)
        half = family_of("random_world", sizes=sizes, zeros=0.5)
        share = np.mean(half.transition == 0)
        assert abs(share - 0.5) < 0.03  # 2048 entries: about 0.011 a standard deviation
        every = family_of("random_world", sizes=sizes, zeros=1.0)
        assert set(np.unique(every.transition)) == {0.0, 1.0}
        assert (every.task_prior > 0).all()

    def test_concentration(self):
        spread = [family_of("random_world", concentration=c).transition.max(-1).mean() for c in (0.001, 1.0, 1000.0)]
        assert spread[0] > 0.95 > spread[1] > 0.5 > spread[2]


def errands(**parameters):
    """The worlds of all tasks, by name."""
    program = functools.partial(bp.load_model("gridworld_errands"), **parameters)
    return dict(zip(bp.enumerate_program(program).tasks, bp.program.enumerate_worlds(program), strict=True))


class TestGridworldErrands:
    def test_shapes(self):
        family = family_of("gridworld_errands")
        assert (family.num_tasks, family.num_subgoals, family.horizon) == (16, 6, 4)
        cells = 13 * 13 - (13 + 12) + 4  # inside, without two walls that cross, with four doors
        assert family.num_states == 2 * cells + 1
        assert isinstance(family.transition, bp.Sparse)
        assert ((family.emission > 0).sum(1) > 1).any()  # partially observed

    @pytest.mark.parametrize("size", [9, 11, 15])
    def test_without_slips_a_detour_costs_a_tenth(self, size):
        family = family_of("gridworld_errands", size=size, slip=0.0)
        value = dict(zip(family.tasks, bp.solve_experts(family).value[:, 0], strict=True))
        detours = {
            "parcel on the kitchen table, kitchen-hall door blocked",
            "parcel on the study table, study-bedroom door blocked",
            "parcel on the study table, hall-bedroom door blocked",
            "parcel on the bedroom table, hall-bedroom door blocked",
        }
        assert value == pytest.approx({task: 0.9 if task in detours else 1.0 for task in family.tasks}, abs=1e-12)

    def test_actors_take_shortest_ways_through_open_doors(self):
        from bayespar.models.gridworld_errands import EXITS, MOVES, TABLES, built

        flat, actors = built(11, 0.1, 40)
        free, middle = set(flat.cells), 5
        assert free.isdisjoint({(0, 3), (10, 3), (3, 0), (middle, middle)})
        for actor, goal in zip(actors, flat.landmarks.values(), strict=True):
            distance, front = {}, {goal}
            while front:  # breadth first
                distance |= dict.fromkeys(front, len(distance) and max(distance.values()) + 1)
                front = {(r + d, c + e) for r, c in front for d, e in MOVES.values()} & (free - set(distance))
            assert set(distance) == free
            for cell, row in zip(flat.cells, actor[0], strict=False):
                action = int(row.argmax())
                if cell == goal:
                    assert action == len(MOVES)
                else:
                    down, right = list(MOVES.values())[action]
                    assert distance[cell[0] + down, cell[1] + right] == distance[cell] - 1
        assert list(flat.landmarks) == [*TABLES, *EXITS]

    def test_nobody_passes_a_blocked_door(self):
        worlds = errands(size=9)
        kitchen = worlds["parcel on the kitchen table, kitchen-hall door blocked"]
        start, goal = int(kitchen.initial.argmax()), kitchen.subgoals.index("go to the kitchen table")
        in_kitchen = [words.startswith("at the kitchen table") for words in kitchen.observations]
        for name, world in worlds.items():
            reached = world.transition.dense(len(world.states))[0, goal, start] @ world.emission[:, in_kitchen]
            assert (reached.sum() == 0) == ("kitchen-hall door blocked" in name)

    def test_every_low_level_step_changes_at_most_one_thing(self):
        world = errands(size=9)["parcel on the study table, hall-bedroom door blocked"]
        played = bp.rollout_low_level(world, "uniform", episodes=200, key=2)
        places = [tuple(re.findall(r"\d+", words)) for words in world.states]
        for before, after in zip(played.states[:, :-1].ravel(), played.states[:, 1:].ravel(), strict=True):
            one, other = places[before], places[after]
            if one and other:
                moved = abs(int(one[0]) - int(other[0])) + abs(int(one[1]) - int(other[1]))
                carried = world.states[before].endswith("hand") != world.states[after].endswith("hand")
                assert moved + carried <= 1
            else:
                assert after == len(places) - 1

    @pytest.mark.parametrize("bad", [{"size": 14}, {"size": 7}, {"slip": 1.0}, {"slip": -0.1}])
    def test_refuses_what_is_no_flat(self, bad):
        with pytest.raises(ValueError, match="give"):
            bp.load_model("gridworld_errands")(**bad)


class TestLedge:
    def test_one_side_is_sure_and_the_other_icy(self):
        family = family_of("ledge")
        assert family.tasks == ("the western side is icy", "the eastern side is icy")
        assert bp.solve_experts(family).value == pytest.approx(1)
        for z, (icy, sound) in enumerate([("western", "eastern"), ("eastern", "western")]):
            rho, P, _ = kernels(family, z)
            after = rho @ P[0]  # [G, S]
            end = {(g, s): after[i, j] for i, g in enumerate(family.subgoals) for j, s in enumerate(family.states)}
            assert end[f"go {sound.removesuffix('ern')}", f"{sound} peak"] == 1
            assert end[f"go {icy.removesuffix('ern')}", f"{icy} peak"] == pytest.approx(1 / 4)
            assert end[f"go {icy.removesuffix('ern')}", "fallen"] == pytest.approx(
                1 / 4 + 1 / 4 * 1 / 4 + 1 / 2 * 1 / 4
            )
            assert end["stay", "saddle"] == 1

    def test_bail_guesses_the_side(self):
        # A wrong guess still leads up with probability 1/4, or leaves time for another try on the way.
        family = family_of("ledge")
        values = [bail_value(family, z) for z in range(2)]
        assert values[0] == pytest.approx(values[1])
        assert 0.5 < values[0] < 0.75


class TestDensities:
    """The worlds whose tasks have a density: their kernels at given values of the sites, written out by hand."""

    WORLDS = "bernoulli_arms", "dirichlet_world", "slippery_kitchen"

    @pytest.mark.parametrize("name", WORLDS)
    def test_file_is_short_and_its_prose_names_a_source(self, name):
        assert name in bp.available_models()
        assert 30 <= len((MODELS / f"{name}.py").read_text().splitlines()) <= 120
        prose, _, source = importlib.import_module(f"bayespar.models.{name}").__doc__.partition("\nSource: ")
        assert len(prose.split()) >= 60
        assert "theory.md" in source
        program = bp.load_model(name)
        assert all(p.default is not p.empty for p in inspect.signature(program).parameters.values())

    def test_each_arm_wins_with_its_own_probability(self):
        latents = find_latents(bp.load_model("bernoulli_arms"))
        assert latents.shapes == {"wins": (3,)}
        wins = np.array([[0.25, 0.5, 1.0]])
        log_prior, family = latents.mixture({"wins": wins})
        rho, P, E = kernels(family, 0)
        law = rho @ P[0] @ E
        np.testing.assert_allclose(law, np.stack([np.zeros(3), wins[0], 1 - wins[0]], axis=1), atol=1e-15)
        assert log_prior == pytest.approx(np.zeros((1, 1)), abs=1e-12)  # a uniform density on the cube
        np.testing.assert_array_equal(family.reward[:, :, 0], [[0, 0, 0], [0, 1, 0]])

    def test_each_subgoal_and_state_has_a_row_of_its_own(self):
        program = functools.partial(bp.load_model("dirichlet_world"), states=3, accuracy=0.7)
        latents = find_latents(program)
        assert latents.shapes == {"rows": (2, 3, 3)}
        assert latents.dimension == 2 * 3 * 2
        rows = np.random.default_rng(0).dirichlet(np.ones(3), (1, 2, 3))
        log_prior, family = latents.mixture({"rows": rows})
        np.testing.assert_allclose(family.dense_transition()[0, 0], rows[0], atol=1e-15)
        np.testing.assert_allclose(family.emission[0], np.full((3, 3), 0.15) + 0.55 * np.eye(3), atol=1e-15)
        assert log_prior[0, 0] == pytest.approx(6 * np.log(2), abs=1e-12)  # each row has the density 2 on its triangle
        assert bp.solve_experts(family).value.shape == (1, 1)

    def test_the_kitchen_floor_slips_and_the_reporter_errs(self):
        latents = find_latents(bp.load_model("slippery_kitchen"))
        assert [leaf["room"] for leaf in latents.leaves] == [0, 1, 2]
        _, family = latents.mixture({"slip": np.array([0.25]), "wrong": np.array([0.125])})
        word = family.states.index
        for z, room in enumerate(["kitchen", "pantry", "garden"]):
            rho, P, E = kernels(family, z)
            assert rho[word("hall")] == 1
            look = P[0, family.subgoals.index("look in the pantry")]
            assert (look[word("hall"), word("pantry")], look[word("hall"), word("hall")]) == (0.75, 0.25)
            take = P[0, family.subgoals.index("take the cup")]
            for place in ("kitchen", "pantry", "garden"):
                assert take[word(place), word("carrying the cup")] == (0.75 if place == room else 0)
                seen = E[word(place), family.observations.index(f"in the {place}: a cup, it seems")]
                assert seen == (0.875 if place == room else 0.125)
            bring = P[0, family.subgoals.index("bring it to Ada")]
            assert bring[word("carrying the cup"), word("Ada has the cup")] == 0.75
            assert bring[word("Ada has the cup"), word("Ada has the cup")] == 1

    @pytest.mark.parametrize(
        ("name", "parameters", "message"),
        [
            ("bernoulli_arms", {"arms": 0}, "at least one arm"),
            ("dirichlet_world", {"states": 1}, "at least two states"),
            ("dirichlet_world", {"accuracy": 1.5}, "a probability"),
        ],
    )
    def test_impossible_sizes_are_refused(self, name, parameters, message):
        with pytest.raises(ValueError, match=message):
            bp.load_model(name)(**parameters)
