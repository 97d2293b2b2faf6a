"""The audit: it finds nothing in BAIL, and names what is wrong with planners that are not."""

from __future__ import annotations

import functools
import json
import math
import sys

import numpy as np
import pytest

import bayespar as bp
from bayespar.cli import audit as audit_command, main
from bayespar.learned.audit import audit
from bayespar.learned.betting import mean_of_non_negative
from bayespar.learned.compare import compare
from bayespar.learned.cost import cost_of, still_at_stake
from bayespar.learned.labels import bet_on_labels
from bayespar.learned.loading import named_planner
from bayespar.learned.ranking import rank
from bayespar.learned.rivals import BAIL, RIVALS, Evidence, Fit, bayes, fit
from bayespar.learned.text import of_text, question, read_question
from bayespar.learned.weights import evidence_weights
from bayespar.planning.bail import BailPlanner, BailState
from bayespar.report.audit_page import render, write_audit
from bayespar.simulate.regret import PLANNERS
from bayespar.simulate.replay import replay
from bayespar.statistics import kl_divergence, total_variation

PROMPTS, EPISODES = 128, 16
ALPHA = 1e-4  # of each statistical test here; keys are fixed, so they either pass or fail for ever


@functools.cache
def world(name="workshop"):
    family = bp.enumerate_program(bp.load_model(name)).astype(np.float64)
    return family, bp.solve_experts(family)


class Forgetting(BailPlanner):
    """Each finished episode counts half as much when another one ends."""

    keep: float = 0.5

    def observe(self, state, episode):
        past = self.log_prior + self.keep * (state.log_weights - self.log_prior)
        return BailState(past + self.tracker.log_likelihood(state.forward), state.forward, state.memory)


class WrongPrior(BailPlanner):
    """Starts from odds that are off by up to e^4."""

    def __init__(self, family, experts):
        super().__init__(family, experts)
        self.log_prior = self.log_prior + np.linspace(-2, 2, family.num_tasks)


class Hot(BailPlanner):
    """BAIL at temperature 2."""

    def choose(self, posterior, actions):
        votes = super().choose(posterior, actions) ** 0.5
        return votes / votes.sum()


class Argmax(BailPlanner):
    """What BAIL finds most probable."""

    def choose(self, posterior, actions):
        votes = super().choose(posterior, actions)
        return (votes >= votes.max() - 1e-9).astype(votes.dtype) / (votes >= votes.max() - 1e-9).sum()


class Lapsing(BailPlanner):
    """BAIL, but one decision in five is at random."""

    def choose(self, posterior, actions):
        return 0.8 * super().choose(posterior, actions) + 0.2 / self.subgoals


DEFECTS = {
    "forgetting": Forgetting,
    "wrong prior": WrongPrior,
    "temperature": Hot,
    "argmax": Argmax,
    "bail": Lapsing,
    "map expert": PLANNERS["map"],
    "thompson": PLANNERS["thompson"],
}
QUICK = ["forgetting", "wrong prior", "temperature", "argmax", "bail"]
PLACES = [*((name, "workshop") for name in QUICK)]
PLACES += [pytest.param(name, "workshop", marks=pytest.mark.slow) for name in DEFECTS if name not in QUICK]
PLACES += [pytest.param(name, "kitchen", marks=pytest.mark.slow) for name in DEFECTS if name != "map expert"]


def made(kind, name="workshop"):
    family, experts = world(name)
    return kind(family, experts) if isinstance(kind, type) else kind(family, experts, 0)


@functools.cache
def audited(name, where):
    family, experts = world(where)
    planner = BailPlanner(family, experts) if name == "exact" else made(DEFECTS[name], where)
    return audit(planner, family, prompts=PROMPTS, episodes=EPISODES, key=1, seeds=0, experts=experts)


@functools.cache
def corpus_of(name="workshop", prompts=PROMPTS):
    family, experts = world(name)
    corpus = bp.sample_corpus(family, prompts, EPISODES, key=5, experts=experts)
    return corpus, Evidence.of(family, corpus.observations, corpus.subgoals, corpus.actions)


