"""Planners behind an OpenAI-compatible endpoint, end to end on loopback."""

from __future__ import annotations

import functools
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import pytest

import bayespar as bp
from bayespar.learned import endpoint as endpoint_module
from bayespar.learned.audit import audit
from bayespar.learned.endpoint import Endpoint, EndpointError, read_answer, serve
from bayespar.planning.bail import BailPlanner
from bayespar.posterior.arviz import MissingPackageError

openai = pytest.importorskip("openai")
SECRET = "sk-not-to-be-seen-anywhere"


@functools.cache
def world():
    family = bp.enumerate_program(bp.load_model("workshop")).astype(np.float64)
    return family, bp.solve_experts(family)


@pytest.fixture(scope="module")
def served():
    family, experts = world()
    with serve(BailPlanner(family, experts), family) as server:
        yield server


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)


PROMPT = bp.Prompt(current_observations=[0])


def test_an_audit_through_the_endpoint_is_that_of_the_planner(served, tmp_path):
    family, experts = world()
    settings = {"prompts": 8, "episodes": 2, "seeds": 0, "experts": experts, "key": 4}
    decisions = 8 * 2 * 2
    inside = audit(BailPlanner(family, experts), family, **settings)
    cache = tmp_path / "answers.sqlite"
    first = Endpoint(family, served.model, url=served.url, cache=cache, budget=20, at_once=4)
    with pytest.raises(EndpointError, match="budget of 20 calls is spent"):
        audit(first, family, **settings)
    assert first.calls == 20
    again = Endpoint(family, served.model, url=served.url, cache=cache, budget=decisions, at_once=4)
    found = audit(again, family, **settings)
    assert again.calls <= decisions - 15  # some may have been under way when the budget was spent
    assert again.calls + again.reused == decisions
    for name in ("excess", "tv"):
        a, b = getattr(found.comparison, name), getattr(inside.comparison, name)
        assert (a.mean, a.low, a.high) == pytest.approx((b.mean, b.low, b.high), abs=1e-6)
    assert np.abs(found.comparison.by_position.mean - inside.comparison.by_position.mean).max() <= 1e-6
    for a, b in zip(found.ranking.rows, inside.ranking.rows, strict=True):
        assert (a.name, a.nats, a.log_e) == (b.name, pytest.approx(b.nats, abs=1e-6), pytest.approx(b.log_e, abs=1e-3))
    assert (found.found, found.name, found.finding) == (inside.found, inside.name, inside.finding)
    assert any("unseen 0 on average" in note for note in found.notes)
    # What a report or a cache holds, anyone may see.
    assert SECRET not in json.dumps(found.to_dict()) + str(found) + repr(vars(again))
    assert SECRET.encode() not in cache.read_bytes()


def test_an_endpoint_acts_in_the_online_loop(served):
    family, experts = world()
    ask = Endpoint(family, served.model, url=served.url)
    through = bp.simulate_regret(family, 0, ask, 0.0, 1, 2, experts=experts, key=3)
    inside = bp.simulate_regret(family, 0, "bail", 0.0, 1, 2, experts=experts, key=3)
    assert np.abs(through.regret - inside.regret).max() <= 1e-6
    assert ask.calls > 0


def test_one_answer(served):
    family, experts = world()
    ask = Endpoint(family, served.model, url=served.url)
    assert np.abs(ask(PROMPT) - bp.bail(family, PROMPT, experts=experts)).max() <= 1e-12
    assert np.array_equal(ask(PROMPT), ask(PROMPT))
    assert (ask.calls, ask.reused) == (1, 2)
    with pytest.raises(bp.InvalidPromptError, match="a decision is made after"):
        ask(bp.Prompt())


