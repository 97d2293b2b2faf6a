"""A planner behind an OpenAI-compatible HTTP endpoint: one question a decision, answered by one letter.

The prompt is put into words, the subgoals are lettered, and one token is asked for, with the log-probabilities of the
likeliest ones (``top_logprobs`` of a chat completion). A letter's probability is that of the tokens that say it ("A",
" A", "A)"), over all letters' together. What is not known is said, never filled in quietly: a subgoal whose letter is
not among the tokens gets the most that it can have (no more than the least likely token listed, and its even share of
what the list leaves), which counts as *unseen*; what goes to tokens that are no letter is *stray*.

The key is read from the environment when a client is made, and is not kept here: no cache, error or report holds it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sqlite3
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from jaxtyping import Float

from ..errors import BayesparError, InvalidPlannerError
from ..history import Prompt, check_prompt
from ..planning.by_draws import check_decision
from ..posterior.arviz import MissingPackageError
from ..validation import check_count, check_limit, shown
from ..world import Family
from .server import serve as serve
from .text import check_letters, question

_SAYS_LETTER = " \t\n\r).:"
_NO_KEY = "none"  # local servers want one, and do not look at it


class EndpointError(BayesparError):
    """An endpoint did not answer, not as it must, or the budget of calls is spent."""


@dataclass(frozen=True)
class Answer:
    """What one answer says.

    Attributes:
        probabilities: of the subgoals, [G].
        unseen: the share that belongs to subgoals whose letter was not listed; an upper bound.
        stray: probability of tokens that are no letter.
    """

    probabilities: Float[np.ndarray, " G"]
    unseen: float
    stray: float


class Endpoint:
    """A callable from a :class:`Prompt` to probabilities [G], for :func:`audit` and :func:`simulate_regret`.

    Attributes:
        calls: requests made so far; one that the client repeats after a failure counts once.
        reused: answers that came from the cache.
    """

    def __init__(
        self,
        family: Family,
        model: str,
        *,
        url: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        budget: int | None = None,
        cache: str | Path | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        at_once: int = 8,
        top_logprobs: int = 20,
    ):
        """
        Args:
            family: whose words are used; at most 26 subgoals.
            model: its name at the endpoint.
            url: such as "http://127.0.0.1:8000/v1"; OpenAI's own by default.
            key_variable: the environment variable with the key; if it is not set and ``url`` is given, none is sent.
            budget: the most calls; no limit by default.
            cache: an SQLite file, made if it is not there, of all answers; a run with the same file does not ask again.
            timeout: of a request, seconds.
            retries: how often a request that failed is repeated, after longer and longer pauses.
            at_once: requests under way at the same time, in :meth:`batch`.
            top_logprobs: how many tokens are listed; 20 is the most that OpenAI gives.

        Raises:
            MissingPackageError: ``openai`` is not installed.
            InvalidPlannerError: no key, more subgoals than letters, or an option that is none.
        """
        self.letters = check_letters(family)
        self.family, self.model = family, model
        if budget is not None:
            check_count("budget", budget)
        check_limit("timeout", timeout, InvalidPlannerError)
        for name, value in (("at_once", at_once), ("top_logprobs", top_logprobs)):
            check_count(name, value)
        self._client = _client(url, key_variable, timeout, retries)
        self.url = str(self._client.base_url)
        self.budget, self.at_once = budget, at_once
        self._options = {"max_tokens": 1, "temperature": 1, "logprobs": True, "top_logprobs": top_logprobs}
        self.calls = self.reused = 0
        self._unseen: list[float] = []
        self._stray: list[float] = []
        self._lock = threading.Lock()
        self._cache_name = "memory" if cache is None else str(cache)
        try:
            self._cache = sqlite3.connect(":memory:" if cache is None else str(cache), check_same_thread=False)
            with self._cache:
                self._cache.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, tokens TEXT NOT NULL)")
        except sqlite3.Error as error:
            raise InvalidPlannerError(f"cache = {shown(str(cache))}: {error}") from None

    def __call__(self, prompt: Prompt) -> Float[np.ndarray, " G"]:
        """The probabilities after one prompt.

        Raises:
            EndpointError: no usable answer, or the budget is spent.
            InvalidPromptError: there is no decision to make.
        """
        check_prompt(prompt, self.family)
        check_decision(prompt, self.family)
        messages = [{"role": "user", "content": question(prompt, self.family)}]
        asked = json.dumps([self.url, self.model, messages, self._options], sort_keys=True)
        key = hashlib.sha256(asked.encode()).hexdigest()
        with self._lock:
            row = self._cache.execute("SELECT tokens FROM answers WHERE key = ?", (key,)).fetchone()
            if row is not None:
                self.reused += 1
            elif self.budget is not None and self.calls >= self.budget:
                raise EndpointError(
                    f"the budget of {self.budget} calls is spent; its answers are kept in {self._cache_name}: "
                    "with a larger budget and the same cache they are not asked for again"
                )
            else:
                self.calls += 1
        if row is not None:
            tokens = [(token, logprob) for token, logprob in json.loads(row[0])]
        else:
            tokens = self._ask(messages)
            with self._lock, self._cache:
                self._cache.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(tokens)))
        answer = read_answer(tokens, self.letters)
        with self._lock:
            self._unseen.append(answer.unseen)
            self._stray.append(answer.stray)
        return answer.probabilities

    def batch(self, prompts: Sequence[Prompt]) -> list[Float[np.ndarray, " G"]]:
        """The probabilities after many prompts, several at a time; the first error ends it."""
        with ThreadPoolExecutor(self.at_once) as pool:
            answers = [pool.submit(self, prompt) for prompt in prompts]
            try:
                return [a.result() for a in answers]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def notes(self) -> list[str]:
        """What a report should say of the answers."""
        if not self._unseen:
            return []
        return [
            f"{self.calls} calls to {self.url}, model {self.model}; {self.reused} answers from the cache",
            f"unseen {np.mean(self._unseen):.2g} on average and {max(self._unseen):.2g} at most: the share of subgoals "
            "whose letter was not listed, an upper bound",
            f"stray {np.mean(self._stray):.2g} on average and {max(self._stray):.2g} at most: probability of tokens "
            "that are no letter, left out before normalising",
        ]

    def _ask(self, messages: list[dict[str, str]]) -> list[tuple[str, float]]:
        """The listed tokens and their log-probabilities."""
        import openai

        try:
            found: Any = self._client.chat.completions.create(
                model=self.model,
                messages=messages,  # pyright: ignore[reportArgumentType]
                **self._options,
            )
            listed = found.choices[0].logprobs.content[0].top_logprobs
            return [(str(item.token), float(item.logprob)) for item in listed]
        except openai.APIStatusError as error:
            told = "" if error.status_code in (401, 403) else f": {self._scrubbed(error.message)}"
            cure = "; is the key in the environment the right one?" if not told else ""
            raise EndpointError(f"{self.url} answered with status {error.status_code}{told}{cure}") from None
        except openai.OpenAIError as error:
            raise EndpointError(f"{self.url} did not answer: {type(error).__name__}") from None
        except (AttributeError, IndexError, TypeError, ValueError):
            raise EndpointError(
                f"{self.url} answered without choices[0].logprobs.content[0].top_logprobs; "
                "choose a model and a server that give log-probabilities"
            ) from None

    def _scrubbed(self, message: str) -> str:
        key = self._client.api_key
        return shown(message.replace(key, "***") if key and key != _NO_KEY else message)


def read_answer(tokens: Sequence[tuple[str, float]], letters: Sequence[str]) -> Answer:
    """Probabilities of lettered subgoals from listed tokens (token, log-probability).

    Raises:
        EndpointError: no letter has any probability.
    """
    listed = [(token.strip(_SAYS_LETTER), math.exp(min(logprob, 0.0))) for token, logprob in tokens]
    said = {letter: sum(p for token, p in listed if token == letter) for letter in letters}
    missing = [letter for letter in letters if all(token != letter for token, _ in listed)]
    left = max(0.0, 1 - sum(p for _, p in listed))
    most = min(left / max(len(missing), 1), min((p for _, p in listed), default=1.0))
    seen = sum(said.values())
    total = seen + most * len(missing)
    if not seen > 0:
        raise EndpointError(
            f"none of the letters {', '.join(letters)} is among the listed tokens {shown(list(tokens))}"
        )
    probabilities = np.array([most if letter in missing else said[letter] for letter in letters]) / total
    return Answer(probabilities, most * len(missing) / total, max(0.0, 1 - total))


def _client(url: str | None, key_variable: str, timeout: float, retries: int) -> Any:
    if find_spec("openai") is None:
        raise MissingPackageError('openai is not installed; pip install "bayespar[audit]"')
    from openai import OpenAI

    if url is not None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.username or parts.password or parts.query:
            raise InvalidPlannerError(
                "the url of an endpoint is like https://host/v1, without a name, a password or a query: "
                f"a key belongs into the environment variable {key_variable}"
            )
    key = os.environ.get(key_variable)
    if not key and url is None:
        raise InvalidPlannerError(f"the environment variable {key_variable} is not set; put the key there")
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InvalidPlannerError(f"retries = {shown(retries)}; give an integer of at least 0")
    return OpenAI(api_key=key or _NO_KEY, base_url=url, timeout=timeout, max_retries=retries)