# --- what it must find, and what it must not ----------------------------------------------------------------------


@pytest.mark.parametrize("where", ["workshop", pytest.param("kitchen", marks=pytest.mark.slow)])
def test_nothing_is_found_in_bail(where):
    found = audited("exact", where)
    assert not found.found
    assert found.name == "bail"
    assert found.ranking.row("bail").left
    assert found.comparison.excess.low == 0
    assert found.comparison.asked <= 1e-12
    assert found.comparison.tv.mean <= 1e-12
    assert not found.labels.rejected
    for weight in found.weights:
        assert weight.value == pytest.approx(0 if weight.name == "lapse" else 1, abs=1e-3)
    # A hundred prompts cannot say more than this of all prompts, and it is said.
    assert f"up to {found.comparison.excess.high:.4f}" in found.finding


@pytest.mark.parametrize(("name", "where"), PLACES)
def test_each_defect_is_found_and_named(name, where):
    found = audited(name, where)
    assert found.found
    assert found.name == name
    assert found.comparison.excess.low > found.resolution or not found.ranking.row("bail").left
    if name != "bail":
        assert not found.ranking.row("bail").left
    assert found.ranking.rows[0].name == name


def test_knobs_are_those_of_the_planner():
    def knob(name, which):
        return next(k for k in audited(name, "workshop").knobs if k.name == which)

    assert knob("forgetting", "keep").value == pytest.approx(0.5, abs=1e-3)
    assert knob("temperature", "temperature").value == pytest.approx(2, abs=1e-2)
    assert knob("bail", "lapse").value == pytest.approx(0.2, abs=1e-3)
    assert "forgets: keep = 0.50" in audited("forgetting", "workshop").finding
    assert "temperature 2.00" in audited("temperature", "workshop").finding
    assert "at random with probability 0.20" in audited("bail", "workshop").finding
    family, _ = world()
    own = np.exp(made(WrongPrior).log_prior)
    own /= own.sum()
    most = int(np.abs(own - family.task_prior).argmax())
    said = f"{family.tasks[most]!r} {own[most]:.2f} instead of {family.task_prior[most]:.2f}"
    assert said in audited("wrong prior", "workshop").finding


def test_total_variation_says_where():
    def tv(name):
        return audited(name, "workshop").comparison.by_context.mean

    assert np.abs(tv("forgetting")[:2]).max() <= 1e-12  # nothing to forget yet
    assert (np.diff(tv("forgetting")[1:9]) > 0).all()
    assert tv("wrong prior")[-1] < tv("wrong prior")[0]  # evidence corrects a prior
    band = audited("forgetting", "workshop").comparison.by_position
    assert (band.low <= band.mean).all()
    assert (band.mean <= band.high).all()


def test_weights_of_the_evidence():
    corpus, data = corpus_of()

    def weights(**knobs):
        rival = RIVALS[0]
        found = evidence_weights(data, Fit.of(rival, **knobs).predict(data, corpus.bail))
        return {w.name: w for w in found}

    found = weights(past=0.5, keep=0.8, prior=2.0)
    for name, value in {"past": 0.5, "keep": 0.8, "prior": 2.0, "current": 1.0}.items():
        assert found[name].value == pytest.approx(value, abs=1e-2)
        assert found[name].low <= found[name].value <= found[name].high
    assert weights(current=0.0)["current"].value == pytest.approx(0, abs=1e-2)
    uniform = data._replace(log_prior=np.full_like(data.log_prior, -math.log(len(data.log_prior))))
    prior = evidence_weights(uniform, bayes(uniform)[1])[0]
    assert math.isnan(prior.value)
    assert "uniform" in prior.means
    first = data._replace(episodes=data.episodes[:, :1], current=data.current[:, :1], actions=data.actions[:, :1])
    assert [w.name for w in evidence_weights(first, corpus.bail[:, :1]) if math.isnan(w.value)] == ["past", "keep"]