def test_reading_listed_tokens():
    log = np.log
    plain = read_answer([("A", log(0.5)), ("B", log(0.3)), (" A", log(0.1)), ("the", log(0.05))], ["A", "B"])
    assert plain.probabilities == pytest.approx([0.6 / 0.9, 0.3 / 0.9])
    assert plain.unseen == 0
    assert plain.stray == pytest.approx(0.1)
    # A letter that is not listed has no more than the least listed token, and than what is left.
    cut = read_answer([("A", log(0.7)), ("B", log(0.2))], ["A", "B", "C"])
    assert cut.probabilities == pytest.approx([0.7, 0.2, 0.1])
    assert cut.unseen == pytest.approx(0.1)
    tight = read_answer([("A", log(0.7)), ("x", log(0.02))], ["A", "B", "C"])
    assert tight.probabilities == pytest.approx(np.array([0.7, 0.02, 0.02]) / 0.74)
    assert tight.unseen == pytest.approx(0.04 / 0.74)
    never = read_answer([("A", 0.0), ("B", -9999.0)], ["A", "B"])
    assert never.probabilities.tolist() == [1, 0]
    assert never.unseen == 0
    with pytest.raises(EndpointError, match="none of the letters A, B"):
        read_answer([("the", 0.0)], ["A", "B"])


class Scripted:
    """A server that gives these (status, body) in turn, and the last one for ever."""

    def __init__(self, *answers):
        self.answers, self.asked, self.keys = list(answers), 0, set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["Content-Length"]))
                outer.keys.add(self.headers["Authorization"])
                status, body = outer.answers[min(outer.asked, len(outer.answers) - 1)]
                outer.asked += 1
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def completion(**logprobs):
    listed = [{"token": t, "logprob": p, "bytes": None} for t, p in logprobs.items()]
    content = [listed[0] | {"top_logprobs": listed}] if listed else None
    choice = {"index": 0, "finish_reason": "length", "message": {"role": "assistant", "content": "A"}}
    choice["logprobs"] = {"content": content} if content else None
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def test_failures_are_retried_then_told_without_the_key():
    family, _ = world()
    flaky = Scripted((500, {}), (429, {}), (200, completion(A=-0.1, B=-3.0, C=-4.0)))
    found = Endpoint(family, "m", url=flaky.url, retries=2)(PROMPT)
    assert flaky.asked == 3
    assert found == pytest.approx(np.exp([-0.1, -3, -4]) / np.exp([-0.1, -3, -4]).sum())
    assert flaky.keys == {f"Bearer {SECRET}"}
    echoing = {"error": {"message": f"no model m for {SECRET}"}}
    for answer, retries, message in (
        ((500, {}), 1, "status 500"),
        ((401, echoing), 0, "status 401; is the key"),
        ((404, echoing), 0, r"status 404.*no model m for \*\*\*"),
        ((200, completion()), 0, "choose a model and a server that give log-probabilities"),
        ((200, {}), 0, "choose a model"),
    ):
        scripted = Scripted(answer)
        with pytest.raises(EndpointError, match=message) as caught:
            Endpoint(family, "m", url=scripted.url, retries=retries)(PROMPT)
        assert scripted.asked == 1 + retries
        shown = caught.value
        while shown is not None:
            assert SECRET not in str(shown)
            shown = shown.__cause__ or (None if shown.__suppress_context__ else shown.__context__)
    scripted.server.shutdown()
    scripted.server.server_close()
    with pytest.raises(EndpointError, match="did not answer: APIConnectionError"):
        Endpoint(family, "m", url=scripted.url, retries=0, timeout=5)(PROMPT)


def test_requests_that_are_no_question_are_refused(served):
    client = openai.OpenAI(base_url=served.url, api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError, match="no episode"):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}])
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="m", input="Hello")


def test_unusable_settings(monkeypatch, tmp_path):
    family, _ = world()
    for changes, message in (
        ({"url": "http://me:word@host/v1"}, "OPENAI_API_KEY"),
        ({"url": "host/v1"}, "is like https://host/v1"),
        ({"budget": 0}, "budget = 0"),
        ({"timeout": -1}, "timeout = -1"),
        ({"retries": -1}, "retries = -1"),
        ({"cache": tmp_path}, "unable to open"),
        ({"key_variable": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is not set"),
    ):
        with pytest.raises(bp.InvalidPlannerError, match=message) as caught:
            Endpoint(family, "m", **changes)
        assert "word" not in str(caught.value).replace("password", "")
    many = bp.enumerate_program(functools.partial(bp.load_model("needle"), tasks=40))
    with pytest.raises(bp.InvalidPlannerError, match="cannot be lettered"):
        Endpoint(many, "m")
    monkeypatch.setattr(endpoint_module, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"bayespar\[audit\]"):
        Endpoint(family, "m")