# --- the rivals against planners that are them -----------------------------------------------------------------------


@pytest.mark.parametrize("where", ["workshop", pytest.param("kitchen", marks=pytest.mark.slow)])
def test_formulas_are_what_the_planners_do(where):
    family, _ = world(where)
    corpus, data = corpus_of(where)

    def said(planner):
        return replay(planner, family, corpus.instructions, corpus.observations, corpus.subgoals)

    assert np.abs(bayes(data)[0] - corpus.posterior).max() <= 1e-12
    assert np.abs(bayes(data)[1] - corpus.bail).max() <= 1e-12
    assert np.abs(Fit.of(BAIL).predict(data, corpus.bail) - corpus.bail).max() <= 1e-12
    rivals = {r.name: r for r in RIVALS}
    cases = {
        "forgetting": (said(made(Forgetting, where)), {"keep": 0.5}),
        "temperature": (said(made(Hot, where)), {"temperature": 2.0}),
        "wrong prior": (said(made(WrongPrior, where)), {"tilt": np.linspace(-2, 2, family.num_tasks)}),
    }
    for name, (q, knobs) in cases.items():
        assert np.abs(Fit.of(rivals[name], **knobs).predict(data, q) - q).max() <= 1e-12, name
        assert np.abs(corpus.bail - q).max() > 0.05
    q = said(made(PLANNERS["map"], where))
    assert np.array_equal(rivals["map expert"].law(data, q), q)
    # Thompson's law gives a positive probability to all that it does, and depends on what it did before.
    q = said(made(PLANNERS["thompson"], where))
    law = rivals["thompson"].law(data, q)
    assert law.sum(axis=-1) == pytest.approx(1)
    assert ((law * q).sum(axis=-1) > 0).all()
    assert np.abs(law - rivals["thompson"].law(data, np.full_like(q, 1 / q.shape[-1])))[:, :, 1:].max() > 0.05


def test_evidence_of_weight_zero_counts_for_nothing_even_if_impossible():
    corpus, data = corpus_of()
    data = data.at(slice(0, 8))
    holes = data.episodes.copy()
    holes[:, 0, 0] = -np.inf
    ruled_out = data._replace(episodes=holes)
    rivals = {r.name: r for r in RIVALS}
    q = corpus.bail[:8]
    for name in ("last episode only", "current episode only", "uninformed"):
        with_hole, without = (Fit.of(rivals[name]).predict(d, q) for d in (ruled_out, data))
        later = slice(2, None)  # the hole is in the first episode
        assert np.array_equal(with_hole[:, later], without[:, later]), name
    posterior = bayes(ruled_out)[0]
    assert (posterior[:, 1:, :, 0] == 0).all()
    forgetting = Fit.of(rivals["forgetting"], keep=0.5).predict(ruled_out, q)
    assert np.isfinite(forgetting).all()


def test_a_fit_finds_the_least_divergence():
    corpus, data = corpus_of()
    rivals = {r.name: r for r in RIVALS}
    q = Fit.of(rivals["forgetting"], keep=0.7, lapse=0.1).predict(data, corpus.bail)
    found = fit(rivals["forgetting"], data, q)
    assert found.knobs["keep"] == pytest.approx(0.7, abs=1e-3)
    assert found.knobs["lapse"] == pytest.approx(0.1, abs=1e-3)
    assert found.nats <= 1e-8
    # Another rival's best is where no other knob does better.
    hot = fit(rivals["temperature"], data, q)
    assert hot.nats == pytest.approx(float(kl_divergence(q, hot.predict(data, q)).mean()), rel=1e-6)
    for factor in (0.9, 1.1):
        other = hot.predict(data, q, temperature=hot.knobs["temperature"] * factor)
        assert float(kl_divergence(q, other).mean()) > hot.nats
    half = np.arange(len(q)) < len(q) // 2
    weighted = fit(rivals["temperature"], data, q, share=half.astype(float))
    alone = fit(rivals["temperature"], data.at(half), q[half])
    assert weighted.knobs["temperature"] == pytest.approx(alone.knobs["temperature"], abs=1e-3)


def test_the_rival_that_a_planner_is_is_not_ruled_out():
    """With probability 1 - ALPHA each; BAIL itself is the false twin, and is."""
    corpus, data = corpus_of()
    rivals = {r.name: r for r in RIVALS}
    q = Fit.of(rivals["forgetting"], keep=0.8, lapse=0.3).predict(data, corpus.bail)
    for key in range(2):
        found = rank(data, q, alpha=ALPHA, key=key)
        assert found.row("forgetting").log_e < math.log(1 / ALPHA)
        assert found.name(1e-3) == "forgetting"
        assert found.row("bail").log_e >= math.log(1 / ALPHA)
    with pytest.raises(bp.InvalidPlannerError, match="cannot be halved"):
        rank(data.at(slice(0, 1)), q[:1])


def test_a_planner_that_is_no_rival_is_given_no_name():
    corpus, data = corpus_of()
    rivals = {r.name: r for r in RIVALS}
    half = [Fit.of(rivals[name]).predict(data, corpus.bail) for name in ("current episode only", "last episode only")]
    q = np.where(np.arange(EPISODES)[None, :, None, None] % 2, *half)  # now one, now the other
    found = rank(data, q)
    assert found.name(0.01) is None
    assert found.rows[0].nats > 0.01


# --- intervals and tests ----------------------------------------------------------------------------------------------


def test_limits_of_a_mean_hold_and_are_tight():
    n, repeats, alpha = 200, 1500, 0.1
    rng = np.random.default_rng(0)
    draws = np.where(rng.random((n, repeats)) < 0.05, 2.0, 0.0)  # mean 0.1, at most 2
    found = mean_of_non_negative(draws, 2.0, alpha)
    low, high = np.array([(i.low, i.high) for i in found]).T
    # At most alpha / 2 miss on each side; so many more do by chance with probability below 1e-6 (Hoeffding).
    most = alpha / 2 + math.sqrt(math.log(1e6) / (2 * repeats))
    assert (low > 0.1).mean() <= most
    assert (high < 0.1).mean() <= most
    error = 2 * math.sqrt(0.05 * 0.95 / n)
    assert np.median(high - low) <= 3 * 2 * 1.645 * error  # at most thrice as wide as those of a known law
    zeros = mean_of_non_negative(np.zeros((n, 1)), 2.0, alpha)[0]
    assert zeros.low == 0
    assert 2 * math.log(2 / alpha) / n * 0.9 <= zeros.high <= 2 * math.log(2 / alpha) / n * 1.6
    ends = mean_of_non_negative(np.full((n, 1), np.inf), 2.0, alpha)[0]
    assert ends.high == 2
    assert ends.low > 1.9
    with pytest.raises(ValueError, match="outside"):
        mean_of_non_negative(np.full((3, 1), 2.5), 2.0, alpha)


def test_comparison_of_given_numbers():
    exact = np.broadcast_to([0.5, 0.5], (40, 2, 1, 2))
    q = exact.copy()
    q[:, 1] = [0.25, 0.75]
    found = compare(q, exact)
    by_hand = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert found.excess.mean == pytest.approx(by_hand / 2)
    assert found.asked == pytest.approx(by_hand / 2)
    assert found.by_context.mean == pytest.approx([0, 0.25])
    assert found.tv.mean == pytest.approx(0.125)
    assert found.impossible == 0
    assert found.excess.contains(by_hand / 2)
    q[0, 0] = [1, 0]
    found = compare(q, exact, cap=1.5)
    assert found.asked == np.inf
    assert found.impossible == 1 / 80
    assert found.excess.mean == pytest.approx((39 * by_hand + by_hand + 1.5) / 80)
    with pytest.raises(bp.InvalidPlannerError, match="give the same"):
        compare(q[:0], exact[:0])
    corpus, _ = corpus_of()  # a world model, too
    told = compare(corpus.next_observation, corpus.next_observation)
    assert told.asked <= 1e-12
    uninformed = np.broadcast_to(corpus.next_observation.mean(axis=(0, 1, 2)), corpus.next_observation.shape)
    assert compare(uninformed, corpus.next_observation).excess.low > 0.01


def test_bets_on_labels():
    corpus, data = corpus_of(prompts=512)
    fair = bet_on_labels(data, corpus.bail, corpus.labels, alpha=ALPHA)
    assert not fair.rejected
    assert fair.power["the planner itself"] == 0
    assert fair.power["temperature 2"] > 0.5
    hot = Fit.of(next(r for r in RIVALS if r.name == "temperature"), temperature=2.0).predict(data, corpus.bail)
    assert bet_on_labels(data, hot, corpus.labels, alpha=ALPHA).rejected

    def paid(r, q):
        """By independent prompts, and its mean's interval: fair games pay 1 on average."""
        each = np.take_along_axis(r / q, corpus.labels[..., None], axis=-1)[..., 0].mean(axis=(1, 2))
        return mean_of_non_negative(each[:, None], float((r / q).max()), ALPHA)[0]

    assert paid(hot, corpus.bail).contains(1)
    assert paid(corpus.bail, hot).low > 1  # the twin: against wrong probabilities the right ones gain
    certain = np.eye(3)[corpus.bail.argmax(axis=-1)]
    assert bet_on_labels(data, certain, corpus.labels).log_e == np.inf


@pytest.mark.slow
def test_being_bayesian_costs_nothing():
    family, experts = world()
    same = cost_of(BailPlanner(family, experts), family, experts, episodes=4, seeds=16, key=2)
    assert same.difference.mean == 0
    assert same.error_term.mean <= 1e-12


def test_cost():
    family, experts = world()
    assert still_at_stake(family) == pytest.approx([2, 1])
    hot = made(Hot)
    cost = cost_of(hot, family, experts, episodes=4, seeds=16, key=2)
    assert cost.difference.mean == pytest.approx(cost.regret.mean - cost.bail.mean)
    met = bp.sample_corpus(family, 32, 4, hot, key=2, experts=experts)
    q = replay(hot, family, met.instructions, met.observations, met.subgoals)
    by_hand = sum(
        (2 - h) * total_variation(q[b, n, h], met.bail[b, n, h]) for b in range(32) for n in range(4) for h in range(2)
    )
    assert cost.error_term.mean == pytest.approx(by_hand / 32)
    assert cost.error_term.mean > 0.1


# --- what an engineer meets -------------------------------------------------------------------------------------------


def test_planners_of_words():
    family, experts = world()
    settings = {"prompts": 4, "episodes": 2, "experts": experts, "seeds": 0}

    def speaks(text):
        prompt = bp.Prompt.from_text(text, family)
        probabilities = bp.bail(family, prompt, experts=experts)
        return {name: p for name, p in zip(family.subgoals, probabilities, strict=True) if p > 0}

    corpus, _ = corpus_of()
    few = [a[:2, :2] for a in (corpus.instructions, corpus.observations, corpus.subgoals)]
    assert np.abs(replay(of_text(speaks, family), family, *few) - corpus.bail[:2, :2]).max() <= 1e-12
    with pytest.raises(bp.InvalidPlannerError, match="named the subgoal 'tighten'"):
        audit(lambda text: {"tighten": 1.0}, family, text=True, **settings)
    with pytest.raises(bp.InvalidPlannerError, match="cannot read words"):
        audit(BailPlanner(family, experts), family, text=True, **settings)
    prompt = bp.Prompt(current_observations=[0])
    text = question(prompt, family)
    assert "B) change the oil" in text
    assert repr(read_question(text, family)) == repr(prompt)
    with pytest.raises(bp.InvalidPromptError, match="writes them"):
        read_question(text.replace("B) change", "B) drink"), family)
    with pytest.raises(bp.InvalidPromptError, match="no episode"):
        read_question("Hello", family)


PLANNER = """
import numpy as np
from bayespar.planning.bail import BailPlanner, BailState
import bayespar as bp

def planner(family):
    return BailPlanner(family, bp.solve_experts(family))

def stubborn(prompt):
    return np.array([1.0, 0, 0])

def broken(family):
    raise RuntimeError("no")
"""


def test_planners_by_name(tmp_path):
    family, experts = world()
    path = tmp_path / "mine.py"
    path.write_text(PLANNER)
    assert isinstance(named_planner(f"{path}:planner", family, experts), BailPlanner)
    assert named_planner(f"{path}:stubborn", family, experts)(None)[0] == 1
    assert isinstance(named_planner("bail", family, experts), BailPlanner)
    for name, message in {
        "oracle": "knows the task",
        "nobody": "give 'bail'",
        f"{path}:nothing": "has no planner named 'nothing'",
        f"{path}:broken": "cannot be loaded: RuntimeError: no",
        "nowhere.py:planner": "there is no file",
        "no_such_module:planner": "ModuleNotFoundError",
    }.items():
        with pytest.raises(bp.InvalidPlannerError, match=message):
            named_planner(name, family, experts)


def test_unusable_input_is_refused_before_any_work():
    family, experts = world()
    ask = functools.partial(audit, family_or_program=family, experts=experts)
    for changes, message in (
        ({"budget": 10}, "2 prompts or more, of 32 decisions"),
        ({"prompts": 1}, "ask for more prompts"),
        ({"episodes": 0}, "episodes = 0"),
        ({"alpha": 2}, "alpha = 2"),
        ({"resolution": 0}, "resolution = 0"),
        ({"seeds": -1}, "seeds = -1"),
    ):
        with pytest.raises(bp.InvalidPlannerError, match=message):
            ask("bail", **changes)
    with pytest.raises(bp.InvalidPlannerError, match="no planner"):
        ask(3.5)
    still = bp.enumerate_program(functools.partial(bp.load_model("random_world"), 0, (2, 2, 2, 2, 1)))
    with pytest.raises(bp.InvalidWorldError, match="H = 1"):
        audit("bail", still)


def test_json_and_page(tmp_path):
    found = audited("argmax", "workshop")
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["name"] == "argmax"
    assert data["comparison"]["asked"] == "inf"
    assert data["ranking"]["rows"][0]["name"] == "argmax"
    assert len(data["comparison"]["by_position"]["mean"]) == EPISODES
    page = render(found)
    assert page == render(found)
    assert found.finding[1:] in page
    assert "ruled out" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    paths = write_audit(found, tmp_path / "out")
    assert [p.name for p in paths] == ["audit.json", "audit.html"]
    assert json.loads(paths[0].read_text())["finding"] == found.finding
    text = str(found)
    assert found.finding in text
    assert "excess infinite" in text


def test_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["bayespar.cli.main"], "COMMANDS", (audit_command,))
    (tmp_path / "mine.py").write_text(PLANNER)
    small = ["--prompts", str(PROMPTS), "--episodes", str(EPISODES), "--seeds", "0"]
    path = f"{tmp_path / 'mine.py'}:planner"
    assert main(["audit", "workshop", path, *small]) == 0
    printed = capsys.readouterr().out
    assert "nothing found" in printed
    assert path in printed
    assert main(["audit", "workshop", "map", *small, "--json", "--out", str(tmp_path / "out")]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["name"] == "map expert"
    assert data["planner"] == "map"
    assert (tmp_path / "out" / "audit.html").exists()
    assert main(["audit", "workshop"]) == 2
    assert "give a planner" in capsys.readouterr().err
    assert main(["audit", "workshop", "--endpoint", "http://127.0.0.1:1/v1"]) == 2
    assert "--model" in capsys.readouterr().err
